// What a failed attempt means, and what can be done about it: the one place where this is decided.
//
// Source: [MS-DFSC] 3.1.5.2 lets a client move to the next target after any error and leaves the
// choice to it. Ours: we move on where another target could do better, never where every copy would
// answer the same, and throttling is waited for, not fled from.

#ifndef NODE_AGENT_DFS_FAILURE_CLASS_H_
#define NODE_AGENT_DFS_FAILURE_CLASS_H_

#include <ostream>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace dfscsi::dfs {

// How far an attempt on a target had come when it failed. The first five are smb::ConnectPhase's.
enum class AttemptPhase {
  kResolve,  // The host's name.
  kConnect,  // TCP.
  kNegotiate,
  kSessionSetup,
  kTreeConnect,
  kTargetRoot,  // The first open, of the target's path below its share: is this target up?
  kReferral,    // FSCTL_DFS_GET_REFERRALS.
  kOperation,   // Everything else.
};

enum class FailureClass {
  kNone,            // It did not fail, or not in a way that says anything against the target.
  kTransport,       // No answer: refused, reset, silent, unreachable. May end at any moment.
  kUnavailable,     // The server says that it cannot serve now: shutting down, busy network, …
  kMissing,         // No such host, no such share, or no such path of the target on it.
  kDenied,          // It refuses this credential.
  kThrottled,       // It has too much to do.
  kSession,         // The session or the tree is gone; the server is not.
  kPathNotCovered,  // The path lies below a link of which this server only knows that it is one.
  kSemantics,       // An answer about the file; every copy would give it.
  kBroken,  // The peer breaks the protocol or speaks none we allow, or a key of ours is wrong.
  kCaller,  // Cancelled, or out of time, by whoever asked.
};

enum class FailureAction {
  kReturn,        // To the caller, as it is.
  kAccept,        // Go on as if it had succeeded.
  kNextTarget,    // Note it against this target and try the next one.
  kSameThenNext,  // Connect to the same target once more (its service may just have restarted).
  kSameTarget,    // A new session or tree on the same target.
  kBackOff,       // Wait, then the same target.
  kResolve,       // Resolve again, with what was learned (resolver.h).
};

struct Failure {
  FailureClass failure = FailureClass::kNone;
  FailureAction action = FailureAction::kReturn;
  // The request may have been executed although no answer came: only what is harmless twice may be
  // repeated.
  bool maybe_executed = false;

  friend bool operator==(const Failure&, const Failure&) = default;
};

// Classes a status of smb/ (NTSTATUS payload, or one of its own codes) by where it happened.
// `keys_proven`: a reply on this session carried a signature that our key verified, or nothing on
// it is signed. Where it is false, ACCESS_DENIED may be the server's answer to a bad signature of
// ours: that is kBroken, not "denied", so that a bug or an attack does not look like a missing
// permission and does not walk through all targets.
Failure Classify(const absl::Status& status, AttemptPhase phase, bool keys_proven);

// What to say when every target failed, one class each: kTransport or kThrottled if waiting could
// help (hard mounts wait, soft ones answer EHOSTDOWN at their deadline), else kBroken (EIO),
// kDenied (EACCES), kUnavailable (ENOENT), in this order. kNone for none.
FailureClass WorstOf(const std::vector<FailureClass>& failures);
// Its errno: what a FUSE reply carries; and the status that Client::Run documents for it.
int ErrnoOf(FailureClass failure);
absl::Status StatusOf(FailureClass failure, absl::string_view message);
// A link whose targets do not exist: each has class kMissing. For people and exit codes; the errno
// is ENOENT as for a path that does not exist.
absl::Status AsDanglingLink(absl::Status status);
bool IsDanglingLink(const absl::Status& status);
// True if the same attempt may succeed later without anybody changing anything.
inline bool WorthWaiting(FailureClass failure) {
  return failure == FailureClass::kTransport || failure == FailureClass::kUnavailable ||
         failure == FailureClass::kThrottled || failure == FailureClass::kSession;
}

absl::string_view FailureClassName(FailureClass failure);
absl::string_view FailureActionName(FailureAction action);
absl::string_view AttemptPhaseName(AttemptPhase phase);
inline std::ostream& operator<<(std::ostream& os, const Failure& failure) {
  return os << FailureClassName(failure.failure) << "/" << FailureActionName(failure.action)
            << (failure.maybe_executed ? "/maybe executed" : "");
}

}  // namespace dfscsi::dfs

#endif  // NODE_AGENT_DFS_FAILURE_CLASS_H_
