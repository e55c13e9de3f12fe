#include "node-agent/smb/wire/ioctl.h"

#include <limits>

#include "node-agent/smb/wire/body.h"

namespace dfscsi::smb::wire {
namespace {

constexpr uint32_t kIsFsctl = 1;
constexpr size_t kFileRangeSize = 16;
constexpr size_t kCopyChunkSize = 24;

}  // namespace

void EncodeIoctlRequest(const IoctlRequest& request, Writer& writer) {
  writer.U16(57);
  writer.U16(0);
  writer.U32(static_cast<uint32_t>(request.code));
  WriteFileId(request.file_id, writer);
  writer.Length32(request.input.empty() ? 0 : writer.HeaderOffset() + 32);
  writer.Length32(request.input.size());
  writer.U32(request.max_input_bytes);
  writer.U64(0);  // OutputOffset, OutputCount
  writer.U32(request.max_output_bytes);
  writer.U32(kIsFsctl);
  writer.U32(0);
  writer.Append(request.input);
  if (request.input.empty()) writer.U8(0);
}

absl::StatusOr<IoctlRequest> DecodeIoctlRequest(Bytes body) {
  BodyReader reader(body, 57, "IOCTL request");
  IoctlRequest request;
  reader.Skip(2);
  request.code = static_cast<Fsctl>(reader.U32());
  request.file_id = ReadFileId(reader);
  const uint32_t input_offset = reader.U32();
  const uint32_t input_count = reader.U32();
  request.max_input_bytes = reader.U32();
  reader.Skip(8);
  request.max_output_bytes = reader.U32();
  const uint32_t flags = reader.U32();
  reader.Skip(4);
  request.input = reader.Buffer(input_offset, input_count);
  if (reader.ok() && flags != kIsFsctl) reader.Reject("not an FSCTL");
  if (!reader.ok()) return reader.status();
  return request;
}

void EncodeIoctlResponse(const IoctlResponse& response, Writer& writer) {
  writer.U16(49);
  writer.U16(0);
  writer.U32(static_cast<uint32_t>(response.code));
  WriteFileId(response.file_id, writer);
  const size_t output_offset = writer.HeaderOffset() + 24;
  writer.Length32(output_offset);  // InputOffset
  writer.U32(0);                   // InputCount
  writer.Length32(output_offset);
  writer.Length32(response.output.size());
  writer.U64(0);  // Flags
  writer.Append(response.output);
  if (response.output.empty()) writer.U8(0);
}

absl::StatusOr<IoctlResponse> DecodeIoctlResponse(Bytes body) {
  BodyReader reader(body, 49, "IOCTL response");
  IoctlResponse response;
  reader.Skip(2);
  response.code = static_cast<Fsctl>(reader.U32());
  response.file_id = ReadFileId(reader);
  reader.Skip(8);  // No FSCTL of ours returns its input.
  const uint32_t output_offset = reader.U32();
  const uint32_t output_count = reader.U32();
  reader.Skip(8);
  response.output = reader.Buffer(output_offset, output_count);
  if (!reader.ok()) return reader.status();
  return response;
}

void EncodeValidateNegotiateRequest(const ValidateNegotiateRequest& request, Writer& writer) {
  writer.U32(request.capabilities);
  writer.Array(request.guid);
  writer.U16(request.security_mode);
  writer.Length16(request.dialects.size());
  for (const Dialect dialect : request.dialects) writer.U16(static_cast<uint16_t>(dialect));
}

absl::StatusOr<ValidateNegotiateRequest> DecodeValidateNegotiateRequest(Bytes input) {
  Reader reader(input);
  ValidateNegotiateRequest request;
  request.capabilities = reader.U32();
  request.guid = reader.Array<16>();
  request.security_mode = reader.U16();
  const uint16_t count = reader.U16();
  for (uint16_t i = 0; i < count && reader.ok(); ++i) {
    request.dialects.push_back(static_cast<Dialect>(reader.U16()));
  }
  if (!reader.ok()) return MalformedError("VALIDATE_NEGOTIATE_INFO request", "too short");
  return request;
}

void EncodeValidateNegotiateResponse(const ValidateNegotiateResponse& response, Writer& writer) {
  writer.U32(response.capabilities);
  writer.Array(response.guid);
  writer.U16(response.security_mode);
  writer.U16(static_cast<uint16_t>(response.dialect));
}

absl::StatusOr<ValidateNegotiateResponse> DecodeValidateNegotiateResponse(Bytes output) {
  Reader reader(output);
  ValidateNegotiateResponse response;
  response.capabilities = reader.U32();
  response.guid = reader.Array<16>();
  response.security_mode = reader.U16();
  response.dialect = static_cast<Dialect>(reader.U16());
  if (!reader.ok()) return MalformedError("VALIDATE_NEGOTIATE_INFO response", "too short");
  return response;
}

void EncodeFileRanges(absl::Span<const FileRange> ranges, Writer& writer) {
  for (const FileRange& range : ranges) {
    writer.U64(range.offset);
    writer.U64(range.length_bytes);
  }
}

absl::StatusOr<std::vector<FileRange>> DecodeFileRanges(Bytes output) {
  constexpr std::string_view kWhat = "allocated ranges";
  constexpr uint64_t kMaxOffset = std::numeric_limits<int64_t>::max();
  if (output.size() % kFileRangeSize != 0) return MalformedError(kWhat, "cut short");
  std::vector<FileRange> ranges;
  ranges.reserve(output.size() / kFileRangeSize);
  Reader reader(output);
  uint64_t end = 0;
  while (reader.remaining() > 0) {
    FileRange range;
    range.offset = reader.U64();
    range.length_bytes = reader.U64();
    if (range.offset < end) return MalformedError(kWhat, "out of order");
    if (range.offset > kMaxOffset || range.length_bytes > kMaxOffset - range.offset) {
      return MalformedError(kWhat, "beyond the largest file");
    }
    end = range.offset + range.length_bytes;
    ranges.push_back(range);
  }
  return ranges;
}

void EncodeZeroRange(const ZeroRange& range, Writer& writer) {
  writer.U64(range.offset);
  writer.U64(range.beyond);
}

absl::StatusOr<ZeroRange> DecodeZeroRange(Bytes input) {
  Reader reader(input);
  ZeroRange range;
  range.offset = reader.U64();
  range.beyond = reader.U64();
  if (!reader.ok()) return MalformedError("SET_ZERO_DATA request", "too short");
  if (range.beyond < range.offset) return MalformedError("SET_ZERO_DATA request", "ends early");
  return range;
}

void EncodeSetSparse(bool sparse, Writer& writer) { writer.U8(sparse ? 1 : 0); }

absl::StatusOr<bool> DecodeSetSparse(Bytes input) { return input.empty() || input.front() != 0; }

void EncodeDuplicateExtents(const DuplicateExtents& request, Writer& writer) {
  WriteFileId(request.source, writer);
  writer.U64(request.source_offset);
  writer.U64(request.target_offset);
  writer.U64(request.length_bytes);
}

absl::StatusOr<DuplicateExtents> DecodeDuplicateExtents(Bytes input) {
  Reader reader(input);
  DuplicateExtents request;
  request.source = ReadFileId(reader);
  request.source_offset = reader.U64();
  request.target_offset = reader.U64();
  request.length_bytes = reader.U64();
  if (!reader.ok()) return MalformedError("DUPLICATE_EXTENTS request", "too short");
  return request;
}

void EncodeResumeKeyResponse(const ResumeKey& key, Writer& writer) {
  writer.Array(key);
  writer.U64(0);  // ContextLength, Context
}

absl::StatusOr<ResumeKey> DecodeResumeKeyResponse(Bytes output) {
  Reader reader(output);
  const ResumeKey key = reader.Array<24>();
  if (!reader.ok()) return MalformedError("REQUEST_RESUME_KEY response", "too short");
  return key;
}

void EncodeCopyChunkRequest(const CopyChunkRequest& request, Writer& writer) {
  writer.Array(request.source);
  writer.Length32(request.chunks.size());
  writer.U32(0);
  for (const CopyChunk& chunk : request.chunks) {
    writer.U64(chunk.source_offset);
    writer.U64(chunk.target_offset);
    writer.U32(chunk.length_bytes);
    writer.U32(0);
  }
}

absl::StatusOr<CopyChunkRequest> DecodeCopyChunkRequest(Bytes input) {
  Reader reader(input);
  CopyChunkRequest request;
  request.source = reader.Array<24>();
  const uint32_t count = reader.U32();
  reader.Skip(4);
  if (!reader.ok() || reader.remaining() / kCopyChunkSize < count) {
    return MalformedError("COPYCHUNK request", "too short");
  }
  for (uint32_t i = 0; i < count; ++i) {
    CopyChunk& chunk = request.chunks.emplace_back();
    chunk.source_offset = reader.U64();
    chunk.target_offset = reader.U64();
    chunk.length_bytes = reader.U32();
    reader.Skip(4);
  }
  return request;
}

void EncodeCopyChunkResponse(const CopyChunkResponse& response, Writer& writer) {
  writer.U32(response.chunks);
  writer.U32(response.chunk_bytes);
  writer.U32(response.total_bytes);
}

absl::StatusOr<CopyChunkResponse> DecodeCopyChunkResponse(Bytes output) {
  Reader reader(output);
  CopyChunkResponse response;
  response.chunks = reader.U32();
  response.chunk_bytes = reader.U32();
  response.total_bytes = reader.U32();
  if (!reader.ok()) return MalformedError("COPYCHUNK response", "too short");
  return response;
}

}  // namespace dfscsi::smb::wire
