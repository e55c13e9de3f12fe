// Appending to files: whose turn it is, and what became of an append whose answer was lost.

#ifndef NODE_AGENT_VFS_APPENDS_H_
#define NODE_AGENT_VFS_APPENDS_H_

#include <cstdint>
#include <memory>
#include <optional>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "node-agent/dfs/client.h"
#include "node-agent/runtime/deadline.h"
#include "node-agent/runtime/task.h"
#include "node-agent/runtime/wait.h"
#include "node-agent/state/inode_table.h"
#include "node-agent/vfs/change.h"

namespace dfscsi::vfs {

// Of one mount: one append to a file at a time, so that its handles do not wait for each other at
// the server; and which servers do not append by themselves. Not thread-safe; one loop.
class Appends {
 public:
  // Of one append, from Take() until it dies: what was appended meanwhile is nobody's of this
  // mount. May outlive the Appends.
  class Turn {
   public:
    // Waits for those before it; OK at once if it has been taken.
    runtime::Task<absl::Status> Take(runtime::Deadline deadline);

   private:
    friend class Appends;
    explicit Turn(std::shared_ptr<runtime::Mutex> queue) : queue_(std::move(queue)) {}
    std::shared_ptr<runtime::Mutex> queue_;
    std::optional<runtime::Mutex::Guard> guard_;  // Dies first.
  };

  Turn TurnOf(state::NodeId node);

  // By ServerKeyOf(): the server refuses a WRITE at the end, wherever that is.
  bool IsRefusedBy(uint64_t server_key) const { return refusing_.contains(server_key); }
  void NoteRefused(uint64_t server_key) { refusing_.insert(server_key); }

 private:
  absl::flat_hash_map<state::NodeId, std::weak_ptr<runtime::Mutex>> queues_;
  absl::flat_hash_set<uint64_t> refusing_;
};

// Of an append of `from` that was sent to be written at `offset` of the file `id` (0: not known).
// kDone: it is there. kNotDone: the file ends before, or something else is there. kUnknown: a part
// of it is there, or the file is not to be had.
runtime::Task<absl::StatusOr<Verdict>> ProbeAppended(dfs::Binding binding, uint64_t offset,
                                                     absl::Span<const uint8_t> from, uint64_t id,
                                                     runtime::Deadline deadline);

}  // namespace dfscsi::vfs

#endif  // NODE_AGENT_VFS_APPENDS_H_
