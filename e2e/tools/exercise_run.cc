#include "e2e/tools/exercise_run.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/time/clock.h"

namespace dfscsi::exercise {
namespace {

std::vector<std::string> Without(const std::vector<std::string>& operations, size_t begin,
                                 size_t end) {
  std::vector<std::string> rest(operations.begin(),
                                operations.begin() + static_cast<ptrdiff_t>(begin));
  rest.insert(rest.end(), operations.begin() + static_cast<ptrdiff_t>(end), operations.end());
  return rest;
}

}  // namespace

RunOutcome RunAtRandom(Exercise* exercise, const RunOptions& options) {
  Random random(options.seed);
  // Of its own: the operations are the same with a lie and without.
  Random lies(options.seed + 1);
  const absl::Time end = absl::Now() + options.time;
  RunOutcome outcome{.status = exercise->Begin(), .operations = {}};
  bool must_lie = options.lie_at > 0;
  bool is_last = false;
  for (uint64_t n = 1; outcome.status.ok() && !is_last; ++n) {
    is_last = n >= options.operations || absl::Now() >= end;
    if (must_lie && n >= options.lie_at && exercise->Lie(lies)) {
      must_lie = false;
      is_last = true;  // Nothing may put it right before it is seen.
    }
    const bool check = is_last || n % options.check_every == 0;
    outcome.operations.push_back(check ? exercise->CheckOperation() : exercise->Draw(random));
    outcome.status = exercise->Run(outcome.operations.back());
  }
  return outcome;
}

RunOutcome RunAgain(Exercise* exercise, const std::vector<std::string>& operations) {
  RunOutcome outcome{.status = exercise->Begin(), .operations = {}};
  for (const std::string& operation : operations) {
    if (!outcome.status.ok()) break;
    outcome.operations.push_back(operation);
    outcome.status = exercise->Run(operation);
  }
  return outcome;
}

std::optional<RunOutcome> Shrink(Exercise* exercise, const std::vector<std::string>& operations,
                                 absl::Duration time) {
  const absl::Time end = absl::Now() + time;
  RunOutcome best = RunAgain(exercise, operations);
  if (best.status.ok()) return std::nullopt;
  // Ever smaller parts are left out, from the end to the beginning.
  for (size_t part = std::max<size_t>(best.operations.size() / 2, 1); absl::Now() < end;) {
    bool any = false;
    for (size_t at = best.operations.size(); at > 0 && absl::Now() < end;) {
      const size_t begin = at - std::min(at, part);
      RunOutcome outcome = RunAgain(exercise, Without(best.operations, begin, at));
      if (!outcome.status.ok()) {
        best = std::move(outcome);
        any = true;
      }
      at = std::min(begin, best.operations.size());
    }
    if (part == 1 && !any) break;
    part = std::max<size_t>(part / 2, 1);
  }
  return best;
}

}  // namespace dfscsi::exercise
