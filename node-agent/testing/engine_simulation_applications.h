// What all applications of a simulated engine have in common: they run until they are told to stop,
// first while things fail and then in calm, draw from their process' random numbers, and tell the
// oracle.

#ifndef NODE_AGENT_TESTING_ENGINE_SIMULATION_APPLICATIONS_H_
#define NODE_AGENT_TESTING_ENGINE_SIMULATION_APPLICATIONS_H_

#include <cstdint>

#include "absl/time/time.h"
#include "node-agent/testing/engine_simulation_agent.h"
#include "node-agent/testing/engine_simulation_folder.h"
#include "node-agent/testing/engine_simulation_lab.h"
#include "node-agent/testing/engine_simulation_oracle.h"

namespace dfscsi::simulation {

class Applications {
 public:
  // All must outlive this.
  Applications(Node& node, Lab& lab, Oracle& oracle, absl::Duration longest_pause)
      : node_(node), lab_(lab), oracle_(oracle), longest_pause_(longest_pause) {}
  Applications(const Applications&) = delete;

  // They run until then, or until their mount is gone.
  void Stop() { stopping_ = true; }
  bool stopping() const { return stopping_; }
  int running() const { return running_; }
  // No more pauses, and no more signals to their requests.
  void set_calm() { calm_ = true; }

 protected:
  ~Applications() = default;

  uint64_t Random() { return node_.applications().Random(); }
  uint64_t Below(uint64_t n) { return Random() % n; }

  Node& node_;
  Lab& lab_;
  Oracle& oracle_;
  const absl::Duration longest_pause_;
  bool stopping_ = false;
  bool calm_ = false;
  int running_ = 0;
};

// Those that change something, and know what every copy must hold then.
class ChangingApplications : public Applications {
 public:
  // `stays`: the first target of each link serves for ever, and so nothing may fail. `single`: it
  // is the only one, and so nothing may move.
  ChangingApplications(Node& node, Lab& lab, Oracle& oracle, absl::Duration longest_pause,
                       bool stays, bool single)
      : Applications(node, lab, oracle, longest_pause),
        copies_(lab),
        stays_(stays),
        single_(single) {}

 protected:
  ~ChangingApplications() = default;

  Copies copies_;
  const bool stays_;
  const bool single_;
};

}  // namespace dfscsi::simulation

#endif  // NODE_AGENT_TESTING_ENGINE_SIMULATION_APPLICATIONS_H_
