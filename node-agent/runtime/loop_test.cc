#include "node-agent/runtime/loop.h"

#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "node-agent/runtime/both_loops.h"

namespace dfscsi::runtime {
namespace {

// A loop whose time the test tells.
class ManualLoop final : public Loop {
 public:
  ~ManualLoop() override { DestroyRoots(); }
  Network& network() override { std::abort(); }
  uint64_t Random() override { return 4; }
  void RunBlocking(std::function<void()>, std::function<void()>) override { std::abort(); }

  void Turn(absl::Time outside, absl::Duration late) {
    MakeCurrent();
    SetTime(outside, late);
    FireTimers();
    while (RunReady()) {
    }
  }
};

const absl::Time kStart = absl::UnixEpoch() + absl::Hours(1);

TEST(LoopTest, ALateWakeMovesAllDeadlines) {
  ManualLoop loop;
  loop.Turn(kStart, absl::ZeroDuration());
  std::vector<int> fired;
  for (const int seconds : {1, 2}) {
    loop.Spawn([](int n, std::vector<int>& out) -> Task<void> {
      (void)co_await Sleep(absl::Seconds(n), Deadline::Never());
      out.push_back(n);
    }(seconds, fired));
  }
  loop.Turn(kStart, absl::ZeroDuration());
  // Ten seconds late: our own pause.
  loop.Turn(kStart + absl::Seconds(10.9), absl::Seconds(10));
  EXPECT_TRUE(fired.empty());
  EXPECT_EQ(loop.local_stalls(), 1);
  EXPECT_EQ(loop.local_stall_time(), absl::Seconds(10));
  EXPECT_EQ(loop.Now(), kStart + absl::Seconds(0.9));
  loop.Turn(kStart + absl::Seconds(11), absl::ZeroDuration());
  EXPECT_EQ(fired, std::vector<int>({1}));
  loop.Turn(kStart + absl::Seconds(12), absl::ZeroDuration());
  EXPECT_EQ(fired, std::vector<int>({1, 2}));
}

TEST(LoopTest, ALittleLateIsNoStall) {
  ManualLoop loop;
  loop.Turn(kStart, absl::ZeroDuration());
  loop.Turn(kStart + absl::Seconds(1), Loop::kStallThreshold);
  EXPECT_EQ(loop.local_stalls(), 0);
  EXPECT_EQ(loop.Now(), kStart + absl::Seconds(1));
}

TEST(LoopTest, TimeNeverGoesBack) {
  ManualLoop loop;
  loop.Turn(kStart, absl::ZeroDuration());
  loop.Turn(kStart - absl::Seconds(5), absl::ZeroDuration());
  EXPECT_EQ(loop.Now(), kStart);
}

TEST(SimLoopStallTest, APauseIsHiddenFromDeadlines) {
  AnyLoop any(LoopKind::kSimulated);
  auto& loop = static_cast<SimLoop&>(any.loop());
  absl::Time woke = absl::InfiniteFuture();
  loop.Spawn([](absl::Time& at) -> Task<void> {
    (void)co_await Sleep(absl::Seconds(1), Deadline::Never());
    (void)co_await Sleep(absl::Seconds(1), Deadline::Never());
    at = Loop::Current().Now();
  }(woke));
  const absl::Time start = any.world().now();
  any.world().After(absl::Seconds(0.5), [&] { loop.Stall(absl::Seconds(30)); });
  ASSERT_TRUE(
      any.world().RunUntil([&] { return woke != absl::InfiniteFuture(); }, absl::Minutes(2)));
  // 29.5 s of the pause made the loop late (its first timer was due at 1 s).
  EXPECT_EQ(loop.local_stalls(), 1);
  EXPECT_LT(absl::AbsDuration(loop.local_stall_time() - absl::Seconds(29.5)), absl::Seconds(0.1));
  EXPECT_LT(absl::AbsDuration(woke - start - absl::Seconds(2)), absl::Seconds(0.1));
  EXPECT_GT(any.world().now(), start + absl::Seconds(31));
}

TEST(SimLoopStallTest, APauseThatMissedNoTimerIsNoStall) {
  AnyLoop any(LoopKind::kSimulated);
  auto& loop = static_cast<SimLoop&>(any.loop());
  loop.Spawn([]() -> Task<void> { (void)co_await Sleep(absl::Minutes(1), Deadline::Never()); }());
  any.world().After(absl::Seconds(1), [&] { loop.Stall(absl::Seconds(30)); });
  any.world().RunFor(absl::Minutes(2));
  EXPECT_EQ(loop.local_stalls(), 0);
}

// What a test does to a process from outside may take away the timer that it waits for.
TEST(SimLoopStallTest, ATimerThatWasTakenAwayIsNoStall) {
  AnyLoop any(LoopKind::kSimulated);
  auto& loop = static_cast<SimLoop&>(any.loop());
  auto tasks = std::make_unique<TaskGroup>();
  loop.RunNow([&] {
    tasks->Spawn(
        []() -> Task<void> { (void)co_await Sleep(absl::Seconds(1), Deadline::Never()); }());
  });
  any.world().RunFor(absl::Seconds(0.5));
  loop.RunNow([&] { tasks.reset(); });
  any.world().RunFor(absl::Seconds(5));
  loop.Post([] {});
  any.world().RunFor(absl::Seconds(1));
  EXPECT_EQ(loop.local_stalls(), 0);
}

class FairnessTest : public BothLoopsTest {};
INSTANTIATE_ON_BOTH_LOOPS(FairnessTest);

// A group of coroutines that is always ready must not keep timers from their turn.
TEST_P(FairnessTest, ABusyGroupDoesNotStopTime) {
  any_.Run([]() -> Task<void> {
    Condition ping, pong;
    TaskGroup group;
    group.Spawn([](Condition& a, Condition& b) -> Task<void> {
      while (true) {
        b.NotifyAll();
        (void)co_await a.WaitForNotify(Deadline::Never());
      }
    }(ping, pong));
    group.Spawn([](Condition& a, Condition& b) -> Task<void> {
      while (true) {
        b.NotifyAll();
        (void)co_await a.WaitForNotify(Deadline::Never());
      }
    }(pong, ping));
    EXPECT_TRUE((co_await Sleep(absl::Milliseconds(20), Deadline::Never())).ok());
  }());
}

}  // namespace
}  // namespace dfscsi::runtime
