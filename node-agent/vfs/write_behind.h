// The WRITEs of one mount that the kernel takes for done and that no server has yet.
//
// Only WRITEs are ever beside each other here. A WRITE that overlaps one that is pending waits for
// it, so that the order of what is written to one place is that of the answers, also where another
// agent writes it again; everything else on the file waits until nothing of it is pending
// (Filesystem does that, for each of its calls, in one place).
//
// What is pending is bounded, per file and per mount: it lies in big slots of the request arena, of
// which other mounts need some. Who is at the bound of his file waits. Nobody waits for other
// files, which may be on a dead server: where they have all of the mount's, a WRITE is not
// acknowledged early.

#ifndef NODE_AGENT_VFS_WRITE_BEHIND_H_
#define NODE_AGENT_VFS_WRITE_BEHIND_H_

#include <cstdint>
#include <map>
#include <utility>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/status/status.h"
#include "node-agent/runtime/deadline.h"
#include "node-agent/runtime/task.h"
#include "node-agent/runtime/wait.h"
#include "node-agent/state/inode_table.h"
#include "node-agent/state/request_arena.h"

namespace dfscsi::vfs {

// Not thread-safe; one loop. Pending writes and waiters must have ended before it dies.
class WriteBehind {
 public:
  // Of slots, as ChangeJournal::held_bytes() counts them: eight and sixteen big ones. A mount keeps
  // up to 24 of them (RequestArena::kMostBigOfMount).
  static constexpr uint64_t kMostBytesOfFile = uint64_t{8} * state::kBigPayloadBytes;
  static constexpr uint64_t kMostBytesOfMount = uint64_t{16} * state::kBigPayloadBytes;
  static constexpr size_t kMostWritesOfFile = 64;
  static constexpr size_t kMostWritesOfMount = 256;

  struct Range {
    uint64_t offset = 0;
    uint64_t size_bytes = 0;
    uint64_t held_bytes = 0;
    // How long the file was, with what was pending: what lies between that and the write's end is
    // this write's alone. And of which OpenFile::instance() it was acknowledged; 0: a dead agent's.
    uint64_t base = ~uint64_t{0};
    uint64_t instance = 0;
  };

  // One pending write: until this dies.
  class [[nodiscard]] Pending {
   public:
    Pending() = default;
    Pending(Pending&& other) noexcept
        : behind_(std::exchange(other.behind_, nullptr)),
          node_(other.node_),
          number_(other.number_) {}
    Pending& operator=(Pending&& other) noexcept {
      std::swap(behind_, other.behind_);
      std::swap(node_, other.node_);
      std::swap(number_, other.number_);
      return *this;
    }
    ~Pending() {
      if (behind_ != nullptr) behind_->End(node_, number_);
    }

   private:
    friend class WriteBehind;
    Pending(WriteBehind* behind, state::NodeId node, uint64_t number)
        : behind_(behind), node_(node), number_(number) {}

    WriteBehind* behind_ = nullptr;
    state::NodeId node_ = 0;
    uint64_t number_ = 0;
  };

  WriteBehind() = default;
  WriteBehind(const WriteBehind&) = delete;

  // Whatever the bounds are: one that a dead agent has acknowledged is pending all the same.
  Pending Begin(state::NodeId node, const Range& range);
  // Until its file has room for it, and nothing that it overlaps is pending. kCancelled,
  // kDeadlineExceeded.
  runtime::Task<absl::Status> AwaitTurn(state::NodeId node, Range range,
                                        runtime::Deadline deadline);
  // The mount has, too.
  bool HasRoom(uint64_t held_bytes) const {
    return writes_ < kMostWritesOfMount && held_bytes_ + held_bytes <= kMostBytesOfMount;
  }
  // Until what is pending of these nodes when it is called is so no longer, however it ended.
  runtime::Task<absl::Status> AwaitEnd(std::vector<state::NodeId> nodes,
                                       runtime::Deadline deadline) {
    return AwaitEndOf(std::move(nodes), next_number_, std::move(deadline));
  }
  // The same of what was acknowledged before the number `before`, which is one of next_number().
  runtime::Task<absl::Status> AwaitEndOf(std::vector<state::NodeId> nodes, uint64_t before,
                                         runtime::Deadline deadline);
  uint64_t next_number() const { return next_number_; }

  bool empty() const { return files_.empty(); }
  bool IsPending(state::NodeId node) const { return files_.contains(node); }
  std::vector<state::NodeId> Nodes() const;
  // Where the last byte of a node's pending writes ends; 0: it has none.
  uint64_t EndOf(state::NodeId node) const;
  // The least `base` of them: so long its file is at least, unless others have cut it.
  uint64_t LeastBaseOf(state::NodeId node) const;
  uint64_t held_bytes() const { return held_bytes_; }

 private:
  struct File {
    std::map<uint64_t, Range> writes;  // By number: the order of their acknowledgments.
    uint64_t held_bytes = 0;
  };

  bool MayBegin(state::NodeId node, const Range& range) const;
  void End(state::NodeId node, uint64_t number);

  absl::btree_map<state::NodeId, File> files_;  // Of which something is pending.
  uint64_t next_number_ = 1;
  uint64_t held_bytes_ = 0;
  size_t writes_ = 0;
  runtime::Condition ended_;
};

}  // namespace dfscsi::vfs

#endif  // NODE_AGENT_VFS_WRITE_BEHIND_H_
