#include "node-agent/agent/slow_operations.h"

#include <gtest/gtest.h>
#include <linux/fuse.h>

namespace dfscsi::agent {
namespace {

TEST(SlowOperationsTest, AFewOfMany) {
  SlowOperations slow;
  absl::Time now = absl::FromUnixSeconds(1000);
  for (int i = 0; i < SlowOperations::kLines; ++i) EXPECT_EQ(slow.Note(now), 0) << i;
  for (int i = 0; i < 100; ++i) EXPECT_EQ(slow.Note(now), std::nullopt) << i;
  now += SlowOperations::kPeriod;
  // Those that had no line are not forgotten.
  EXPECT_EQ(slow.Note(now), 100);
  EXPECT_EQ(slow.Note(now), 0);
  EXPECT_EQ(slow.total(), SlowOperations::kLines + 102);
}

TEST(SlowOperationsTest, OneNowAndThenIsAlwaysSaid) {
  SlowOperations slow;
  absl::Time now = absl::FromUnixSeconds(1000);
  for (int i = 0; i < 100; ++i) {
    EXPECT_EQ(slow.Note(now), 0) << i;
    now += absl::Seconds(3);
  }
}

TEST(SlowOperationsTest, OperationsHaveNames) {
  EXPECT_STREQ(OpcodeName(FUSE_READ), "READ");
  EXPECT_STREQ(OpcodeName(1000), "an operation");
}

}  // namespace
}  // namespace dfscsi::agent
