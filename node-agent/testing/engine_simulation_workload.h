// The applications of a simulated engine: each visits the mount again and again (looks up, opens,
// reads, seeks, lists, stats), checks every answer against the oracle, and gives back what it got.

#ifndef NODE_AGENT_TESTING_ENGINE_SIMULATION_WORKLOAD_H_
#define NODE_AGENT_TESTING_ENGINE_SIMULATION_WORKLOAD_H_

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "node-agent/runtime/task.h"
#include "node-agent/testing/engine_simulation_agent.h"
#include "node-agent/testing/engine_simulation_applications.h"
#include "node-agent/testing/engine_simulation_lab.h"
#include "node-agent/testing/engine_simulation_oracle.h"

namespace dfscsi::simulation {

class Workload : public Applications {
 public:
  using Applications::Applications;

  void Start(const std::shared_ptr<Mount>& mount, int applications);

  // Visits that each application has completed; those of mounts that are gone stand still.
  struct Progress {
    std::shared_ptr<Mount> mount;
    int64_t visits = 0;
  };
  const std::vector<Progress>& progress() const { return progress_; }
  // Everybody whose mount is there has completed a visit that began after `before` was taken.
  bool AllGotOnSince(const std::vector<Progress>& before) const;
  int64_t visits() const;

 private:
  // What a visit holds of the kernel's: given back by Leave().
  struct Visit {
    std::shared_ptr<Mount> mount;
    std::string link;
    std::vector<std::pair<uint64_t, uint64_t>> lookups = {};  // Node, count.
    std::vector<std::pair<uint64_t, bool>> handles = {};      // Handle, whether of a directory.
  };

  runtime::Task<void> Run(std::shared_ptr<Mount> mount, size_t self);
  // Each returns false where the visit must end: an error that is allowed, or a violation.
  runtime::Task<bool> Ask(Visit* visit, uint32_t opcode, uint64_t node, std::string body,
                          std::string* reply);
  runtime::Task<bool> Lookup(Visit* visit, uint64_t parent, std::string name, uint64_t* node);
  runtime::Task<bool> OpenFile(Visit* visit, int file, uint64_t* fh, uint64_t* node);
  runtime::Task<bool> ReadSome(Visit* visit, uint64_t fh, int file);
  runtime::Task<bool> SeekSome(Visit* visit, uint64_t fh, int file);
  runtime::Task<bool> StatSome(Visit* visit);
  runtime::Task<bool> LookUpNothing(Visit* visit);
  runtime::Task<bool> List(Visit* visit, std::string directory, int entries);
  runtime::Task<bool> ListRoot(Visit* visit);
  struct Page;
  runtime::Task<bool> ReadPage(Visit* visit, uint64_t fh, uint64_t offset, bool plus, Page* page);
  runtime::Task<bool> ReadAll(Visit* visit, uint64_t fh, uint64_t offset, bool plus,
                              std::vector<std::string>* names, std::vector<uint64_t>* offsets);
  runtime::Task<void> Leave(Visit* visit);

  bool IsAllowed(const Visit& visit, uint32_t opcode, int error, bool interruptible) const;

  std::vector<Progress> progress_;
};

}  // namespace dfscsi::simulation

#endif  // NODE_AGENT_TESTING_ENGINE_SIMULATION_WORKLOAD_H_
