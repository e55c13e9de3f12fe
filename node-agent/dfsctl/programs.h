// Outside Kubernetes there is no DaemonSet: dfsctl mount starts dfs-mounter and two agents (one
// active, one standing by) where none run. They end by themselves a few seconds after the last
// mount.

#ifndef NODE_AGENT_DFSCTL_PROGRAMS_H_
#define NODE_AGENT_DFSCTL_PROGRAMS_H_

#include <sys/types.h>

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "node-agent/base/unique_fd.h"

namespace dfscsi::dfsctl {

class Programs {
 public:
  // `state_dir`: where agents keep the referral cache.
  Programs(std::string socket_dir, std::string state_dir)
      : socket_dir_(std::move(socket_dir)), state_dir_(std::move(state_dir)) {}

  // Starts what is missing and waits until an agent is active. Several dfsctl at once start one
  // set. Their output goes to *.log in the socket folder. Errors: kDeadlineExceeded,
  // kPermissionDenied, what starting a program said; all with reason SYSTEM.
  absl::Status EnsureRunning(absl::Time deadline);

  // Ends what this object started, if nothing is mounted: after a mount that failed. Waits for it.
  void StopIfUnused();

 private:
  absl::Status Start(const std::string& name, const std::vector<std::string>& arguments);
  absl::Status EnsureMounter(absl::Time deadline);
  absl::Status EnsureAgents(absl::Time deadline);
  std::string LastLogLine(const std::string& name) const;

  const std::string socket_dir_;
  const std::string state_dir_;
  struct Started {
    pid_t pid;
    std::string name;
  };
  std::vector<Started> started_;
};

}  // namespace dfscsi::dfsctl

#endif  // NODE_AGENT_DFSCTL_PROGRAMS_H_
