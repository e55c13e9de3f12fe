#include "node-agent/agent/guarded_sessions.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <utility>

#include "node-agent/base/secret.h"
#include "node-agent/base/unique_fd.h"
#include "node-agent/smb/secret_refused.h"
#include "node-agent/smb/wire/nt_status.h"
#include "node-agent/state/logon_guard.h"

namespace dfscsi::agent {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

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

using smb::wire::NtStatus;

absl::Status Refusal(NtStatus why) { return smb::wire::ToStatus(why, "log-on to fs1"); }

TEST(GuardedSessionsTest, AWrongPasswordIsNotShownAgainUntilItIsForgiven) {
  absl::StatusOr<UniqueFd> fd = state::LogonGuard::Create();
  ASSERT_TRUE(fd.ok()) << fd.status();
  smb::Credential credential;
  credential.user = "alice";
  credential.domain = "LAB";
  credential.password = Secret("Canary-password");
  const std::string identity = credential.Identity();
  ::testing::internal::CaptureStderr();
  // However often agents begin anew.
  for (int restart = 0; restart < 500; ++restart) {
    absl::StatusOr<state::LogonGuard> guard = state::LogonGuard::Map(fd->get());
    ASSERT_TRUE(guard.ok()) << guard.status();
    GuardedSessions sessions(*guard);
    const absl::Duration remaining = sessions.RefusedFor("FS1", identity);
    if (restart > 0) {
      EXPECT_GT(remaining, GuardedSessions::kRefusedFor - absl::Minutes(1));
      continue;
    }
    EXPECT_EQ(remaining, absl::ZeroDuration());
    sessions.RememberRefusal("fs1", credential, Refusal(NtStatus::kLogonFailure));
  }
  absl::StatusOr<state::LogonGuard> guard = state::LogonGuard::Map(fd->get());
  ASSERT_TRUE(guard.ok()) << guard.status();
  GuardedSessions sessions(*guard);
  sessions.ForgiveRefusals();
  EXPECT_EQ(sessions.RefusedFor("fs1", identity), absl::ZeroDuration());
  // Once for each log-on that a server saw: here for the second.
  sessions.RememberRefusal("fs1", credential, Refusal(NtStatus::kLogonFailure));
  const std::string log = ::testing::internal::GetCapturedStderr();
  EXPECT_EQ(std::count(log.begin(), log.end(), '\n'), 2) << log;
  EXPECT_THAT(log, HasSubstr(" W log-on to fs1: STATUS_LOGON_FAILURE, user LAB\\alice; not tried "
                             "again for 5 minutes, or until dfsctl cache flush\n"));
  EXPECT_THAT(log, Not(HasSubstr("Canary")));
}

// The KDC counts what it is shown, for whichever server that is.
TEST(GuardedSessionsTest, APasswordThatTheKdcRefusedIsNotTriedForAnotherServerNorByANewAgent) {
  absl::StatusOr<UniqueFd> fd = state::LogonGuard::Create();
  ASSERT_TRUE(fd.ok()) << fd.status();
  smb::Credential credential;
  credential.mechanism = smb::Mechanism::kKerberos;
  credential.user = "ann";
  credential.domain = "LAB.TEST";
  credential.password = Secret("Canary-password");
  smb::Credential mended = credential;
  mended.password = Secret("Canary-other");
  {
    absl::StatusOr<state::LogonGuard> before = state::LogonGuard::Map(fd->get());
    ASSERT_TRUE(before.ok()) << before.status();
    ::testing::internal::CaptureStderr();
    GuardedSessions(*before).RememberRefusal(
        "fs1", credential, smb::SecretRefusedError("log-on of ann: Preauthentication failed"));
    EXPECT_THAT(::testing::internal::GetCapturedStderr(),
                HasSubstr(" W log-on of ann: Preauthentication failed, user LAB.TEST\\ann; not "
                          "tried again for any server for 5 minutes, or until dfsctl cache "
                          "flush\n"));
  }
  absl::StatusOr<state::LogonGuard> after = state::LogonGuard::Map(fd->get());
  ASSERT_TRUE(after.ok()) << after.status();
  GuardedSessions sessions(*after);
  for (const char* host : {"fs1", "fs2"}) {
    EXPECT_GT(sessions.RefusedFor(host, credential.Identity()),
              GuardedSessions::kRefusedFor - absl::Minutes(1))
        << host;
    EXPECT_EQ(sessions.RefusedFor(host, mended.Identity()), absl::ZeroDuration()) << host;
  }
  sessions.ForgiveRefusals();
  EXPECT_EQ(sessions.RefusedFor("fs2", credential.Identity()), absl::ZeroDuration());
}

// Asking again does not make these worse, and only asking tells when they are over.
TEST(GuardedSessionsTest, AnAccountThatIsLockedOrDisabledIsAskedForAgainAndLoggedOnce) {
  absl::StatusOr<UniqueFd> fd = state::LogonGuard::Create();
  ASSERT_TRUE(fd.ok()) << fd.status();
  absl::StatusOr<state::LogonGuard> guard = state::LogonGuard::Map(fd->get());
  ASSERT_TRUE(guard.ok()) << guard.status();
  GuardedSessions sessions(*guard);
  smb::Credential credential;
  credential.user = "bob";
  ::testing::internal::CaptureStderr();
  for (int i = 0; i < 3; ++i) {
    sessions.RememberRefusal("fs1", credential, Refusal(NtStatus::kAccountLockedOut));
    EXPECT_EQ(sessions.RefusedFor("fs1", credential.Identity()), absl::ZeroDuration());
  }
  const std::string log = ::testing::internal::GetCapturedStderr();
  EXPECT_EQ(std::count(log.begin(), log.end(), '\n'), 1) << log;
  EXPECT_THAT(log, HasSubstr(" W log-on to fs1: STATUS_ACCOUNT_LOCKED_OUT, user bob\n"));
}

}  // namespace
}  // namespace dfscsi::agent
