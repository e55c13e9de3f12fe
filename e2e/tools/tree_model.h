// What a tree of names must be: directories, files with their bytes, and the errno of each change.

#ifndef DFSCSI_E2E_TOOLS_TREE_MODEL_H_
#define DFSCSI_E2E_TOOLS_TREE_MODEL_H_

#include <stdint.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/types/span.h"

namespace dfscsi::exercise {

struct TreeNode {
  bool is_directory = false;
  std::map<std::string, std::shared_ptr<TreeNode>> entries;  // Of a directory.
  std::vector<uint8_t> content;                              // Of a file.
  TreeNode* parent = nullptr;  // Of what was removed: where it was last.
  bool is_removed = false;
  int open_handles = 0;
  // A file was removed from this directory while it was open.
  bool had_removed_files = false;
};

using TreePath = std::vector<std::string>;

class TreeModel {
 public:
  TreeModel();

  TreeNode* root() { return root_.get(); }

  // Each returns the errno that the call must end with, 0 if it succeeds, and then has done it.
  int Find(const TreePath& path, std::shared_ptr<TreeNode>* found) const;
  // open(2) for writing: of a file, which it may make.
  int Open(const TreePath& path, bool create, bool exclusive, bool truncate,
           std::shared_ptr<TreeNode>* opened);
  int MakeDirectory(const TreePath& path);
  int Unlink(const TreePath& path);
  int RemoveDirectory(const TreePath& path);
  int Rename(const TreePath& from, const TreePath& to, bool replace);

  // Every directory, with its path; the root is {}.
  std::vector<TreePath> Directories() const;
  // Whether the node, or a file below it, is open, or was when it was removed there.
  static bool IsBusy(const TreeNode& node);

 private:
  // The directory of the last name, or why there is none: ENOENT, ENOTDIR.
  int FindParent(const TreePath& path, TreeNode** parent) const;
  static void Remove(TreeNode* parent, const std::string& name);

  std::shared_ptr<TreeNode> root_;
};

}  // namespace dfscsi::exercise

#endif  // DFSCSI_E2E_TOOLS_TREE_MODEL_H_
