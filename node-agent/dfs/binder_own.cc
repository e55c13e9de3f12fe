// Binder: one target of a link in particular, whichever the link is bound to.

#include <algorithm>
#include <utility>

#include "node-agent/base/status_macros.h"
#include "node-agent/dfs/binder.h"
#include "node-agent/dfs/client.h"
#include "node-agent/runtime/loop.h"

namespace dfscsi::dfs {

using runtime::Deadline;
using runtime::Task;

Task<absl::StatusOr<Binder::Own>> Binder::FindOwn(DfsPath path, TargetPredicate is_own,
                                                  Deadline deadline) {
  // What the link is bound to does not matter: it brings the referral.
  BindFailure failure;
  CO_ASSIGN_OR_RETURN(const std::shared_ptr<Link> link,
                      co_await Bind(std::move(path), {}, &failure, std::move(deadline)));
  if (is_own(link->target_path)) co_return Own{.link = link, .target_path = link->target_path};
  if (link->entry_prefix.has_value()) {
    for (DfsPath& target : TargetsOf(*link)) {
      if (is_own(target)) co_return Own{.link = link, .target_path = std::move(target)};
    }
  }
  co_return absl::NotFoundError("its server is not listed");
}

// All that the referral lists, each with what lies between its root and the link.
std::vector<DfsPath> Binder::TargetsOf(const Link& link) const {
  std::vector<DfsPath> targets;
  const ReferralCache::Entry entry = cache_.GetExact(*link.entry_prefix, link.entry_prefix->size(),
                                                     account_, runtime::Loop::Current().Now());
  if (entry == nullptr || !HasTargets(entry->kind)) return targets;
  const auto serving = std::find_if(
      entry->targets.begin(), entry->targets.end(),
      [&](const CachedTarget& target) { return link.target_path.HasPrefix(target.path); });
  if (serving == entry->targets.end()) return targets;
  for (const CachedTarget& target : entry->targets) {
    absl::StatusOr<DfsPath> deeper =
        link.target_path.ReplacePrefix(serving->path.size(), target.path);
    if (deeper.ok()) targets.push_back(*std::move(deeper));
  }
  return targets;
}

Task<absl::Status> Binder::BindOwn(Own* own, Deadline deadline) {
  Link& link = *own->link;
  const auto is_known = [own, &link] {
    if (link.bound() && link.target_path == own->target_path) {
      own->tree = link.tree;
      own->epoch = link.epoch;
      return true;
    }
    for (const FormerBinding& former : link.former) {
      if (!(former.target_path == own->target_path)) continue;
      if (link.FindFormer(former.epoch) == nullptr) continue;
      own->tree = former.tree.lock();
      own->epoch = former.epoch;
      return true;
    }
    return false;
  };
  if (is_known()) co_return absl::OkStatus();
  CO_ASSIGN_OR_RETURN(Reached reached, co_await TryTarget({.target_path = own->target_path},
                                                          std::make_shared<Round>(1), deadline));
  if (reached.not_covered) co_return absl::UnavailableError("the path goes on elsewhere");
  // Who waited for the same may have been quicker.
  if (is_known() && own->tree == reached.tree) co_return absl::OkStatus();
  own->tree = std::move(reached.tree);
  own->epoch = NextEpoch();
  std::erase_if(link.former, [](const FormerBinding& one) { return one.tree.expired(); });
  link.former.push_back({.tree = own->tree, .target_path = own->target_path, .epoch = own->epoch});
  co_return absl::OkStatus();
}

}  // namespace dfscsi::dfs
