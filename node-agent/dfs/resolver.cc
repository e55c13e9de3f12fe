#include "node-agent/dfs/resolver.h"

#include <algorithm>
#include <cerrno>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "node-agent/smb/wire/nt_status.h"
#include "node-agent/smb/wire/utf16.h"

namespace dfscsi::dfs {
namespace {

// What a namespace of some depth can need, and a hostile one (each level with many targets that are
// namespaces) cannot multiply.
constexpr int kMaxFetches = 32;
constexpr int kMaxEntered = 32;

// A refresh that failed is tried again by the next user after this, half of it as jitter.
constexpr absl::Duration kRefreshRetry = absl::Seconds(4);

ResolveStep Error(absl::Status status, FailureClass failure, int error_number) {
  ResolveStep step;
  step.kind = ResolveStep::Kind::kError;
  step.status = std::move(status);
  step.failure = failure;
  step.error_number = error_number;
  return step;
}

ResolveStep LoopError() {
  return Error(absl::FailedPreconditionError("too many levels of DFS links"),
               FailureClass::kSemantics, ELOOP);
}

bool Contains(const std::vector<std::u16string>& keys, const DfsPath& path) {
  return std::any_of(keys.begin(), keys.end(),
                     [&](const std::u16string& key) { return key == path.Key(); });
}

bool IsIpc(const DfsPath& path) { return absl::EqualsIgnoreCase(path.share(), "IPC$"); }

bool IsSysvol(const DfsPath& path) {
  return absl::EqualsIgnoreCase(path.share(), "SYSVOL") ||
         absl::EqualsIgnoreCase(path.share(), "NETLOGON");
}

// The server says that there is nothing at the path, rather than that it cannot tell.
bool SaysNothingThere(const absl::Status& status) {
  const std::optional<smb::wire::NtStatus> answer = smb::wire::NtStatusOf(status);
  return answer.has_value() && smb::wire::ErrnoOf(*answer) == ENOENT;
}

// How much of the path that the resolution began with is used up once `prefix_components` of a
// level's path are.
size_t LinkComponents(const DfsPath& origin, const DfsPath& path, size_t prefix_components,
                      size_t used_before) {
  const size_t rest = path.size() - prefix_components;
  const size_t used = rest < origin.size() ? origin.size() - rest : 0;
  return std::max(used_before, used);
}

// Targets' hosts, TargetHint's first, each once.
std::vector<std::string> HostsOf(const ReferralEntry& entry) {
  std::vector<std::string> hosts;
  const auto add = [&](const CachedTarget& target) {
    const std::string host(target.path.HostName());
    for (const std::string& one : hosts) {
      if (absl::EqualsIgnoreCase(one, host)) return;
    }
    hosts.push_back(host);
  };
  add(entry.targets[entry.hint]);
  for (const CachedTarget& target : entry.targets) add(target);
  return hosts;
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
  if (entry->Expired(now) && !level.root.asked && now >= entry->retry_at) {
    return AskRoot(resolution, /*stale_known=*/true, now);
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
  if (entry->Expired(now) && now >= entry->retry_at) {
    // A share that refers elsewhere as a whole has no root above it to ask.
    if (entry->prefix.size() == 2) {
      if (!level.root.asked) return AskRoot(resolution, /*stale_known=*/true, now);
    } else if (!level.link.asked) {
      return AskLink(resolution, /*stale_known=*/true, now);
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

Resolver::Look Resolver::Ask(Resolution& resolution, ReferralFetch fetch) {
  if (++resolution.fetches_ > kMaxFetches) return LoopError();
  ResolveStep step;
  step.kind = ResolveStep::Kind::kFetch;
  step.path = resolution.levels_.back().path;
  step.fetch = std::move(fetch);
  return step;
}

Resolver::Look Resolver::AskRoot(Resolution& resolution, bool stale_known, absl::Time now) {
  const Level& level = resolution.levels_.back();
  const absl::string_view host = level.path->HostName();
  if (!level.controllers.asked) {
    const DomainCache::Knowledge known = domains_.Get(host, now);
    const bool may_be_domain = known == DomainCache::Knowledge::kUnknown && options_.find_domains &&
                               host.find('.') != absl::string_view::npos &&
                               host.find_first_not_of("0123456789.:") != absl::string_view::npos;
    if (may_be_domain ||
        (known == DomainCache::Knowledge::kDomain && domains_.GetControllers(host, now).empty())) {
      ReferralFetch fetch;
      fetch.kind = ReferralKind::kDc;
      fetch.domain = std::string(host);
      fetch.wire_path = level.path->ToWire();
      fetch.wire_path.resize(fetch.wire_path.find(u'\\', 1));
      fetch.hosts = domains_.GetBootstrap(host);
      fetch.stale_known = stale_known;
      return Ask(resolution, std::move(fetch));
    }
  }
  ReferralFetch fetch = RootFetch(*level.path, now);
  fetch.stale_known = stale_known;
  return Ask(resolution, std::move(fetch));
}

Resolver::Look Resolver::AskLink(Resolution& resolution, bool stale_known, absl::Time now) {
  const Level& level = resolution.levels_.back();
  ReferralFetch fetch = LinkFetch(*level.path, resolution.credential_, now);
  fetch.stale_known = stale_known;
  return Ask(resolution, std::move(fetch));
}

// To the domain's controllers where there are any, else to the host itself (or to whatever the
// domain's name resolves to: its controllers, with Active Directory).
ReferralFetch Resolver::RootFetch(const DfsPath& path, absl::Time now) const {
  ReferralFetch fetch;
  const absl::string_view host = path.HostName();
  fetch.hosts = domains_.GetControllers(host, now);
  const bool domain = !fetch.hosts.empty();
  fetch.kind = domain && IsSysvol(path) ? ReferralKind::kSysvol : ReferralKind::kRoot;
  if (!domain) fetch.hosts.push_back(std::string(host));
  fetch.request = path.Prefix(2);
  fetch.wire_path = fetch.request->ToWire();
  return fetch;
}

// To the namespace's root targets, TargetHint first.
ReferralFetch Resolver::LinkFetch(const DfsPath& path, absl::string_view credential,
                                  absl::Time now) const {
  ReferralFetch fetch;
  fetch.kind = ReferralKind::kLink;
  fetch.request = path;
  fetch.wire_path = path.ToWire();
  const ReferralCache::Entry root = cache_.GetExact(path, 2, credential, now);
  if (root != nullptr && root->kind == EntryKind::kRoot) {
    fetch.hosts = HostsOf(*root);
  } else {
    fetch.hosts.push_back(std::string(path.HostName()));
  }
  return fetch;
}

ReferralFetch Resolver::RefreshOf(const ReferralEntry& entry, absl::Time now) const {
  ReferralFetch fetch = entry.kind == EntryKind::kRoot || entry.prefix.size() == 2
                            ? RootFetch(entry.prefix, now)
                            : LinkFetch(entry.prefix, entry.credential, now);
  fetch.stale_known = true;
  return fetch;
}

Resolver::Question& Resolver::QuestionOf(Level& level, ReferralKind kind) {
  switch (kind) {
    case ReferralKind::kLink:
      return level.link;
    case ReferralKind::kRoot:
    case ReferralKind::kSysvol:
      return level.root;
    case ReferralKind::kDomain:
    case ReferralKind::kDc:
      return level.controllers;
  }
  return level.root;
}

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
  QuestionOf(resolution.levels_.back(), step.fetch.kind) = {.asked = true, .status = {}};
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
    // The link is gone; Samba says so of plain directories too (protocol page §1.15). What covers
    // the path now is the root.
    cache_.Erase(known->prefix, credential);
  } else {
    cache_.NoteRefreshFailed(known->prefix, credential, retry_at);
  }
}

}  // namespace dfscsi::dfs
