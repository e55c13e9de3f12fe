#include "node-agent/dfs/failure_class.h"

#include <cerrno>
#include <optional>

#include "absl/strings/cord.h"
#include "node-agent/smb/wire/nt_status.h"

namespace dfscsi::dfs {
namespace {

using smb::wire::NtStatus;
using Class = FailureClass;
using Action = FailureAction;
using Phase = AttemptPhase;

constexpr char kDanglingUrl[] = "dfscsi/dangling_link";

// The groups of [MS-ERREF] values that are treated alike in all phases.
enum class Group {
  kDown,       // The server, its network or its service is going or gone.
  kShareGone,  // The tree connect is void, or the share never was.
  kRefusesUser,
  kMayRefuse,  // ACCESS_DENIED: of the user, of the file, or of our signature.
  kBusy,
  kSessionGone,
  kNotCovered,
  kNotThere,  // No such path.
  kNoDfs,     // The server knows nothing of DFS.
  kOther,
};

Group GroupOf(NtStatus status) {
  switch (status) {
    case NtStatus::kBadNetworkPath:
    case NtStatus::kServerUnavailable:
    case NtStatus::kFileNotAvailable:
    case NtStatus::kRequestNotAccepted:
    case NtStatus::kNetworkBusy:
    case NtStatus::kUnexpectedNetworkError:
    case NtStatus::kIoTimeout:
    case NtStatus::kNetworkShutdown:
    case NtStatus::kConnectionDisconnected:
    case NtStatus::kConnectionReset:
    case NtStatus::kConnectionRefused:
    case NtStatus::kConnectionAborted:
    case NtStatus::kNetworkUnreachable:
    case NtStatus::kHostUnreachable:
      return Group::kDown;
    case NtStatus::kNetworkNameDeleted:
    case NtStatus::kBadNetworkName:
      return Group::kShareGone;
    case NtStatus::kLogonFailure:
    case NtStatus::kWrongPassword:
    case NtStatus::kAccountRestriction:
    case NtStatus::kInvalidLogonHours:
    case NtStatus::kInvalidWorkstation:
    case NtStatus::kPasswordExpired:
    case NtStatus::kPasswordMustChange:
    case NtStatus::kAccountDisabled:
    case NtStatus::kAccountExpired:
    case NtStatus::kAccountLockedOut:
    case NtStatus::kLogonTypeNotGranted:
    case NtStatus::kNoLogonServers:
    case NtStatus::kNetworkAccessDenied:
      return Group::kRefusesUser;
    case NtStatus::kAccessDenied:
      return Group::kMayRefuse;
    case NtStatus::kInsuffServerResources:
    case NtStatus::kInsufficientResources:
      return Group::kBusy;
    case NtStatus::kUserSessionDeleted:
    case NtStatus::kNetworkSessionExpired:
      return Group::kSessionGone;
    case NtStatus::kPathNotCovered:
      return Group::kNotCovered;
    case NtStatus::kObjectNameNotFound:
    case NtStatus::kObjectPathNotFound:
    case NtStatus::kObjectNameInvalid:
    case NtStatus::kObjectPathInvalid:
    case NtStatus::kObjectPathSyntaxBad:
    case NtStatus::kNoSuchFile:
    case NtStatus::kNotADirectory:
      return Group::kNotThere;
    case NtStatus::kFsDriverRequired:
    case NtStatus::kDfsUnavailable:
      return Group::kNoDfs;
    default:
      return Group::kOther;
  }
}

bool IsConnecting(Phase phase) { return phase <= Phase::kTreeConnect; }

Failure ClassifyAnswer(NtStatus status, Phase phase, bool keys_proven) {
  const bool connecting = IsConnecting(phase);
  switch (GroupOf(status)) {
    case Group::kDown:
      return {Class::kUnavailable, connecting ? Action::kNextTarget : Action::kSameThenNext};
    case Group::kShareGone:
      if (connecting) return {Class::kMissing, Action::kNextTarget};
      // A share that was closed under us may be back at once (catalogue C09).
      return {Class::kSession, Action::kSameThenNext};
    case Group::kRefusesUser:
      if (connecting) return {Class::kDenied, Action::kNextTarget};
      return {Class::kSemantics, Action::kReturn};
    case Group::kMayRefuse:
      if (!keys_proven && phase >= Phase::kSessionSetup) return {Class::kBroken, Action::kReturn};
      if (connecting) return {Class::kDenied, Action::kNextTarget};
      // Who may not open a target's root may still use what is below it.
      if (phase == Phase::kTargetRoot) return {Class::kNone, Action::kAccept};
      return {Class::kSemantics, Action::kReturn};
    case Group::kBusy:
      return {Class::kThrottled, connecting ? Action::kNextTarget : Action::kBackOff};
    case Group::kSessionGone:
      return {Class::kSession, connecting ? Action::kNextTarget : Action::kSameTarget};
    case Group::kNotCovered:
      if (connecting) return {Class::kMissing, Action::kNextTarget};
      return {Class::kPathNotCovered, Action::kResolve};
    case Group::kNotThere:
      if (connecting || phase == Phase::kTargetRoot) {
        return {Class::kMissing, Action::kNextTarget};
      }
      return {Class::kSemantics, Action::kReturn};
    case Group::kNoDfs:
    case Group::kOther:
      // Whatever a server says instead of letting us in, another one may not.
      if (connecting) return {Class::kUnavailable, Action::kNextTarget};
      return {Class::kSemantics, Action::kReturn};
  }
  return {Class::kSemantics, Action::kReturn};
}

Failure ClassifyOwn(absl::StatusCode code, Phase phase) {
  const bool connecting = IsConnecting(phase);
  switch (code) {
    case absl::StatusCode::kOk:
      return {Class::kNone, Action::kAccept};
    case absl::StatusCode::kUnavailable:
      return {Class::kTransport, connecting ? Action::kNextTarget : Action::kSameThenNext};
    case absl::StatusCode::kAborted:
      return {Class::kTransport, Action::kSameThenNext,
              /*maybe_executed=*/phase == Phase::kOperation};
    case absl::StatusCode::kNotFound:
      // The name server says that there is no such host.
      if (phase == Phase::kResolve) return {Class::kMissing, Action::kNextTarget};
      break;
    case absl::StatusCode::kUnauthenticated:
    case absl::StatusCode::kPermissionDenied:
      if (connecting) return {Class::kDenied, Action::kNextTarget};
      break;
    case absl::StatusCode::kFailedPrecondition:
      // No common dialect or algorithm: this server, not the path.
      if (connecting) return {Class::kBroken, Action::kNextTarget};
      break;
    case absl::StatusCode::kDataLoss:
      // Malformed, or a wrong signature. Another server may be sane; nothing of this one is used.
      return {Class::kBroken, Action::kNextTarget, /*maybe_executed=*/phase == Phase::kOperation};
    case absl::StatusCode::kDeadlineExceeded:
      // While connecting the deadline is the attempt's; afterwards it is the caller's.
      if (connecting || phase == Phase::kTargetRoot || phase == Phase::kReferral) {
        return {Class::kTransport, Action::kNextTarget};
      }
      return {Class::kCaller, Action::kReturn, /*maybe_executed=*/true};
    case absl::StatusCode::kCancelled:
      return {Class::kCaller, Action::kReturn, /*maybe_executed=*/phase == Phase::kOperation};
    default:
      break;
  }
  if (connecting) return {Class::kUnavailable, Action::kNextTarget};
  return {Class::kSemantics, Action::kReturn};
}

}  // namespace

Failure Classify(const absl::Status& status, AttemptPhase phase, bool keys_proven) {
  if (const std::optional<NtStatus> answer = smb::wire::NtStatusOf(status)) {
    return ClassifyAnswer(*answer, phase, keys_proven);
  }
  return ClassifyOwn(status.code(), phase);
}

FailureClass WorstOf(const std::vector<FailureClass>& failures) {
  // In the order of what a caller should hear.
  static constexpr FailureClass kOrder[] = {
      Class::kCaller,  Class::kTransport, Class::kThrottled, Class::kUnavailable,
      Class::kSession, Class::kBroken,    Class::kDenied,    Class::kPathNotCovered,
      Class::kMissing, Class::kSemantics};
  for (const FailureClass wanted : kOrder) {
    for (const FailureClass failure : failures) {
      if (failure == wanted) return wanted;
    }
  }
  return Class::kNone;
}

int ErrnoOf(FailureClass failure) {
  switch (failure) {
    case Class::kNone:
      return 0;
    case Class::kTransport:
    case Class::kUnavailable:
    case Class::kThrottled:
    case Class::kSession:
      return EHOSTDOWN;
    case Class::kMissing:
      return ENOENT;
    case Class::kDenied:
      return EACCES;
    case Class::kPathNotCovered:
    case Class::kSemantics:
    case Class::kBroken:
      return EIO;
    case Class::kCaller:
      return EINTR;
  }
  return EIO;
}

absl::Status StatusOf(FailureClass failure, absl::string_view message) {
  switch (failure) {
    case Class::kNone:
      return absl::OkStatus();
    case Class::kTransport:
    case Class::kUnavailable:
    case Class::kThrottled:
    case Class::kSession:
      return absl::UnavailableError(message);
    case Class::kMissing:
      return absl::NotFoundError(message);
    case Class::kDenied:
      return absl::PermissionDeniedError(message);
    case Class::kBroken:
      return absl::DataLossError(message);
    case Class::kPathNotCovered:
    case Class::kSemantics:
      return absl::InternalError(message);
    case Class::kCaller:
      return absl::CancelledError(message);
  }
  return absl::InternalError(message);
}

absl::Status AsDanglingLink(absl::Status status) {
  status.SetPayload(kDanglingUrl, absl::Cord());
  return status;
}

bool IsDanglingLink(const absl::Status& status) {
  return status.GetPayload(kDanglingUrl).has_value();
}

absl::string_view FailureClassName(FailureClass failure) {
  switch (failure) {
    case Class::kNone:
      return "none";
    case Class::kTransport:
      return "transport";
    case Class::kUnavailable:
      return "unavailable";
    case Class::kMissing:
      return "missing";
    case Class::kDenied:
      return "denied";
    case Class::kThrottled:
      return "throttled";
    case Class::kSession:
      return "session";
    case Class::kPathNotCovered:
      return "path_not_covered";
    case Class::kSemantics:
      return "semantics";
    case Class::kBroken:
      return "broken";
    case Class::kCaller:
      return "caller";
  }
  return "?";
}

absl::string_view FailureActionName(FailureAction action) {
  switch (action) {
    case Action::kReturn:
      return "return";
    case Action::kAccept:
      return "accept";
    case Action::kNextTarget:
      return "next_target";
    case Action::kSameThenNext:
      return "same_then_next";
    case Action::kSameTarget:
      return "same_target";
    case Action::kBackOff:
      return "back_off";
    case Action::kResolve:
      return "resolve";
  }
  return "?";
}

absl::string_view AttemptPhaseName(AttemptPhase phase) {
  switch (phase) {
    case Phase::kResolve:
      return "resolve";
    case Phase::kConnect:
      return "connect";
    case Phase::kNegotiate:
      return "negotiate";
    case Phase::kSessionSetup:
      return "session_setup";
    case Phase::kTreeConnect:
      return "tree_connect";
    case Phase::kTargetRoot:
      return "target_root";
    case Phase::kReferral:
      return "referral";
    case Phase::kOperation:
      return "operation";
  }
  return "?";
}

}  // namespace dfscsi::dfs
