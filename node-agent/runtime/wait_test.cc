#include "node-agent/runtime/wait.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "node-agent/runtime/both_loops.h"

namespace dfscsi::runtime {
namespace {

constexpr absl::Duration kMoment = absl::Milliseconds(1);

class WaitTest : public BothLoopsTest {};
INSTANTIATE_ON_BOTH_LOOPS(WaitTest);

Deadline Soon() { return Deadline::After(absl::Seconds(20)); }

TEST_P(WaitTest, EventIsSeenByAllAndStaysSet) {
  any_.Run([]() -> Task<void> {
    Event event;
    int seen = 0;
    TaskGroup group;
    for (int i = 0; i < 3; ++i) {
      group.Spawn([](Event& e, int& n) -> Task<void> {
        EXPECT_TRUE((co_await e.WaitUntilSet(Soon())).ok());
        ++n;
      }(event, seen));
    }
    (void)co_await Sleep(kMoment, Soon());
    EXPECT_EQ(seen, 0);
    event.Set();
    EXPECT_TRUE((co_await group.WaitUntilEmpty(Soon())).ok());
    EXPECT_EQ(seen, 3);
    // Set already: at once, even with a deadline that is over or cancelled.
    EXPECT_TRUE((co_await event.WaitUntilSet(Deadline::After(-kMoment))).ok());
    event.Reset();
    const absl::Status status = co_await event.WaitUntilSet(Deadline::After(kMoment));
    EXPECT_TRUE(absl::IsDeadlineExceeded(status)) << status;
  }());
}

TEST_P(WaitTest, NotifyOneWakesInOrder) {
  any_.Run([]() -> Task<void> {
    Condition condition;
    std::string order;
    TaskGroup group;
    for (const char name : {'a', 'b', 'c'}) {
      group.Spawn([](Condition& c, std::string& out, char me) -> Task<void> {
        EXPECT_TRUE((co_await c.WaitForNotify(Soon())).ok());
        out += me;
      }(condition, order, name));
    }
    (void)co_await Sleep(kMoment, Soon());
    condition.NotifyOne();
    (void)co_await Sleep(kMoment, Soon());
    EXPECT_EQ(order, "a");
    condition.NotifyAll();
    EXPECT_TRUE((co_await group.WaitUntilEmpty(Soon())).ok());
    EXPECT_EQ(order, "abc");
    condition.NotifyAll();  // Nobody waits: nothing is remembered.
    EXPECT_FALSE((co_await condition.WaitForNotify(Deadline::After(kMoment))).ok());
  }());
}

TEST_P(WaitTest, SleepTellsItsEndFromItsDeadline) {
  any_.Run([]() -> Task<void> {
    EXPECT_TRUE((co_await Sleep(kMoment, Soon())).ok());
    EXPECT_TRUE((co_await Sleep(-kMoment, Soon())).ok());
    EXPECT_TRUE(
        absl::IsDeadlineExceeded(co_await Sleep(absl::Minutes(1), Deadline::After(kMoment))));
    CancelSource source;
    source.Cancel();
    EXPECT_TRUE(absl::IsCancelled(co_await Sleep(kMoment, source.deadline())));
  }());
}

// --- Cancellation

TEST_P(WaitTest, CancellationReachesChildrenAndNotParents) {
  any_.Run([]() -> Task<void> {
    CancelSource parent;
    CancelSource child(parent.deadline());
    CancelSource grandchild(child.deadline().Within(absl::Minutes(1)));
    child.Cancel();
    EXPECT_TRUE(grandchild.cancelled());
    EXPECT_TRUE(grandchild.deadline().cancelled());
    EXPECT_FALSE(parent.cancelled());
    EXPECT_TRUE((co_await Sleep(kMoment, parent.deadline())).ok());
    parent.Cancel();
    // A child of the cancelled is born cancelled.
    CancelSource late(parent.deadline());
    EXPECT_TRUE(late.cancelled());
  }());
}

TEST_P(WaitTest, ADeadlineOutlivesItsSource) {
  any_.Run([]() -> Task<void> {
    std::optional<CancelSource> parent(std::in_place);
    std::optional<CancelSource> child(std::in_place, parent->deadline());
    const Deadline deadline = child->deadline();
    child.reset();  // Does not cancel.
    EXPECT_FALSE(deadline.cancelled());
    parent->Cancel();
    EXPECT_TRUE(deadline.cancelled());
    parent.reset();
    EXPECT_TRUE(absl::IsCancelled(co_await Sleep(kMoment, deadline)));
  }());
}

TEST_P(WaitTest, CancelWakesEveryWaitUnderIt) {
  any_.Run([]() -> Task<void> {
    CancelSource source;
    int cancelled = 0;
    TaskGroup group;
    for (int i = 0; i < 100; ++i) {
      group.Spawn([](Deadline deadline, int& n) -> Task<void> {
        if (absl::IsCancelled(co_await Sleep(absl::Hours(1), deadline))) ++n;
        // What comes after waits as if nothing had been.
        EXPECT_TRUE((co_await Sleep(kMoment, Soon())).ok());
      }(i % 2 == 0 ? source.deadline() : CancelSource(source.deadline()).deadline(), cancelled));
    }
    (void)co_await Sleep(kMoment, Soon());
    source.Cancel();
    EXPECT_TRUE((co_await group.WaitUntilEmpty(Soon())).ok());
    EXPECT_EQ(cancelled, 100);
  }());
}

TEST_P(WaitTest, TheFirstEndOfAWaitCounts) {
  any_.Run([]() -> Task<void> {
    CancelSource source;
    Event event;
    std::optional<absl::Status> result;
    TaskGroup group;
    group.Spawn([](Event& e, Deadline deadline, std::optional<absl::Status>& out) -> Task<void> {
      out = co_await e.WaitUntilSet(deadline);
    }(event, source.deadline(), result));
    (void)co_await Sleep(kMoment, Soon());
    event.Set();
    source.Cancel();
    EXPECT_TRUE((co_await group.WaitUntilEmpty(Soon())).ok());
    EXPECT_TRUE(result.has_value() && result->ok());
  }());
}

// --- Mutex

Task<void> LockAndNote(Mutex& mutex, std::string& order, char name, absl::Duration hold) {
  auto guard = co_await mutex.Lock(Soon());
  EXPECT_TRUE(guard.ok());
  order += name;
  (void)co_await Sleep(hold, Soon());
}

TEST_P(WaitTest, MutexIsFirstComeFirstServed) {
  any_.Run([]() -> Task<void> {
    Mutex mutex;
    std::string order;
    TaskGroup group;
    for (const char name : {'a', 'b', 'c', 'd'}) {
      group.Spawn(LockAndNote(mutex, order, name, kMoment));
    }
    EXPECT_TRUE((co_await group.WaitUntilEmpty(Soon())).ok());
    EXPECT_EQ(order, "abcd");
    EXPECT_FALSE(mutex.locked());
  }());
}

// One who unlocks and locks again in the same turn must not keep the others waiting for ever.
TEST_P(WaitTest, MutexDoesNotStarveAWaiterBehindOneWhoComesOften) {
  any_.Run([]() -> Task<void> {
    Mutex mutex;
    bool stop = false;
    TaskGroup group;
    group.Spawn([](Mutex& m, bool& end) -> Task<void> {
      while (!end) {
        auto guard = co_await m.Lock(Soon());
        (void)co_await Sleep(absl::Microseconds(100), Soon());
      }
    }(mutex, stop));
    (void)co_await Sleep(kMoment, Soon());
    EXPECT_TRUE((co_await mutex.Lock(Deadline::After(absl::Seconds(5)))).ok());
    stop = true;
    EXPECT_TRUE((co_await group.WaitUntilEmpty(Soon())).ok());
  }());
}

// The guard was handed over, and in the same turn, before he could run, the new owner dies.
TEST_P(WaitTest, MutexHandedToADestroyedWaiterGoesToTheNext) {
  any_.Run([]() -> Task<void> {
    Mutex mutex;
    std::string order;
    TaskGroup survivors;
    {
      auto held = co_await mutex.Lock(Soon());
      auto doomed = std::make_unique<TaskGroup>();
      doomed->Spawn(LockAndNote(mutex, order, 'x', kMoment));
      (void)co_await Sleep(kMoment, Soon());
      survivors.Spawn(LockAndNote(mutex, order, 'y', kMoment));
      (void)co_await Sleep(kMoment, Soon());
      {
        auto released = *std::move(held);
      }  // x owns it now, but has not run.
      doomed.reset();
    }
    EXPECT_TRUE((co_await survivors.WaitUntilEmpty(Soon())).ok());
    EXPECT_EQ(order, "y");
    EXPECT_FALSE(mutex.locked());
  }());
}

TEST_P(WaitTest, MutexHandedToACancelledWaiterIsStillHis) {
  any_.Run([]() -> Task<void> {
    Mutex mutex;
    CancelSource source;
    bool locked = false;
    TaskGroup group;
    {
      auto held = co_await mutex.Lock(Soon());
      group.Spawn([](Mutex& m, Deadline deadline, bool& got) -> Task<void> {
        got = (co_await m.Lock(deadline)).ok();
      }(mutex, source.deadline(), locked));
      (void)co_await Sleep(kMoment, Soon());
      {
        auto released = *std::move(held);
      }
      source.Cancel();  // Too late: it was his before.
    }
    EXPECT_TRUE((co_await group.WaitUntilEmpty(Soon())).ok());
    EXPECT_TRUE(locked);
    EXPECT_FALSE(mutex.locked());
    EXPECT_TRUE((co_await mutex.Lock(Deadline::After(kMoment))).ok());
  }());
}

TEST_P(WaitTest, ACancelledWaiterLeavesTheMutexQueue) {
  any_.Run([]() -> Task<void> {
    Mutex mutex;
    CancelSource source;
    std::string order;
    TaskGroup group;
    auto held = co_await mutex.Lock(Soon());
    group.Spawn([](Mutex& m, Deadline deadline, std::string& out) -> Task<void> {
      if (!(co_await m.Lock(deadline)).ok()) out += '-';
    }(mutex, source.deadline(), order));
    (void)co_await Sleep(kMoment, Soon());
    group.Spawn(LockAndNote(mutex, order, 'y', kMoment));
    (void)co_await Sleep(kMoment, Soon());
    source.Cancel();
    (void)co_await Sleep(kMoment, Soon());
    {
      auto released = *std::move(held);
    }
    EXPECT_TRUE((co_await group.WaitUntilEmpty(Soon())).ok());
    EXPECT_EQ(order, "-y");
  }());
}

// --- TaskGroup

TEST_P(WaitTest, TaskGroupEndsItsTasksWithItself) {
  any_.Run([]() -> Task<void> {
    int ended = 0;
    int destroyed = 0;
    struct Count {
      int& n;
      ~Count() { ++n; }
    };
    {
      TaskGroup group;
      for (int i = 0; i < 10; ++i) {
        group.Spawn([](int seconds, int& finished, int& gone) -> Task<void> {
          const Count count{gone};
          (void)co_await Sleep(seconds * absl::Hours(1), Deadline::Never());
          ++finished;
        }(i % 2, ended, destroyed));
      }
      (void)co_await Sleep(kMoment, Soon());
      EXPECT_EQ(group.running(), 5);
      EXPECT_TRUE(
          absl::IsDeadlineExceeded(co_await group.WaitUntilEmpty(Deadline::After(kMoment))));
      group.Spawn([]() -> Task<void> { co_return; }());  // Dies before its first turn.
    }
    EXPECT_EQ(ended, 5);
    EXPECT_EQ(destroyed, 10);
  }());
}

// --- Timers, against a model

TEST_P(WaitTest, TimersFireInTheOrderOfAModel) {
  any_.Run([](bool real) -> Task<void> {
    SimRandom random(42);
    struct Entry {
      absl::Time when;
      int number;
      bool dropped;
    };
    std::vector<Entry> model;
    std::vector<int> fired;
    std::vector<std::unique_ptr<TaskGroup>> sleepers;
    const absl::Time start = Loop::Current().Now();
    // Coarse times, so that many are equal; half of the sleepers die before they wake.
    const absl::Duration step = real ? absl::Milliseconds(2) : absl::Seconds(1);
    for (int i = 0; i < 2000; ++i) {
      const absl::Time when =
          start + absl::Milliseconds(100) + step * static_cast<int64_t>(random.Below(50));
      model.push_back({when, i, false});
      sleepers.push_back(std::make_unique<TaskGroup>());
      sleepers.back()->Spawn([](absl::Time at, int number, std::vector<int>& out) -> Task<void> {
        Condition never;
        EXPECT_TRUE(absl::IsDeadlineExceeded(co_await never.WaitForNotify(Deadline::At(at))));
        out.push_back(number);
      }(when, i, fired));
    }
    (void)co_await Sleep(kMoment, Deadline::Never());
    for (Entry& entry : model) {
      if (random.Chance(0.5)) {
        entry.dropped = true;
        sleepers[static_cast<size_t>(entry.number)].reset();
      }
    }
    for (const auto& sleeper : sleepers) {
      if (sleeper != nullptr) {
        EXPECT_TRUE((co_await sleeper->WaitUntilEmpty(Deadline::Never())).ok());
      }
    }
    std::erase_if(model, [](const Entry& entry) { return entry.dropped; });
    std::sort(model.begin(), model.end(), [](const Entry& a, const Entry& b) {
      return std::tie(a.when, a.number) < std::tie(b.when, b.number);
    });
    std::vector<int> expected;
    for (const Entry& entry : model) expected.push_back(entry.number);
    EXPECT_EQ(fired, expected);
  }(any_.is_real()));
}

}  // namespace
}  // namespace dfscsi::runtime
