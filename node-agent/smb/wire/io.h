// CLOSE, FLUSH, READ, WRITE, LOCK ([MS-SMB2] 2.2.15–2.2.22, 2.2.26, 2.2.27).

#ifndef NODE_AGENT_SMB_WIRE_IO_H_
#define NODE_AGENT_SMB_WIRE_IO_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "node-agent/smb/wire/file_attributes.h"
#include "node-agent/smb/wire/header.h"
#include "node-agent/smb/wire/reader.h"
#include "node-agent/smb/wire/writer.h"

namespace dfscsi::smb::wire {

struct CloseRequest {
  bool query_attributes = false;  // POSTQUERY_ATTRIB
  FileId file_id;
};
void EncodeCloseRequest(const CloseRequest& request, Writer& writer);
absl::StatusOr<CloseRequest> DecodeCloseRequest(Bytes body);

struct CloseResponse {
  bool has_attributes = false;
  FileAttributes attributes;  // If has_attributes.
};
void EncodeCloseResponse(const CloseResponse& response, Writer& writer);
absl::StatusOr<CloseResponse> DecodeCloseResponse(Bytes body);

struct FlushRequest {
  FileId file_id;
};
void EncodeFlushRequest(const FlushRequest& request, Writer& writer);
absl::StatusOr<FlushRequest> DecodeFlushRequest(Bytes body);
// FLUSH's response is an empty body (session.h).

struct ReadRequest {
  FileId file_id;
  uint64_t offset = 0;
  uint32_t length_bytes = 0;
  uint32_t minimum_bytes = 0;    // Fewer: END_OF_FILE instead of a short read.
  uint32_t remaining_bytes = 0;  // A hint: how much of this read is still to come.
  uint8_t flags = 0;
};
void EncodeReadRequest(const ReadRequest& request, Writer& writer);
absl::StatusOr<ReadRequest> DecodeReadRequest(Bytes body);

inline constexpr size_t kReadResponseFixedSize = 16;
// What a receiver needs of a READ response's beginning to take the payload straight to its place.
inline constexpr size_t kReadResponsePeekSize = kHeaderSize + kReadResponseFixedSize;
// Where servers put the payload, and where EncodeReadResponse says it is.
inline constexpr uint32_t kReadDataOffset = kReadResponsePeekSize;

struct ReadResponse {
  uint32_t data_offset = kReadDataOffset;  // From the header.
  uint32_t data_length = 0;
  uint32_t remaining_bytes = 0;
  uint32_t flags = 0;
};
// Writes the fixed 16 bytes; the caller sends the payload right behind them.
void EncodeReadResponse(const ReadResponse& response, Writer& writer);
// `body` needs only the fixed 16 bytes, the payload may still be on the network. `message_size` is
// the size of this whole message (header included), which the payload must not leave. That the
// server did not send more than was asked for is the caller's check.
absl::StatusOr<ReadResponse> DecodeReadResponse(Bytes body, uint64_t message_size);

inline constexpr size_t kWriteRequestFixedSize = 48;
inline constexpr uint32_t kWriteDataOffset = kHeaderSize + kWriteRequestFixedSize;  // 112
enum WriteFlags : uint32_t { kWriteThrough = 1 };

struct WriteRequest {
  FileId file_id;
  uint64_t offset = 0;
  uint32_t length_bytes = 0;
  uint32_t remaining_bytes = 0;
  uint32_t flags = 0;
  Bytes payload;  // Set by the decoder, ignored by the encoder.
};
// Writes the fixed 48 bytes; the caller sends `length_bytes` of payload right behind them from
// where they lie. length_bytes must not be 0 ([MS-SMB2] 3.3.5.13).
void EncodeWriteRequest(const WriteRequest& request, Writer& writer);
absl::StatusOr<WriteRequest> DecodeWriteRequest(Bytes body);

struct WriteResponse {
  uint32_t written_bytes = 0;  // Fewer than asked: go on from there. More: the peer is broken.
};
void EncodeWriteResponse(const WriteResponse& response, Writer& writer);
absl::StatusOr<WriteResponse> DecodeWriteResponse(Bytes body);

enum LockFlags : uint32_t {
  kLockShared = 0x1,
  kLockExclusive = 0x2,
  kLockUnlock = 0x4,
  kLockFailImmediately = 0x10,
};
// LockRequest::lock_sequence of a lock or unlock over a durable handle: the server answers one that
// it has seen with the same number at the same index with success, and does not do it twice.
// `index` 1 to 64, `number` 0 to 15 ([MS-SMB2] 3.3.5.14).
constexpr uint32_t LockSequence(uint32_t index, uint32_t number) {
  return index << 4 | (number & 0xF);
}

struct LockElement {
  uint64_t offset = 0;
  uint64_t length_bytes = 0;
  uint32_t flags = 0;
};
struct LockRequest {
  // For durable handles: LockSequence(); 0: none.
  uint32_t lock_sequence = 0;
  FileId file_id;
  std::vector<LockElement> locks;  // At least one.
};
void EncodeLockRequest(const LockRequest& request, Writer& writer);
absl::StatusOr<LockRequest> DecodeLockRequest(Bytes body);
// LOCK's response is an empty body (session.h).

}  // namespace dfscsi::smb::wire

#endif  // NODE_AGENT_SMB_WIRE_IO_H_
