// One writer's folder on every copy, and what its answers say of it: the oracle of simulated
// writing. Targets are copies that nobody replicates here, so each has a model of its own: a step
// that was answered with success has been done on exactly one of them, once; one that was refused
// on none; one of which nobody knows (EIO, EINTR) on one at most.

#ifndef NODE_AGENT_TESTING_ENGINE_SIMULATION_FOLDER_H_
#define NODE_AGENT_TESTING_ENGINE_SIMULATION_FOLDER_H_

#include <array>
#include <cstdint>
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
  // `error`: the answer. `reachable`: the copies that may have answered; `files`: of the handle
  // that the step goes through. `unsettled`: the link, or its share, may be missing.
  Outcome Settle(const Step& step, int error, CopySet reachable, bool unsettled,
                 const Files& files = {});

  // Something has changed although nobody asked; "": nothing.
  std::string FindChange() const;
  // A model of a copy.
  const TreeModel& on(size_t copy) const { return models_[copy]; }
  // Whether what was read at `offset` is what one of the copies has. True at its end, too.
  bool MayRead(const Files& files, uint64_t offset, uint64_t asked, std::string_view got) const;
  // Whether one of the copies has a file of this size there.
  bool MayHaveSize(const std::string& path, uint64_t size_bytes, CopySet where) const;
  // A name of an open file was removed: the engine's own name is in the folder for a time.
  void NoteHidden() { has_hidden_ = true; }

 private:
  using Models = std::array<TreeModel, Copies::kAll.size()>;

  std::string Describe(const Step& step, int error, const Models& next) const;
  Outcome SettleDone(const Step& step, const Models& next, CopySet able);
  Outcome SettleUnknown(const Step& step, int error, const Models& next, CopySet able,
                        const Files& files);
  CopySet UnlikeModels() const;
  bool IsTolerated(const Step& step, int error) const;

  const Copies& copies_;
  const std::string name_;
  Models models_;
  // After an answer that says that nobody knows: what else each copy may hold, and one at most
  // does.
  std::array<std::vector<TreeModel>, Copies::kAll.size()> others_;
  bool unknown_ = false;
  bool has_hidden_ = false;
};

}  // namespace dfscsi::simulation

#endif  // NODE_AGENT_TESTING_ENGINE_SIMULATION_FOLDER_H_
