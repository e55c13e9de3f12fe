#include "node-agent/state/handle_table.h"

#include <algorithm>

#include "node-agent/base/status_macros.h"

namespace dfscsi::state {
namespace {

constexpr uint32_t kFree = 0;
constexpr uint32_t kLive = 1;

constexpr uint32_t SlotOf(FileHandle fh) { return static_cast<uint32_t>(fh); }
constexpr uint32_t GenerationOf(FileHandle fh) { return static_cast<uint32_t>(fh >> 32); }
constexpr FileHandle HandleOf(uint32_t slot, uint32_t generation) {
  return slot | static_cast<FileHandle>(generation) << 32;
}

}  // namespace

HandleTable::HandleTable(Shared* shared, char* region, InodeTable* inodes)
    : shared_(shared),
      records_(reinterpret_cast<Record*>(region)),
      blocks_(reinterpret_cast<Block*>(region + uint64_t{kMaxHandles} * sizeof(Record))),
      inodes_(inodes) {}

absl::Status HandleTable::Recover() {
  const uint32_t used = Load(shared_->used_records);
  const uint32_t used_blocks = Load(shared_->used_blocks);
  if (used > kMaxHandles || used_blocks > kMaxBlocks) {
    return absl::DataLossError("handle table: damaged header");
  }
  free_slots_.clear();
  free_blocks_.clear();
  last_block_.assign(used, 0);
  live_ = 0;
  std::vector<bool> in_use(used_blocks);
  for (uint32_t slot = used; slot-- > 0;) {
    Record& record = records_[slot];
    if (Load(record.state) != kLive) {
      free_slots_.push_back(slot);
      continue;
    }
    ++live_;
    inodes_->Pin(record.node);
    // Blocks behind the last counted name were linked by an append that did not come to its end.
    const uint64_t wanted = (Load(record.names) + kHashesPerBlock - 1) / kHashesPerBlock;
    std::atomic<uint32_t>* link = &record.first_block;
    for (uint64_t n = 0; n < wanted; ++n) {
      const uint32_t number = Load(*link);
      if (number == 0 || number > used_blocks || in_use[number - 1]) {
        return absl::DataLossError("handle table: a directory stream");
      }
      in_use[number - 1] = true;
      last_block_[slot] = number;
      link = &BlockAt(number)->next;
    }
    if (Load(*link) != 0) Store(*link, 0);
  }
  for (uint32_t number = used_blocks; number > 0; --number) {
    if (!in_use[number - 1]) free_blocks_.push_back(number);
  }
  return absl::OkStatus();
}

HandleTable::Record* HandleTable::Lookup(FileHandle fh) const {
  const uint32_t slot = SlotOf(fh);
  if (slot >= last_block_.size()) return nullptr;
  Record* const record = &records_[slot];
  if (Load(record->state) != kLive || Load(record->generation) != GenerationOf(fh)) return nullptr;
  return record;
}

absl::StatusOr<FileHandle> HandleTable::Open(const NewHandle& fresh) {
  if (!inodes_->Contains(fresh.node)) return absl::NotFoundError("the node is not in use");
  uint32_t slot;
  if (!free_slots_.empty()) {
    slot = free_slots_.back();
    free_slots_.pop_back();
  } else {
    slot = Load(shared_->used_records);
    if (slot >= kMaxHandles) return absl::ResourceExhaustedError("handle table is full");
    Store(shared_->used_records, slot + 1);
    last_block_.resize(slot + 1);
  }
  Record* const record = &records_[slot];
  const uint32_t generation = std::max(Load(record->generation) + 1, 1u);  // So that fh is never 0.
  Store(record->generation, generation);
  Fill(record->node, fresh.node);
  Fill(record->kind, static_cast<uint32_t>(fresh.kind));
  Fill(record->open_flags, fresh.open_flags);
  Fill(record->access, fresh.access);
  Store(record->refs, 1);
  Store(record->flags, fresh.flags);
  Store(record->first_block, 0);
  Store(record->names, 0);
  record->identity.Set(fresh.identity);
  record->server.Set(fresh.server);
  Store(record->server_key, fresh.server_key);
  Store(record->state, kLive);

  last_block_[slot] = 0;
  ++live_;
  inodes_->Pin(fresh.node);
  return HandleOf(slot, generation);
}

void HandleTable::AddRef(FileHandle fh) {
  if (Record* record = Lookup(fh)) Store(record->refs, Load(record->refs) + 1);
}

bool HandleTable::Close(FileHandle fh) {
  Record* const record = Lookup(fh);
  if (record == nullptr) return false;
  const uint32_t refs = Load(record->refs);
  if (refs > 1) {
    Store(record->refs, refs - 1);
    return false;
  }
  const uint32_t first_block = Load(record->first_block);
  const NodeId node = record->node;
  Store(record->state, kFree);
  FreeBlocks(first_block);
  free_slots_.push_back(SlotOf(fh));
  --live_;
  inodes_->Unpin(node);
  return true;
}

const HandleTable::Record& HandleTable::Get(FileHandle fh) const { return *Lookup(fh); }

void HandleTable::SetIdentity(FileHandle fh, const NodeIdentity& identity) {
  if (Record* record = Lookup(fh)) record->identity.Set(identity);
}

void HandleTable::SetServerSide(FileHandle fh, const ServerSide& server) {
  if (Record* record = Lookup(fh)) record->server.Set(server);
}

void HandleTable::SetServerKey(FileHandle fh, uint64_t server_key) {
  if (Record* record = Lookup(fh)) Store(record->server_key, server_key);
}

void HandleTable::SetFlags(FileHandle fh, uint32_t flags) {
  if (Record* record = Lookup(fh)) Store(record->flags, flags);
}

// ---- the directory stream ----

absl::StatusOr<uint32_t> HandleTable::TakeBlock() {
  uint32_t number;
  if (!free_blocks_.empty()) {
    number = free_blocks_.back();
    free_blocks_.pop_back();
  } else {
    const uint32_t used = Load(shared_->used_blocks);
    if (used >= kMaxBlocks) return absl::ResourceExhaustedError("no room for directory streams");
    Store(shared_->used_blocks, used + 1);
    number = used + 1;
  }
  Store(BlockAt(number)->next, 0);
  return number;
}

void HandleTable::FreeBlocks(uint32_t first) {
  for (uint32_t number = first; number != 0; number = Load(BlockAt(number)->next)) {
    free_blocks_.push_back(number);
  }
}

absl::Status HandleTable::AppendName(FileHandle fh, uint64_t name_hash) {
  Record* const record = Lookup(fh);
  if (record == nullptr) return absl::NotFoundError("the directory is not open");
  const uint64_t names = Load(record->names);
  uint32_t& last = last_block_[SlotOf(fh)];
  if (names % kHashesPerBlock == 0) {
    ASSIGN_OR_RETURN(const uint32_t number, TakeBlock());
    Store(last == 0 ? record->first_block : BlockAt(last)->next, number);
    last = number;
  }
  Fill(BlockAt(last)->hashes[names % kHashesPerBlock], name_hash);
  Store(record->names, names + 1);
  return absl::OkStatus();
}

void HandleTable::TruncateStream(FileHandle fh, uint64_t names) {
  Record* const record = Lookup(fh);
  if (record == nullptr || names >= Load(record->names)) return;
  Store(record->names, names);
  std::atomic<uint32_t>* link = &record->first_block;
  uint32_t& last = last_block_[SlotOf(fh)];
  last = 0;
  for (uint64_t n = 0; n < names; n += kHashesPerBlock) {
    last = Load(*link);
    link = &BlockAt(last)->next;
  }
  const uint32_t rest = Load(*link);
  Store(*link, 0);
  FreeBlocks(rest);
}

uint64_t HandleTable::StreamLength(FileHandle fh) const {
  const Record* const record = Lookup(fh);
  return record == nullptr ? 0 : Load(record->names);
}

std::vector<uint64_t> HandleTable::StreamNames(FileHandle fh) const {
  std::vector<uint64_t> hashes;
  const Record* const record = Lookup(fh);
  if (record == nullptr) return hashes;
  const uint64_t names = Load(record->names);
  hashes.reserve(names);
  for (uint32_t number = Load(record->first_block); hashes.size() < names;
       number = Load(BlockAt(number)->next)) {
    const uint64_t n = std::min<uint64_t>(names - hashes.size(), kHashesPerBlock);
    hashes.insert(hashes.end(), BlockAt(number)->hashes, BlockAt(number)->hashes + n);
  }
  return hashes;
}

void HandleTable::ForEach(absl::FunctionRef<void(FileHandle, const Record&)> visit) const {
  for (uint32_t slot = 0; slot < last_block_.size(); ++slot) {
    const Record& record = records_[slot];
    if (Load(record.state) == kLive) visit(HandleOf(slot, Load(record.generation)), record);
  }
}

}  // namespace dfscsi::state
