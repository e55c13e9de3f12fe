// Thousands of seeds with writers (engine_simulation.h), and single behaviours by name. They are
// other worlds than those of engine_simulation_test.cc; the variables are the same:
//
//   DFSCSI_SIM_SEEDS=5000    how many seeds
//   DFSCSI_SIM_FIRST=1       the first one
//   DFSCSI_SIM_SEED=123      one seed, with what happens in it

#include <gtest/gtest.h>
#include <stdlib.h>

#include <string>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "node-agent/testing/engine_simulation.h"

namespace dfscsi::simulation {
namespace {

uint64_t NumberFrom(const char* variable, uint64_t otherwise) {
  const char* const value = getenv(variable);
  uint64_t number = 0;
  return value != nullptr && absl::SimpleAtoi(value, &number) ? number : otherwise;
}

std::string Report(const Schedule& schedule, const Oracle& oracle, const char* kind = "OfWrites") {
  return absl::StrCat(oracle.violations().front(), "\n", schedule.ToString(),
                      "\nreplay: DFSCSI_SIM_SEED=", schedule.seed,
                      " build/release/tests/engine_simulation_test "
                      "--gtest_filter=*RandomCombination",
                      kind);
}

TEST(EngineSimulationWritesTest, FaultsInRandomCombinationOfWrites) {
  const uint64_t one = NumberFrom("DFSCSI_SIM_SEED", 0);
  const uint64_t first = one != 0 ? one : NumberFrom("DFSCSI_SIM_FIRST", 1);
  const uint64_t seeds = one != 0 ? 1 : NumberFrom("DFSCSI_SIM_SEEDS", 200);
  const uint64_t most_failures = NumberFrom("DFSCSI_SIM_FAILURES", 1);
  Writers::Counts sum;
  uint64_t failures = 0;
  for (uint64_t seed = first; seed < first + seeds && failures < most_failures; ++seed) {
    const Schedule schedule = Schedule::DrawWithWriters(seed);
    Simulation simulation(schedule, /*verbose=*/one != 0);
    if (!simulation.Run()) {
      ++failures;
      ADD_FAILURE() << Report(schedule, simulation.oracle());
    }
    const Writers::Counts& counts = simulation.writers().counts();
    sum.steps += counts.steps;
    sum.done += counts.done;
    sum.unknown += counts.unknown;
    sum.left += counts.left;
  }
  printf("%llu seeds, %lld steps, %lld done, %lld of which nobody knows (EIO), %lld folders left\n",
         static_cast<unsigned long long>(seeds), static_cast<long long>(sum.steps),
         static_cast<long long>(sum.done), static_cast<long long>(sum.unknown),
         static_cast<long long>(sum.left));
}

TEST(EngineSimulationLocksTest, FaultsInRandomCombinationOfLocks) {
  const uint64_t one = NumberFrom("DFSCSI_SIM_SEED", 0);
  const uint64_t first = one != 0 ? one : NumberFrom("DFSCSI_SIM_FIRST", 1);
  const uint64_t seeds = one != 0 ? 1 : NumberFrom("DFSCSI_SIM_SEEDS", 100);
  const uint64_t most_failures = NumberFrom("DFSCSI_SIM_FAILURES", 1);
  Lockers::Counts sum;
  uint64_t failures = 0;
  for (uint64_t seed = first; seed < first + seeds && failures < most_failures; ++seed) {
    const Schedule schedule = Schedule::DrawWithLockers(seed);
    Simulation simulation(schedule, /*verbose=*/one != 0);
    if (!simulation.Run()) {
      ++failures;
      ADD_FAILURE() << Report(schedule, simulation.oracle(), "OfLocks");
    }
    const Lockers::Counts& counts = simulation.lockers().counts();
    sum.locked += counts.locked;
    sum.refused += counts.refused;
    sum.unlocked += counts.unlocked;
    sum.lost += counts.lost;
  }
  printf("%llu seeds, %lld locks, %lld refused, %lld given back, %lld times lost (EIO)\n",
         static_cast<unsigned long long>(seeds), static_cast<long long>(sum.locked),
         static_cast<long long>(sum.refused), static_cast<long long>(sum.unlocked),
         static_cast<long long>(sum.lost));
  if (one == 0) EXPECT_GT(sum.locked, 0);
}

TEST(EngineSimulationWritesTest, TheSameSeedIsTheSameWorld) {
  const auto course_of = [](uint64_t seed) {
    Simulation simulation(Schedule::DrawWithWriters(seed));
    (void)simulation.Run();
    return std::pair(simulation.world().steps(), simulation.writers().counts().steps);
  };
  for (uint64_t seed = 3; seed < 6; ++seed) EXPECT_EQ(course_of(seed), course_of(seed));
  EXPECT_NE(course_of(3), course_of(4));
}

// Every kind of step, where nothing happens.
TEST(EngineSimulationWritesTest, EveryStepIsDoneInACalmWorld) {
  Schedule schedule{.seed = 7, .mild = true};
  schedule.ttl_seconds = 2;
  schedule.mounts = 2;
  schedule.applications = 1;
  schedule.writers = 3;
  schedule.longest_pause = absl::Milliseconds(100);
  schedule.smb.max_read_bytes = 1 << 20;
  Simulation simulation(std::move(schedule));
  EXPECT_TRUE(simulation.RunFor(absl::Seconds(20)));
  simulation.Finish();
  EXPECT_TRUE(simulation.oracle().violations().empty()) << simulation.oracle().violations().front();
  EXPECT_GT(simulation.writers().counts().done, 1'000);
  EXPECT_EQ(simulation.writers().counts().unknown, 0);
}

}  // namespace
}  // namespace dfscsi::simulation
