#include "node-agent/agent/failure.h"

#include <optional>
#include <string>

#include "absl/strings/cord.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "node-agent/dfs/failure_class.h"
#include "node-agent/smb/session_pool.h"
#include "node-agent/smb/wire/nt_status.h"

namespace dfscsi::agent {
namespace {

using smb::wire::NtStatus;

constexpr char kReasonUrl[] = "dfscsi/failure_reason";

std::optional<v1::FailureReason> ReasonOfNtStatus(NtStatus status) {
  switch (status) {
    case NtStatus::kLogonFailure:
    case NtStatus::kWrongPassword:
    case NtStatus::kAccountDisabled:
    case NtStatus::kAccountExpired:
    case NtStatus::kAccountLockedOut:
    case NtStatus::kAccountRestriction:
    case NtStatus::kPasswordExpired:
    case NtStatus::kPasswordMustChange:
    case NtStatus::kLogonTypeNotGranted:
    case NtStatus::kInvalidLogonHours:
    case NtStatus::kInvalidWorkstation:
      return v1::WRONG_CREDENTIAL;
    case NtStatus::kBadNetworkName:
    case NtStatus::kBadNetworkPath:
      return v1::UNKNOWN_SHARE;
    case NtStatus::kObjectNameNotFound:
    case NtStatus::kObjectPathNotFound:
    case NtStatus::kNoSuchFile:
    case NtStatus::kNotADirectory:
      return v1::MISSING_PATH;
    case NtStatus::kAccessDenied:
    case NtStatus::kNetworkAccessDenied:
      return v1::ACCESS_DENIED;
    case NtStatus::kNotSupported:
      return v1::PROTOCOL;
    default:
      return std::nullopt;
  }
}

}  // namespace

absl::Status WithReason(absl::Status status, v1::FailureReason reason) {
  const std::string text = absl::StrCat(static_cast<int>(reason));
  status.SetPayload(kReasonUrl, absl::Cord(absl::string_view(text)));
  return status;
}

v1::FailureReason ReasonOf(const absl::Status& status) {
  if (const absl::optional<absl::Cord> said = status.GetPayload(kReasonUrl); said.has_value()) {
    int reason = 0;
    if (absl::SimpleAtoi(std::string(*said), &reason) && v1::FailureReason_IsValid(reason)) {
      return static_cast<v1::FailureReason>(reason);
    }
  }
  if (dfs::IsDanglingLink(status)) return v1::DANGLING_LINK;
  if (const std::optional<NtStatus> nt_status = smb::wire::NtStatusOf(status)) {
    if (const auto reason = ReasonOfNtStatus(*nt_status)) return *reason;
  }
  const std::optional<smb::ConnectPhase> phase = smb::ConnectPhaseOf(status);
  switch (status.code()) {
    case absl::StatusCode::kUnauthenticated:
      return v1::WRONG_CREDENTIAL;
    case absl::StatusCode::kPermissionDenied:
      return v1::ACCESS_DENIED;
    case absl::StatusCode::kInvalidArgument:
      return v1::BAD_ARGUMENT;
    case absl::StatusCode::kNotFound:
      return phase == smb::ConnectPhase::kResolve ? v1::UNKNOWN_HOST : v1::MISSING_PATH;
    case absl::StatusCode::kFailedPrecondition:
      return phase.has_value() ? v1::PROTOCOL : v1::LOOP;
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kAborted:
    case absl::StatusCode::kDeadlineExceeded:
      return v1::UNREACHABLE;
    case absl::StatusCode::kDataLoss:
      return v1::PROTOCOL;
    case absl::StatusCode::kInternal:
      return v1::DANGLING_LINK;
    case absl::StatusCode::kResourceExhausted:
      return v1::SYSTEM;
    default:
      return v1::FAILURE_REASON_UNSPECIFIED;
  }
}

}  // namespace dfscsi::agent
