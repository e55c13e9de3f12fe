// What follows each attempt of one operation: the state machine of failover.
//
// Pure: no I/O, no clock, no locks. dfs/client.cc does what `phase` names and reports the outcome;
// this file says what is next. Which target is tried is the resolver's and target_order's business;
// what a failure means is failure_class's; how long silence may last is silence_clock's.
//
//   phase        outcome                                  next
//   kAttempt     accepted                                 kDone
//   kAttempt     return (semantics, the caller's end)     kFailed
//   kAttempt     maybe executed, and not repeatable       kVerify
//   kAttempt     resolve (path not covered)               kResolve
//   kAttempt     same, then next: the first time          kReconnect
//   kAttempt     same target (session gone): twice        kReconnect
//   kAttempt     back off                                 kBackOff
//   kAttempt     next target, or any of those above       kNextTarget, if it may move
//                once too often                           kWaitForOwn, if it may not
//   kAttempt     its server is suspect, another is up     kNextTarget, if it may move
//   kAttempt     its server is lost                       kNextTarget
//   kReconnect   done: session and tree are there         kAttempt
//   kReconnect   failed                                   kNextTarget or kWaitForOwn
//   kBackOff     time is up                               kAttempt
//   kNextTarget  another one is bound                     kAttempt
//   kNextTarget  none is left; waiting is no use          kFailed
//   kNextTarget  none is left; waiting may help           kWait
//   kWait        time is up                               kResolve, from the user's path
//   kResolve     bound                                    kAttempt
//   kResolve     error                                    as kNextTarget with none left
//   kWaitForOwn  its server is back                       kAttempt
//   kWaitForOwn  its server is lost                       kNextTarget
//   kVerify      it was executed                          kDone
//   kVerify      it was not, on the same server           kAttempt
//   kVerify      nobody can tell                          kFailed
//   any          the operation's time is up               kFailed
//
// Source: [MS-DFSC] 3.1.5.1, 3.1.5.2.

#ifndef NODE_AGENT_DFS_FAILOVER_H_
#define NODE_AGENT_DFS_FAILOVER_H_

#include <ostream>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "node-agent/dfs/failure_class.h"
#include "node-agent/smb/silence_clock.h"

namespace dfscsi::dfs {

enum class FailoverPhase {
  kAttempt,     // Run the operation on the binding there is.
  kReconnect,   // Connect to the same target (or its session, or its tree) again.
  kNextTarget,  // Note the failure against this target and bind the next one.
  kResolve,     // Resolve with what was learned, and bind.
  kBackOff,     // Wait BackoffDelay(), then the same target.
  kWait,        // Nobody serves the path: wait BackoffDelay(), then resolve from the start.
  kWaitForOwn,  // Only its own server will do: connect to it until it is back, or lost.
  kVerify,      // Find out on the server whether it was executed.
  kDone,
  kFailed,  // Report the last error.
};
absl::string_view FailoverPhaseName(FailoverPhase phase);

// Where one operation stands. A value: copy it, compare it, log it.
struct FailoverState {
  FailoverPhase phase = FailoverPhase::kAttempt;
  bool movable = true;  // As of RunOptions.
  bool repeatable = true;
  int reconnects = 0;  // To the present target, in a row.
  int waits = 0;       // kBackOff and kWait, in a row.

  friend bool operator==(const FailoverState&, const FailoverState&) = default;
  friend std::ostream& operator<<(std::ostream& os, const FailoverState& state) {
    return os << FailoverPhaseName(state.phase) << " reconnects=" << state.reconnects
              << " waits=" << state.waits;
  }
};

// After an attempt ended with `failure`. REQUIRES: phase == kAttempt.
[[nodiscard]] FailoverState AfterAttempt(FailoverState state, const Failure& failure);

// While an attempt is out, or an operation waits for its own server: that server's silence changed.
// `another_is_up`: some other target of the link is known to be up. The state stays as it is where
// nothing is to be done yet. REQUIRES: phase is kAttempt or kWaitForOwn.
[[nodiscard]] FailoverState AfterSilence(FailoverState state, smb::Silence silence,
                                         bool another_is_up);

// REQUIRES: phase is kReconnect or kWaitForOwn.
[[nodiscard]] FailoverState AfterReconnect(FailoverState state, bool connected);

// After binding another target was tried. `worth_waiting`: as of ResolveStep, if `bound` is false.
// REQUIRES: phase is kNextTarget or kResolve.
[[nodiscard]] FailoverState AfterBinding(FailoverState state, bool bound, bool worth_waiting);

// REQUIRES: phase is kBackOff or kWait.
[[nodiscard]] FailoverState AfterWait(FailoverState state);

enum class Verified { kExecuted, kNotExecuted, kUnknown };
// REQUIRES: phase == kVerify.
[[nodiscard]] FailoverState AfterVerify(FailoverState state, Verified verified);

// The operation's deadline passed, or it was cancelled.
[[nodiscard]] FailoverState AfterDeadline(FailoverState state);

// How long kBackOff and kWait last: 0.2 s, doubling to 5 s, less up to a quarter. `random` in [0,
// 1).
absl::Duration BackoffDelay(const FailoverState& state, double random);

}  // namespace dfscsi::dfs

#endif  // NODE_AGENT_DFS_FAILOVER_H_
