// What a folder must hold on one copy: the model that a simulated writer's folder is compared with.

#ifndef NODE_AGENT_TESTING_ENGINE_SIMULATION_TREE_MODEL_H_
#define NODE_AGENT_TESTING_ENGINE_SIMULATION_TREE_MODEL_H_

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "node-agent/testing/scripted_share.h"

namespace dfscsi::simulation {

// One change, or one look. Paths are relative to the folder, which is "" itself.
struct Step {
  enum class Kind {
    kMakeDirectory,
    kRemoveDirectory,
    kCreate,    // Opens what is there, unless `exclusive`.
    kOpen,      // Cuts, if `truncates`.
    kWrite,     // Through a handle; at the end, if `appends`.
    kTruncate,  // Through a handle, or by its path.
    kSetTime,   // By its path.
    kRename,    // To `target`; over a file, if `replaces`.
    kUnlink,
    kSync,  // Through a handle.
  };
  Kind kind = Kind::kSync;
  std::string path = {};
  std::string target = {};
  // Through a handle of this file, and not by the path. Of kCreate: the number that a new file
  // gets.
  bool through_handle = false;
  uint64_t file = 0;
  bool exclusive = false;
  bool truncates = false;
  bool appends = false;
  bool replaces = false;
  // Of kWrite; `earlier`: what was written before it through the same handle, in this order, and of
  // which nobody has been told yet how it ended.
  struct Piece {
    uint64_t offset = 0;
    std::string bytes = {};
  };
  uint64_t offset = 0;
  std::string bytes = {};
  std::vector<Piece> earlier = {};
  uint64_t size_bytes = 0;
  absl::Time time = {};

  bool ChangesNames() const;
  std::string ToString() const;
};

struct Alternative;

class TreeModel {
 public:
  // The folder is there, and holds this file.
  void Add(const std::string& path, uint64_t file, std::string content);

  // The errno that the step must end with here; 0: it is done. `opened`: the file that kCreate or
  // kOpen has opened.
  int Apply(const Step& step, uint64_t* opened = nullptr);

  bool Has(const std::string& path) const { return entries_.contains(path); }
  // The folder's own, "", first.
  std::vector<std::string> Paths() const;
  // 0: there is no such file.
  uint64_t FileAt(const std::string& path) const;
  // Null: the copy does not have it, by any name or none.
  const std::string* ContentOf(uint64_t file) const;

  // The file at `path` is the one that the server's folder has there, from now on.
  void Identify(const std::string& path, const testing::ScriptedFile* folder);

  // 0: not known.
  uint64_t IdOf(uint64_t file) const;

  // Where the folder of a scripted server differs, in words; "" if it does not. Null: it is not
  // there. What the engine has hidden (an open file whose name was removed) may be there or not,
  // but it holds what was written to it.
  std::string DifferenceTo(const testing::ScriptedFile* actual) const;
  // `alternatives`: what single files may hold as well; `used`: the steps of those that were
  // needed.
  std::string DifferenceTo(const testing::ScriptedFile* actual,
                           const std::vector<Alternative>& alternatives, std::set<int>* used) const;

 private:
  struct Content {
    std::string bytes = {};
    std::optional<absl::Time> written = {};  // The last-write time, where it was set.
    uint64_t id = 0;                         // Of its server; 0: not known.
  };
  // Of a file; "": none.
  std::string DifferenceOf(const std::string& path, uint64_t file,
                           const testing::ScriptedFile& on_server) const;
  std::string DifferenceOfOne(const std::string& path, uint64_t file,
                              const testing::ScriptedFile& on_server,
                              const std::vector<Alternative>& alternatives,
                              std::set<int>* used) const;
  bool HasParent(const std::string& path) const;
  bool IsDirectory(const std::string& path) const;
  bool HasEntriesIn(const std::string& path) const;
  void Move(const std::string& path, const std::string& target);

  std::map<std::string, uint64_t> entries_;  // By path; 0: a directory.
  std::map<uint64_t, Content> files_;        // Those without a name, too: somebody has them open.
};

// What a step that may have been done has made of one file.
struct Alternative {
  uint64_t file = 0;
  int step = 0;
  TreeModel model = {};
};

}  // namespace dfscsi::simulation

#endif  // NODE_AGENT_TESTING_ENGINE_SIMULATION_TREE_MODEL_H_
