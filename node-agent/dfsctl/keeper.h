// dfs-keeper: what a DaemonSet is in Kubernetes. While something is mounted it starts anew whoever
// dies: an agent, both, the mounter. It holds no secret and nothing of a mount, so what it starts
// inherits nothing; if it dies itself, the next `dfsctl mount` starts another.
//
//   dfsctl mount --(after the first mount)--> dfsctl keep --starts--> dfs-node-agent, dfs-mounter
//
// It ends when nothing has been mounted for some seconds.

#ifndef NODE_AGENT_DFSCTL_KEEPER_H_
#define NODE_AGENT_DFSCTL_KEEPER_H_

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "node-agent/base/unique_fd.h"
#include "node-agent/dfsctl/mounter_tool.h"
#include "node-agent/dfsctl/programs.h"
#include "node-agent/dfsctl/restart_policy.h"

namespace dfscsi::dfsctl {

class Keeper {
 public:
  Keeper(std::string socket_dir, std::string state_dir);

  // Returns when nothing is mounted any more, or another keeper runs.
  absl::Status Run();

 private:
  // nullopt: the mounter does not answer; it is tried again.
  std::optional<state::StatusReply> Look();
  void StartAgent(uint32_t agents);
  void Reap();
  // Nothing is mounted: true when no mount can have come in between either.
  bool MayEnd();
  // Until something happens, or for `longest`.
  void Wait(absl::Duration longest);

  const std::string socket_dir_;
  Programs programs_;
  UniqueFd lock_;
  std::optional<MounterTool> mounter_;
  absl::Time logs_looked_at_ = absl::InfinitePast();
  absl::Time wanted_at_;      // The last time that something was mounted, or might have been.
  uint32_t mounts_ = 1;       // As last seen.
  pid_t active_pid_ = 0;      // As last seen.
  UniqueFd active_;           // Its pidfd; none once it is dead.
  pid_t starting_ = 0;        // The agent that was started last, until there are as many as wanted.
  uint32_t agents_then_ = 0;  // How many there were when it was started.
  absl::Time started_at_;
  std::map<pid_t, UniqueFd> children_;  // With their pidfds.
  RestartPolicy agents_policy_;
  RestartPolicy mounter_policy_;
};

}  // namespace dfscsi::dfsctl

#endif  // NODE_AGENT_DFSCTL_KEEPER_H_
