// Binder: what happens in the background while targets serve: referrals are refreshed, unlisted
// targets left, better targets gone back to.

#include <algorithm>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "node-agent/dfs/binder.h"
#include "node-agent/dfs/binder_parts.h"
#include "node-agent/dfs/client.h"
#include "node-agent/runtime/loop.h"
#include "node-agent/smb/connection.h"
#include "node-agent/smb/session.h"

namespace dfscsi::dfs {

using runtime::Deadline;
using runtime::Task;

namespace {

bool Lists(const ReferralEntry& entry, const DfsPath& path) {
  return std::any_of(entry.targets.begin(), entry.targets.end(),
                     [&](const CachedTarget& target) { return target.path == path; });
}

}  // namespace

Task<void> Binder::RefreshDue() {
  constexpr size_t kMostAtOnce = 8;
  size_t asked = 0;
  for (const ReferralCache::Entry& entry :
       cache_.DueForRefresh(account_, runtime::Loop::Current().Now())) {
    const ReferralFetch fetch = resolver_.RefreshOf(*entry, runtime::Loop::Current().Now());
    if (!MayRefresh(*entry, fetch)) continue;
    if (++asked > kMostAtOnce) break;
    FailureClass failure = FailureClass::kNone;
    const absl::StatusOr<ReferralSource::Answer> answer =
        co_await referrals_.Fetch(fetch, &failure, Deadline::After(binder_parts::kFetchTime));
    const Referral* const referral =
        answer.ok() ? std::get_if<Referral>(&answer->referral) : nullptr;
    if (referral == nullptr && failure == FailureClass::kDenied &&
        !smb::wire::NtStatusOf(answer.status()).has_value()) {
      // We may not ask, which is nothing to tell those who may.
      constexpr absl::Duration kRefused = absl::Minutes(1);
      not_ours_[std::u16string(entry->prefix.Key())] = runtime::Loop::Current().Now() + kRefused;
      continue;
    }
    if (referral == nullptr) {
      resolver_.StoreFailure(account_, fetch, answer.status(), failure, MakeFetchContext());
    } else {
      resolver_.StoreReferral(account_, fetch, *referral, answer->answered_by, MakeFetchContext());
    }
    // Only if a server said so: an entry may also have been flushed, or evicted, meanwhile.
    const bool told = referral != nullptr || smb::wire::NtStatusOf(answer.status()).has_value();
    if (told && cache_.GetExact(entry->prefix, entry->prefix.size(), account_,
                                runtime::Loop::Current().Now()) == nullptr) {
      LeaveGone(entry->prefix);
    }
  }
  LeaveUnlisted();
}

// Another mount of the account may ask hosts that this one may not.
bool Binder::MayRefresh(const ReferralEntry& entry, const ReferralFetch& fetch) {
  const absl::Time now = runtime::Loop::Current().Now();
  std::erase_if(not_ours_, [now](const auto& refused) { return refused.second <= now; });
  if (not_ours_.contains(std::u16string(entry.prefix.Key()))) return false;
  return std::any_of(fetch.hosts.begin(), fetch.hosts.end(), [this](const std::string& host) {
    return dialer_.CheckHost(host.substr(0, host.find('@'))).ok();
  });
}

void Binder::LeaveGone(const DfsPath& entry_prefix) {
  links_.ForEach([&](Link& link) {
    if (link.entry_prefix.has_value() && link.entry_prefix->HasPrefix(entry_prefix)) link.Leave();
  });
}

// Whoever refreshed the entry: another mount may have. What is not cached says nothing.
void Binder::LeaveUnlisted() {
  const absl::Time now = runtime::Loop::Current().Now();
  links_.ForEach([&](Link& link) {
    if (!link.entry_prefix.has_value() || (link.tree == nullptr && link.former.empty())) return;
    const ReferralCache::Entry entry =
        cache_.GetExact(*link.entry_prefix, link.entry_prefix->size(), account_, now);
    if (entry == nullptr) return;
    if (!HasTargets(entry->kind)) {
      link.Leave();
      return;
    }
    std::erase_if(link.former,
                  [&](const FormerBinding& former) { return !Lists(*entry, former.target_path); });
    if (link.tree == nullptr || Lists(*entry, link.target_path)) return;
    link.Unbind();
    link.MoveAttempts();
  });
}

Task<void> Binder::FailBackDue() {
  if (options_.failback == Failback::kNever) co_return;
  for (const std::shared_ptr<Link>& link : links_.List()) co_await FailBack(link);
}

Task<void> Binder::FailBack(std::shared_ptr<Link> link) {
  if (!link->bound() || !link->entry_prefix.has_value()) co_return;
  const DfsPath entry_prefix = *link->entry_prefix;
  const std::vector<DfsPath> wanted = BetterTargets(*link, entry_prefix);
  if (wanted.empty()) {
    link->better.reset();
    co_return;
  }
  if (!link->better.has_value()) {
    co_await FindBetter(std::move(link), wanted);
    co_return;
  }
  if (!link->better->tree->usable()) {
    // It went away again: it begins anew, for it must have been up all the time.
    NoteLost(link->better->target_path, FailureClass::kTransport);
    link->better.reset();
    co_return;
  }
  const DfsPath target = link->better->target_path;
  if (std::find(wanted.begin(), wanted.end(), target) == wanted.end()) {
    link->better.reset();
    co_return;
  }
  if (runtime::Loop::Current().Now() - link->better->since < options_.failback_dwell) co_return;
  const auto may = [&] { return may_fail_back_ == nullptr || may_fail_back_(link->prefix); };
  if (!may()) co_return;
  const uint64_t epoch = link->epoch;
  link->better.reset();
  std::optional<Reached> up = co_await Probe(target);
  if (!up.has_value() || link->epoch != epoch || !link->bound() || !may()) co_return;
  cache_.SetHint(entry_prefix, account_, target);
  ApplyBetter(*link, *std::move(up));
}

// The targets that one would go back to from the one that serves, and that may be tried now.
std::vector<DfsPath> Binder::BetterTargets(const Link& link, const DfsPath& entry_prefix) {
  const absl::Time now = runtime::Loop::Current().Now();
  const ReferralCache::Entry entry =
      cache_.GetExact(entry_prefix, entry_prefix.size(), account_, now);
  std::vector<DfsPath> better;
  if (entry == nullptr || !HasTargets(entry->kind)) return better;
  const auto serving =
      std::find_if(entry->targets.begin(), entry->targets.end(),
                   [&](const CachedTarget& target) { return target.path == link.target_path; });
  if (serving == entry->targets.end()) return better;
  const auto index = static_cast<size_t>(serving - entry->targets.begin());
  for (size_t i = 0; i < index; ++i) {
    const DfsPath& target = entry->targets[i].path;
    if (IsBetter(*entry, i, index, MakeOrderOptions()) &&
        health_.Get(target, dialer_.identity(), now).MayTry(now)) {
      better.push_back(target);
    }
  }
  return better;
}

Task<void> Binder::FindBetter(std::shared_ptr<Link> link, std::vector<DfsPath> wanted) {
  const uint64_t epoch = link->epoch;
  for (const DfsPath& target : wanted) {
    std::optional<Reached> up = co_await Probe(target);
    if (link->epoch != epoch || !link->bound()) co_return;
    if (!up.has_value()) continue;
    link->better = {.target_path = target,
                    .tree = std::move(up->tree),
                    .since = runtime::Loop::Current().Now()};
    co_return;
  }
}

Task<std::optional<Binder::Reached>> Binder::Probe(DfsPath target_path) {
  auto round = std::make_shared<Round>(1);
  absl::StatusOr<Reached> reached = co_await TryTarget(
      {.candidate = 0, .target_path = std::move(target_path), .may_be_namespace = true}, round,
      Deadline::After(binder_parts::kTargetTime));
  // A namespace is a matter for a resolution, which failing over brings; not for failback.
  if (!reached.ok() || reached->not_covered || reached->in_dfs) co_return std::nullopt;
  co_return *std::move(reached);
}

void Binder::ApplyBetter(Link& link, Reached reached) {
  link.KeepAsFormer();
  Apply(link, std::move(reached.tree), std::move(reached.target_path));
  ++failbacks_;
}

}  // namespace dfscsi::dfs
