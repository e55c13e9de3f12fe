// Going back to a better target: for new opens only.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "node-agent/dfs/client_test_lab.h"

namespace dfscsi::dfs {
namespace {

using smb::wire::Command;
using testing::Closing;

constexpr char kWho[] = "//root1/dfs/link/who";

// A client whose link is on t2, with something open there, and t1 back for long enough.
class ClientFailbackTest : public ::testing::Test {
 protected:
  static ClientOptions Always() {
    return {.referral_ttl_min = absl::Seconds(8), .failback = Failback::kAlways};
  }
  void FailOverAndBack(ClientLab& lab) {
    ASSERT_EQ(lab.Where(kWho), "t1");
    lab.servers().Kill("t1");
    held_ = lab.Do(kWho, {.keep_tree = true});
    ASSERT_EQ(held_->Outcome(), "t2");
    lab.servers().Start("t1");
    lab.RunFor(absl::Seconds(30));
  }
  // An operation on what was opened on t2.
  ClientLab::CallOptions OnHeld() const { return {.run = {.held_epoch = held_->epoch}}; }

  CallPtr held_;
};

TEST_F(ClientFailbackTest, C16_NewOpensGoBackAndOldHandlesStayUntilClosed) {
  ClientLab lab(Always());
  ASSERT_NO_FATAL_FAILURE(FailOverAndBack(lab));
  EXPECT_EQ(lab.counters().failbacks, 1);
  EXPECT_EQ(lab.Where(kWho), "t1");
  const CallPtr on_held = lab.Do(kWho, OnHeld());
  EXPECT_EQ(on_held->Outcome(), "t2");
  EXPECT_EQ(on_held->epoch, held_->epoch);
  EXPECT_GT(lab.client().GetEpoch(*DfsPath::Parse(kWho)), held_->epoch);
  // Closed: the former binding is nobody's any more.
  held_->tree = nullptr;
  on_held->tree = nullptr;
  EXPECT_EQ(lab.Do(kWho, OnHeld())->Outcome(), "t1");
}

TEST_F(ClientFailbackTest, C16_HandlesMoveWhenTheirTargetIsLost) {
  for (const bool hang : {false, true}) {
    ClientLab lab(Always());
    ASSERT_NO_FATAL_FAILURE(FailOverAndBack(lab));
    ASSERT_EQ(lab.Do(kWho, OnHeld())->Outcome(), "t2");
    if (hang) {
      lab.servers().process("t2").Freeze();
    } else {
      lab.servers().Kill("t2");
    }
    const CallPtr call = lab.Do(kWho, OnHeld());
    EXPECT_EQ(call->Outcome(), "t1");
    EXPECT_LT(call->took(), absl::Seconds(3));
    EXPECT_EQ(lab.servers().server("t1").connections_ever(), 2);
  }
}

TEST_F(ClientFailbackTest, C16_WhatIsInFlightAndMayNotBeRepeatedStays) {
  ClientLab lab(Always());
  ASSERT_EQ(lab.Where(kWho), "t1");
  lab.servers().Kill("t1");
  ASSERT_EQ(lab.Where(kWho), "t2");
  lab.servers().server("t2").AddRule({.command = Command::kCreate,
                                      .times = 1,
                                      .action = {.delay = absl::Seconds(60), .pending = true}});
  const CallPtr once = lab.Start(kWho, {.run = {.repeatable = false}});
  lab.servers().Start("t1");
  lab.RunFor(absl::Seconds(30));
  ASSERT_EQ(lab.counters().failbacks, 1);
  ASSERT_EQ(lab.Where(kWho), "t1");
  ASSERT_TRUE(lab.Finish(once));
  EXPECT_EQ(once->Outcome(), "t2");
  EXPECT_EQ(once->runs, 1);
}

TEST_F(ClientFailbackTest, AGuardDoesNotKeepTheLeftTargetsSession) {
  ClientLab lab(Always());
  ASSERT_NO_FATAL_FAILURE(FailOverAndBack(lab));
  ASSERT_EQ(lab.Where(kWho), "t1");
  EXPECT_EQ(lab.servers().server("t2").sessions(), 1);
  held_->tree = nullptr;
  lab.RunFor(absl::Minutes(3));
  EXPECT_EQ(lab.servers().server("t2").sessions(), 0);
  EXPECT_EQ(lab.servers().server("t1").sessions(), 1);
}

TEST_F(ClientFailbackTest, C15_NobodyGoesBackUnasked) {
  for (const Failback failback : {Failback::kNever, Failback::kReferral}) {
    ClientLab lab({.referral_ttl_min = absl::Seconds(8), .failback = failback});
    ASSERT_NO_FATAL_FAILURE(FailOverAndBack(lab));
    EXPECT_EQ(lab.Where(kWho), "t2");
    EXPECT_EQ(lab.counters().failbacks, 0);
  }
}

TEST_F(ClientFailbackTest, C17_TheTBitAndTwoTargetSets) {
  for (const Failback failback : {Failback::kReferral, Failback::kNever}) {
    ClientLab lab({.referral_ttl_min = absl::Seconds(8), .failback = failback});
    lab.AddLink("link", {.targets = {{"t1/data"}, {"t2/data"}, {"t3/data", true}},
                         .version = 4,
                         .ttl_seconds = 60,
                         .failback = true});
    ASSERT_EQ(lab.Where(kWho), "t1");
    // Within a set nobody goes back.
    lab.servers().Kill("t1");
    ASSERT_EQ(lab.Where(kWho), "t2");
    lab.servers().Start("t1");
    lab.RunFor(absl::Seconds(40));
    EXPECT_EQ(lab.Where(kWho), "t2");
    // Set 1 down: set 2. Up: set 1 again.
    lab.servers().Kill("t1");
    lab.servers().Kill("t2");
    ASSERT_EQ(lab.Where(kWho), "t3");
    lab.servers().Start("t2");
    lab.RunFor(absl::Seconds(40));
    EXPECT_EQ(lab.Where(kWho), failback == Failback::kNever ? "t3" : "t2");
  }
}

TEST_F(ClientFailbackTest, C14_ATargetThatDoesNotStayUpIsNotGoneBackTo) {
  ClientLab lab(Always());
  ASSERT_EQ(lab.Where(kWho), "t1");
  lab.servers().Kill("t1");
  ASSERT_EQ(lab.Where(kWho), "t2");
  for (int i = 0; i < 10; ++i) {
    lab.servers().Start("t1");
    lab.RunFor(absl::Seconds(6));
    lab.servers().Kill("t1");
    lab.RunFor(absl::Seconds(3));
    EXPECT_EQ(lab.Where(kWho), "t2");
  }
  EXPECT_EQ(lab.counters().failbacks, 0);
}

TEST_F(ClientFailbackTest, TheBestTargetThatIsUpIsGoneBackTo) {
  ClientLab lab(Always());
  ASSERT_EQ(lab.Where(kWho), "t1");
  lab.servers().Kill("t1");
  lab.servers().Kill("t2");
  ASSERT_EQ(lab.Where(kWho), "t3");
  lab.servers().Start("t2");
  lab.RunFor(absl::Seconds(40));
  EXPECT_EQ(lab.Where(kWho), "t2");
  lab.servers().Start("t1");
  lab.RunFor(absl::Seconds(40));
  EXPECT_EQ(lab.Where(kWho), "t1");
  EXPECT_EQ(lab.counters().failbacks, 2);
}

TEST_F(ClientFailbackTest, E04_AnUnlistedTargetIsLeftByHandlesToo) {
  ClientLab lab(Always());
  ASSERT_NO_FATAL_FAILURE(FailOverAndBack(lab));
  ASSERT_EQ(lab.Do(kWho, OnHeld())->Outcome(), "t2");
  lab.AddLink("link", {.targets = {"t1/data", "t3/data"}});
  lab.RunFor(absl::Minutes(11));  // TTL 600 s
  EXPECT_EQ(lab.Do(kWho, OnHeld())->Outcome(), "t1");
}

}  // namespace
}  // namespace dfscsi::dfs
