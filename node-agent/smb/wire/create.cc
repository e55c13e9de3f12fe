#include "node-agent/smb/wire/create.h"

#include <string_view>

#include "node-agent/base/status_macros.h"
#include "node-agent/smb/wire/body.h"

namespace dfscsi::smb::wire {
namespace {

constexpr std::string_view kContextLease = "RqLs";
constexpr std::string_view kContextDurable1 = "DHnQ";
constexpr std::string_view kContextDurable1Reconnect = "DHnC";
constexpr std::string_view kContextDurable2 = "DH2Q";
constexpr std::string_view kContextDurable2Reconnect = "DH2C";
constexpr std::string_view kContextMaximalAccess = "MxAc";
constexpr std::string_view kContextOnDiskId = "QFid";
constexpr std::string_view kContextAllocation = "AlSi";
constexpr std::string_view kContextAttributes = "ExtA";

constexpr size_t kContextFixedSize = 16;
constexpr size_t kLeaseV1Size = 32;
constexpr size_t kLeaseV2Size = 52;
constexpr uint32_t kImpersonation = 2;

// Chains create contexts: each record starts 8-aligned, Next of the one before leads to it. Our
// names are all four bytes long, so data always starts 24 bytes into its record.
class ContextWriter {
 public:
  explicit ContextWriter(Writer& writer) : writer_(writer) {}

  void Begin(std::string_view name) {
    if (any_) {
      writer_.AlignFrom(start_, 8);
      writer_.PatchU32(last_, writer_.size() - last_);
    } else {
      start_ = writer_.size();
      any_ = true;
    }
    last_ = writer_.size();
    writer_.U32(0);  // Next
    writer_.U16(kContextFixedSize);
    writer_.U16(static_cast<uint16_t>(name.size()));
    writer_.U16(0);
    writer_.U16(0);  // DataOffset
    writer_.U32(0);  // DataLength
    writer_.Append(Bytes(reinterpret_cast<const uint8_t*>(name.data()), name.size()));
    writer_.AlignFrom(last_, 8);
    data_ = writer_.size();
  }
  void End() {
    const size_t length = writer_.size() - data_;
    if (length == 0) return;
    writer_.PatchU16(last_ + 10, data_ - last_);
    writer_.PatchU32(last_ + 12, length);
  }
  size_t length() const { return any_ ? writer_.size() - start_ : 0; }

 private:
  Writer& writer_;
  bool any_ = false;
  size_t start_ = 0;
  size_t last_ = 0;
  size_t data_ = 0;
};

void WriteLease(const Lease& lease, Writer& writer) {
  writer.Array(lease.key);
  writer.U32(lease.state);
  writer.U32(lease.flags);
  writer.U64(0);  // Duration
  if (!lease.v2) return;
  writer.Array(lease.parent_key);
  writer.U16(lease.epoch);
  writer.U16(0);
}

std::optional<Lease> ReadLease(Bytes data) {
  Lease lease;
  lease.v2 = data.size() >= kLeaseV2Size;
  if (!lease.v2 && data.size() != kLeaseV1Size) return std::nullopt;
  Reader reader(data);
  lease.key = reader.Array<16>();
  lease.state = reader.U32();
  lease.flags = reader.U32();
  reader.Skip(8);
  if (lease.v2) {
    lease.parent_key = reader.Array<16>();
    lease.epoch = reader.U16();
  }
  return lease;
}

// Calls on_context(name, data) for each record; its error ends the walk.
template <typename OnContext>
absl::Status ForEachContext(Bytes contexts, OnContext on_context) {
  constexpr std::string_view kWhat = "create context";
  while (!contexts.empty()) {
    Reader reader(contexts);
    const uint32_t next = reader.U32();
    const uint16_t name_offset = reader.U16();
    const uint16_t name_length = reader.U16();
    reader.Skip(2);
    const uint16_t data_offset = reader.U16();
    const uint32_t data_length = reader.U32();
    if (!reader.ok()) return MalformedError(kWhat, "too short");
    if (next != 0 && (next % 8 != 0 || next < kContextFixedSize || next > contexts.size())) {
      return MalformedError(kWhat, "bad Next");
    }
    const Bytes record = next == 0 ? contexts : contexts.first(next);
    Bytes name;
    Bytes data;
    if (name_offset < kContextFixedSize || !Slice(record, name_offset, name_length, &name)) {
      return MalformedError(kWhat, "name outside its record");
    }
    if (data_length != 0 &&
        (data_offset < kContextFixedSize || !Slice(record, data_offset, data_length, &data))) {
      return MalformedError(kWhat, "data outside its record");
    }
    RETURN_IF_ERROR(on_context(
        std::string_view(reinterpret_cast<const char*>(name.data()), name.size()), data));
    if (next == 0) return absl::OkStatus();
    contexts.remove_prefix(next);
  }
  return MalformedError(kWhat, "Next leads to nothing");
}

absl::Status CheckSize(bool ok) {
  return ok ? absl::OkStatus() : MalformedError("create context", "wrong length");
}

absl::Status ReadRequestContext(std::string_view name, Bytes data, CreateRequest& request) {
  Reader reader(data);
  if (name == kContextLease) {
    request.lease = ReadLease(data);
    return CheckSize(request.lease.has_value());
  }
  if (name == kContextDurable1) {
    request.durable_v1 = true;
  } else if (name == kContextDurable1Reconnect) {
    request.durable_v1_reconnect = ReadFileId(reader);
  } else if (name == kContextDurable2) {
    DurableRequest& durable = request.durable.emplace();
    durable.timeout_ms = reader.U32();
    durable.flags = reader.U32();
    reader.Skip(8);
    durable.create_guid = reader.Array<16>();
  } else if (name == kContextDurable2Reconnect) {
    DurableReconnect& reconnect = request.durable_reconnect.emplace();
    reconnect.file_id = ReadFileId(reader);
    reconnect.create_guid = reader.Array<16>();
    reconnect.flags = reader.U32();
  } else if (name == kContextMaximalAccess) {
    request.query_maximal_access = true;
  } else if (name == kContextOnDiskId) {
    request.query_on_disk_id = true;
  } else if (name == kContextAllocation) {
    request.allocation_bytes = reader.U64();
  } else if (name == kContextAttributes) {
    ASSIGN_OR_RETURN(request.attributes, DecodeExtendedAttributes(data));
  }
  return CheckSize(reader.ok());
}

absl::Status ReadResponseContext(std::string_view name, Bytes data, CreateResponse& response) {
  Reader reader(data);
  if (name == kContextLease) {
    response.lease = ReadLease(data);
    return CheckSize(response.lease.has_value());
  }
  if (name == kContextDurable1) {
    response.durable_v1 = true;
  } else if (name == kContextDurable2) {
    DurableResponse& durable = response.durable.emplace();
    durable.timeout_ms = reader.U32();
    durable.flags = reader.U32();
  } else if (name == kContextMaximalAccess) {
    MaximalAccess& maximal = response.maximal_access.emplace();
    maximal.status = static_cast<NtStatus>(reader.U32());
    maximal.access = reader.U32();
  } else if (name == kContextOnDiskId) {
    OnDiskId& id = response.on_disk_id.emplace();
    id.file = reader.U64();
    id.volume = reader.U64();
  }
  return CheckSize(reader.ok());
}

void WriteRequestContexts(const CreateRequest& request, ContextWriter& list, Writer& writer) {
  if (request.lease.has_value()) {
    list.Begin(kContextLease);
    WriteLease(*request.lease, writer);
    list.End();
  }
  if (request.durable_v1) {
    list.Begin(kContextDurable1);
    writer.Zero(16);
    list.End();
  }
  if (request.durable_v1_reconnect.has_value()) {
    list.Begin(kContextDurable1Reconnect);
    WriteFileId(*request.durable_v1_reconnect, writer);
    list.End();
  }
  if (request.durable.has_value()) {
    list.Begin(kContextDurable2);
    writer.U32(request.durable->timeout_ms);
    writer.U32(request.durable->flags);
    writer.U64(0);
    writer.Array(request.durable->create_guid);
    list.End();
  }
  if (request.durable_reconnect.has_value()) {
    list.Begin(kContextDurable2Reconnect);
    WriteFileId(request.durable_reconnect->file_id, writer);
    writer.Array(request.durable_reconnect->create_guid);
    writer.U32(request.durable_reconnect->flags);
    list.End();
  }
  if (request.query_maximal_access) {
    list.Begin(kContextMaximalAccess);
    list.End();
  }
  if (request.query_on_disk_id) {
    list.Begin(kContextOnDiskId);
    list.End();
  }
  if (request.allocation_bytes.has_value()) {
    list.Begin(kContextAllocation);
    writer.U64(*request.allocation_bytes);
    list.End();
  }
  if (!request.attributes.empty()) {
    list.Begin(kContextAttributes);
    EncodeExtendedAttributes(request.attributes, writer);
    list.End();
  }
}

void WriteResponseContexts(const CreateResponse& response, ContextWriter& list, Writer& writer) {
  if (response.lease.has_value()) {
    list.Begin(kContextLease);
    WriteLease(*response.lease, writer);
    list.End();
  }
  if (response.durable_v1) {
    list.Begin(kContextDurable1);
    writer.U64(0);
    list.End();
  }
  if (response.durable.has_value()) {
    list.Begin(kContextDurable2);
    writer.U32(response.durable->timeout_ms);
    writer.U32(response.durable->flags);
    list.End();
  }
  if (response.maximal_access.has_value()) {
    list.Begin(kContextMaximalAccess);
    writer.U32(static_cast<uint32_t>(response.maximal_access->status));
    writer.U32(response.maximal_access->access);
    list.End();
  }
  if (response.on_disk_id.has_value()) {
    list.Begin(kContextOnDiskId);
    writer.U64(response.on_disk_id->file);
    writer.U64(response.on_disk_id->volume);
    writer.Zero(16);
    list.End();
  }
}

}  // namespace

void EncodeCreateRequest(const CreateRequest& request, Writer& writer) {
  writer.U16(57);
  writer.U8(0);  // SecurityFlags
  writer.U8(static_cast<uint8_t>(request.oplock));
  writer.U32(kImpersonation);
  writer.Zero(16);
  writer.U32(request.desired_access);
  writer.U32(request.file_attributes);
  writer.U32(request.share_access);
  writer.U32(static_cast<uint32_t>(request.disposition));
  writer.U32(request.options);
  writer.Length16(writer.HeaderOffset() + 12);
  writer.Length16(request.name.size() * 2);
  const size_t contexts_at = writer.size();
  writer.U64(0);
  writer.Utf16(request.name);
  const size_t name_end = writer.size();
  writer.AlignFromHeader(8);
  const size_t contexts_offset = writer.HeaderOffset();
  ContextWriter list(writer);
  WriteRequestContexts(request, list, writer);
  if (list.length() != 0) {
    writer.PatchU32(contexts_at, contexts_offset);
    writer.PatchU32(contexts_at + 4, list.length());
  } else if (writer.size() == name_end && request.name.empty()) {
    writer.U8(0);  // An odd StructureSize wants at least one byte of buffer.
  }
}

absl::StatusOr<CreateRequest> DecodeCreateRequest(Bytes body) {
  BodyReader reader(body, 57, "CREATE request");
  CreateRequest request;
  reader.Skip(1);
  request.oplock = static_cast<OplockLevel>(reader.U8());
  reader.Skip(4 + 16);
  request.desired_access = reader.U32();
  request.file_attributes = reader.U32();
  request.share_access = reader.U32();
  request.disposition = static_cast<Disposition>(reader.U32());
  request.options = reader.U32();
  const uint16_t name_offset = reader.U16();
  const uint16_t name_length = reader.U16();
  const uint32_t contexts_offset = reader.U32();
  const uint32_t contexts_length = reader.U32();
  request.name = reader.Utf16Buffer(name_offset, name_length);
  const Bytes contexts = reader.Buffer(contexts_offset, contexts_length);
  if (!reader.ok()) return reader.status();
  if (!contexts.empty()) {
    RETURN_IF_ERROR(ForEachContext(contexts, [&request](std::string_view name, Bytes data) {
      return ReadRequestContext(name, data, request);
    }));
  }
  return request;
}

void EncodeCreateResponse(const CreateResponse& response, Writer& writer) {
  writer.U16(89);
  writer.U8(static_cast<uint8_t>(response.oplock));
  writer.U8(response.flags);
  writer.U32(static_cast<uint32_t>(response.action));
  WriteFileAttributes(response.attributes, writer);
  writer.U32(0);
  WriteFileId(response.file_id, writer);
  const size_t contexts_at = writer.size();
  writer.U64(0);
  const size_t contexts_offset = writer.HeaderOffset();
  ContextWriter list(writer);
  WriteResponseContexts(response, list, writer);
  if (list.length() == 0) return writer.U8(0);
  writer.PatchU32(contexts_at, contexts_offset);
  writer.PatchU32(contexts_at + 4, list.length());
}

absl::StatusOr<CreateResponse> DecodeCreateResponse(Bytes body) {
  BodyReader reader(body, 89, "CREATE response");
  CreateResponse response;
  response.oplock = static_cast<OplockLevel>(reader.U8());
  response.flags = reader.U8();
  response.action = static_cast<CreateAction>(reader.U32());
  response.attributes = ReadFileAttributes(reader);
  reader.Skip(4);
  response.file_id = ReadFileId(reader);
  const uint32_t contexts_offset = reader.U32();
  const uint32_t contexts_length = reader.U32();
  const Bytes contexts = reader.Buffer(contexts_offset, contexts_length);
  if (!reader.ok()) return reader.status();
  if (!contexts.empty()) {
    RETURN_IF_ERROR(ForEachContext(contexts, [&response](std::string_view name, Bytes data) {
      return ReadResponseContext(name, data, response);
    }));
  }
  return response;
}

}  // namespace dfscsi::smb::wire
