// Applications of a simulated engine that change things: each makes a folder (or takes one that
// every copy has), does some steps in it, one at a time, and compares each answer with what the
// servers then hold (engine_simulation_folder.h). Where its link has moved to another copy, or
// nobody knows what was done, it leaves the folder as it is and makes another one.
//
// Beside a writer there may be sharers, each a thread of its own: they open the files of its folder
// and write, read, cut, look at and lock them through their handles, while the writer renames,
// removes, replaces and makes these names anew. What goes through a handle is about the file that
// was opened, whatever it is called by now. What changes one file's content goes one after the
// other, whoever asks for it: so it is known what each must hold.

#ifndef NODE_AGENT_TESTING_ENGINE_SIMULATION_WRITERS_H_
#define NODE_AGENT_TESTING_ENGINE_SIMULATION_WRITERS_H_

#include <array>
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
#include "node-agent/runtime/wait.h"
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

  // `sharers`: of each writer.
  void Start(const std::shared_ptr<Mount>& mount, int writers, int sharers);

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
    // Of sharers.
    int64_t shared = 0;  // Steps through a handle.
    int64_t beside = 0;  // … while a name was being changed.
    int64_t stale = 0;   // ESTALE, for the link has moved.
    int64_t locked = 0;
    int64_t lost = 0;  // Locks, and told so (EIO).
  };
  const Counts& counts() const { return counts_; }

 private:
  static constexpr uint64_t kMostNames = 6;  // Of one folder: few, so that they are used again.

  struct Visit;
  struct Handle {
    uint64_t fh = 0;
    Folder::Files files = {};
    std::string path = {};  // When it was opened.
    bool writes = false;
    bool appends = false;
    uint64_t node = 0;
    uint64_t owner = 0;  // Of its locks; 0: it has never locked.
  };
  static constexpr uint64_t kLockedBytes = 16;
  // Of each byte that is ever locked.
  enum class Locked : uint8_t { kNone, kShared, kExclusive };
  using Locks = std::array<Locked, kLockedBytes>;
  // What the users of one folder have in common.
  struct Sharing {
    std::set<uint64_t> busy = {};  // As NeededBy() says.
    runtime::Condition changed = {};
    runtime::Condition names = {};  // One is about to be changed.
    // By file and owner, as they were told; what is being given back is not held.
    std::map<uint64_t, std::map<uint64_t, Locks>> locks = {};
    const Visit* writer = nullptr;  // Whose folder it is.
    int running = 0;                // Sharers.
    bool ends = false;
    bool left = false;  // The folder: nobody may do anything in it.
    bool names_change = false;
  };
  // Files that nobody else changes or reads until it dies.
  class Reserved;
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
    std::shared_ptr<Sharing> sharing = std::make_shared<Sharing>();
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

  // Sharers.
  void StartSharers(Visit* visit);
  // The last of them ends.
  runtime::Task<void> EndSharers(Visit* visit);
  runtime::Task<void> Share(std::shared_ptr<Visit> visit);
  runtime::Task<bool> UseSomething(Visit* visit);
  runtime::Task<bool> OpenShared(Visit* visit);
  runtime::Task<bool> TruncateThrough(Visit* visit, size_t handle);
  runtime::Task<bool> LookThrough(Visit* visit, size_t handle);
  runtime::Task<bool> LockThrough(Visit* visit, size_t handle);
  // EIO of a handle that has locked: it may have lost what it locked, and is closed.
  runtime::Task<bool> LoseLocks(Visit* visit, size_t handle);
  bool MayLock(const Visit& visit, const Handle& handle, const Locks& locks) const;
  // What is held is held on a server, or its handle says EIO.
  runtime::Task<bool> CheckLocks(Visit* visit, size_t handle);
  bool AreLocksOnAServer(const Visit& visit, const Handle& handle) const;
  // A former connection of ours, whose end its server has not seen, has locked something of what
  // the step is about.
  bool IsLockedByFormer(const Visit& visit, const Step& step, const Folder::Files& files) const;
  std::string DescribeLocks(const Visit& visit, const Handle& handle) const;
  runtime::Task<void> GiveBackLocks(Visit* visit, Handle handle);
  static std::set<uint64_t> FilesOf(const Handle& handle);

  // The files whose content the step changes or reads; with kInodeLock: that the kernel locks.
  static constexpr uint64_t kInodeLock = uint64_t{1} << 63;
  std::set<uint64_t> NeededBy(const Visit& visit, const Step& step,
                              const Folder::Files& files) const;
  // Until nobody else has one of these.
  runtime::Task<std::shared_ptr<Reserved>> Reserve(Visit* visit, std::set<uint64_t> files);

  // A change: the request, and what the answer says of it.
  runtime::Task<bool> Do(Visit* visit, Step step, uint32_t opcode, uint64_t node, std::string body,
                         std::string* reply, Folder::Outcome* outcome, Folder::Files files = {});
  // Nothing has changed since the last answer.
  bool CheckUnchanged(const Visit& visit, const Step& step);
  // What an answer says of a change. False: the folder must be left.
  bool Settle(Visit* visit, const Step& step, Answer answer, absl::Time asked, std::string* reply,
              Folder::Outcome* outcome, const Folder::Files& files, int number);
  // What became of WRITEs that were answered before their server had them, as the handle's next
  // fsync or close tells it, once. An errno.
  runtime::Task<int> AwaitWritten(Visit* visit, uint64_t handle);
  runtime::Task<bool> MakeDirectory(Visit* visit, std::string path);
  runtime::Task<bool> CreateFile(Visit* visit, std::string path);
  runtime::Task<bool> OpenFile(Visit* visit, std::string path);
  runtime::Task<bool> Write(Visit* visit, size_t handle);
  // A WRITE, after those in step->earlier. `number`: of Folder::Begin(); 0: not yet.
  runtime::Task<Answer> WriteOnce(Visit* visit, Handle handle, Step* step, int* number);
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
  int sharers_ = 0;  // Of each writer.
  int bases_ = 0;    // Taken so far.
  uint64_t last_file_ = 0;
  uint64_t last_owner_ = 0;
  Counts counts_;
};

}  // namespace dfscsi::simulation

#endif  // NODE_AGENT_TESTING_ENGINE_SIMULATION_WRITERS_H_
