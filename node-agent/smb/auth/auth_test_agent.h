// The agent's side of a dfs-auth child for tests: blocking, with one generous deadline.

#ifndef NODE_AGENT_SMB_AUTH_AUTH_TEST_AGENT_H_
#define NODE_AGENT_SMB_AUTH_AUTH_TEST_AGENT_H_

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <optional>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "node-agent/base/status_macros.h"
#include "node-agent/smb/auth/auth_child.h"
#include "node-agent/smb/auth/auth_protocol.h"

namespace dfscsi::smb::auth {

class TestAgent {
 public:
  // Starts the child of this build; crashes the test if it cannot.
  TestAgent() : child_(*StartAuthChild(DFS_AUTH_PATH)) {}

  AuthChild& child() { return child_; }

  // Unavailable: the child is gone.
  absl::Status Send(const Request& request) {
    ASSIGN_OR_RETURN(const Secret frame, EncodeRequest(request));
    return SendBytes(frame.Expose());
  }
  absl::Status SendBytes(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t n = send(child_.socket.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (n < 0 && errno == EAGAIN) {
        if (!WaitFor(child_.socket.get(), POLLOUT)) return absl::DeadlineExceededError("write");
        continue;
      }
      if (n <= 0) return absl::UnavailableError("the child hung up");
      bytes.remove_prefix(static_cast<size_t>(n));
    }
    return absl::OkStatus();
  }

  absl::StatusOr<Reply> Receive() {
    while (true) {
      const absl::Span<char> space = reader_.Space();
      const ssize_t n = read(child_.socket.get(), space.data(), space.size());
      if (n < 0 && errno == EAGAIN) {
        if (!WaitFor(child_.socket.get(), POLLIN)) return absl::DeadlineExceededError("read");
        continue;
      }
      if (n <= 0) return absl::UnavailableError("the child hung up");
      ASSIGN_OR_RETURN(const std::optional<Secret> frame, reader_.Received(static_cast<size_t>(n)));
      if (frame.has_value()) return DecodeReply(frame->Expose());
    }
  }

  absl::StatusOr<Reply> Ask(const Request& request) {
    RETURN_IF_ERROR(Send(request));
    return Receive();
  }

  // The reply as a Token; a Failure becomes FailedPrecondition "<class>: <message>".
  absl::StatusOr<Token> AskToken(const Request& request) {
    ASSIGN_OR_RETURN(Reply reply, Ask(request));
    if (const auto* failure = std::get_if<Failure>(&reply)) {
      return absl::FailedPreconditionError(std::string(FailureClassName(failure->failure_class)) +
                                           ": " + failure->message);
    }
    return std::get<Token>(std::move(reply));
  }

  // True once the child has ended and is collected.
  bool WaitForEnd() { return WaitFor(child_.pidfd.get(), POLLIN) && child_.TryReap(); }

  static bool WaitFor(int fd, int16_t events) {
    constexpr int kDeadlineMs = 60000;
    pollfd poll_fd = {fd, events, 0};
    return poll(&poll_fd, 1, kDeadlineMs) == 1;
  }

 private:
  AuthChild child_;
  FrameReader reader_;
};

}  // namespace dfscsi::smb::auth

#endif  // NODE_AGENT_SMB_AUTH_AUTH_TEST_AGENT_H_
