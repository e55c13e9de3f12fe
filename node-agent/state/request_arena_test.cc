#include "node-agent/state/request_arena.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/fuse.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "node-agent/base/unique_fd.h"
#include "node-agent/state/store_deaths.h"

namespace dfscsi::state {
namespace {

using ReadResult = RequestArena::ReadResult;
using StepKind = RequestArena::StepKind;

constexpr uint32_t kMount = 7;

// The kernel's end of a /dev/fuse: hands out each request once, whole, and has no second copy.
class FakeDevice {
 public:
  FakeDevice() {
    int fds[2];
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
    device_.reset(fds[0]);
    kernel_.reset(fds[1]);
    const int bytes = 8 << 20;
    setsockopt(fds[1], SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof(bytes));
  }

  int fd() const { return device_.get(); }
  void Unmount() { kernel_.reset(); }

  void Queue(uint64_t unique, uint32_t opcode, uint32_t length) {
    const std::string request = Request(unique, opcode, length);
    ASSERT_EQ(send(kernel_.get(), request.data(), request.size(), 0),
              static_cast<ssize_t>(request.size()));
    pending_.insert(unique);
  }

  // Takes what nobody has read; the rest of what was queued was delivered.
  std::set<uint64_t> Undelivered() {
    std::set<uint64_t> uniques;
    std::string buffer(kBigPayloadBytes, 0);
    while (recv(device_.get(), buffer.data(), buffer.size(), 0) > 0) {
      fuse_in_header header;
      memcpy(&header, buffer.data(), sizeof(header));
      uniques.insert(header.unique);
    }
    return uniques;
  }
  const std::set<uint64_t>& queued() const { return pending_; }

  static std::string Request(uint64_t unique, uint32_t opcode, uint32_t length) {
    std::string request(length, static_cast<char>('a' + unique % 26));
    fuse_in_header header = {};
    header.len = length;
    header.opcode = opcode;
    header.unique = unique;
    memcpy(request.data(), &header, sizeof(header));
    return request;
  }

 private:
  UniqueFd device_, kernel_;
  std::set<uint64_t> pending_;
};

class RequestArenaTest : public testing::Test {
 protected:
  RequestArenaTest() : memory_(*CreateSharedMemory("test-arena", kArenaBytes)) {}

  std::unique_ptr<RequestArena> MapArena() {
    auto arena = RequestArena::Map(memory_.get());
    EXPECT_TRUE(arena.ok()) << arena.status();
    return *std::move(arena);
  }
  std::vector<RequestSlot> Adopt(RequestArena& arena) {
    auto found = arena.Adopt(++generation_, /*granted=*/1);
    EXPECT_TRUE(found.ok()) << found.status();
    return *std::move(found);
  }

  UniqueFd memory_;
  uint32_t generation_ = 0;
};

// What the previous agent answered is free or may be found once (its reply was on its way); what it
// did not answer is found exactly once; nothing else is found.
void CheckFound(const std::vector<RequestSlot>& found, FakeDevice& device,
                const std::set<uint64_t>& answered, const std::string& where) {
  const std::set<uint64_t> undelivered = device.Undelivered();
  std::map<uint64_t, int> times;
  for (RequestSlot slot : found) {
    ++times[slot.unique()];
    EXPECT_EQ(slot.mount_id(), kMount) << where;
    EXPECT_NE(slot.state(), SlotState::kReading) << where;
    EXPECT_EQ(std::string(slot.request().data(), slot.request().size()),
              FakeDevice::Request(slot.unique(), slot.opcode(), slot.request().size()))
        << where;
  }
  for (const uint64_t unique : device.queued()) {
    const int want = undelivered.contains(unique) ? 0 : 1;
    if (answered.contains(unique)) {
      EXPECT_LE(times[unique], 1) << where << " unique " << unique;
    } else {
      EXPECT_EQ(times[unique], want) << where << " unique " << unique;
    }
  }
  for (const auto& [unique, n] : times) EXPECT_TRUE(device.queued().contains(unique)) << where;
}

TEST_F(RequestArenaTest, AnEmptyArenaHasNothingToAdopt) {
  auto arena = MapArena();
  EXPECT_TRUE(Adopt(*arena).empty());
  const auto usage = arena->GetUsage();
  EXPECT_EQ(usage.steps, 1);
  EXPECT_EQ(usage.big_free, 6);
  EXPECT_EQ(usage.small_free, 1598);
}

TEST_F(RequestArenaTest, SmallRequestsMoveAndLargeOnesStay) {
  auto arena = MapArena();
  Adopt(*arena);
  FakeDevice device;
  device.Queue(2, FUSE_GETATTR, 56);
  device.Queue(4, FUSE_LOOKUP, kSmallPayloadBytes);
  device.Queue(6, FUSE_WRITE, kSmallPayloadBytes + 1);
  device.Queue(8, FUSE_WRITE, kMaxWriteBytes + 80);
  for (const uint64_t unique : {2, 4, 6, 8}) {
    const auto read = arena->ReadRequest(device.fd(), kMount);
    ASSERT_EQ(read.result, ReadResult::kRequest);
    EXPECT_EQ(read.slot.unique(), unique);
    EXPECT_EQ(read.slot.mount_id(), kMount);
    EXPECT_EQ(read.slot.big(), unique >= 6);
    EXPECT_EQ(read.slot.state(), SlotState::kFilled);
    const std::string bytes(read.slot.request().data(), read.slot.request().size());
    EXPECT_EQ(bytes, FakeDevice::Request(unique, read.slot.opcode(), read.slot.request().size()));
    EXPECT_EQ(reinterpret_cast<uintptr_t>(read.slot.request().data()) % 8, 0u);
  }
  EXPECT_EQ(arena->ReadRequest(device.fd(), kMount).result, ReadResult::kEmpty);
  EXPECT_EQ(arena->GetUsage().big_free, 4);
  EXPECT_EQ(arena->GetUsage().small_free, 1596);
  arena->FreeMount(kMount + 1);
  EXPECT_EQ(arena->GetUsage().big_free, 4);
  arena->FreeMount(kMount);
  EXPECT_EQ(arena->GetUsage().big_free, 6);
  EXPECT_EQ(arena->GetUsage().small_free, 1598);
}

TEST_F(RequestArenaTest, AFullArenaLeavesRequestsInTheKernel) {
  auto arena = MapArena();
  Adopt(*arena);
  arena->SetParkedLimit(0);
  FakeDevice device;
  std::vector<RequestSlot> slots;
  for (uint64_t unique = 2; unique <= 14; unique += 2) device.Queue(unique, FUSE_WRITE, 100'000);
  for (int i = 0; i < 6; ++i) slots.push_back(arena->ReadRequest(device.fd(), kMount).slot);
  EXPECT_EQ(arena->ReadRequest(device.fd(), kMount).result, ReadResult::kNoSlot);
  ASSERT_TRUE(arena->AddStep(3, StepKind::kMixed).ok());
  EXPECT_EQ(arena->ReadRequest(device.fd(), kMount).result, ReadResult::kRequest);
  for (RequestSlot slot : slots) arena->Free(slot);
  EXPECT_EQ(arena->GetUsage().big_total, 12);
}

TEST_F(RequestArenaTest, BigRequestsBeyondTheShareOfTheirMountAreParked) {
  auto arena = MapArena();
  Adopt(*arena);
  for (int step = 1; step < 6; ++step) ASSERT_TRUE(arena->AddStep(step, StepKind::kMixed).ok());
  FakeDevice device;
  std::vector<RequestSlot> slots;
  for (uint64_t i = 1; i <= 100; ++i) {
    device.Queue(2 * i, FUSE_WRITE, 100'000);
    const auto read = arena->ReadRequest(device.fd(), kMount);
    ASSERT_EQ(read.result, ReadResult::kRequest);
    EXPECT_EQ(read.slot.parked(), i > RequestArena::kMostBigOfMount) << i;
    slots.push_back(read.slot);
  }
  EXPECT_EQ(arena->GetUsage().big_free, 12);
  EXPECT_EQ(arena->GetUsage().parked.slots, 76);
  EXPECT_EQ(arena->GetUsage().parked.bytes, 76u * 102'400);
  // Another mount does not notice.
  device.Queue(1000, FUSE_WRITE, 100'000);
  const auto other = arena->ReadRequest(device.fd(), kMount + 1);
  EXPECT_TRUE(other.slot.big());
  arena->MarkStarted(slots[50], {1});
  arena->MarkDone(slots[60], EIO, "");
  arena->Free(slots[70]);

  auto next = MapArena();
  const auto found = next->Adopt(++generation_, /*granted=*/0x3f);
  ASSERT_TRUE(found.ok());
  ASSERT_EQ(found->size(), 100u);
  uint64_t unique = 0;
  for (const RequestSlot slot : *found) {
    unique += unique == 140 ? 4 : 2;
    if (slot.mount_id() != kMount) continue;
    ASSERT_EQ(slot.unique(), unique);
    EXPECT_EQ(std::string(slot.request().data(), slot.request().size()),
              FakeDevice::Request(unique, FUSE_WRITE, 100'000));
    EXPECT_EQ(slot.state(), unique == 102   ? SlotState::kStarted
                            : unique == 122 ? SlotState::kDone
                                            : SlotState::kFilled);
  }
  EXPECT_EQ(next->GetUsage().parked.slots, 75);
  // Its share is known, too.
  device.Queue(2000, FUSE_WRITE, 100'000);
  EXPECT_TRUE(next->ReadRequest(device.fd(), kMount).slot.parked());
  next->FreeMount(kMount);
  EXPECT_EQ(next->GetUsage().parked.slots, 0);
  EXPECT_EQ(next->GetUsage().parked.bytes, 0u);
  EXPECT_EQ(next->GetUsage().big_free, 35);
}

TEST_F(RequestArenaTest, ParkedRequestsGiveTheirMemoryBack) {
  const auto resident = [&] {
    struct stat st;
    EXPECT_EQ(fstat(memory_.get(), &st), 0);
    return st.st_blocks * 512;
  };
  auto arena = MapArena();
  Adopt(*arena);
  FakeDevice device;
  std::vector<RequestSlot> slots;
  const auto read = [&](uint64_t count) {
    for (uint64_t i = 1; i <= count; ++i) {
      device.Queue(2 * i, FUSE_WRITE, kMaxWriteBytes + 80);
      slots.push_back(arena->ReadRequest(device.fd(), kMount).slot);
    }
  };
  read(6);
  const auto before = resident();
  read(20);
  EXPECT_GE(resident() - before, 20 << 20);
  for (const RequestSlot slot : slots) arena->Free(slot);
  EXPECT_LE(resident() - before, 1 << 20);
  // What a dead agent had freed and not given back.
  slots.clear();
  read(26);
  for (const RequestSlot slot : slots) {
    if (!slot.parked()) continue;
    auto raw = SharedMemory::Map(memory_.get(), kArenaBytes);
    memset(raw->data() + kArenaStepsEnd, 0, sizeof(uint32_t));  // The first one: it is free.
    break;
  }
  EXPECT_GE(resident() - before, 20 << 20);
  auto next = MapArena();
  EXPECT_EQ(Adopt(*next).size(), 25u);
  EXPECT_LE(resident() - before, (20 << 20) + (1 << 18));
}

TEST_F(RequestArenaTest, AMountWithTooMuchParkedIsNotReadUntilSomethingIsAnswered) {
  auto arena = MapArena();
  Adopt(*arena);
  for (int step = 1; step < 8; ++step) ASSERT_TRUE(arena->AddStep(step, StepKind::kMixed).ok());
  arena->SetParkedLimit(3 * uint64_t{kBigPayloadBytes});
  FakeDevice device;
  std::vector<RequestSlot> slots;
  for (uint64_t unique = 2; unique < 200; unique += 2) {
    device.Queue(unique, FUSE_WRITE, kMaxWriteBytes + 80);
    const auto read = arena->ReadRequest(device.fd(), kMount);
    if (read.result == ReadResult::kFull) break;
    ASSERT_EQ(read.result, ReadResult::kRequest);
    slots.push_back(read.slot);
  }
  EXPECT_EQ(slots.size(), RequestArena::kMostBigOfMount + 3u);
  EXPECT_EQ(arena->ReadRequest(device.fd(), kMount).result, ReadResult::kFull);
  EXPECT_EQ(arena->ReadRequest(device.fd(), kMount + 1).result, ReadResult::kRequest);
  arena->Free(slots.back());
  device.Queue(300, FUSE_WRITE, 5000);
  EXPECT_TRUE(arena->ReadRequest(device.fd(), kMount).slot.parked());
}

TEST_F(RequestArenaTest, EightThousandParkedRequestsFitInTwoSteps) {
  auto arena = MapArena();
  Adopt(*arena);
  ASSERT_TRUE(arena->AddStep(1, StepKind::kSmall).ok());
  FakeDevice device;
  std::vector<RequestSlot> parked;
  for (uint64_t i = 1; i <= 8'000; ++i) {
    device.Queue(2 * i, FUSE_READ, 80);
    const auto read = arena->ReadRequest(device.fd(), kMount);
    ASSERT_EQ(read.result, ReadResult::kRequest);
    ASSERT_FALSE(read.slot.big());
    parked.push_back(read.slot);
  }
  EXPECT_EQ(arena->RemoveIdleStep(), -1);
  // The next agent finds them in the order of their arrival.
  arena = MapArena();
  auto found = arena->Adopt(2, /*granted=*/3);
  ASSERT_TRUE(found.ok());
  ASSERT_EQ(found->size(), 8'000u);
  for (size_t i = 0; i < found->size(); ++i) ASSERT_EQ((*found)[i].unique(), 2 * (i + 1));
  for (RequestSlot slot : *found) arena->Free(slot);
  EXPECT_EQ(arena->RemoveIdleStep(), 1);
  EXPECT_EQ(arena->GetUsage().steps, 1);
  EXPECT_EQ(arena->GetUsage().small_free, 1598);
}

// The mounter zeroes a step that it takes back, and the requests that lie in it by then.
TEST_F(RequestArenaTest, AStepThatIsBeingReturnedIsNotUsedAgainBeforeTheMounterHasAnswered) {
  auto arena = MapArena();
  Adopt(*arena);
  for (const int step : {1, 2}) ASSERT_TRUE(arena->AddStep(step, StepKind::kSmall).ok());
  ASSERT_EQ(arena->RemoveIdleStep(), 2);
  EXPECT_EQ(arena->unused_steps(), 0u);
  arena->SetRevoked(2);
  EXPECT_EQ(arena->unused_steps(), 0u);
  ASSERT_EQ(arena->RemoveIdleStep(), 1);
  EXPECT_EQ(arena->unused_steps(), 0u);
  // It did not take it back.
  arena->SetGranted(0b011);
  EXPECT_EQ(arena->unused_steps(), 0b010u);
  ASSERT_TRUE(arena->AddStep(1, StepKind::kMixed).ok());
  EXPECT_EQ(arena->GetUsage().steps, 2);
}

TEST_F(RequestArenaTest, ADeathAfterTakingAStepOutOfUseLeavesItUsableAsAnotherKind) {
  auto arena = MapArena();
  Adopt(*arena);
  ASSERT_TRUE(arena->AddStep(2, StepKind::kSmall).ok());
  FakeDevice device;
  device.Queue(2, FUSE_READ, 80);
  arena->Free(arena->ReadRequest(device.fd(), kMount).slot);
  ASSERT_EQ(arena->RemoveIdleStep(), 2);
  arena = MapArena();
  ASSERT_TRUE(arena->Adopt(2, /*granted=*/5).ok());
  EXPECT_EQ(arena->unused_steps(), 4u);
  ASSERT_TRUE(arena->AddStep(2, StepKind::kMixed).ok());
  EXPECT_EQ(arena->GetUsage().big_free, 12);
  EXPECT_EQ(arena->unused_steps(), 0u);
}

TEST_F(RequestArenaTest, TheJournalSurvives) {
  auto arena = MapArena();
  Adopt(*arena);
  FakeDevice device;
  for (const uint64_t unique : {2, 4, 6}) device.Queue(unique, FUSE_CREATE, 100);
  RequestSlot filled = arena->ReadRequest(device.fd(), kMount).slot;
  RequestSlot started = arena->ReadRequest(device.fd(), kMount).slot;
  RequestSlot done = arena->ReadRequest(device.fd(), kMount).slot;
  const Guid guid = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};
  const std::string reply(160, 'r');
  arena->MarkStarted(started, guid);
  arena->MarkStarted(done, guid);
  arena->MarkDone(done, ENOENT, reply);

  auto next = MapArena();
  const std::vector<RequestSlot> found = Adopt(*next);
  ASSERT_EQ(found.size(), 3u);
  EXPECT_EQ(found[0].unique(), filled.unique());
  EXPECT_EQ(found[0].state(), SlotState::kFilled);
  EXPECT_EQ(found[0].create_guid(), Guid{});
  EXPECT_EQ(found[0].generation(), 1u);
  EXPECT_EQ(found[1].state(), SlotState::kStarted);
  EXPECT_EQ(found[1].create_guid(), guid);
  EXPECT_EQ(found[2].state(), SlotState::kDone);
  EXPECT_EQ(found[2].error(), ENOENT);
  EXPECT_EQ(std::string(found[2].reply().data(), found[2].reply().size()), reply);
}

TEST_F(RequestArenaTest, AnAcknowledgedRequestStaysSoWhateverIsSentForIt) {
  auto arena = MapArena();
  Adopt(*arena);
  FakeDevice device;
  for (const uint64_t unique : {2, 4, 6}) device.Queue(unique, FUSE_WRITE, 5'000);
  const RequestSlot sent = arena->ReadRequest(device.fd(), kMount).slot;
  const RequestSlot unsent = arena->ReadRequest(device.fd(), kMount).slot;
  const RequestSlot before = arena->ReadRequest(device.fd(), kMount).slot;
  arena->MarkAcknowledged(sent, std::string("size"));
  arena->MarkStarted(sent, {}, 77);
  arena->MarkStarted(before, {}, 78);
  arena->MarkAcknowledged(before, std::string("size"));
  // What the slot was sent to in an earlier life is not this request's.
  arena->Free(unsent);
  device.Queue(8, FUSE_WRITE, 5'000);
  const RequestSlot used_before = arena->ReadRequest(device.fd(), kMount).slot;
  arena->MarkStarted(used_before, {}, 79);
  arena->Free(used_before);
  device.Queue(10, FUSE_WRITE, 5'000);
  const RequestSlot used_again = arena->ReadRequest(device.fd(), kMount).slot;
  ASSERT_EQ(used_again, used_before);
  arena->MarkAcknowledged(used_again, std::string("size"));
  EXPECT_EQ(arena->GetUsage().acknowledged, 3);

  auto next = MapArena();
  const std::vector<RequestSlot> found = Adopt(*next);
  ASSERT_EQ(found.size(), 3u);
  const uint64_t servers[] = {77, 78, 0};
  for (size_t i = 0; i < found.size(); ++i) {
    EXPECT_EQ(found[i].state(), SlotState::kAcknowledged);
    EXPECT_EQ(found[i].error(), 0);
    EXPECT_EQ(std::string(found[i].reply().data(), found[i].reply().size()), "size");
    EXPECT_EQ(found[i].server(), servers[i]);
  }
  EXPECT_EQ(next->GetUsage().acknowledged, 3);
  next->FreeMount(kMount);
  EXPECT_EQ(next->GetUsage().acknowledged, 0);
  EXPECT_EQ(next->GetUsage().big_free, 6);
}

// As an agent that knows layout 2 alone looks at the header: when it maps the arena, and, if it had
// mapped it before, when it adopts.
bool CanBeMappedByLayout2(const SharedMemory& raw) {
  uint32_t layout;
  memcpy(&layout, raw.data() + 8, sizeof(layout));
  return layout == 2;
}
bool CanBeAdoptedByLayout2(const SharedMemory& raw) {
  uint32_t kinds[kArenaSteps];
  memcpy(kinds, raw.data() + 16, sizeof(kinds));
  return std::all_of(std::begin(kinds), std::end(kinds),
                     [](uint32_t kind) { return kind <= static_cast<uint32_t>(StepKind::kSmall); });
}

TEST_F(RequestArenaTest, AnAgentOfLayout2TakesOverWhatHasNoAcknowledgedRequest) {
  auto arena = MapArena();
  Adopt(*arena);
  const auto raw = SharedMemory::Map(memory_.get(), kArenaBytes);
  ASSERT_TRUE(raw.ok());
  const auto expect = [&](bool can) {
    EXPECT_EQ(CanBeMappedByLayout2(*raw), can);
    EXPECT_EQ(CanBeAdoptedByLayout2(*raw), can);
  };
  expect(true);
  FakeDevice device;
  for (const uint64_t unique : {2, 4, 6}) device.Queue(unique, FUSE_WRITE, 5'000);
  const RequestSlot first = arena->ReadRequest(device.fd(), kMount).slot;
  const RequestSlot second = arena->ReadRequest(device.fd(), kMount).slot;
  const RequestSlot other = arena->ReadRequest(device.fd(), kMount).slot;
  expect(true);
  arena->MarkAcknowledged(first, {});
  expect(false);
  arena->MarkAcknowledged(second, {});
  arena->Free(first);
  arena->Free(other);
  expect(false);
  // This program reads both.
  auto next = MapArena();
  const std::vector<RequestSlot> found = Adopt(*next);
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(next->GetUsage().big_total, 6);
  expect(false);
  next->Free(found[0]);
  expect(true);
  auto last = MapArena();
  EXPECT_TRUE(Adopt(*last).empty());
  EXPECT_EQ(last->GetUsage().big_total, 6);
}

TEST_F(RequestArenaTest, DeathAfterEveryStoreOfAcknowledging) {
  const auto raw = SharedMemory::Map(memory_.get(), kArenaBytes);
  ASSERT_TRUE(raw.ok());
  bool ended = false;
  int seen_acknowledged = 0;
  for (long stores = 0; !ended; ++stores) {
    auto arena = MapArena();
    for (RequestSlot slot : Adopt(*arena)) arena->Free(slot);
    FakeDevice device;
    device.Queue(2, FUSE_WRITE, 5'000);
    device.Queue(4, FUSE_WRITE, 5'000);
    std::set<uint64_t> freed, acknowledged;
    ended = RunUntilStore(stores, [&] {
      const RequestSlot first = arena->ReadRequest(device.fd(), kMount).slot;
      const RequestSlot second = arena->ReadRequest(device.fd(), kMount).slot;
      for (const RequestSlot slot : {first, second}) {
        arena->MarkAcknowledged(slot, std::string("size"));
        acknowledged.insert(slot.unique());
        arena->MarkStarted(slot, {}, 77);
      }
      freed.insert(2);
      arena->Free(first);
      freed.insert(4);
      arena->Free(second);
    });
    const bool readable = CanBeMappedByLayout2(*raw) && CanBeAdoptedByLayout2(*raw);
    auto next = MapArena();
    const std::vector<RequestSlot> found = Adopt(*next);
    const std::string where = "store " + std::to_string(stores);
    CheckFound(found, device, freed, where);
    int count = 0;
    for (const RequestSlot slot : found) {
      const bool is = slot.state() == SlotState::kAcknowledged;
      count += is ? 1 : 0;
      if (acknowledged.contains(slot.unique())) {
        EXPECT_TRUE(is) << where;
        EXPECT_EQ(slot.reply().size(), 4u) << where;
      }
    }
    // Never is one left to an agent that does not know what it is.
    if (count > 0) EXPECT_FALSE(readable) << where;
    EXPECT_EQ(next->GetUsage().acknowledged, count) << where;
    EXPECT_EQ(CanBeMappedByLayout2(*raw), count == 0) << where;
    EXPECT_EQ(CanBeAdoptedByLayout2(*raw), count == 0) << where;
    seen_acknowledged = std::max(seen_acknowledged, count);
    if (HasFailure()) return;
  }
  EXPECT_EQ(seen_acknowledged, 2);
}

TEST_F(RequestArenaTest, AnUnmountedDeviceIsGoneAndHoldsNoSlot) {
  // A real /dev/fuse says ENODEV; a closed socket says end of file, which no device does.
  auto arena = MapArena();
  Adopt(*arena);
  FakeDevice device;
  device.Unmount();
  const auto read = arena->ReadRequest(device.fd(), kMount);
  EXPECT_EQ(read.result, ReadResult::kFailed);
  EXPECT_EQ(read.error, EIO);
  EXPECT_EQ(arena->GetUsage().big_free, 6);
}

TEST_F(RequestArenaTest, RefusesWhatItCannotRead) {
  EXPECT_FALSE(RequestArena::Map(-1).ok());
  UniqueFd small = *CreateSharedMemory("small", 4096);
  EXPECT_EQ(RequestArena::Map(small.get()).status().code(), absl::StatusCode::kFailedPrecondition);
  auto arena = MapArena();
  Adopt(*arena);
  auto raw = SharedMemory::Map(memory_.get(), kArenaBytes);
  raw->data()[8] ^= 0x40;  // The layout version.
  EXPECT_EQ(RequestArena::Map(memory_.get()).status().code(),
            absl::StatusCode::kFailedPrecondition);
}

TEST_F(RequestArenaTest, DeathAfterEveryStore) {
  bool ended = false;
  long stores = 0;
  for (; !ended; ++stores) {
    // Each round on the arena that the rounds before it left behind.
    auto arena = MapArena();
    for (RequestSlot slot : Adopt(*arena)) arena->Free(slot);
    FakeDevice device;
    std::set<uint64_t> answered;
    device.Queue(2, FUSE_LOOKUP, 60);
    device.Queue(4, FUSE_WRITE, 5'000);
    device.Queue(6, FUSE_MKDIR, 80);
    device.Queue(8, FUSE_GETATTR, 56);
    ended = RunUntilStore(stores, [&] {
      const RequestSlot lookup = arena->ReadRequest(device.fd(), kMount).slot;
      const RequestSlot write = arena->ReadRequest(device.fd(), kMount).slot;
      answered.insert(2);
      arena->Free(lookup);
      const RequestSlot mkdir = arena->ReadRequest(device.fd(), kMount).slot;
      arena->MarkStarted(mkdir, Guid{9});
      arena->MarkDone(mkdir, 0, "reply");
      answered.insert(6);
      arena->Free(mkdir);
      const RequestSlot getattr = arena->ReadRequest(device.fd(), kMount).slot;
      EXPECT_EQ(arena->ReadRequest(device.fd(), kMount).result, ReadResult::kEmpty);
      answered.insert(4);
      arena->Free(write);
      answered.insert(8);
      arena->Free(getattr);
    });
    auto next = MapArena();
    const std::vector<RequestSlot> found = Adopt(*next);
    CheckFound(found, device, answered, "store " + std::to_string(stores));
    EXPECT_EQ(next->GetUsage().big_free + next->GetUsage().small_free + int(found.size()), 1604);
    if (HasFailure()) return;
  }
  EXPECT_GT(stores, 60);
}

TEST_F(RequestArenaTest, DeathAfterEveryStoreOfParking) {
  bool ended = false;
  int most_parked = 0;
  for (long stores = 0; !ended; ++stores) {
    auto arena = MapArena();
    for (RequestSlot slot : Adopt(*arena)) arena->Free(slot);
    FakeDevice device;
    std::set<uint64_t> answered;
    for (uint64_t unique = 2; unique <= 16; unique += 2) device.Queue(unique, FUSE_WRITE, 5'000);
    ended = RunUntilStore(stores, [&] {
      std::vector<RequestSlot> slots;
      for (int i = 0; i < 8; ++i) slots.push_back(arena->ReadRequest(device.fd(), kMount).slot);
      for (const RequestSlot slot : slots) {
        arena->MarkDone(slot, 0, "reply");
        answered.insert(slot.unique());
        arena->Free(slot);
      }
    });
    auto next = MapArena();
    const std::vector<RequestSlot> found = Adopt(*next);
    CheckFound(found, device, answered, "store " + std::to_string(stores));
    int parked = 0, big = 0;
    for (const RequestSlot slot : found) (slot.parked() ? parked : big) += 1;
    EXPECT_EQ(next->GetUsage().parked.slots, parked);
    EXPECT_EQ(next->GetUsage().parked.bytes, parked * 8192u);
    EXPECT_EQ(next->GetUsage().big_free + big, 6);
    most_parked = std::max(most_parked, parked);
    if (HasFailure()) return;
  }
  EXPECT_EQ(most_parked, 3);
}

TEST_F(RequestArenaTest, DeathDuringAdoption) {
  for (long stores = 0;; ++stores) {
    auto arena = MapArena();
    for (RequestSlot slot : Adopt(*arena)) arena->Free(slot);
    FakeDevice device;
    device.Queue(2, FUSE_LOOKUP, 60);
    device.Queue(4, FUSE_GETATTR, 56);
    arena->ReadRequest(device.fd(), kMount);
    // Dies between the publication of the small copy and the release of the big one.
    const bool done = RunUntilStore(14, [&] { arena->ReadRequest(device.fd(), kMount); });
    ASSERT_FALSE(done);
    bool ended = RunUntilStore(stores, [&] { (void)MapArena()->Adopt(++generation_, 1); });
    auto next = MapArena();
    CheckFound(Adopt(*next), device, {}, "store " + std::to_string(stores));
    if (HasFailure()) return;
    if (ended) break;
  }
}

TEST_F(RequestArenaTest, RandomDeaths) {
  std::mt19937 random(1);
  uint64_t unique = 0;
  for (int life = 0; life < 400 && !HasFailure(); ++life) {
    auto arena = MapArena();
    std::vector<RequestSlot> open = Adopt(*arena);
    FakeDevice device;
    for (RequestSlot slot : open) arena->Free(slot);
    open.clear();
    std::set<uint64_t> answered;
    RunUntilStore(random() % 600, [&] {
      for (;;) {
        switch (random() % 6) {
          case 0:
          case 1: {
            device.Queue(unique += 2, FUSE_READ, random() % 8 == 0 ? 4'000 : 80);
            const auto read = arena->ReadRequest(device.fd(), kMount);
            if (read.result == ReadResult::kRequest) open.push_back(read.slot);
            break;
          }
          case 2:
            if (!open.empty()) arena->MarkStarted(open[random() % open.size()]);
            break;
          case 3:
            if (!open.empty() && open.back().state() != SlotState::kAcknowledged) {
              arena->MarkDone(open.back(), 0, "x");
            }
            break;
          case 4: {
            const auto is_new = [](const RequestSlot& slot) {
              return slot.state() == SlotState::kFilled || slot.state() == SlotState::kStarted;
            };
            const auto one = std::find_if(open.begin(), open.end(), is_new);
            if (one != open.end()) arena->MarkAcknowledged(*one, std::string("y"));
            break;
          }
          default:
            if (open.empty()) break;
            std::swap(open[random() % open.size()], open.back());
            const RequestSlot slot = open.back();
            open.pop_back();
            answered.insert(slot.unique());
            arena->Free(slot);
        }
      }
    });
    auto next = MapArena();
    CheckFound(Adopt(*next), device, answered, "life " + std::to_string(life));
  }
}

}  // namespace
}  // namespace dfscsi::state
