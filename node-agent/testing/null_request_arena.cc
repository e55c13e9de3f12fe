// A RequestArena that keeps nothing: private memory, no states, no journal. An agent that is linked
// with it loses its requests when it dies. Linked *instead* of the real one: it defines that
// class's members. For `e2e/bench.py cost`, which says what the real one costs; a program of its
// own, so that no option of the real agent leads here.

#include <errno.h>
#include <linux/fuse.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include <memory>
#include <new>

#include "node-agent/base/status_macros.h"
#include "node-agent/state/request_arena.h"

namespace dfscsi::state {
namespace {

constexpr int kSlots = 64;
constexpr size_t kAlignment = 4096;

uint64_t BoottimeNs() {
  timespec now;
  clock_gettime(CLOCK_BOOTTIME, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
}

}  // namespace

uint64_t ArenaNowNs() { return BoottimeNs(); }
void SetArenaClockForTest(uint64_t (*)()) {}

struct RequestArena::Header {
  std::atomic<uint64_t> magic;
  std::atomic<uint32_t> layout_version;
  std::atomic<uint32_t> generation;
  std::atomic<uint32_t> kinds[kArenaSteps];
  std::atomic<uint32_t> parked_used;
};

RequestArena::Header* RequestArena::header() const {
  return reinterpret_cast<Header*>(memory_.data());
}

RequestArena::RequestArena(SharedMemory memory)
    : memory_(std::move(memory)), parked_(memory_, kArenaStepsEnd, header()->parked_used) {}

absl::StatusOr<std::unique_ptr<RequestArena>> RequestArena::Map(int fd) {
  ASSIGN_OR_RETURN(SharedMemory memory, SharedMemory::Map(fd, kArenaBytes));
  return std::unique_ptr<RequestArena>(new RequestArena(std::move(memory)));
}

absl::Status RequestArena::Prepare(uint64_t) { return absl::OkStatus(); }

// All of its memory, until the process ends.
absl::StatusOr<std::vector<RequestSlot>> RequestArena::Adopt(uint32_t, uint64_t)
    ABSL_NO_THREAD_SAFETY_ANALYSIS {
  for (int i = 0; i < kSlots; ++i) {
    auto* const payload = static_cast<char*>(aligned_alloc(kAlignment, kBigPayloadBytes));
    if (payload == nullptr) return absl::ResourceExhaustedError("no memory");
    free_big_.push_back(RequestSlot(new SlotDescriptor(), payload, RequestSlot::Place::kBig));
  }
  return std::vector<RequestSlot>();
}

absl::Status RequestArena::AddStep(int, StepKind) { return absl::OkStatus(); }
int RequestArena::RemoveIdleStep() { return -1; }
void RequestArena::SetRevoked(int) {}
void RequestArena::SetGranted(uint64_t) {}
uint64_t RequestArena::unused_steps() const { return 0; }
bool RequestArena::IsShort() const { return false; }

// Straight to where it stays.
RequestArena::Read RequestArena::ReadRequest(int fuse_fd,
                                             uint32_t mount_id) ABSL_NO_THREAD_SAFETY_ANALYSIS {
  if (free_big_.empty()) return {ReadResult::kNoSlot, {}};
  const RequestSlot slot = free_big_.back();
  ssize_t n;
  do {
    n = read(fuse_fd, slot.payload_, kBigPayloadBytes);
  } while (n < 0 && (errno == EINTR || errno == ENOENT));
  if (n < static_cast<ssize_t>(sizeof(fuse_in_header))) {
    if (n < 0 && errno == EAGAIN) return {ReadResult::kEmpty, {}};
    if (n < 0 && errno == ENODEV) return {ReadResult::kGone, {}};
    return {ReadResult::kFailed, {}, n < 0 ? errno : EIO};
  }
  free_big_.pop_back();
  const auto& request = *reinterpret_cast<const fuse_in_header*>(slot.payload_);
  SlotDescriptor& d = *slot.descriptor_;
  d.state.store(static_cast<uint32_t>(SlotState::kFilled), std::memory_order_relaxed);
  d.mount_id.store(mount_id, std::memory_order_relaxed);
  d.unique = request.unique;
  d.opcode = request.opcode;
  d.length = static_cast<uint32_t>(n);
  d.arrived_ns = BoottimeNs();
  return {ReadResult::kRequest, slot};
}

void RequestArena::MarkStarted(RequestSlot, const Guid&, uint64_t) {}
void RequestArena::MarkAcknowledged(RequestSlot, absl::Span<const char>) {}
void RequestArena::MarkDone(RequestSlot, int, absl::Span<const char>) {}

void RequestArena::Free(RequestSlot slot) ABSL_NO_THREAD_SAFETY_ANALYSIS {
  free_big_.push_back(slot);
}

void RequestArena::FreeMount(uint32_t) {}

RequestArena::Usage RequestArena::GetUsage() const ABSL_NO_THREAD_SAFETY_ANALYSIS {
  const int free = static_cast<int>(free_big_.size());
  return {.steps = 0, .big_total = kSlots, .big_free = free, .small_total = 1, .small_free = 1};
}

}  // namespace dfscsi::state
