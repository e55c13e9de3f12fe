#include "node-agent/agent/guarded_sessions.h"

#include <gtest/gtest.h>

#include <utility>

#include "node-agent/base/unique_fd.h"
#include "node-agent/state/logon_guard.h"

namespace dfscsi::agent {
namespace {

TEST(GuardedSessionsTest, SessionOfDeadAgentIsEndedOnceAndOwnOnesNever) {
  absl::StatusOr<UniqueFd> fd = state::LogonGuard::Create();
  ASSERT_TRUE(fd.ok()) << fd.status();
  absl::StatusOr<state::LogonGuard> before = state::LogonGuard::Map(fd->get());
  ASSERT_TRUE(before.ok()) << before.status();
  GuardedSessions(*before).RememberSessionId("Server", "user", 11);

  absl::StatusOr<state::LogonGuard> after = state::LogonGuard::Map(fd->get());
  ASSERT_TRUE(after.ok()) << after.status();
  GuardedSessions sessions(*after);
  EXPECT_EQ(sessions.PreviousSessionId("server", "user"), 11u);
  sessions.RememberSessionId("server", "user", 12);
  // Two mounts whose options differ have a session each; neither may end the other's.
  EXPECT_EQ(sessions.PreviousSessionId("server", "user"), 0u);
  EXPECT_EQ(sessions.PreviousSessionId("SERVER", "user"), 0u);
}

}  // namespace
}  // namespace dfscsi::agent
