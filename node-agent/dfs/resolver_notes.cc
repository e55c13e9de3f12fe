// Resolver: what the driver's reports change, in the resolution and in the caches.

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "node-agent/dfs/resolver.h"
#include "node-agent/dfs/resolver_parts.h"

namespace dfscsi::dfs {

using resolver_parts::Contains;
using resolver_parts::IsSysvol;
using resolver_parts::SaysNothingThere;

namespace {

// A refresh that failed is tried again by the next user after this, half of it as jitter.
constexpr absl::Duration kRefreshRetry = absl::Seconds(4);

}  // namespace

void Resolver::NoteTargetFailed(Resolution& resolution, const ResolveStep& step, size_t candidate,
                                FailureClass failure) {
  NoteTargetHeldBack(resolution, step, candidate, failure);
  resolution.levels_.back().tried = true;
}

void Resolver::NoteTargetHeldBack(Resolution& resolution, const ResolveStep& step, size_t candidate,
                                  FailureClass failure) {
  Level& level = resolution.levels_.back();
  level.failed.emplace_back(step.entry->targets[candidate].path.Key());
  // Whoever held it back may have been forgiven meanwhile; it was not tried all the same.
  level.failures.push_back(failure == FailureClass::kNone ? FailureClass::kTransport : failure);
}

void Resolver::NotePathNotCovered(Resolution& resolution, const ResolveStep& step,
                                  size_t candidate) {
  Level& level = resolution.levels_.back();
  if (step.kind == ResolveStep::Kind::kNotDfs) {
    level.not_covered = true;
    cache_.Erase(level.path->Prefix(2), resolution.credential_);
    return;
  }
  if (step.entry->kind == EntryKind::kRoot) {
    level.not_covered = true;
    return;
  }
  const DfsPath& target = step.entry->targets[candidate].path;
  if (Contains(level.plain, target)) {
    // It was looked at as a namespace, and is none.
    NoteTargetFailed(resolution, step, candidate, FailureClass::kPathNotCovered);
    return;
  }
  cache_.SetTargetShare(step.entry->prefix, resolution.credential_, target,
                        TargetShare::kNamespace);
  level.entering = std::u16string(target.Key());
  level.entering_not_covered = true;
}

bool Resolver::NoteShareInDfs(Resolution& resolution, const ResolveStep& step, size_t candidate) {
  Level& level = resolution.levels_.back();
  if (step.entry->kind != EntryKind::kLink || IsSysvol(*level.path)) return false;
  const CachedTarget& target = step.entry->targets[candidate];
  if (target.share != TargetShare::kUnknown || Contains(level.plain, target.path)) return false;
  cache_.SetTargetShare(step.entry->prefix, resolution.credential_, target.path,
                        TargetShare::kNamespace);
  level.entering = std::u16string(target.path.Key());
  level.entering_not_covered = false;
  return true;
}

void Resolver::NoteReferral(Resolution& resolution, const ResolveStep& step,
                            const Referral& referral, size_t answered_by,
                            const FetchContext& context) {
  QuestionOf(resolution.levels_.back(), step.fetch.kind) = {.asked = true, .status = {}};
  StoreReferral(resolution.credential_, step.fetch, referral, answered_by, context);
}

void Resolver::NoteControllers(Resolution& resolution, const ResolveStep& step,
                               const NameListReferral& list, size_t answered_by,
                               const FetchContext& context) {
  resolution.levels_.back().controllers = {.asked = true, .status = {}};
  std::vector<std::string> controllers;
  for (const NameListReferral::Entry& entry : list.entries) {
    controllers.insert(controllers.end(), entry.expanded.begin(), entry.expanded.end());
  }
  if (controllers.empty()) controllers.push_back(step.fetch.hosts[answered_by]);
  const absl::Duration ttl =
      std::clamp(list.ttl, context.limits.min, std::max(context.limits.min, context.limits.max));
  domains_.PutControllers(step.fetch.domain, std::move(controllers), context.now + ttl);
}

void Resolver::NoteFetchedElsewhere(Resolution& resolution, const ResolveStep& step) {
  // Name servers know controllers: they have yet to be asked for all of them.
  const bool named = step.fetch.kind == ReferralKind::kDc && step.fetch.hosts.empty() &&
                     !domains_.GetBootstrap(step.fetch.domain).empty();
  QuestionOf(resolution.levels_.back(), step.fetch.kind) = {.asked = !named, .status = {}};
}

void Resolver::NoteFetchLeftOut(Resolution& resolution) {
  resolution.levels_.back().left_out = true;
}

void Resolver::NoteFetchFailed(Resolution& resolution, const ResolveStep& step,
                               const absl::Status& status, FailureClass failure,
                               const FetchContext& context) {
  Level& level = resolution.levels_.back();
  QuestionOf(level, step.fetch.kind) = {.asked = true, .status = status, .failure = failure};
  if (step.fetch.kind == ReferralKind::kDc) return;  // The name itself is asked instead.
  StoreFailure(resolution.credential_, step.fetch, status, failure, context);
  if (step.fetch.kind == ReferralKind::kLink && failure == FailureClass::kSemantics &&
      level.not_covered && SaysNothingThere(status)) {
    cache_.PutNegative(*level.path, resolution.credential_, EntryKind::kNoSuchPath, context.now,
                       context.random);
  }
}

void Resolver::StoreReferral(absl::string_view credential, const ReferralFetch& fetch,
                             const Referral& referral, size_t answered_by,
                             const FetchContext& context) {
  const DfsPath& request = *fetch.request;
  const absl::string_view host = fetch.hosts[answered_by];
  cache_.Put(request, credential, referral, context.limits, context.now, context.random);
  if (fetch.kind != ReferralKind::kLink) {
    domains_.SetHint(request.HostName(), host);
    return;
  }
  // What the cache knew of this path in more detail than the server does now is gone.
  for (;;) {
    const ReferralCache::Entry deeper = cache_.Get(request, credential, context.now);
    if (deeper == nullptr || deeper->prefix.size() <= referral.consumed_components) break;
    cache_.Erase(deeper->prefix, credential);
  }
  // [MS-DFSC] 3.1.5.4.3: the root that answered is TargetHint.
  const ReferralCache::Entry root = cache_.GetExact(request, 2, credential, context.now);
  if (root == nullptr || root->kind != EntryKind::kRoot) return;
  for (const CachedTarget& target : root->targets) {
    if (!absl::EqualsIgnoreCase(target.path.HostName(), host)) continue;
    cache_.SetHint(root->prefix, credential, target.path);
    return;
  }
}

void Resolver::StoreFailure(absl::string_view credential, const ReferralFetch& fetch,
                            const absl::Status& status, FailureClass failure,
                            const FetchContext& context) {
  const absl::Time retry_at = context.now + kRefreshRetry * (0.5 + 0.5 * context.random);
  const DfsPath& request = *fetch.request;
  const ReferralCache::Entry known = cache_.Get(request, credential, context.now);
  const bool stale = known != nullptr && HasTargets(known->kind);
  if (fetch.kind != ReferralKind::kLink) {
    if (stale) {
      cache_.NoteRefreshFailed(known->prefix, credential, retry_at);
    } else if (failure == FailureClass::kSemantics) {
      cache_.PutNegative(request, credential, EntryKind::kNotDfs, context.now, context.random);
    }
    return;
  }
  if (!stale || known->kind != EntryKind::kLink) return;
  if (failure == FailureClass::kSemantics && SaysNothingThere(status)) {
    // The link is gone; Samba says so of plain directories too. What covers the path now is the
    // root.
    cache_.Erase(known->prefix, credential);
  } else {
    cache_.NoteRefreshFailed(known->prefix, credential, retry_at);
  }
}

}  // namespace dfscsi::dfs
