// Several attempts at the same thing at once: the first to succeed wins.

#ifndef NODE_AGENT_RUNTIME_RACE_H_
#define NODE_AGENT_RUNTIME_RACE_H_

#include <functional>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "node-agent/runtime/deadline.h"
#include "node-agent/runtime/loop.h"
#include "node-agent/runtime/task.h"

namespace dfscsi::runtime {

namespace internal {

template <class T>
struct RaceState {
  int running = 0;
  std::optional<absl::StatusOr<T>> best;
  Event decided;
};

// Owns the racer, captures and all, until it has ended: a loser outlives the race.
template <class T>
Task<void> RunRacer(std::shared_ptr<RaceState<T>> state,
                    std::function<Task<absl::StatusOr<T>>(Deadline)> racer, Deadline deadline,
                    std::function<bool(const absl::Status&, const absl::Status&)> better) {
  // If the racer throws, or is destroyed, it has lost all the same.
  struct Ended {
    RaceState<T>& state;
    ~Ended() {
      if (--state.running == 0) state.decided.Set();
    }
  } ended{*state};
  absl::StatusOr<T> result = co_await racer(std::move(deadline));
  if (state->decided.is_set()) co_return;  // Too late; the result dies here.
  if (result.ok()) {
    state->best = std::move(result);
    state->decided.Set();
  } else if (!state->best.has_value() || better(result.status(), state->best->status())) {
    state->best = std::move(result);
  }
}

}  // namespace internal

// Runs all racers, each with a deadline that Race cancels once somebody has won, and returns the
// first OK result. If none succeeds: the best error, `better(a, b)` saying that a tells more than
// b. Losers are cancelled and left to end by themselves: a loser that is stuck (in Blocking work,
// say) delays nobody, and may outlive the race and its caller: racers own what they use, or, given
// a `home`, may use what lives as long as that: they die with it. A racer that should start later
// sleeps first.
//
// Errors: kCancelled and kDeadlineExceeded as soon as `deadline` says so, whatever the racers do;
// else the best of the racers' errors (kInvalidArgument if there are no racers).
template <class T>
Task<absl::StatusOr<T>> Race(std::vector<std::function<Task<absl::StatusOr<T>>(Deadline)>> racers,
                             std::function<bool(const absl::Status&, const absl::Status&)> better,
                             Deadline deadline, TaskGroup* home = nullptr) {
  if (racers.empty()) co_return absl::InvalidArgumentError("a race without racers");
  // A loser is told to stop on every way out of here, destruction included.
  struct CancelAtEnd {
    CancelSource source;
    ~CancelAtEnd() { source.Cancel(); }
  } losers{CancelSource(deadline)};
  auto state = std::make_shared<internal::RaceState<T>>();
  state->running = static_cast<int>(racers.size());
  for (auto& racer : racers) {
    Task<void> running =
        internal::RunRacer<T>(state, std::move(racer), losers.source.deadline(), better);
    if (home != nullptr) {
      home->Spawn(std::move(running));
    } else {
      Loop::Current().Spawn(std::move(running));
    }
  }
  absl::Status status = co_await state->decided.WaitUntilSet(deadline);
  if (!status.ok()) {
    state->decided.Set();
    co_return status;
  }
  if (!state->best.has_value()) co_return absl::InternalError("every racer failed unexpectedly");
  co_return *std::move(state->best);
}

}  // namespace dfscsi::runtime

#endif  // NODE_AGENT_RUNTIME_RACE_H_
