#include "node-agent/vfs/link_sights.h"

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
      record.silent = !seen;
      std::exchange(record.looking, nullptr)->Set();
    }
  } ended{*record};
  const absl::StatusOr<struct stat> seen = co_await look(Deadline::After(kLookFor));
  if (!seen.ok()) co_return;
  record->seen = *seen;
  record->seen_at = runtime::Loop::Current().Now();
  ended.seen = true;
}

std::optional<LinkSights::Sight> LinkSights::FreshOf(const Record& record) const {
  const absl::Duration left = record.seen_at + actimeo_ - runtime::Loop::Current().Now();
  if (left <= absl::ZeroDuration()) return std::nullopt;
  return Sight{.attributes = *record.seen, .left = left};
}

std::optional<LinkSights::Sight> LinkSights::TryGet(state::NodeId node) const {
  const auto found = records_.find(node);
  return found == records_.end() ? std::nullopt : FreshOf(*found->second);
}

absl::Duration LinkSights::WaitFor(const Record& record, absl::Time now) const {
  const bool recent = now - record.seen_at <= kRecent;
  const bool hurry = now - overdue_at_ < kHurry;
  if (recent) return hurry ? absl::ZeroDuration() : kShortWait;
  return hurry ? kShortWait : kLongWait;
}

Task<absl::StatusOr<LinkSights::Sight>> LinkSights::Get(state::NodeId node, struct stat unknown,
                                                        Look look, Deadline deadline) {
  std::shared_ptr<Record>& slot = records_[node];
  if (slot == nullptr) slot = std::make_shared<Record>();
  const std::shared_ptr<Record> record = slot;  // The node may go while this waits.
  if (std::optional<Sight> fresh = FreshOf(*record)) co_return *std::move(fresh);
  const absl::Time now = runtime::Loop::Current().Now();
  std::shared_ptr<runtime::Event> looking = record->looking;
  if (looking == nullptr) {
    record->looking = looking = std::make_shared<runtime::Event>();
    record->began = now;
    looks_.Spawn(RunLook(record, std::move(look)));
  }
  bool answered = false;
  if (!record->silent) {
    const absl::Time until = record->began + WaitFor(*record, now);
    const absl::Status waited = co_await looking->WaitUntilSet(deadline.Before(until));
    if (absl::IsCancelled(waited)) co_return waited;
    answered = waited.ok() && !record->silent;
    if (!waited.ok() && until > now) overdue_at_ = until;
  }
  if (answered) co_return Sight{.attributes = *record->seen, .left = actimeo_};
  co_return Sight{.attributes = record->seen.value_or(unknown), .last_known = true};
}

}  // namespace dfscsi::vfs
