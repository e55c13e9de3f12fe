// The inode table of one mount: node id <-> (parent, name), and how often the kernel holds each.
//
// A record is a fact that the kernel relies on, so every change is ordered such that a death at any
// store leaves a table that Recover() can finish or undo:
//   insert   all fields, then `state = live` (one store). Before it: the slot is free.
//   counts   one 64-bit store each. AddLookup() comes before the reply that tells the kernel: a
//   death in
//            between leaves a count that is too high. That leaks a record until the unmount; a
//            count that is too low would give the slot to another file while the kernel still names
//            it.
//   remove   `state = free` (one store). The generation rises when the slot is used again, so an
//   old node id
//            is recognised and never means another file.
//   unlink   one flag: the record stays (open files), its name does not resolve any more.
//   rename   parent and name are many stores, so they are first written to a redo record in the
//   header, which
//            is then armed (one store); Recover() runs an armed one again from the start.
// Names are bytes: `A` and `a` are two names here; what they have in common is the layer above's
// business.

#ifndef NODE_AGENT_STATE_INODE_TABLE_H_
#define NODE_AGENT_STATE_INODE_TABLE_H_

#include <array>
#include <atomic>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "node-agent/state/shared_memory.h"

namespace dfscsi::state {

// slot | generation << 32. 0 is no node; kRootNode is the mount's root for ever.
using NodeId = uint64_t;
inline constexpr NodeId kRootNode = 1;

// What was last seen of the object on the server: how a handle or a cached page is recognised after
// a takeover or on another target.
struct NodeIdentity {
  uint64_t size_bytes = 0;
  uint64_t last_write = 0;  // FILETIME, as the server sent it.
  uint64_t file_id = 0;     // The server's; comparable within one epoch only.
  uint32_t attributes = 0;  // FILE_ATTRIBUTE_*
  uint32_t epoch = 0;       // The link's binding it was seen on.

  friend bool operator==(const NodeIdentity&, const NodeIdentity&) = default;
};

// Bits of a record's flags. The low half is this table's, the high half belongs to the layer above.
inline constexpr uint32_t kNodeUnlinked = 1;
inline constexpr uint32_t kNodeIdentityKnown = 2;
inline constexpr uint32_t kNodeUserFlags = 0xffff0000;

class InodeTable {
 public:
  static constexpr uint32_t kMaxNodes = 1 << 24;
  static constexpr uint32_t kMaxNameBytes =
      768;  // 255 UTF-16 units are at most 765 bytes of UTF-8.
  static constexpr uint32_t kInlineNameBytes = 48;
  static constexpr int kNameClasses = 4;  // Longer names: cells of 96, 192, 384, 768 bytes.
  static constexpr uint64_t kNameRegionBytes = uint64_t{768} << 20;  // Of each class.

  // Shared layout of a record: two cache lines, the first of which a look-up needs.
  struct Record {
    std::atomic<uint32_t> state;  // 0 free, 1 live
    std::atomic<uint32_t> generation;
    std::atomic<NodeId> parent;
    std::atomic<uint64_t> nlookup;
    uint64_t ino;
    uint32_t hash;  // Of (parent, name).
    std::atomic<uint32_t> flags;
    uint16_t name_length;
    uint16_t reserved;
    uint32_t name_cell;  // Of a name longer than kInlineNameBytes: class << 30 | cell.
    NodeIdentity identity;
    char name[kInlineNameBytes];
  };
  static_assert(sizeof(Record) == 128);

  // Shared layout: a rename under way.
  struct Redo {
    NodeId node;
    NodeId parent;
    NodeId replaced;  // 0: none.
    uint32_t name_cell;
    uint32_t name_length;
    char name[kMaxNameBytes];
  };

  // Shared layout, in the header of the memfd.
  struct Shared {
    std::atomic<uint32_t> used_records;  // Slots below it were used at some time.
    std::atomic<uint32_t> used_cells[kNameClasses];
    std::atomic<uint32_t> redo_armed;
    Redo redo;
  };
  static constexpr uint64_t kRegionBytes =
      uint64_t{kMaxNodes} * sizeof(Record) + kNameClasses * kNameRegionBytes;

  // Part of MountTables, which see.
  InodeTable(Shared* shared, char* region);
  void Format(uint64_t root_ino);
  absl::Status Recover();
  // After the handle table's Recover() has pinned what is open: inserted and never given out.
  void ReleaseUnheld();

  // A read-only view of one record. Pointers and views into it are valid until its record is
  // changed.
  class Node {
   public:
    NodeId id() const { return id_; }
    NodeId parent() const { return Load(record_->parent); }
    std::string_view name() const { return name_; }
    uint64_t nlookup() const { return Load(record_->nlookup); }
    uint64_t ino() const { return record_->ino; }
    uint32_t flags() const { return Load(record_->flags); }
    bool unlinked() const { return flags() & kNodeUnlinked; }
    // nullptr: not known (never set, or the agent died while it was being set).
    const NodeIdentity* identity() const {
      return flags() & kNodeIdentityKnown ? &record_->identity : nullptr;
    }

   private:
    friend class InodeTable;
    Node(NodeId id, const Record* record, std::string_view name)
        : id_(id), record_(record), name_(name) {}
    NodeId id_;
    const Record* record_;
    std::string_view name_;
  };

  // 0: there is none by this name (or `parent` is not in use).
  NodeId Find(NodeId parent, std::string_view name) const;

  struct NewNode {
    uint64_t ino = 0;
    uint32_t user_flags = 0;  // Within kNodeUserFlags.
  };
  // The node of this name; made from `fresh` if there is none (an existing one is not changed). A
  // new node has nlookup 0: raise it before the kernel learns its id, or Release() it. Errors:
  // InvalidArgument (name empty or longer than kMaxNameBytes), NotFound (`parent` is not in use:
  // ESTALE), ResourceExhausted (table full: ENFILE).
  absl::StatusOr<NodeId> FindOrInsert(NodeId parent, std::string_view name, const NewNode& fresh);

  bool Contains(NodeId id) const { return Lookup(id) != nullptr; }
  // id must be in use (Contains).
  Node Get(NodeId id) const;

  // Before the reply (LOOKUP, CREATE, each READDIRPLUS entry but "." and "..") that gives the id to
  // the kernel. If that reply could not be delivered, Forget() takes it back. False: not in use.
  bool AddLookup(NodeId id, uint64_t n = 1);
  // FUSE_FORGET. Removes the record when nothing holds it any more: no lookups, no children, no
  // pins. An unknown id, and a count larger than what is held, do no harm. True: the record is
  // gone.
  bool Forget(NodeId id, uint64_t n);
  // Forget(id, 0): for a node that was inserted and not given out.
  bool Release(NodeId id) { return Forget(id, 0); }

  // Keeps a record in this process although the kernel may forget it (an operation uses it). Not
  // shared: the next agent starts without pins, apart from those that the handle table's open files
  // take.
  void Pin(NodeId id);
  void Unpin(NodeId id);

  void SetIdentity(NodeId id, const NodeIdentity& identity);
  void SetUserFlags(NodeId id, uint32_t user_flags);

  // The name is gone on the server. The node lives on until it is forgotten; Path() says NotFound.
  void Unlink(NodeId id);
  // The node's name on the server is now `name` in `parent`. Another node of that name is unlinked.
  // With all below it, as paths are computed. Errors: as FindOrInsert; FailedPrecondition (into
  // itself).
  absl::Status Rename(NodeId id, NodeId parent, std::string_view name);
  // RENAME_EXCHANGE is not offered: SMB has none.

  // "a/b/c" from the root, "" for the root itself. NotFound: the id is not in use, or it or an
  // ancestor was unlinked.
  absl::StatusOr<std::string> Path(NodeId id) const;

  void ForEach(absl::FunctionRef<void(const Node&)> visit) const;
  uint32_t size() const { return live_; }

 private:
  struct IndexEntry {
    uint32_t hash;
    uint32_t slot;
  };
  struct IndexKey {
    uint32_t hash;
    NodeId parent;
    std::string_view name;
  };
  struct IndexHash {
    using is_transparent = void;
    size_t operator()(const IndexEntry& entry) const { return Spread(entry.hash); }
    size_t operator()(const IndexKey& key) const { return Spread(key.hash); }
    static size_t Spread(uint32_t hash) { return hash * uint64_t{0x9E3779B97F4A7C15}; }
  };
  struct IndexEqual {
    using is_transparent = void;
    const InodeTable* table;
    bool operator()(const IndexEntry& a, const IndexEntry& b) const { return a.slot == b.slot; }
    bool operator()(const IndexEntry& a, const IndexKey& b) const;
    bool operator()(const IndexKey& a, const IndexEntry& b) const { return (*this)(b, a); }
  };
  using Index = absl::flat_hash_set<IndexEntry, IndexHash, IndexEqual>;

  Record* RecordAt(uint32_t slot) const { return &records_[slot]; }
  Record* Lookup(NodeId id) const;  // nullptr: not in use.
  std::string_view NameOf(const Record& record) const;
  char* Cell(uint32_t name_cell) const;
  absl::StatusOr<uint32_t> TakeSlot();
  absl::StatusOr<uint32_t> TakeCell(size_t name_bytes);
  // To a record that is not live, or whose rename is armed.
  void FillName(Record* record, std::string_view name, uint32_t name_cell);
  void FreeName(const Record& record);
  bool IsBelow(NodeId id, NodeId ancestor) const;
  void ApplyRedo();
  absl::Status RedoRename();
  void AddToIndex(uint32_t slot);
  void RemoveFromIndex(uint32_t slot);
  bool MaybeRemove(uint32_t slot);

  Shared* const shared_;
  Record* const records_;
  char* const names_;

  // Derived, private.
  Index index_;
  struct Holds {
    uint32_t children = 0;
    uint32_t pins = 0;
  };
  std::vector<Holds> holds_;  // By slot.
  std::vector<uint32_t> free_slots_;
  std::vector<uint32_t> free_cells_[kNameClasses];
  uint32_t live_ = 0;
};

}  // namespace dfscsi::state

#endif  // NODE_AGENT_STATE_INODE_TABLE_H_
