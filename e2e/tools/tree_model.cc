#include "e2e/tools/tree_model.h"

#include <errno.h>

#include <utility>

namespace dfscsi::exercise {
namespace {

void AddDirectories(const TreeNode& node, const TreePath& path, std::vector<TreePath>* found) {
  found->push_back(path);
  for (const auto& [name, entry] : node.entries) {
    if (!entry->is_directory) continue;
    TreePath below = path;
    below.push_back(name);
    AddDirectories(*entry, below, found);
  }
}

bool IsAtOrAbove(const TreeNode* node, const TreeNode* other) {
  for (; other != nullptr; other = other->parent) {
    if (other == node) return true;
  }
  return false;
}

}  // namespace

TreeModel::TreeModel() : root_(std::make_shared<TreeNode>()) { root_->is_directory = true; }

int TreeModel::Find(const TreePath& path, std::shared_ptr<TreeNode>* found) const {
  std::shared_ptr<TreeNode> node = root_;
  for (const std::string& name : path) {
    if (!node->is_directory) return ENOTDIR;
    const auto entry = node->entries.find(name);
    if (entry == node->entries.end()) return ENOENT;
    node = entry->second;
  }
  *found = std::move(node);
  return 0;
}

int TreeModel::FindParent(const TreePath& path, TreeNode** parent) const {
  std::shared_ptr<TreeNode> node;
  const int error = Find(TreePath(path.begin(), path.end() - 1), &node);
  if (error != 0) return error;
  if (!node->is_directory) return ENOTDIR;
  *parent = node.get();
  return 0;
}

int TreeModel::Open(const TreePath& path, bool create, bool exclusive, bool truncate,
                    std::shared_ptr<TreeNode>* opened) {
  TreeNode* parent = nullptr;
  if (const int error = FindParent(path, &parent); error != 0) return error;
  const auto entry = parent->entries.find(path.back());
  if (entry == parent->entries.end()) {
    if (!create) return ENOENT;
    auto made = std::make_shared<TreeNode>();
    made->parent = parent;
    parent->entries[path.back()] = made;
    *opened = std::move(made);
    return 0;
  }
  if (create && exclusive) return EEXIST;
  if (entry->second->is_directory) return EISDIR;
  *opened = entry->second;
  if (truncate) (*opened)->content.clear();
  return 0;
}

int TreeModel::MakeDirectory(const TreePath& path) {
  TreeNode* parent = nullptr;
  if (const int error = FindParent(path, &parent); error != 0) return error;
  if (parent->entries.contains(path.back())) return EEXIST;
  auto made = std::make_shared<TreeNode>();
  made->is_directory = true;
  made->parent = parent;
  parent->entries[path.back()] = std::move(made);
  return 0;
}

void TreeModel::Remove(TreeNode* parent, const std::string& name) {
  TreeNode& node = *parent->entries[name];
  node.is_removed = true;
  if (node.open_handles > 0) parent->had_removed_files = true;
  parent->entries.erase(name);
}

int TreeModel::Unlink(const TreePath& path) {
  TreeNode* parent = nullptr;
  if (const int error = FindParent(path, &parent); error != 0) return error;
  const auto entry = parent->entries.find(path.back());
  if (entry == parent->entries.end()) return ENOENT;
  if (entry->second->is_directory) return EISDIR;
  Remove(parent, path.back());
  return 0;
}

int TreeModel::RemoveDirectory(const TreePath& path) {
  TreeNode* parent = nullptr;
  if (const int error = FindParent(path, &parent); error != 0) return error;
  const auto entry = parent->entries.find(path.back());
  if (entry == parent->entries.end()) return ENOENT;
  if (!entry->second->is_directory) return ENOTDIR;
  if (!entry->second->entries.empty()) return ENOTEMPTY;
  Remove(parent, path.back());
  return 0;
}

// In the order in which Linux looks.
int TreeModel::Rename(const TreePath& from, const TreePath& to, bool replace) {
  TreeNode* old_parent = nullptr;
  TreeNode* new_parent = nullptr;
  if (const int error = FindParent(from, &old_parent); error != 0) return error;
  if (const int error = FindParent(to, &new_parent); error != 0) return error;
  const auto old_entry = old_parent->entries.find(from.back());
  if (old_entry == old_parent->entries.end()) return ENOENT;
  const std::shared_ptr<TreeNode> moved = old_entry->second;
  const auto new_entry = new_parent->entries.find(to.back());
  const bool is_there = new_entry != new_parent->entries.end();
  if (is_there && !replace) return EEXIST;
  if (moved->is_directory && IsAtOrAbove(moved.get(), new_parent)) return EINVAL;
  if (is_there) {
    const TreeNode& target = *new_entry->second;
    if (target.is_directory && IsAtOrAbove(&target, old_parent)) return ENOTEMPTY;
    if (&target == moved.get()) return 0;
    if (moved->is_directory && !target.is_directory) return ENOTDIR;
    if (!moved->is_directory && target.is_directory) return EISDIR;
    if (!target.entries.empty()) return ENOTEMPTY;
    Remove(new_parent, to.back());
  }
  old_parent->entries.erase(from.back());
  moved->parent = new_parent;
  new_parent->entries[to.back()] = moved;
  return 0;
}

std::vector<TreePath> TreeModel::Directories() const {
  std::vector<TreePath> found;
  AddDirectories(*root_, {}, &found);
  return found;
}

bool TreeModel::IsBusy(const TreeNode& node) {
  if (node.open_handles > 0 || node.had_removed_files) return true;
  for (const auto& [name, entry] : node.entries) {
    if (IsBusy(*entry)) return true;
  }
  return false;
}

}  // namespace dfscsi::exercise
