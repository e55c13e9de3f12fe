// The words of -o, mountOptions and StorageClass parameters: docs/options.md is their table.

#ifndef NODE_AGENT_AGENT_MOUNT_OPTIONS_H_
#define NODE_AGENT_AGENT_MOUNT_OPTIONS_H_

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "node-agent/dfs/client.h"
#include "node-agent/smb/options.h"
#include "node-agent/vfs/options.h"

namespace dfscsi::agent {

struct MountOptions {
  smb::Options smb;
  dfs::ClientOptions dfs;
  vfs::Options vfs;
  // Accepted, and without effect: one line for the log each.
  std::vector<std::string> warnings;
};

// `options`: "key" or "key=value" each; the last of two wins. kInvalidArgument with one line for
// the user: an unknown option (with one that may have been meant), an impossible value, or an
// option that is known and not implemented yet.
absl::StatusOr<MountOptions> ParseMountOptions(absl::Span<const std::string> options);

// Of an option that ParseMountOptions accepts: its name alone is known, nobody has looked at what
// follows it, and a mount is the same without it.
bool HasNoEffect(std::string_view option);

// What anybody may be shown of an option that ParseMountOptions accepts: all of it, or of one
// without effect its name.
std::string ShownOption(const std::string& option);

// Every name that is not unknown, aliases too: docs/options.md has them all.
std::vector<std::string> MountOptionNames();

}  // namespace dfscsi::agent

#endif  // NODE_AGENT_AGENT_MOUNT_OPTIONS_H_
