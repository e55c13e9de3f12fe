// The corpora of the fuzz targets: messages that our encoders make, and what breaks when a byte of
// one is changed or its end is cut off. The committed files must be those made here.
//
//   DFSCSI_WRITE_CORPUS=1 build/release/tests/smb_wire_corpus_test     writes them
//
// Other files may lie beside them: inputs that the fuzzer found.

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "node-agent/smb/wire/break.h"
#include "node-agent/smb/wire/create.h"
#include "node-agent/smb/wire/directory.h"
#include "node-agent/smb/wire/error_response.h"
#include "node-agent/smb/wire/file_information.h"
#include "node-agent/smb/wire/fs_information.h"
#include "node-agent/smb/wire/header.h"
#include "node-agent/smb/wire/io.h"
#include "node-agent/smb/wire/ioctl.h"
#include "node-agent/smb/wire/negotiate.h"
#include "node-agent/smb/wire/query.h"
#include "node-agent/smb/wire/reparse.h"
#include "node-agent/smb/wire/session.h"
#include "node-agent/smb/wire/test_bytes.h"

namespace dfscsi::smb::wire {
namespace {

constexpr FileId kFile = {0x1111111111111111, 0x2222222222222222};
constexpr FileAttributes kAttributes = {1, 2, 3, 4, 4096, 3, kAttributeArchive};

// One byte of a body changed; what the name says happens.
struct Change {
  const char* name;
  size_t offset;
  uint8_t value;
};

class Corpora {
 public:
  // An input of `target`: `body` for its decoder number `choice`, and each change of it, and its
  // first half.
  void Add(const std::string& target, uint8_t choice, const std::string& name,
           std::vector<uint8_t> body, const std::vector<Change>& changes = {}) {
    AddRaw(target, name, WithChoice(choice, body));
    AddRaw(target, name + "_cut",
           WithChoice(choice, {body.begin(), body.begin() + body.size() / 2}));
    for (const Change& change : changes) {
      std::vector<uint8_t> changed = body;
      changed.at(change.offset) = change.value;
      AddRaw(target, name + "_" + change.name, WithChoice(choice, changed));
    }
  }
  void AddRaw(const std::string& target, const std::string& name, std::vector<uint8_t> input) {
    EXPECT_TRUE(inputs_[target].emplace(name, std::move(input)).second) << target << " " << name;
  }

  const std::map<std::string, std::map<std::string, std::vector<uint8_t>>>& inputs() const {
    return inputs_;
  }

 private:
  static std::vector<uint8_t> WithChoice(uint8_t choice, std::vector<uint8_t> body) {
    body.insert(body.begin(), choice);
    return body;
  }

  std::map<std::string, std::map<std::string, std::vector<uint8_t>>> inputs_;
};

// `Encode`'s output for `message`.
template <typename Message>
std::vector<uint8_t> Body(void (*encode)(const Message&, Writer&), const Message& message) {
  return BodyOf([&](Writer& writer) { encode(message, writer); });
}

void AddNegotiate(Corpora& corpora) {
  NegotiateRequest request;
  request.security_mode = kSigningRequired;
  request.capabilities = kCapDfs;
  request.dialects = {Dialect::k302, Dialect::k311};
  request.contexts.hashes = {kSha512};
  request.contexts.salt = {1, 2, 3, 4};
  request.contexts.ciphers = {CipherId::kAes128Gcm, CipherId::kAes128Ccm};
  request.contexts.signings = {SigningId::kAesGmac, SigningId::kAesCmac};
  request.contexts.net_name = u"host";
  corpora.Add("negotiate", 0, "request", Body(EncodeNegotiateRequest, request),
              {{"size", 0, 37},
               {"no_dialect", 2, 0},
               {"contexts_offset", 28, 1},
               {"many_contexts", 32, 9},
               {"odd_name", 90, 7}});
  request.dialects = {Dialect::k210};
  corpora.Add("negotiate", 0, "request_210", Body(EncodeNegotiateRequest, request));

  const std::vector<uint8_t> token = {0x60, 0x01, 0x02};
  NegotiateResponse response;
  response.dialect = Dialect::k311;
  response.max_transact_bytes = response.max_read_bytes = response.max_write_bytes = 1 << 20;
  response.security_buffer = token;
  response.contexts.hashes = {kSha512};
  response.contexts.ciphers = {CipherId::kAes256Gcm};
  response.contexts.signings = {SigningId::kAesGmac};
  const std::vector<uint8_t> body = Body(EncodeNegotiateResponse, response);
  corpora.Add("negotiate", 1, "response", body,
              {{"offset_in_header", 56, 8},
               {"small_maximum", 34, 0},
               {"contexts_beyond", 61, 8},
               {"contexts_too_many", 6, 4},
               {"duplicate", 88, 1},
               {"no_hash", 72, 9},
               {"context_too_long", 75, 1},
               {"hash_count", 80, 9}});
  response.contexts.hashes = {1, 2};
  response.contexts.ciphers.push_back(CipherId::kAes128Gcm);
  response.contexts.signings.push_back(SigningId::kAesCmac);
  corpora.Add("negotiate", 1, "response_two_of_each", Body(EncodeNegotiateResponse, response));
  response.dialect = Dialect::k300;
  response.security_buffer = {};
  corpora.Add("negotiate", 1, "response_300", Body(EncodeNegotiateResponse, response));
  response.dialect = Dialect::k311;
  response.contexts = {};
  corpora.Add("negotiate", 1, "response_no_contexts", Body(EncodeNegotiateResponse, response));
}

void AddSession(Corpora& corpora) {
  const std::vector<uint8_t> token = {0x60, 0x01, 0x02};
  corpora.Add("session", 0, "setup_request",
              Body(EncodeSessionSetupRequest, SessionSetupRequest{1, 1, 1, 7, token}),
              {{"offset_in_header", 12, 8}});
  corpora.Add("session", 0, "setup_request_empty",
              Body(EncodeSessionSetupRequest, SessionSetupRequest{}));
  corpora.Add("session", 1, "setup_response",
              Body(EncodeSessionSetupResponse, SessionSetupResponse{4, token}), {{"long", 6, 99}});
  corpora.Add("session", 1, "setup_response_empty",
              Body(EncodeSessionSetupResponse, SessionSetupResponse{}));
  corpora.Add("session", 2, "tree_request",
              Body(EncodeTreeConnectRequest, TreeConnectRequest{0, u"\\\\h\\s"}), {{"odd", 6, 5}});
  corpora.Add("session", 2, "tree_request_empty",
              Body(EncodeTreeConnectRequest, TreeConnectRequest{}));
  corpora.Add("session", 3, "tree_response",
              Body(EncodeTreeConnectResponse, TreeConnectResponse{1, 3, 8, 0x1F01FF}));
  corpora.Add("session", 4, "empty", BodyOf(EncodeEmptyBody), {{"size", 0, 5}});
}

void AddCreate(Corpora& corpora) {
  CreateRequest request;
  request.oplock = OplockLevel::kLease;
  request.name = u"a\\b";
  request.lease = Lease{};
  request.durable_v1 = true;
  request.durable_v1_reconnect = kFile;
  request.durable = DurableRequest{60000, 2, {}};
  request.durable_reconnect = DurableReconnect{kFile, {}, 0};
  request.query_maximal_access = true;
  request.query_on_disk_id = true;
  corpora.Add("create", 0, "request", Body(EncodeCreateRequest, request),
              {{"odd_name", 46, 5},
               {"name_in_header", 44, 8},
               {"contexts_beyond", 54, 1},
               {"unknown_context", 80, 'X'},
               {"next", 64, 0x52},
               {"name_offset", 68, 1},
               {"data_beyond", 78, 1},
               {"lease_size", 76, 33},
               {"name_length", 71, 1}});
  corpora.Add("create", 0, "request_root", Body(EncodeCreateRequest, CreateRequest()));
  request = {};
  request.lease = Lease{.v2 = false};
  request.name = u"x";
  corpora.Add("create", 0, "request_lease_v1", Body(EncodeCreateRequest, request));
  request = {};
  request.name = u"new";
  request.allocation_bytes = 1 << 20;
  request.attributes = {{.name = "USER.A", .value = "1"}, {.name = "USER.B", .value = ""}};
  corpora.Add("create", 0, "request_new_file", Body(EncodeCreateRequest, request),
              {{"allocation_short", 76, 4}, {"attribute_name_long", 64 + 32 + 24 + 5, 0xFF}});

  CreateResponse response;
  response.attributes = kAttributes;
  response.file_id = kFile;
  corpora.Add("create", 1, "response_plain", Body(EncodeCreateResponse, response));
  response.lease = Lease{};
  response.durable_v1 = true;
  response.durable = DurableResponse{60000, 0};
  response.maximal_access = MaximalAccess{NtStatus::kSuccess, 0x1F01FF};
  response.on_disk_id = OnDiskId{1, 2};
  const std::vector<uint8_t> body = Body(EncodeCreateResponse, response);
  const uint8_t list_size = static_cast<uint8_t>(body.size() - 88);
  corpora.Add("create", 1, "response", body,
              {{"contexts_in_header", 80, 8},
               {"contexts_short", 84, static_cast<uint8_t>(list_size - 1)},
               {"contexts_tiny", 84, 15},
               {"next_to_end", 88, list_size},
               {"lease_size", 100, 40},
               {"unknown_context", 104, 'X'}});
}

void AddIo(Corpora& corpora) {
  corpora.Add("io", 0, "close_request", Body(EncodeCloseRequest, CloseRequest{true, kFile}));
  corpora.Add("io", 1, "close_response",
              Body(EncodeCloseResponse, CloseResponse{true, kAttributes}), {{"none", 2, 0}});
  corpora.Add("io", 2, "flush_request", Body(EncodeFlushRequest, FlushRequest{kFile}));
  corpora.Add("io", 3, "read_request",
              Body(EncodeReadRequest, ReadRequest{kFile, 4096, 65536, 1, 0, 0}));
  std::vector<uint8_t> read =
      Body(EncodeReadResponse, ReadResponse{.data_length = 4, .remaining_bytes = 1});
  read.insert(read.end(), {1, 2, 3, 4});
  corpora.Add("io", 4, "read_response", read,
              {{"offset_0", 2, 0},
               {"offset_in_fixed_part", 2, 79},
               {"long", 4, 5},
               {"wraps", 7, 0xFF},
               {"no_data", 4, 0}});
  std::vector<uint8_t> write =
      Body(EncodeWriteRequest, WriteRequest{kFile, 4096, 4, 0, kWriteThrough, {}});
  write.insert(write.end(), {1, 2, 3, 4});
  corpora.Add("io", 5, "write_request", write, {{"offset_in_header", 2, 8}, {"long", 4, 5}});
  corpora.Add("io", 6, "write_response", Body(EncodeWriteResponse, WriteResponse{4}));
  corpora.Add("io", 7, "lock_request",
              Body(EncodeLockRequest, LockRequest{1, kFile, {{0, 1, kLockShared}, {2, 3, 4}}}),
              {{"none", 2, 0}, {"many", 2, 3}});
}

void AddIoctl(Corpora& corpora) {
  const std::vector<uint8_t> bytes = {1, 2, 3, 4};
  IoctlRequest request;
  request.input = bytes;
  corpora.Add("ioctl", 0, "request", Body(EncodeIoctlRequest, request),
              {{"no_fsctl", 48, 0}, {"offset_in_header", 24, 8}});
  corpora.Add("ioctl", 0, "request_empty", Body(EncodeIoctlRequest, IoctlRequest()));
  IoctlResponse response;
  response.output = bytes;
  corpora.Add("ioctl", 1, "response", Body(EncodeIoctlResponse, response), {{"long", 36, 9}});
  corpora.Add("ioctl", 1, "response_empty", Body(EncodeIoctlResponse, IoctlResponse()));
  corpora.Add("ioctl", 2, "validate_request",
              Body(EncodeValidateNegotiateRequest,
                   ValidateNegotiateRequest{1, {}, 1, {Dialect::k300, Dialect::k302}}));
  corpora.Add("ioctl", 3, "validate_response",
              Body(EncodeValidateNegotiateResponse, ValidateNegotiateResponse{}));
  const std::vector<FileRange> ranges = {{0, 4096}, {8192, 4096}};
  corpora.Add("ioctl", 4, "ranges",
              BodyOf([&](Writer& writer) { EncodeFileRanges(ranges, writer); }),
              {{"backwards", 1, 0x80}, {"beyond", 31, 0x80}});
  corpora.AddRaw("ioctl", "ranges_odd", {4, 1, 2, 3});
  corpora.Add("ioctl", 5, "zero_range", Body(EncodeZeroRange, ZeroRange{1, 2}), {{"early", 0, 3}});
  corpora.Add("ioctl", 6, "resume_key", Body(EncodeResumeKeyResponse, ResumeKey{1, 2, 3}));
  corpora.Add("ioctl", 7, "copy_request",
              Body(EncodeCopyChunkRequest, CopyChunkRequest{{}, {{1, 2, 3}, {4, 5, 6}}}),
              {{"many", 24, 3}});
  corpora.Add("ioctl", 8, "copy_response", Body(EncodeCopyChunkResponse, CopyChunkResponse{1, 2}));
  corpora.Add("ioctl", 9, "sparse", BodyOf([](Writer& writer) { EncodeSetSparse(true, writer); }));
  corpora.Add("ioctl", 10, "duplicate_extents",
              Body(EncodeDuplicateExtents, DuplicateExtents{kFile, 0, 4096, 8192}));
}

void AddQuery(Corpora& corpora) {
  const std::vector<uint8_t> bytes = {1, 2, 3, 4};
  QueryDirectoryRequest directory;
  corpora.Add("query", 0, "directory_request", Body(EncodeQueryDirectoryRequest, directory),
              {{"odd", 26, 1}});
  directory.pattern = u"";
  corpora.Add("query", 0, "directory_request_empty", Body(EncodeQueryDirectoryRequest, directory));
  corpora.Add("query", 1, "output",
              BodyOf([&](Writer& writer) { EncodeOutputBuffer(bytes, writer); }),
              {{"offset_in_header", 2, 8}});
  corpora.Add("query", 1, "output_empty",
              BodyOf([&](Writer& writer) { EncodeOutputBuffer({}, writer); }));
  QueryInfoRequest query;
  corpora.Add("query", 2, "info_request_empty", Body(EncodeQueryInfoRequest, query));
  query.input = bytes;
  corpora.Add("query", 2, "info_request", Body(EncodeQueryInfoRequest, query), {{"long", 12, 9}});
  SetInfoRequest set;
  corpora.Add("query", 3, "set_request_empty", Body(EncodeSetInfoRequest, set));
  set.input = bytes;
  corpora.Add("query", 3, "set_request", Body(EncodeSetInfoRequest, set), {{"long", 4, 9}});
  corpora.Add("query", 4, "notify_request",
              Body(EncodeChangeNotifyRequest, ChangeNotifyRequest{true, 4096, kFile, 1}));
  corpora.Add("query", 5, "set_response", BodyOf(EncodeSetInfoResponse), {{"size", 0, 3}});
}

void AddBreak(Corpora& corpora) {
  corpora.Add("break", 0, "oplock",
              Body(EncodeOplockBreak, OplockBreak{OplockLevel::kLevel2, kFile}), {{"size", 0, 25}});
  corpora.Add("break", 0, "lease",
              Body(EncodeLeaseBreakNotification, LeaseBreakNotification{1, true, {}, 7, 1}));
  corpora.Add("break", 0, "ack", Body(EncodeLeaseBreakAck, LeaseBreakAck{{}, 1}));
}

void AddErrorResponse(Corpora& corpora) {
  const std::vector<uint8_t> symlink =
      Body(EncodeSymlinkError, SymlinkError{2, true, u"..\\x", u"../x"});
  for (const bool as_context : {false, true}) {
    const std::vector<uint8_t> body =
        BodyOf([&](Writer& writer) { EncodeErrorResponse({symlink}, as_context, writer); });
    corpora.Add("error_response", as_context, as_context ? "context" : "direct", body,
                {{"long", 4, 0xFF}, {"contexts", 2, 2}, {"context_length", 11, 0xFF}});
  }
  corpora.Add("error_response", 0, "empty",
              BodyOf([](Writer& writer) { EncodeErrorResponse({}, false, writer); }));
  corpora.Add("error_response", 2, "symlink", symlink,
              {{"long", 0, 0xFF}, {"tag", 4, 0}, {"odd", 18, 3}, {"name_beyond", 17, 0xFF}});
}

void AddFileInformation(Corpora& corpora) {
  const std::string target = "file_information";
  corpora.Add(target, 0, "basic", Body(EncodeBasicInformation, BasicInformation{1, 2, 3, 4, 32}));
  corpora.Add(target, 1, "standard", Body(EncodeStandardInformation, StandardInformation{}));
  corpora.Add(target, 2, "internal",
              BodyOf([](Writer& writer) { EncodeInternalInformation(7, writer); }));
  corpora.Add(target, 3, "all",
              BodyOf([](Writer& writer) { EncodeAllInformation({}, u"\\name", writer); }));
  corpora.Add(target, 4, "network_open", Body(EncodeNetworkOpenInformation, kAttributes));
  corpora.Add(target, 5, "attribute_tag",
              Body(EncodeAttributeTagInformation, AttributeTagInformation{0x400, kTagDfs}));
  corpora.Add(target, 6, "normalized_name",
              BodyOf([](Writer& writer) { EncodeNormalizedName(u"a\\b", writer); }),
              {{"odd", 0, 5}});
  corpora.Add(target, 7, "rename", Body(EncodeRenameInformation, RenameInformation{true, u"x"}));
  corpora.Add(target, 8, "rename_ex",
              Body(EncodeRenameExInformation, RenameExInformation{3, u"long\\name"}));
  corpora.Add(target, 9, "disposition",
              BodyOf([](Writer& writer) { EncodeDispositionInformation(true, writer); }));
  corpora.Add(target, 10, "disposition_ex",
              BodyOf([](Writer& writer) { EncodeDispositionExInformation(3, writer); }));
  corpora.Add(target, 11, "size",
              BodyOf([](Writer& writer) { EncodeSizeInformation(4096, writer); }));
  corpora.Add(target, 14, "attribute_names",
              Body(EncodeExtendedAttributeNames, std::vector<std::string>{"user.a", "B"}),
              {{"length", 4, 0xFF}, {"no_nul", 11, 'x'}, {"empty_name", 4, 0}});
  const std::vector<ExtendedAttribute> attributes = {{0, "user.a", "1"}, {0x80, "B", "value"}};
  corpora.Add(target, 12, "attributes", Body(EncodeExtendedAttributes, attributes),
              {{"next_odd", 0, 17},
               {"next_near", 0, 4},
               {"next_far", 1, 1},
               {"no_name", 5, 0},
               {"value_long", 6, 40},
               {"no_nul", 14, 'x'}});
  const std::vector<StreamInformation> streams = {{3, 4096, u"::$DATA"}, {5, 8, u":t:$DATA"}};
  corpora.Add(target, 13, "streams", Body(EncodeStreams, streams), {{"odd", 4, 13}});
}

void AddFsInformation(Corpora& corpora) {
  const std::string target = "fs_information";
  corpora.Add(target, 0, "volume",
              Body(EncodeFsVolumeInformation, FsVolumeInformation{1, 2, u"data"}),
              {{"odd", 12, 3}});
  corpora.Add(target, 1, "size",
              Body(EncodeFsSizeInformation, FsSizeInformation{1000, 10, 10, 8, 512}));
  corpora.Add(target, 2, "full_size",
              Body(EncodeFsFullSizeInformation, FsSizeInformation{1000, 10, 20, 8, 512}),
              {{"no_unit", 24, 0}, {"overflow", 7, 0xFF}});
  corpora.Add(target, 3, "attribute",
              Body(EncodeFsAttributeInformation, FsAttributeInformation{6, 255, u"NTFS"}),
              {{"long", 8, 9}});
  corpora.Add(target, 4, "sector", Body(EncodeFsSectorSizeInformation, FsSectorSizeInformation{}));
}

void AddReparse(Corpora& corpora) {
  const std::vector<uint8_t> content = {1, 2, 3};
  const std::map<std::string, ReparseData> points = {
      {"symlink", SymlinkReparse{true, u"..\\x", u"../x"}},
      {"mount_point", MountPointReparse{u"\\??\\C:\\x", u"C:\\x"}},
      {"nfs_link", NfsReparse{NfsType::kLink, u"a/b", 0, 0}},
      {"nfs_device", NfsReparse{NfsType::kBlockDevice, u"", 8, 1}},
      {"nfs_fifo", NfsReparse{NfsType::kFifo, u"", 0, 0}},
      {"lx_link", LxSymlinkReparse{"../x"}},
      {"dedup", OtherReparse{kTagDedup, content}},
  };
  for (const auto& [name, point] : points) {
    corpora.Add("reparse", 0, name, Body(EncodeReparseData, point), {{"short", 4, 3}});
  }
  corpora.Add("reparse", 0, "names", Body(EncodeReparseData, points.at("symlink")),
              {{"beyond", 11, 0xFF}, {"odd", 10, 7}, {"nul", 20, 0}});
  corpora.Add("reparse", 0, "nfs", Body(EncodeReparseData, points.at("nfs_link")),
              {{"type", 8, 0}, {"odd", 4, 13}, {"nul", 16, 0}});
  corpora.Add("reparse", 0, "lx", Body(EncodeReparseData, points.at("lx_link")),
              {{"version", 8, 1}, {"nul", 12, 0}});
}

void AddDirectory(Corpora& corpora) {
  constexpr FileInfoClass kClasses[] = {
      FileInfoClass::kDirectory, FileInfoClass::kFullDirectory, FileInfoClass::kBothDirectory,
      FileInfoClass::kIdBothDirectory, FileInfoClass::kIdFullDirectory};
  constexpr size_t kNameOffsets[] = {64, 68, 94, 104, 80};
  for (size_t i = 0; i < std::size(kClasses); ++i) {
    const std::vector<uint8_t> body = BodyOf([&](Writer& writer) {
      DirectoryWriter directory(kClasses[i], 65536, &writer);
      FileAttributes link = kAttributes;
      link.attributes = kAttributeReparsePoint | kAttributeDirectory;
      directory.Add(u"ab", kAttributes, 0, 1);
      directory.Add(u".", kAttributes, 0, 2);
      directory.Add(u"link", link, kTagDfs, 3);
    });
    corpora.Add("directory", static_cast<uint8_t>(i), "class_" + std::to_string(i), body,
                {{"next_odd", 0, 0x71},
                 {"next_near", 0, 8},
                 {"next_far", 2, 1},
                 {"name_long", 61, 1},
                 {"name_empty", 60, 0},
                 {"slash", kNameOffsets[i], '/'}});
  }
}

void AddHeader(Corpora& corpora) {
  for (const uint32_t flags : {0u, uint32_t{kFlagResponse}, uint32_t{kFlagResponse | kFlagAsync}}) {
    std::vector<uint8_t> frame;
    Writer writer(&frame);
    Header header;
    header.command = flags == 0 ? Command::kEcho : Command::kIoctl;
    header.flags = flags;
    header.async_id = 9;
    header.message_id = 7;
    header.status = (flags & kFlagAsync) != 0 ? NtStatus::kPending : NtStatus::kInvalidParameter;
    EncodeHeader(header, writer);
    writer.U32(49);
    writer.AlignFromHeader(8);
    PatchNextCommand(absl::MakeSpan(frame), frame.size());
    EncodeHeader(header, writer);
    writer.U32(4);
    const std::string name = "frame_" + std::to_string(flags);
    corpora.AddRaw("header", name, frame);
    for (const Change& change : std::vector<Change>{{"next_odd", 20, 65},
                                                    {"next_near", 20, 64},
                                                    {"next_far", 21, 1},
                                                    {"size", 4, 63},
                                                    {"protocol", 3, 'X'},
                                                    {"command", 12, 0x7F},
                                                    {"query", 12, 0x10},
                                                    {"session_setup", 12, 1},
                                                    {"tree_connect", 12, 3},
                                                    {"success", 11, 0},
                                                    {"not_async", 16, 1}}) {
      std::vector<uint8_t> changed = frame;
      changed.at(change.offset) = change.value;
      corpora.AddRaw("header", name + "_" + change.name, changed);
    }
    corpora.AddRaw("header", name + "_cut", {frame.begin(), frame.begin() + 100});
    PatchNextCommand(absl::MakeSpan(frame), 0);
    corpora.AddRaw("header", name + "_no_body", {frame.begin(), frame.begin() + kHeaderSize});
  }
  std::vector<uint8_t> envelope(kTransformHeaderSize + 64);
  TransformHeader transform;
  transform.original_size = 64;
  EncodeTransformHeader(transform, absl::MakeSpan(envelope));
  corpora.AddRaw("header", "transform", envelope);
  corpora.AddRaw("header", "transform_cut", {envelope.begin(), envelope.begin() + 60});
  corpora.AddRaw("header", "transform_short", {envelope.begin(), envelope.begin() + 20});
  std::vector<uint8_t> flags = envelope;
  flags[42] = 2;
  corpora.AddRaw("header", "transform_flags", flags);
  envelope.resize(kTransformHeaderSize + 63);
  envelope[36] = 63;
  corpora.AddRaw("header", "transform_no_message", envelope);
  corpora.AddRaw("header", "compressed", FromHex("fc534d42"));
  corpora.AddRaw("header", "prefix", FromHex("00000040"));
  corpora.AddRaw("header", "prefix_large", FromHex("00ffffff"));
  corpora.AddRaw("header", "prefix_not_ours", FromHex("85000000"));
  corpora.AddRaw("header", "prefix_short", FromHex("0000"));
}

void AddText(Corpora& corpora) {
  const std::map<std::string, std::string> texts = {
      {"ascii", "dir/file name.txt"},
      {"mixed",
       "Gr\xC3\xBC\xC3\x9F"
       "e \xE6\x97\xA5\xE6\x9C\xAC \xF0\x9F\x98\x80"},
      {"lone_surrogates", "\xED\xB0\x80 \xED\xA0\x80"},
      {"pair_as_two", "\xED\xA0\x80\xED\xB0\x80"},
      {"overlong", "\xC0\x80"},
      {"cut", "\xF0\x9F\x98"},
      {"bad_lead", "\xFF"},
      {"bad_continuation", "\xC3("},
      {"illegal", "a:b*c?\x01<>|\"\\"},
      {"at_end", "dot."},
      {"dot", "."},
      {"empty_component", "a//b"},
      {"too_long", std::string(300, 'x')},
      {"nul", std::string("a\0b", 3)},
      {"utf16_pair", std::string("\x3D\xD8\x00\xDE", 4)},
      {"utf16_mapped", std::string("\x3A\xF0"
                                   "a\0\x2E\xF0",
                                   6)},
      {"utf16_mapped_not_at_end", std::string("\x20\xF0"
                                              "a\0",
                                              4)},
      {"utf16_slash", std::string("/\0", 2)},
      {"utf16_plain", std::string("a\0b\0\xE4\0", 6)},
  };
  std::string long_path = "x";
  while (long_path.size() < 33000) long_path += "/" + std::string(250, 'x');
  for (const char* target : {"utf16", "file_name"}) {
    for (const auto& [name, text] : texts) {
      corpora.AddRaw(target, name, std::vector<uint8_t>(text.begin(), text.end()));
    }
  }
  corpora.AddRaw("file_name", "long_path",
                 std::vector<uint8_t>(long_path.begin(), long_path.end()));
  corpora.AddRaw("file_name", "empty", {});
}

Corpora MakeCorpora() {
  Corpora corpora;
  AddNegotiate(corpora);
  AddSession(corpora);
  AddCreate(corpora);
  AddIo(corpora);
  AddIoctl(corpora);
  AddQuery(corpora);
  AddBreak(corpora);
  AddErrorResponse(corpora);
  AddFileInformation(corpora);
  AddFsInformation(corpora);
  AddReparse(corpora);
  AddDirectory(corpora);
  AddHeader(corpora);
  AddText(corpora);
  return corpora;
}

TEST(CorpusTest, CommittedFilesAreWhatTheEncodersMake) {
  const bool write = std::getenv("DFSCSI_WRITE_CORPUS") != nullptr;
  const Corpora corpora = MakeCorpora();
  for (const auto& [target, inputs] : corpora.inputs()) {
    const std::filesystem::path folder =
        std::filesystem::path(DFSCSI_WIRE_FOLDER) / (target + "_fuzz_corpus");
    if (write) std::filesystem::create_directories(folder);
    for (const auto& [name, bytes] : inputs) {
      const std::filesystem::path path = folder / name;
      if (write) {
        std::ofstream(path, std::ios::binary)
            .write(reinterpret_cast<const char*>(bytes.data()),
                   static_cast<std::streamsize>(bytes.size()));
      }
      std::ifstream file(path, std::ios::binary);
      const std::vector<char> content{std::istreambuf_iterator<char>(file), {}};
      EXPECT_TRUE(file.is_open()) << path;
      EXPECT_EQ(std::vector<uint8_t>(content.begin(), content.end()), bytes) << path;
    }
  }
}

}  // namespace
}  // namespace dfscsi::smb::wire
