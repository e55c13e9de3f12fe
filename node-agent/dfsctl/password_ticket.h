// Gives a password to the active agent for one mount request (agent/credential_socket.h).

#ifndef NODE_AGENT_DFSCTL_PASSWORD_TICKET_H_
#define NODE_AGENT_DFSCTL_PASSWORD_TICKET_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "node-agent/base/secret.h"
#include "node-agent/base/unique_fd.h"

namespace dfscsi::dfsctl {

struct PasswordTicket {
  std::string ticket;   // For MountRequest.credential.
  UniqueFd connection;  // The ticket is good while this is open.
};

// Blocks, until `deadline` at most. Errors: kUnavailable with reason SYSTEM (no agent is active
// there now; a take-over is a fraction of a second), kInvalidArgument (too long).
absl::StatusOr<PasswordTicket> GivePassword(const std::string& socket_dir, const Secret& password,
                                            absl::Time deadline);

}  // namespace dfscsi::dfsctl

#endif  // NODE_AGENT_DFSCTL_PASSWORD_TICKET_H_
