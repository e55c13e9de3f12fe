// Where the bytes of large requests wait whose server is away.
//
// The steps of the arena are locked memory, and few. A WRITE that waits for a dead server would
// keep one of their big slots, and a hundred such would stop every mount of the node. So beyond a
// share they move here: the last part of the arena's memfd, not locked (nothing but memcpy writes
// to it, so that no page of it needs to be present when a reader is killed) and sparse: each slot
// has room for the largest request, and as much memory as its request is long. The memory is
// charged to the agent's cgroup; SetLimit() bounds it.
//
//   descriptors of all slots, then their payloads, each of kBigPayloadBytes
//
// A slot here is published as filled, started, done or free as those of the steps are
// (request_arena.h); it is never `reading`. `used` is how many of the first slots may be anything
// but free: it grows before a slot is published, and goes back to 0 when all are free.

#ifndef NODE_AGENT_STATE_PARKED_SLOTS_H_
#define NODE_AGENT_STATE_PARKED_SLOTS_H_

#include <atomic>
#include <cstdint>
#include <optional>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "absl/synchronization/mutex.h"
#include "node-agent/state/shared_memory.h"

namespace dfscsi::state {

struct SlotDescriptor;

// Thread-safe. For RequestArena alone.
class ParkedSlots {
 public:
  static constexpr uint64_t kDefaultLimitBytes = uint64_t{1} << 30;

  // `memory` has the slots from `offset` on; `used` lies in it, too. Both must outlive this.
  ParkedSlots(const SharedMemory& memory, uint64_t offset, std::atomic<uint32_t>& used);

  void SetLimit(uint64_t bytes);
  // The greatest request could be parked.
  bool HasRoom() const;

  struct Slot {
    uint32_t index;
    SlotDescriptor* descriptor;
    char* payload;
  };
  // A free slot with memory for a request of that length. nullopt: none is free, the limit is
  // reached, or the system has no memory.
  std::optional<Slot> Take(uint32_t length);
  // Gives the memory back; the slot's state is free already. `length`: as it was taken with.
  void Give(uint32_t index, uint32_t length);
  uint32_t IndexOf(const SlotDescriptor* descriptor) const;
  // For the slots that may be in use. Not while another thread takes or gives.
  void ForEachUsed(absl::FunctionRef<void(Slot)> visit) const;

  // After a takeover, once for all: `is_taken` says of a slot how long its request is, 0: it is
  // free, and what a dead agent left in it is given back.
  void Adopt(absl::FunctionRef<uint32_t(Slot)> is_taken);

  struct Usage {
    int slots = 0;
    uint64_t bytes = 0;
  };
  Usage GetUsage() const;

 private:
  Slot At(uint32_t index) const;
  // Punches the first `length` bytes of a payload.
  void Punch(uint32_t index, uint32_t length) const;

  const SharedMemory& memory_;
  const uint64_t offset_;
  std::atomic<uint32_t>& used_;

  mutable absl::Mutex mutex_;
  uint64_t limit_bytes_ ABSL_GUARDED_BY(mutex_) = kDefaultLimitBytes;
  uint64_t bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  uint32_t taken_ ABSL_GUARDED_BY(mutex_) = 0;
  std::vector<uint32_t> free_ ABSL_GUARDED_BY(mutex_);  // Of the first `used`.
};

}  // namespace dfscsi::state

#endif  // NODE_AGENT_STATE_PARKED_SLOTS_H_
