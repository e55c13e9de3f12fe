// Applications of a simulated engine that lock: the owners of one mount, in one file that every
// copy has, lock and unlock ranges of it. Their model is the oracle: what two owners have been told
// that they hold never conflicts, what was locked is locked on a server, and a lock that is lost is
// told by EIO, at the next use of its handle.

#ifndef NODE_AGENT_TESTING_ENGINE_SIMULATION_LOCKERS_H_
#define NODE_AGENT_TESTING_ENGINE_SIMULATION_LOCKERS_H_

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "node-agent/runtime/task.h"
#include "node-agent/testing/engine_simulation_agent.h"
#include "node-agent/testing/engine_simulation_applications.h"
#include "node-agent/testing/engine_simulation_folder.h"
#include "node-agent/testing/engine_simulation_lab.h"
#include "node-agent/testing/engine_simulation_oracle.h"

namespace dfscsi::simulation {

class Lockers : public ChangingApplications {
 public:
  using ChangingApplications::ChangingApplications;

  void Start(std::shared_ptr<Mount> mount, int owners);

  struct Counts {
    int64_t locked = 0;
    int64_t refused = 0;  // EAGAIN.
    int64_t unlocked = 0;
    int64_t lost = 0;  // EIO.
  };
  const Counts& counts() const { return counts_; }

 private:
  static constexpr uint64_t kBytes = 16;  // Of the file, each of which is locked or not.

  // Of each byte: not locked, shared, exclusive.
  enum class Kind : uint8_t { kNone, kShared, kExclusive };
  struct Owner {
    uint64_t id = 0;
    uint64_t fh = 0;
    bool is_open = false;
    Kind held[kBytes] = {};  // As it was told; what it has begun to give back is not held.
  };
  struct File {
    std::shared_ptr<Mount> mount;
    std::string link;
    std::string folder;
    std::vector<Owner> owners;
    std::vector<std::pair<uint64_t, uint64_t>> lookups = {};
    int left = 0;      // Owners that still run.
    int changing = 0;  // Requests under way.
    int64_t changes = 0;
  };

  runtime::Task<void> Run(std::shared_ptr<File> file, size_t self);
  runtime::Task<bool> Open(std::shared_ptr<File> file, size_t self);
  runtime::Task<void> Close(std::shared_ptr<File> file, size_t self);
  runtime::Task<void> Step(std::shared_ptr<File> file, size_t self);
  // What it holds is held on a server, or its handle says EIO.
  runtime::Task<void> CheckHeld(std::shared_ptr<File> file, size_t self);
  runtime::Task<int> Set(std::shared_ptr<File> file, size_t self, uint32_t type, uint64_t first,
                         uint64_t last);
  // False: EIO, all its locks are lost.
  runtime::Task<bool> Use(std::shared_ptr<File> file, size_t self);
  void Lose(File& file, size_t self);
  // Another owner that was told it has what conflicts; -1: none.
  int Conflicting(const File& file, size_t self) const;
  bool MayFail(const File& file, int error) const;
  // A former connection of ours, whose end its server has not seen, has locked something of the
  // file.
  bool IsLockedByFormer(const File& file) const;
  // On that copy; null: it is not there.
  const testing::ScriptedFile* Find(size_t copy, const File& file) const;
  bool IsHeldOnAServer(const File& file, const Owner& owner) const;

  int files_ = 0;
  uint64_t last_owner_ = 0;
  Counts counts_;
};

}  // namespace dfscsi::simulation

#endif  // NODE_AGENT_TESTING_ENGINE_SIMULATION_LOCKERS_H_
