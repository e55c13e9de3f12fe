// How a password reaches the agent: on a socket of its own. gRPC would leave copies of it in its
// buffers and messages.
//
//   caller -> agent   kind (1 byte), secret        one message of SOCK_SEQPACKET
//   agent -> caller   ticket (16 bytes)
//   caller -> agent   MountRequest with the ticket, on agent.sock
//
// A ticket is good once, and only while the connection that it came on is open: a caller that dies
// leaves nothing behind. An agent that takes over knows no ticket of its predecessor's.
// One loop.

#ifndef NODE_AGENT_AGENT_CREDENTIAL_SOCKET_H_
#define NODE_AGENT_AGENT_CREDENTIAL_SOCKET_H_

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "node-agent/agent/credential_socket_protocol.h"
#include "node-agent/base/secret.h"
#include "node-agent/base/unique_fd.h"
#include "node-agent/runtime/loop.h"
#include "node-agent/runtime/real_loop.h"

namespace dfscsi::agent {

class CredentialSocket {
 public:
  // A connection may be open for longer than a mount request may take, and no longer.
  static constexpr absl::Duration kConnectionTime = absl::Seconds(30);
  static constexpr size_t kMostConnections = 256;

  // Listens on `<socket_dir>/credential.sock`, in place of whoever did before. Errors: the
  // system's.
  static absl::StatusOr<std::unique_ptr<CredentialSocket>> Listen(runtime::RealLoop& loop,
                                                                  const std::string& socket_dir);

  // The secret that was given for this ticket, and never again. nullopt: there is none.
  std::optional<Secret> Take(std::string_view ticket);
  size_t size() const { return given_.size(); }  // Tickets that nobody has used yet.

 private:
  CredentialSocket(runtime::RealLoop& loop, UniqueFd listener);
  runtime::Task<void> Accept();
  runtime::Task<void> Serve(std::shared_ptr<UniqueFd> connection);

  runtime::RealLoop& loop_;
  const UniqueFd listener_;
  const std::unique_ptr<runtime::FdWatch> watch_;
  std::map<std::string, Secret, std::less<>> given_;  // By ticket.
  runtime::TaskGroup tasks_;
};

}  // namespace dfscsi::agent

#endif  // NODE_AGENT_AGENT_CREDENTIAL_SOCKET_H_
