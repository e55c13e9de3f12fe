#include <gtest/gtest.h>

#include "node-agent/runtime/blocking.h"
#include "node-agent/runtime/race.h"
#include "node-agent/runtime/real_loop.h"
namespace dfscsi::runtime {
namespace {
TEST(RuntimeTest, Compiles) {
  RealLoop loop;
  loop.RunUntilDone([]() -> Task<void> {
    std::vector<std::function<Task<absl::StatusOr<int>>(Deadline)>> racers;
    racers.push_back([](Deadline d) -> Task<absl::StatusOr<int>> {
      (void)co_await Sleep(absl::Seconds(1), d);
      co_return 1;
    });
    racers.push_back([](Deadline d) -> Task<absl::StatusOr<int>> {
      (void)co_await Sleep(absl::Milliseconds(10), d);
      co_return 2;
    });
    auto r = co_await Race<int>(
        std::move(racers), [](auto&, auto&) { return false; }, Deadline::After(absl::Seconds(5)));
    EXPECT_EQ(*r, 2);
    auto b = co_await Blocking<int>([] { return 7; }, Deadline::After(absl::Seconds(5)));
    EXPECT_EQ(*b, 7);
    auto a =
        co_await Loop::Current().network().Resolve("localhost", Deadline::After(absl::Seconds(5)));
    EXPECT_TRUE(a.ok()) << a.status();
  }());
}
}  // namespace
}  // namespace dfscsi::runtime
