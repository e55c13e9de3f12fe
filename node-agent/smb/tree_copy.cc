// Server-side copies, holes, extended attributes, reparse points.

#include <algorithm>
#include <utility>

#include "node-agent/base/status_macros.h"
#include "node-agent/smb/session.h"
#include "node-agent/smb/tree.h"
#include "node-agent/smb/tree_internal.h"
#include "node-agent/smb/wire/ioctl.h"
#include "node-agent/smb/wire/query.h"

namespace dfscsi::smb {
namespace {

using runtime::Deadline;
using runtime::Task;

constexpr uint32_t kResumeKeyBytes = 32;
constexpr uint32_t kCopyAnswerBytes = 12;
// Extended attributes of one file, all together ([MS-FSCC] 2.4.13: 64 KiB on NTFS).
constexpr uint32_t kMostAttributeBytes = 65536;

// The next chunks of a copy, within the server's limits. The target is written in order.
wire::CopyChunkRequest NextChunks(const wire::ResumeKey& key, uint64_t source_offset,
                                  uint64_t target_offset, uint64_t length_bytes,
                                  const wire::CopyChunkResponse& limits) {
  wire::CopyChunkRequest request{.source = key, .chunks = {}};
  uint64_t left = std::min<uint64_t>(length_bytes, limits.total_bytes);
  while (left > 0 && request.chunks.size() < limits.chunks) {
    const auto n = static_cast<uint32_t>(std::min<uint64_t>(left, limits.chunk_bytes));
    request.chunks.push_back(
        {.source_offset = source_offset, .target_offset = target_offset, .length_bytes = n});
    source_offset += n;
    target_offset += n;
    left -= n;
  }
  return request;
}

uint64_t TotalOf(const wire::CopyChunkRequest& request) {
  uint64_t total = 0;
  for (const wire::CopyChunk& chunk : request.chunks) total += chunk.length_bytes;
  return total;
}

bool AreSmaller(const wire::CopyChunkResponse& limits, const wire::CopyChunkResponse& than) {
  return limits.chunks > 0 && limits.chunk_bytes > 0 && limits.total_bytes > 0 &&
         (limits.chunks < than.chunks || limits.chunk_bytes < than.chunk_bytes ||
          limits.total_bytes < than.total_bytes);
}

}  // namespace

Task<absl::StatusOr<uint64_t>> Tree::CopyRange(wire::FileId source, uint64_t source_offset,
                                               wire::FileId target, uint64_t target_offset,
                                               uint64_t length_bytes, Deadline deadline) {
  CO_ASSIGN_OR_RETURN(
      const std::vector<uint8_t> key_output,
      co_await Ioctl(wire::Fsctl::kRequestResumeKey, source, {}, kResumeKeyBytes, deadline));
  CO_ASSIGN_OR_RETURN(const wire::ResumeKey key, wire::DecodeResumeKeyResponse(key_output));
  uint64_t copied = 0;
  while (copied < length_bytes) {
    const wire::CopyChunkRequest chunks = NextChunks(
        key, source_offset + copied, target_offset + copied, length_bytes - copied, copy_limits_);
    const std::vector<uint8_t> input = Encoded(wire::EncodeCopyChunkRequest, chunks);
    const wire::IoctlRequest ioctl{.code = wire::Fsctl::kCopyChunkWrite,
                                   .file_id = target,
                                   .input = input,
                                   .max_output_bytes = kCopyAnswerBytes};
    CO_ASSIGN_OR_RETURN(
        const Response response,
        co_await CallOne(MakeRequest(wire::Command::kIoctl, wire::EncodeIoctlRequest, ioctl),
                         deadline));
    const wire::NtStatus status = response.header.status;
    const bool answered = wire::HasOwnBody(response.header, response.body());
    if (status != wire::NtStatus::kSuccess &&
        (status != wire::NtStatus::kInvalidParameter || !answered)) {
      // The source ends before the range does: what was copied before is what there is.
      if (status == wire::NtStatus::kInvalidViewSize && copied > 0) co_return copied;
      co_return wire::ToStatus(status, "FSCTL_SRV_COPYCHUNK_WRITE");
    }
    CO_ASSIGN_OR_RETURN(const wire::IoctlResponse said, wire::DecodeIoctlResponse(response.body()));
    CO_ASSIGN_OR_RETURN(const wire::CopyChunkResponse answer,
                        wire::DecodeCopyChunkResponse(said.output));
    if (status == wire::NtStatus::kInvalidParameter) {
      if (!AreSmaller(answer, copy_limits_)) {
        co_return wire::ToStatus(status, "FSCTL_SRV_COPYCHUNK_WRITE");
      }
      copy_limits_ = answer;
      continue;
    }
    if (answer.total_bytes > TotalOf(chunks)) {
      co_return Broken("a copy was answered with more than was asked for");
    }
    copied += answer.total_bytes;
    if (answer.total_bytes < TotalOf(chunks)) break;
  }
  co_return copied;
}

Task<absl::Status> Tree::DuplicateExtents(wire::FileId target, wire::DuplicateExtents extents,
                                          Deadline deadline) {
  co_return (co_await Ioctl(wire::Fsctl::kDuplicateExtents, target,
                            Encoded(wire::EncodeDuplicateExtents, extents), 0, deadline))
      .status();
}

Task<absl::Status> Tree::SetSparse(wire::FileId file_id, bool sparse, Deadline deadline) {
  co_return (co_await Ioctl(wire::Fsctl::kSetSparse, file_id,
                            Encoded(wire::EncodeSetSparse, sparse), 0, deadline))
      .status();
}

Task<absl::Status> Tree::SetZero(wire::FileId file_id, wire::ZeroRange range, Deadline deadline) {
  co_return (co_await Ioctl(wire::Fsctl::kSetZeroData, file_id,
                            Encoded(wire::EncodeZeroRange, range), 0, deadline))
      .status();
}

Task<absl::StatusOr<wire::StandardInformation>> Tree::GetStandard(wire::FileId file_id,
                                                                  Deadline deadline) {
  const wire::QueryInfoRequest query{
      .type = wire::InfoType::kFile,
      .info_class = static_cast<uint8_t>(wire::FileInfoClass::kStandard),
      .max_output_bytes = wire::kStandardInformationSize,
      .file_id = file_id,
      .input = {}};
  CO_ASSIGN_OR_RETURN(
      const Response response,
      co_await CallOne(MakeRequest(wire::Command::kQueryInfo, wire::EncodeQueryInfoRequest, query),
                       deadline));
  if (response.header.status != wire::NtStatus::kSuccess) {
    co_return wire::ToStatus(response.header.status, "QUERY_INFO");
  }
  CO_ASSIGN_OR_RETURN(const wire::Bytes output, wire::DecodeOutputBuffer(response.body()));
  co_return wire::DecodeStandardInformation(output);
}

Task<absl::StatusOr<std::vector<wire::ExtendedAttribute>>> Tree::GetExtendedAttributes(
    wire::FileId file_id, std::vector<std::string> names, Deadline deadline) {
  const std::vector<uint8_t> input = Encoded(wire::EncodeExtendedAttributeNames, names);
  const wire::QueryInfoRequest query{
      .type = wire::InfoType::kFile,
      .info_class = static_cast<uint8_t>(wire::FileInfoClass::kFullEa),
      .max_output_bytes = kMostAttributeBytes,
      .file_id = file_id,
      .input = input};
  Request request = MakeRequest(wire::Command::kQueryInfo, wire::EncodeQueryInfoRequest, query);
  request.largest_payload_bytes = kMostAttributeBytes;
  CO_ASSIGN_OR_RETURN(const Response response, co_await CallOne(std::move(request), deadline));
  if (response.header.status == wire::NtStatus::kNoEasOnFile) {
    co_return std::vector<wire::ExtendedAttribute>();
  }
  if (response.header.status != wire::NtStatus::kSuccess) {
    co_return wire::ToStatus(response.header.status, "QUERY_INFO");
  }
  CO_ASSIGN_OR_RETURN(const wire::Bytes output, wire::DecodeOutputBuffer(response.body()));
  co_return wire::DecodeExtendedAttributes(output);
}

Task<absl::Status> Tree::SetExtendedAttributes(wire::FileId file_id,
                                               std::vector<wire::ExtendedAttribute> attributes,
                                               Deadline deadline) {
  co_return co_await SetInformation(file_id, wire::FileInfoClass::kFullEa,
                                    Encoded(wire::EncodeExtendedAttributes, attributes),
                                    std::move(deadline));
}

Task<absl::Status> Tree::SetReparsePoint(wire::FileId file_id, wire::ReparseData reparse,
                                         Deadline deadline) {
  co_return (co_await Ioctl(wire::Fsctl::kSetReparsePoint, file_id,
                            Encoded(wire::EncodeReparseData, reparse), 0, deadline))
      .status();
}

}  // namespace dfscsi::smb
