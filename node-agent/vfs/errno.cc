#include "node-agent/vfs/errno.h"

#include <errno.h>

#include <optional>
#include <string>

#include "absl/strings/cord.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "node-agent/smb/wire/nt_status.h"

namespace dfscsi::vfs {
namespace {

using smb::wire::NtStatus;

constexpr char kErrnoUrl[] = "dfs-csi/errno";

struct StatusOverride {
  NtStatus status;
  int error;
};

// What the general table says of these is right for a program that speaks SMB, not for the kernel.
constexpr StatusOverride kStatusOverrides[] = {
    // A component that was looked up as a directory is a link by now: look it up again.
    {NtStatus::kStoppedOnSymlink, ESTALE},
    // The handle, or its session, was opened anew as often as is reasonable.
    {NtStatus::kFileClosed, EIO},
    {NtStatus::kInvalidHandle, EIO},
    // No referral covers the path.
    {NtStatus::kPathNotCovered, ENOENT},
};

std::optional<int> ExactErrno(const absl::Status& status) {
  const absl::optional<absl::Cord> payload = status.GetPayload(kErrnoUrl);
  int error = 0;
  if (!payload.has_value() || !absl::SimpleAtoi(std::string(*payload), &error)) return std::nullopt;
  return error;
}

int ErrnoOfCode(absl::StatusCode code) {
  switch (code) {
    case absl::StatusCode::kCancelled:
      return EINTR;
    case absl::StatusCode::kDeadlineExceeded:
      return ETIMEDOUT;
    case absl::StatusCode::kUnavailable:
      return EHOSTDOWN;
    case absl::StatusCode::kNotFound:
      return ENOENT;
    case absl::StatusCode::kAlreadyExists:
      return EEXIST;
    case absl::StatusCode::kPermissionDenied:
    case absl::StatusCode::kUnauthenticated:
      return EACCES;
    case absl::StatusCode::kInvalidArgument:
      return EINVAL;
    case absl::StatusCode::kOutOfRange:
      return ENAMETOOLONG;
    case absl::StatusCode::kResourceExhausted:
      return ENFILE;
    case absl::StatusCode::kFailedPrecondition:
      return ELOOP;
    case absl::StatusCode::kUnimplemented:
      return EOPNOTSUPP;
    default:
      return EIO;
  }
}

}  // namespace

absl::Status ErrnoError(int error, std::string_view what) {
  absl::Status status = absl::UnknownError(std::string(what));
  const std::string text = absl::StrCat(error);
  status.SetPayload(kErrnoUrl, absl::Cord(absl::string_view(text)));
  return status;
}

int ErrnoOf(const absl::Status& status) {
  if (status.ok()) return 0;
  int error = 0;
  if (const std::optional<int> exact = ExactErrno(status)) {
    error = *exact;
  } else if (const std::optional<NtStatus> nt_status = smb::wire::NtStatusOf(status)) {
    error = smb::wire::ErrnoOf(*nt_status);
    for (const StatusOverride& entry : kStatusOverrides) {
      if (entry.status == *nt_status) error = entry.error;
    }
  } else {
    error = ErrnoOfCode(status.code());
  }
  return error > 0 ? error : EIO;
}

}  // namespace dfscsi::vfs
