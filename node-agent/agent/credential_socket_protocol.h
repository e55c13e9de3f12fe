// What the agent and its callers must agree on for credential.sock (credential_socket.h).

#ifndef NODE_AGENT_AGENT_CREDENTIAL_SOCKET_PROTOCOL_H_
#define NODE_AGENT_AGENT_CREDENTIAL_SOCKET_PROTOCOL_H_

#include <cstddef>

namespace dfscsi::agent {

inline constexpr char kCredentialSocketName[] = "/credential.sock";
inline constexpr size_t kTicketBytes = 16;
inline constexpr size_t kMostSecretBytes = 4096;
// The first byte of the caller's message: what the rest is.
inline constexpr char kPasswordFollows = 1;

}  // namespace dfscsi::agent

#endif  // NODE_AGENT_AGENT_CREDENTIAL_SOCKET_PROTOCOL_H_
