#include "node-agent/vfs/errno.h"

#include <errno.h>

#include <map>

#include "absl/status/status.h"
#include "gtest/gtest.h"
#include "node-agent/smb/wire/nt_status.h"

namespace dfscsi::vfs {
namespace {

using smb::wire::NtStatus;

TEST(ErrnoTest, ExactErrorsKeepTheirErrno) {
  for (const int error : {ESTALE, EROFS, ENXIO, ENOSYS, EISDIR, EILSEQ}) {
    EXPECT_EQ(ErrnoOf(ErrnoError(error, "why")), error);
  }
}

TEST(ErrnoTest, OkIsZero) { EXPECT_EQ(ErrnoOf(absl::OkStatus()), 0); }

// The table of the header, code by code: every code that absl has is here.
TEST(ErrnoTest, EveryCodeHasItsErrno) {
  const std::map<absl::StatusCode, int> kTable = {
      {absl::StatusCode::kCancelled, EINTR},
      {absl::StatusCode::kUnknown, EIO},
      {absl::StatusCode::kInvalidArgument, EINVAL},
      {absl::StatusCode::kDeadlineExceeded, ETIMEDOUT},
      {absl::StatusCode::kNotFound, ENOENT},
      {absl::StatusCode::kAlreadyExists, EEXIST},
      {absl::StatusCode::kPermissionDenied, EACCES},
      {absl::StatusCode::kResourceExhausted, ENFILE},
      {absl::StatusCode::kFailedPrecondition, ELOOP},
      {absl::StatusCode::kAborted, EIO},
      {absl::StatusCode::kOutOfRange, ENAMETOOLONG},
      {absl::StatusCode::kUnimplemented, EOPNOTSUPP},
      {absl::StatusCode::kInternal, EIO},
      {absl::StatusCode::kUnavailable, EHOSTDOWN},
      {absl::StatusCode::kDataLoss, EIO},
      {absl::StatusCode::kUnauthenticated, EACCES},
  };
  for (int code = 1; code <= static_cast<int>(absl::StatusCode::kUnauthenticated); ++code) {
    const auto entry = kTable.find(static_cast<absl::StatusCode>(code));
    ASSERT_NE(entry, kTable.end()) << code;
    EXPECT_EQ(ErrnoOf(absl::Status(entry->first, "why")), entry->second)
        << absl::StatusCodeToString(entry->first);
  }
}

struct Row {
  NtStatus status;
  int in_wire_table;
};
constexpr Row kWireTable[] = {
#define DFSCSI_NT_STATUS(name, text, value, error) {NtStatus::name, error},
#include "node-agent/smb/wire/nt_status_table.inc"
#undef DFSCSI_NT_STATUS
};

// All that a server can answer becomes an error the kernel accepts: positive, below MAX_ERRNO, and
// what the wire table says unless POSIX wants something else.
TEST(ErrnoTest, EveryNtStatusOfTheWireTable) {
  const std::map<NtStatus, int> kOther = {
      {NtStatus::kStoppedOnSymlink, ESTALE},
      {NtStatus::kFileClosed, EIO},
      {NtStatus::kInvalidHandle, EIO},
      {NtStatus::kPathNotCovered, ENOENT},
  };
  int rows = 0;
  for (const Row& row : kWireTable) {
    const absl::Status status = smb::wire::ToStatus(row.status, "test");
    if (status.ok()) continue;
    const auto other = kOther.find(row.status);
    const int expected = other != kOther.end()    ? other->second
                         : row.in_wire_table == 0 ? EIO
                                                  : row.in_wire_table;
    EXPECT_EQ(ErrnoOf(status), expected) << row.status;
    EXPECT_LT(ErrnoOf(status), 4096);
    ++rows;
  }
  EXPECT_GT(rows, 70);
}

TEST(ErrnoTest, UnknownNtStatusIsEio) {
  EXPECT_EQ(ErrnoOf(smb::wire::ToStatus(static_cast<NtStatus>(0xC0FFEE00), "test")), EIO);
  EXPECT_EQ(ErrnoOf(smb::wire::ToStatus(static_cast<NtStatus>(0x80001234), "test")), EIO);
}

}  // namespace
}  // namespace dfscsi::vfs
