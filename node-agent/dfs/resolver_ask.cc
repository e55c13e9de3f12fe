// Resolver: which referral is asked for, and of whom.

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "node-agent/dfs/resolver.h"
#include "node-agent/dfs/resolver_parts.h"

namespace dfscsi::dfs {

using resolver_parts::IsSysvol;
using resolver_parts::LoopError;

namespace {

// What a namespace of some depth can need, and a hostile one cannot exceed.
constexpr int kMaxFetches = 32;

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

Resolver::Look Resolver::Ask(Resolution& resolution, ReferralFetch fetch) {
  if (++resolution.fetches_ > kMaxFetches) return LoopError();
  ResolveStep step;
  step.kind = ResolveStep::Kind::kFetch;
  step.path = resolution.levels_.back().path;
  step.fetch = std::move(fetch);
  return step;
}

Resolver::Look Resolver::Untried(Look ask) {
  ask->fetch.untried_known = true;
  return ask;
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
  // Those that name servers know will do where a controller does not list them all.
  if (fetch.hosts.empty() && domains_.Get(host, now) == DomainCache::Knowledge::kDomain) {
    fetch.hosts = domains_.GetBootstrap(host);
  }
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

}  // namespace dfscsi::dfs
