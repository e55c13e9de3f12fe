// What `dfsctl rm` does.

#ifndef NODE_AGENT_DFSCTL_REMOVAL_H_
#define NODE_AGENT_DFSCTL_REMOVAL_H_

#include "absl/status/status.h"
#include "node-agent/dfs/client.h"
#include "node-agent/dfs/path.h"
#include "node-agent/runtime/task.h"

namespace dfscsi::dfsctl {

// Removes a file, or, `with_content`, a folder and what is in it. What leads elsewhere on its
// server (a reparse point: a junction, a symbolic link) is removed itself, and nothing behind it. A
// DFS link is an error with the reason BAD_ARGUMENT, a folder without `with_content` one with
// MISSING_PATH; the first error ends it. `client` must live until the task has ended.
runtime::Task<absl::Status> RemovePath(dfs::Client* client, dfs::DfsPath path, bool with_content);

}  // namespace dfscsi::dfsctl

#endif  // NODE_AGENT_DFSCTL_REMOVAL_H_
