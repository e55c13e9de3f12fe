// One writer's folder on every copy, and what its answers say of it: the oracle of simulated
// writing. Targets are copies that nobody replicates here, so each has a model of its own: a step
// that was answered with success has been done on exactly one of them, once; one that was refused
// on none; one of which nobody knows (EIO, EINTR) on one at most.
//
// Several steps may be under way: one at most that changes names, and one for each file that
// changes what the file holds. So they do not depend on each other, and each may be done or not.

#ifndef NODE_AGENT_TESTING_ENGINE_SIMULATION_FOLDER_H_
#define NODE_AGENT_TESTING_ENGINE_SIMULATION_FOLDER_H_

#include <array>
#include <cstdint>
#include <list>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "node-agent/testing/engine_simulation_lab.h"
#include "node-agent/testing/engine_simulation_tree_model.h"

namespace dfscsi::simulation {

// A set of copies, one bit for each.
using CopySet = uint32_t;

// The folder "work" of each target that a link may lead to.
class Copies {
 public:
  struct Copy {
    const char* target;  // As in referrals.
    int server;          // Of the lab.
    const char* share;
    const char* folder;  // Of the share.
  };
  static constexpr std::array<Copy, 6> kAll = {{{"t1/data", 2, "data", ""},
                                                {"t2/data", 3, "data", ""},
                                                {"t3/data", 4, "data", ""},
                                                {"t1/alt/sub", 2, "alt", "sub/"},
                                                {"t2/alt/sub", 3, "alt", "sub/"},
                                                {"t3/alt/sub", 4, "alt", "sub/"}}};
  static constexpr CopySet kEvery = (1u << kAll.size()) - 1;
  static constexpr const char* kFolder = "work";

  // Folders that every copy has from the beginning: base0 …, each with the files kBaseFiles.
  static constexpr int kBases = 8;
  static constexpr std::array<const char*, 2> kBaseFiles = {"one", "two"};
  static std::string BaseName(int base);
  static std::string BaseContent(int base, int file);

  // Makes the shares writable.
  explicit Copies(Lab& lab);

  // Null: it is not there.
  const testing::ScriptedFile* Find(size_t copy, const std::string& folder) const;
  // The folders of one copy.
  std::vector<std::string> List(size_t copy) const;
  // Names below `work` that the engine has hidden and not yet removed.
  int CountHidden() const;

 private:
  testing::ScriptedFile* Work(size_t copy) const;

  Lab& lab_;
};

class Folder {
 public:
  Folder(const Copies& copies, std::string name) : copies_(copies), name_(std::move(name)) {}

  const std::string& name() const { return name_; }
  // It is one of those that every copy has; its files get the numbers from `first_file` on.
  void TakeBase(int base, uint64_t first_file);

  // Of a handle: which file it is on each copy where it may be open; 0: not there.
  using Files = std::array<uint64_t, Copies::kAll.size()>;

  struct Outcome {
    std::string violation = {};
    bool done = false;
    bool unknown = false;  // Nobody knows: nothing else may be done in this folder.
    CopySet where = 0;     // Where it was done, or may have been: it changed nothing there.
    Files opened = {};     // Of kCreate and kOpen.
  };
  // A step is asked for: from now on it may be done. `reachable`: the copies that may answer;
  // `files`: of the handle that it goes through. Returns its number.
  int Begin(const Step& step, const Files& files, CopySet reachable);
  // What is asked for with it, too. REQUIRES: it is under way.
  void Extend(int number, const Step& step);
  // It will not be done any more.
  void End(int number);

  // It ends. `error`: the answer. `unsettled`: the link, or its share, may be missing. `number`: of
  // Begin().
  Outcome Settle(const Step& step, int error, CopySet reachable, bool unsettled,
                 const Files& files = {}, int number = 0);

  // Something has changed although nobody asked; "": nothing.
  std::string FindChange() const;
  // The files whose content, or time, the step is about, whichever copy it is done on.
  std::set<uint64_t> FilesOf(const Step& step, const Files& files) const;
  // By the path, on each copy.
  Files FilesAt(const std::string& path) const;
  // A file's name was removed, or may be by now.
  bool MayBeNameless(const Files& files) const;
  // A model of a copy.
  const TreeModel& on(size_t copy) const { return models_[copy]; }
  // Whether what was read at `offset` is what one of the copies has. True at its end, too.
  bool MayRead(const Files& files, uint64_t offset, uint64_t asked, std::string_view got) const;
  // Whether one of the copies has a file of this size there.
  bool MayHaveSize(const std::string& path, uint64_t size_bytes, CopySet where) const;
  bool HasSize(const Files& files, uint64_t size_bytes) const;
  // Whatever it is called; null: it is not there, or not known.
  const testing::ScriptedFile* FindOnServer(size_t copy, uint64_t file) const;
  // A name of an open file was removed: the engine's own name is in the folder for a time.
  void NoteHidden() { has_hidden_ = true; }

 private:
  using Models = std::array<TreeModel, Copies::kAll.size()>;
  // What may have been done.
  struct Possible {
    int number = 0;
    Step step = {};
    Files files = {};
    CopySet where = 0;
  };

  std::string Describe(const Step& step, int error, const Models& next) const;
  Outcome SettleDone(const Step& step, const Models& next, CopySet able);
  Outcome SettleUnknown(const Step& step, int error, const Models& next, CopySet able,
                        const Files& files);
  // Copies that are not as their models.
  CopySet UnlikeModels() const;
  // The copy is as the model, or as one of what is possible has made it: these are `used`.
  bool IsLike(size_t copy, const TreeModel& model, std::set<int>* used) const;
  bool IsTolerated(const Step& step, int error) const;

  const Copies& copies_;
  const std::string name_;
  Models models_;
  std::list<Possible> under_way_;
  std::list<Possible> unknown_;  // Of which nobody knows, for ever.
  int last_number_ = 0;
  bool has_hidden_ = false;
};

}  // namespace dfscsi::simulation

#endif  // NODE_AGENT_TESTING_ENGINE_SIMULATION_FOLDER_H_
