#include "node-agent/dfs/resolver.h"

#include <algorithm>
#include <cerrno>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "node-agent/dfs/resolver_parts.h"

namespace dfscsi::dfs {

using resolver_parts::Contains;
using resolver_parts::Error;
using resolver_parts::IsSysvol;
using resolver_parts::LoopError;
using resolver_parts::SaysNothingThere;

namespace {

// A hostile namespace (each level with many targets that are namespaces) cannot multiply.
constexpr int kMaxEntered = 32;

bool IsIpc(const DfsPath& path) { return absl::EqualsIgnoreCase(path.share(), "IPC$"); }

// How much of the path that the resolution began with is used up once `prefix_components` of a
// level's path are.
size_t LinkComponents(const DfsPath& origin, const DfsPath& path, size_t prefix_components,
                      size_t used_before) {
  const size_t rest = path.size() - prefix_components;
  const size_t used = rest < origin.size() ? origin.size() - rest : 0;
  return std::max(used_before, used);
}

}  // namespace

Resolution::Resolution(const DfsPath& origin, absl::string_view credential)
    : origin_(&origin), credential_(credential) {
  levels_.emplace_back();
  levels_.back().path = &origin;
}

ResolveStep Resolver::Next(Resolution& resolution, absl::Time now) {
  // Each turn without a step enters or leaves a level; kMaxEntered bounds both.
  for (;;) {
    if (Look look = LookAtLevel(resolution, now)) return *std::move(look);
  }
}

// Steps 1 and 2 of [MS-DFSC] 3.1.4.1.
Resolver::Look Resolver::LookAtLevel(Resolution& resolution, absl::Time now) {
  const Level& level = resolution.levels_.back();
  if (IsIpc(*level.path)) return LookAtNotDfs(resolution, now);
  ReferralCache::Entry entry = cache_.Get(*level.path, resolution.credential_, now);
  if (entry == nullptr) return LookAtNothing(resolution, now);
  switch (entry->kind) {
    case EntryKind::kRoot:
      return LookAtRoot(resolution, std::move(entry), now);
    case EntryKind::kLink:
      return LookAtLink(resolution, std::move(entry), now);
    case EntryKind::kNotDfs:
      return LookAtNotDfs(resolution, now);
    case EntryKind::kNoSuchPath:
      return Error(absl::NotFoundError("the namespace has no such path"), FailureClass::kSemantics,
                   ENOENT);
    case EntryKind::kUnusable:
      return Error(absl::InternalError("the link has no usable target"), FailureClass::kSemantics,
                   EIO);
  }
  return Error(absl::InternalError("unknown cache entry"), FailureClass::kBroken, EIO);
}

// Steps 5 and 6: nothing is known.
Resolver::Look Resolver::LookAtNothing(Resolution& resolution, absl::Time now) {
  const Level& level = resolution.levels_.back();
  if (!level.root.asked) return AskRoot(resolution, /*stale_known=*/false, now);
  if (level.root.failure == FailureClass::kSemantics) return LookAtNotDfs(resolution, now);
  if (level.root.failure != FailureClass::kNone) {
    return LeaveFailed(resolution, level.root.failure, level.root.status);
  }
  // It was answered, and thrown out of the cache before we looked.
  return Error(absl::UnavailableError("the referral is gone again"), FailureClass::kTransport,
               EHOSTDOWN);
}

// Step 12, and what it means below the first level.
Resolver::Look Resolver::LookAtNotDfs(Resolution& resolution, absl::Time now) {
  Level& level = resolution.levels_.back();
  if (level.not_covered) {
    // A server that is no namespace's says that it does not cover the path.
    if (!level.root.asked) return AskRoot(resolution, /*stale_known=*/false, now);
    return LeaveFailed(resolution, FailureClass::kPathNotCovered,
                       absl::InternalError("path not covered by a server without namespace"));
  }
  if (resolution.levels_.size() == 1) {
    ResolveStep step;
    step.kind = ResolveStep::Kind::kNotDfs;
    step.path = level.path;
    step.prefix_components = step.link_components = 2;
    return step;
  }
  // The target looked like a namespace and is none: it serves the path itself.
  const DfsPath& target = level.via->targets[level.via_target].path;
  cache_.SetTargetShare(level.via->prefix, resolution.credential_, target, TargetShare::kPlain);
  std::u16string key(target.Key());
  resolution.levels_.pop_back();
  resolution.levels_.back().plain.push_back(std::move(key));
  return std::nullopt;
}

// Steps 3, 5 (expired) and 8 for a namespace root.
Resolver::Look Resolver::LookAtRoot(Resolution& resolution, ReferralCache::Entry entry,
                                    absl::Time now) {
  const Level& level = resolution.levels_.back();
  if (entry->Expired(now) && !level.root.asked && !level.left_out && now >= entry->retry_at) {
    return Untried(AskRoot(resolution, /*stale_known=*/true, now));
  }
  if (level.not_covered) return NotCoveredAtRoot(resolution, now);
  return TryTargets(resolution, std::move(entry), now);
}

// [MS-DFSC] 3.1.5.1: the path lies below a link that the cache does not know.
Resolver::Look Resolver::NotCoveredAtRoot(Resolution& resolution, absl::Time now) {
  if (resolution.levels_.size() > kMaxLinks) return LoopError();  // It would be one link too many.
  const Level& level = resolution.levels_.back();
  if (!level.link.asked) return AskLink(resolution, /*stale_known=*/false, now);
  if (level.link.failure == FailureClass::kSemantics) {
    if (SaysNothingThere(level.link.status)) {
      return Error(absl::NotFoundError("the namespace has no such link"), FailureClass::kSemantics,
                   ENOENT);
    }
    return Error(level.link.status, FailureClass::kSemantics, EIO);
  }
  if (level.link.failure != FailureClass::kNone) {
    return LeaveFailed(resolution, level.link.failure, level.link.status);
  }
  return Error(absl::InternalError("the namespace has no link for a path it does not cover"),
               FailureClass::kSemantics, EIO);
}

// Steps 4, 9 and 11.
Resolver::Look Resolver::LookAtLink(Resolution& resolution, ReferralCache::Entry entry,
                                    absl::Time now) {
  if (resolution.levels_.size() > kMaxLinks) return LoopError();
  const Level& level = resolution.levels_.back();
  if (entry->Expired(now) && !level.left_out && now >= entry->retry_at) {
    // A share that refers elsewhere as a whole has no root above it to ask.
    if (entry->prefix.size() == 2) {
      if (!level.root.asked) return Untried(AskRoot(resolution, /*stale_known=*/true, now));
    } else if (!level.link.asked) {
      return Untried(AskLink(resolution, /*stale_known=*/true, now));
    }
  }
  return TryTargets(resolution, std::move(entry), now);
}

Resolver::Look Resolver::TryTargets(Resolution& resolution, ReferralCache::Entry entry,
                                    absl::Time now) {
  Level& level = resolution.levels_.back();
  if (!level.entering.empty()) {
    const std::u16string entering = std::exchange(level.entering, {});
    for (size_t i = 0; i < entry->targets.size(); ++i) {
      if (entry->targets[i].path.Key() != entering) continue;
      return Enter(resolution, entry, i, level.entering_not_covered);
    }
  }
  ResolveStep step;
  const size_t count = entry->targets.size();
  for (size_t i = 0; i <= count; ++i) {
    // TargetHint, then all others in order.
    const size_t target = i == 0 ? entry->hint : i - 1;
    if (i > 0 && target == entry->hint) continue;
    if (Contains(level.failed, entry->targets[target].path)) continue;
    if (IsNamespace(level, *entry, target, now)) {
      // The best that is left is another namespace; go there. Else those come after the plain ones.
      if (step.candidates.empty()) return Enter(resolution, entry, target, /*not_covered=*/false);
      continue;
    }
    step.candidates.push_back(static_cast<uint16_t>(target));
  }
  if (step.candidates.empty()) return TargetsFailed(resolution, *entry, now);
  step.kind = ResolveStep::Kind::kTryTargets;
  step.path = level.path;
  step.prefix_components = entry->prefix.size();
  step.link_components = LinkComponents(*resolution.origin_, *level.path, step.prefix_components,
                                        level.link_components);
  step.entry = std::move(entry);
  return step;
}

// Interlinks, announced or found out ([MS-DFSC] 3.1.5.4.5 and above).
bool Resolver::IsNamespace(const Level& level, const ReferralEntry& entry, size_t target,
                           absl::Time now) const {
  if (entry.kind != EntryKind::kLink || IsSysvol(*level.path)) return false;
  const CachedTarget& cached = entry.targets[target];
  if (Contains(level.plain, cached.path)) return false;
  if (cached.share != TargetShare::kUnknown) return cached.share == TargetShare::kNamespace;
  if (entry.interlink) return true;
  return entry.targets.size() == 1 &&
         domains_.Get(cached.path.HostName(), now) == DomainCache::Knowledge::kDomain;
}

// No target is left. The list may be old: ask once more before giving this level up.
Resolver::Look Resolver::TargetsFailed(Resolution& resolution, const ReferralEntry& entry,
                                       absl::Time now) {
  const Level& level = resolution.levels_.back();
  if (level.tried && now >= entry.retry_at) {
    if (entry.kind == EntryKind::kRoot || entry.prefix.size() == 2) {
      if (!level.root.asked) return AskRoot(resolution, /*stale_known=*/true, now);
    } else if (!level.link.asked) {
      return AskLink(resolution, /*stale_known=*/true, now);
    }
  }
  const FailureClass failure = WorstOf(level.failures);
  absl::Status status =
      StatusOf(failure, absl::StrCat("no target can serve the path: ", FailureClassName(failure)));
  if (entry.kind == EntryKind::kLink && failure == FailureClass::kMissing) {
    status = AsDanglingLink(std::move(status));
  }
  return LeaveFailed(resolution, failure, status);
}

// Step 11: the rest of the path belongs to the target's namespace.
Resolver::Look Resolver::Enter(Resolution& resolution, const ReferralCache::Entry& via,
                               size_t target, bool not_covered) {
  const Level& level = resolution.levels_.back();
  absl::StatusOr<DfsPath> path =
      level.path->ReplacePrefix(via->prefix.size(), via->targets[target].path);
  if (!path.ok()) return Error(path.status(), FailureClass::kSemantics, ENAMETOOLONG);
  for (const Level& visited : resolution.levels_) {
    if (*visited.path == *path) return LoopError();
  }
  if (++resolution.entered_ > kMaxEntered) return LoopError();
  Level next;
  next.rewritten = std::make_unique<const DfsPath>(*std::move(path));
  next.path = next.rewritten.get();
  next.via = via;
  next.via_target = target;
  next.link_components =
      LinkComponents(*resolution.origin_, *level.path, via->prefix.size(), level.link_components);
  next.not_covered = not_covered;
  resolution.levels_.push_back(std::move(next));
  return std::nullopt;
}

// Steps 13 and 14, after the other targets of the links that led here.
Resolver::Look Resolver::LeaveFailed(Resolution& resolution, FailureClass failure,
                                     const absl::Status& status) {
  if (resolution.levels_.size() == 1) return Error(status, failure, ErrnoOf(failure));
  const Level& level = resolution.levels_.back();
  std::u16string key(level.via->targets[level.via_target].path.Key());
  resolution.levels_.pop_back();
  resolution.levels_.back().failed.push_back(std::move(key));
  resolution.levels_.back().failures.push_back(failure);
  resolution.levels_.back().tried = true;
  return std::nullopt;
}

}  // namespace dfscsi::dfs
