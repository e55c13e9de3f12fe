// `dfsctl get` and `dfsctl ls`: SMB and DFS without a mount, in this process.

#ifndef NODE_AGENT_DFSCTL_DIRECT_H_
#define NODE_AGENT_DFSCTL_DIRECT_H_

#include <string>
#include <vector>

#include "absl/status/status.h"

namespace dfscsi::dfsctl {

// dfsctl get SOURCE [FILE] [-o OPTIONS] [--credentials FILE]: reads one file, to FILE or to
// standard output. A FILE that is not complete is removed.
absl::Status Get(const std::vector<std::string>& arguments);

// dfsctl ls SOURCE [-o OPTIONS] [--credentials FILE]: lists a directory, or names a file.
absl::Status Ls(const std::vector<std::string>& arguments);

}  // namespace dfscsi::dfsctl

#endif  // NODE_AGENT_DFSCTL_DIRECT_H_
