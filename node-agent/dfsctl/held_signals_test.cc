#include "node-agent/dfsctl/held_signals.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include "absl/synchronization/notification.h"

namespace dfscsi::dfsctl {
namespace {

class HeldSignalsTest : public ::testing::TestWithParam<int> {};

TEST_P(HeldSignalsTest, OneThatComesIsToldAndDoesItsWorkAtTheEnd) {
  EXPECT_EXIT(
      {
        absl::Notification told;
        {
          const HeldSignals held;
          if (HeldSignals::Came()) _exit(1);
          const SignalWatch watch([&told] { told.Notify(); });
          kill(getpid(), GetParam());
          told.WaitForNotification();
          if (!HeldSignals::Came()) _exit(2);
        }
        _exit(3);
      },
      ::testing::KilledBySignal(GetParam()), "");
}

TEST_P(HeldSignalsTest, OneThatIsDroppedDoesNothing) {
  EXPECT_EXIT(
      {
        {
          HeldSignals held;
          kill(getpid(), GetParam());
          held.Drop();
          if (HeldSignals::Came()) _exit(1);
        }
        _exit(0);
      },
      ::testing::ExitedWithCode(0), "");
}

TEST_P(HeldSignalsTest, OneThatIsIgnoredStaysIgnored) {
  EXPECT_EXIT(
      {
        signal(GetParam(), SIG_IGN);
        {
          const HeldSignals held;
          const SignalWatch watch([] { _exit(1); });
          kill(getpid(), GetParam());
          if (HeldSignals::Came()) _exit(2);
        }
        _exit(0);
      },
      ::testing::ExitedWithCode(0), "");
}

TEST_P(HeldSignalsTest, AWatchEndsWithoutASignalAndCallsNobody) {
  const HeldSignals held;
  bool called = false;
  {
    const SignalWatch watch([&called] { called = true; });
  }
  EXPECT_FALSE(called);
}

INSTANTIATE_TEST_SUITE_P(Each, HeldSignalsTest, ::testing::Values(SIGINT, SIGTERM, SIGHUP));

}  // namespace
}  // namespace dfscsi::dfsctl
