#include "node-agent/vfs/link_sights.h"

#include <algorithm>
#include <utility>

#include "node-agent/base/status_macros.h"

namespace dfscsi::vfs {

using runtime::Deadline;
using runtime::Task;

Task<void> LinkSights::RunLook(std::shared_ptr<Record> record, Look look) {
  struct Ended {  // Also by an exception.
    Record& record;
    bool seen = false;
    ~Ended() {
      if (seen) {
        record.in_vain = 0;
        record.next_look = absl::InfinitePast();
      } else {
        const int64_t factor = int64_t{1} << std::min(record.in_vain++, 10);
        record.next_look =
            runtime::Loop::Current().Now() + std::min(kLongestPause, kShortestPause * factor);
      }
      std::exchange(record.looking, nullptr)->Set();
    }
  } ended{*record};
  const Deadline deadline = Deadline::After(kLookFor);
  int64_t changes = record->changes;
  absl::StatusOr<struct stat> seen = co_await look(deadline);
  if (seen.ok() && record->changes != changes) {  // It may have been seen before the change.
    changes = record->changes;
    seen = co_await look(deadline);
  }
  if (!seen.ok()) co_return;
  record->seen = *seen;
  ended.seen = true;
  if (record->changes == changes) record->seen_at = runtime::Loop::Current().Now();
}

void LinkSights::NoteChange(state::NodeId node) {
  const auto found = records_.find(node);
  if (found == records_.end()) return;
  ++found->second->changes;
  found->second->seen_at = absl::InfinitePast();
}

absl::Duration LinkSights::Left(const Record& record, absl::Time now) const {
  return std::clamp(record.seen_at + actimeo_ - now, absl::ZeroDuration(), actimeo_);
}

std::optional<LinkSights::Sight> LinkSights::TryGet(state::NodeId node) const {
  const auto found = records_.find(node);
  if (found == records_.end() || !found->second->seen.has_value()) return std::nullopt;
  return Sight{.attributes = *found->second->seen,
               .left = Left(*found->second, runtime::Loop::Current().Now())};
}

absl::Duration LinkSights::WaitFor(const Record& record, absl::Time now) const {
  if (record.in_vain > 0) return absl::ZeroDuration();
  const bool hurry = now - overdue_at_ < kHurry;
  const bool is_news_due = !record.seen.has_value() || record.seen_at == absl::InfinitePast();
  if (is_news_due) return hurry ? kShortWait : kLongWait;
  const bool recent = now - record.seen_at <= std::min(kRecent, actimeo_ * 10);
  return recent || hurry ? absl::ZeroDuration() : kShortWait;
}

Task<absl::StatusOr<LinkSights::Sight>> LinkSights::Get(state::NodeId node, struct stat unknown,
                                                        Look look, Deadline deadline) {
  std::shared_ptr<Record>& slot = records_[node];
  if (slot == nullptr) slot = std::make_shared<Record>();
  const std::shared_ptr<Record> record = slot;  // The node may go while this waits.
  const absl::Time now = runtime::Loop::Current().Now();
  if (const absl::Duration left = Left(*record, now); left > absl::ZeroDuration()) {
    co_return Sight{.attributes = *record->seen, .left = left};
  }
  std::shared_ptr<runtime::Event> looking = record->looking;
  if (looking == nullptr && now >= record->next_look) {
    record->looking = looking = std::make_shared<runtime::Event>();
    record->began = now;
    looks_.Spawn(RunLook(record, std::move(look)));
  }
  const absl::Time until = record->began + WaitFor(*record, now);
  bool overdue = record->in_vain > 0;
  if (looking != nullptr && now < until) {
    const absl::Status waited = co_await looking->WaitUntilSet(deadline.Before(until));
    if (absl::IsCancelled(waited)) co_return waited;
    overdue = !waited.ok() || record->in_vain > 0;
    if (!waited.ok()) overdue_at_ = until;
  } else if (looking != nullptr) {
    overdue = overdue || now >= record->began + kShortWait;
  }
  co_return Sight{.attributes = record->seen.value_or(unknown),
                  .last_known = overdue,
                  .left = Left(*record, runtime::Loop::Current().Now())};
}

}  // namespace dfscsi::vfs
