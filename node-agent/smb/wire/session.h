// SESSION_SETUP, LOGOFF, TREE_CONNECT, TREE_DISCONNECT, ECHO, CANCEL ([MS-SMB2] 2.2.5–2.2.12,
// 2.2.28–2.2.30).

#ifndef NODE_AGENT_SMB_WIRE_SESSION_H_
#define NODE_AGENT_SMB_WIRE_SESSION_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "node-agent/smb/wire/header.h"
#include "node-agent/smb/wire/negotiate.h"
#include "node-agent/smb/wire/reader.h"
#include "node-agent/smb/wire/writer.h"

namespace dfscsi::smb::wire {

enum SessionSetupFlags : uint8_t { kSessionSetupBinding = 1 };

struct SessionSetupRequest {
  uint8_t flags = 0;
  uint8_t security_mode = kSigningEnabled;
  uint32_t capabilities = 0;         // kCapDfs or 0.
  uint64_t previous_session_id = 0;  // The session that this one replaces; its opens are closed.
  Bytes security_buffer;             // The GSS token.
};
void EncodeSessionSetupRequest(const SessionSetupRequest& request, Writer& writer);
absl::StatusOr<SessionSetupRequest> DecodeSessionSetupRequest(Bytes body);

enum SessionFlags : uint16_t {
  kSessionGuest = 1,
  kSessionNull = 2,
  kSessionEncryptData = 4,
};

struct SessionSetupResponse {
  uint16_t session_flags = 0;
  Bytes security_buffer;  // Points into the decoded body.
};
void EncodeSessionSetupResponse(const SessionSetupResponse& response, Writer& writer);
absl::StatusOr<SessionSetupResponse> DecodeSessionSetupResponse(Bytes body);

struct TreeConnectRequest {
  uint16_t flags = 0;
  std::u16string path;  // \\server\share, with the target's own name for the server.
};
void EncodeTreeConnectRequest(const TreeConnectRequest& request, Writer& writer);
absl::StatusOr<TreeConnectRequest> DecodeTreeConnectRequest(Bytes body);

enum ShareType : uint8_t { kShareDisk = 1, kSharePipe = 2, kSharePrint = 3 };
enum ShareFlags : uint32_t {
  kShareFlagDfs = 0x1,
  kShareFlagDfsRoot = 0x2,
  kShareFlagEncryptData = 0x8000,
};
enum ShareCapability : uint32_t {
  kShareCapDfs = 0x8,  // The share is in a DFS tree.
  kShareCapContinuousAvailability = 0x10,
  kShareCapScaleOut = 0x20,
  kShareCapCluster = 0x40,
  kShareCapAsymmetric = 0x80,
  kShareCapRedirectToOwner = 0x100,
};

struct TreeConnectResponse {
  uint8_t share_type = kShareDisk;
  uint32_t share_flags = 0;
  uint32_t capabilities = 0;
  uint32_t maximal_access = 0;
};
void EncodeTreeConnectResponse(const TreeConnectResponse& response, Writer& writer);
absl::StatusOr<TreeConnectResponse> DecodeTreeConnectResponse(Bytes body);

// LOGOFF, TREE_DISCONNECT, ECHO and CANCEL, requests and responses alike, and FLUSH's response:
// StructureSize 4 and nothing else.
void EncodeEmptyBody(Writer& writer);
absl::Status DecodeEmptyBody(Bytes body);

}  // namespace dfscsi::smb::wire

#endif  // NODE_AGENT_SMB_WIRE_SESSION_H_
