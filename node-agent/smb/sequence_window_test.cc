#include "node-agent/smb/sequence_window.h"

#include <gtest/gtest.h>

#include <optional>

#include "node-agent/runtime/loop.h"
#include "node-agent/runtime/sim_network.h"
#include "node-agent/runtime/sim_world.h"

namespace dfscsi::smb {
namespace {

using runtime::Deadline;
using runtime::Task;

// A request of two credits waits, and the last answer that is to come brings fewer.
absl::StatusCode WhenTheServerGrants(int credits) {
  runtime::SimWorld world(1);
  runtime::SimHost& host =
      world.network().AddHost("node", {*runtime::IpAddress::Parse("10.0.0.1")});
  runtime::SimLoop loop(world, host, "client");
  SequenceWindow window;
  std::optional<absl::StatusCode> ended;
  loop.RunNow([&] {
    loop.Spawn([](SequenceWindow& used, std::optional<absl::StatusCode>& code) -> Task<void> {
      (void)co_await used.Acquire(1, SequenceWindow::Purpose::kRequest, Deadline::Never());
      const absl::StatusOr<uint64_t> id =
          co_await used.Acquire(2, SequenceWindow::Purpose::kRequest, Deadline::Never());
      code = id.status().code();
    }(window, ended));
  });
  world.RunFor(absl::Seconds(1));
  EXPECT_FALSE(ended.has_value());
  loop.RunNow([&] {
    window.Return(1);
    window.Grant(credits);
  });
  world.RunFor(absl::Seconds(1));
  return ended.value_or(absl::StatusCode::kUnknown);
}

TEST(SequenceWindowTest, WhoWaitsForMoreCreditsThanTheServerGrantsAnyLongerIsTold) {
  EXPECT_EQ(WhenTheServerGrants(2), absl::StatusCode::kOk);
  EXPECT_EQ(WhenTheServerGrants(1), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(WhenTheServerGrants(0), absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace dfscsi::smb
