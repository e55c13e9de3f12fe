#include "node-agent/dfsctl/restart_policy.h"

#include <gtest/gtest.h>

namespace dfscsi::dfsctl {
namespace {

constexpr absl::Time kBegin = absl::UnixEpoch();

TEST(RestartPolicyTest, ABurstOfDeathsIsAnsweredAtOnce) {
  RestartPolicy policy;
  for (int i = 0; i < RestartPolicy::kBurst; ++i) {
    EXPECT_LE(policy.Next(), kBegin) << i;
    policy.NoteStart(kBegin);
  }
  EXPECT_EQ(policy.Next(), kBegin + RestartPolicy::kRefillTime);
}

TEST(RestartPolicyTest, DeathsWithoutEndAreAnsweredAtASteadyPace) {
  RestartPolicy policy;
  absl::Time now = kBegin;
  int starts = 0;
  for (; now < kBegin + absl::Minutes(10); now = std::max(now, policy.Next())) {
    policy.NoteStart(now);
    ++starts;
  }
  EXPECT_NEAR(starts, RestartPolicy::kBurst + absl::Minutes(10) / RestartPolicy::kRefillTime, 1);
}

TEST(RestartPolicyTest, AfterAQuietTimeThereMayBeABurstAgain) {
  RestartPolicy policy;
  for (int i = 0; i < RestartPolicy::kBurst; ++i) policy.NoteStart(kBegin);
  const absl::Time later = kBegin + RestartPolicy::kBurst * RestartPolicy::kRefillTime;
  for (int i = 0; i < RestartPolicy::kBurst; ++i) {
    EXPECT_LE(policy.Next(), later) << i;
    policy.NoteStart(later);
  }
  EXPECT_GT(policy.Next(), later);
}

TEST(RestartPolicyTest, AProgramThatCannotWorkHereIsTriedEverMoreRarely) {
  RestartPolicy policy;
  absl::Duration last = absl::ZeroDuration();
  for (int i = 0; i < 12; ++i) {
    policy.NoteError(kBegin);
    const absl::Duration wait = policy.Next() - kBegin;
    EXPECT_EQ(wait,
              std::min(i == 0 ? RestartPolicy::kFirstWait : 2 * last, RestartPolicy::kLongestWait));
    last = wait;
  }
  EXPECT_EQ(last, RestartPolicy::kLongestWait);
  policy.NoteSuccess();
  policy.NoteError(kBegin);
  EXPECT_EQ(policy.Next(), kBegin + RestartPolicy::kFirstWait);
}

}  // namespace
}  // namespace dfscsi::dfsctl
