// Paths of one share, as its server has them, made from paths of the user.

#ifndef NODE_AGENT_VFS_SHARE_PATH_H_
#define NODE_AGENT_VFS_SHARE_PATH_H_

#include <optional>
#include <string>

#include "node-agent/dfs/client.h"
#include "node-agent/dfs/path.h"

namespace dfscsi::vfs {

// Where `to` is in the share that `binding`, of `from`, leads to. Both must be below its link.
// nullopt: a name that is not UTF-8.
std::optional<std::u16string> PathInShare(const dfs::Binding& binding, const dfs::DfsPath& from,
                                          const dfs::DfsPath& to);

// True if `to` is below the same link as `from`, as far as `binding`, of `from`, goes.
bool IsBelowSameLink(const dfs::Binding& binding, const dfs::DfsPath& from, const dfs::DfsPath& to);

}  // namespace dfscsi::vfs

#endif  // NODE_AGENT_VFS_SHARE_PATH_H_
