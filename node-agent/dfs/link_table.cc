#include "node-agent/dfs/link_table.h"

#include <algorithm>

#include "node-agent/smb/connection.h"
#include "node-agent/smb/session.h"

namespace dfscsi::dfs {

namespace {

bool IsUp(const FormerBinding& former) {
  const std::shared_ptr<smb::Tree> held = former.tree.lock();
  return held != nullptr && held->usable() && !held->session().connection().suspect();
}

}  // namespace

void Link::Unbind() {
  tree = nullptr;
  better.reset();
  if (guard != nullptr) guard->Cancel();
  guard = nullptr;
}

void Link::MoveAttempts() {
  while (Attempt* const attempt = attempts.PopFront()) {
    attempt->moved = true;
    attempt->ended.Set();
  }
}

void Link::MoveRepeatableAttempts() {
  while (Attempt* const attempt = attempts.PopFront()) {
    if (!attempt->repeatable) continue;
    attempt->moved = true;
    attempt->ended.Set();
  }
}

void Link::KeepAsFormer() {
  std::erase_if(former, [](const FormerBinding& one) { return one.tree.expired(); });
  former.push_back({.tree = tree, .target_path = target_path, .epoch = epoch});
  MoveRepeatableAttempts();
}

void Link::Leave() {
  if (tree == nullptr) return;
  KeepAsFormer();
  Unbind();
}

bool Link::HasFormer() const { return std::any_of(former.begin(), former.end(), IsUp); }

const FormerBinding* Link::FindFormer(uint64_t of_epoch) const {
  for (const FormerBinding& one : former) {
    if (one.epoch == of_epoch) return IsUp(one) ? &one : nullptr;
  }
  return nullptr;
}

void Link::DropFormer(uint64_t of_epoch) {
  std::erase_if(former, [&](const FormerBinding& one) {
    return one.epoch == of_epoch || one.tree.expired();
  });
}

LinkTable::~LinkTable() {
  std::vector<std::shared_ptr<Link>> all = List();
  links_.clear();
  for (std::shared_ptr<Link>& link : all) link.reset();
}

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
  for (const std::shared_ptr<Link>& link : List()) visit(*link);
}

std::vector<std::shared_ptr<Link>> LinkTable::List() const {
  std::vector<std::shared_ptr<Link>> all;
  all.reserve(links_.size());
  for (const auto& [key, link] : links_) all.push_back(link);
  // The order of a hash table is no order: a simulation must replay.
  std::sort(all.begin(), all.end(),
            [](const auto& a, const auto& b) { return a->prefix.Key() < b->prefix.Key(); });
  return all;
}

}  // namespace dfscsi::dfs
