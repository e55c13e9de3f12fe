#include "node-agent/smb/wire/negotiate.h"

#include <algorithm>

#include "node-agent/base/status_macros.h"
#include "node-agent/smb/wire/body.h"

namespace dfscsi::smb::wire {
namespace {

enum ContextType : uint16_t {
  kPreauthIntegrity = 1,
  kEncryption = 2,
  kNetName = 5,
  kSigning = 8,
};

constexpr uint32_t kSmallestMaximum = 65536;  // Of MaxTransact-, MaxRead- and MaxWriteSize.

// Writes the contexts one by one, each from an 8-aligned offset, the last one without padding.
class ContextWriter {
 public:
  explicit ContextWriter(Writer& writer) : writer_(writer) {}

  // Leaves its length at `length_at` to be patched by End().
  void Begin(ContextType type) {
    writer_.AlignFromHeader(8);
    writer_.U16(type);
    length_at_ = writer_.size();
    writer_.U16(0);
    writer_.U32(0);
    data_at_ = writer_.size();
    ++count_;
  }
  void End() { writer_.PatchU16(length_at_, writer_.size() - data_at_); }
  uint16_t count() const { return count_; }

 private:
  Writer& writer_;
  size_t length_at_ = 0;
  size_t data_at_ = 0;
  uint16_t count_ = 0;
};

uint16_t EncodeContexts(const NegotiateContexts& contexts, Writer& writer) {
  ContextWriter list(writer);
  if (!contexts.hashes.empty()) {
    list.Begin(kPreauthIntegrity);
    writer.Length16(contexts.hashes.size());
    writer.Length16(contexts.salt.size());
    for (const uint16_t hash : contexts.hashes) writer.U16(hash);
    writer.Append(contexts.salt);
    list.End();
  }
  if (!contexts.ciphers.empty()) {
    list.Begin(kEncryption);
    writer.Length16(contexts.ciphers.size());
    for (const CipherId cipher : contexts.ciphers) writer.U16(static_cast<uint16_t>(cipher));
    list.End();
  }
  if (!contexts.signings.empty()) {
    list.Begin(kSigning);
    writer.Length16(contexts.signings.size());
    for (const SigningId signing : contexts.signings) {
      writer.U16(static_cast<uint16_t>(signing));
    }
    list.End();
  }
  if (!contexts.net_name.empty()) {
    list.Begin(kNetName);
    writer.Utf16(contexts.net_name);
    list.End();
  }
  return list.count();
}

absl::Status DecodeContext(uint16_t type, Bytes data, NegotiateContexts& contexts) {
  constexpr std::string_view kWhat = "negotiate context";
  Reader reader(data);
  // A count that the data cannot hold fails the reader at its first missing number.
  if (type == kPreauthIntegrity) {
    const uint16_t count = reader.U16();
    const uint16_t salt_length = reader.U16();
    for (uint16_t i = 0; i < count && reader.ok(); ++i) contexts.hashes.push_back(reader.U16());
    const Bytes salt = reader.Take(salt_length);
    contexts.salt.assign(salt.begin(), salt.end());
  } else if (type == kEncryption) {
    const uint16_t count = reader.U16();
    for (uint16_t i = 0; i < count && reader.ok(); ++i) {
      contexts.ciphers.push_back(static_cast<CipherId>(reader.U16()));
    }
  } else if (type == kSigning) {
    const uint16_t count = reader.U16();
    for (uint16_t i = 0; i < count && reader.ok(); ++i) {
      contexts.signings.push_back(static_cast<SigningId>(reader.U16()));
    }
  } else if (type == kNetName) {
    if (data.size() % 2 != 0) return MalformedError(kWhat, "name of odd length");
    contexts.net_name = Utf16FromBytes(data);
  }
  if (!reader.ok()) return MalformedError(kWhat, "too short");
  return absl::OkStatus();
}

// `offset` counts from the header, like all offsets in a body.
absl::StatusOr<NegotiateContexts> DecodeContexts(Bytes body, size_t fixed, uint64_t offset,
                                                 uint16_t count) {
  constexpr std::string_view kWhat = "negotiate contexts";
  NegotiateContexts contexts;
  if (count == 0) return contexts;
  if (offset < kHeaderSize + fixed || offset % 8 != 0) {
    return MalformedError(kWhat, "bad offset");
  }
  uint64_t at = offset - kHeaderSize;
  std::vector<uint16_t> seen;
  for (uint16_t i = 0; i < count; ++i) {
    Bytes rest;
    if (at > body.size() || !Slice(body, at, body.size() - at, &rest)) {
      return MalformedError(kWhat, "too short");
    }
    Reader reader(rest);
    const uint16_t type = reader.U16();
    const uint16_t length = reader.U16();
    reader.Skip(4);
    const Bytes data = reader.Take(length);
    if (!reader.ok()) return MalformedError(kWhat, "too short");
    if (std::find(seen.begin(), seen.end(), type) != seen.end()) {
      return MalformedError(kWhat, "duplicate context");
    }
    seen.push_back(type);
    RETURN_IF_ERROR(DecodeContext(type, data, contexts));
    // Headers are 64 bytes, so aligned in the body is aligned in the message.
    at += (reader.offset() + 7) & ~size_t{7};
  }
  return contexts;
}

}  // namespace

void EncodeNegotiateRequest(const NegotiateRequest& request, Writer& writer) {
  writer.U16(36);
  writer.Length16(request.dialects.size());
  writer.U16(request.security_mode);
  writer.U16(0);
  writer.U32(request.capabilities);
  writer.Array(request.client_guid);
  const size_t contexts_at = writer.size();
  writer.U64(0);
  bool has_contexts = false;
  for (const Dialect dialect : request.dialects) {
    writer.U16(static_cast<uint16_t>(dialect));
    has_contexts |= dialect == Dialect::k311;
  }
  if (!has_contexts) return;
  writer.AlignFromHeader(8);
  writer.PatchU32(contexts_at, writer.HeaderOffset());
  writer.PatchU16(contexts_at + 4, EncodeContexts(request.contexts, writer));
}

absl::StatusOr<NegotiateRequest> DecodeNegotiateRequest(Bytes body) {
  BodyReader reader(body, 36, "NEGOTIATE request");
  NegotiateRequest request;
  const uint16_t dialect_count = reader.U16();
  request.security_mode = reader.U16();
  reader.Skip(2);
  request.capabilities = reader.U32();
  request.client_guid = reader.Array<16>();
  const uint32_t contexts_offset = reader.U32();
  const uint16_t context_count = reader.U16();
  reader.Skip(2);
  bool has_contexts = false;
  for (uint16_t i = 0; i < dialect_count && reader.ok(); ++i) {
    request.dialects.push_back(static_cast<Dialect>(reader.U16()));
    has_contexts |= request.dialects.back() == Dialect::k311;
  }
  if (reader.ok() && dialect_count == 0) reader.Reject("no dialect");
  if (!reader.ok()) return reader.status();
  if (has_contexts) {
    ASSIGN_OR_RETURN(request.contexts,
                     DecodeContexts(body, reader.offset(), contexts_offset, context_count));
  }
  return request;
}

void EncodeNegotiateResponse(const NegotiateResponse& response, Writer& writer) {
  writer.U16(65);
  writer.U16(response.security_mode);
  writer.U16(static_cast<uint16_t>(response.dialect));
  const size_t count_at = writer.size();
  writer.U16(0);
  writer.Array(response.server_guid);
  writer.U32(response.capabilities);
  writer.U32(response.max_transact_bytes);
  writer.U32(response.max_read_bytes);
  writer.U32(response.max_write_bytes);
  writer.U64(response.system_time);
  writer.U64(response.server_start_time);
  writer.Length16(writer.HeaderOffset() + 8);
  writer.Length16(response.security_buffer.size());
  const size_t offset_at = writer.size();
  writer.U32(0);
  writer.Append(response.security_buffer);
  if (response.dialect != Dialect::k311) {
    if (response.security_buffer.empty()) writer.U8(0);
    return;
  }
  writer.AlignFromHeader(8);
  writer.PatchU32(offset_at, writer.HeaderOffset());
  writer.PatchU16(count_at, EncodeContexts(response.contexts, writer));
}

absl::StatusOr<NegotiateResponse> DecodeNegotiateResponse(Bytes body) {
  BodyReader reader(body, 65, "NEGOTIATE response");
  NegotiateResponse response;
  response.security_mode = reader.U16();
  response.dialect = static_cast<Dialect>(reader.U16());
  const uint16_t context_count = reader.U16();
  response.server_guid = reader.Array<16>();
  response.capabilities = reader.U32();
  response.max_transact_bytes = reader.U32();
  response.max_read_bytes = reader.U32();
  response.max_write_bytes = reader.U32();
  response.system_time = reader.U64();
  response.server_start_time = reader.U64();
  const uint16_t offset = reader.U16();
  const uint16_t length = reader.U16();
  const uint32_t contexts_offset = reader.U32();
  response.security_buffer = reader.Buffer(offset, length);
  if (reader.ok() && std::min({response.max_transact_bytes, response.max_read_bytes,
                               response.max_write_bytes}) < kSmallestMaximum) {
    reader.Reject("maximum sizes below 64 KiB");
  }
  if (!reader.ok()) return reader.status();
  if (response.dialect != Dialect::k311) return response;

  ASSIGN_OR_RETURN(response.contexts,
                   DecodeContexts(body, reader.offset(), contexts_offset, context_count));
  if (response.contexts.hashes.size() != 1) reader.Reject("not one preauth integrity hash");
  if (response.contexts.ciphers.size() > 1) reader.Reject("more than one cipher");
  if (response.contexts.signings.size() > 1) reader.Reject("more than one signing algorithm");
  if (!reader.ok()) return reader.status();
  return response;
}

}  // namespace dfscsi::smb::wire
