#include "node-agent/dfs/target_health.h"

#include <algorithm>

namespace dfscsi::dfs {

TargetHealthTable::Availability TargetHealthTable::Get(const DfsPath& target,
                                                       std::string_view identity,
                                                       absl::Time now) const {
  MutexLock lock(mutex_);
  const auto found = targets_.find(KeyOf(target, identity));
  if (found == targets_.end() || found->second.not_before <= now) return {};
  return {.not_before = found->second.not_before, .denied = found->second.state == State::kDenied};
}

void TargetHealthTable::NoteUp(const DfsPath& target, std::string_view identity, absl::Time now) {
  MutexLock lock(mutex_);
  Health& health = targets_[KeyOf(target, identity)];
  health.name = target.ToString();
  health.state = State::kUp;
  health.not_before = absl::InfinitePast();
  health.failures = 0;
  health.last_failure = FailureClass::kNone;
}

void TargetHealthTable::NoteFailure(const DfsPath& target, std::string_view identity,
                                    FailureClass failure, absl::Time now, double random) {
  MutexLock lock(mutex_);
  Health& health = targets_[KeyOf(target, identity)];
  health.name = target.ToString();
  ++health.failures;
  ++health.total_failures;
  health.last_failure = failure;
  if (failure == FailureClass::kDenied) {
    health.state = State::kDenied;
    health.not_before = now + kDeniedFor;
    return;
  }
  health.state = State::kDown;
  const int64_t doublings = std::min<int64_t>(health.failures - 1, 5);
  const absl::Duration backoff =
      std::min(kShortestBackoff * (int64_t{1} << doublings), kLongestBackoff);
  health.not_before = now + std::max(backoff * (1 + random / 4), kShortestInterval);
}

void TargetHealthTable::Forget() {
  MutexLock lock(mutex_);
  for (auto& [key, health] : targets_) health.not_before = absl::InfinitePast();
}

std::vector<TargetHealthTable::Listed> TargetHealthTable::List() const {
  MutexLock lock(mutex_);
  std::vector<Listed> listed;
  for (const auto& [key, health] : targets_) {
    listed.push_back({.target = health.name,
                      .state = health.state,
                      .not_before = health.not_before,
                      .failures = health.failures,
                      .last_failure = health.last_failure,
                      .total_failures = health.total_failures});
  }
  std::sort(listed.begin(), listed.end(),
            [](const Listed& a, const Listed& b) { return a.target < b.target; });
  return listed;
}

}  // namespace dfscsi::dfs
