// The removal of a name from its server.

#ifndef NODE_AGENT_VFS_REMOVAL_H_
#define NODE_AGENT_VFS_REMOVAL_H_

#include <cstdint>

#include "absl/status/status.h"
#include "node-agent/dfs/client.h"
#include "node-agent/runtime/deadline.h"
#include "node-agent/runtime/task.h"
#include "node-agent/smb/tree.h"

namespace dfscsi::vfs {

// What a removal that is tried more than once has done to the file meanwhile.
struct Removal {
  smb::FileType type = smb::FileType::kFile;
  bool in_pieces = false;         // As of Change.
  uint32_t taken_attributes = 0;  // What it had before READONLY was taken from it; 0: nothing was.
};

// Removes the name that the binding's path is. Servers do not remove a file with the read-only
// attribute, POSIX does: the attribute goes first, and comes back if the removal fails. `removal`
// must live until this returns or is destroyed, and belongs to one server.
runtime::Task<absl::Status> RemoveOn(dfs::Binding binding, Removal* removal,
                                     runtime::Deadline deadline);

}  // namespace dfscsi::vfs

#endif  // NODE_AGENT_VFS_REMOVAL_H_
