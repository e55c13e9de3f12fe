#include "node-agent/testing/engine_simulation_seeds.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <string>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace dfscsi::simulation {
namespace {

uint64_t NumberFrom(const char* variable, uint64_t otherwise) {
  const char* const value = getenv(variable);
  uint64_t number = 0;
  return value != nullptr && absl::SimpleAtoi(value, &number) ? number : otherwise;
}

// What a violation prints: everything that replays it.
std::string Report(const Schedule& schedule, const Oracle& oracle) {
  const ::testing::TestInfo& test = *::testing::UnitTest::GetInstance()->current_test_info();
  return absl::StrCat(oracle.violations().front(), "\n", schedule.ToString(),
                      "\nreplay: DFSCSI_SIM_SEED=", schedule.seed,
                      " build/release/tests/engine_simulation_test --gtest_filter=",
                      test.test_suite_name(), ".", test.name());
}

}  // namespace

Seeds RunSeeds(uint64_t usual, Schedule (*draw)(uint64_t seed),
               const std::function<void(Simulation&)>& count) {
  const uint64_t one = NumberFrom("DFSCSI_SIM_SEED", 0);
  const uint64_t first = one != 0 ? one : NumberFrom("DFSCSI_SIM_FIRST", 1);
  const uint64_t most = one != 0 ? 1 : NumberFrom("DFSCSI_SIM_SEEDS", usual);
  uint64_t failures_left = NumberFrom("DFSCSI_SIM_FAILURES", 1);
  Seeds seeds{.chosen = one != 0};
  for (; seeds.ran < most && failures_left > 0; ++seeds.ran) {
    const Schedule schedule = draw(first + seeds.ran);
    Simulation simulation(schedule, /*verbose=*/seeds.chosen);
    if (!simulation.Run()) {
      --failures_left;
      ADD_FAILURE() << Report(schedule, simulation.oracle());
    }
    count(simulation);
  }
  return seeds;
}

}  // namespace dfscsi::simulation
