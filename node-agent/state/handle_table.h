// The handle table of one mount: what each open file and directory of the kernel (its `fh`) means.
//
// A record says which node it is, how it was opened, under which keys and ids the server knows it,
// and what was last seen of it, so that the next agent can reconnect it durably or open it again
// and tell whether it is still the same file. A directory keeps, besides, the hash of every name
// already given to the kernel, in order: SMB listings have no position that outlives a connection,
// so after a takeover or failover the directory is listed again and names already returned are
// skipped.
//
// Order of stores: open: all fields, then `state = live`. close: `state = free`; the stream's
// blocks are free by not being reachable from a live record. Append: the hash, then the count; a
// new block is linked before the count reaches into it. What changes while the handle lives is one
// atomic field or has two copies.

#ifndef NODE_AGENT_STATE_HANDLE_TABLE_H_
#define NODE_AGENT_STATE_HANDLE_TABLE_H_

#include <array>
#include <atomic>
#include <cstdint>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "node-agent/state/inode_table.h"
#include "node-agent/state/shared_memory.h"

namespace dfscsi::state {

using Guid = std::array<uint8_t, 16>;

// slot | generation << 32; never 0.
using FileHandle = uint64_t;

// [MS-SMB2] 2.2.14.1 SMB2_FILEID
struct SmbFileId {
  uint64_t persistent = 0;
  uint64_t volatile_part = 0;
  friend bool operator==(const SmbFileId&, const SmbFileId&) = default;
};

class HandleTable {
 public:
  static constexpr uint32_t kMaxHandles = 1 << 20;
  static constexpr uint32_t kHashesPerBlock = 63;
  // 64 million names in all open directories. A mount of layout 1 may use more: not read by this.
  static constexpr uint32_t kMaxBlocks = (1 << 20) - (1 << 15);

  enum class Kind : uint32_t { kFile = 1, kDirectory = 2 };

  // What an open is known by; set when the record is made, and again when the server's side
  // changes.
  struct ServerSide {
    Guid lease_key = {};
    Guid create_guid = {};   // [MS-SMB2] 2.2.13.2.11: durable handle v2
    SmbFileId file_id = {};  // Of the last CREATE; meaningful on its session only.
    uint64_t session_id = 0;
    friend bool operator==(const ServerSide&, const ServerSide&) = default;
  };

  // Shared layout.
  struct Record {
    std::atomic<uint32_t> state;  // 0 free, 1 live
    std::atomic<uint32_t> generation;
    NodeId node;
    uint32_t kind;
    uint32_t open_flags;  // O_* of the OPEN request.
    uint32_t access;      // [MS-SMB2] DesiredAccess that was granted.
    std::atomic<uint32_t> refs;
    std::atomic<uint32_t> flags;  // The layer above's.
    std::atomic<uint32_t> first_block;
    std::atomic<uint64_t> names;  // Hashes in the stream.
    TwoCopies<NodeIdentity> identity;
    TwoCopies<ServerSide> server;
    std::atomic<uint64_t>
        server_key;  // Of the server of `identity`, the layer above's; 0: unknown.
    uint64_t reserved;
  };
  static_assert(sizeof(Record) == 256);

  struct Block {
    std::atomic<uint32_t> next;  // 0: none
    uint32_t reserved;
    uint64_t hashes[kHashesPerBlock];
  };
  static_assert(sizeof(Block) == 512);

  struct Shared {
    std::atomic<uint32_t> used_records;
    std::atomic<uint32_t> used_blocks;
  };
  static constexpr uint64_t kRegionBytes =
      uint64_t{kMaxHandles} * sizeof(Record) + uint64_t{kMaxBlocks} * sizeof(Block);

  // Part of MountTables, which see. Live handles pin their nodes.
  HandleTable(Shared* shared, char* region, InodeTable* inodes);
  absl::Status Recover();

  struct NewHandle {
    NodeId node = 0;
    Kind kind = Kind::kFile;
    uint32_t open_flags = 0;
    uint32_t access = 0;
    uint32_t flags = 0;
    NodeIdentity identity = {};
    ServerSide server = {};
    uint64_t server_key = 0;
  };
  // Before the reply to OPEN, OPENDIR or CREATE. Errors: NotFound (the node is not in use),
  // ResourceExhausted (ENFILE).
  absl::StatusOr<FileHandle> Open(const NewHandle& fresh);
  // A second OPEN shares the record (handle caching): it must be closed once more.
  void AddRef(FileHandle fh);
  // RELEASE. True: that was the last reference, the record is gone. An unknown fh does no harm (a
  // RELEASE that is run again after a takeover).
  bool Close(FileHandle fh);

  bool Contains(FileHandle fh) const { return Lookup(fh) != nullptr; }
  // fh must be in use. The reference is valid until Close().
  const Record& Get(FileHandle fh) const;
  void SetIdentity(FileHandle fh, const NodeIdentity& identity);
  void SetServerSide(FileHandle fh, const ServerSide& server);
  void SetFlags(FileHandle fh, uint32_t flags);
  void SetServerKey(FileHandle fh, uint64_t server_key);

  // The directory stream. Offsets that the kernel sees are ordinals in it: the entry after N names
  // has offset N. Append before the reply that carries the name. A READDIR that asks for offset N <
  // StreamLength() is either a re-run of one whose reply was lost or a seekdir(): truncate to N,
  // then go on; 0 = rewinddir. Errors: ResourceExhausted.
  absl::Status AppendName(FileHandle fh, uint64_t name_hash);
  void TruncateStream(FileHandle fh, uint64_t names);
  uint64_t StreamLength(FileHandle fh) const;
  std::vector<uint64_t> StreamNames(FileHandle fh) const;

  void ForEach(absl::FunctionRef<void(FileHandle, const Record&)> visit) const;
  uint32_t size() const { return live_; }

 private:
  Record* Lookup(FileHandle fh) const;
  Block* BlockAt(uint32_t number) const { return &blocks_[number - 1]; }  // 1 is the first.
  absl::StatusOr<uint32_t> TakeBlock();
  void FreeBlocks(uint32_t first);

  Shared* const shared_;
  Record* const records_;
  Block* const blocks_;
  InodeTable* const inodes_;

  // Derived, private.
  std::vector<uint32_t> free_slots_;
  std::vector<uint32_t> free_blocks_;
  std::vector<uint32_t> last_block_;  // By slot.
  uint32_t live_ = 0;
};

}  // namespace dfscsi::state

#endif  // NODE_AGENT_STATE_HANDLE_TABLE_H_
