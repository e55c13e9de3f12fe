#include "node-agent/state/request_arena.h"

#include <errno.h>
#include <linux/fuse.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "node-agent/base/death_points.h"
#include "node-agent/base/status_macros.h"

namespace dfscsi::state {
namespace {

constexpr uint64_t kMagic = 0x616e657261736664;  // "dfsarena"
constexpr uint64_t kPageBytes = 4096;
constexpr uint64_t kSmallSlotBytes = sizeof(SlotDescriptor) + kSmallPayloadBytes;
static_assert(kBigPayloadBytes % kPageBytes == 0);
// In step 0's kind: no kind that an agent of layout 2 knows.
constexpr uint32_t kHoldsAcknowledged = 0x100;

struct Geometry {
  int big;
  int small;
};

constexpr Geometry GeometryOf(RequestArena::StepKind kind) {
  switch (kind) {
    case RequestArena::StepKind::kMixed:
      return {6, 1598};
    case RequestArena::StepKind::kSmall:
      return {0, 6553};
    case RequestArena::StepKind::kNone:
      break;
  }
  return {0, 0};
}

// In a step: the big slots' descriptors, the small slots (descriptor and payload together), at the
// end the big payloads, page aligned.
constexpr bool Fits(Geometry g) {
  return g.big * (sizeof(SlotDescriptor) + kBigPayloadBytes) + g.small * kSmallSlotBytes <=
         kArenaStepBytes;
}
static_assert(Fits(GeometryOf(RequestArena::StepKind::kMixed)));
static_assert(Fits(GeometryOf(RequestArena::StepKind::kSmall)));

uint64_t BoottimeNs() {
  timespec now;
  clock_gettime(CLOCK_BOOTTIME, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
}

uint64_t (*arena_clock)() = BoottimeNs;

fuse_in_header HeaderOf(const char* payload) {
  fuse_in_header header;
  memcpy(&header, payload, sizeof(header));
  return header;
}

uint32_t Capacity(RequestSlot slot) {
  return slot.big() || slot.parked() ? kBigPayloadBytes : kSmallPayloadBytes;
}

}  // namespace

uint64_t ArenaNowNs() { return arena_clock(); }

void SetArenaClockForTest(uint64_t (*now_ns)()) {
  arena_clock = now_ns == nullptr ? BoottimeNs : now_ns;
}

struct RequestArena::Header {
  std::atomic<uint64_t> magic;  // Stored last; 0: blank.
  std::atomic<uint32_t> layout_version;
  std::atomic<uint32_t> generation;
  std::atomic<uint32_t> kinds[kArenaSteps];  // StepKind, and kHoldsAcknowledged
  std::atomic<uint32_t> parked_used;         // ParkedSlots
};

// The slots of one step.
struct RequestArena::Step {
  char* start;
  Geometry geometry;

  RequestSlot Big(int i) const {
    char* payloads = start + kArenaStepBytes - geometry.big * uint64_t{kBigPayloadBytes};
    return RequestSlot(reinterpret_cast<SlotDescriptor*>(start) + i,
                       payloads + i * uint64_t{kBigPayloadBytes}, RequestSlot::Place::kBig);
  }
  RequestSlot Small(int i) const {
    char* slot = start + geometry.big * sizeof(SlotDescriptor) + i * kSmallSlotBytes;
    return RequestSlot(reinterpret_cast<SlotDescriptor*>(slot), slot + sizeof(SlotDescriptor),
                       RequestSlot::Place::kSmall);
  }
  // Small ones first, so that of two copies of a request the small one is met first.
  template <typename F>
  void ForEach(F visit) const {
    for (int i = 0; i < geometry.small; ++i) visit(Small(i));
    for (int i = 0; i < geometry.big; ++i) visit(Big(i));
  }
};

RequestArena::RequestArena(SharedMemory memory)
    : memory_(std::move(memory)), parked_(memory_, kArenaStepsEnd, header()->parked_used) {
  static_assert(sizeof(Header) <= kArenaHeaderBytes);
}

RequestArena::Header* RequestArena::header() const {
  return reinterpret_cast<Header*>(memory_.data());
}

RequestArena::Step RequestArena::CutStep(int step, StepKind kind) const {
  return {memory_.data() + ArenaStepOffset(step), GeometryOf(kind)};
}

int RequestArena::StepOf(RequestSlot slot) const {
  return static_cast<int>((slot.payload_ - memory_.data() - kArenaHeaderBytes) / kArenaStepBytes);
}

absl::StatusOr<std::unique_ptr<RequestArena>> RequestArena::Map(int fd) {
  ASSIGN_OR_RETURN(SharedMemory memory, SharedMemory::Map(fd, kArenaBytes));
  std::unique_ptr<RequestArena> arena(new RequestArena(std::move(memory)));
  const Header* header = arena->header();
  const uint64_t magic = Load(header->magic);
  if (magic == 0) return arena;  // Blank: the first Adopt() writes the header.
  const uint32_t layout = Load(header->layout_version);
  if (magic != kMagic || layout < kArenaLayoutVersion || layout > kArenaLayoutAcknowledged) {
    return absl::FailedPreconditionError(absl::StrCat("request arena of layout ", layout,
                                                      ", this program reads ", kArenaLayoutVersion,
                                                      " to ", kArenaLayoutAcknowledged));
  }
  return arena;
}

absl::Status RequestArena::Prepare(uint64_t granted) {
  RETURN_IF_ERROR(memory_.Populate(0, kArenaHeaderBytes));
  for (int step = 0; step < kArenaSteps; ++step) {
    if ((granted >> step & 1) == 0) continue;
    RETURN_IF_ERROR(memory_.Populate(ArenaStepOffset(step), kArenaStepBytes));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<RequestSlot>> RequestArena::Adopt(uint32_t generation,
                                                             uint64_t granted) {
  RETURN_IF_ERROR(Prepare(granted));
  Header* const head = header();
  if (Load(head->magic) == 0) {
    Store(head->layout_version, kArenaLayoutVersion);
    Store(head->magic, kMagic);
  }
  Store(head->generation, generation);
  generation_ = generation;

  std::vector<RequestSlot> found;
  absl::MutexLock lock(&mutex_);
  for (int step = 0; step < kArenaSteps; ++step) {
    steps_[step].granted = granted >> step & 1;
    StepKind kind = static_cast<StepKind>(Load(head->kinds[step]) & ~kHoldsAcknowledged);
    if (kind > StepKind::kSmall) {
      return absl::FailedPreconditionError("request arena: a step of an unknown kind");
    }
    if (kind == StepKind::kNone && step == 0 && steps_[0].granted) {
      kind = StepKind::kMixed;
      Store(head->kinds[0], static_cast<uint32_t>(kind));
    }
    if (kind != StepKind::kNone) AddToFreeLists(step, kind, &found);
  }
  const uint64_t now_ns = ArenaNowNs();
  parked_.Adopt([&](ParkedSlots::Slot parked) -> uint32_t {
    const RequestSlot slot(parked.descriptor, parked.payload, RequestSlot::Place::kParked);
    if (!Recover(slot, now_ns)) return 0;
    found.push_back(slot);
    return parked.descriptor->length;
  });

  // Two copies of one request: the agent died between publishing the small one and freeing the big
  // one.
  absl::flat_hash_map<std::pair<uint32_t, uint64_t>, bool> seen;
  std::vector<RequestSlot> unique;
  unique.reserve(found.size());
  for (const bool big : {false, true}) {
    for (RequestSlot slot : found) {
      if (slot.big() != big) continue;
      if (seen.emplace(std::pair(slot.mount_id(), slot.unique()), true).second) {
        unique.push_back(slot);
        if (big) {
          ++big_of_mount_[slot.mount_id()];
          ++big_kept_;
        }
        continue;
      }
      Store(slot.descriptor_->state, static_cast<uint32_t>(SlotState::kFree));
      --steps_[StepOf(slot)].taken;
      (big ? free_big_ : free_small_).push_back(slot);
    }
  }
  acknowledged_ =
      static_cast<int>(std::count_if(unique.begin(), unique.end(), [](const RequestSlot& slot) {
        return slot.state() == SlotState::kAcknowledged;
      }));
  // It may have died before it had said so, or after the last was free.
  SetHoldsAcknowledged(acknowledged_ > 0);
  std::sort(unique.begin(), unique.end(), [](const RequestSlot& a, const RequestSlot& b) {
    return std::pair(a.arrived_ns(), a.unique()) < std::pair(b.arrived_ns(), b.unique());
  });
  return unique;
}

// Of a slot in state `reading` only the payload and the mount id can be believed.
bool RequestArena::Recover(RequestSlot slot, uint64_t now_ns) {
  SlotDescriptor* const d = slot.descriptor_;
  const SlotState state = slot.state();
  if (state == SlotState::kFree) return false;
  const fuse_in_header request = HeaderOf(slot.payload_);
  const uint32_t length = state == SlotState::kReading ? request.len : d->length;
  // 0: nothing was delivered. Other lengths out of range: not written by us, nothing to be saved.
  if (length < sizeof(request) || length > Capacity(slot)) {
    Store(d->state, static_cast<uint32_t>(SlotState::kFree));
    return false;
  }
  if (state == SlotState::kReading) {
    Fill(d->unique, request.unique);
    Fill(d->opcode, request.opcode);
    Fill(d->length, length);
    Fill(d->generation, generation_);
    Fill(d->arrived_ns, now_ns);
    Fill(d->create_guid, Guid{});
    Store(d->state, static_cast<uint32_t>(SlotState::kFilled));
  }
  return true;
}

// Sorts the slots of a step into free ones and requests.
void RequestArena::AddToFreeLists(int step, StepKind kind, std::vector<RequestSlot>* found) {
  StepUse& use = steps_[step];
  std::vector<RequestSlot>& free_big = free_big_;
  std::vector<RequestSlot>& free_small = free_small_;
  const uint64_t now_ns = ArenaNowNs();
  use.kind = kind;
  CutStep(step, kind).ForEach([&](RequestSlot slot) {
    if (Recover(slot, now_ns)) {
      ++use.taken;
      found->push_back(slot);
    } else {
      (slot.big() ? free_big : free_small).push_back(slot);
    }
  });
}

absl::Status RequestArena::AddStep(int step, StepKind kind) {
  if (step < 0 || step >= kArenaSteps || kind == StepKind::kNone) {
    return absl::InvalidArgumentError("request arena: no such step");
  }
  RETURN_IF_ERROR(memory_.Populate(ArenaStepOffset(step), kArenaStepBytes));
  absl::MutexLock lock(&mutex_);
  steps_[step].granted = true;
  steps_[step].returning = false;
  if (steps_[step].kind != StepKind::kNone) return absl::OkStatus();
  // A step that comes back after its return was punched: all states are free. One that the last
  // agent took out of use and could not return has free states, too, but perhaps those of another
  // kind.
  CutStep(step, kind).ForEach([](RequestSlot slot) {
    Store(slot.descriptor_->state, static_cast<uint32_t>(SlotState::kFree));
  });
  Store(header()->kinds[step], static_cast<uint32_t>(kind));
  std::vector<RequestSlot> none;
  AddToFreeLists(step, kind, &none);
  return absl::OkStatus();
}

int RequestArena::RemoveIdleStep() {
  absl::MutexLock lock(&mutex_);
  for (int step = kArenaSteps - 1; step > 0; --step) {
    StepUse& use = steps_[step];
    if (use.kind == StepKind::kNone || use.taken != 0) continue;
    Store(header()->kinds[step], static_cast<uint32_t>(StepKind::kNone));
    use.kind = StepKind::kNone;
    use.returning = true;
    const auto in_step = [&](const RequestSlot& slot) { return StepOf(slot) == step; };
    std::erase_if(free_big_, in_step);
    std::erase_if(free_small_, in_step);
    return step;
  }
  return -1;
}

void RequestArena::SetRevoked(int step) {
  absl::MutexLock lock(&mutex_);
  if (step > 0 && step < kArenaSteps) steps_[step].granted = steps_[step].returning = false;
}

void RequestArena::SetGranted(uint64_t granted) {
  absl::MutexLock lock(&mutex_);
  for (int step = 0; step < kArenaSteps; ++step) {
    steps_[step].granted = granted >> step & 1;
    steps_[step].returning = false;
  }
}

uint64_t RequestArena::unused_steps() const {
  absl::MutexLock lock(&mutex_);
  uint64_t unused = 0;
  for (int step = 0; step < kArenaSteps; ++step) {
    const StepUse& use = steps_[step];
    if (use.granted && !use.returning && use.kind == StepKind::kNone) unused |= uint64_t{1} << step;
  }
  return unused;
}

RequestSlot RequestArena::Take(bool big) {
  absl::MutexLock lock(&mutex_);
  std::vector<RequestSlot>& free = big ? free_big_ : free_small_;
  if (free.empty()) return RequestSlot();
  const RequestSlot slot = free.back();
  free.pop_back();
  ++steps_[StepOf(slot)].taken;
  return slot;
}

bool RequestArena::HasItsShare(uint32_t mount_id) const {
  const auto kept = big_of_mount_.find(mount_id);
  return kept != big_of_mount_.end() && kept->second >= kMostBigOfMount;
}

bool RequestArena::HasASmallShare(uint32_t mount_id) const {
  const auto kept = big_of_mount_.find(mount_id);
  return kept != big_of_mount_.end() && kept->second >= kMostBigOfMount / 4;
}

bool RequestArena::IsFull(uint32_t mount_id) const {
  {
    absl::MutexLock lock(&mutex_);
    const bool scarce = big_kept_ >= kMostBig && HasASmallShare(mount_id);
    if (!scarce && !HasItsShare(mount_id)) return false;
  }
  return !parked_.HasRoom();
}

bool RequestArena::MustPark(uint32_t mount_id) const {
  absl::MutexLock lock(&mutex_);
  return free_big_.empty() || big_kept_ >= kMostBig || HasItsShare(mount_id);
}

bool RequestArena::IsShort() const {
  absl::MutexLock lock(&mutex_);
  return free_big_.empty() && big_kept_ < kMostBig;
}

RequestSlot RequestArena::PlaceFor(RequestSlot big, uint32_t length, uint32_t mount_id) {
  RequestSlot place;
  if (length <= kSmallPayloadBytes) {
    place = Take(/*big=*/false);
  } else if (MustPark(mount_id)) {
    if (const auto parked = parked_.Take(length); parked.has_value()) {
      place = RequestSlot(parked->descriptor, parked->payload, RequestSlot::Place::kParked);
    }
  }
  if (place) return place;
  absl::MutexLock lock(&mutex_);
  ++big_of_mount_[mount_id];
  ++big_kept_;
  return big;
}

// Stores: header zeroed, mount id, state = reading; read(2); then either
//   stays:  unique … arrived, state = filled;
//   moves:  the same and the bytes in the other slot, its state = filled, the big one's state =
//   free.
RequestArena::Read RequestArena::ReadRequest(int fuse_fd, uint32_t mount_id) {
  if (IsFull(mount_id)) return {ReadResult::kFull, {}};
  const RequestSlot slot = Take(/*big=*/true);
  if (!slot) return {ReadResult::kNoSlot, {}};
  SlotDescriptor* const d = slot.descriptor_;
  static constexpr char kZeros[sizeof(fuse_in_header)] = {};
  FillBytes(slot.payload_, kZeros, sizeof(kZeros));
  Store(d->mount_id, mount_id);
  Store(d->state, static_cast<uint32_t>(SlotState::kReading));

  ssize_t n;
  do {
    n = read(fuse_fd, slot.payload_, kBigPayloadBytes);
    // ENOENT: the request was interrupted while it was being handed out; there may be more.
  } while (n < 0 && (errno == EINTR || errno == ENOENT));
  StoreDone();  // The kernel's.
  if (n > 0) Pass(DeathPoint::kRequestDelivered);
  const int error = n < 0 ? errno : 0;
  if (n < static_cast<ssize_t>(sizeof(fuse_in_header))) {
    GiveBack(slot);
    if (error == EAGAIN) return {ReadResult::kEmpty, {}};
    if (error == ENODEV) return {ReadResult::kGone, {}};
    return {ReadResult::kFailed, {}, error == 0 ? EIO : error};
  }

  const fuse_in_header request = HeaderOf(slot.payload_);
  const uint32_t length = static_cast<uint32_t>(n);
  const RequestSlot target = PlaceFor(slot, length, mount_id);
  SlotDescriptor* const t = target.descriptor_;
  if (!target.big()) {
    FillBytes(target.payload_, slot.payload_, length);
    Store(t->mount_id, mount_id);
  }
  Fill(t->unique, request.unique);
  Fill(t->opcode, request.opcode);
  Fill(t->length, length);
  Fill(t->generation, generation_);
  Fill(t->arrived_ns, ArenaNowNs());
  Fill(t->create_guid, Guid{});
  Store(t->state, static_cast<uint32_t>(SlotState::kFilled));
  if (!target.big()) {
    Pass(DeathPoint::kRequestMoved);
    GiveBack(slot);
  }
  return {ReadResult::kRequest, target};
}

// Stores: the guid, the server, state = started.
void RequestArena::MarkStarted(RequestSlot slot, const Guid& create_guid, uint64_t server) {
  Fill(slot.descriptor_->create_guid, create_guid);
  Fill(slot.descriptor_->server, server);
  if (slot.state() == SlotState::kAcknowledged) return;
  Store(slot.descriptor_->state, static_cast<uint32_t>(SlotState::kStarted));
}

// Stores: no server, if there was none; error, length, reply; the header; state = acknowledged.
void RequestArena::MarkAcknowledged(RequestSlot slot, absl::Span<const char> reply) {
  if (reply.size() > kReplyJournalBytes) abort();
  SlotDescriptor* const d = slot.descriptor_;
  if (slot.state() == SlotState::kFilled) Fill(d->server, uint64_t{0});
  Fill(d->error, 0);
  Fill(d->reply_length, static_cast<uint32_t>(reply.size()));
  FillBytes(d->reply, reply.data(), reply.size());
  {
    absl::MutexLock lock(&mutex_);
    if (acknowledged_++ == 0) SetHoldsAcknowledged(true);
  }
  Store(d->state, static_cast<uint32_t>(SlotState::kAcknowledged));
}

// Only what differs is stored. Stores: layout, kind; or, where there are none, the other way round.
void RequestArena::SetHoldsAcknowledged(bool holds) {
  Header* const head = header();
  const uint32_t layout = holds ? kArenaLayoutAcknowledged : kArenaLayoutVersion;
  const uint32_t before = Load(head->kinds[0]);
  const uint32_t kind = holds ? before | kHoldsAcknowledged : before & ~kHoldsAcknowledged;
  if (holds && Load(head->layout_version) != layout) Store(head->layout_version, layout);
  if (before != kind) Store(head->kinds[0], kind);
  if (!holds && Load(head->layout_version) != layout) Store(head->layout_version, layout);
}

void RequestArena::NoteFreed(SlotState before) {
  if (before != SlotState::kAcknowledged) return;
  absl::MutexLock lock(&mutex_);
  if (--acknowledged_ == 0) SetHoldsAcknowledged(false);
}

// Stores: error, length, reply, state = done.
void RequestArena::MarkDone(RequestSlot slot, int error, absl::Span<const char> reply) {
  if (reply.size() > kReplyJournalBytes) abort();
  SlotDescriptor* const d = slot.descriptor_;
  Fill(d->error, error);
  Fill(d->reply_length, static_cast<uint32_t>(reply.size()));
  FillBytes(d->reply, reply.data(), reply.size());
  Store(d->state, static_cast<uint32_t>(SlotState::kDone));
}

void RequestArena::GiveBack(RequestSlot slot) {
  Store(slot.descriptor_->state, static_cast<uint32_t>(SlotState::kFree));
  absl::MutexLock lock(&mutex_);
  --steps_[StepOf(slot)].taken;
  (slot.big() ? free_big_ : free_small_).push_back(slot);
}

void RequestArena::Free(RequestSlot slot) {
  const SlotState before = slot.state();
  if (slot.parked()) {
    Store(slot.descriptor_->state, static_cast<uint32_t>(SlotState::kFree));
    NoteFreed(before);
    parked_.Give(parked_.IndexOf(slot.descriptor_), slot.descriptor_->length);
    return;
  }
  if (slot.big()) {
    absl::MutexLock lock(&mutex_);
    const auto kept = big_of_mount_.find(slot.mount_id());
    if (kept != big_of_mount_.end() && --kept->second == 0) big_of_mount_.erase(kept);
    --big_kept_;
  }
  GiveBack(slot);
  NoteFreed(before);
}

void RequestArena::FreeMount(uint32_t mount_id) {
  std::vector<RequestSlot> slots;
  {
    absl::MutexLock lock(&mutex_);
    for (int step = 0; step < kArenaSteps; ++step) {
      CutStep(step, steps_[step].kind).ForEach([&](RequestSlot slot) {
        if (slot.state() != SlotState::kFree && slot.mount_id() == mount_id) slots.push_back(slot);
      });
    }
  }
  parked_.ForEachUsed([&](ParkedSlots::Slot parked) {
    const RequestSlot slot(parked.descriptor, parked.payload, RequestSlot::Place::kParked);
    if (slot.state() != SlotState::kFree && slot.mount_id() == mount_id) slots.push_back(slot);
  });
  for (RequestSlot slot : slots) Free(slot);
}

RequestArena::Usage RequestArena::GetUsage() const {
  absl::MutexLock lock(&mutex_);
  Usage usage;
  for (const StepUse& use : steps_) {
    if (use.kind == StepKind::kNone) continue;
    ++usage.steps;
    usage.big_total += GeometryOf(use.kind).big;
    usage.small_total += GeometryOf(use.kind).small;
  }
  usage.big_free = static_cast<int>(free_big_.size());
  usage.small_free = static_cast<int>(free_small_.size());
  usage.acknowledged = acknowledged_;
  usage.parked = parked_.GetUsage();
  return usage;
}

}  // namespace dfscsi::state
