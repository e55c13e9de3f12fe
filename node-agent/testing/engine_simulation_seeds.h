// Seed after seed of one kind of world.
//
//   DFSCSI_SIM_SEEDS=5000    how many seeds
//   DFSCSI_SIM_FIRST=1       the first one
//   DFSCSI_SIM_SEED=123      one seed, with what happens in it
//   DFSCSI_SIM_FAILURES=1    after so many that fail no more are run

#ifndef NODE_AGENT_TESTING_ENGINE_SIMULATION_SEEDS_H_
#define NODE_AGENT_TESTING_ENGINE_SIMULATION_SEEDS_H_

#include <cstdint>
#include <functional>

#include "node-agent/testing/engine_simulation.h"

namespace dfscsi::simulation {

struct Seeds {
  uint64_t ran = 0;
  bool chosen = false;  // DFSCSI_SIM_SEED: one, whatever it holds.
};

// From inside a test, whose failures are the violations, each with the command that replays it.
// `usual`: how many seeds if nobody says. `count` is called for each world when it has ended.
Seeds RunSeeds(uint64_t usual, Schedule (*draw)(uint64_t seed),
               const std::function<void(Simulation&)>& count);

}  // namespace dfscsi::simulation

#endif  // NODE_AGENT_TESTING_ENGINE_SIMULATION_SEEDS_H_
