// dfsctl's exit codes: docs/options.md has the table.

#ifndef NODE_AGENT_DFSCTL_EXIT_CODE_H_
#define NODE_AGENT_DFSCTL_EXIT_CODE_H_

#include "absl/status/status.h"
#include "node-agent/agent/failure.h"

namespace dfscsi::dfsctl {

inline constexpr int kExitOk = 0;
inline constexpr int kExitOther = 1;
inline constexpr int kExitUsage = 2;
inline constexpr int kExitSystem = 13;

// 1 + the number of the reason (agent.proto), 1 where there is none.
inline int ExitCodeOf(const absl::Status& status) {
  return status.ok() ? kExitOk : kExitOther + static_cast<int>(agent::ReasonOf(status));
}
static_assert(kExitOther + static_cast<int>(agent::v1::BAD_ARGUMENT) == kExitUsage);
static_assert(kExitOther + static_cast<int>(agent::v1::SYSTEM) == kExitSystem);

}  // namespace dfscsi::dfsctl

#endif  // NODE_AGENT_DFSCTL_EXIT_CODE_H_
