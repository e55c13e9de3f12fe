// Starts and ends a dfs-auth child. No GSSAPI here: that is what the child is for.

#ifndef NODE_AGENT_SMB_AUTH_AUTH_CHILD_H_
#define NODE_AGENT_SMB_AUTH_AUTH_CHILD_H_

#include <sys/types.h>

#include <string>

#include "absl/status/statusor.h"
#include "node-agent/base/unique_fd.h"

namespace dfscsi::smb::auth {

// A running child. Its destructor kills and reaps it. Not thread-safe.
class AuthChild {
 public:
  AuthChild() = default;
  AuthChild(UniqueFd socket_fd, UniqueFd pid_fd, pid_t pid)
      : socket(std::move(socket_fd)), pidfd(std::move(pid_fd)), pid_(pid) {}
  AuthChild(AuthChild&& other) noexcept = default;
  AuthChild& operator=(AuthChild&& other) noexcept;
  ~AuthChild();

  // Ends the child whatever it is waiting for (SIGKILL): GSSAPI cannot be cancelled. Does not wait.
  void Kill();

  // Collects the child if it has ended. Never blocks. To wait, poll `pidfd` for POLLIN.
  bool TryReap();

  pid_t pid() const { return pid_; }

  // This side of the stream socket, non-blocking; see auth_protocol.h. End of file: the child
  // ended.
  UniqueFd socket;
  UniqueFd pidfd;

 private:
  // Blocks until the kernel has taken the killed child down: microseconds, as the child does no
  // uninterruptible I/O.
  void KillAndReap();

  pid_t pid_ = -1;
};

// Runs the program at `path` (dfs-auth) with no environment of ours and no descriptor of ours but
// its socket and stderr. The child ends with the *thread* that calls this (PR_SET_PDEATHSIG), and
// when `socket` closes. SIGCHLD must not be ignored, and nobody may wait for "any child". Replace a
// child after some hundred log-ons: gss-ntlmssp 1.2 loses about 8 KiB with each. NotFound /
// PermissionDenied: the program cannot be run. ResourceExhausted: no descriptors or processes left;
// try again later.
absl::StatusOr<AuthChild> StartAuthChild(const std::string& path);

}  // namespace dfscsi::smb::auth

#endif  // NODE_AGENT_SMB_AUTH_AUTH_CHILD_H_
