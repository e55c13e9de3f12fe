#include "node-agent/agent/failure.h"

#include <optional>
#include <string>

#include "absl/strings/ascii.h"
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
    case NtStatus::kFileIsADirectory:
      return v1::MISSING_PATH;
    case NtStatus::kAccessDenied:
    case NtStatus::kNetworkAccessDenied:
    case NtStatus::kCannotDelete:
    case NtStatus::kMediaWriteProtected:
    case NtStatus::kSharingViolation:
      return v1::ACCESS_DENIED;
    case NtStatus::kObjectNameInvalid:
      return v1::BAD_ARGUMENT;
    case NtStatus::kNotSupported:
      return v1::PROTOCOL;
    default:
      return std::nullopt;
  }
}

const char* MeaningOf(NtStatus status) {
  switch (status) {
    case NtStatus::kObjectNameNotFound:
    case NtStatus::kObjectPathNotFound:
    case NtStatus::kNoSuchFile:
      return "no such file or folder";
    case NtStatus::kNotADirectory:
      return "not a folder";
    case NtStatus::kFileIsADirectory:
      return "a folder, not a file";
    case NtStatus::kBadNetworkName:
      return "no such share";
    case NtStatus::kLogonFailure:
      return "wrong user or password";
    case NtStatus::kAccessDenied:
      return "access denied";
    case NtStatus::kCannotDelete:
      return "read-only, or in use";
    case NtStatus::kMediaWriteProtected:
      return "the disk is read-only";
    case NtStatus::kSharingViolation:
      return "somebody has it open";
    case NtStatus::kDiskFull:
      return "the disk is full";
    case NtStatus::kQuotaExceeded:
      return "the quota is used up";
    case NtStatus::kObjectNameInvalid:
      return "a name that the server does not have";
    default:
      return nullptr;
  }
}

}  // namespace

std::string ForPeople(const absl::Status& status) {
  std::string text(status.message());
  if (absl::IsDeadlineExceeded(status) && text == "deadline exceeded") return "no answer in time";
  const std::optional<NtStatus> nt_status = smb::wire::NtStatusOf(status);
  const char* const meaning = nt_status.has_value() ? MeaningOf(*nt_status) : nullptr;
  if (meaning == nullptr) return text;
  const std::string name = smb::wire::NtStatusName(*nt_status);
  const size_t at = text.find(name);
  if (at == std::string::npos) return text;
  // "CREATE: STATUS_…": which request it was is of no use to them.
  size_t from = at;
  if (at >= 2 && text.compare(at - 2, 2, ": ") == 0) {
    size_t begin = at - 2;
    while (begin > 0 && (absl::ascii_isupper(static_cast<unsigned char>(text[begin - 1])) ||
                         text[begin - 1] == '_')) {
      --begin;
    }
    if (begin + 2 < at && (begin == 0 || text[begin - 1] == ' ' || text[begin - 1] == '(')) {
      from = begin;
    }
  }
  return absl::StrCat(text.substr(0, from), meaning, " (", name, ")",
                      text.substr(at + name.size()));
}

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
  const std::optional<NtStatus> nt_status = smb::wire::NtStatusOf(status);
  if (nt_status.has_value()) {
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
      if (phase.has_value()) return v1::PROTOCOL;
      // Of our own: too many links. A server's is about the file.
      return nt_status.has_value() ? v1::FAILURE_REASON_UNSPECIFIED : v1::LOOP;
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kAborted:
    case absl::StatusCode::kDeadlineExceeded:
      return v1::UNREACHABLE;
    case absl::StatusCode::kDataLoss:
      return v1::PROTOCOL;
    case absl::StatusCode::kInternal:
      return v1::DANGLING_LINK;
    case absl::StatusCode::kResourceExhausted:
      // A server's: its disk is full, say.
      return nt_status.has_value() ? v1::FAILURE_REASON_UNSPECIFIED : v1::SYSTEM;
    default:
      return v1::FAILURE_REASON_UNSPECIFIED;
  }
}

}  // namespace dfscsi::agent
