// Files that stand for symbolic links, as looking at a name sees them.

#ifndef NODE_AGENT_VFS_SYMLINKS_H_
#define NODE_AGENT_VFS_SYMLINKS_H_

#include "absl/status/status.h"
#include "node-agent/dfs/client.h"
#include "node-agent/runtime/deadline.h"
#include "node-agent/runtime/task.h"
#include "node-agent/vfs/attributes.h"

namespace dfscsi::vfs {

// `seen` is what a stat of the binding's path said. Only of a file of their size the content is
// looked at; whether it is a link then stands in `seen`. An error: it could not be asked.
runtime::Task<absl::Status> LookIntoFile(dfs::Binding binding, ServerAttributes* seen,
                                         runtime::Deadline deadline);

}  // namespace dfscsi::vfs

#endif  // NODE_AGENT_VFS_SYMLINKS_H_
