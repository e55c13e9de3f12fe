// IOCTL and the FSCTL payloads that we send ([MS-SMB2] 2.2.31, 2.2.32; [MS-FSCC] 2.3).

#ifndef NODE_AGENT_SMB_WIRE_IOCTL_H_
#define NODE_AGENT_SMB_WIRE_IOCTL_H_

#include <array>
#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "node-agent/smb/wire/header.h"
#include "node-agent/smb/wire/negotiate.h"
#include "node-agent/smb/wire/reader.h"
#include "node-agent/smb/wire/writer.h"

namespace dfscsi::smb::wire {

enum class Fsctl : uint32_t {
  kDfsGetReferrals = 0x00060194,
  kDfsGetReferralsEx = 0x000601B0,
  kSetReparsePoint = 0x000900A4,
  kGetReparsePoint = 0x000900A8,
  kSetSparse = 0x000900C4,
  kQueryAllocatedRanges = 0x000940CF,
  kSetZeroData = 0x000980C8,
  kDuplicateExtents = 0x00098344,
  kFileLevelTrim = 0x00098208,
  kPipeTransceive = 0x0011C017,
  kRequestResumeKey = 0x00140078,
  kEnumerateSnapshots = 0x00144064,
  kLmrRequestResiliency = 0x001401D4,
  kQueryNetworkInterfaces = 0x001401FC,
  kValidateNegotiate = 0x00140204,
  kCopyChunk = 0x001440F2,
  kCopyChunkWrite = 0x001480F2,
};

struct IoctlRequest {
  Fsctl code = Fsctl::kDfsGetReferrals;
  FileId file_id = kNoFileId;
  Bytes input;
  uint32_t max_input_bytes = 0;
  uint32_t max_output_bytes = 0;
};
void EncodeIoctlRequest(const IoctlRequest& request, Writer& writer);
absl::StatusOr<IoctlRequest> DecodeIoctlRequest(Bytes body);

struct IoctlResponse {
  Fsctl code = Fsctl::kDfsGetReferrals;
  FileId file_id = kNoFileId;
  Bytes output;  // Points into the decoded body.
};
void EncodeIoctlResponse(const IoctlResponse& response, Writer& writer);
absl::StatusOr<IoctlResponse> DecodeIoctlResponse(Bytes body);

// FSCTL_VALIDATE_NEGOTIATE_INFO (3.0, 3.0.2): what was negotiated, over again and signed. Its reply
// must equal the NEGOTIATE reply in all four fields.
struct ValidateNegotiateRequest {
  uint32_t capabilities = 0;
  Guid guid = {};
  uint16_t security_mode = 0;
  std::vector<Dialect> dialects;
};
struct ValidateNegotiateResponse {
  uint32_t capabilities = 0;
  Guid guid = {};
  uint16_t security_mode = 0;
  Dialect dialect = Dialect::k300;
};
void EncodeValidateNegotiateRequest(const ValidateNegotiateRequest& request, Writer& writer);
absl::StatusOr<ValidateNegotiateRequest> DecodeValidateNegotiateRequest(Bytes input);
void EncodeValidateNegotiateResponse(const ValidateNegotiateResponse& response, Writer& writer);
absl::StatusOr<ValidateNegotiateResponse> DecodeValidateNegotiateResponse(Bytes output);

// FSCTL_QUERY_ALLOCATED_RANGES: input one range, output the ranges in it that hold bytes.
struct FileRange {
  uint64_t offset = 0;
  uint64_t length_bytes = 0;

  friend bool operator==(const FileRange&, const FileRange&) = default;
};
void EncodeFileRanges(absl::Span<const FileRange> ranges, Writer& writer);
// Rejects ranges that overlap, go backwards or leave int64: lseek(SEEK_DATA) relies on their order.
absl::StatusOr<std::vector<FileRange>> DecodeFileRanges(Bytes output);

// FSCTL_SET_ZERO_DATA: zeros [offset, beyond).
struct ZeroRange {
  uint64_t offset = 0;
  uint64_t beyond = 0;
};
void EncodeZeroRange(const ZeroRange& range, Writer& writer);
absl::StatusOr<ZeroRange> DecodeZeroRange(Bytes input);

// FSCTL_SET_SPARSE. An empty input means true ([MS-FSCC] 2.3.64).
void EncodeSetSparse(bool sparse, Writer& writer);
absl::StatusOr<bool> DecodeSetSparse(Bytes input);

// FSCTL_DUPLICATE_EXTENTS_TO_FILE: shares blocks of `source` with the file that it is sent to. All
// three numbers are multiples of the volume's cluster ([MS-FSCC] 2.3.7).
struct DuplicateExtents {
  FileId source;
  uint64_t source_offset = 0;
  uint64_t target_offset = 0;
  uint64_t length_bytes = 0;
};
void EncodeDuplicateExtents(const DuplicateExtents& request, Writer& writer);
absl::StatusOr<DuplicateExtents> DecodeDuplicateExtents(Bytes input);

// FSCTL_SRV_REQUEST_RESUME_KEY: names the source file of a server-side copy.
using ResumeKey = std::array<uint8_t, 24>;
void EncodeResumeKeyResponse(const ResumeKey& key, Writer& writer);
absl::StatusOr<ResumeKey> DecodeResumeKeyResponse(Bytes output);

struct CopyChunk {
  uint64_t source_offset = 0;
  uint64_t target_offset = 0;
  uint32_t length_bytes = 0;
};
struct CopyChunkRequest {
  ResumeKey source = {};
  std::vector<CopyChunk> chunks;
};
// With STATUS_INVALID_PARAMETER the same three fields hold the server's limits: chunks per request,
// bytes per chunk, bytes per request.
struct CopyChunkResponse {
  uint32_t chunks = 0;
  uint32_t chunk_bytes = 0;
  uint32_t total_bytes = 0;
};
void EncodeCopyChunkRequest(const CopyChunkRequest& request, Writer& writer);
absl::StatusOr<CopyChunkRequest> DecodeCopyChunkRequest(Bytes input);
void EncodeCopyChunkResponse(const CopyChunkResponse& response, Writer& writer);
absl::StatusOr<CopyChunkResponse> DecodeCopyChunkResponse(Bytes output);

}  // namespace dfscsi::smb::wire

#endif  // NODE_AGENT_SMB_WIRE_IOCTL_H_
