#include "node-agent/dfs/failover.h"

#include <algorithm>
#include <cstdint>

namespace dfscsi::dfs {
namespace {

using Phase = FailoverPhase;

// A session that dies each time it is made is no better than none.
constexpr int kMaxSessionReconnects = 2;

constexpr absl::Duration kMinDelay = absl::Milliseconds(200);
constexpr absl::Duration kMaxDelay = absl::Seconds(5);

FailoverState To(FailoverState state, Phase phase) {
  state.phase = phase;
  return state;
}

// Away from this target, by whoever may leave it.
FailoverState Leave(FailoverState state) {
  state.reconnects = 0;
  return To(state, state.movable ? Phase::kNextTarget : Phase::kWaitForOwn);
}

FailoverState Reconnect(FailoverState state, int limit) {
  if (state.reconnects >= limit) return Leave(state);
  ++state.reconnects;
  return To(state, Phase::kReconnect);
}

FailoverState Wait(FailoverState state, Phase phase) {
  ++state.waits;
  return To(state, phase);
}

}  // namespace

absl::string_view FailoverPhaseName(FailoverPhase phase) {
  switch (phase) {
    case Phase::kAttempt:
      return "attempt";
    case Phase::kReconnect:
      return "reconnect";
    case Phase::kNextTarget:
      return "next_target";
    case Phase::kResolve:
      return "resolve";
    case Phase::kBackOff:
      return "back_off";
    case Phase::kWait:
      return "wait";
    case Phase::kWaitForOwn:
      return "wait_for_own";
    case Phase::kVerify:
      return "verify";
    case Phase::kDone:
      return "done";
    case Phase::kFailed:
      return "failed";
  }
  return "?";
}

FailoverState AfterAttempt(FailoverState state, const Failure& failure) {
  if (failure.maybe_executed && !state.repeatable && failure.action != FailureAction::kReturn) {
    return To(state, Phase::kVerify);
  }
  switch (failure.action) {
    case FailureAction::kAccept:
      return To(state, Phase::kDone);
    case FailureAction::kReturn:
      return To(state, Phase::kFailed);
    case FailureAction::kResolve:
      return To(state, Phase::kResolve);
    case FailureAction::kSameThenNext:
      return Reconnect(state, 1);
    case FailureAction::kSameTarget:
      return Reconnect(state, kMaxSessionReconnects);
    case FailureAction::kBackOff:
      return Wait(state, Phase::kBackOff);
    case FailureAction::kNextTarget:
      return Leave(state);
  }
  return To(state, Phase::kFailed);
}

FailoverState AfterSilence(FailoverState state, smb::Silence silence, bool another_is_up) {
  switch (silence) {
    case smb::Silence::kNone:
      return state;
    case smb::Silence::kSuspect:
      if (state.phase != Phase::kAttempt || !state.movable || !another_is_up) return state;
      // A request that is out and may not be repeated waits for its answer or for "lost".
      if (!state.repeatable) return state;
      break;
    case smb::Silence::kLost:
      if (state.phase == Phase::kAttempt && !state.repeatable) return To(state, Phase::kVerify);
      break;
  }
  state.reconnects = 0;
  return To(state, Phase::kNextTarget);
}

FailoverState AfterReconnect(FailoverState state, bool connected) {
  if (connected) return To(state, Phase::kAttempt);
  return state.phase == Phase::kWaitForOwn ? state : Leave(state);
}

FailoverState AfterBinding(FailoverState state, bool bound, bool worth_waiting) {
  if (bound) {
    state.reconnects = 0;
    return To(state, Phase::kAttempt);
  }
  return worth_waiting ? Wait(state, Phase::kWait) : To(state, Phase::kFailed);
}

FailoverState AfterWait(FailoverState state) {
  return To(state, state.phase == Phase::kBackOff ? Phase::kAttempt : Phase::kResolve);
}

FailoverState AfterVerify(FailoverState state, Verified verified) {
  switch (verified) {
    case Verified::kExecuted:
      return To(state, Phase::kDone);
    case Verified::kNotExecuted:
      return To(state, Phase::kAttempt);
    case Verified::kUnknown:
      return To(state, Phase::kFailed);
  }
  return To(state, Phase::kFailed);
}

FailoverState AfterDeadline(FailoverState state) { return To(state, Phase::kFailed); }

absl::Duration BackoffDelay(const FailoverState& state, double random) {
  const int doublings = std::clamp(state.waits - 1, 0, 30);
  const absl::Duration delay =
      std::min(kMaxDelay, kMinDelay * static_cast<double>(int64_t{1} << doublings));
  return delay * (1.0 - 0.25 * random);
}

}  // namespace dfscsi::dfs
