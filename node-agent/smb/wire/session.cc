#include "node-agent/smb/wire/session.h"

#include "node-agent/smb/wire/body.h"

namespace dfscsi::smb::wire {

void EncodeSessionSetupRequest(const SessionSetupRequest& request, Writer& writer) {
  writer.U16(25);
  writer.U8(request.flags);
  writer.U8(request.security_mode);
  writer.U32(request.capabilities);
  writer.U32(0);  // Channel
  writer.Length16(writer.HeaderOffset() + 12);
  writer.Length16(request.security_buffer.size());
  writer.U64(request.previous_session_id);
  writer.Append(request.security_buffer);
  if (request.security_buffer.empty()) writer.U8(0);
}

absl::StatusOr<SessionSetupRequest> DecodeSessionSetupRequest(Bytes body) {
  BodyReader reader(body, 25, "SESSION_SETUP request");
  SessionSetupRequest request;
  request.flags = reader.U8();
  request.security_mode = reader.U8();
  request.capabilities = reader.U32();
  reader.Skip(4);
  const uint16_t offset = reader.U16();
  const uint16_t length = reader.U16();
  request.previous_session_id = reader.U64();
  request.security_buffer = reader.Buffer(offset, length);
  if (!reader.ok()) return reader.status();
  return request;
}

void EncodeSessionSetupResponse(const SessionSetupResponse& response, Writer& writer) {
  writer.U16(9);
  writer.U16(response.session_flags);
  writer.Length16(writer.HeaderOffset() + 4);
  writer.Length16(response.security_buffer.size());
  writer.Append(response.security_buffer);
  if (response.security_buffer.empty()) writer.U8(0);
}

absl::StatusOr<SessionSetupResponse> DecodeSessionSetupResponse(Bytes body) {
  BodyReader reader(body, 9, "SESSION_SETUP response");
  SessionSetupResponse response;
  response.session_flags = reader.U16();
  const uint16_t offset = reader.U16();
  const uint16_t length = reader.U16();
  response.security_buffer = reader.Buffer(offset, length);
  if (!reader.ok()) return reader.status();
  return response;
}

void EncodeTreeConnectRequest(const TreeConnectRequest& request, Writer& writer) {
  writer.U16(9);
  writer.U16(request.flags);
  writer.Length16(writer.HeaderOffset() + 4);
  writer.Length16(request.path.size() * 2);
  writer.Utf16(request.path);
  if (request.path.empty()) writer.U8(0);
}

absl::StatusOr<TreeConnectRequest> DecodeTreeConnectRequest(Bytes body) {
  BodyReader reader(body, 9, "TREE_CONNECT request");
  TreeConnectRequest request;
  request.flags = reader.U16();
  const uint16_t offset = reader.U16();
  const uint16_t length = reader.U16();
  request.path = reader.Utf16Buffer(offset, length);
  if (!reader.ok()) return reader.status();
  return request;
}

void EncodeTreeConnectResponse(const TreeConnectResponse& response, Writer& writer) {
  writer.U16(16);
  writer.U8(response.share_type);
  writer.U8(0);
  writer.U32(response.share_flags);
  writer.U32(response.capabilities);
  writer.U32(response.maximal_access);
}

absl::StatusOr<TreeConnectResponse> DecodeTreeConnectResponse(Bytes body) {
  BodyReader reader(body, 16, "TREE_CONNECT response");
  TreeConnectResponse response;
  response.share_type = reader.U8();
  reader.Skip(1);
  response.share_flags = reader.U32();
  response.capabilities = reader.U32();
  response.maximal_access = reader.U32();
  if (!reader.ok()) return reader.status();
  return response;
}

void EncodeEmptyBody(Writer& writer) {
  writer.U16(4);
  writer.U16(0);
}

absl::Status DecodeEmptyBody(Bytes body) { return BodyReader(body, 4, "empty body").status(); }

}  // namespace dfscsi::smb::wire
