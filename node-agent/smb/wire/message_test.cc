// Messages: every field survives the way there and back, stands where [MS-SMB2] 2.2 says, and no
// body that is cut short is accepted.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "node-agent/smb/wire/break.h"
#include "node-agent/smb/wire/create.h"
#include "node-agent/smb/wire/io.h"
#include "node-agent/smb/wire/ioctl.h"
#include "node-agent/smb/wire/negotiate.h"
#include "node-agent/smb/wire/query.h"
#include "node-agent/smb/wire/session.h"
#include "node-agent/smb/wire/test_bytes.h"

namespace dfscsi::smb::wire {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

constexpr FileId kFile = {0x1111111111111111, 0x2222222222222222};
constexpr FileAttributes kAttributes = {1, 2, 3, 4, 4096, 3, kAttributeArchive};

Guid GuidOf(uint8_t first) {
  Guid guid;
  for (size_t i = 0; i < guid.size(); ++i) guid[i] = static_cast<uint8_t>(first + i);
  return guid;
}

// Whatever is cut off the end, the decoder must notice or do without it; and it must fail below
// `smallest` bytes.
template <typename Decode>
void ExpectNoCutIsAccepted(const std::vector<uint8_t>& body, size_t smallest, Decode decode) {
  for (size_t size = 0; size < smallest; ++size) {
    // A vector of its own, so that AddressSanitizer sees a read beyond it.
    const std::vector<uint8_t> cut(body.begin(), body.begin() + size);
    EXPECT_EQ(decode(cut).code(), absl::StatusCode::kDataLoss) << size << " of " << body.size();
  }
}

template <typename Decode>
auto StatusOf(Decode decode) {
  return [decode](Bytes body) { return absl::Status(decode(body).status()); };
}

NegotiateRequest FullNegotiateRequest() {
  NegotiateRequest request;
  request.security_mode = kSigningRequired;
  request.capabilities = kCapDfs | kCapLargeMtu;
  request.client_guid = GuidOf(1);
  request.dialects = {Dialect::k302, Dialect::k311};
  request.contexts.hashes = {kSha512};
  request.contexts.salt.assign(32, 0x5A);
  request.contexts.ciphers = {CipherId::kAes128Gcm, CipherId::kAes256Gcm, CipherId::kAes128Ccm};
  request.contexts.signings = {SigningId::kAesGmac, SigningId::kAesCmac};
  request.contexts.net_name = u"files.example";
  return request;
}

TEST(NegotiateRequestTest, RoundTrips) {
  const NegotiateRequest request = FullNegotiateRequest();
  const std::vector<uint8_t> body =
      BodyOf([&](Writer& writer) { EncodeNegotiateRequest(request, writer); });
  EXPECT_EQ(NumberIn<uint16_t>(body, 0), 36);
  EXPECT_EQ(NumberIn<uint16_t>(body, 2), 2);              // DialectCount
  EXPECT_EQ(NumberIn<uint32_t>(body, 28), 64u + 36 + 4);  // Contexts, 8-aligned.
  EXPECT_EQ(NumberIn<uint16_t>(body, 32), 4);             // Their count.
  EXPECT_EQ(NumberIn<uint16_t>(body, 38), 0x0311);
  const absl::StatusOr<NegotiateRequest> decoded = DecodeNegotiateRequest(body);
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  EXPECT_EQ(decoded->security_mode, request.security_mode);
  EXPECT_EQ(decoded->capabilities, request.capabilities);
  EXPECT_EQ(decoded->client_guid, request.client_guid);
  EXPECT_EQ(decoded->dialects, request.dialects);
  EXPECT_EQ(decoded->contexts.hashes, request.contexts.hashes);
  EXPECT_EQ(decoded->contexts.salt, request.contexts.salt);
  EXPECT_EQ(decoded->contexts.ciphers, request.contexts.ciphers);
  EXPECT_EQ(decoded->contexts.signings, request.contexts.signings);
  EXPECT_EQ(decoded->contexts.net_name, request.contexts.net_name);
  ExpectNoCutIsAccepted(body, body.size(), StatusOf(DecodeNegotiateRequest));
}

TEST(NegotiateRequestTest, HasNoContextsBelow311) {
  NegotiateRequest request = FullNegotiateRequest();
  request.dialects = {Dialect::k210, Dialect::k300};
  const std::vector<uint8_t> body =
      BodyOf([&](Writer& writer) { EncodeNegotiateRequest(request, writer); });
  EXPECT_EQ(body.size(), 40u);
  EXPECT_EQ(NumberIn<uint64_t>(body, 28), 0u);
  const absl::StatusOr<NegotiateRequest> decoded = DecodeNegotiateRequest(body);
  ASSERT_TRUE(decoded.ok());
  EXPECT_THAT(decoded->contexts.hashes, IsEmpty());
}

TEST(NegotiateRequestTest, RejectsNoDialect) {
  NegotiateRequest request;
  const std::vector<uint8_t> body =
      BodyOf([&](Writer& writer) { EncodeNegotiateRequest(request, writer); });
  EXPECT_FALSE(DecodeNegotiateRequest(body).ok());
}

NegotiateResponse FullNegotiateResponse(Bytes token) {
  NegotiateResponse response;
  response.security_mode = kSigningEnabled;
  response.dialect = Dialect::k311;
  response.server_guid = GuidOf(9);
  response.capabilities = kCapDfs | kCapLargeMtu | kCapLeasing;
  response.max_transact_bytes = 1 << 20;
  response.max_read_bytes = 2 << 20;
  response.max_write_bytes = 4 << 20;
  response.system_time = 0x01D0000000000000;
  response.server_start_time = 5;
  response.security_buffer = token;
  response.contexts.hashes = {kSha512};
  response.contexts.salt.assign(32, 0xA5);
  response.contexts.ciphers = {CipherId::kAes128Gcm};
  response.contexts.signings = {SigningId::kAesGmac};
  return response;
}

std::vector<uint8_t> Encoded(const NegotiateResponse& response) {
  return BodyOf([&](Writer& writer) { EncodeNegotiateResponse(response, writer); });
}

TEST(NegotiateResponseTest, RoundTrips) {
  const std::vector<uint8_t> token = FromHex("6001020304");
  const NegotiateResponse response = FullNegotiateResponse(token);
  const std::vector<uint8_t> body = Encoded(response);
  EXPECT_EQ(NumberIn<uint16_t>(body, 0), 65);
  EXPECT_EQ(NumberIn<uint16_t>(body, 4), 0x0311);
  EXPECT_EQ(NumberIn<uint16_t>(body, 6), 3);     // Contexts
  EXPECT_EQ(NumberIn<uint16_t>(body, 56), 128);  // SecurityBufferOffset
  EXPECT_EQ(NumberIn<uint16_t>(body, 58), 5);
  EXPECT_EQ(NumberIn<uint32_t>(body, 60) % 8, 0u);
  const absl::StatusOr<NegotiateResponse> decoded = DecodeNegotiateResponse(body);
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  EXPECT_EQ(decoded->dialect, Dialect::k311);
  EXPECT_EQ(decoded->server_guid, response.server_guid);
  EXPECT_EQ(decoded->capabilities, response.capabilities);
  EXPECT_EQ(decoded->max_transact_bytes, response.max_transact_bytes);
  EXPECT_EQ(decoded->max_read_bytes, response.max_read_bytes);
  EXPECT_EQ(decoded->max_write_bytes, response.max_write_bytes);
  EXPECT_EQ(decoded->system_time, response.system_time);
  EXPECT_EQ(decoded->server_start_time, response.server_start_time);
  EXPECT_EQ(decoded->security_buffer, Bytes(token));
  EXPECT_THAT(decoded->contexts.hashes, ElementsAre(kSha512));
  EXPECT_THAT(decoded->contexts.ciphers, ElementsAre(CipherId::kAes128Gcm));
  EXPECT_THAT(decoded->contexts.signings, ElementsAre(SigningId::kAesGmac));
  ExpectNoCutIsAccepted(body, body.size(), StatusOf(DecodeNegotiateResponse));
}

TEST(NegotiateResponseTest, OlderDialectsHaveNoContexts) {
  NegotiateResponse response = FullNegotiateResponse({});
  response.dialect = Dialect::k302;
  const absl::StatusOr<NegotiateResponse> decoded = DecodeNegotiateResponse(Encoded(response));
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  EXPECT_THAT(decoded->contexts.ciphers, IsEmpty());
  EXPECT_THAT(decoded->security_buffer, IsEmpty());
}

TEST(NegotiateResponseTest, RejectsWhatAReplyMayNotSay) {
  const struct {
    const char* name;
    std::function<void(NegotiateResponse&)> change;
  } kCases[] = {
      {"MaxTransactSize below 64 KiB", [](auto& r) { r.max_transact_bytes = 65535; }},
      {"MaxReadSize below 64 KiB", [](auto& r) { r.max_read_bytes = 0; }},
      {"MaxWriteSize below 64 KiB", [](auto& r) { r.max_write_bytes = 4096; }},
      {"3.1.1 without preauth integrity", [](auto& r) { r.contexts.hashes.clear(); }},
      {"two hashes", [](auto& r) { r.contexts.hashes = {1, 2}; }},
      {"two ciphers",
       [](auto& r) { r.contexts.ciphers = {CipherId::kAes128Gcm, CipherId::kAes128Ccm}; }},
      {"two signing algorithms",
       [](auto& r) { r.contexts.signings = {SigningId::kAesGmac, SigningId::kAesCmac}; }},
  };
  for (const auto& test : kCases) {
    NegotiateResponse response = FullNegotiateResponse({});
    test.change(response);
    EXPECT_EQ(DecodeNegotiateResponse(Encoded(response)).status().code(),
              absl::StatusCode::kDataLoss)
        << test.name;
  }
}

TEST(NegotiateResponseTest, RejectsBrokenContexts) {
  const std::vector<uint8_t> good = Encoded(FullNegotiateResponse({}));
  const size_t contexts = NumberIn<uint32_t>(good, 60) - 64;
  const size_t second = contexts + 8 + ((NumberIn<uint16_t>(good, contexts + 2) + 7) & ~7);
  const struct {
    const char* name;
    std::function<void(std::vector<uint8_t>&)> change;
  } kCases[] = {
      {"offset in the header", [](auto& b) { SetNumber<uint32_t>(b, 60, 56); }},
      {"offset in the fixed part", [](auto& b) { SetNumber<uint32_t>(b, 60, 64 + 56); }},
      {"offset not aligned", [](auto& b) { SetNumber<uint32_t>(b, 60, 132); }},
      {"offset beyond the end", [](auto& b) { SetNumber<uint32_t>(b, 60, 0xFFFFFFF8); }},
      {"count too high", [](auto& b) { SetNumber<uint16_t>(b, 6, 4); }},
      {"length beyond the end", [=](auto& b) { SetNumber<uint16_t>(b, contexts + 2, 0xFFFF); }},
      {"duplicate", [=](auto& b) { SetNumber<uint16_t>(b, second, 1); }},
      {"more hashes than data", [=](auto& b) { SetNumber<uint16_t>(b, contexts + 8, 0xFFFF); }},
      {"salt longer than data", [=](auto& b) { SetNumber<uint16_t>(b, contexts + 10, 0xFFFF); }},
      {"more ciphers than data", [=](auto& b) { SetNumber<uint16_t>(b, second + 8, 2); }},
  };
  ASSERT_TRUE(DecodeNegotiateResponse(good).ok());
  ASSERT_EQ(NumberIn<uint16_t>(good, second), 2);  // ENCRYPTION
  for (const auto& test : kCases) {
    std::vector<uint8_t> body = good;
    test.change(body);
    EXPECT_EQ(DecodeNegotiateResponse(body).status().code(), absl::StatusCode::kDataLoss)
        << test.name;
  }
}

TEST(NegotiateResponseTest, IgnoresContextsItDoesNotKnow) {
  std::vector<uint8_t> body = Encoded(FullNegotiateResponse({}));
  const size_t contexts = NumberIn<uint32_t>(body, 60) - 64;
  const size_t second = contexts + 8 + ((NumberIn<uint16_t>(body, contexts + 2) + 7) & ~7);
  SetNumber<uint16_t>(body, second, 0x77);
  const absl::StatusOr<NegotiateResponse> decoded = DecodeNegotiateResponse(body);
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  EXPECT_THAT(decoded->contexts.ciphers, IsEmpty());
}

TEST(SessionSetupTest, RoundTrips) {
  const std::vector<uint8_t> token = FromHex("a1b2c3");
  SessionSetupRequest request;
  request.flags = kSessionSetupBinding;
  request.security_mode = kSigningRequired;
  request.capabilities = kCapDfs;
  request.previous_session_id = 0x77;
  request.security_buffer = token;
  const std::vector<uint8_t> body =
      BodyOf([&](Writer& writer) { EncodeSessionSetupRequest(request, writer); });
  EXPECT_EQ(NumberIn<uint16_t>(body, 12), 88);
  EXPECT_EQ(NumberIn<uint64_t>(body, 16), 0x77u);
  const absl::StatusOr<SessionSetupRequest> decoded = DecodeSessionSetupRequest(body);
  ASSERT_TRUE(decoded.ok());
  EXPECT_EQ(decoded->flags, request.flags);
  EXPECT_EQ(decoded->security_mode, kSigningRequired);
  EXPECT_EQ(decoded->capabilities, kCapDfs);
  EXPECT_EQ(decoded->previous_session_id, 0x77u);
  EXPECT_EQ(decoded->security_buffer, Bytes(token));
  ExpectNoCutIsAccepted(body, body.size(), StatusOf(DecodeSessionSetupRequest));

  SessionSetupResponse response;
  response.session_flags = kSessionEncryptData;
  response.security_buffer = token;
  const std::vector<uint8_t> reply =
      BodyOf([&](Writer& writer) { EncodeSessionSetupResponse(response, writer); });
  EXPECT_EQ(NumberIn<uint16_t>(reply, 4), 72);
  const absl::StatusOr<SessionSetupResponse> decoded_reply = DecodeSessionSetupResponse(reply);
  ASSERT_TRUE(decoded_reply.ok());
  EXPECT_EQ(decoded_reply->session_flags, kSessionEncryptData);
  EXPECT_EQ(decoded_reply->security_buffer, Bytes(token));
  ExpectNoCutIsAccepted(reply, reply.size(), StatusOf(DecodeSessionSetupResponse));
}

TEST(SessionSetupTest, ABufferMustLieBehindTheFixedPart) {
  const std::vector<uint8_t> token(16);
  SessionSetupResponse response;
  response.security_buffer = token;
  std::vector<uint8_t> body =
      BodyOf([&](Writer& writer) { EncodeSessionSetupResponse(response, writer); });
  for (const uint16_t offset : {0, 8, 63, 64, 71, 73, 0xFFFF}) {
    SetNumber<uint16_t>(body, 4, offset);
    EXPECT_FALSE(DecodeSessionSetupResponse(body).ok()) << offset;
  }
  // An empty buffer's offset means nothing.
  SetNumber<uint16_t>(body, 4, 0);
  SetNumber<uint16_t>(body, 6, 0);
  EXPECT_TRUE(DecodeSessionSetupResponse(body).ok());
}

TEST(TreeConnectTest, RoundTrips) {
  TreeConnectRequest request;
  request.path = u"\\\\server\\share";
  const std::vector<uint8_t> body =
      BodyOf([&](Writer& writer) { EncodeTreeConnectRequest(request, writer); });
  EXPECT_EQ(NumberIn<uint16_t>(body, 4), 72);
  EXPECT_EQ(NumberIn<uint16_t>(body, 6), 28);
  const absl::StatusOr<TreeConnectRequest> decoded = DecodeTreeConnectRequest(body);
  ASSERT_TRUE(decoded.ok());
  EXPECT_EQ(decoded->path, request.path);
  ExpectNoCutIsAccepted(body, body.size(), StatusOf(DecodeTreeConnectRequest));
  std::vector<uint8_t> odd = body;
  SetNumber<uint16_t>(odd, 6, 27);
  EXPECT_FALSE(DecodeTreeConnectRequest(odd).ok());

  const TreeConnectResponse response = {kShareDisk, kShareFlagDfs | kShareFlagDfsRoot, kShareCapDfs,
                                        0x001F01FF};
  const std::vector<uint8_t> reply =
      BodyOf([&](Writer& writer) { EncodeTreeConnectResponse(response, writer); });
  EXPECT_EQ(reply.size(), 16u);
  const absl::StatusOr<TreeConnectResponse> decoded_reply = DecodeTreeConnectResponse(reply);
  ASSERT_TRUE(decoded_reply.ok());
  EXPECT_EQ(decoded_reply->share_type, kShareDisk);
  EXPECT_EQ(decoded_reply->share_flags, 3u);
  EXPECT_EQ(decoded_reply->capabilities, kShareCapDfs);
  EXPECT_EQ(decoded_reply->maximal_access, 0x001F01FFu);
  ExpectNoCutIsAccepted(reply, 16, StatusOf(DecodeTreeConnectResponse));
}

TEST(EmptyBodyTest, IsFourBytes) {
  const std::vector<uint8_t> body = BodyOf(EncodeEmptyBody);
  EXPECT_EQ(ToHex(body), "04000000");
  EXPECT_TRUE(DecodeEmptyBody(body).ok());
  EXPECT_FALSE(DecodeEmptyBody(Bytes(body).first(3)).ok());
  EXPECT_FALSE(DecodeEmptyBody(FromHex("09000000")).ok());
}

CreateRequest FullCreateRequest() {
  CreateRequest request;
  request.oplock = OplockLevel::kLease;
  request.desired_access = kAccessReadData | kAccessReadAttributes;
  request.file_attributes = kAttributeNormal;
  request.share_access = kShareRead | kShareDelete;
  request.disposition = Disposition::kOpenIf;
  request.options = kOptionNonDirectory;
  request.name = u"dir\\file";
  request.lease =
      Lease{true, GuidOf(1), kLeaseRead | kLeaseHandle, kLeaseParentKeySet, GuidOf(2), 7};
  request.durable = DurableRequest{60000, kDurablePersistent, GuidOf(3)};
  request.durable_reconnect = DurableReconnect{kFile, GuidOf(4), 2};
  request.durable_v1 = true;
  request.durable_v1_reconnect = kFile;
  request.query_maximal_access = true;
  request.query_on_disk_id = true;
  return request;
}

TEST(CreateRequestTest, RoundTrips) {
  const CreateRequest request = FullCreateRequest();
  const std::vector<uint8_t> body =
      BodyOf([&](Writer& writer) { EncodeCreateRequest(request, writer); });
  EXPECT_EQ(NumberIn<uint16_t>(body, 0), 57);
  EXPECT_EQ(body[3], 0xFF);
  EXPECT_EQ(NumberIn<uint16_t>(body, 44), 120);
  EXPECT_EQ(NumberIn<uint16_t>(body, 46), 16);
  EXPECT_EQ(NumberIn<uint32_t>(body, 48), 136u);
  EXPECT_EQ(NumberIn<uint32_t>(body, 52), body.size() + 64 - 136);
  const absl::StatusOr<CreateRequest> decoded = DecodeCreateRequest(body);
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  EXPECT_EQ(decoded->oplock, request.oplock);
  EXPECT_EQ(decoded->desired_access, request.desired_access);
  EXPECT_EQ(decoded->file_attributes, request.file_attributes);
  EXPECT_EQ(decoded->share_access, request.share_access);
  EXPECT_EQ(decoded->disposition, request.disposition);
  EXPECT_EQ(decoded->options, request.options);
  EXPECT_EQ(decoded->name, request.name);
  ASSERT_TRUE(decoded->lease.has_value());
  EXPECT_TRUE(decoded->lease->v2);
  EXPECT_EQ(decoded->lease->key, GuidOf(1));
  EXPECT_EQ(decoded->lease->state, uint32_t{kLeaseRead | kLeaseHandle});
  EXPECT_EQ(decoded->lease->flags, kLeaseParentKeySet);
  EXPECT_EQ(decoded->lease->parent_key, GuidOf(2));
  EXPECT_EQ(decoded->lease->epoch, 7);
  ASSERT_TRUE(decoded->durable.has_value());
  EXPECT_EQ(decoded->durable->timeout_ms, 60000u);
  EXPECT_EQ(decoded->durable->flags, kDurablePersistent);
  EXPECT_EQ(decoded->durable->create_guid, GuidOf(3));
  ASSERT_TRUE(decoded->durable_reconnect.has_value());
  EXPECT_EQ(decoded->durable_reconnect->file_id, kFile);
  EXPECT_EQ(decoded->durable_reconnect->create_guid, GuidOf(4));
  EXPECT_EQ(decoded->durable_reconnect->flags, 2u);
  EXPECT_TRUE(decoded->durable_v1);
  EXPECT_EQ(decoded->durable_v1_reconnect, kFile);
  EXPECT_TRUE(decoded->query_maximal_access);
  EXPECT_TRUE(decoded->query_on_disk_id);
  ExpectNoCutIsAccepted(body, body.size(), StatusOf(DecodeCreateRequest));
}

TEST(CreateRequestTest, TheSharesRootHasAnEmptyNameAndStillOneByteOfBuffer) {
  const std::vector<uint8_t> body =
      BodyOf([](Writer& writer) { EncodeCreateRequest(CreateRequest(), writer); });
  EXPECT_EQ(body.size(), 57u);
  EXPECT_EQ(NumberIn<uint16_t>(body, 46), 0);
  const absl::StatusOr<CreateRequest> decoded = DecodeCreateRequest(body);
  ASSERT_TRUE(decoded.ok());
  EXPECT_EQ(decoded->name, u"");
  EXPECT_FALSE(decoded->lease.has_value());
}

TEST(CreateRequestTest, ANameThatIsTooLongFailsTheWriter) {
  CreateRequest request;
  request.name.assign(32768, u'x');
  std::vector<uint8_t> body;
  Writer writer(&body);
  EncodeCreateRequest(request, writer);
  EXPECT_FALSE(writer.ok());
}

TEST(CreateRequestTest, LeaseV1) {
  CreateRequest request;
  request.lease = Lease{.v2 = false, .key = GuidOf(1), .state = kLeaseRead};
  const std::vector<uint8_t> body =
      BodyOf([&](Writer& writer) { EncodeCreateRequest(request, writer); });
  EXPECT_EQ(body.size(), 56u + 24 + 32);
  const absl::StatusOr<CreateRequest> decoded = DecodeCreateRequest(body);
  ASSERT_TRUE(decoded.ok());
  EXPECT_FALSE(decoded->lease->v2);
  EXPECT_EQ(decoded->lease->key, GuidOf(1));
}

CreateResponse FullCreateResponse() {
  CreateResponse response;
  response.oplock = OplockLevel::kLease;
  response.flags = 1;
  response.action = CreateAction::kCreated;
  response.attributes = kAttributes;
  response.file_id = kFile;
  response.lease = Lease{true, GuidOf(1), kLeaseRead, kLeaseBreakInProgress, GuidOf(2), 3};
  response.durable_v1 = true;
  response.durable = DurableResponse{60000, kDurablePersistent};
  response.maximal_access = MaximalAccess{NtStatus::kSuccess, 0x001F01FF};
  response.on_disk_id = OnDiskId{0x0B, 0x00FE};
  return response;
}

std::vector<uint8_t> Encoded(const CreateResponse& response) {
  return BodyOf([&](Writer& writer) { EncodeCreateResponse(response, writer); });
}

TEST(CreateResponseTest, RoundTrips) {
  const std::vector<uint8_t> body = Encoded(FullCreateResponse());
  EXPECT_EQ(NumberIn<uint16_t>(body, 0), 89);
  EXPECT_EQ(NumberIn<uint64_t>(body, 8), 1u);   // CreationTime
  EXPECT_EQ(NumberIn<uint64_t>(body, 48), 3u);  // EndOfFile
  EXPECT_EQ(NumberIn<uint32_t>(body, 56), uint32_t{kAttributeArchive});
  EXPECT_EQ(NumberIn<uint64_t>(body, 64), kFile.persistent_id);
  EXPECT_EQ(NumberIn<uint32_t>(body, 80), 152u);
  const absl::StatusOr<CreateResponse> decoded = DecodeCreateResponse(body);
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  EXPECT_EQ(decoded->oplock, OplockLevel::kLease);
  EXPECT_EQ(decoded->flags, 1);
  EXPECT_EQ(decoded->action, CreateAction::kCreated);
  EXPECT_EQ(decoded->attributes, kAttributes);
  EXPECT_EQ(decoded->file_id, kFile);
  ASSERT_TRUE(decoded->lease.has_value());
  EXPECT_EQ(decoded->lease->epoch, 3);
  EXPECT_TRUE(decoded->durable_v1);
  ASSERT_TRUE(decoded->durable.has_value());
  EXPECT_EQ(decoded->durable->timeout_ms, 60000u);
  EXPECT_EQ(decoded->durable->flags, kDurablePersistent);
  ASSERT_TRUE(decoded->maximal_access.has_value());
  EXPECT_EQ(decoded->maximal_access->access, 0x001F01FFu);
  ASSERT_TRUE(decoded->on_disk_id.has_value());
  EXPECT_EQ(decoded->on_disk_id->file, 0x0Bu);
  EXPECT_EQ(decoded->on_disk_id->volume, 0xFEu);
  ExpectNoCutIsAccepted(body, body.size(), StatusOf(DecodeCreateResponse));
}

TEST(CreateResponseTest, WithoutContexts) {
  CreateResponse response;
  response.file_id = kFile;
  const std::vector<uint8_t> body = Encoded(response);
  EXPECT_EQ(body.size(), 89u);
  EXPECT_EQ(NumberIn<uint64_t>(body, 80), 0u);
  EXPECT_TRUE(DecodeCreateResponse(body).ok());
  // Some servers leave out the byte that an odd StructureSize asks for.
  EXPECT_TRUE(DecodeCreateResponse(Bytes(body).first(88)).ok());
}

TEST(CreateResponseTest, RejectsContextsThatLeaveTheirRecord) {
  const std::vector<uint8_t> good = Encoded(FullCreateResponse());
  constexpr size_t kFirst = 88;  // In the body.
  const size_t last = [&] {
    size_t at = kFirst;
    while (NumberIn<uint32_t>(good, at) != 0) at += NumberIn<uint32_t>(good, at);
    return at;
  }();
  const struct {
    const char* name;
    std::function<void(std::vector<uint8_t>&)> change;
  } kCases[] = {
      {"list in the header", [](auto& b) { SetNumber<uint32_t>(b, 80, 32); }},
      {"list in the fixed part", [](auto& b) { SetNumber<uint32_t>(b, 80, 144); }},
      {"list beyond the end", [](auto& b) { SetNumber<uint32_t>(b, 84, 0xFFFFFFFF); }},
      {"Next not aligned", [](auto& b) { SetNumber<uint32_t>(b, kFirst, 81); }},
      {"Next inside its record", [](auto& b) { SetNumber<uint32_t>(b, kFirst, 8); }},
      {"Next beyond the end", [](auto& b) { SetNumber<uint32_t>(b, kFirst, 0x7FFFFFF8); }},
      {"Next to the very end",
       [&](auto& b) { SetNumber<uint32_t>(b, last, static_cast<uint32_t>(b.size() - last)); }},
      {"name in the fixed part", [](auto& b) { SetNumber<uint16_t>(b, kFirst + 4, 8); }},
      {"name beyond its record", [](auto& b) { SetNumber<uint16_t>(b, kFirst + 6, 0xFFFF); }},
      {"data in the fixed part", [](auto& b) { SetNumber<uint16_t>(b, kFirst + 10, 0); }},
      {"data beyond its record", [](auto& b) { SetNumber<uint32_t>(b, kFirst + 12, 0xFFFFFFFF); }},
      {"data into the next record", [](auto& b) { SetNumber<uint16_t>(b, kFirst + 10, 32); }},
      {"lease of a wrong length", [](auto& b) { SetNumber<uint32_t>(b, kFirst + 12, 40); }},
      {"too short for what it is", [&](auto& b) { SetNumber<uint32_t>(b, last + 12, 15); }},
  };
  ASSERT_TRUE(DecodeCreateResponse(good).ok());
  for (const auto& test : kCases) {
    std::vector<uint8_t> body = good;
    test.change(body);
    EXPECT_EQ(DecodeCreateResponse(body).status().code(), absl::StatusCode::kDataLoss) << test.name;
  }
}

TEST(CreateResponseTest, IgnoresContextsItDoesNotKnow) {
  std::vector<uint8_t> body = Encoded(FullCreateResponse());
  body[88 + 16] = 'X';  // "XqLs"
  const absl::StatusOr<CreateResponse> decoded = DecodeCreateResponse(body);
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  EXPECT_FALSE(decoded->lease.has_value());
  EXPECT_TRUE(decoded->durable.has_value());
}

TEST(CloseTest, RoundTrips) {
  const std::vector<uint8_t> body =
      BodyOf([](Writer& writer) { EncodeCloseRequest({true, kFile}, writer); });
  EXPECT_EQ(body.size(), 24u);
  EXPECT_EQ(NumberIn<uint16_t>(body, 2), 1);
  const absl::StatusOr<CloseRequest> decoded = DecodeCloseRequest(body);
  ASSERT_TRUE(decoded.ok());
  EXPECT_TRUE(decoded->query_attributes);
  EXPECT_EQ(decoded->file_id, kFile);
  ExpectNoCutIsAccepted(body, 24, StatusOf(DecodeCloseRequest));

  const std::vector<uint8_t> reply =
      BodyOf([](Writer& writer) { EncodeCloseResponse({true, kAttributes}, writer); });
  EXPECT_EQ(reply.size(), 60u);
  const absl::StatusOr<CloseResponse> decoded_reply = DecodeCloseResponse(reply);
  ASSERT_TRUE(decoded_reply.ok());
  EXPECT_TRUE(decoded_reply->has_attributes);
  EXPECT_EQ(decoded_reply->attributes, kAttributes);
  ExpectNoCutIsAccepted(reply, 60, StatusOf(DecodeCloseResponse));
}

TEST(FlushTest, RoundTrips) {
  const std::vector<uint8_t> body =
      BodyOf([](Writer& writer) { EncodeFlushRequest({kFile}, writer); });
  EXPECT_EQ(body.size(), 24u);
  EXPECT_EQ(DecodeFlushRequest(body)->file_id, kFile);
  ExpectNoCutIsAccepted(body, 24, StatusOf(DecodeFlushRequest));
}

TEST(ReadTest, RequestRoundTrips) {
  const ReadRequest request = {kFile, uint64_t{1} << 40, 1 << 20, 1, 77, 1};
  const std::vector<uint8_t> body =
      BodyOf([&](Writer& writer) { EncodeReadRequest(request, writer); });
  EXPECT_EQ(body.size(), 49u);
  EXPECT_EQ(body[2], 0x50);
  const absl::StatusOr<ReadRequest> decoded = DecodeReadRequest(body);
  ASSERT_TRUE(decoded.ok());
  EXPECT_EQ(decoded->file_id, kFile);
  EXPECT_EQ(decoded->offset, request.offset);
  EXPECT_EQ(decoded->length_bytes, request.length_bytes);
  EXPECT_EQ(decoded->minimum_bytes, 1u);
  EXPECT_EQ(decoded->remaining_bytes, 77u);
  EXPECT_EQ(decoded->flags, 1);
  ExpectNoCutIsAccepted(body, 48, StatusOf(DecodeReadRequest));
}

TEST(ReadTest, ResponseIsDecodedFromItsFixedPartAlone) {
  const std::vector<uint8_t> body =
      BodyOf([](Writer& writer) { EncodeReadResponse({.data_length = 1 << 20}, writer); });
  ASSERT_EQ(body.size(), kReadResponseFixedSize);
  EXPECT_EQ(body[2], 80);
  const absl::StatusOr<ReadResponse> decoded = DecodeReadResponse(body, 80 + (1 << 20));
  ASSERT_TRUE(decoded.ok());
  EXPECT_EQ(decoded->data_offset, 80u);
  EXPECT_EQ(decoded->data_length, 1u << 20);
  EXPECT_FALSE(DecodeReadResponse(body, 80 + (1 << 20) - 1).ok());
  ExpectNoCutIsAccepted(body, 16,
                        [](Bytes cut) { return DecodeReadResponse(cut, 80 + (1 << 20)).status(); });
}

TEST(ReadTest, ThePayloadMayNotOverlapTheHeader) {
  for (const uint8_t offset : {0, 1, 63, 64, 79}) {
    std::vector<uint8_t> body =
        BodyOf([](Writer& writer) { EncodeReadResponse({.data_length = 16}, writer); });
    body[2] = offset;
    EXPECT_FALSE(DecodeReadResponse(body, 1000).ok()) << int{offset};
  }
  // Without a payload the offset means nothing: Samba sends 0 then.
  std::vector<uint8_t> body =
      BodyOf([](Writer& writer) { EncodeReadResponse({.data_length = 0}, writer); });
  body[2] = 0;
  EXPECT_TRUE(DecodeReadResponse(body, 80).ok());
}

TEST(ReadTest, ALengthThatWouldWrapIsRejected) {
  std::vector<uint8_t> body =
      BodyOf([](Writer& writer) { EncodeReadResponse({.data_length = 0xFFFFFFFF}, writer); });
  EXPECT_FALSE(DecodeReadResponse(body, 100).ok());
}

TEST(WriteTest, ThePayloadStaysOutside) {
  WriteRequest request;
  request.file_id = kFile;
  request.offset = 4096;
  request.length_bytes = 5;
  request.flags = kWriteThrough;
  std::vector<uint8_t> body = BodyOf([&](Writer& writer) { EncodeWriteRequest(request, writer); });
  ASSERT_EQ(body.size(), kWriteRequestFixedSize);
  EXPECT_EQ(NumberIn<uint16_t>(body, 2), kWriteDataOffset);
  const std::vector<uint8_t> payload = FromHex("0102030405");
  body.insert(body.end(), payload.begin(), payload.end());
  const absl::StatusOr<WriteRequest> decoded = DecodeWriteRequest(body);
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  EXPECT_EQ(decoded->file_id, kFile);
  EXPECT_EQ(decoded->offset, 4096u);
  EXPECT_EQ(decoded->flags, kWriteThrough);
  EXPECT_EQ(decoded->payload, Bytes(payload));
  ExpectNoCutIsAccepted(body, body.size(), StatusOf(DecodeWriteRequest));

  const std::vector<uint8_t> reply =
      BodyOf([](Writer& writer) { EncodeWriteResponse({5}, writer); });
  EXPECT_EQ(reply.size(), 16u);
  EXPECT_EQ(DecodeWriteResponse(reply)->written_bytes, 5u);
  ExpectNoCutIsAccepted(reply, 16, StatusOf(DecodeWriteResponse));
}

TEST(LockTest, RoundTrips) {
  LockRequest request;
  request.lock_sequence = 0x21;
  request.file_id = kFile;
  request.locks = {{0, 10, kLockExclusive | kLockFailImmediately}, {20, 5, kLockUnlock}};
  const std::vector<uint8_t> body =
      BodyOf([&](Writer& writer) { EncodeLockRequest(request, writer); });
  EXPECT_EQ(body.size(), 24u + 2 * 24);
  const absl::StatusOr<LockRequest> decoded = DecodeLockRequest(body);
  ASSERT_TRUE(decoded.ok());
  EXPECT_EQ(decoded->lock_sequence, 0x21u);
  ASSERT_EQ(decoded->locks.size(), 2u);
  EXPECT_EQ(decoded->locks[1].offset, 20u);
  EXPECT_EQ(decoded->locks[1].length_bytes, 5u);
  EXPECT_EQ(decoded->locks[1].flags, kLockUnlock);
  ExpectNoCutIsAccepted(body, body.size(), StatusOf(DecodeLockRequest));

  std::vector<uint8_t> none = body;
  SetNumber<uint16_t>(none, 2, 0);
  EXPECT_FALSE(DecodeLockRequest(none).ok());
}

TEST(IoctlTest, RoundTrips) {
  const std::vector<uint8_t> input = FromHex("04005c0064000000");
  IoctlRequest request;
  request.code = Fsctl::kDfsGetReferrals;
  request.input = input;
  request.max_output_bytes = 8192;
  const std::vector<uint8_t> body =
      BodyOf([&](Writer& writer) { EncodeIoctlRequest(request, writer); });
  EXPECT_EQ(NumberIn<uint32_t>(body, 4), 0x00060194u);
  EXPECT_EQ(NumberIn<uint64_t>(body, 8), ~uint64_t{0});
  EXPECT_EQ(NumberIn<uint32_t>(body, 24), 120u);
  EXPECT_EQ(NumberIn<uint32_t>(body, 44), 8192u);
  EXPECT_EQ(NumberIn<uint32_t>(body, 48), 1u);
  const absl::StatusOr<IoctlRequest> decoded = DecodeIoctlRequest(body);
  ASSERT_TRUE(decoded.ok());
  EXPECT_EQ(decoded->code, request.code);
  EXPECT_EQ(decoded->file_id, kNoFileId);
  EXPECT_EQ(decoded->input, Bytes(input));
  EXPECT_EQ(decoded->max_output_bytes, 8192u);
  ExpectNoCutIsAccepted(body, body.size(), StatusOf(DecodeIoctlRequest));
  std::vector<uint8_t> not_fsctl = body;
  SetNumber<uint32_t>(not_fsctl, 48, 0);
  EXPECT_FALSE(DecodeIoctlRequest(not_fsctl).ok());

  const std::vector<uint8_t> output = FromHex("deadbeef");
  const std::vector<uint8_t> reply = BodyOf([&](Writer& writer) {
    EncodeIoctlResponse({Fsctl::kDfsGetReferrals, kNoFileId, output}, writer);
  });
  EXPECT_EQ(NumberIn<uint32_t>(reply, 32), 112u);
  const absl::StatusOr<IoctlResponse> decoded_reply = DecodeIoctlResponse(reply);
  ASSERT_TRUE(decoded_reply.ok());
  EXPECT_EQ(decoded_reply->code, Fsctl::kDfsGetReferrals);
  EXPECT_EQ(decoded_reply->output, Bytes(output));
  ExpectNoCutIsAccepted(reply, reply.size(), StatusOf(DecodeIoctlResponse));
}

TEST(IoctlTest, ValidateNegotiateRoundTrips) {
  const ValidateNegotiateRequest request = {
      kCapDfs, GuidOf(1), kSigningEnabled, {Dialect::k300, Dialect::k302}};
  const std::vector<uint8_t> input =
      BodyOf([&](Writer& writer) { EncodeValidateNegotiateRequest(request, writer); });
  EXPECT_EQ(input.size(), 28u);
  const absl::StatusOr<ValidateNegotiateRequest> decoded = DecodeValidateNegotiateRequest(input);
  ASSERT_TRUE(decoded.ok());
  EXPECT_EQ(decoded->capabilities, kCapDfs);
  EXPECT_EQ(decoded->guid, GuidOf(1));
  EXPECT_EQ(decoded->dialects, request.dialects);
  ExpectNoCutIsAccepted(input, input.size(), StatusOf(DecodeValidateNegotiateRequest));

  const ValidateNegotiateResponse response = {kCapDfs, GuidOf(2), kSigningRequired, Dialect::k302};
  const std::vector<uint8_t> output =
      BodyOf([&](Writer& writer) { EncodeValidateNegotiateResponse(response, writer); });
  EXPECT_EQ(output.size(), 24u);
  const absl::StatusOr<ValidateNegotiateResponse> decoded_response =
      DecodeValidateNegotiateResponse(output);
  ASSERT_TRUE(decoded_response.ok());
  EXPECT_EQ(decoded_response->guid, GuidOf(2));
  EXPECT_EQ(decoded_response->security_mode, kSigningRequired);
  EXPECT_EQ(decoded_response->dialect, Dialect::k302);
  ExpectNoCutIsAccepted(output, 24, StatusOf(DecodeValidateNegotiateResponse));
}

TEST(IoctlTest, FileRanges) {
  const std::vector<FileRange> ranges = {{0, 4096}, {8192, 1}, {8193, 0x1000}};
  const std::vector<uint8_t> output =
      BodyOf([&](Writer& writer) { EncodeFileRanges(ranges, writer); });
  EXPECT_EQ(*DecodeFileRanges(output), ranges);
  EXPECT_THAT(*DecodeFileRanges({}), IsEmpty());
  constexpr uint64_t kMax = 0x7FFFFFFFFFFFFFFF;
  const std::vector<FileRange> kBad[] = {
      {{4096, 4096}, {0, 4096}},  // Backwards.
      {{0, 4096}, {4095, 1}},     // Overlap.
      {{kMax + 1, 0}},           {{1, kMax}}, {{1, ~uint64_t{0}}},
  };
  for (const std::vector<FileRange>& bad : kBad) {
    EXPECT_FALSE(
        DecodeFileRanges(BodyOf([&](Writer& writer) { EncodeFileRanges(bad, writer); })).ok());
  }
  EXPECT_FALSE(DecodeFileRanges(Bytes(output).first(17)).ok());
}

TEST(IoctlTest, ZeroRange) {
  const std::vector<uint8_t> input =
      BodyOf([](Writer& writer) { EncodeZeroRange({10, 20}, writer); });
  EXPECT_EQ(DecodeZeroRange(input)->offset, 10u);
  EXPECT_EQ(DecodeZeroRange(input)->beyond, 20u);
  EXPECT_FALSE(DecodeZeroRange(Bytes(input).first(15)).ok());
  EXPECT_FALSE(
      DecodeZeroRange(BodyOf([](Writer& writer) { EncodeZeroRange({20, 10}, writer); })).ok());
}

TEST(IoctlTest, CopyChunk) {
  ResumeKey key;
  key.fill(0x5C);
  const std::vector<uint8_t> key_output =
      BodyOf([&](Writer& writer) { EncodeResumeKeyResponse(key, writer); });
  EXPECT_EQ(key_output.size(), 32u);
  EXPECT_EQ(*DecodeResumeKeyResponse(key_output), key);
  EXPECT_FALSE(DecodeResumeKeyResponse(Bytes(key_output).first(23)).ok());

  const CopyChunkRequest request = {key, {{0, 100, 50}, {1000, 2000, 3000}}};
  const std::vector<uint8_t> input =
      BodyOf([&](Writer& writer) { EncodeCopyChunkRequest(request, writer); });
  EXPECT_EQ(input.size(), 32u + 2 * 24);
  const absl::StatusOr<CopyChunkRequest> decoded = DecodeCopyChunkRequest(input);
  ASSERT_TRUE(decoded.ok());
  EXPECT_EQ(decoded->source, key);
  ASSERT_EQ(decoded->chunks.size(), 2u);
  EXPECT_EQ(decoded->chunks[1].source_offset, 1000u);
  EXPECT_EQ(decoded->chunks[1].target_offset, 2000u);
  EXPECT_EQ(decoded->chunks[1].length_bytes, 3000u);
  ExpectNoCutIsAccepted(input, input.size(), StatusOf(DecodeCopyChunkRequest));

  const std::vector<uint8_t> output =
      BodyOf([](Writer& writer) { EncodeCopyChunkResponse({256, 1 << 20, 16 << 20}, writer); });
  EXPECT_EQ(DecodeCopyChunkResponse(output)->chunks, 256u);
  EXPECT_EQ(DecodeCopyChunkResponse(output)->chunk_bytes, 1u << 20);
  EXPECT_EQ(DecodeCopyChunkResponse(output)->total_bytes, 16u << 20);
  ExpectNoCutIsAccepted(output, 12, StatusOf(DecodeCopyChunkResponse));
}

TEST(QueryDirectoryTest, RoundTrips) {
  QueryDirectoryRequest request;
  request.flags = kRestartScan;
  request.file_index = 3;
  request.file_id = kFile;
  request.max_output_bytes = 1 << 20;
  request.pattern = u"a*";
  const std::vector<uint8_t> body =
      BodyOf([&](Writer& writer) { EncodeQueryDirectoryRequest(request, writer); });
  EXPECT_EQ(body[2], 37);
  EXPECT_EQ(NumberIn<uint16_t>(body, 24), 96);
  const absl::StatusOr<QueryDirectoryRequest> decoded = DecodeQueryDirectoryRequest(body);
  ASSERT_TRUE(decoded.ok());
  EXPECT_EQ(decoded->info_class, FileInfoClass::kIdBothDirectory);
  EXPECT_EQ(decoded->flags, kRestartScan);
  EXPECT_EQ(decoded->file_index, 3u);
  EXPECT_EQ(decoded->file_id, kFile);
  EXPECT_EQ(decoded->max_output_bytes, 1u << 20);
  EXPECT_EQ(decoded->pattern, u"a*");
  ExpectNoCutIsAccepted(body, body.size(), StatusOf(DecodeQueryDirectoryRequest));
}

TEST(OutputBufferTest, RoundTrips) {
  const std::vector<uint8_t> output = FromHex("000102030405");
  const std::vector<uint8_t> body =
      BodyOf([&](Writer& writer) { EncodeOutputBuffer(output, writer); });
  EXPECT_EQ(NumberIn<uint16_t>(body, 2), 72);
  EXPECT_EQ(*DecodeOutputBuffer(body), Bytes(output));
  ExpectNoCutIsAccepted(body, body.size(), StatusOf(DecodeOutputBuffer));
  const std::vector<uint8_t> empty = BodyOf([](Writer& writer) { EncodeOutputBuffer({}, writer); });
  EXPECT_EQ(empty.size(), 9u);
  EXPECT_THAT(*DecodeOutputBuffer(empty), IsEmpty());
}

TEST(QueryInfoTest, RoundTrips) {
  const std::vector<uint8_t> input = FromHex("01020304");
  QueryInfoRequest request;
  request.type = InfoType::kFileSystem;
  request.info_class = static_cast<uint8_t>(FsInfoClass::kFullSize);
  request.max_output_bytes = 32;
  request.additional_information = 7;
  request.flags = 9;
  request.file_id = kFile;
  request.input = input;
  const std::vector<uint8_t> body =
      BodyOf([&](Writer& writer) { EncodeQueryInfoRequest(request, writer); });
  EXPECT_EQ(NumberIn<uint16_t>(body, 8), 104);
  EXPECT_EQ(NumberIn<uint64_t>(body, 24), kFile.persistent_id);
  const absl::StatusOr<QueryInfoRequest> decoded = DecodeQueryInfoRequest(body);
  ASSERT_TRUE(decoded.ok());
  EXPECT_EQ(decoded->type, request.type);
  EXPECT_EQ(decoded->info_class, request.info_class);
  EXPECT_EQ(decoded->max_output_bytes, 32u);
  EXPECT_EQ(decoded->additional_information, 7u);
  EXPECT_EQ(decoded->flags, 9u);
  EXPECT_EQ(decoded->file_id, kFile);
  EXPECT_EQ(decoded->input, Bytes(input));
  ExpectNoCutIsAccepted(body, body.size(), StatusOf(DecodeQueryInfoRequest));
  request.input = {};
  const std::vector<uint8_t> without =
      BodyOf([&](Writer& writer) { EncodeQueryInfoRequest(request, writer); });
  EXPECT_EQ(without.size(), 41u);
  EXPECT_TRUE(DecodeQueryInfoRequest(without).ok());
}

TEST(SetInfoTest, RoundTrips) {
  const std::vector<uint8_t> input = FromHex("0100000000000000");
  SetInfoRequest request;
  request.info_class = static_cast<uint8_t>(FileInfoClass::kEndOfFile);
  request.additional_information = 1;
  request.file_id = kFile;
  request.input = input;
  const std::vector<uint8_t> body =
      BodyOf([&](Writer& writer) { EncodeSetInfoRequest(request, writer); });
  EXPECT_EQ(NumberIn<uint16_t>(body, 8), 96);
  EXPECT_EQ(NumberIn<uint64_t>(body, 16), kFile.persistent_id);
  const absl::StatusOr<SetInfoRequest> decoded = DecodeSetInfoRequest(body);
  ASSERT_TRUE(decoded.ok());
  EXPECT_EQ(decoded->info_class, 20);
  EXPECT_EQ(decoded->additional_information, 1u);
  EXPECT_EQ(decoded->file_id, kFile);
  EXPECT_EQ(decoded->input, Bytes(input));
  ExpectNoCutIsAccepted(body, body.size(), StatusOf(DecodeSetInfoRequest));

  const std::vector<uint8_t> reply = BodyOf(EncodeSetInfoResponse);
  EXPECT_EQ(ToHex(reply), "0200");
  EXPECT_TRUE(DecodeSetInfoResponse(reply).ok());
  EXPECT_FALSE(DecodeSetInfoResponse(Bytes(reply).first(1)).ok());
}

TEST(ChangeNotifyTest, RoundTrips) {
  const ChangeNotifyRequest request = {true, 4096, kFile, 0x17};
  const std::vector<uint8_t> body =
      BodyOf([&](Writer& writer) { EncodeChangeNotifyRequest(request, writer); });
  EXPECT_EQ(body.size(), 32u);
  const absl::StatusOr<ChangeNotifyRequest> decoded = DecodeChangeNotifyRequest(body);
  ASSERT_TRUE(decoded.ok());
  EXPECT_TRUE(decoded->watch_tree);
  EXPECT_EQ(decoded->max_output_bytes, 4096u);
  EXPECT_EQ(decoded->file_id, kFile);
  EXPECT_EQ(decoded->completion_filter, 0x17u);
  ExpectNoCutIsAccepted(body, 32, StatusOf(DecodeChangeNotifyRequest));
}

TEST(BreakTest, TheSizeTellsTheKind) {
  const std::vector<uint8_t> oplock =
      BodyOf([](Writer& writer) { EncodeOplockBreak({OplockLevel::kLevel2, kFile}, writer); });
  EXPECT_EQ(oplock.size(), 24u);
  const absl::StatusOr<Break> decoded_oplock = DecodeBreak(oplock);
  ASSERT_TRUE(decoded_oplock.ok());
  ASSERT_TRUE(std::holds_alternative<OplockBreak>(*decoded_oplock));
  EXPECT_EQ(std::get<OplockBreak>(*decoded_oplock).level, OplockLevel::kLevel2);
  EXPECT_EQ(std::get<OplockBreak>(*decoded_oplock).file_id, kFile);
  ExpectNoCutIsAccepted(oplock, 24, StatusOf(DecodeBreak));

  const std::vector<uint8_t> lease = BodyOf([](Writer& writer) {
    EncodeLeaseBreakNotification({3, true, GuidOf(1), kLeaseRead | kLeaseHandle, kLeaseRead},
                                 writer);
  });
  EXPECT_EQ(lease.size(), 44u);
  const absl::StatusOr<Break> decoded_lease = DecodeBreak(lease);
  ASSERT_TRUE(decoded_lease.ok());
  ASSERT_TRUE(std::holds_alternative<LeaseBreakNotification>(*decoded_lease));
  const LeaseBreakNotification& notification = std::get<LeaseBreakNotification>(*decoded_lease);
  EXPECT_EQ(notification.new_epoch, 3);
  EXPECT_TRUE(notification.ack_required);
  EXPECT_EQ(notification.key, GuidOf(1));
  EXPECT_EQ(notification.current_state, uint32_t{kLeaseRead | kLeaseHandle});
  EXPECT_EQ(notification.new_state, kLeaseRead);
  ExpectNoCutIsAccepted(lease, 44, StatusOf(DecodeBreak));

  const std::vector<uint8_t> ack =
      BodyOf([](Writer& writer) { EncodeLeaseBreakAck({GuidOf(2), kLeaseRead}, writer); });
  EXPECT_EQ(ack.size(), 36u);
  const absl::StatusOr<Break> decoded_ack = DecodeBreak(ack);
  ASSERT_TRUE(decoded_ack.ok());
  EXPECT_EQ(std::get<LeaseBreakAck>(*decoded_ack).key, GuidOf(2));
  EXPECT_EQ(std::get<LeaseBreakAck>(*decoded_ack).state, kLeaseRead);
  ExpectNoCutIsAccepted(ack, 36, StatusOf(DecodeBreak));

  EXPECT_FALSE(DecodeBreak(std::vector<uint8_t>(64, 8)).ok());
}

}  // namespace
}  // namespace dfscsi::smb::wire
