// The body of an error ([MS-SMB2] 2.2.2), and what STOPPED_ON_SYMLINK puts into it.

#ifndef NODE_AGENT_SMB_WIRE_ERROR_RESPONSE_H_
#define NODE_AGENT_SMB_WIRE_ERROR_RESPONSE_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "node-agent/smb/wire/header.h"
#include "node-agent/smb/wire/reader.h"
#include "node-agent/smb/wire/writer.h"

namespace dfscsi::smb::wire {

struct ErrorResponse {
  // The error data: the whole of it, or in 3.1.1 that of the first context with the default id.
  // Usually empty. Points into the decoded body.
  Bytes error_data;
};
// Encodes without contexts, or with one (`as_context`, 3.1.1).
void EncodeErrorResponse(const ErrorResponse& response, bool as_context, Writer& writer);
// Accepts the 8-byte form of servers that leave out the byte that must follow.
absl::StatusOr<ErrorResponse> DecodeErrorResponse(Bytes body);

// Error data of STATUS_STOPPED_ON_SYMLINK (2.2.2.2.1): the server met a symbolic link and leaves
// the rest of the way to us.
struct SymlinkError {
  // Bytes at the end of the request's name that lie behind the link. Even; that it is no more than
  // the name that was sent is the caller's check.
  uint16_t unparsed_bytes = 0;
  bool relative = false;
  std::u16string substitute_name;  // Where the link points.
  std::u16string print_name;
};
void EncodeSymlinkError(const SymlinkError& error, Writer& writer);
absl::StatusOr<SymlinkError> DecodeSymlinkError(Bytes error_data);

// Error data of STATUS_BUFFER_TOO_SMALL: how large it must be. nullopt where a server does not say.
std::optional<uint32_t> RequiredBufferSize(const ErrorResponse& response);

}  // namespace dfscsi::smb::wire

#endif  // NODE_AGENT_SMB_WIRE_ERROR_RESPONSE_H_
