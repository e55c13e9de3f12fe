// `dfsctl put`, `cp`, `rm` and `mkdir`: changes of a server's files without a mount.
//
// A change whose answer was lost is not repeated: it is an error that says so.

#ifndef NODE_AGENT_DFSCTL_DIRECT_CHANGES_H_
#define NODE_AGENT_DFSCTL_DIRECT_CHANGES_H_

#include <string>
#include <vector>

#include "absl/status/status.h"

namespace dfscsi::dfsctl {

// put FILE TARGET: copies a local file, or with `-` standard input, to a server.
absl::Status Put(const std::vector<std::string>& arguments);
// cp SOURCE TARGET: copies a file of a server; on the server where both are in one share.
absl::Status Cp(const std::vector<std::string>& arguments);
// rm [-r] PATH: removes a file; with -r a folder and what is in it. Never a DFS link, nor through
// one, nor through a junction.
absl::Status Rm(const std::vector<std::string>& arguments);
// mkdir [-p] PATH: makes a folder; with -p those above it, too, and it is no error if it is there.
absl::Status Mkdir(const std::vector<std::string>& arguments);

}  // namespace dfscsi::dfsctl

#endif  // NODE_AGENT_DFSCTL_DIRECT_CHANGES_H_
