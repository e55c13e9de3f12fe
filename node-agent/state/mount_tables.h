// What the kernel believes about one mount: the memory in which its inode table and handle table
// lie.
//
// After kill -9 the kernel still has dentries, node ids with their lookup counts, open files with
// their fh, page cache and dirty pages. The next agent must mean the same things by the same
// numbers. So those numbers are never pointers; they are slot | generation << 32 in tables that
// live in one memfd per mount, which the mounter creates empty, keeps, and gives to every agent.
// The agent formats it when it makes the mount.
//
// The memfd is large and sparse (6 GiB of addresses): the tables grow by touching the next page,
// nothing is ever moved or remapped, and an unused part costs nothing. Only facts lie in it.
// Whatever can be computed from them (the name index, free lists, child counts) is private to the
// process and rebuilt by Recover(), so that no death can leave an index that disagrees with its
// records.
//
// One mount belongs to one loop: nothing here is thread-safe.

#ifndef NODE_AGENT_STATE_MOUNT_TABLES_H_
#define NODE_AGENT_STATE_MOUNT_TABLES_H_

#include <atomic>
#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "node-agent/state/handle_table.h"
#include "node-agent/state/inode_table.h"
#include "node-agent/state/lock_table.h"
#include "node-agent/state/shared_memory.h"

namespace dfscsi::state {

// Raised with every change of a layout below. The mounter keeps, with each mount, the version it
// was made with, and refuses an agent that cannot read it before that agent can take over.
//   1  inodes, handles
//   2  the last 16 MiB, which were of directory streams, are locks. A mount of layout 1 has none:
//      its kernel was told to keep them to itself
inline constexpr uint32_t kTablesLayoutVersion = 2;
inline constexpr uint32_t kTablesOldestReadable = 1;

// Shared layout: the first 64 KiB of the memfd.
struct TablesHeader {
  std::atomic<uint64_t> magic;  // Stored last by Format().
  uint32_t layout_version;
  uint32_t reserved;
  Guid client_guid;               // [MS-SMB2] 2.2.3 ClientGuid of this mount's own connections.
  std::atomic<uint64_t> next_id;  // NextId().
  std::atomic<uint64_t> epoch;    // The newest link epoch given out.
  InodeTable::Shared inodes;
  HandleTable::Shared handles;
  LockTable::Shared locks;
};
static_assert(sizeof(TablesHeader) <= 64 * 1024);

inline constexpr uint64_t kTablesHeaderBytes = 64 * 1024;
inline constexpr uint64_t kTablesBytes = kTablesHeaderBytes + InodeTable::kRegionBytes +
                                         HandleTable::kRegionBytes + LockTable::kRegionBytes;
// It is a mounter's, which may be older than the agent, that makes the memory.
static_assert(kTablesBytes == kTablesHeaderBytes + InodeTable::kRegionBytes +
                                  uint64_t{HandleTable::kMaxHandles} * 256 + (uint64_t{512} << 20));

class MountTables {
 public:
  // Makes the tables of a new mount: header, ClientGuid, and the root (node id 1, `root_ino`).
  static absl::StatusOr<std::unique_ptr<MountTables>> Format(int fd, uint64_t root_ino);
  // Maps the tables of a live mount; reads the header, writes nothing. FailedPrecondition: not such
  // tables, or of a layout that this program cannot read.
  static absl::StatusOr<std::unique_ptr<MountTables>> Map(int fd);

  // After the death of the previous agent, once, before anything else: repairs what it left half
  // done and rebuilds what is derived. Takes about 0.1 ms per 1,000 inodes.
  absl::Status Recover();

  InodeTable& inodes() { return inodes_; }
  HandleTable& handles() { return handles_; }
  LockTable& locks() { return locks_; }

  const Guid& client_guid() const { return header()->client_guid; }
  // A number never given out before in the life of this mount, agents' deaths included.
  uint64_t NextId();
  // Link epochs (design: "each link carries the number of its current binding") must not repeat
  // either.
  uint64_t NextEpoch();

 private:
  explicit MountTables(SharedMemory memory);
  TablesHeader* header() const { return reinterpret_cast<TablesHeader*>(memory_.data()); }

  SharedMemory memory_;
  InodeTable inodes_;
  HandleTable handles_;
  LockTable locks_;
};

}  // namespace dfscsi::state

#endif  // NODE_AGENT_STATE_MOUNT_TABLES_H_
