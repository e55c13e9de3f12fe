#include "node-agent/vfs/hard_links.h"

namespace dfscsi::vfs {

void HardLinks::Note(state::NodeId node, uint64_t ino, const File& file) {
  const auto known = files_.find(node);
  if (known != files_.end() && known->second == file) return;
  Forget(node);
  if (file.id == 0) return;
  Names& names = names_[file];
  if (names.nodes.empty()) names.ino = ino;
  names.nodes.insert(node);
  files_[node] = file;
}

void HardLinks::Forget(state::NodeId node) {
  const auto known = files_.find(node);
  if (known == files_.end()) return;
  const auto names = names_.find(known->second);
  names->second.nodes.erase(node);
  if (names->second.nodes.empty()) names_.erase(names);
  files_.erase(known);
}

std::optional<uint64_t> HardLinks::InodeNumberOf(const File& file) const {
  const auto names = names_.find(file);
  if (names == names_.end()) return std::nullopt;
  return names->second.ino;
}

std::vector<state::NodeId> HardLinks::Others(state::NodeId node) const {
  std::vector<state::NodeId> others;
  const auto known = files_.find(node);
  if (known == files_.end()) return others;
  for (const state::NodeId other : names_.at(known->second).nodes) {
    if (other != node) others.push_back(other);
  }
  return others;
}

bool HardLinks::AreSame(state::NodeId one, state::NodeId other) const {
  const auto known = files_.find(one);
  const auto also = files_.find(other);
  return known != files_.end() && also != files_.end() && known->second == also->second;
}

}  // namespace dfscsi::vfs
