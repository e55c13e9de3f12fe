// The request arena: where every FUSE request of the node lies from the moment the kernel hands it
// out until it is answered.
//
// The kernel gives a request to a daemon once. If the daemon is killed after its read(2) and before
// its reply, the request is lost and the application hangs, unless somebody still has the bytes.
// Here they are read straight into memory that the mounter owns, so the next agent finds them, runs
// them again and answers with their own `unique`. It needs no help from the kernel
// (FUSE_NOTIFY_RESEND exists since 6.9 only).
//
// Memory. One memfd per node: a header page, then up to 16 steps of 8 MiB. The mounter touches and
// mlocks the header and the granted steps; an agent maps it all and populates the granted ones,
// because the kernel answers EIO when it is copying into a page that is not present while the
// reader is being killed (docs/adr/0003-request-arena.md has the figures). Behind the steps are the
// parked slots (parked_slots.h), which are not locked. A step is cut into slots of two sizes:
//   big    1 MiB + 8 KiB, page aligned: what the kernel insists on before it gives out any request;
//   small  1 KiB: nearly every request is far below that, and moves here at once, so that thousands
//   of
//          requests parked for a dead server cost 1 KiB each.
//
// The life of a slot, and what the next agent does with one it finds in that state:
//   free      -> reading   taken because the fd was readable, fuse_in_header zeroed first.
//                          Found: header still zero: nothing was delivered, the slot is free.
//                          Header set: read(2) had delivered the request; it is treated as filled.
//   reading   -> filled    the whole request is here. Found: run it.
//   filled    -> started   it may have changed something outside. Found: idempotent ones are run
//   again,
//                          others are verified on the server by their CreateGuid; a FORGET is
//                          dropped (its count may have been taken already; one too few only leaks a
//                          record).
//   filled, started -> acknowledged
//                          a WRITE is answered before its server has it; the answer is in the
//                          journal, and the request stays here until the server has it. Found: send
//                          the answer again, and run the WRITE, before any other request of the
//                          mount and without another answer.
//   started   -> done      the answer is in the journal. Found: send it. If the kernel already has
//   it, it says
//                          ENOENT, which is harmless.
//   any       -> free      answered.
// A small request is copied to a small slot, that slot is published as filled, and then the big one
// is freed: a death in between leaves two copies, and Adopt() keeps the small one (same mount and
// unique). So is a large one to a parked slot, where its mount has more than its share of the big
// ones. The order of the single stores stands at each function in request_arena.cc;
// request_arena_test.cc dies after every one of them.
//
// While an acknowledged slot exists the header says layout 3, which an agent that knows only 2 does
// not take over: it would run the WRITE beside requests that came after its answer. An agent that
// has mapped the arena before sees it in step 0's kind. Without such a slot the layout is 2.
//
// Who writes. One agent at a time, the active one: the mounter activates an agent only when its
// predecessor's connection has hung up, which is after all of its threads are gone. A standby maps
// and writes nothing. Within the agent any loop may call (one short mutex around the private free
// lists); one slot belongs to one loop, that of its mount.

#ifndef NODE_AGENT_STATE_REQUEST_ARENA_H_
#define NODE_AGENT_STATE_REQUEST_ARENA_H_

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/types/span.h"
#include "node-agent/state/parked_slots.h"
#include "node-agent/state/shared_memory.h"

namespace dfscsi::state {

inline constexpr uint32_t kArenaLayoutVersion = 2;
// While there are acknowledged slots.
inline constexpr uint32_t kArenaLayoutAcknowledged = 3;
inline constexpr uint64_t kArenaHeaderBytes = 4096;
inline constexpr uint64_t kArenaStepBytes = 8 << 20;
inline constexpr int kArenaSteps = 16;
inline constexpr uint64_t kArenaStepsEnd = kArenaHeaderBytes + kArenaSteps * kArenaStepBytes;
constexpr uint64_t ArenaStepOffset(int step) { return kArenaHeaderBytes + step * kArenaStepBytes; }

// The largest WRITE that INIT may agree on, and what /dev/fuse wants a reader to offer for it.
inline constexpr uint32_t kMaxWriteBytes = 1 << 20;
inline constexpr uint32_t kBigPayloadBytes = kMaxWriteBytes + 8192;
inline constexpr uint32_t kSmallPayloadBytes = 1024;
inline constexpr uint32_t kReplyJournalBytes =
    184;  // fuse_out_header + the reply to CREATE, and some more.
inline constexpr uint32_t kParkedSlots = 4096;

using Guid = std::array<uint8_t, 16>;

enum class SlotState : uint32_t {
  kFree = 0,
  kReading = 1,
  kFilled = 2,
  kStarted = 3,
  kDone = 4,
  kAcknowledged = 5,
};

// Shared layout. All fields but `state` are valid only as the state says.
struct SlotDescriptor {
  std::atomic<uint32_t> state;     // SlotState
  std::atomic<uint32_t> mount_id;  // From `reading` on.
  uint64_t unique;                 // This and the following: from `filled` on.
  uint32_t opcode;
  uint32_t length;
  uint32_t generation;  // Of the agent that read it: a request of an older one is being run again.
  uint32_t reserved;
  uint64_t arrived_ns;  // CLOCK_BOOTTIME, so that op_timeout goes on over a takeover.
  Guid create_guid;     // From `started` on; all zero for an operation that has none.
  int32_t error;        // From `done` or `acknowledged` on: 0 or a positive errno.
  uint32_t reply_length;
  uint64_t server;  // From `started` on: the key of the server it was sent to, or 0.
  char reply[kReplyJournalBytes];
};
static_assert(sizeof(SlotDescriptor) == 256 && std::is_standard_layout_v<SlotDescriptor>);

// Steps and parked slots.
inline constexpr uint64_t kArenaBytes =
    kArenaStepsEnd + kParkedSlots * (sizeof(SlotDescriptor) + uint64_t{kBigPayloadBytes});

// Names one slot; cheap to copy. Valid from ReadRequest() or Adopt() until Free().
class RequestSlot {
 public:
  RequestSlot() = default;
  explicit operator bool() const { return descriptor_ != nullptr; }

  SlotState state() const { return static_cast<SlotState>(Load(descriptor_->state)); }
  uint32_t mount_id() const { return Load(descriptor_->mount_id); }
  uint64_t unique() const { return descriptor_->unique; }
  uint32_t opcode() const { return descriptor_->opcode; }
  uint32_t generation() const { return descriptor_->generation; }
  uint64_t arrived_ns() const { return descriptor_->arrived_ns; }
  // The request as the kernel wrote it, fuse_in_header first; 8-byte aligned. libfuse works on it
  // in place.
  absl::Span<char> request() const { return {payload_, descriptor_->length}; }
  bool big() const { return place_ == Place::kBig; }
  bool parked() const { return place_ == Place::kParked; }

  const Guid& create_guid() const { return descriptor_->create_guid; }
  uint64_t server() const { return descriptor_->server; }
  int error() const { return descriptor_->error; }
  absl::Span<const char> reply() const { return {descriptor_->reply, descriptor_->reply_length}; }

  friend bool operator==(const RequestSlot& a, const RequestSlot& b) {
    return a.descriptor_ == b.descriptor_;
  }

 private:
  friend class RequestArena;
  enum class Place : uint8_t { kSmall, kBig, kParked };
  RequestSlot(SlotDescriptor* descriptor, char* payload, Place place)
      : descriptor_(descriptor), payload_(payload), place_(place) {}

  SlotDescriptor* descriptor_ = nullptr;
  char* payload_ = nullptr;
  Place place_ = Place::kSmall;
};

// What arrived_ns is counted by: CLOCK_BOOTTIME, but in simulated worlds (null: CLOCK_BOOTTIME
// again).
uint64_t ArenaNowNs();
void SetArenaClockForTest(uint64_t (*now_ns)());

class RequestArena {
 public:
  // kMixed: 6 big slots and 1,598 small ones. kSmall: 6,553 small ones, for many parked requests.
  enum class StepKind : uint32_t { kNone = 0, kMixed = 1, kSmall = 2 };

  // Big slots that the requests of one mount, and of all, keep: others are parked.
  static constexpr int kMostBigOfMount = 24;
  static constexpr int kMostBig = 72;

  // Maps the arena; writes nothing. For an agent that starts, active or not.
  // FailedPrecondition: not an arena, or of a layout that this program cannot read: do not take
  // over.
  static absl::StatusOr<std::unique_ptr<RequestArena>> Map(int fd);

  // Populates the steps of `granted` (bit i = step i) so that a standby has nothing left to do when
  // its time comes. Needs not be called: Adopt() does the same. Errors as SharedMemory::Populate.
  absl::Status Prepare(uint64_t granted);

  // Takes the arena over: the caller became the active agent, and its predecessor is dead. Rebuilds
  // the free lists and returns every request that was delivered and not freed, oldest first, each
  // exactly once, in state filled, started, acknowledged or done. Granted steps that were not in
  // use are cut as kMixed (step 0) or left for AddStep. To be called once, before the first
  // ReadRequest().
  absl::StatusOr<std::vector<RequestSlot>> Adopt(uint32_t generation, uint64_t granted);

  // Cuts a step that the mounter granted (STEP_GRANTED) into slots.
  absl::Status AddStep(int step, StepKind kind);
  // A step (never step 0) whose slots are all free is taken out of use, for RETURN_STEP; -1: there
  // is none. It is not used again before the mounter has answered: it may be punching it.
  int RemoveIdleStep();
  // The mounter took it back (STEP_REVOKED).
  void SetRevoked(int step);
  // The mounter has the steps of `granted`, and takes none back: it has refused to, or it is a new
  // one that was asked for nothing yet.
  void SetGranted(uint64_t granted);
  // The mounter keeps granted steps after an agent's death; those which are granted and not in use.
  uint64_t unused_steps() const;

  enum class ReadResult {
    kRequest,  // `slot` is set, in state filled.
    kEmpty,    // EAGAIN: wait until the fd is readable again.
    kNoSlot,   // All big slots are taken: ask for a step, or wait until one is freed; leave the fd
               // alone.
    kFull,     // The mount has its share of them, and no more can be parked: wait until a slot is
               // freed; a step would not help.
    kGone,     // ENODEV: the file system is unmounted; nothing will come from this fd any more.
    kFailed,   // Another errno, in `error`.
  };
  struct Read {
    ReadResult result;
    RequestSlot slot;
    int error = 0;
  };
  // One read(2) from a nonblocking /dev/fuse fd. Call when epoll says readable, until kEmpty. A
  // request that fits is moved to a small slot before this returns, and one that is too many to a
  // parked one.
  Read ReadRequest(int fuse_fd, uint32_t mount_id);
  // True if big slots are so few that a step is worth asking for.
  bool IsShort() const;
  // How much memory parked requests may take. Default: ParkedSlots::kDefaultLimitBytes.
  void SetParkedLimit(uint64_t bytes) { parked_.SetLimit(bytes); }

  // Before the first step that another agent must not simply repeat. `create_guid`: what the server
  // will know the operation by. Cheap enough for every request; idempotent ones need it not.
  // For what has no such name, it is the layer above's: an append keeps its offset there. `server`:
  // a key, of the layer above, of the server that it is sent to.
  // An acknowledged slot stays one.
  void MarkStarted(RequestSlot slot, const Guid& create_guid = {}, uint64_t server = 0);
  // The answer is about to be written to the fd, and the request goes on until its server has it.
  // `reply`: as of MarkDone. The slot is then given back by Free() alone.
  void MarkAcknowledged(RequestSlot slot, absl::Span<const char> reply);
  // The answer is known: before it is written to the fd. `reply` is the body (without
  // fuse_out_header), at most kReplyJournalBytes; a longer one (a READ's data) belongs to an
  // idempotent request, which needs none.
  void MarkDone(RequestSlot slot, int error, absl::Span<const char> reply);
  // The request is answered (after the write to the fd), or needs no answer.
  void Free(RequestSlot slot);
  // Frees all slots of a mount that is gone. No coroutine may use one of them any more.
  void FreeMount(uint32_t mount_id);

  struct Usage {
    int steps = 0;
    int big_total = 0, big_free = 0;
    int small_total = 0, small_free = 0;
    int acknowledged = 0;
    ParkedSlots::Usage parked;
  };
  Usage GetUsage() const;

 private:
  struct Header;
  struct Step;

  explicit RequestArena(SharedMemory memory);

  Header* header() const;
  Step CutStep(int step, StepKind kind) const;
  void AddToFreeLists(int step, StepKind kind, std::vector<RequestSlot>* found)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  RequestSlot Take(bool big);
  // Back to the free list: nothing was published in it.
  void GiveBack(RequestSlot slot);
  // Where a request of that length is to lie that was read into `big`: there, or a slot taken for
  // it.
  RequestSlot PlaceFor(RequestSlot big, uint32_t length, uint32_t mount_id);
  bool HasItsShare(uint32_t mount_id) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // A quarter of it: what it may have where all mounts together have theirs.
  bool HasASmallShare(uint32_t mount_id) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // It has, and nothing can be parked.
  bool IsFull(uint32_t mount_id) const;
  // It has, or too few big slots are left for reading.
  bool MustPark(uint32_t mount_id) const;
  // Says in the header whether there are acknowledged slots.
  void SetHoldsAcknowledged(bool holds) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // The slot is being freed, or is free.
  void NoteFreed(SlotState before);
  // Of a slot that a dead agent left: it holds a request, and is published as filled at least.
  bool Recover(RequestSlot slot, uint64_t now_ns);
  int StepOf(RequestSlot slot) const;

  const SharedMemory memory_;
  ParkedSlots parked_;
  uint32_t generation_ = 0;  // Constant after Adopt().

  mutable absl::Mutex mutex_;
  // Stacks: the slot used last is the one in the processor's cache.
  std::vector<RequestSlot> free_big_ ABSL_GUARDED_BY(mutex_);
  std::vector<RequestSlot> free_small_ ABSL_GUARDED_BY(mutex_);
  absl::flat_hash_map<uint32_t, int> big_of_mount_ ABSL_GUARDED_BY(mutex_);  // Not 0.
  int big_kept_ ABSL_GUARDED_BY(mutex_) = 0;  // By requests of all mounts.
  int acknowledged_ ABSL_GUARDED_BY(mutex_) = 0;
  struct StepUse {
    StepKind kind = StepKind::kNone;
    bool granted = false;
    bool returning = false;  // From RemoveIdleStep() until the mounter has answered.
    int taken = 0;           // Slots not in a free list.
  };
  std::array<StepUse, kArenaSteps> steps_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace dfscsi::state

#endif  // NODE_AGENT_STATE_REQUEST_ARENA_H_
