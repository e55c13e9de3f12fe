#include "node-agent/dfs/domain_cache.h"

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"

namespace dfscsi::dfs {
namespace {

constexpr size_t kMaxNames = 4096;

// A fully qualified name may end in a dot.
std::string KeyOf(absl::string_view name) {
  if (absl::EndsWith(name, ".")) name.remove_suffix(1);
  return absl::AsciiStrToLower(name);
}

// Moves `name` to the front; false if it is not there.
bool MoveToFront(std::vector<std::string>& names, absl::string_view name) {
  const auto found = std::find_if(names.begin(), names.end(), [&](const std::string& one) {
    return absl::EqualsIgnoreCase(one, name);
  });
  if (found == names.end()) return false;
  std::rotate(names.begin(), found, found + 1);
  return true;
}

}  // namespace

DomainCache::Knowledge DomainCache::Get(absl::string_view name, absl::Time now) const {
  MutexLock lock(mutex_);
  const auto found = domains_.find(KeyOf(name));
  if (found == domains_.end()) return Knowledge::kUnknown;
  if (found->second.is_domain) return Knowledge::kDomain;
  return now < found->second.not_a_domain_until ? Knowledge::kNotADomain : Knowledge::kUnknown;
}

std::vector<std::string> DomainCache::GetControllers(absl::string_view domain,
                                                     absl::Time now) const {
  MutexLock lock(mutex_);
  const auto found = domains_.find(KeyOf(domain));
  if (found == domains_.end() || now >= found->second.expiry) return {};
  return found->second.controllers;
}

std::vector<std::string> DomainCache::GetBootstrap(absl::string_view domain) const {
  MutexLock lock(mutex_);
  const auto found = domains_.find(KeyOf(domain));
  if (found == domains_.end()) return {};
  std::vector<std::string> hosts = found->second.controllers;
  for (const std::string& host : found->second.bootstrap) {
    const bool known = std::any_of(hosts.begin(), hosts.end(), [&](const std::string& one) {
      return absl::EqualsIgnoreCase(one, host);
    });
    if (!known) hosts.push_back(host);
  }
  return hosts;
}

void DomainCache::PutDomain(absl::string_view name, std::vector<std::string> bootstrap) {
  MutexLock lock(mutex_);
  Domain& domain = domains_[KeyOf(name)];
  domain.is_domain = true;
  domain.bootstrap = std::move(bootstrap);
}

void DomainCache::PutNotADomain(absl::string_view name, absl::Time until) {
  MutexLock lock(mutex_);
  // Names of hosts come from referrals too: what is no domain may be forgotten.
  if (domains_.size() >= kMaxNames) {
    absl::erase_if(domains_, [](const auto& named) { return !named.second.is_domain; });
  }
  domains_[KeyOf(name)].not_a_domain_until = until;
}

void DomainCache::PutControllers(absl::string_view domain, std::vector<std::string> controllers,
                                 absl::Time expiry) {
  MutexLock lock(mutex_);
  Domain& known = domains_[KeyOf(domain)];
  known.is_domain = true;
  if (!known.controllers.empty()) MoveToFront(controllers, known.controllers.front());
  known.controllers = std::move(controllers);
  known.expiry = expiry;
}

void DomainCache::SetHint(absl::string_view domain, absl::string_view controller) {
  MutexLock lock(mutex_);
  const auto found = domains_.find(KeyOf(domain));
  if (found != domains_.end()) MoveToFront(found->second.controllers, controller);
}

void DomainCache::Flush() {
  MutexLock lock(mutex_);
  for (auto& [name, domain] : domains_) {
    domain.expiry = absl::InfinitePast();
    domain.not_a_domain_until = absl::InfinitePast();
  }
}

}  // namespace dfscsi::dfs
