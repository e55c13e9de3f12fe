// Which link of a mount a path belongs to, and where that is bound.

#ifndef NODE_AGENT_DFS_BOUND_LINK_H_
#define NODE_AGENT_DFS_BOUND_LINK_H_

#include <string>

#include "node-agent/dfs/client.h"
#include "node-agent/dfs/path.h"

namespace dfscsi::dfs {

// The link, root or share with the longest prefix of `path`, as the client knows it now; with an
// empty prefix where it knows none, and an empty target where that is not bound. No I/O.
Client::BoundLink LinkOf(const Client& client, const DfsPath& path);

// `path`, and names below it ('/' between them), up to the first that no path can hold.
DfsPath PathBelow(DfsPath path, const std::string& below);

}  // namespace dfscsi::dfs

#endif  // NODE_AGENT_DFS_BOUND_LINK_H_
