#include "node-agent/dfs/link_table.h"

#include <algorithm>

namespace dfscsi::dfs {

std::shared_ptr<Link> LinkTable::Find(const DfsPath& path) const {
  for (size_t n = std::min(path.size(), links_of_size_.size() - 1); n >= 2; --n) {
    if (links_of_size_[n] == 0) continue;
    const auto found = links_.find(path.KeyPrefix(n));
    if (found != links_.end()) return found->second;
  }
  return nullptr;
}

std::shared_ptr<Link> LinkTable::Get(const DfsPath& path, size_t components) {
  std::shared_ptr<Link>& link = links_[std::u16string(path.KeyPrefix(components))];
  if (link == nullptr) {
    link = std::make_shared<Link>(path.Prefix(components));
    if (links_of_size_.size() <= components) links_of_size_.resize(components + 1);
    ++links_of_size_[components];
  }
  return link;
}

bool LinkTable::Contains(const DfsPath& path) const { return links_.contains(path.Key()); }

void LinkTable::Erase(const DfsPath& prefix) {
  if (links_.erase(prefix.Key()) > 0) --links_of_size_[prefix.size()];
}

void LinkTable::ForEach(const std::function<void(Link&)>& visit) const {
  for (const auto& [key, link] : links_) visit(*link);
}

}  // namespace dfscsi::dfs
