#include "node-agent/smb/wire/io.h"

#include "node-agent/smb/wire/body.h"

namespace dfscsi::smb::wire {
namespace {

constexpr uint16_t kPostQueryAttributes = 1;
constexpr size_t kLockElementSize = 24;

}  // namespace

void EncodeCloseRequest(const CloseRequest& request, Writer& writer) {
  writer.U16(24);
  writer.U16(request.query_attributes ? kPostQueryAttributes : 0);
  writer.U32(0);
  WriteFileId(request.file_id, writer);
}

absl::StatusOr<CloseRequest> DecodeCloseRequest(Bytes body) {
  BodyReader reader(body, 24, "CLOSE request");
  CloseRequest request;
  request.query_attributes = (reader.U16() & kPostQueryAttributes) != 0;
  reader.Skip(4);
  request.file_id = ReadFileId(reader);
  if (!reader.ok()) return reader.status();
  return request;
}

void EncodeCloseResponse(const CloseResponse& response, Writer& writer) {
  writer.U16(60);
  writer.U16(response.has_attributes ? kPostQueryAttributes : 0);
  writer.U32(0);
  WriteFileAttributes(response.has_attributes ? response.attributes : FileAttributes{}, writer);
}

absl::StatusOr<CloseResponse> DecodeCloseResponse(Bytes body) {
  BodyReader reader(body, 60, "CLOSE response");
  CloseResponse response;
  response.has_attributes = (reader.U16() & kPostQueryAttributes) != 0;
  reader.Skip(4);
  response.attributes = ReadFileAttributes(reader);
  if (!reader.ok()) return reader.status();
  return response;
}

void EncodeFlushRequest(const FlushRequest& request, Writer& writer) {
  writer.U16(24);
  writer.Zero(6);
  WriteFileId(request.file_id, writer);
}

absl::StatusOr<FlushRequest> DecodeFlushRequest(Bytes body) {
  BodyReader reader(body, 24, "FLUSH request");
  reader.Skip(6);
  FlushRequest request;
  request.file_id = ReadFileId(reader);
  if (!reader.ok()) return reader.status();
  return request;
}

void EncodeReadRequest(const ReadRequest& request, Writer& writer) {
  writer.U16(49);
  writer.U8(kReadDataOffset);  // Padding: where we would like the payload.
  writer.U8(request.flags);
  writer.U32(request.length_bytes);
  writer.U64(request.offset);
  WriteFileId(request.file_id, writer);
  writer.U32(request.minimum_bytes);
  writer.U32(0);  // Channel
  writer.U32(request.remaining_bytes);
  writer.U32(0);  // ReadChannelInfo
  writer.U8(0);   // The buffer of an odd StructureSize.
}

absl::StatusOr<ReadRequest> DecodeReadRequest(Bytes body) {
  BodyReader reader(body, 49, "READ request");
  ReadRequest request;
  reader.Skip(1);
  request.flags = reader.U8();
  request.length_bytes = reader.U32();
  request.offset = reader.U64();
  request.file_id = ReadFileId(reader);
  request.minimum_bytes = reader.U32();
  reader.Skip(4);
  request.remaining_bytes = reader.U32();
  reader.Skip(4);
  if (!reader.ok()) return reader.status();
  return request;
}

void EncodeReadResponse(const ReadResponse& response, Writer& writer) {
  writer.U16(17);
  writer.Length8(response.data_offset);
  writer.U8(0);
  writer.U32(response.data_length);
  writer.U32(response.remaining_bytes);
  writer.U32(response.flags);
}

absl::StatusOr<ReadResponse> DecodeReadResponse(Bytes body, uint64_t message_size) {
  BodyReader reader(body, 17, "READ response");
  ReadResponse response;
  response.data_offset = reader.U8();
  reader.Skip(1);
  response.data_length = reader.U32();
  response.remaining_bytes = reader.U32();
  response.flags = reader.U32();
  if (!reader.ok()) return reader.status();
  if (response.data_length == 0) return response;
  // 64 bits: the sum cannot wrap.
  if (response.data_offset < kReadDataOffset ||
      uint64_t{response.data_offset} + response.data_length > message_size) {
    return MalformedError("READ response", "payload outside the message");
  }
  return response;
}

void EncodeWriteRequest(const WriteRequest& request, Writer& writer) {
  writer.U16(49);
  writer.Length16(writer.HeaderOffset() + kWriteRequestFixedSize - 2);
  writer.U32(request.length_bytes);
  writer.U64(request.offset);
  WriteFileId(request.file_id, writer);
  writer.U32(0);  // Channel
  writer.U32(request.remaining_bytes);
  writer.U32(0);  // WriteChannelInfo
  writer.U32(request.flags);
}

absl::StatusOr<WriteRequest> DecodeWriteRequest(Bytes body) {
  BodyReader reader(body, 49, "WRITE request");
  WriteRequest request;
  const uint16_t data_offset = reader.U16();
  request.length_bytes = reader.U32();
  request.offset = reader.U64();
  request.file_id = ReadFileId(reader);
  reader.Skip(4);
  request.remaining_bytes = reader.U32();
  reader.Skip(4);
  request.flags = reader.U32();
  request.payload = reader.Buffer(data_offset, request.length_bytes);
  if (!reader.ok()) return reader.status();
  return request;
}

void EncodeWriteResponse(const WriteResponse& response, Writer& writer) {
  writer.U16(17);
  writer.U16(0);
  writer.U32(response.written_bytes);
  writer.U64(0);
}

absl::StatusOr<WriteResponse> DecodeWriteResponse(Bytes body) {
  BodyReader reader(body, 17, "WRITE response");
  reader.Skip(2);
  WriteResponse response;
  response.written_bytes = reader.U32();
  if (!reader.ok()) return reader.status();
  return response;
}

void EncodeLockRequest(const LockRequest& request, Writer& writer) {
  writer.U16(48);
  writer.Length16(request.locks.size());
  writer.U32(request.lock_sequence);
  WriteFileId(request.file_id, writer);
  for (const LockElement& lock : request.locks) {
    writer.U64(lock.offset);
    writer.U64(lock.length_bytes);
    writer.U32(lock.flags);
    writer.U32(0);
  }
}

absl::StatusOr<LockRequest> DecodeLockRequest(Bytes body) {
  BodyReader reader(body, 48, "LOCK request");
  LockRequest request;
  const uint16_t count = reader.U16();
  request.lock_sequence = reader.U32();
  request.file_id = ReadFileId(reader);
  if (count == 0 || reader.remaining() / kLockElementSize < count) reader.Reject("lock count");
  if (!reader.ok()) return reader.status();
  for (uint16_t i = 0; i < count; ++i) {
    LockElement& lock = request.locks.emplace_back();
    lock.offset = reader.U64();
    lock.length_bytes = reader.U64();
    lock.flags = reader.U32();
    reader.Skip(4);
  }
  return request;
}

}  // namespace dfscsi::smb::wire
