// Thousands of seeds with writers, and with owners of locks (engine_simulation_seeds.h), and single
// behaviours by name. They are other worlds than those of engine_simulation_test.cc.

#include <gtest/gtest.h>

#include <string>
#include <utility>

#include "node-agent/testing/engine_simulation.h"
#include "node-agent/testing/engine_simulation_seeds.h"

namespace dfscsi::simulation {
namespace {

TEST(EngineSimulationWritesTest, FaultsInRandomCombinationOfWrites) {
  Writers::Counts sum;
  const Seeds seeds = RunSeeds(200, Schedule::DrawWithWriters, [&](Simulation& simulation) {
    const Writers::Counts& counts = simulation.writers().counts();
    sum.steps += counts.steps;
    sum.done += counts.done;
    sum.early += counts.early;
    sum.unknown += counts.unknown;
    sum.left += counts.left;
  });
  printf(
      "%llu seeds, %lld steps, %lld done, %lld WRITEs beside others, "
      "%lld of which nobody knows (EIO), %lld folders left\n",
      static_cast<unsigned long long>(seeds.ran), static_cast<long long>(sum.steps),
      static_cast<long long>(sum.done), static_cast<long long>(sum.early),
      static_cast<long long>(sum.unknown), static_cast<long long>(sum.left));
  // Each of them may be right, where a server is lost for long: two in ten thousand steps are.
  if (!seeds.chosen) EXPECT_LE(sum.unknown * 1000, sum.steps);
}

// Files that somebody has open while somebody else renames, removes and replaces them.
TEST(EngineSimulationWritesTest, FaultsInRandomCombinationOfSharers) {
  Writers::Counts sum;
  const Seeds seeds = RunSeeds(200, Schedule::DrawWithSharers, [&](Simulation& simulation) {
    const Writers::Counts& counts = simulation.writers().counts();
    sum.steps += counts.steps;
    sum.shared += counts.shared;
    sum.beside += counts.beside;
    sum.stale += counts.stale;
    sum.unknown += counts.unknown;
    sum.left += counts.left;
    sum.locked += counts.locked;
    sum.lost += counts.lost;
  });
  printf(
      "%llu seeds, %lld steps, %lld by sharers, %lld of them beside a change of names, %lld stale, "
      "%lld of which nobody knows (EIO), %lld folders left, %lld locks, %lld lost\n",
      static_cast<unsigned long long>(seeds.ran), static_cast<long long>(sum.steps),
      static_cast<long long>(sum.shared), static_cast<long long>(sum.beside),
      static_cast<long long>(sum.stale), static_cast<long long>(sum.unknown),
      static_cast<long long>(sum.left), static_cast<long long>(sum.locked),
      static_cast<long long>(sum.lost));
  if (seeds.chosen) return;
  EXPECT_LE(sum.unknown * 1000, sum.steps);
  // Of handles whose link has moved, and of locks that nobody gives back for a dead agent.
  EXPECT_LE(sum.stale * 500, sum.shared);
  EXPECT_LE(sum.lost * 500, sum.locked);
}

TEST(EngineSimulationLocksTest, FaultsInRandomCombinationOfLocks) {
  Lockers::Counts sum;
  const Seeds seeds = RunSeeds(100, Schedule::DrawWithLockers, [&](Simulation& simulation) {
    const Lockers::Counts& counts = simulation.lockers().counts();
    sum.locked += counts.locked;
    sum.refused += counts.refused;
    sum.unlocked += counts.unlocked;
    sum.lost += counts.lost;
  });
  printf("%llu seeds, %lld locks, %lld refused, %lld given back, %lld times lost (EIO)\n",
         static_cast<unsigned long long>(seeds.ran), static_cast<long long>(sum.locked),
         static_cast<long long>(sum.refused), static_cast<long long>(sum.unlocked),
         static_cast<long long>(sum.lost));
  if (!seeds.chosen) EXPECT_GT(sum.locked, 0);
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
