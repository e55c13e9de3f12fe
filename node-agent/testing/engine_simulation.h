// Seeded schedules of the whole engine, from requests of a (fake) kernel to scripted servers, on
// the simulated loop. One seed is one world, one scenario, one list of faults:
//
//   Schedule   what will happen                       engine_simulation_schedule.h
//   Lab        the servers, and what is wrong now     engine_simulation_lab.h
//   Node       agents, one after another              engine_simulation_agent.h
//   Workload   the applications                       engine_simulation_workload.h
//   Writers    those that change things               engine_simulation_writers.h
//   Oracle     what must be true                      engine_simulation_oracle.h

#ifndef NODE_AGENT_TESTING_ENGINE_SIMULATION_H_
#define NODE_AGENT_TESTING_ENGINE_SIMULATION_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "node-agent/runtime/sim_world.h"
#include "node-agent/testing/engine_simulation_agent.h"
#include "node-agent/testing/engine_simulation_lab.h"
#include "node-agent/testing/engine_simulation_lockers.h"
#include "node-agent/testing/engine_simulation_oracle.h"
#include "node-agent/testing/engine_simulation_schedule.h"
#include "node-agent/testing/engine_simulation_workload.h"
#include "node-agent/testing/engine_simulation_writers.h"

namespace dfscsi::simulation {

class Simulation {
 public:
  explicit Simulation(Schedule schedule, bool verbose = false);
  ~Simulation();

  runtime::SimWorld& world() { return world_; }
  Lab& lab() { return *lab_; }
  Node& node() { return *node_; }
  Workload& workload() { return *workload_; }
  // REQUIRES: the schedule has writers.
  Writers& writers() { return *writers_; }
  // REQUIRES: the schedule has lockers.
  Lockers& lockers() { return *lockers_; }
  Oracle& oracle() { return oracle_; }
  const Oracle& oracle() const { return oracle_; }

  // Everything: the faults, the calm after them, the end. False: oracle().violations() says why.
  bool Run();

  // Its parts, for tests that make their own faults. Each ends at the first violation.
  bool RunFor(absl::Duration duration);
  bool RunUntil(const std::function<bool()>& done, absl::Duration limit);
  void Apply(const Event& event);
  void Finish();

 private:
  void ApplyToServer(const Event& event);
  void LoseAnswers(Server& server, const Event& event);
  void StartApplications(const std::string& source);
  void ApplyToLink(const Event& event);
  // `server` is not well until `end` has run, after `lasts`.
  void Wrong(Server& server, absl::Duration lasts, std::function<void()> end);
  void Kill(Server& server, absl::Duration lasts);
  void Flap(Server& server, absl::Duration lasts, int times);
  void MountAgain(const std::string& source);
  void Remount(uint64_t detail, absl::Duration lasts);
  void CheckProgress();
  absl::Time SourceServedSince(const Mount& mount);
  std::string SourceOf(int mount) const;

  const Schedule schedule_;
  runtime::SimWorld world_;
  runtime::SimHost& host_;
  Oracle oracle_;
  std::unique_ptr<Lab> lab_;
  std::unique_ptr<Node> node_;
  std::unique_ptr<Workload> workload_;
  std::unique_ptr<Writers> writers_;
  std::unique_ptr<Lockers> lockers_;
};

}  // namespace dfscsi::simulation

#endif  // NODE_AGENT_TESTING_ENGINE_SIMULATION_H_
