#include "node-agent/fuse/killed_process.h"

#include <gtest/gtest.h>
#include <limits.h>
#include <unistd.h>

namespace dfscsi::fuse {
namespace {

TEST(KilledProcessTest, SigkillAmongTheThreadsPendingSignals) {
  const struct {
    const char* text;
    bool killed;
  } kCases[] = {
      {"Name:\tx\nSigQ:\t0/9\nSigPnd:\t0000000000000100\nShdPnd:\t0000000000000000\n", true},
      {"Name:\tx\nSigPnd:\t0000000000004100\n", true},
      {"Name:\tx\nSigPnd:\t0000000000000000\nShdPnd:\t0000000000000100\n", false},
      {"Name:\tx\nSigPnd:\t0000000000000200\n", false},
      {"Name:\tSigPnd:\t0000000000000100\n", false},
      {"Name:\tx\nSigPnd:\t", false},
      {"Name:\tx\nSigPnd:\tzz\n", false},
      {"", false},
  };
  for (const auto& c : kCases) EXPECT_EQ(HasPendingKill(c.text), c.killed) << c.text;
}

TEST(KilledProcessTest, WhoLivesIsNotBeingKilled) {
  EXPECT_FALSE(IsBeingKilled(static_cast<uint32_t>(getpid())));
  EXPECT_FALSE(IsBeingKilled(INT_MAX));
}

}  // namespace
}  // namespace dfscsi::fuse
