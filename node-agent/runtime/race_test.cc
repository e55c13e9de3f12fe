#include "node-agent/runtime/race.h"

#include <gtest/gtest.h>

#include <condition_variable>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <vector>

#include "node-agent/runtime/blocking.h"
#include "node-agent/runtime/both_loops.h"

namespace dfscsi::runtime {
namespace {

using Racer = std::function<Task<absl::StatusOr<int>>(Deadline)>;

class RaceTest : public BothLoopsTest {};
INSTANTIATE_ON_BOTH_LOOPS(RaceTest);

Deadline Soon() { return Deadline::After(absl::Seconds(20)); }

Racer After(absl::Duration delay, absl::StatusOr<int> result) {
  return [delay, result](Deadline deadline) -> Task<absl::StatusOr<int>> {
    absl::Status slept = co_await Sleep(delay, deadline);
    if (!slept.ok()) co_return slept;
    co_return result;
  };
}

// The higher code tells more: enough for a test.
bool HigherCode(const absl::Status& a, const absl::Status& b) { return a.code() > b.code(); }

TEST_P(RaceTest, TheFirstToFailDoesNotWin) {
  any_.Run([]() -> Task<void> {
    std::vector<Racer> racers{After(absl::Milliseconds(1), absl::UnavailableError("refused")),
                              After(absl::Milliseconds(5), 2),
                              After(absl::Milliseconds(3), absl::PermissionDeniedError("no"))};
    const absl::StatusOr<int> won = co_await Race<int>(std::move(racers), HigherCode, Soon());
    EXPECT_TRUE(won.ok() && *won == 2) << won.status();
  }());
}

TEST_P(RaceTest, TheBestErrorIsReportedIfNobodyWins) {
  any_.Run([]() -> Task<void> {
    std::vector<Racer> racers{After(absl::Milliseconds(3), absl::InvalidArgumentError("3")),
                              After(absl::Milliseconds(1), absl::UnavailableError("14")),
                              After(absl::Milliseconds(2), absl::NotFoundError("5"))};
    const absl::StatusOr<int> won = co_await Race<int>(std::move(racers), HigherCode, Soon());
    EXPECT_TRUE(absl::IsUnavailable(won.status())) << won.status();
  }());
}

TEST_P(RaceTest, WithoutRacersThereIsAnError) {
  any_.Run([]() -> Task<void> {
    const absl::StatusOr<int> won = co_await Race<int>({}, HigherCode, Soon());
    EXPECT_TRUE(absl::IsInvalidArgument(won.status()));
  }());
}

TEST_P(RaceTest, AStaggeredRacerNeverStartsIfAnEarlierOneWins) {
  any_.Run([]() -> Task<void> {
    int started = 0;
    std::vector<Racer> racers{After(absl::Milliseconds(1), 1)};
    racers.push_back([&started](Deadline deadline) -> Task<absl::StatusOr<int>> {
      absl::Status slept = co_await Sleep(absl::Seconds(1), deadline);
      if (!slept.ok()) co_return slept;
      ++started;
      co_return 2;
    });
    EXPECT_TRUE((co_await Race<int>(std::move(racers), HigherCode, Soon())).ok());
    (void)co_await Sleep(absl::Milliseconds(5), Soon());
    EXPECT_EQ(started, 0);
  }());
}

// A loser may go on after the race; what its function captured must go on with it.
TEST_P(RaceTest, LosersKeepTheirCapturesAfterTheRace) {
  any_.Run([]() -> Task<void> {
    auto log = std::make_shared<std::string>();
    std::vector<Racer> racers{After(absl::Milliseconds(1), 1)};
    racers.push_back([log, text = std::string(100, 'x')](Deadline) -> Task<absl::StatusOr<int>> {
      // Deaf to its deadline, as something inside a library may be.
      (void)co_await Sleep(absl::Milliseconds(20), Deadline::Never());
      log->append(text);
      co_return 2;
    });
    EXPECT_EQ(*co_await Race<int>(std::move(racers), HigherCode, Soon()), 1);
    EXPECT_EQ(log->size(), 0u);
    (void)co_await Sleep(absl::Milliseconds(100), Soon());
    EXPECT_EQ(log->size(), 100u);
  }());
}

TEST_P(RaceTest, ARaceThatIsDestroyedCancelsItsRacers) {
  any_.Run([]() -> Task<void> {
    int cancelled = 0;
    {
      TaskGroup group;
      group.Spawn([](int& n) -> Task<void> {
        std::vector<Racer> racers;
        for (int i = 0; i < 3; ++i) {
          racers.push_back([&n](Deadline deadline) -> Task<absl::StatusOr<int>> {
            absl::Status status = co_await Sleep(absl::Hours(1), deadline);
            if (absl::IsCancelled(status)) ++n;
            co_return status;
          });
        }
        (void)co_await Race<int>(std::move(racers), HigherCode, Deadline::Never());
      }(cancelled));
      (void)co_await Sleep(absl::Milliseconds(1), Soon());
    }
    (void)co_await Sleep(absl::Milliseconds(1), Soon());
    EXPECT_EQ(cancelled, 3);
  }());
}

TEST_P(RaceTest, CancellationAndDeadlineEndARaceAtOnce) {
  any_.Run([]() -> Task<void> {
    const Racer deaf = [](Deadline) -> Task<absl::StatusOr<int>> {
      (void)co_await Sleep(absl::Hours(1), Deadline::Never());
      co_return 1;
    };
    EXPECT_TRUE(absl::IsDeadlineExceeded(
        (co_await Race<int>({deaf, deaf}, HigherCode, Deadline::After(absl::Milliseconds(2))))
            .status()));
    CancelSource source;
    TaskGroup group;
    group.Spawn([](CancelSource& s) -> Task<void> {
      (void)co_await Sleep(absl::Milliseconds(2), Soon());
      s.Cancel();
    }(source));
    EXPECT_TRUE(absl::IsCancelled(
        (co_await Race<int>({deaf, deaf}, HigherCode, source.deadline())).status()));
    // And the next wait works as ever.
    EXPECT_TRUE((co_await Sleep(absl::Milliseconds(1), Soon())).ok());
    EXPECT_EQ(*co_await Race<int>({After(absl::Milliseconds(1), 5)}, HigherCode, Soon()), 5);
  }());
}

TEST_P(RaceTest, ARacerThatThrowsHasLost) {
  any_.Run([]() -> Task<void> {
    const Racer throws = [](Deadline) -> Task<absl::StatusOr<int>> {
      throw std::runtime_error("escaped");
      co_return 1;
    };
    EXPECT_EQ(*co_await Race<int>({throws, After(absl::Milliseconds(1), 2)}, HigherCode, Soon()),
              2);
    EXPECT_TRUE(absl::IsInternal((co_await Race<int>({throws}, HigherCode, Soon())).status()));
  }());
  EXPECT_EQ(any_.loop().escaped_exceptions(), 2);
}

// --- Blocking

// Work that is stuck until told.
struct Gate {
  std::mutex mutex;
  std::condition_variable changed;
  bool open = false;
  int inside = 0;

  void Pass() {
    std::unique_lock lock(mutex);
    ++inside;
    changed.notify_all();
    changed.wait(lock, [this] { return open; });
  }
  void Open() {
    std::unique_lock lock(mutex);
    open = true;
    changed.notify_all();
  }
};

TEST_P(RaceTest, BlockingReturnsWhatTheWorkReturned) {
  any_.Run([]() -> Task<void> {
    EXPECT_EQ(*co_await Blocking<int>([] { return 7; }, Soon()), 7);
    EXPECT_TRUE(absl::IsNotFound(
        (co_await Blocking<int>([]() -> absl::StatusOr<int> { return absl::NotFoundError(""); },
                                Soon()))
            .status()));
  }());
}

TEST(RealBlockingTest, LosersStuckInBlockingWorkDelayNobody) {
  auto gate = std::make_shared<Gate>();
  {
    RealLoop loop;
    loop.RunUntilDone([](std::shared_ptr<Gate> g) -> Task<void> {
      const Racer stuck = [g](Deadline deadline) -> Task<absl::StatusOr<int>> {
        return Blocking<int>(
            [g]() -> absl::StatusOr<int> {
              g->Pass();
              return 1;
            },
            deadline);
      };
      EXPECT_EQ(
          *co_await Race<int>({stuck, stuck, After(absl::Milliseconds(2), 3)}, HigherCode, Soon()),
          3);
      // And other work finds a thread beside them.
      EXPECT_EQ(*co_await Blocking<int>([] { return 4; }, Soon()), 4);
    }(gate));
    EXPECT_FALSE(gate->open);
  }  // The loop's end does not wait for them either.
  gate->Open();
}

// Each piece of stuck work has a thread of its own, also when they are given away in one turn: a
// thread that has been woken and one that is free look alike.
TEST(RealBlockingTest, StuckWorkInOneTurnDoesNotQueueBehindItself) {
  auto gate = std::make_shared<Gate>();
  RealLoop loop;
  loop.RunUntilDone([](std::shared_ptr<Gate> g) -> Task<void> {
    (void)co_await Blocking<int>([] { return 0; }, Soon());  // One thread, soon idle.
    (void)co_await Sleep(absl::Milliseconds(20), Soon());
    TaskGroup group;
    for (int i = 0; i < 4; ++i) {
      group.Spawn([](std::shared_ptr<Gate> in) -> Task<void> {
        (void)co_await Blocking<int>(
            [in] {
              in->Pass();
              return 1;
            },
            Soon());
      }(g));
    }
    const absl::StatusOr<int> all = co_await Blocking<int>(
        [g]() -> absl::StatusOr<int> {
          std::unique_lock lock(g->mutex);
          g->changed.wait_for(lock, std::chrono::seconds(15), [&] { return g->inside == 4; });
          return g->inside;
        },
        Soon());
    EXPECT_EQ(*all, 4);
    g->Open();
    EXPECT_TRUE((co_await group.WaitUntilEmpty(Soon())).ok());
  }(gate));
}

TEST(SimBlockingTest, WorkTakesVirtualTimeAndMayBeStuck) {
  AnyLoop any(LoopKind::kSimulated);
  auto& loop = static_cast<SimLoop&>(any.loop());
  loop.set_blocking_time([] { return absl::Seconds(5); });
  any.Run([]() -> Task<void> {
    const absl::Time start = Loop::Current().Now();
    EXPECT_TRUE((co_await Blocking<int>([] { return 7; }, Soon())).ok());
    EXPECT_GE(Loop::Current().Now(), start + absl::Seconds(5));
  }());
  loop.set_blocking_time([] { return absl::InfiniteDuration(); });
  any.Run([]() -> Task<void> {
    EXPECT_TRUE(
        absl::IsDeadlineExceeded((co_await Blocking<int>([] { return 7; }, Soon())).status()));
  }());
}

}  // namespace
}  // namespace dfscsi::runtime
