#include "node-agent/dfs/target_health.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <thread>
#include <vector>

namespace dfscsi::dfs {
namespace {

using Admission = TargetHealthTable::Admission;
using Phase = AttemptPhase;
constexpr char kUser[] = "user";
constexpr double kLate = 1.0;  // The jitter that makes a back-off longest.

DfsPath P(absl::string_view text) { return *DfsPath::Parse(text); }

class TargetHealthTest : public testing::Test {
 protected:
  void Fail(const DfsPath& target, FailureClass failure, Phase phase = Phase::kConnect) {
    table_.NoteFailed(target, kUser, phase, failure, now_, kLate);
  }
  TargetStatus Get(const DfsPath& target, absl::string_view credential = kUser) {
    return table_.Get(target, credential, now_);
  }
  // Fails, and says for how long the target is left alone.
  absl::Duration BackoffAfterFailure(const DfsPath& target) {
    Fail(target, FailureClass::kTransport);
    return Get(target).not_before - now_;
  }

  absl::Time now_ = absl::UnixEpoch() + absl::Hours(1);
  TargetHealthTable table_;
  const DfsPath t1_ = P("//t1/share"), t2_ = P("//t2/share"), other_ = P("//t1/other");
};

TEST_F(TargetHealthTest, UnknownUntilTried) {
  EXPECT_EQ(Get(t1_).state, TargetState::kUnknown);
  EXPECT_TRUE(Get(t1_).MayTry(now_));
  table_.NoteUp(t1_, kUser, now_, absl::Milliseconds(8));
  EXPECT_EQ(Get(t1_).state, TargetState::kUp);
  EXPECT_EQ(Get(t1_).latency, absl::Milliseconds(8));
  EXPECT_EQ(Get(t2_).state, TargetState::kUnknown);
  EXPECT_EQ(Get(other_).state, TargetState::kUnknown);  // Another share of the same host.
  EXPECT_EQ(Get(t1_, "somebody else").state, TargetState::kUnknown);
}

TEST_F(TargetHealthTest, AHostThatIsUpSaysNothingOfItsShares) {
  Fail(t1_, FailureClass::kMissing, Phase::kTreeConnect);
  Fail(other_, FailureClass::kTransport);
  EXPECT_FALSE(Get(other_).MayTry(now_));
  table_.NoteHostUp(t1_, kUser, now_);
  EXPECT_EQ(Get(t1_).state, TargetState::kDown);
  EXPECT_TRUE(Get(other_).MayTry(now_));
  EXPECT_EQ(Get(other_).state, TargetState::kUnknown);
}

TEST_F(TargetHealthTest, C12_BackoffGrowsToItsMaximum) {
  std::vector<int64_t> got;
  for (int i = 0; i < 8; ++i) {
    const absl::Duration backoff = BackoffAfterFailure(t1_);
    got.push_back(absl::ToInt64Milliseconds(backoff));
    EXPECT_FALSE(Get(t1_).MayTry(now_));
    now_ += backoff;
    EXPECT_TRUE(Get(t1_).MayTry(now_));
    EXPECT_EQ(Get(t1_).state, TargetState::kDown);
  }
  EXPECT_THAT(got, testing::ElementsAre(200, 400, 800, 1600, 3200, 5000, 5000, 5000));
}

TEST_F(TargetHealthTest, BackoffHasJitter) {
  table_.NoteFailed(t1_, kUser, Phase::kConnect, FailureClass::kTransport, now_, 0.0);
  table_.NoteFailed(t2_, kUser, Phase::kConnect, FailureClass::kTransport, now_, 0.5);
  EXPECT_EQ(Get(t1_).not_before - now_, absl::Milliseconds(150));
  EXPECT_EQ(Get(t2_).not_before - now_, absl::Milliseconds(175));
}

TEST_F(TargetHealthTest, OneDeathIsReportedByManyAndCountsOnce) {
  for (int i = 0; i < 100; ++i) Fail(t1_, FailureClass::kTransport, Phase::kOperation);
  EXPECT_EQ(Get(t1_).not_before - now_, absl::Milliseconds(200));
}

TEST_F(TargetHealthTest, SuccessResetsAfterADwellTime) {
  for (int i = 0; i < 5; ++i) now_ += BackoffAfterFailure(t1_);
  table_.NoteUp(t1_, kUser, now_, absl::Milliseconds(1));
  now_ += absl::Seconds(10);
  EXPECT_EQ(BackoffAfterFailure(t1_), absl::Milliseconds(200));
}

TEST_F(TargetHealthTest, C14_AFlappingTargetIsLeftAloneForLonger) {
  // Up and down every three seconds for two minutes: tried less and less, never thrashed.
  int attempts = 0;
  const absl::Time end = now_ + absl::Minutes(2);
  for (; now_ < end; now_ += absl::Milliseconds(100)) {
    const bool really_up = absl::ToInt64Seconds(now_ - absl::UnixEpoch()) / 3 % 2 == 0;
    if (Get(t1_).state == TargetState::kUp) {
      if (!really_up) Fail(t1_, FailureClass::kTransport, Phase::kOperation);
    } else if (Get(t1_).MayTry(now_)) {
      ++attempts;
      if (really_up) {
        table_.NoteUp(t1_, kUser, now_, absl::Milliseconds(1));
      } else {
        Fail(t1_, FailureClass::kTransport);
      }
    }
  }
  EXPECT_LT(attempts, 40);  // 120 s / 5 s, and the start.
  EXPECT_GT(attempts, 15);
}

TEST_F(TargetHealthTest, F02_ADeniedTargetIsRememberedForAMinute) {
  Fail(t1_, FailureClass::kDenied, Phase::kSessionSetup);
  EXPECT_EQ(Get(t1_).state, TargetState::kDenied);
  EXPECT_EQ(Get(other_).state, TargetState::kDenied);  // The log-on is the host's.
  EXPECT_EQ(Get(t1_, "another").state, TargetState::kUnknown);
  now_ += absl::Seconds(59);
  EXPECT_FALSE(Get(t1_).MayTry(now_));
  EXPECT_EQ(table_.TryBeginConnect(t1_, kUser, now_).admission, Admission::kTooSoon);
  now_ += absl::Seconds(1);
  EXPECT_EQ(table_.TryBeginConnect(t1_, kUser, now_).admission, Admission::kGo);
}

TEST_F(TargetHealthTest, F02_ADenialLastsAsLongAsItsReasonSays) {
  const auto deny = [this](absl::Duration denied_for) {
    table_.NoteFailed(t1_, kUser, Phase::kSessionSetup, FailureClass::kDenied, now_, kLate,
                      denied_for);
    return Get(t1_).not_before - now_;
  };
  EXPECT_EQ(deny(absl::Minutes(5)), absl::Minutes(5));
  now_ += absl::Minutes(1);
  // Told of another denial, it does not forget the longer one.
  EXPECT_EQ(deny(absl::ZeroDuration()), absl::Minutes(4));
  EXPECT_EQ(deny(absl::Minutes(2)), absl::Minutes(4));
  EXPECT_EQ(deny(absl::Minutes(6)), absl::Minutes(6));
  table_.Forgive();
  // Of what a dead agent was told, only the rest is left.
  EXPECT_EQ(deny(absl::Seconds(10)), absl::Seconds(10));
}

TEST_F(TargetHealthTest, F07_ANewPasswordIsTriedAtOnce) {
  Fail(t1_, FailureClass::kDenied, Phase::kSessionSetup);
  Fail(t2_, FailureClass::kTransport);
  table_.Forgive("another");
  EXPECT_FALSE(Get(t1_).MayTry(now_));
  table_.Forgive(kUser);
  EXPECT_TRUE(Get(t1_).MayTry(now_));
  EXPECT_TRUE(Get(t2_).MayTry(now_));
}

TEST_F(TargetHealthTest, AFlushForgivesAll) {
  Fail(t1_, FailureClass::kTransport);
  table_.Forgive();
  EXPECT_EQ(Get(t1_).state, TargetState::kUnknown);
}

TEST_F(TargetHealthTest, C26_AHostsDeathIsKnownToAllItsTargets) {
  table_.NoteUp(t1_, kUser, now_, absl::Milliseconds(1));
  table_.NoteUp(other_, kUser, now_, absl::Milliseconds(1));
  Fail(t1_, FailureClass::kTransport, Phase::kOperation);
  EXPECT_EQ(Get(other_).state, TargetState::kDown);
  // One target that works again ends that for all.
  now_ += absl::Seconds(1);
  table_.NoteUp(t1_, kUser, now_, absl::Milliseconds(1));
  EXPECT_EQ(Get(other_).state, TargetState::kUp);
}

TEST_F(TargetHealthTest, C08_AMissingShareIsNotItsHostsDeath) {
  Fail(t1_, FailureClass::kMissing, Phase::kTreeConnect);
  EXPECT_EQ(Get(t1_).state, TargetState::kDown);
  EXPECT_EQ(Get(other_).state, TargetState::kUnknown);
}

TEST_F(TargetHealthTest, F03_AnswersAboutFilesSayNothing) {
  for (const FailureClass failure : {FailureClass::kSemantics, FailureClass::kCaller,
                                     FailureClass::kPathNotCovered, FailureClass::kNone}) {
    Fail(t1_, failure, Phase::kOperation);
  }
  EXPECT_EQ(Get(t1_).state, TargetState::kUnknown);
}

TEST_F(TargetHealthTest, C25_OneConnectInFlightPerHostAndCredential) {
  TargetHealthTable::Admitted first = table_.TryBeginConnect(t1_, kUser, now_);
  EXPECT_EQ(first.admission, Admission::kGo);
  EXPECT_EQ(table_.TryBeginConnect(t1_, kUser, now_).admission, Admission::kJoin);
  EXPECT_EQ(table_.TryBeginConnect(other_, kUser, now_).admission, Admission::kJoin);
  EXPECT_EQ(table_.TryBeginConnect(t1_, "another", now_).admission, Admission::kGo);
  EXPECT_EQ(table_.TryBeginConnect(t2_, kUser, now_).admission, Admission::kGo);
  first.ticket = TargetHealthTable::ConnectTicket();
  EXPECT_EQ(table_.TryBeginConnect(t1_, kUser, now_).admission, Admission::kGo);
}

TEST_F(TargetHealthTest, AtMostTenConnectsInAnySecond) {
  // Whoever asks, as fast as it can, with a new credential each time.
  std::vector<absl::Time> connects;
  for (int i = 0; i < 5000; ++i, now_ += absl::Milliseconds(1)) {
    TargetHealthTable::Admitted admitted =
        table_.TryBeginConnect(t1_, "user" + std::to_string(i % 50), now_);
    if (admitted.admission == Admission::kGo) {
      connects.push_back(now_);
    } else {
      EXPECT_EQ(admitted.admission, Admission::kTooSoon);
      EXPECT_GT(admitted.not_before, now_);
    }
  }
  EXPECT_EQ(connects.size(), 45u);
  for (size_t i = 10; i < connects.size(); ++i) {
    EXPECT_GE(connects[i] - connects[i - 10], absl::Seconds(1));
  }
}

// A simulation's seed had the first of eleven connects wait for its name by 7 µs longer than the
// last.
TEST_F(TargetHealthTest, AtMostTenConnectsInAnySecondThoughNamesTakeTheirTime) {
  std::vector<absl::Time> connects;
  while (connects.size() < 100) {
    const TargetHealthTable::Admitted admitted = table_.TryBeginConnect(t1_, kUser, now_);
    if (admitted.admission != Admission::kGo) {
      now_ = admitted.not_before;
      continue;
    }
    if (connects.size() % 7 == 0) now_ += absl::Milliseconds(5);
    connects.push_back(now_);
    now_ += absl::Milliseconds(1);
  }
  for (size_t i = 10; i < connects.size(); ++i) {
    EXPECT_GE(connects[i] - connects[i - 10], absl::Seconds(1)) << i;
  }
}

TEST_F(TargetHealthTest, ConnectsWaitForTheTargetsOwnBackoff) {
  Fail(t1_, FailureClass::kMissing, Phase::kTreeConnect);
  const TargetHealthTable::Admitted admitted = table_.TryBeginConnect(t1_, kUser, now_);
  EXPECT_EQ(admitted.admission, Admission::kTooSoon);
  EXPECT_EQ(admitted.not_before, Get(t1_).not_before);
  EXPECT_EQ(table_.TryBeginConnect(other_, kUser, now_).admission, Admission::kGo);
}

TEST_F(TargetHealthTest, TheTableIsBounded) {
  TargetHealthTable small({.capacity = 10});
  const TargetHealthTable::Admitted held = small.TryBeginConnect(t1_, kUser, now_);
  for (int i = 0; i < 1000; ++i) {
    small.NoteUp(P("//h" + std::to_string(i) + "/s"), kUser, now_, absl::Milliseconds(1));
  }
  EXPECT_LE(small.List().size(), 11u);
  EXPECT_EQ(small.Get(P("//h999/s"), kUser, now_).state, TargetState::kUp);
  EXPECT_EQ(small.Get(P("//h0/s"), kUser, now_).state, TargetState::kUnknown);
  // What somebody is connecting to is not forgotten.
  EXPECT_EQ(small.TryBeginConnect(t1_, kUser, now_).admission, Admission::kJoin);
}

// What people and metrics are shown is what targets are chosen by.
TEST_F(TargetHealthTest, AShareIsListedAsDownWhileItsHostIs) {
  const DfsPath below = *DfsPath::Parse("//t1/share/below");
  const DfsPath t2 = *DfsPath::Parse("//t2/share");
  const auto shown = [this](absl::string_view target) {
    for (const TargetHealthTable::Listed& listed : table_.List()) {
      if (listed.target == target && listed.credential == kUser) return listed.status;
    }
    return TargetStatus{};
  };
  for (const DfsPath& target : {t1_, below, t2}) {
    table_.NoteUp(target, kUser, now_, absl::Milliseconds(3));
  }
  Fail(t1_, FailureClass::kTransport, Phase::kConnect);
  for (const char* target : {"//t1", "//t1/share", "//t1/share/below"}) {
    EXPECT_EQ(shown(target).state, TargetState::kDown) << target;
    EXPECT_EQ(shown(target).last_failure, FailureClass::kTransport) << target;
    EXPECT_EQ(shown(target).not_before, table_.Get(t1_, kUser, now_).not_before) << target;
    EXPECT_EQ(shown(target).latency, absl::Milliseconds(3)) << target;
  }
  EXPECT_EQ(shown("//t2/share").state, TargetState::kUp);
  // And up again with it; a share that is missing says nothing of its neighbours.
  table_.NoteUp(t1_, kUser, now_, absl::Milliseconds(3));
  Fail(below, FailureClass::kMissing, Phase::kTreeConnect);
  EXPECT_EQ(shown("//t1/share").state, TargetState::kUp);
  EXPECT_EQ(shown("//t1/share/below").state, TargetState::kDown);
}

TEST_F(TargetHealthTest, ListShowsStateAndCounters) {
  {
    const TargetHealthTable::Admitted admitted = table_.TryBeginConnect(t1_, kUser, now_);
  }
  table_.NoteUp(t1_, kUser, now_, absl::Milliseconds(3));
  Fail(t1_, FailureClass::kTransport, Phase::kOperation);
  table_.TryBeginConnect(t1_, kUser, now_);
  const std::vector<TargetHealthTable::Listed> listed = table_.List();
  ASSERT_EQ(listed.size(), 2u);
  EXPECT_EQ(listed[0].target, "//t1");
  EXPECT_EQ(listed[0].credential, kUser);
  EXPECT_EQ(listed[0].status.state, TargetState::kDown);
  EXPECT_EQ(listed[0].counters.connects, 1);
  EXPECT_EQ(listed[0].counters.successes, 1);
  EXPECT_EQ(listed[0].counters.transport, 1);
  EXPECT_EQ(listed[0].counters.held_back, 1);
  EXPECT_EQ(listed[1].target, "//t1/share");
}

TEST_F(TargetHealthTest, RaceOfManyThreads) {
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 500; ++i) {
        const DfsPath target = P("//h" + std::to_string(i % 5) + "/s");
        const TargetHealthTable::Admitted admitted =
            table_.TryBeginConnect(target, kUser, now_ + absl::Seconds(i));
        if (t % 2 == 0) {
          table_.NoteUp(target, kUser, now_, absl::Milliseconds(1));
        } else {
          table_.NoteFailed(target, kUser, Phase::kConnect, FailureClass::kTransport, now_, 0.5);
        }
        table_.List();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  // Every ticket came back.
  now_ += absl::Hours(1);
  for (int i = 0; i < 5; ++i) {
    EXPECT_EQ(table_.TryBeginConnect(P("//h" + std::to_string(i) + "/s"), kUser, now_).admission,
              Admission::kGo);
  }
}

}  // namespace
}  // namespace dfscsi::dfs
