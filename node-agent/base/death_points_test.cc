#include "node-agent/base/death_points.h"

#include <gtest/gtest.h>

#include <set>
#include <string>

namespace dfscsi {
namespace {

class DeathPointsTest : public testing::Test {
 protected:
  void TearDown() override { armed_death = {}; }
};

TEST_F(DeathPointsTest, EveryNameIsOneInstant) {
  std::set<std::string_view> seen;
  for (size_t i = 1; i < std::size(kDeathPointNames); ++i) {
    EXPECT_TRUE(seen.insert(kDeathPointNames[i]).second) << kDeathPointNames[i];
    ASSERT_TRUE(ArmDeath(kDeathPointNames[i]).ok());
    EXPECT_EQ(armed_death.point, static_cast<DeathPoint>(i));
    EXPECT_EQ(armed_death.passings_left, 1u);
  }
}

TEST_F(DeathPointsTest, WhatIsNoInstantIsRefused) {
  for (const char* word : {"no_such", ":1", "write_sent:", "write_sent:0", "write_sent:-1",
                           "write_sent:x", "write_sen", "write_sent "}) {
    EXPECT_TRUE(absl::IsInvalidArgument(ArmDeath(word))) << word;
    EXPECT_FALSE(IsDeathArmed()) << word;
  }
}

TEST_F(DeathPointsTest, NobodyDiesUnarmedNorAtAnotherInstant) {
  ASSERT_TRUE(ArmDeath("").ok());
  Pass(DeathPoint::kWriteSent);
  ASSERT_TRUE(ArmDeath("write_sent:1").ok());
  Pass(DeathPoint::kWriteAnswered);
  EXPECT_EQ(armed_death.passings_left, 1u);
}

TEST_F(DeathPointsTest, DiesTheNthTimeAndSaysWhere) {
  const auto pass = [](int times) {
    for (int i = 0; i < times; ++i) Pass(DeathPoint::kLockGranted);
  };
  ASSERT_TRUE(ArmDeath("lock_granted:3").ok());
  pass(2);
  EXPECT_EXIT(pass(1), testing::KilledBySignal(SIGKILL), "dfs-node-agent: dies at lock_granted\n");
}

}  // namespace
}  // namespace dfscsi
