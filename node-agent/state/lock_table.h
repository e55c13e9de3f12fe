// The lock table of one mount: every lock that its programs hold on files (fcntl, flock).
//
// The kernel asks for a lock once and never says it again; and a server gives the locks of an agent
// that died back. So the next agent reads here what must be taken again.
//
// Order of stores: add: all fields, then `state = live`. remove: `state = free`. A change of an
// owner's locks first adds what is new and then removes what is not true any more: a death in
// between leaves ranges that overlap, of one owner, and the request in the arena, which is run
// again and sets its range anew. Nothing outside that range was changed.

#ifndef NODE_AGENT_STATE_LOCK_TABLE_H_
#define NODE_AGENT_STATE_LOCK_TABLE_H_

#include <atomic>
#include <cstdint>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "node-agent/state/handle_table.h"
#include "node-agent/state/inode_table.h"
#include "node-agent/state/shared_memory.h"

namespace dfscsi::state {

class LockTable {
 public:
  static constexpr uint32_t kMaxLocks = 1 << 18;

  // What a lock is; `kind` and `type` are the layer above's.
  struct Lock {
    NodeId node = 0;
    FileHandle fh = 0;   // Through which it was taken last.
    uint64_t owner = 0;  // Of the kernel.
    uint64_t first = 0;
    uint64_t last = 0;  // The last byte that is locked.
    uint32_t kind = 0;
    uint32_t type = 0;
    uint32_t pid = 0;
  };

  // Shared layout.
  struct Record {
    std::atomic<uint32_t> state;  // 0 free, 1 live
    uint32_t reserved;
    Lock lock;
  };
  static_assert(sizeof(Record) == 64);

  struct Shared {
    std::atomic<uint32_t> used_records;
    uint32_t reserved;
  };
  static constexpr uint64_t kRegionBytes = uint64_t{kMaxLocks} * sizeof(Record);

  // Part of MountTables, which see.
  LockTable(Shared* shared, char* region)
      : shared_(shared), records_(reinterpret_cast<Record*>(region)) {}
  // DataLoss: not such a table.
  absl::Status Recover();

  // The number of the lock, for Remove(). ResourceExhausted: ENOLCK.
  absl::StatusOr<uint32_t> Add(const Lock& lock);
  void Remove(uint32_t number);
  // Whether so many more can be added.
  bool HasRoom(uint32_t locks) const { return kMaxLocks - live_ >= locks; }

  void ForEach(absl::FunctionRef<void(uint32_t number, const Lock&)> visit) const;
  uint32_t size() const { return live_; }

 private:
  Shared* const shared_;
  Record* const records_;

  // Derived, private.
  std::vector<uint32_t> free_;
  uint32_t live_ = 0;
};

}  // namespace dfscsi::state

#endif  // NODE_AGENT_STATE_LOCK_TABLE_H_
