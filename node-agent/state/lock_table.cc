#include "node-agent/state/lock_table.h"

namespace dfscsi::state {
namespace {

constexpr uint32_t kFree = 0;
constexpr uint32_t kLive = 1;

}  // namespace

absl::Status LockTable::Recover() {
  const uint32_t used = Load(shared_->used_records);
  if (used > kMaxLocks) return absl::DataLossError("lock table: damaged header");
  free_.clear();
  live_ = 0;
  for (uint32_t number = used; number-- > 0;) {
    if (Load(records_[number].state) != kLive) {
      free_.push_back(number);
      continue;
    }
    if (records_[number].lock.last < records_[number].lock.first) {
      return absl::DataLossError("lock table: a range");
    }
    ++live_;
  }
  return absl::OkStatus();
}

absl::StatusOr<uint32_t> LockTable::Add(const Lock& lock) {
  uint32_t number;
  if (!free_.empty()) {
    number = free_.back();
    free_.pop_back();
  } else {
    number = Load(shared_->used_records);
    if (number >= kMaxLocks) return absl::ResourceExhaustedError("the lock table is full");
    Store(shared_->used_records, number + 1);
  }
  Fill(records_[number].lock, lock);
  Store(records_[number].state, kLive);
  ++live_;
  return number;
}

void LockTable::Remove(uint32_t number) {
  Store(records_[number].state, kFree);
  free_.push_back(number);
  --live_;
}

void LockTable::ForEach(absl::FunctionRef<void(uint32_t, const Lock&)> visit) const {
  const uint32_t used = Load(shared_->used_records);
  for (uint32_t number = 0; number < used; ++number) {
    if (Load(records_[number].state) == kLive) visit(number, records_[number].lock);
  }
}

}  // namespace dfscsi::state
