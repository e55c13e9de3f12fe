#include "node-agent/agent/failure.h"

#include <gtest/gtest.h>

#include "node-agent/smb/wire/nt_status.h"

namespace dfscsi::agent {
namespace {

using smb::wire::NtStatus;
using smb::wire::ToStatus;

TEST(FailureTest, AFolderThatIsReadIsNoLoopOfLinks) {
  EXPECT_EQ(ReasonOf(ToStatus(NtStatus::kFileIsADirectory, "CREATE")), v1::MISSING_PATH);
  EXPECT_EQ(ReasonOf(ToStatus(NtStatus::kDirectoryNotEmpty, "SET_INFO")),
            v1::FAILURE_REASON_UNSPECIFIED);
  EXPECT_EQ(ReasonOf(absl::FailedPreconditionError("too many links")), v1::LOOP);
}

TEST(FailureTest, AFullDiskOfAServerIsNotOurs) {
  EXPECT_EQ(ReasonOf(ToStatus(NtStatus::kDiskFull, "WRITE")), v1::FAILURE_REASON_UNSPECIFIED);
  EXPECT_EQ(ReasonOf(absl::ResourceExhaustedError("write: No space left")), v1::SYSTEM);
}

TEST(FailureTest, AServersStatusIsExplained) {
  const struct {
    NtStatus status;
    const char* what;
    const char* shown;
  } kTests[] = {
      {NtStatus::kObjectPathNotFound, "CREATE",
       "no such file or folder (STATUS_OBJECT_PATH_NOT_FOUND)"},
      {NtStatus::kLogonFailure, "log-on to t1",
       "log-on to t1: wrong user or password (STATUS_LOGON_FAILURE)"},
      {NtStatus::kLogonFailure, "t1: SESSION_SETUP",
       "t1: wrong user or password (STATUS_LOGON_FAILURE)"},
      {NtStatus::kDiskFull, "WRITE", "the disk is full (STATUS_DISK_FULL)"},
      {NtStatus::kLockNotGranted, "CREATE", "CREATE: STATUS_LOCK_NOT_GRANTED"},
  };
  for (const auto& test : kTests) {
    EXPECT_EQ(ForPeople(ToStatus(test.status, test.what)), test.shown);
  }
  EXPECT_EQ(ForPeople(absl::NotFoundError("as it is")), "as it is");
}

}  // namespace
}  // namespace dfscsi::agent
