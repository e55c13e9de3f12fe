// The agent's connection to dfs-mounter: connects, and connects again when the mounter was
// restarted; hands messages on; matches answers with requests.
//
// The hang-up of this connection is this agent's death in the eyes of the mounter, so its
// descriptor goes to no child.

#ifndef NODE_AGENT_AGENT_MOUNTER_LINK_H_
#define NODE_AGENT_AGENT_MOUNTER_LINK_H_

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "node-agent/runtime/loop.h"
#include "node-agent/runtime/real_loop.h"
#include "node-agent/runtime/wait.h"
#include "node-agent/state/mounter_protocol.h"

namespace dfscsi::agent {

// Not thread-safe; one loop.
class MounterLink {
 public:
  class Receiver {
   public:
    virtual ~Receiver() = default;
    // A connection was made; what is returned is sent first.
    virtual state::Hello OnConnected() = 0;
    // Every message, in order; the fds may be taken. An error closes the connection.
    virtual absl::Status OnMessage(state::Envelope& envelope) = 0;
    virtual void OnLost() = 0;
  };

  MounterLink(runtime::RealLoop& loop, std::string socket_dir, Receiver& receiver);

  // Connects and receives, for ever.
  runtime::Task<void> Run();

  bool connected() const { return connection_ != nullptr; }
  // The mounter's pid, if it can be seen from here (the same pid namespace); else 0.
  pid_t mounter_pid() const;

  // Without a connection: nothing.
  void Send(const state::Message& message, absl::Span<const int> fds = {});

  // The answer, which may be state::Error, after Receiver::OnMessage has seen it. Errors:
  // kUnavailable (the mounter is gone; what was asked may have been done), kDeadlineExceeded,
  // kCancelled.
  runtime::Task<absl::StatusOr<state::Message>> Request(state::Message message,
                                                        runtime::Deadline deadline);

  // Somebody waits for the answer with this id.
  bool IsAwaited(uint64_t request_id) const { return pending_.count(request_id) != 0; }

  // No connection any more, and none will be made.
  void Close();

 private:
  struct Connection {
    state::MessageSocket socket;
    std::unique_ptr<runtime::FdWatch> watch;
    bool writing = false;  // WriteRest() runs.
  };
  struct Pending {
    runtime::Event answered;
    std::optional<state::Message> answer;  // None when the connection was lost.
  };

  runtime::Task<absl::Status> ReceiveAll(std::shared_ptr<Connection> connection);
  runtime::Task<void> WriteRest(std::shared_ptr<Connection> connection);
  void Lose();
  void HangUp();

  runtime::RealLoop& loop_;
  const std::string socket_dir_;
  Receiver& receiver_;
  std::shared_ptr<Connection> connection_;
  bool closed_ = false;
  uint64_t last_request_ = 0;
  std::map<uint64_t, std::shared_ptr<Pending>> pending_;
  runtime::TaskGroup tasks_;
};

}  // namespace dfscsi::agent

#endif  // NODE_AGENT_AGENT_MOUNTER_LINK_H_
