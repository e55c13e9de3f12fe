// Who of this mount's programs has which ranges of one file locked, as POSIX says it; and which
// ranges they need of the file's server, all together. Pure: no I/O, nothing of SMB.
//
// fcntl(2): the ranges of one owner are merged, split and changed in place, and are all gone when
// the owner closes any handle of the file. flock(2): the whole file, by an open file. The two kinds
// do not see each other on one machine; a server sees one kind.

#ifndef NODE_AGENT_VFS_LOCK_MODEL_H_
#define NODE_AGENT_VFS_LOCK_MODEL_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "node-agent/state/inode_table.h"
#include "node-agent/state/lock_table.h"

namespace dfscsi::vfs {

// Of a lock's record in shared memory.
enum class LockKind : uint32_t { kRange = 1, kWhole = 2 };
enum class LockType : uint32_t { kNone = 0, kShared = 1, kExclusive = 2 };

// What a program asks for, or has.
struct FileLock {
  LockKind kind = LockKind::kRange;
  LockType type = LockType::kNone;  // kNone, asked for: give back.
  uint64_t owner = 0;
  uint64_t first = 0;
  uint64_t last = 0;  // The last byte of it.
  uint32_t pid = 0;
  state::FileHandle fh = 0;
};

// A range, on a server.
struct LockRange {
  uint64_t first = 0;
  uint64_t last = 0;
  LockType type = LockType::kNone;

  bool Overlaps(const LockRange& other) const { return first <= other.last && other.first <= last; }
  uint64_t length_bytes() const { return last - first + 1; }
  friend bool operator==(const LockRange&, const LockRange&) = default;
};

// `wanted` without what `held` covers with the same type or a stronger one. Sorted, of one type.
std::vector<LockRange> Uncovered(const LockRange& wanted, const std::vector<LockRange>& held);
// The parts of `ranges` that lie in `within`.
std::vector<LockRange> Clip(const std::vector<LockRange>& ranges, const LockRange& within);

class LockModel {
 public:
  struct Held {
    FileLock lock;
    std::optional<uint32_t> record = {};  // In shared memory; nullopt: not there yet.
  };

  // The first lock of another owner that is in the way.
  const FileLock* FindConflict(const FileLock& wanted) const;
  // Gives `wanted` to its owner, or takes it. REQUIRES: nothing is in the way. Returns the records
  // that are not true any more. Owner, kind and range of what is added are in held() without one.
  std::vector<uint32_t> Set(const FileLock& wanted);
  // Takes all that `which` says. Returns their records.
  std::vector<uint32_t> Drop(const std::function<bool(const FileLock&)>& which);
  // From shared memory, after a takeover.
  void Restore(const FileLock& lock, uint32_t record) { held_.push_back({lock, record}); }

  const std::vector<Held>& held() const { return held_; }
  std::vector<Held>& held() { return held_; }
  bool empty() const { return held_.empty(); }

  // What all of them need, each byte with the strongest type that anybody has there: disjoint,
  // sorted, neighbours of one type joined.
  std::vector<LockRange> Needed() const;
  // The same, if `wanted` were given.
  std::vector<LockRange> NeededWith(const FileLock& wanted) const;

 private:
  std::vector<Held> held_;
};

}  // namespace dfscsi::vfs

#endif  // NODE_AGENT_VFS_LOCK_MODEL_H_
