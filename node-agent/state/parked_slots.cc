#include "node-agent/state/parked_slots.h"

#include <sys/mman.h>

#include "node-agent/state/request_arena.h"

namespace dfscsi::state {
namespace {

constexpr uint64_t kPageBytes = 4096;

constexpr uint64_t Pages(uint64_t bytes) {
  return (bytes + kPageBytes - 1) / kPageBytes * kPageBytes;
}

}  // namespace

ParkedSlots::ParkedSlots(const SharedMemory& memory, uint64_t offset, std::atomic<uint32_t>& used)
    : memory_(memory), offset_(offset), used_(used) {}

ParkedSlots::Slot ParkedSlots::At(uint32_t index) const {
  char* const start = memory_.data() + offset_;
  return {.index = index,
          .descriptor = reinterpret_cast<SlotDescriptor*>(start) + index,
          .payload =
              start + kParkedSlots * sizeof(SlotDescriptor) + index * uint64_t{kBigPayloadBytes}};
}

uint32_t ParkedSlots::IndexOf(const SlotDescriptor* descriptor) const {
  return static_cast<uint32_t>(descriptor -
                               reinterpret_cast<const SlotDescriptor*>(memory_.data() + offset_));
}

void ParkedSlots::Punch(uint32_t index, uint32_t length) const {
  // It cannot fail in a way that matters: the pages are used again by the next request.
  (void)madvise(At(index).payload, Pages(length), MADV_REMOVE);
}

void ParkedSlots::SetLimit(uint64_t bytes) {
  absl::MutexLock lock(&mutex_);
  limit_bytes_ = bytes;
}

bool ParkedSlots::HasRoom() const {
  absl::MutexLock lock(&mutex_);
  return taken_ < kParkedSlots && bytes_ + kBigPayloadBytes <= limit_bytes_;
}

std::optional<ParkedSlots::Slot> ParkedSlots::Take(uint32_t length) {
  const uint64_t bytes = Pages(length);
  uint32_t index = 0;
  {
    absl::MutexLock lock(&mutex_);
    if (bytes_ + bytes > limit_bytes_) return std::nullopt;
    if (!free_.empty()) {
      index = free_.back();
      free_.pop_back();
    } else {
      index = Load(used_);
      if (index >= kParkedSlots) return std::nullopt;
      Store(used_, index + 1);
    }
    ++taken_;
    bytes_ += bytes;
  }
  const Slot slot = At(index);
  // What the system has not must be an answer here, and no signal in memcpy.
  const uint64_t offset = static_cast<uint64_t>(slot.payload - memory_.data());
  if (!memory_.Populate(offset, bytes).ok()) {
    Give(index, length);
    return std::nullopt;
  }
  return slot;
}

void ParkedSlots::Give(uint32_t index, uint32_t length) {
  Punch(index, length);
  absl::MutexLock lock(&mutex_);
  bytes_ -= Pages(length);
  if (--taken_ > 0) {
    free_.push_back(index);
    return;
  }
  free_.clear();
  Store(used_, 0);
}

void ParkedSlots::ForEachUsed(absl::FunctionRef<void(Slot)> visit) const {
  const uint32_t used = Load(used_);
  for (uint32_t index = 0; index < used; ++index) visit(At(index));
}

void ParkedSlots::Adopt(absl::FunctionRef<uint32_t(Slot)> is_taken) {
  absl::MutexLock lock(&mutex_);
  free_.clear();
  taken_ = 0;
  bytes_ = 0;
  ForEachUsed([&](Slot slot) {
    mutex_.AssertHeld();
    const uint32_t length = is_taken(slot);
    if (length > 0) {
      ++taken_;
      bytes_ += Pages(length);
    } else {
      Punch(slot.index, kBigPayloadBytes);
      free_.push_back(slot.index);
    }
  });
  if (taken_ > 0) return;
  free_.clear();
  Store(used_, 0);
}

ParkedSlots::Usage ParkedSlots::GetUsage() const {
  absl::MutexLock lock(&mutex_);
  return {.slots = static_cast<int>(taken_), .bytes = bytes_};
}

}  // namespace dfscsi::state
