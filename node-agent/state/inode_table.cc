#include "node-agent/state/inode_table.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "node-agent/base/status_macros.h"

namespace dfscsi::state {
namespace {

constexpr uint32_t kFree = 0;
constexpr uint32_t kLive = 1;
constexpr uint32_t kRootSlot = 1;
constexpr uint32_t kClassBytes[] = {96, 192, 384, 768};
constexpr int kMaxDepth = 32 * 1024;  // Longer than PATH_MAX allows: a loop in damaged memory.

constexpr uint32_t SlotOf(NodeId id) { return static_cast<uint32_t>(id); }
constexpr uint32_t GenerationOf(NodeId id) { return static_cast<uint32_t>(id >> 32); }
constexpr NodeId IdOf(uint32_t slot, uint32_t generation) {
  return slot | static_cast<NodeId>(generation) << 32;
}

int ClassOf(size_t name_bytes) {
  int name_class = 0;
  while (kClassBytes[name_class] < name_bytes) ++name_class;
  return name_class;
}

constexpr uint32_t ClassOfCell(uint32_t name_cell) { return name_cell >> 30; }
constexpr uint32_t NumberOfCell(uint32_t name_cell) { return name_cell & 0x3fffffff; }

// Part of the shared layout: records keep it. FNV-1a over the name, with the parent mixed in.
uint32_t HashOf(NodeId parent, std::string_view name) {
  uint64_t hash = 0xcbf29ce484222325 ^ (parent * 0x9E3779B97F4A7C15);
  for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  return static_cast<uint32_t>(hash ^ hash >> 32);
}

}  // namespace

InodeTable::InodeTable(Shared* shared, char* region)
    : shared_(shared),
      records_(reinterpret_cast<Record*>(region)),
      names_(region + uint64_t{kMaxNodes} * sizeof(Record)),
      index_(/*bucket_count=*/0, IndexHash(), IndexEqual{this}) {}

bool InodeTable::IndexEqual::operator()(const IndexEntry& a, const IndexKey& b) const {
  if (a.hash != b.hash) return false;
  const Record& record = *table->RecordAt(a.slot);
  return Load(record.parent) == b.parent && table->NameOf(record) == b.name;
}

void InodeTable::Format(uint64_t root_ino) {
  Record* const root = RecordAt(kRootSlot);
  Fill(root->ino, root_ino);
  Store(root->parent, 0);
  Store(root->nlookup, 1);  // The kernel holds it without a LOOKUP.
  Store(root->generation, 0);
  Store(root->state, kLive);
  Store(shared_->used_records, kRootSlot + 1);
}

// ---- recovery ----

absl::Status InodeTable::Recover() {
  const uint32_t used = Load(shared_->used_records);
  if (used < kRootSlot + 1 || used > kMaxNodes || Load(RecordAt(kRootSlot)->state) != kLive) {
    return absl::DataLossError("inode table: damaged header");
  }
  for (int c = 0; c < kNameClasses; ++c) {
    if (Load(shared_->used_cells[c]) > kNameRegionBytes / kClassBytes[c]) {
      return absl::DataLossError("inode table: damaged header");
    }
  }
  if (Load(shared_->redo_armed) != 0) RETURN_IF_ERROR(RedoRename());

  index_.clear();
  free_slots_.clear();
  holds_.assign(used, Holds());
  live_ = 0;
  std::vector<bool> used_cells[kNameClasses];
  for (int c = 0; c < kNameClasses; ++c) used_cells[c].resize(Load(shared_->used_cells[c]));
  for (uint32_t slot = used - 1; slot >= kRootSlot; --slot) {
    const Record& record = *RecordAt(slot);
    if (Load(record.state) != kLive) {
      free_slots_.push_back(slot);
      continue;
    }
    ++live_;
    if (record.name_length > kMaxNameBytes) return absl::DataLossError("inode table: a name");
    if (record.name_length > kInlineNameBytes) {
      std::vector<bool>& cells = used_cells[ClassOfCell(record.name_cell)];
      const uint32_t cell = NumberOfCell(record.name_cell);
      if (cell >= cells.size()) return absl::DataLossError("inode table: a name cell");
      cells[cell] = true;
    }
    const uint32_t parent = SlotOf(Load(record.parent));
    if (parent >= used) return absl::DataLossError("inode table: a parent");
    ++holds_[parent].children;
  }
  index_.reserve(live_);
  for (uint32_t slot = kRootSlot + 1; slot < used; ++slot) {
    const Record& record = *RecordAt(slot);
    if (Load(record.state) != kLive) continue;
    if (Lookup(Load(record.parent)) == nullptr) {
      return absl::DataLossError("inode table: a parent is not in use");
    }
    if ((Load(record.flags) & kNodeUnlinked) == 0) AddToIndex(slot);
  }
  for (int c = 0; c < kNameClasses; ++c) {
    free_cells_[c].clear();
    for (uint32_t cell = 0; cell < used_cells[c].size(); ++cell) {
      if (!used_cells[c][cell]) free_cells_[c].push_back(cell);
    }
  }
  return absl::OkStatus();
}

void InodeTable::ReleaseUnheld() {
  for (uint32_t slot = kRootSlot + 1; slot < holds_.size(); ++slot) {
    if (Load(RecordAt(slot)->state) == kLive) MaybeRemove(slot);
  }
}

// ---- names and slots ----

InodeTable::Record* InodeTable::Lookup(NodeId id) const {
  const uint32_t slot = SlotOf(id);
  if (slot < kRootSlot || slot >= holds_.size()) return nullptr;
  Record* const record = RecordAt(slot);
  if (Load(record->state) != kLive || Load(record->generation) != GenerationOf(id)) return nullptr;
  return record;
}

char* InodeTable::Cell(uint32_t name_cell) const {
  const uint32_t name_class = ClassOfCell(name_cell);
  return names_ + name_class * kNameRegionBytes +
         uint64_t{NumberOfCell(name_cell)} * kClassBytes[name_class];
}

std::string_view InodeTable::NameOf(const Record& record) const {
  if (record.name_length <= kInlineNameBytes) return {record.name, record.name_length};
  return {Cell(record.name_cell), record.name_length};
}

absl::StatusOr<uint32_t> InodeTable::TakeSlot() {
  if (!free_slots_.empty()) {
    const uint32_t slot = free_slots_.back();
    free_slots_.pop_back();
    return slot;
  }
  const uint32_t slot = Load(shared_->used_records);
  if (slot >= kMaxNodes) return absl::ResourceExhaustedError("inode table is full");
  Store(shared_->used_records, slot + 1);
  holds_.resize(slot + 1);
  return slot;
}

absl::StatusOr<uint32_t> InodeTable::TakeCell(size_t name_bytes) {
  const int c = ClassOf(name_bytes);
  uint32_t cell;
  if (!free_cells_[c].empty()) {
    cell = free_cells_[c].back();
    free_cells_[c].pop_back();
  } else {
    cell = Load(shared_->used_cells[c]);
    if (cell >= kNameRegionBytes / kClassBytes[c]) {
      return absl::ResourceExhaustedError("inode table: no room for names");
    }
    Store(shared_->used_cells[c], cell + 1);
  }
  return static_cast<uint32_t>(c) << 30 | cell;
}

void InodeTable::FreeName(const Record& record) {
  if (record.name_length <= kInlineNameBytes) return;
  free_cells_[ClassOfCell(record.name_cell)].push_back(NumberOfCell(record.name_cell));
}

void InodeTable::FillName(Record* record, std::string_view name, uint32_t name_cell) {
  if (name.size() <= kInlineNameBytes) {
    FillBytes(record->name, name.data(), name.size());
  } else {
    Fill(record->name_cell, name_cell);
    FillBytes(Cell(name_cell), name.data(), name.size());
  }
  Fill(record->name_length, static_cast<uint16_t>(name.size()));
}

void InodeTable::AddToIndex(uint32_t slot) {
  index_.insert(IndexEntry{RecordAt(slot)->hash, slot});
}

void InodeTable::RemoveFromIndex(uint32_t slot) {
  index_.erase(IndexEntry{RecordAt(slot)->hash, slot});
}

// ---- look-up, insert, counts ----

NodeId InodeTable::Find(NodeId parent, std::string_view name) const {
  const auto found = index_.find(IndexKey{HashOf(parent, name), parent, name});
  if (found == index_.end()) return 0;
  return IdOf(found->slot, Load(RecordAt(found->slot)->generation));
}

absl::StatusOr<NodeId> InodeTable::FindOrInsert(NodeId parent, std::string_view name,
                                                const NewNode& fresh) {
  if (name.empty() || name.size() > kMaxNameBytes) {
    return absl::InvalidArgumentError("inode table: name too long or empty");
  }
  if (const NodeId found = Find(parent, name); found != 0) return found;
  if (Lookup(parent) == nullptr) return absl::NotFoundError("the parent is not in use");
  uint32_t name_cell = 0;
  if (name.size() > kInlineNameBytes) {
    ASSIGN_OR_RETURN(name_cell, TakeCell(name.size()));
  }
  const absl::StatusOr<uint32_t> slot = TakeSlot();
  if (!slot.ok()) {
    if (name.size() > kInlineNameBytes) {
      free_cells_[ClassOfCell(name_cell)].push_back(NumberOfCell(name_cell));
    }
    return slot.status();
  }
  Record* const record = RecordAt(*slot);
  const uint32_t generation = Load(record->generation) + 1;
  Store(record->generation, generation);
  Store(record->parent, parent);
  Store(record->nlookup, 0);
  Store(record->flags, fresh.user_flags & kNodeUserFlags);
  Fill(record->ino, fresh.ino);
  Fill(record->hash, HashOf(parent, name));
  FillName(record, name, name_cell);
  Store(record->state, kLive);

  holds_[*slot] = Holds();
  ++holds_[SlotOf(parent)].children;
  ++live_;
  AddToIndex(*slot);
  return IdOf(*slot, generation);
}

InodeTable::Node InodeTable::Get(NodeId id) const {
  const Record* record = Lookup(id);
  return Node(id, record, NameOf(*record));
}

bool InodeTable::AddLookup(NodeId id, uint64_t n) {
  Record* const record = Lookup(id);
  if (record == nullptr) return false;
  Store(record->nlookup, Load(record->nlookup) + n);
  return true;
}

bool InodeTable::Forget(NodeId id, uint64_t n) {
  Record* const record = Lookup(id);
  if (record == nullptr || id == kRootNode) return false;
  const uint64_t held = Load(record->nlookup);
  if (n != 0) Store(record->nlookup, held - std::min(n, held));
  return MaybeRemove(SlotOf(id));
}

// Removes the record if nothing holds it, then its parent if the child was what held that, and so
// on.
bool InodeTable::MaybeRemove(uint32_t slot) {
  bool removed = false;
  while (slot != kRootSlot) {
    Record* const record = RecordAt(slot);
    if (Load(record->nlookup) != 0 || holds_[slot].children != 0 || holds_[slot].pins != 0) break;
    if ((Load(record->flags) & kNodeUnlinked) == 0) RemoveFromIndex(slot);
    Store(record->state, kFree);
    FreeName(*record);
    free_slots_.push_back(slot);
    --live_;
    removed = true;
    slot = SlotOf(Load(record->parent));
    --holds_[slot].children;
  }
  return removed;
}

void InodeTable::Pin(NodeId id) {
  if (Lookup(id) != nullptr) ++holds_[SlotOf(id)].pins;
}

void InodeTable::Unpin(NodeId id) {
  if (Lookup(id) == nullptr || holds_[SlotOf(id)].pins == 0) return;
  --holds_[SlotOf(id)].pins;
  MaybeRemove(SlotOf(id));
}

// Stores: known = no, identity, known = yes.
void InodeTable::SetIdentity(NodeId id, const NodeIdentity& identity) {
  Record* const record = Lookup(id);
  if (record == nullptr) return;
  const uint32_t flags = Load(record->flags);
  if ((flags & kNodeIdentityKnown) && record->identity == identity) return;
  Store(record->flags, flags & ~kNodeIdentityKnown);
  Fill(record->identity, identity);
  Store(record->flags, flags | kNodeIdentityKnown);
}

void InodeTable::SetUserFlags(NodeId id, uint32_t user_flags) {
  Record* const record = Lookup(id);
  if (record == nullptr) return;
  Store(record->flags, (Load(record->flags) & ~kNodeUserFlags) | (user_flags & kNodeUserFlags));
}

// ---- changes of the tree ----

void InodeTable::Unlink(NodeId id) {
  Record* const record = Lookup(id);
  if (record == nullptr || id == kRootNode) return;
  if (Load(record->flags) & kNodeUnlinked) return;
  RemoveFromIndex(SlotOf(id));
  Store(record->flags, Load(record->flags) | kNodeUnlinked);
  MaybeRemove(SlotOf(id));
}

bool InodeTable::IsBelow(NodeId id, NodeId ancestor) const {
  for (int depth = 0; id != 0 && depth < kMaxDepth; ++depth) {
    if (id == ancestor) return true;
    const Record* const record = Lookup(id);
    if (record == nullptr) return false;
    id = Load(record->parent);
  }
  return false;
}

// Stores: the redo record, redo_armed = 1; then what it says, redo_armed = 0.
absl::Status InodeTable::Rename(NodeId id, NodeId parent, std::string_view name) {
  if (name.empty() || name.size() > kMaxNameBytes) {
    return absl::InvalidArgumentError("inode table: name too long or empty");
  }
  if (Lookup(id) == nullptr || Lookup(parent) == nullptr || id == kRootNode) {
    return absl::NotFoundError("the node is not in use");
  }
  if (IsBelow(parent, id)) return absl::FailedPreconditionError("a directory into itself");
  const NodeId replaced = Find(parent, name);
  if (replaced == id) return absl::OkStatus();
  uint32_t name_cell = 0;
  if (name.size() > kInlineNameBytes) {
    ASSIGN_OR_RETURN(name_cell, TakeCell(name.size()));
  }
  Redo& redo = shared_->redo;
  Fill(redo.node, id);
  Fill(redo.parent, parent);
  Fill(redo.replaced, replaced);
  Fill(redo.name_cell, name_cell);
  Fill(redo.name_length, static_cast<uint32_t>(name.size()));
  FillBytes(redo.name, name.data(), name.size());
  Store(shared_->redo_armed, 1);

  // What is derived first, while the record still says what it was derived from.
  const uint32_t slot = SlotOf(id);
  const uint32_t old_parent = SlotOf(Load(RecordAt(slot)->parent));
  if ((Load(RecordAt(slot)->flags) & kNodeUnlinked) == 0) RemoveFromIndex(slot);
  if (replaced != 0) RemoveFromIndex(SlotOf(replaced));
  FreeName(*RecordAt(slot));
  ApplyRedo();
  Store(shared_->redo_armed, 0);
  AddToIndex(slot);
  ++holds_[SlotOf(parent)].children;
  --holds_[old_parent].children;
  if (replaced != 0) MaybeRemove(SlotOf(replaced));
  MaybeRemove(old_parent);
  return absl::OkStatus();
}

// May run any number of times, from the start, after a death at any of its stores.
void InodeTable::ApplyRedo() {
  const Redo& redo = shared_->redo;
  if (redo.replaced != 0) {
    Record* const replaced = RecordAt(SlotOf(redo.replaced));
    Store(replaced->flags, Load(replaced->flags) | kNodeUnlinked);
  }
  Record* const record = RecordAt(SlotOf(redo.node));
  const std::string_view name(redo.name, redo.name_length);
  FillName(record, name, redo.name_cell);
  Store(record->parent, redo.parent);
  Fill(record->hash, HashOf(redo.parent, name));
  Store(record->flags, Load(record->flags) & ~kNodeUnlinked);
}

absl::Status InodeTable::RedoRename() {
  const Redo& redo = shared_->redo;
  const uint32_t used = Load(shared_->used_records);
  const uint32_t c = ClassOfCell(redo.name_cell);
  if (SlotOf(redo.node) >= used || SlotOf(redo.parent) >= used || SlotOf(redo.replaced) >= used ||
      redo.name_length > kMaxNameBytes ||
      (redo.name_length > kInlineNameBytes &&
       NumberOfCell(redo.name_cell) >= Load(shared_->used_cells[c]))) {
    return absl::DataLossError("inode table: damaged redo record");
  }
  ApplyRedo();
  Store(shared_->redo_armed, 0);
  return absl::OkStatus();
}

absl::StatusOr<std::string> InodeTable::Path(NodeId id) const {
  std::vector<std::string_view> names;
  size_t bytes = 0;
  while (id != kRootNode) {
    const Record* const record = Lookup(id);
    if (record == nullptr || (Load(record->flags) & kNodeUnlinked) || names.size() > kMaxDepth) {
      return absl::NotFoundError("no path leads to this node any more");
    }
    names.push_back(NameOf(*record));
    bytes += names.back().size() + 1;
    id = Load(record->parent);
  }
  std::string path;
  path.reserve(bytes);
  for (auto name = names.rbegin(); name != names.rend(); ++name) {
    if (!path.empty()) path += '/';
    path += *name;
  }
  return path;
}

void InodeTable::ForEach(absl::FunctionRef<void(const Node&)> visit) const {
  for (uint32_t slot = kRootSlot; slot < holds_.size(); ++slot) {
    const Record& record = *RecordAt(slot);
    if (Load(record.state) != kLive) continue;
    visit(Node(IdOf(slot, Load(record.generation)), &record, NameOf(record)));
  }
}

}  // namespace dfscsi::state
