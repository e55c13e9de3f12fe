#include "node-agent/smb/wire/nt_status.h"

#include <errno.h>
#include <gtest/gtest.h>

#include <sstream>

namespace dfscsi::smb::wire {
namespace {

TEST(NtStatusTest, HasNamesAndErrnos) {
  const struct {
    uint32_t value;
    const char* name;
    int error;
    absl::StatusCode code;
  } kCases[] = {
      {0xC0000022, "STATUS_ACCESS_DENIED", EACCES, absl::StatusCode::kPermissionDenied},
      {0xC0000034, "STATUS_OBJECT_NAME_NOT_FOUND", ENOENT, absl::StatusCode::kNotFound},
      {0xC0000035, "STATUS_OBJECT_NAME_COLLISION", EEXIST, absl::StatusCode::kAlreadyExists},
      {0xC0000043, "STATUS_SHARING_VIOLATION", EBUSY, absl::StatusCode::kFailedPrecondition},
      {0xC00000BE, "STATUS_BAD_NETWORK_PATH", EHOSTUNREACH, absl::StatusCode::kInternal},
      {0xC0000257, "STATUS_PATH_NOT_COVERED", EREMOTE, absl::StatusCode::kInternal},
      {0xC000007F, "STATUS_DISK_FULL", ENOSPC, absl::StatusCode::kResourceExhausted},
      {0xC0000120, "STATUS_CANCELLED", EINTR, absl::StatusCode::kInternal},
      {0xC0000001, "STATUS_UNSUCCESSFUL", EIO, absl::StatusCode::kInternal},
      {0xC0001234, "NTSTATUS 0xC0001234", EIO, absl::StatusCode::kInternal},
      {0x80001234, "NTSTATUS 0x80001234", EIO, absl::StatusCode::kInternal},
      {0x80000006, "STATUS_NO_MORE_FILES", 0, absl::StatusCode::kInternal},
      {0xC0000011, "STATUS_END_OF_FILE", 0, absl::StatusCode::kInternal},
  };
  for (const auto& test : kCases) {
    const NtStatus status = static_cast<NtStatus>(test.value);
    EXPECT_EQ(NtStatusName(status), test.name);
    EXPECT_EQ(ErrnoOf(status), test.error) << test.name;
    const absl::Status converted = ToStatus(status, "CREATE");
    EXPECT_EQ(converted.code(), test.code) << test.name;
    EXPECT_EQ(std::string(converted.message()), std::string("CREATE: ") + test.name);
    EXPECT_EQ(NtStatusOf(converted), status);
  }
}

TEST(NtStatusTest, NoStatusReadsAsMalformedOrAsSuccess) {
#define DFSCSI_NT_STATUS(name, text, value, error)                                      \
  EXPECT_NE(ToStatus(NtStatus::name, "x").code(), absl::StatusCode::kDataLoss) << text; \
  EXPECT_FALSE(ToStatus(NtStatus::name, "x").ok()) << text;                             \
  EXPECT_EQ(NtStatusName(NtStatus::name), "STATUS_" text);
#include "node-agent/smb/wire/nt_status_table.inc"
#undef DFSCSI_NT_STATUS
}

TEST(NtStatusTest, StatusesOfOthersHoldNone) {
  EXPECT_EQ(NtStatusOf(absl::OkStatus()), std::nullopt);
  EXPECT_EQ(NtStatusOf(absl::UnavailableError("connection reset")), std::nullopt);
}

TEST(NtStatusTest, SeverityIsTheTopTwoBits) {
  EXPECT_TRUE(IsSuccess(NtStatus::kSuccess));
  EXPECT_TRUE(IsSuccess(NtStatus::kPending));
  EXPECT_EQ(SeverityOf(NtStatus::kBufferOverflow), Severity::kWarning);
  EXPECT_EQ(SeverityOf(NtStatus::kAccessDenied), Severity::kError);
  EXPECT_FALSE(IsSuccess(NtStatus::kNoMoreFiles));
}

TEST(NtStatusTest, PrintsItsName) {
  std::ostringstream stream;
  stream << NtStatus::kDfsUnavailable;
  EXPECT_EQ(stream.str(), "STATUS_DFS_UNAVAILABLE");
}

}  // namespace
}  // namespace dfscsi::smb::wire
