#include "node-agent/runtime/task.h"

#include <gtest/gtest.h>

#include <memory>
#include <stdexcept>
#include <string>

#include "absl/status/statusor.h"
#include "node-agent/base/status_macros.h"
#include "node-agent/runtime/both_loops.h"

namespace dfscsi::runtime {
namespace {

class TaskTest : public BothLoopsTest {};
INSTANTIATE_ON_BOTH_LOOPS(TaskTest);

Task<int> Return(int value) { co_return value; }
Task<std::unique_ptr<int>> ReturnPointer(int value) { co_return std::make_unique<int>(value); }
Task<absl::StatusOr<std::string>> ReturnError() { co_return absl::NotFoundError("nothing"); }
Task<absl::StatusOr<size_t>> Length() {
  CO_ASSIGN_OR_RETURN(const std::string text, co_await ReturnError());
  co_return text.size();
}

TEST_P(TaskTest, ReturnsValuesAndErrors) {
  any_.Run([]() -> Task<void> {
    EXPECT_EQ(co_await Return(7), 7);
    const std::unique_ptr<int> pointer = co_await ReturnPointer(8);
    EXPECT_EQ(*pointer, 8);
    EXPECT_TRUE(absl::IsNotFound((co_await Length()).status()));
  }());
}

TEST_P(TaskTest, DoesNotStartBeforeItIsAwaited) {
  bool started = false;
  any_.Run([](bool& was_started) -> Task<void> {
    auto start = [](bool& flag) -> Task<void> {
      flag = true;
      co_return;
    };
    {
      const Task<void> dropped = start(was_started);
    }
    EXPECT_FALSE(was_started);
    Task<void> task = start(was_started);
    EXPECT_FALSE(was_started);
    co_await task;
    EXPECT_TRUE(was_started);
  }(started));
}

// A million tasks that end at once take no stack: a loop over a full socket buffer is just this.
TEST_P(TaskTest, SynchronousCompletionTakesNoStack) {
  any_.Run([]() -> Task<void> {
    int64_t sum = 0;
    for (int i = 0; i < 1'000'000; ++i) sum += co_await Return(1);
    EXPECT_EQ(sum, 1'000'000);
  }());
}

Task<int> Throw() {
  (void)co_await Sleep(absl::Milliseconds(1), Deadline::Never());
  throw std::runtime_error("escaped");
}

TEST_P(TaskTest, AnExceptionReachesTheOneWhoAwaits) {
  any_.Run([]() -> Task<void> {
    bool caught = false;
    try {
      co_await Throw();
    } catch (const std::runtime_error&) {
      caught = true;
    }
    EXPECT_TRUE(caught);
  }());
  EXPECT_EQ(any_.loop().escaped_exceptions(), 0);
}

TEST_P(TaskTest, AnExceptionThatEscapesARootIsCountedAndTheLoopGoesOn) {
  bool later = false;
  any_.loop().Spawn([]() -> Task<void> { co_await Throw(); }());
  any_.Run([](bool& reached) -> Task<void> {
    TaskGroup group;
    group.Spawn([]() -> Task<void> { co_await Throw(); }());
    EXPECT_TRUE((co_await group.WaitUntilEmpty(Deadline::After(absl::Minutes(1)))).ok());
    EXPECT_TRUE((co_await Sleep(absl::Milliseconds(20), Deadline::Never())).ok());
    reached = true;
  }(later));
  EXPECT_TRUE(later);
  EXPECT_EQ(any_.loop().escaped_exceptions(), 2);
}

TEST(RealLoopTaskTest, ATaskThatThrowsEndsRunUntilDone) {
  RealLoop loop;
  loop.RunUntilDone([]() -> Task<void> { co_await Throw(); }());
  EXPECT_EQ(loop.escaped_exceptions(), 1);
}

// Destructors in the frames of a whole chain run, innermost first, when its owner lets go.
TEST_P(TaskTest, DestroyingASuspendedChainRunsItsDestructors) {
  struct Note {
    std::string& log;
    char name;
    ~Note() { log += name; }
  };
  std::string log;
  any_.Run([](std::string& out) -> Task<void> {
    struct Chain {
      static Task<void> Run(std::string& to, int depth) {
        const Note note{to, static_cast<char>('a' + depth)};
        if (depth < 3) co_await Run(to, depth + 1);
        (void)co_await Sleep(absl::Hours(10), Deadline::Never());
      }
    };
    {
      TaskGroup group;
      group.Spawn(Chain::Run(out, 0));
      (void)co_await Sleep(absl::Milliseconds(1), Deadline::Never());
      EXPECT_EQ(group.running(), 1);
    }
    EXPECT_EQ(out, "dcba");
    (void)co_await Sleep(absl::Milliseconds(1), Deadline::Never());
  }(log));
}

// A destructor that spawns, while the loop dies, must neither crash nor leak.
TEST_P(TaskTest, SpawningFromADestructorOfADyingLoop) {
  struct SpawnAtEnd {
    Loop& loop;
    ~SpawnAtEnd() {
      loop.Spawn([]() -> Task<void> { co_return; }());
    }
  };
  any_.loop().Spawn([](Loop& loop) -> Task<void> {
    const SpawnAtEnd spawn{loop};
    (void)co_await Sleep(absl::Hours(1), Deadline::Never());
  }(any_.loop()));
  any_.Run(
      []() -> Task<void> { (void)co_await Sleep(absl::Milliseconds(1), Deadline::Never()); }());
  any_.Destroy();
}

}  // namespace
}  // namespace dfscsi::runtime
