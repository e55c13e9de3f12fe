#include "node-agent/smb/lease_table.h"

#include <gtest/gtest.h>

#include <memory>
#include <vector>

namespace dfscsi::smb {
namespace {

using wire::kLeaseHandle;
using wire::kLeaseRead;
using wire::kLeaseWrite;

constexpr uint32_t kRwh = kLeaseRead | kLeaseWrite | kLeaseHandle;
constexpr uint32_t kRh = kLeaseRead | kLeaseHandle;
constexpr wire::LeaseKey kKey = {1};

struct Notes : LeaseObserver {
  void OnLeaseBreak(const LeaseBreak& broken) override { breaks.push_back(broken); }
  std::vector<LeaseBreak> breaks;
};

wire::Lease Granted(uint32_t state, uint16_t epoch, bool v2 = true) {
  return {.v2 = v2, .key = kKey, .state = state, .epoch = epoch};
}

wire::LeaseBreakNotification BreakTo(uint32_t state, uint16_t epoch) {
  return {.new_epoch = epoch,
          .ack_required = true,
          .key = kKey,
          .current_state = kRwh,
          .new_state = state};
}

class LeaseTableTest : public ::testing::Test {
 protected:
  LeaseTable table_;
  std::shared_ptr<Notes> notes_ = std::make_shared<Notes>();
};

TEST_F(LeaseTableTest, GrantsAndBreaks) {
  const LeaseTable::Ticket ticket = table_.Ask(kKey, 7, notes_);
  EXPECT_EQ(table_.OnGranted(Granted(kRwh, 1), ticket), kRwh);
  EXPECT_EQ(table_.StateOf(kKey), kRwh);
  EXPECT_EQ(table_.TreeOf(kKey), 7u);
  const LeaseTable::Broken broken = table_.OnBreak(BreakTo(kRh, 2));
  EXPECT_EQ(broken.observer, notes_);
  EXPECT_EQ(broken.lease_break, (LeaseBreak{kKey, kRwh, kRh, true}));
  EXPECT_EQ(table_.StateOf(kKey), kRh);  // Nothing may be relied on from here, acknowledged or not.
  EXPECT_EQ(table_.Ask(kKey, 7, notes_).epoch, 2);
}

TEST_F(LeaseTableTest, ABreakThatOvertakesTheGrantWins) {
  for (const bool v2 : {true, false}) {
    LeaseTable table;
    const LeaseTable::Ticket ticket = table.Ask(kKey, 7, notes_);
    (void)table.OnBreak(BreakTo(kRh, v2 ? 2 : 0));
    EXPECT_EQ(table.OnGranted(Granted(kRwh, v2 ? 1 : 0, v2), ticket), kRh) << v2;
  }
}

TEST_F(LeaseTableTest, WhatWasAcknowledgedBeforeTheGrantWasSeenStaysGivenBack) {
  const LeaseTable::Ticket ticket = table_.Ask(kKey, 7, notes_);
  (void)table_.OnBreak(BreakTo(kRh, 2));
  table_.OnAcknowledged(kKey, 0);
  EXPECT_EQ(table_.OnGranted(Granted(kRwh, 1), ticket), 0u);
}

TEST_F(LeaseTableTest, ANewerGrantRaisesAgain) {
  (void)table_.OnGranted(Granted(kRwh, 1), table_.Ask(kKey, 7, notes_));
  (void)table_.OnBreak(BreakTo(kLeaseRead, 2));
  table_.OnAcknowledged(kKey, kLeaseRead);
  EXPECT_EQ(table_.OnGranted(Granted(kRwh, 3), table_.Ask(kKey, 7, notes_)), kRwh);
}

// Until a break is acknowledged the server tells the state of before it.
TEST_F(LeaseTableTest, AGrantWhileABreakIsUnderWayGivesNothingBack) {
  for (const uint16_t epoch : {2, 3}) {
    LeaseTable table;
    (void)table.OnGranted(Granted(kRwh, 1), table.Ask(kKey, 7, notes_));
    (void)table.OnBreak(BreakTo(kLeaseRead, 2));
    wire::Lease granted = Granted(kRwh, epoch);
    granted.flags = wire::kLeaseBreakInProgress;
    EXPECT_EQ(table.OnGranted(granted, table.Ask(kKey, 7, notes_)), kLeaseRead);
    table.OnAcknowledged(kKey, kLeaseRead);
    EXPECT_EQ(table.StateOf(kKey), kLeaseRead);
  }
  // It comes before word of the break does.
  wire::Lease granted = Granted(kRwh, 1);
  granted.flags = wire::kLeaseBreakInProgress;
  EXPECT_EQ(table_.OnGranted(granted, table_.Ask(kKey, 7, notes_)), 0u);
}

TEST_F(LeaseTableTest, EpochsGoRound) {
  (void)table_.OnGranted(Granted(kLeaseRead, 0xFFFF), table_.Ask(kKey, 7, notes_));
  EXPECT_EQ(table_.OnGranted(Granted(kRwh, 0), table_.Ask(kKey, 7, notes_)), kRwh);
  EXPECT_EQ(table_.OnGranted(Granted(kLeaseRead, 0xFFFE), table_.Ask(kKey, 7, notes_)), kRwh);
}

TEST_F(LeaseTableTest, ALateBreakGivesNothing) {
  (void)table_.OnGranted(Granted(kLeaseRead, 5), table_.Ask(kKey, 7, notes_));
  (void)table_.OnBreak(BreakTo(kRh, 3));
  EXPECT_EQ(table_.StateOf(kKey), kLeaseRead);
}

TEST_F(LeaseTableTest, LessMayBeAcknowledgedThanWasAsked) {
  (void)table_.OnGranted(Granted(kRwh, 1), table_.Ask(kKey, 7, notes_));
  (void)table_.OnBreak(BreakTo(kRh, 2));
  table_.OnAcknowledged(kKey, 0);
  EXPECT_EQ(table_.StateOf(kKey), 0u);
}

TEST_F(LeaseTableTest, NobodyIsToldOfWhatNobodyHolds) {
  EXPECT_EQ(table_.OnBreak(BreakTo(0, 1)).observer, nullptr);
  (void)table_.OnGranted(Granted(kRwh, 1), table_.Ask(kKey, 7, notes_));
  notes_.reset();
  EXPECT_EQ(table_.OnBreak(BreakTo(0, 2)).observer, nullptr);
  table_.Forget(kKey);
  EXPECT_EQ(table_.TreeOf(kKey), std::nullopt);
}

TEST_F(LeaseTableTest, ARefusedRequestTakesNothingFromOneOnItsWay) {
  const LeaseTable::Ticket first = table_.Ask(kKey, 7, notes_);
  (void)table_.Ask(kKey, 7, notes_);
  table_.OnRefused(kKey);
  EXPECT_EQ(table_.OnGranted(Granted(kRwh, 1), first), kRwh);
  EXPECT_EQ(table_.OnBreak(BreakTo(kRh, 2)).observer, notes_);
}

TEST_F(LeaseTableTest, ARefusedRequestTakesNothingFromAnother) {
  (void)table_.Ask(kKey, 7, notes_);
  table_.OnRefused(kKey);
  EXPECT_EQ(table_.size(), 0u);
  (void)table_.OnGranted(Granted(kRwh, 1), table_.Ask(kKey, 7, notes_));
  (void)table_.Ask(kKey, 7, notes_);
  table_.OnRefused(kKey);
  EXPECT_EQ(table_.StateOf(kKey), kRwh);
}

// Who else of ours opens the file by its name.
TEST_F(LeaseTableTest, NamesLeadToKeysUntilTheyAreAnothers) {
  const auto key_of = [&](std::u16string_view name) {
    const std::optional<wire::Lease> lease = table_.OfName(7, name);
    return lease.has_value() ? std::optional<wire::LeaseKey>(lease->key) : std::nullopt;
  };
  (void)table_.OnGranted(Granted(kRwh, 5), table_.Ask(kKey, 7, notes_));
  EXPECT_EQ(key_of(u"d\\File"), std::nullopt);
  table_.SetName(kKey, 7, u"d\\File");
  EXPECT_EQ(key_of(u"D\\fILE"), kKey);
  EXPECT_EQ(table_.OfName(7, u"d\\file")->state, kLeaseRead) << "no more than is held";
  EXPECT_EQ(table_.OfName(7, u"d\\file")->epoch, 5);
  EXPECT_EQ(table_.OfName(8, u"d\\file"), std::nullopt) << "of another share";
  table_.Rename(7, u"d\\fil", u"x");
  EXPECT_EQ(key_of(u"d\\file"), kKey) << "its name only begins so";
  table_.Rename(7, u"D", u"e");
  EXPECT_EQ(key_of(u"d\\file"), std::nullopt);
  EXPECT_EQ(key_of(u"e\\file"), kKey);
  (void)table_.OnBreak(BreakTo(0, 6));
  EXPECT_EQ(key_of(u"e\\file"), std::nullopt) << "there is nothing to be taken";
  (void)table_.OnGranted(Granted(kLeaseRead, 7), table_.Ask(kKey, 7, notes_));
  EXPECT_EQ(key_of(u"e\\file"), kKey);
  EXPECT_TRUE(table_.ForgetName(7, u"E\\file"));
  EXPECT_FALSE(table_.ForgetName(7, u"e\\file"));
  EXPECT_EQ(key_of(u"e\\file"), std::nullopt);
  // Another file came to the name, and then went.
  table_.SetName(kKey, 7, u"e\\file");
  const wire::LeaseKey other = {9};
  wire::Lease granted = Granted(kLeaseRead, 1);
  granted.key = other;
  (void)table_.OnGranted(granted, table_.Ask(other, 7, notes_));
  table_.SetName(other, 7, u"e\\file");
  EXPECT_EQ(key_of(u"e\\file"), other);
  table_.Forget(kKey);
  EXPECT_EQ(key_of(u"e\\file"), other);
  table_.Forget(other);
  EXPECT_EQ(key_of(u"e\\file"), std::nullopt);
}

}  // namespace
}  // namespace dfscsi::smb
