// Files that have more than one name, as far as this mount has met them.

#ifndef NODE_AGENT_VFS_HARD_LINKS_H_
#define NODE_AGENT_VFS_HARD_LINKS_H_

#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "node-agent/state/inode_table.h"

namespace dfscsi::vfs {

// Each name is a node of its own, with pages of its own in the kernel. So the nodes of one file
// know of each other here: what was seen of one is not believed of it for any time, none is read
// through pages, and all have one inode number. Bounded by the nodes that the kernel holds. A new
// agent learns of them again, as it looks at them. Not thread-safe.
class HardLinks {
 public:
  // A server's id of a file; the epoch says on which one (NodeIdentity).
  struct File {
    uint64_t epoch = 0;
    uint64_t id = 0;  // 0: not known, and never a file of several names here.

    friend bool operator==(const File&, const File&) = default;
    template <typename H>
    friend H AbslHashValue(H h, const File& file) {
      return H::combine(std::move(h), file.epoch, file.id);
    }
  };

  // The node, of this inode number, is one of several names of the file.
  void Note(state::NodeId node, uint64_t ino, const File& file);
  // It is the only name that is left, or the node is gone.
  void Forget(state::NodeId node);

  bool Contains(state::NodeId node) const { return files_.contains(node); }
  // The inode number of the first name that was met; nullopt: the file is not known.
  std::optional<uint64_t> InodeNumberOf(const File& file) const;
  // The nodes of the file's other names.
  std::vector<state::NodeId> Others(state::NodeId node) const;
  // True if both are known as names of one file.
  bool AreSame(state::NodeId one, state::NodeId other) const;

 private:
  struct Names {
    uint64_t ino = 0;
    absl::flat_hash_set<state::NodeId> nodes;
  };
  absl::flat_hash_map<File, Names> names_;
  absl::flat_hash_map<state::NodeId, File> files_;
};

}  // namespace dfscsi::vfs

#endif  // NODE_AGENT_VFS_HARD_LINKS_H_
