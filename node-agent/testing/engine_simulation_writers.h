// Applications of a simulated engine that change things: each makes a folder (or takes one that
// every copy has), does some steps in it, one at a time, and compares each answer with what the
// servers then hold (engine_simulation_folder.h). Where its link has moved to another copy, or
// nobody knows what was done, it leaves the folder as it is and makes another one.

#ifndef NODE_AGENT_TESTING_ENGINE_SIMULATION_WRITERS_H_
#define NODE_AGENT_TESTING_ENGINE_SIMULATION_WRITERS_H_

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "node-agent/runtime/task.h"
#include "node-agent/testing/engine_simulation_agent.h"
#include "node-agent/testing/engine_simulation_applications.h"
#include "node-agent/testing/engine_simulation_folder.h"
#include "node-agent/testing/engine_simulation_lab.h"
#include "node-agent/testing/engine_simulation_oracle.h"
#include "node-agent/testing/engine_simulation_tree_model.h"

namespace dfscsi::simulation {

class Writers : public ChangingApplications {
 public:
  using ChangingApplications::ChangingApplications;

  void Start(const std::shared_ptr<Mount>& mount, int writers);

  struct Progress {
    std::shared_ptr<Mount> mount;
    int64_t steps = 0;
  };
  const std::vector<Progress>& progress() const { return progress_; }
  bool AllGotOnSince(const std::vector<Progress>& before) const;

  // At the end, when nobody writes any more: every folder is as its last answer says.
  void CheckEnd();

  struct Counts {
    int64_t steps = 0;
    int64_t done = 0;
    int64_t early = 0;    // WRITEs behind others of which nobody was told yet.
    int64_t unknown = 0;  // EIO, but for signals.
    int64_t left = 0;     // Folders that the link had left.
  };
  const Counts& counts() const { return counts_; }

 private:
  static constexpr uint64_t kMostNames = 6;  // Of one folder: few, so that they are used again.

  struct Handle {
    uint64_t fh = 0;
    Folder::Files files = {};
    std::string path = {};  // When it was opened.
    bool writes = false;
    bool appends = false;
  };
  // What a writer is at.
  struct Visit {
    std::shared_ptr<Mount> mount;
    std::string link;
    Folder* folder = nullptr;
    CopySet reachable = Copies::kEvery;
    size_t view = 0;                             // The copy whose names are used.
    std::map<std::string, uint64_t> nodes = {};  // By path in the folder; "" is the folder.
    uint64_t work = 0;                           // The node of what holds it.
    std::vector<Handle> handles = {};
    std::vector<std::pair<uint64_t, uint64_t>> lookups = {};
    int names = 0;
  };
  struct Answer {
    int error = 0;
    std::string body;
    bool signalled = false;
  };

  runtime::Task<void> Run(std::shared_ptr<Mount> mount, size_t self);
  runtime::Task<void> Work(Visit* visit, size_t self);
  // Each returns false where the folder must be left.
  runtime::Task<bool> Begin(Visit* visit);
  runtime::Task<bool> DoSomething(Visit* visit);
  runtime::Task<bool> Look(Visit* visit);
  runtime::Task<bool> ReadBack(Visit* visit, size_t handle);
  runtime::Task<bool> LookUp(Visit* visit, uint64_t parent, std::string name, uint64_t* node);
  // As LookUp, of a path in the folder, which may be known already.
  runtime::Task<bool> Find(Visit* visit, std::string path, uint64_t* node);
  runtime::Task<bool> Release(Visit* visit, size_t handle);
  runtime::Task<void> Leave(Visit* visit);

  // A change: the request, and what the answer says of it.
  runtime::Task<bool> Do(Visit* visit, Step step, uint32_t opcode, uint64_t node, std::string body,
                         std::string* reply, Folder::Outcome* outcome, Folder::Files files = {});
  // Nothing has changed since the last answer.
  bool CheckUnchanged(const Visit& visit, const Step& step);
  // What an answer says of a change. False: the folder must be left.
  bool Settle(Visit* visit, const Step& step, Answer answer, absl::Time asked, std::string* reply,
              Folder::Outcome* outcome, const Folder::Files& files);
  // What became of WRITEs that were answered before their server had them, as the handle's next
  // fsync or close tells it, once. An errno.
  runtime::Task<int> AwaitWritten(Visit* visit, uint64_t handle);
  runtime::Task<bool> MakeDirectory(Visit* visit, std::string path);
  runtime::Task<bool> CreateFile(Visit* visit, std::string path);
  runtime::Task<bool> OpenFile(Visit* visit, std::string path);
  runtime::Task<bool> Write(Visit* visit, size_t handle);
  // A WRITE, after those in step->earlier.
  runtime::Task<Answer> WriteOnce(Visit* visit, uint64_t handle, Step* step);
  runtime::Task<bool> Sync(Visit* visit, size_t handle);
  runtime::Task<bool> SetSizeOrTime(Visit* visit, std::string path);
  runtime::Task<bool> Rename(Visit* visit, std::string path, std::string target, bool replaces);
  runtime::Task<bool> Remove(Visit* visit, std::string path);

  runtime::Task<Answer> Ask(Visit* visit, uint32_t opcode, uint64_t node, std::string body);
  // An answer to what changes nothing. False: it is an error, which may be one.
  bool Accept(const Visit& visit, const Answer& answer, uint32_t opcode, std::string_view path);
  bool IsOpen(const Visit& visit, const std::string& path) const;
  std::string SomePath(const Visit& visit, bool directory);
  std::string NewPath(Visit* visit);
  std::string Bytes();
  CopySet ReachableBy(const std::string& link) const;

  std::vector<Progress> progress_;
  std::vector<std::unique_ptr<Folder>> folders_;
  int bases_ = 0;  // Taken so far.
  uint64_t last_file_ = 0;
  Counts counts_;
};

}  // namespace dfscsi::simulation

#endif  // NODE_AGENT_TESTING_ENGINE_SIMULATION_WRITERS_H_
