// Which link of a mount a path belongs to, and where that is bound.

#ifndef NODE_AGENT_AGENT_BOUND_LINK_H_
#define NODE_AGENT_AGENT_BOUND_LINK_H_

#include <string>

#include "node-agent/dfs/client.h"
#include "node-agent/dfs/path.h"

namespace dfscsi::agent {

// The link, root or share with the longest prefix of `path`, as the client knows it now; with an
// empty prefix where it knows none, and an empty target where that is not bound. No I/O.
dfs::Client::BoundLink LinkOf(const dfs::Client& client, const dfs::DfsPath& path);

// `path`, and names below it ('/' between them), up to the first that no path can hold.
dfs::DfsPath PathBelow(dfs::DfsPath path, const std::string& below);

}  // namespace dfscsi::agent

#endif  // NODE_AGENT_AGENT_BOUND_LINK_H_
