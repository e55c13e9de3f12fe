// Runs an exercise until it is done or wrong, remembers what was done, and finds out how much of it
// is needed to go wrong.

#ifndef DFSCSI_E2E_TOOLS_EXERCISE_RUN_H_
#define DFSCSI_E2E_TOOLS_EXERCISE_RUN_H_

#include <stdint.h>

#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "e2e/tools/exercise.h"

namespace dfscsi::exercise {

struct RunOptions {
  uint64_t seed = 1;
  uint64_t operations = 10'000;
  // It also ends then; infinite: by the number alone.
  absl::Duration time = absl::InfiniteDuration();
  // Everything is compared after so many operations, and at the end.
  uint64_t check_every = 250;
  // From that operation on, and then at once, the model is wrong. 0: never.
  uint64_t lie_at = 0;
};

struct RunOutcome {
  absl::Status status;
  std::vector<std::string> operations;  // All that were begun; the last one failed, if any did.
};

// Draws and runs; the first operation that fails ends it.
RunOutcome RunAtRandom(Exercise* exercise, const RunOptions& options);

// Runs these operations in order, up to the one that fails.
RunOutcome RunAgain(Exercise* exercise, const std::vector<std::string>& operations);

// Fewer operations that still end in a failure: what can be left out, is, for as long as `time`.
// `operations` must have failed. nullopt: they do not fail again.
std::optional<RunOutcome> Shrink(Exercise* exercise, const std::vector<std::string>& operations,
                                 absl::Duration time);

}  // namespace dfscsi::exercise

#endif  // DFSCSI_E2E_TOOLS_EXERCISE_RUN_H_
