#include "node-agent/smb/wire/query.h"

#include "node-agent/smb/wire/body.h"

namespace dfscsi::smb::wire {
namespace {

constexpr uint16_t kWatchTree = 1;

}  // namespace

void EncodeQueryDirectoryRequest(const QueryDirectoryRequest& request, Writer& writer) {
  writer.U16(33);
  writer.U8(static_cast<uint8_t>(request.info_class));
  writer.U8(request.flags);
  writer.U32(request.file_index);
  WriteFileId(request.file_id, writer);
  writer.Length16(writer.HeaderOffset() + 8);
  writer.Length16(request.pattern.size() * 2);
  writer.U32(request.max_output_bytes);
  writer.Utf16(request.pattern);
  if (request.pattern.empty()) writer.U8(0);
}

absl::StatusOr<QueryDirectoryRequest> DecodeQueryDirectoryRequest(Bytes body) {
  BodyReader reader(body, 33, "QUERY_DIRECTORY request");
  QueryDirectoryRequest request;
  request.info_class = static_cast<FileInfoClass>(reader.U8());
  request.flags = reader.U8();
  request.file_index = reader.U32();
  request.file_id = ReadFileId(reader);
  const uint16_t offset = reader.U16();
  const uint16_t length = reader.U16();
  request.max_output_bytes = reader.U32();
  request.pattern = reader.Utf16Buffer(offset, length);
  if (!reader.ok()) return reader.status();
  return request;
}

void EncodeOutputBuffer(Bytes output, Writer& writer) {
  writer.U16(9);
  writer.Length16(output.empty() ? 0 : writer.HeaderOffset() + 6);
  writer.Length32(output.size());
  writer.Append(output);
  if (output.empty()) writer.U8(0);
}

absl::StatusOr<Bytes> DecodeOutputBuffer(Bytes body) {
  BodyReader reader(body, 9, "query response");
  const uint16_t offset = reader.U16();
  const uint32_t length = reader.U32();
  const Bytes output = reader.Buffer(offset, length);
  if (!reader.ok()) return reader.status();
  return output;
}

void EncodeQueryInfoRequest(const QueryInfoRequest& request, Writer& writer) {
  writer.U16(41);
  writer.U8(static_cast<uint8_t>(request.type));
  writer.U8(request.info_class);
  writer.U32(request.max_output_bytes);
  writer.Length16(request.input.empty() ? 0 : writer.HeaderOffset() + 32);
  writer.U16(0);
  writer.Length32(request.input.size());
  writer.U32(request.additional_information);
  writer.U32(request.flags);
  WriteFileId(request.file_id, writer);
  writer.Append(request.input);
  if (request.input.empty()) writer.U8(0);
}

absl::StatusOr<QueryInfoRequest> DecodeQueryInfoRequest(Bytes body) {
  BodyReader reader(body, 41, "QUERY_INFO request");
  QueryInfoRequest request;
  request.type = static_cast<InfoType>(reader.U8());
  request.info_class = reader.U8();
  request.max_output_bytes = reader.U32();
  const uint16_t offset = reader.U16();
  reader.Skip(2);
  const uint32_t length = reader.U32();
  request.additional_information = reader.U32();
  request.flags = reader.U32();
  request.file_id = ReadFileId(reader);
  request.input = reader.Buffer(offset, length);
  if (!reader.ok()) return reader.status();
  return request;
}

void EncodeSetInfoRequest(const SetInfoRequest& request, Writer& writer) {
  writer.U16(33);
  writer.U8(static_cast<uint8_t>(request.type));
  writer.U8(request.info_class);
  writer.Length32(request.input.size());
  writer.Length16(writer.HeaderOffset() + 24);
  writer.U16(0);
  writer.U32(request.additional_information);
  WriteFileId(request.file_id, writer);
  writer.Append(request.input);
  if (request.input.empty()) writer.U8(0);
}

absl::StatusOr<SetInfoRequest> DecodeSetInfoRequest(Bytes body) {
  BodyReader reader(body, 33, "SET_INFO request");
  SetInfoRequest request;
  request.type = static_cast<InfoType>(reader.U8());
  request.info_class = reader.U8();
  const uint32_t length = reader.U32();
  const uint16_t offset = reader.U16();
  reader.Skip(2);
  request.additional_information = reader.U32();
  request.file_id = ReadFileId(reader);
  request.input = reader.Buffer(offset, length);
  if (!reader.ok()) return reader.status();
  return request;
}

void EncodeSetInfoResponse(Writer& writer) { writer.U16(2); }

absl::Status DecodeSetInfoResponse(Bytes body) {
  return BodyReader(body, 2, "SET_INFO response").status();
}

void EncodeChangeNotifyRequest(const ChangeNotifyRequest& request, Writer& writer) {
  writer.U16(32);
  writer.U16(request.watch_tree ? kWatchTree : 0);
  writer.U32(request.max_output_bytes);
  WriteFileId(request.file_id, writer);
  writer.U32(request.completion_filter);
  writer.U32(0);
}

absl::StatusOr<ChangeNotifyRequest> DecodeChangeNotifyRequest(Bytes body) {
  BodyReader reader(body, 32, "CHANGE_NOTIFY request");
  ChangeNotifyRequest request;
  request.watch_tree = (reader.U16() & kWatchTree) != 0;
  request.max_output_bytes = reader.U32();
  request.file_id = ReadFileId(reader);
  request.completion_filter = reader.U32();
  reader.Skip(4);
  if (!reader.ok()) return reader.status();
  return request;
}

}  // namespace dfscsi::smb::wire
