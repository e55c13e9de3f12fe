// dfsctl's own connection to dfs-mounter: what must work while no agent runs.

#ifndef NODE_AGENT_DFSCTL_MOUNTER_TOOL_H_
#define NODE_AGENT_DFSCTL_MOUNTER_TOOL_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "node-agent/state/mounter_protocol.h"

namespace dfscsi::dfsctl {

// Blocking; one thread.
class MounterTool {
 public:
  // kUnavailable: no mounter listens in `socket_dir`.
  static absl::StatusOr<MounterTool> Connect(const std::string& socket_dir);

  absl::StatusOr<state::StatusReply> GetStatus();
  absl::StatusOr<std::vector<state::MountEntry>> ListMounts();
  // kNotFound: nothing of ours is mounted there.
  absl::Status Unmount(const std::string& mount_point, bool force);
  // Also one that is detached: with `force` what uses it gets an error. kNotFound: it has gone.
  absl::Status Unmount(uint32_t mount_id, bool force);

  // Readable while nothing was asked: the mounter has hung up.
  int fd() const { return socket_.fd(); }

 private:
  explicit MounterTool(state::MessageSocket socket) : socket_(std::move(socket)) {}
  absl::StatusOr<state::Message> Ask(const state::Message& message);
  absl::Status Unmount(const state::UnmountRequest& request);
  absl::StatusOr<state::Message> Receive(absl::Time deadline);

  state::MessageSocket socket_;
};

}  // namespace dfscsi::dfsctl

#endif  // NODE_AGENT_DFSCTL_MOUNTER_TOOL_H_
