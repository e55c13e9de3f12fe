// Arguments of one command: positional ones and the flags that most commands share.

#ifndef NODE_AGENT_DFSCTL_COMMAND_LINE_H_
#define NODE_AGENT_DFSCTL_COMMAND_LINE_H_

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace dfscsi::dfsctl {

inline constexpr std::string_view kDefaultSocketDir = "/run/dfs-csi-local";

struct CommandLine {
  std::vector<std::string> positional;
  std::vector<std::string> options;  // Of -o, split at commas.
  std::optional<std::string> credentials;
  std::string socket_dir = std::string(kDefaultSocketDir);
  std::optional<std::string> state_dir;
  bool force = false;
  bool detached = false;
  bool json = false;
};

// kInvalidArgument, one line: an unknown flag, a flag without its value, or not between `least` and
// `most` positional arguments.
absl::StatusOr<CommandLine> ParseCommandLine(const std::vector<std::string>& arguments,
                                             size_t least, size_t most);

}  // namespace dfscsi::dfsctl

#endif  // NODE_AGENT_DFSCTL_COMMAND_LINE_H_
