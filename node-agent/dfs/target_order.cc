#include "node-agent/dfs/target_order.h"

#include <algorithm>
#include <tuple>

namespace dfscsi::dfs {
namespace {

// How many sets begin at or before `index`, less one.
size_t SetOf(const ReferralEntry& entry, size_t index) {
  size_t set = 0;
  for (size_t i = 1; i <= index; ++i) {
    if (entry.targets[i].starts_set) ++set;
  }
  return set;
}

enum Rank { kFailback = 0, kHint = 1, kGood = 2, kRetry = 3, kNotYet = 4 };

Rank RankOf(const ReferralEntry& entry, size_t index, const TargetStatus& status,
            const OrderOptions& options, bool new_open, absl::Time now) {
  if (!status.MayTry(now)) return kNotYet;
  if (status.state == TargetState::kDown || status.state == TargetState::kDenied) return kRetry;
  if (index == entry.hint) return kHint;
  if (new_open && status.state == TargetState::kUp && now - status.since >= options.dwell &&
      IsBetter(entry, index, entry.hint, options)) {
    return kFailback;
  }
  return kGood;
}

}  // namespace

bool IsBetter(const ReferralEntry& entry, size_t index, size_t serving,
              const OrderOptions& options) {
  if (index >= serving) return false;
  return options.failback || (options.obey_referral && entry.target_failback &&
                              SetOf(entry, index) < SetOf(entry, serving));
}

TargetOrder OrderTargets(const ReferralEntry& entry, absl::Span<const uint16_t> candidates,
                         absl::Span<const TargetStatus> health, const OrderOptions& options,
                         bool new_open, absl::Time now) {
  struct Sortable {
    std::tuple<Rank, absl::Time, size_t, absl::Duration, size_t> key;
    OrderedTarget target;
  };
  absl::InlinedVector<Sortable, 16> sortable;
  for (size_t i = 0; i < candidates.size(); ++i) {
    const size_t index = candidates[i];
    const TargetStatus& status = health[i];
    const Rank rank = RankOf(entry, index, status, options, new_open, now);
    absl::Duration latency = absl::ZeroDuration();
    if (options.policy == TargetPolicy::kLatency) {
      latency = status.latency == absl::ZeroDuration() ? absl::InfiniteDuration() : status.latency;
    }
    const absl::Time not_before = rank == kNotYet ? status.not_before : absl::InfinitePast();
    sortable.push_back({{rank, not_before, SetOf(entry, index), latency, index},
                        {static_cast<uint16_t>(index), not_before}});
  }
  std::sort(sortable.begin(), sortable.end(),
            [](const Sortable& a, const Sortable& b) { return a.key < b.key; });
  TargetOrder order;
  for (const Sortable& one : sortable) order.push_back(one.target);
  return order;
}

}  // namespace dfscsi::dfs
