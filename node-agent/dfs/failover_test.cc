#include "node-agent/dfs/failover.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

namespace dfscsi::dfs {
namespace {

using Phase = FailoverPhase;
using Class = FailureClass;
using Action = FailureAction;

constexpr FailoverState kStart;
constexpr FailoverState kReconnected{.reconnects = 1};
constexpr FailoverState kReconnectedTwice{.reconnects = 2};
constexpr FailoverState kPinned{.movable = false};
constexpr FailoverState kPinnedReconnected{.movable = false, .reconnects = 1};
constexpr FailoverState kOnce{.repeatable = false};

struct AttemptCase {
  std::string name;
  FailoverState from;
  Failure failure;
  Phase want;

  friend void PrintTo(const AttemptCase& c, std::ostream* os) { *os << c.name; }
};

class AfterAttemptTest : public testing::TestWithParam<AttemptCase> {};

TEST_P(AfterAttemptTest, Next) {
  const AttemptCase& c = GetParam();
  EXPECT_EQ(AfterAttempt(c.from, c.failure).phase, c.want);
}

INSTANTIATE_TEST_SUITE_P(
    Failover, AfterAttemptTest,
    testing::ValuesIn<AttemptCase>({
        {"Success", kStart, {Class::kNone, Action::kAccept}, Phase::kDone},
        {"F03_FileSemantics", kStart, {Class::kSemantics, Action::kReturn}, Phase::kFailed},
        {"C13_Cancelled", kStart, {Class::kCaller, Action::kReturn, true}, Phase::kFailed},
        {"C13_CancelledAndNotRepeatable",
         kOnce,
         {Class::kCaller, Action::kReturn, true},
         Phase::kFailed},
        {"PathNotCovered", kStart, {Class::kPathNotCovered, Action::kResolve}, Phase::kResolve},
        {"C35_LostConnectionGoesToTheSameFirst",
         kStart,
         {Class::kTransport, Action::kSameThenNext},
         Phase::kReconnect},
        {"C01_LostAgain",
         kReconnected,
         {Class::kTransport, Action::kSameThenNext},
         Phase::kNextTarget},
        {"LostAgainWithUnwrittenData",
         kPinnedReconnected,
         {Class::kTransport, Action::kSameThenNext},
         Phase::kWaitForOwn},
        {"C09_ShareClosedUnderUs",
         kStart,
         {Class::kSession, Action::kSameThenNext},
         Phase::kReconnect},
        {"C10_ShareStaysClosed",
         kReconnected,
         {Class::kSession, Action::kSameThenNext},
         Phase::kNextTarget},
        {"SessionGoneTwice",
         kReconnected,
         {Class::kSession, Action::kSameTarget},
         Phase::kReconnect},
        {"SessionGoneAThirdTime",
         kReconnectedTwice,
         {Class::kSession, Action::kSameTarget},
         Phase::kNextTarget},
        {"Throttled", kStart, {Class::kThrottled, Action::kBackOff}, Phase::kBackOff},
        {"ThrottledAndPinned", kPinned, {Class::kThrottled, Action::kBackOff}, Phase::kBackOff},
        {"F12_BrokenPeer", kStart, {Class::kBroken, Action::kNextTarget, true}, Phase::kNextTarget},
        {"TargetDown", kStart, {Class::kUnavailable, Action::kNextTarget}, Phase::kNextTarget},
        {"TargetDownAndPinned",
         kPinned,
         {Class::kUnavailable, Action::kNextTarget},
         Phase::kWaitForOwn},
        {"C28_ReplyLostOfWhatMustNotRunTwice",
         kOnce,
         {Class::kTransport, Action::kSameThenNext, true},
         Phase::kVerify},
        {"C28_NotSentMayRunAgain",
         kOnce,
         {Class::kTransport, Action::kSameThenNext, false},
         Phase::kReconnect},
        {"ReplyLostOfWhatMayRunTwice",
         kStart,
         {Class::kTransport, Action::kSameThenNext, true},
         Phase::kReconnect},
    }),
    [](const auto& info) { return info.param.name; });

TEST(FailoverTest, TwoClocks) {
  FailoverState pinned_waiting = kPinned;
  pinned_waiting.phase = Phase::kWaitForOwn;
  struct Case {
    FailoverState from;
    smb::Silence silence;
    bool another_is_up;
    Phase want;
  };
  for (const Case& c :
       std::vector<Case>{{kStart, smb::Silence::kNone, true, Phase::kAttempt},
                         {kStart, smb::Silence::kSuspect, true, Phase::kNextTarget},  // C02
                         {kStart, smb::Silence::kSuspect, false, Phase::kAttempt},
                         {kPinned, smb::Silence::kSuspect, true, Phase::kAttempt},
                         {kOnce, smb::Silence::kSuspect, true, Phase::kAttempt},
                         {kStart, smb::Silence::kLost, false, Phase::kNextTarget},
                         {kPinned, smb::Silence::kLost, false, Phase::kNextTarget},
                         {kOnce, smb::Silence::kLost, true, Phase::kVerify},
                         {pinned_waiting, smb::Silence::kSuspect, true, Phase::kWaitForOwn},
                         {pinned_waiting, smb::Silence::kLost, true, Phase::kNextTarget}}) {
    EXPECT_EQ(AfterSilence(c.from, c.silence, c.another_is_up).phase, c.want)
        << c.from << " " << static_cast<int>(c.silence) << c.another_is_up;
  }
}

FailoverState In(Phase phase, FailoverState state = kStart) {
  state.phase = phase;
  return state;
}

TEST(FailoverTest, Reconnecting) {
  EXPECT_EQ(AfterReconnect(In(Phase::kReconnect), true).phase, Phase::kAttempt);
  EXPECT_EQ(AfterReconnect(In(Phase::kReconnect), false).phase, Phase::kNextTarget);
  EXPECT_EQ(AfterReconnect(In(Phase::kReconnect, kPinned), false).phase, Phase::kWaitForOwn);
  EXPECT_EQ(AfterReconnect(In(Phase::kWaitForOwn, kPinned), true).phase, Phase::kAttempt);
  EXPECT_EQ(AfterReconnect(In(Phase::kWaitForOwn, kPinned), false).phase, Phase::kWaitForOwn);
}

TEST(FailoverTest, BindingAndWaiting) {
  EXPECT_EQ(AfterBinding(In(Phase::kNextTarget), true, false).phase, Phase::kAttempt);
  EXPECT_EQ(AfterBinding(In(Phase::kResolve), true, false).phase, Phase::kAttempt);
  EXPECT_EQ(AfterBinding(In(Phase::kNextTarget), false, true).phase, Phase::kWait);
  EXPECT_EQ(AfterBinding(In(Phase::kNextTarget), false, false).phase, Phase::kFailed);
  EXPECT_EQ(AfterWait(In(Phase::kWait)).phase, Phase::kResolve);
  EXPECT_EQ(AfterWait(In(Phase::kBackOff)).phase, Phase::kAttempt);
  EXPECT_EQ(AfterDeadline(In(Phase::kWait)).phase, Phase::kFailed);
  // A new target starts with a clean slate: it gets its own one reconnect.
  EXPECT_EQ(AfterBinding(In(Phase::kNextTarget, kReconnectedTwice), true, false).reconnects, 0);
}

TEST(FailoverTest, Verifying) {
  EXPECT_EQ(AfterVerify(In(Phase::kVerify), Verified::kExecuted).phase, Phase::kDone);
  EXPECT_EQ(AfterVerify(In(Phase::kVerify), Verified::kNotExecuted).phase, Phase::kAttempt);
  EXPECT_EQ(AfterVerify(In(Phase::kVerify), Verified::kUnknown).phase, Phase::kFailed);
}

TEST(FailoverTest, C12_WaitsGrowToFiveSeconds) {
  FailoverState state;
  std::vector<int64_t> delays;
  for (int i = 0; i < 7; ++i) {
    state = AfterBinding(In(Phase::kResolve, state), false, true);
    delays.push_back(absl::ToInt64Milliseconds(BackoffDelay(state, 0)));
    EXPECT_GE(BackoffDelay(state, 0.999), 0.75 * BackoffDelay(state, 0));
    state = AfterWait(state);
  }
  EXPECT_EQ(delays, (std::vector<int64_t>{200, 400, 800, 1600, 3200, 5000, 5000}));
  state.waits = 1'000'000;
  EXPECT_EQ(BackoffDelay(state, 0), absl::Seconds(5));
}

// What may never happen, from any state by any outcome.
TEST(FailoverTest, Invariants) {
  for (const bool movable : {false, true}) {
    for (const bool repeatable : {false, true}) {
      for (int reconnects = 0; reconnects < 4; ++reconnects) {
        const FailoverState from{
            .movable = movable, .repeatable = repeatable, .reconnects = reconnects};
        for (int cls = 0; cls <= static_cast<int>(Class::kCaller); ++cls) {
          for (int action = 0; action <= static_cast<int>(Action::kResolve); ++action) {
            for (const bool maybe_executed : {false, true}) {
              const Failure failure{static_cast<Class>(cls), static_cast<Action>(action),
                                    maybe_executed};
              const FailoverState to = AfterAttempt(from, failure);
              SCOPED_TRACE(testing::Message() << from << " by " << failure);
              // What must stay with its server does not leave it by a failed attempt.
              if (!movable) {
                EXPECT_NE(to.phase, Phase::kNextTarget);
              }
              // What may have run and must not run twice is looked after, or reported.
              if (maybe_executed && !repeatable) {
                EXPECT_TRUE(to.phase == Phase::kVerify || to.phase == Phase::kFailed);
              }
              // No attempt follows another without something in between.
              EXPECT_NE(to.phase, Phase::kAttempt);
              EXPECT_EQ(to.movable, movable);
              EXPECT_EQ(to.repeatable, repeatable);
              EXPECT_LE(to.reconnects, std::max(2, reconnects));
            }
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace dfscsi::dfs
