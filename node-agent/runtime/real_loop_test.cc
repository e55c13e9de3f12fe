#include "node-agent/runtime/real_loop.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "node-agent/base/unique_fd.h"

namespace dfscsi::runtime {
namespace {

Deadline Soon() { return Deadline::After(absl::Seconds(20)); }

struct Pair {
  Pair() {
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) != 0) abort();
    a.reset(ends[0]);
    b.reset(ends[1]);
  }
  UniqueFd a;
  UniqueFd b;
};

// --- FdWatch

TEST(FdWatchTest, SeesEveryChance) {
  RealLoop loop;
  loop.RunUntilDone([](RealLoop& on) -> Task<void> {
    Pair pair;
    const std::unique_ptr<FdWatch> watch = on.Watch(pair.a.get());
    for (int i = 0; i < 100; ++i) {
      EXPECT_EQ(write(pair.b.get(), "x", 1), 1);
      char byte;
      while (read(pair.a.get(), &byte, 1) != 1) {
        EXPECT_TRUE((co_await watch->WaitReadable(Soon())).ok());
      }
    }
    EXPECT_TRUE((co_await watch->WaitWritable(Soon())).ok());
    pair.b.reset();
    EXPECT_TRUE((co_await watch->WaitReadable(Soon())).ok());
    char byte;
    EXPECT_EQ(read(pair.a.get(), &byte, 1), 0);
  }(loop));
}

// A wait was destroyed while the reactor had its call pending; the next wait uses that call.
TEST(FdWatchTest, AWaitAfterADestroyedOneSeesTheBytes) {
  RealLoop loop;
  loop.RunUntilDone([](RealLoop& on) -> Task<void> {
    Pair pair;
    const std::unique_ptr<FdWatch> watch = on.Watch(pair.a.get());
    for (int i = 0; i < 3; ++i) {
      {
        TaskGroup group;
        group.Spawn([](FdWatch& w) -> Task<void> {
          (void)co_await w.WaitReadable(Deadline::Never());
        }(*watch));
        (void)co_await Sleep(absl::Milliseconds(2), Soon());
      }
      EXPECT_EQ(write(pair.b.get(), "x", 1), 1);
      char byte;
      while (read(pair.a.get(), &byte, 1) != 1) {
        EXPECT_TRUE((co_await watch->WaitReadable(Soon())).ok());
      }
    }
  }(loop));
}

TEST(FdWatchTest, DestroyingItEndsItsWaits) {
  RealLoop loop;
  loop.RunUntilDone([](RealLoop& on) -> Task<void> {
    Pair pair;
    std::unique_ptr<FdWatch> watch = on.Watch(pair.a.get());
    absl::Status ended;
    TaskGroup group;
    group.Spawn([](FdWatch& w, absl::Status& out) -> Task<void> {
      out = co_await w.WaitReadable(Deadline::Never());
    }(*watch, ended));
    (void)co_await Sleep(absl::Milliseconds(2), Soon());
    watch.reset();
    EXPECT_TRUE((co_await group.WaitUntilEmpty(Soon())).ok());
    EXPECT_TRUE(absl::IsUnavailable(ended)) << ended;
    EXPECT_EQ(fcntl(pair.a.get(), F_GETFD), FD_CLOEXEC);  // The descriptor stays the caller's.
  }(loop));
}

// c-ares and reconnecting streams close a descriptor and get the same number again at once.
TEST(FdWatchTest, TheSameNumberMayBeWatchedAgain) {
  RealLoop loop;
  loop.RunUntilDone([](RealLoop& on) -> Task<void> {
    for (int i = 0; i < 20; ++i) {
      Pair pair;
      const std::unique_ptr<FdWatch> watch = on.Watch(pair.a.get());
      TaskGroup group;
      group.Spawn([](FdWatch& w) -> Task<void> {
        EXPECT_TRUE((co_await w.WaitReadable(Deadline::Never())).ok());
      }(*watch));
      if (i % 2 == 0) continue;  // Dies armed.
      EXPECT_EQ(write(pair.b.get(), "x", 1), 1);
      EXPECT_TRUE((co_await group.WaitUntilEmpty(Soon())).ok());
    }
  }(loop));
}

TEST(FdWatchTest, ADescriptorThatTheReactorRefuses) {
  RealLoop loop;
  loop.RunUntilDone([](RealLoop& on) -> Task<void> {
    const std::unique_ptr<FdWatch> watch = on.Watch(123456);
    EXPECT_TRUE(absl::IsUnavailable(co_await watch->WaitReadable(Soon())));
    EXPECT_TRUE(absl::IsUnavailable(co_await watch->WaitWritable(Soon())));
  }(loop));
}

// --- Post

TEST(PostTest, FromManyThreads) {
  constexpr int kThreads = 4;
  constexpr int kEach = 2000;
  RealLoop loop;
  int64_t sum = 0;  // Of the loop's thread alone.
  std::vector<std::thread> threads;
  loop.RunUntilDone([](RealLoop& on, int64_t& total, std::vector<std::thread>& all) -> Task<void> {
    Event done;
    for (int t = 0; t < kThreads; ++t) {
      all.emplace_back([&on, &total, &done] {
        for (int i = 0; i < kEach; ++i) {
          on.Post([&total, &done] {
            if (++total == kThreads * kEach) done.Set();
          });
        }
      });
    }
    EXPECT_TRUE((co_await done.WaitUntilSet(Soon())).ok());
  }(loop, sum, threads));
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(sum, kThreads * kEach);
}

TEST(PostTest, APosterOutlivesItsLoop) {
  auto loop = std::make_unique<RealLoop>();
  const RealLoop::Poster poster = loop->MakePoster();
  std::atomic<bool> stop = false;
  std::atomic<int> refused = 0;
  std::atomic<int> accepted = 0;
  std::thread thread([&] {
    while (!stop) (poster([] {}) ? accepted : refused).fetch_add(1);
  });
  loop->RunUntilDone([](std::atomic<int>& n) -> Task<void> {
    while (n == 0) (void)co_await Sleep(absl::Milliseconds(1), Soon());
  }(accepted));
  loop.reset();
  while (refused == 0) std::this_thread::yield();
  stop = true;
  thread.join();
  EXPECT_FALSE(poster([] {}));
}

TEST(PostTest, AnExceptionIsCounted) {
  RealLoop loop;
  loop.Post([] { throw std::runtime_error("escaped"); });
  loop.RunUntilDone([]() -> Task<void> { (void)co_await Sleep(absl::Milliseconds(5), Soon()); }());
  EXPECT_EQ(loop.escaped_exceptions(), 1);
}

// --- Time

TEST(RealLoopTest, AProcessThatStoodStillMovesItsDeadlines) {
  RealLoop loop;
  loop.RunUntilDone([](RealLoop& on) -> Task<void> {
    const Deadline deadline = Deadline::After(absl::Milliseconds(200));
    Event never;
    // The pause itself: this thread, and so the loop, does not run.
    std::this_thread::sleep_for(std::chrono::milliseconds(500));
    const absl::Time resumed = on.Now();
    EXPECT_TRUE(absl::IsDeadlineExceeded(co_await never.WaitUntilSet(deadline)));
    EXPECT_EQ(on.local_stalls(), 1);
    EXPECT_GE(on.local_stall_time(), absl::Milliseconds(450));
    EXPECT_GE(on.Now() - resumed, absl::Milliseconds(150));  // It still had its time.
  }(loop));
}

TEST(RealLoopTest, SleepIsAboutAsLongAsAsked) {
  RealLoop loop;
  loop.RunUntilDone([](RealLoop& on) -> Task<void> {
    for (const int milliseconds : {1, 10, 50}) {
      const absl::Time start = on.Now();
      (void)co_await Sleep(absl::Milliseconds(milliseconds), Deadline::Never());
      EXPECT_GE(on.Now() - start, absl::Milliseconds(milliseconds));
      EXPECT_LT(on.Now() - start, absl::Milliseconds(milliseconds) + absl::Seconds(2));
    }
  }(loop));
  EXPECT_EQ(loop.local_stalls(), 0);
}

TEST(RealLoopTest, TwoLoopsOnTwoThreads) {
  std::vector<std::thread> threads;
  std::atomic<int> ended = 0;
  for (int i = 0; i < 2; ++i) {
    threads.emplace_back([&ended] {
      RealLoop loop;
      loop.RunUntilDone([](std::atomic<int>& n) -> Task<void> {
        for (int turn = 0; turn < 50; ++turn) {
          (void)co_await Sleep(absl::Microseconds(200), Deadline::Never());
        }
        ++n;
      }(ended));
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(ended, 2);
}

}  // namespace
}  // namespace dfscsi::runtime
