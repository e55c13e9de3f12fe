// What only one target of a link will do for.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "node-agent/dfs/client_test_lab.h"

namespace dfscsi::dfs {
namespace {

constexpr char kWho[] = "//root1/dfs/link/who";

class ClientOwnTargetTest : public ::testing::Test {
 protected:
  // The link is on t2, and t1 is away.
  void MoveToT2() {
    ASSERT_EQ(lab_.Where(kWho), "t1");
    lab_.servers().Kill("t1");
    ASSERT_EQ(lab_.Where(kWho), "t2");
  }
  static ClientLab::CallOptions OnT1() { return {.keep_tree = true, .target = "t1"}; }

  ClientLab lab_{{.write_grace = absl::Seconds(20)}};
};

TEST_F(ClientOwnTargetTest, ItIsRunThereAndTheLinkStaysWhereItIs) {
  MoveToT2();
  const CallPtr call = lab_.Start(kWho, OnT1());
  lab_.RunFor(absl::Seconds(10));
  EXPECT_EQ(call->Outcome(), "waits");
  lab_.servers().Start("t1");
  ASSERT_TRUE(lab_.Finish(call, absl::Seconds(10)));
  EXPECT_EQ(call->Outcome(), "t1");
  // What is open there is found by its epoch, and everything else is where it was.
  const CallPtr held = lab_.Do(kWho, {.run = {.held_epoch = call->epoch, .movable = false}});
  EXPECT_EQ(held->Outcome(), "t1");
  EXPECT_EQ(held->epoch, call->epoch);
  EXPECT_EQ(lab_.Where(kWho), "t2");
  EXPECT_NE(lab_.client().GetEpoch(*DfsPath::Parse(kWho)), call->epoch);
  // The next one finds that binding, and makes none of its own.
  EXPECT_EQ(lab_.Do(kWho, OnT1())->epoch, call->epoch);
  EXPECT_EQ(lab_.servers().server("t1").connections_ever(), 2);
}

TEST_F(ClientOwnTargetTest, WhereTheLinkIsBoundThereItIsTheLinksOwnBinding) {
  ASSERT_EQ(lab_.Where(kWho), "t1");
  const CallPtr call = lab_.Do(kWho, OnT1());
  EXPECT_EQ(call->Outcome(), "t1");
  EXPECT_EQ(call->epoch, lab_.client().GetEpoch(*DfsPath::Parse(kWho)));
}

TEST_F(ClientOwnTargetTest, WhoWaitedInVainIsNotWaitedForAgain) {
  MoveToT2();
  const CallPtr first = lab_.Do(kWho, OnT1());
  EXPECT_EQ(first->Outcome(), "ABORTED");
  EXPECT_TRUE(IsLost(first->status));
  EXPECT_GE(first->took(), absl::Seconds(19));
  EXPECT_LE(first->took(), absl::Seconds(22));
  const CallPtr second = lab_.Do(kWho, OnT1());
  EXPECT_TRUE(IsLost(second->status));
  EXPECT_LE(second->took(), absl::Seconds(2));
  EXPECT_EQ(first->runs + second->runs, 0);
  lab_.servers().Start("t1");
  lab_.RunFor(absl::Seconds(6));  // Its back-off.
  EXPECT_EQ(lab_.Do(kWho, OnT1())->Outcome(), "t1");
}

TEST_F(ClientOwnTargetTest, WhatIsNotListedIsNotWaitedFor) {
  MoveToT2();
  const CallPtr call = lab_.Do(kWho, {.target = "another"});
  EXPECT_TRUE(IsLost(call->status)) << call->status;
  EXPECT_LE(call->took(), absl::Seconds(1));
}

TEST_F(ClientOwnTargetTest, ATargetThatIsGoneInTheMiddleIsWaitedForAnew) {
  MoveToT2();
  lab_.servers().Start("t1");
  lab_.RunFor(absl::Seconds(6));
  lab_.servers().server("t1").AddRule(
      {.command = smb::wire::Command::kCreate,
       .path = "who",
       .times = 2,
       .action = {.ignore = true, .close = testing::Closing::kReset}});
  const CallPtr call = lab_.Do(kWho, OnT1());
  EXPECT_EQ(call->Outcome(), "t1");
  EXPECT_EQ(call->runs, 3);
}

TEST_F(ClientOwnTargetTest, ItEndsWithItsDeadlineAndWhenItIsCancelled) {
  MoveToT2();
  ClientLab::CallOptions options = OnT1();
  options.within = absl::Seconds(2);
  EXPECT_EQ(lab_.Do(kWho, options)->Outcome(), "DEADLINE_EXCEEDED");
  const CallPtr call = lab_.Start(kWho, OnT1());
  lab_.RunFor(absl::Seconds(2));
  EXPECT_EQ(call->Outcome(), "waits");
  lab_.servers().agent().RunNow([&] { call->cancel.Cancel(); });
  ASSERT_TRUE(lab_.Finish(call, absl::Milliseconds(10)));
  EXPECT_EQ(call->Outcome(), "CANCELLED");
}

}  // namespace
}  // namespace dfscsi::dfs
