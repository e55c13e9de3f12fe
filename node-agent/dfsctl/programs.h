// Outside Kubernetes there is no DaemonSet: dfsctl mount starts dfs-mounter and two agents (one
// active, one standing by) where none run, and then dfs-keeper (keeper.h), which starts anew what
// dies. All end by themselves a few seconds after the last mount.

#ifndef NODE_AGENT_DFSCTL_PROGRAMS_H_
#define NODE_AGENT_DFSCTL_PROGRAMS_H_

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "node-agent/base/unique_fd.h"

namespace dfscsi::dfsctl {

class Programs {
 public:
  // One active, one standing by.
  static constexpr uint32_t kAgents = 2;

  // `state_dir`: where agents keep the referral cache.
  Programs(std::string socket_dir, std::string state_dir)
      : socket_dir_(std::move(socket_dir)), state_dir_(std::move(state_dir)) {}

  // Starts what is missing and waits until an agent is active. Several dfsctl at once start one
  // set. Their output goes to *.log in the socket folder. Errors: kDeadlineExceeded,
  // kPermissionDenied, what starting a program said; all with reason SYSTEM.
  absl::Status EnsureRunning(absl::Time deadline);

  // Starts a keeper where none runs, and waits until it does. Call it once something is mounted.
  absl::Status EnsureKeeper(absl::Time deadline);

  // Ends what this object started, if nothing is mounted: after a mount that failed. Waits for it.
  void StopIfUnused();

  // ---- For the keeper ----

  // Only one process at a time looks what is missing and starts it.
  absl::StatusOr<UniqueFd> Lock(absl::Time deadline) const;
  // An empty fd: another keeper runs there.
  static UniqueFd TryLockKeeper(const std::string& socket_dir);
  // One more agent, which StopIfUnused() leaves alone. Returns its pid; the caller reaps it.
  absl::StatusOr<pid_t> StartAgent();
  absl::Status EnsureMounter(absl::Time deadline);

 private:
  // Output goes to `<name>.log` in the socket folder.
  absl::StatusOr<pid_t> Start(const std::string& name, const std::string& program,
                              const std::vector<std::string>& arguments);
  absl::Status EnsureAgents(absl::Time deadline);
  bool KeeperRuns() const;
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
