#include "node-agent/smb/silence_clock.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

namespace dfscsi::smb {
namespace {

constexpr char kFine[] = "fine", kSuspect[] = "suspect", kLost[] = "lost";

// A story: what happens when, and what is to be seen then. Times in milliseconds.
struct Event {
  int at_ms;
  // busy, idle, bytes, answer, tcp, reset, reconnected, unlisted, stall, or a verdict to be seen:
  // fine, suspect, lost.
  std::string what;
  int value = 0;         // answer: latency, ms. stall: ms. tcp: data segments.
  int retransmits = -1;  // tcp: -1, all is acknowledged.
};

struct Story {
  std::string name;
  std::vector<Event> events;
  SilenceCause cause_at_end = SilenceCause::kNone;

  friend void PrintTo(const Story& story, std::ostream* os) { *os << story.name; }
};

class SilenceStoryTest : public testing::TestWithParam<Story> {};

TEST_P(SilenceStoryTest, Tells) {
  const absl::Time start = absl::UnixEpoch() + absl::Hours(1);
  SilenceClock clock({});
  SilenceClock::Verdict verdict;
  for (const Event& event : GetParam().events) {
    const absl::Time now = start + absl::Milliseconds(event.at_ms);
    if (event.what == "busy") {
      clock.OnBusy(now);
    } else if (event.what == "idle") {
      clock.OnIdle();
    } else if (event.what == "bytes") {
      clock.OnBytes(now);
    } else if (event.what == "answer") {
      clock.OnAnswer(now, absl::Milliseconds(event.value));
    } else if (event.what == "tcp") {
      clock.OnTcp(now, {.data_segments_in = event.value,
                        .unacknowledged = event.retransmits >= 0,
                        .retransmits = std::max(0, event.retransmits)});
    } else if (event.what == "reset") {
      clock.OnDisconnected(now);
    } else if (event.what == "reconnected") {
      clock.OnReconnected(now);
    } else if (event.what == "unlisted") {
      clock.OnUnlisted(now);
    } else if (event.what == "stall") {
      clock.OnLocalStall(absl::Milliseconds(event.value));
    } else {
      verdict = clock.Look(now);
      const std::string got = verdict.silence == Silence::kNone      ? kFine
                              : verdict.silence == Silence::kSuspect ? kSuspect
                                                                     : kLost;
      EXPECT_EQ(got, event.what) << "at " << event.at_ms << " ms";
      if (verdict.silence != Silence::kLost) {
        EXPECT_GT(verdict.look_again, now);
      }
    }
  }
  EXPECT_EQ(SilenceCauseName(verdict.cause), SilenceCauseName(GetParam().cause_at_end));
}

// A slow server: one request after the other, each answered after `latency`, looked at every 50 ms.
std::vector<Event> SlowServer(int latency_ms, int requests, int warm_up_latency_ms) {
  // NEGOTIATE, SESSION_SETUP, TREE_CONNECT came before, over the same path.
  std::vector<Event> events = {{0, "busy"}, {warm_up_latency_ms, "answer", warm_up_latency_ms}};
  int now = warm_up_latency_ms;
  for (int i = 0; i < requests; ++i) {
    for (int at = 50; at < latency_ms; at += 50) events.push_back({now + at, kFine});
    now += latency_ms;
    events.push_back({now, "answer", latency_ms});
    events.push_back({now, kFine});
  }
  return events;
}

// Every 20th segment is lost once, some twice: TCP says how far it is.
std::vector<Event> LossyPath() {
  std::vector<Event> events = {{0, "busy"}, {20, "answer", 20}};
  int now = 20;
  for (int i = 0; i < 20; ++i) {
    events.push_back({now + 200, "tcp", i, 1});
    events.push_back({now + 600, "tcp", i, 2});
    events.push_back({now + 900, kFine});
    events.push_back({now + 1100, "tcp", i, 2});
    events.push_back({now + 1100, kFine});
    now += 1300;
    events.push_back({now, "bytes"});
  }
  return events;
}

INSTANTIATE_TEST_SUITE_P(
    Silence, SilenceStoryTest,
    testing::ValuesIn<Story>({
        {"IdleIsNeverSilence", {{0, "busy"}, {10, "answer", 10}, {10, "idle"}, {3600000, kFine}}},
        {"C02_SilentServer",
         {{0, "busy"}, {990, kFine}, {1000, kSuspect}, {29999, kSuspect}, {30000, kLost}},
         SilenceCause::kServerHung},
        {"C05_AcknowledgedButSilentIsAHungServer",
         {{0, "busy"}, {500, "tcp", 7}, {990, "tcp", 7}, {1000, kSuspect}},
         SilenceCause::kServerHung},
        {"C03_UnacknowledgedWithThreeRetransmitsIsADeadPath",
         {{0, "busy"}, {900, "tcp", 7, 2}, {1000, kFine}, {1400, "tcp", 7, 3}, {1400, kSuspect}},
         SilenceCause::kPathDown},
        {"FewRetransmitsDoNotHoldForEver",
         {{0, "busy"}, {900, "tcp", 7, 0}, {1900, kFine}, {2000, kSuspect}},
         SilenceCause::kPathDown},
        {"BytesRestartBothClocks",
         {{0, "busy"},
          {900, "bytes"},
          {1800, kFine},
          {1900, kSuspect},
          {2000, "bytes"},
          {2000, kFine},
          {31999, kSuspect},
          {32000, kLost}},
         SilenceCause::kServerHung},
        {"SegmentsOutOfOrderAreSignsOfLife",
         {{0, "busy"}, {500, "tcp", 7}, {900, "tcp", 8}, {1800, kFine}, {1900, kSuspect}},
         SilenceCause::kServerHung},
        {"AnEchoThatIsAnswered",
         {{0, "busy"}, {500, kFine}, {501, "answer", 1}, {1500, kFine}, {1501, kSuspect}},
         SilenceCause::kServerHung},
        {"C01_ResetIsSuspectAtOnceAndNotLost",
         {{0, "busy"}, {100, "reset"}, {100, kSuspect}, {29999, kSuspect}},
         SilenceCause::kDisconnected},
        {"ResetIsLostLater",
         {{0, "busy"}, {100, "answer", 1}, {200, "reset"}, {30099, kSuspect}, {30100, kLost}},
         SilenceCause::kDisconnected},
        {"ResetWhileIdle",
         {{0, "busy"},
          {1, "answer", 1},
          {1, "idle"},
          {5000, "reset"},
          {5000, kSuspect},
          {34999, kSuspect},
          {35000, kLost}},
         SilenceCause::kDisconnected},
        {"C35_ARestartedServiceWasNeverLost",
         {{0, "busy"},
          {100, "reset"},
          {9000, kSuspect},
          {9000, "reconnected"},
          {9000, kFine},
          {9999, kFine},
          {10000, kSuspect}},
         SilenceCause::kServerHung},
        {"E04_UnlistedIsLostAtOnce",
         {{0, "busy"}, {1, "answer", 1}, {1, "idle"}, {10, "unlisted"}, {10, kLost}},
         SilenceCause::kUnlisted},
        {"C32_HalfASecondOfLatency", SlowServer(1000, 20, 1000)},
        {"SlowerThanItEverWas", SlowServer(3900, 5, 1000)},
        {"VerySlowAllTheTime", SlowServer(9000, 5, 9000)},
        {"ASlowServerThatDies",
         {{0, "busy"}, {800, "answer", 800}, {3999, kFine}, {4000, kSuspect}},
         SilenceCause::kServerHung},
        {"SlownessIsBounded",
         {{0, "busy"}, {60000, "answer", 60000}, {69999, kFine}, {70000, kSuspect}},
         SilenceCause::kServerHung},
        {"C33_LossyPath", LossyPath()},
        {"OurOwnPauseIsNotTheServers",
         {{0, "busy"}, {5000, "stall", 4900}, {5000, kFine}, {5899, kFine}, {5900, kSuspect}},
         SilenceCause::kServerHung},
    }),
    [](const auto& info) { return info.param.name; });

TEST(SilenceClockTest, AsksForAnEchoAtHalfTime) {
  const absl::Time start = absl::UnixEpoch() + absl::Hours(1);
  SilenceClock clock({});
  EXPECT_EQ(clock.Look(start).look_again, absl::InfiniteFuture());
  clock.OnBusy(start);
  EXPECT_FALSE(clock.Look(start).probe);
  EXPECT_EQ(clock.Look(start).look_again, start + absl::Milliseconds(500));
  EXPECT_TRUE(clock.Look(start + absl::Milliseconds(500)).probe);
  EXPECT_EQ(clock.Look(start + absl::Milliseconds(500)).look_again, start + absl::Seconds(1));
  EXPECT_EQ(clock.Look(start + absl::Seconds(1)).look_again, start + absl::Seconds(30));
}

TEST(SilenceClockTest, MoreRequestsDoNotRestartTheClock) {
  const absl::Time start = absl::UnixEpoch() + absl::Hours(1);
  SilenceClock clock({});
  clock.OnBusy(start);
  clock.OnBusy(start + absl::Milliseconds(900));
  EXPECT_EQ(clock.Look(start + absl::Seconds(1)).silence, Silence::kSuspect);
}

TEST(SilenceClockTest, PastSlownessIsForgotten) {
  const absl::Time now = absl::UnixEpoch() + absl::Hours(1);
  SilenceClock clock({});
  clock.OnBusy(now);
  clock.OnAnswer(now, absl::Seconds(2));
  EXPECT_EQ(clock.SuspectAfter(), absl::Seconds(8));
  for (int i = 0; i < 100; ++i) clock.OnAnswer(now, absl::Milliseconds(1));
  EXPECT_EQ(clock.SuspectAfter(), absl::Seconds(1));
}

}  // namespace
}  // namespace dfscsi::smb
