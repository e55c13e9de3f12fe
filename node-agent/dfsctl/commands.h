// The commands that talk to a running agent or mounter. Each prints its result on standard output
// and returns an error for main() to print; ExitCodeOf() makes the exit code of it.

#ifndef NODE_AGENT_DFSCTL_COMMANDS_H_
#define NODE_AGENT_DFSCTL_COMMANDS_H_

#include <string>
#include <vector>

#include "absl/status/status.h"

namespace dfscsi::dfsctl {

// mount SOURCE MOUNTPOINT [-o OPTIONS] [--credentials FILE] [--socket-dir DIR] [--state-dir DIR]
// Starts the programs if need be. On an error nothing is left: no mount, no program it started.
absl::Status Mount(const std::vector<std::string>& arguments);
// keep [--socket-dir DIR] [--state-dir DIR]: what mount starts (keeper.h). Does not end by itself
// while something is mounted.
absl::Status Keep(const std::vector<std::string>& arguments);
// unmount MOUNTPOINT [--force]. Works while no agent runs, and while no mounter runs.
absl::Status Unmount(const std::vector<std::string>& arguments);
// mounts [--json]
absl::Status Mounts(const std::vector<std::string>& arguments);
// referrals [PATH] [--json]
absl::Status Referrals(const std::vector<std::string>& arguments);
// targets [--json]
absl::Status Targets(const std::vector<std::string>& arguments);
// cache flush
absl::Status Cache(const std::vector<std::string>& arguments);
// opens [MOUNTPOINT] [--json]
absl::Status Opens(const std::vector<std::string>& arguments);
// locks [MOUNTPOINT] [--json]
absl::Status Locks(const std::vector<std::string>& arguments);
// log-level [LEVEL]
absl::Status LogLevelOf(const std::vector<std::string>& arguments);
// metrics
absl::Status Metrics(const std::vector<std::string>& arguments);
// version [--json]: of this program, and of the active agent if there is one.
absl::Status Version(const std::vector<std::string>& arguments);

}  // namespace dfscsi::dfsctl

#endif  // NODE_AGENT_DFSCTL_COMMANDS_H_
