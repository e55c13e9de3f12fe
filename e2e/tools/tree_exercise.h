// A tree of names against a model of it: made, opened, written, renamed over each other and
// removed, also while they are open.

#ifndef DFSCSI_E2E_TOOLS_TREE_EXERCISE_H_
#define DFSCSI_E2E_TOOLS_TREE_EXERCISE_H_

#include <stdint.h>

#include <array>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "e2e/tools/exercise.h"
#include "e2e/tools/tree_model.h"

namespace dfscsi::exercise {

// Operations; P and Q are paths of numbers ("3/0/7": the names are in names()), S a place for a
// handle:
//   create P S     open(O_CREAT|O_EXCL)       open P S FLAGS    letters: c O_CREAT, t O_TRUNC, -
//   none close S        write S OFFSET SIZE N      read S OFFSET SIZE cut S SIZE     fsync S stat P
//   list P mkdir P        rmdir P                    unlink P rename P Q     rename-new P Q
//   (RENAME_NOREPLACE) check: every name, type, size and byte
class TreeExercise final : public Exercise {
 public:
  struct Options {
    std::string folder;  // Made by Begin; whatever is there is removed.
    int names = 12;      // How many different names there are, at most names_max().
    // Where there are more directories, every other operation removes something at the end of one:
    // a tree that only grows is checked longer and longer. 0: as many as there come to be.
    size_t directories = 0;
    // Leaves out what SMB does not have: renaming and removing directories below which a file is
    // open. What a file has that was removed while it was open shows under a name of its own
    // (hidden_prefix) until it is closed.
    bool smb = false;
    bool keep = false;  // End leaves the tree.
  };
  static constexpr absl::string_view kHiddenPrefix = ".dfscsi";

  explicit TreeExercise(Options options);
  ~TreeExercise() override { CloseAll(); }

  absl::Status Begin() override;
  std::string Draw(Random& random) override;
  absl::Status Run(absl::string_view operation) override;
  bool Lie(Random& random) override;
  void End() override;

  static int names_max();

 private:
  static constexpr int kSlots = 6;
  static constexpr uint64_t kFileBytesMax = 20'000;

  struct Slot {
    int fd = -1;
    std::shared_ptr<TreeNode> node;
  };

  using Handler = absl::Status (TreeExercise::*)(const Words&);
  static const std::map<absl::string_view, Handler>& Handlers();

  absl::Status Create(const Words& words);
  absl::Status Open(const Words& words);
  absl::Status Close(const Words& words);
  absl::Status Write(const Words& words);
  absl::Status Read(const Words& words);
  absl::Status Cut(const Words& words);
  absl::Status Fsync(const Words& words);
  absl::Status Stat(const Words& words);
  absl::Status List(const Words& words);
  absl::Status MakeDirectory(const Words& words);
  absl::Status RemoveDirectory(const Words& words);
  absl::Status Unlink(const Words& words);
  absl::Status Rename(const Words& words);
  absl::Status RenameNew(const Words& words);
  absl::Status Check(const Words& words);

  std::string DrawPath(Random& random) const;
  std::string DrawRemoval(Random& random) const;
  std::string NumbersOf(const TreePath& path) const;
  TreePath PathOf(absl::string_view numbers) const;
  std::string FullPath(const TreePath& path) const;
  Slot& SlotOf(absl::string_view number);
  void Fill(Slot& slot, int fd, std::shared_ptr<TreeNode> node);
  absl::Status CloseSlot(Slot& slot);
  void CloseAll();
  absl::Status OpenInto(const TreePath& path, absl::string_view slot, int flags);
  absl::Status RenameAs(const Words& words, bool replace);
  // SMB: what the server would refuse because of open files.
  bool IsLeftOut(const TreePath& path) const;
  absl::Status CompareStat(const TreePath& path, const TreeNode& node) const;
  absl::Status CompareContent(int fd, const TreeNode& node, uint64_t offset, uint64_t size) const;
  absl::Status CompareListing(const TreePath& path, const TreeNode& node, int* hidden) const;
  absl::Status CheckBelow(const TreePath& path, TreeNode& node);

  const Options options_;
  std::vector<std::string> names_;
  std::unique_ptr<TreeModel> model_;
  std::array<Slot, kSlots> slots_;
  uint32_t next_content_ = 1;
};

}  // namespace dfscsi::exercise

#endif  // DFSCSI_E2E_TOOLS_TREE_EXERCISE_H_
