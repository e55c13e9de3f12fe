#include "node-agent/vfs/file_locks.h"

#include <algorithm>
#include <utility>

#include "node-agent/base/status_macros.h"
#include "node-agent/runtime/loop.h"
#include "node-agent/smb/wire/nt_status.h"

namespace dfscsi::vfs {

using runtime::Deadline;
using runtime::Task;
using smb::Tree;
using smb::wire::FileId;
using smb::wire::NtStatus;

namespace {

// Of one LOCK request.
constexpr size_t kMostAtOnce = 32;
// A range that has only just been given up, by whoever died or moved, may still be seen as locked.
constexpr absl::Duration kRetakePatience = absl::Seconds(3);
constexpr absl::Duration kSwapPatience = absl::Milliseconds(500);
constexpr absl::Duration kAskAgain = absl::Milliseconds(20);

std::vector<smb::wire::LockElement> Elements(const std::vector<LockRange>& ranges, bool wait) {
  std::vector<smb::wire::LockElement> elements;
  for (const LockRange& range : ranges) {
    const uint32_t kind =
        range.type == LockType::kExclusive ? smb::wire::kLockExclusive : smb::wire::kLockShared;
    elements.push_back({.offset = range.first,
                        .length_bytes = range.length_bytes(),
                        .flags = wait ? kind : kind | smb::wire::kLockFailImmediately});
  }
  return elements;
}

std::vector<smb::wire::FileRange> Plain(const std::vector<LockRange>& ranges) {
  std::vector<smb::wire::FileRange> plain;
  for (const LockRange& range : ranges) plain.push_back({range.first, range.length_bytes()});
  return plain;
}

void Append(std::vector<LockRange>& to, std::vector<LockRange> ranges) {
  to.insert(to.end(), ranges.begin(), ranges.end());
}

// Takes one that is equal out of `from`.
void Erase(std::vector<LockRange>& from, const LockRange& range) {
  const auto found = std::find(from.begin(), from.end(), range);
  if (found != from.end()) from.erase(found);
}

}  // namespace

bool IsLockRefused(const absl::Status& status) {
  const std::optional<NtStatus> answer = smb::wire::NtStatusOf(status);
  return answer == NtStatus::kLockNotGranted || answer == NtStatus::kFileLockConflict;
}

std::vector<LockRange> FileLocks::Lacking(const std::vector<LockRange>& needed) const {
  std::vector<LockRange> lacking;
  for (const LockRange& range : needed) Append(lacking, Uncovered(range, held_));
  return lacking;
}

// What is shared of it is to become exclusive.
bool FileLocks::IsInTheWay(const LockRange& held, const std::vector<LockRange>& lacking) {
  return std::any_of(lacking.begin(), lacking.end(), [&](const LockRange& range) {
    return range.type == LockType::kExclusive && range.Overlaps(held);
  });
}

bool FileLocks::IsSwap(const FileLock& wanted) const {
  const std::vector<LockRange> lacking = Lacking(model.NeededWith(wanted));
  return std::any_of(held_.begin(), held_.end(),
                     [&](const LockRange& one) { return IsInTheWay(one, lacking); });
}

Task<absl::Status> FileLocks::Lock(std::shared_ptr<Tree> tree, FileId id,
                                   std::vector<LockRange> ranges, Deadline deadline) {
  std::vector<LockRange> done;
  for (size_t at = 0; at < ranges.size(); at += kMostAtOnce) {
    const std::vector<LockRange> some(
        ranges.begin() + static_cast<ptrdiff_t>(at),
        ranges.begin() + static_cast<ptrdiff_t>(std::min(at + kMostAtOnce, ranges.size())));
    const absl::Status status =
        co_await tree->Lock(id, Elements(some, /*wait=*/false), 0, deadline);
    if (!status.ok()) {
      if (!done.empty()) (void)co_await tree->Unlock(id, Plain(done), 0, Deadline::Never());
      co_return status;
    }
    Append(done, some);
  }
  if (IsOn(*tree, id)) Append(held_, std::move(done));
  co_return absl::OkStatus();
}

Task<absl::Status> FileLocks::Unlock(std::shared_ptr<Tree> tree, FileId id,
                                     std::vector<LockRange> ranges) {
  if (ranges.empty()) co_return absl::OkStatus();
  const auto note = [&](const LockRange& range) {
    if (IsOn(*tree, id)) Erase(held_, range);
  };
  absl::Status status = co_await tree->Unlock(id, Plain(ranges), 0, Deadline::Never());
  if (status.ok()) {
    for (const LockRange& range : ranges) note(range);
  }
  if (!smb::wire::NtStatusOf(status).has_value()) co_return status;
  // Up to where it refused, it has unlocked.
  absl::Status first = absl::OkStatus();
  for (const LockRange& range : ranges) {
    status = co_await tree->Unlock(id, Plain({range}), 0, Deadline::Never());
    if (status.ok() || smb::wire::NtStatusOf(status) == NtStatus::kRangeNotLocked) {
      note(range);
      continue;
    }
    if (!smb::wire::NtStatusOf(status).has_value()) co_return status;
    if (first.ok()) first = status;
  }
  co_return first;
}

Task<absl::Status> FileLocks::LockAgain(std::shared_ptr<Tree> tree, FileId id,
                                        std::vector<LockRange> ranges, absl::Duration patience) {
  if (ranges.empty()) co_return absl::OkStatus();
  absl::Status status = co_await Lock(tree, id, ranges, Deadline::Never());
  if (!smb::wire::NtStatusOf(status).has_value()) co_return status;
  absl::Status failed;
  const absl::Time until = runtime::Loop::Current().Now() + patience;
  for (const LockRange& range : ranges) {
    while (true) {
      status = co_await Lock(tree, id, {range}, Deadline::Never());
      if (!IsLockRefused(status)) break;
      if (runtime::Loop::Current().Now() >= until) {
        on_lost_(range);
        break;
      }
      CO_RETURN_IF_ERROR(co_await runtime::Sleep(kAskAgain, Deadline::Never()));
    }
    if (status.ok() || IsLockRefused(status)) continue;
    if (!smb::wire::NtStatusOf(status).has_value()) co_return status;
    // Nothing is done through the holder until it is held.
    if (IsOn(*tree, id)) Append(missing_, Uncovered(range, held_));
    failed.Update(status);
  }
  co_return failed;
}

Task<absl::Status> FileLocks::HoldOn(std::shared_ptr<Tree> tree, FileId id, int64_t* retaken,
                                     Deadline deadline) {
  if (IsOn(*tree, id) && missing_.empty()) co_return absl::OkStatus();
  CO_ASSIGN_OR_RETURN(const runtime::Mutex::Guard guard, co_await holding_.Lock(deadline));
  if (!IsOn(*tree, id)) {
    tree_ = tree;
    id_ = id;
    held_.clear();
    missing_ = model.Needed();
  }
  const absl::Time until = runtime::Loop::Current().Now() + kRetakePatience;
  while (!missing_.empty()) {
    std::vector<LockRange> some(
        missing_.begin(),
        missing_.begin() + static_cast<ptrdiff_t>(std::min(kMostAtOnce, missing_.size())));
    absl::Status status = co_await Lock(tree, id, some, deadline);
    if (IsLockRefused(status)) {
      some.resize(1);
      status = co_await Lock(tree, id, some, deadline);
    }
    if (IsLockRefused(status)) {
      if (runtime::Loop::Current().Now() < until) {
        CO_RETURN_IF_ERROR(co_await runtime::Sleep(kAskAgain, deadline));
        continue;
      }
      on_lost_(some.front());
      --*retaken;
      status = absl::OkStatus();
    }
    CO_RETURN_IF_ERROR(status);
    *retaken += static_cast<int64_t>(some.size());
    for (const LockRange& range : some) Erase(missing_, range);
  }
  co_return absl::OkStatus();
}

Task<absl::Status> FileLocks::TakeOn(std::shared_ptr<Tree> tree, FileId id, FileLock wanted,
                                     bool* took, bool* again, Deadline deadline) {
  *again = !IsOn(*tree, id) || !missing_.empty();
  if (*again) co_return absl::OkStatus();
  const std::vector<LockRange> needed = model.NeededWith(wanted);
  const std::vector<LockRange> lacking = Lacking(needed);
  if (lacking.empty()) co_return absl::OkStatus();
  *took = true;
  // Shared ones, of which a part is to become exclusive.
  std::vector<LockRange> former, others;
  for (const LockRange& one : held_) {
    (IsInTheWay(one, lacking) ? former : others).push_back(one);
  }
  std::vector<LockRange> rest;
  for (const LockRange& one : former) {
    for (const LockRange& range : Clip(needed, one)) {
      if (range.type == LockType::kShared) Append(rest, Uncovered(range, others));
    }
  }
  if (!rest.empty()) CO_RETURN_IF_ERROR(co_await Lock(tree, id, rest, Deadline::Never()));
  absl::Status status = co_await Unlock(tree, id, former);
  if (status.ok()) status = co_await Lock(tree, id, lacking, deadline);
  if (smb::wire::NtStatusOf(status).has_value()) {
    std::vector<LockRange> back;
    for (const LockRange& one : former) {
      for (const LockRange& range : Clip(model.Needed(), one)) {
        Append(back, Uncovered(range, held_));
      }
    }
    CO_RETURN_IF_ERROR(co_await LockAgain(tree, id, std::move(back), kSwapPatience));
  }
  *again = !IsOn(*tree, id);
  co_return status;
}

Task<absl::Status> FileLocks::TrimOn(std::shared_ptr<Tree> tree, FileId id, bool* again) {
  *again = !IsOn(*tree, id) || !missing_.empty();
  if (*again) co_return absl::OkStatus();
  const std::vector<LockRange> needed = model.Needed();
  std::vector<LockRange> kept = held_, dropped, before, after;
  for (const LockRange& one : held_) {
    Erase(kept, one);
    std::vector<LockRange> parts;
    for (const LockRange& range : Clip(needed, one)) Append(parts, Uncovered(range, kept));
    if (parts == std::vector<LockRange>{one}) {
      kept.push_back(one);
      continue;
    }
    dropped.push_back(one);
    Append(kept, parts);
    for (const LockRange& part : parts) {
      (part.type == LockType::kShared ? before : after).push_back(part);
    }
  }
  if (!before.empty()) {
    const absl::Status stacked = co_await Lock(tree, id, before, Deadline::Never());
    if (IsLockRefused(stacked)) {
      Append(after, before);
    } else {
      CO_RETURN_IF_ERROR(stacked);
    }
  }
  const absl::Status unlocked = co_await Unlock(tree, id, dropped);
  if (!unlocked.ok() && !smb::wire::NtStatusOf(unlocked).has_value()) co_return unlocked;
  std::vector<LockRange> back;
  for (const LockRange& range : after) Append(back, Uncovered(range, held_));
  CO_RETURN_IF_ERROR(co_await LockAgain(tree, id, std::move(back), kSwapPatience));
  *again = !IsOn(*tree, id);
  co_return unlocked;
}

Task<absl::Status> FileLocks::WaitOn(std::shared_ptr<Tree> tree, FileId id, FileLock wanted,
                                     Deadline deadline) {
  if (!IsOn(*tree, id) || !missing_.empty()) co_return absl::OkStatus();
  const std::vector<LockRange> lacking = Lacking(model.NeededWith(wanted));
  if (lacking.empty()) co_return absl::OkStatus();
  // What is held here may be in its own way, and parts that are had one by one are in others'.
  const bool alone =
      lacking.size() == 1 && std::none_of(held_.begin(), held_.end(), [&](const LockRange& one) {
        return one.Overlaps(lacking.front());
      });
  if (alone) {
    const absl::Status status =
        co_await tree->Lock(id, Elements(lacking, /*wait=*/true), 0, deadline);
    if (status.ok() && IsOn(*tree, id)) held_.push_back(lacking.front());
    if (!IsLockRefused(status)) co_return status;
  }
  co_return co_await runtime::Sleep(kAskAgain, deadline);
}

Task<absl::StatusOr<std::optional<LockRange>>> FileLocks::ProbeOn(std::shared_ptr<Tree> tree,
                                                                  FileId id, FileLock wanted,
                                                                  Deadline deadline) {
  const auto is_free = [tree, id, deadline](LockRange range) -> Task<absl::StatusOr<bool>> {
    const absl::Status status =
        co_await tree->Lock(id, Elements({range}, /*wait=*/false), 0, deadline);
    if (IsLockRefused(status)) co_return false;
    CO_RETURN_IF_ERROR(status);
    CO_RETURN_IF_ERROR(co_await tree->Unlock(id, Plain({range}), 0, Deadline::Never()));
    co_return true;
  };
  // What is held here says nothing of others.
  std::vector<LockRange> own = held_;
  for (LockRange& one : own) one.type = LockType::kExclusive;
  for (LockRange range : Uncovered({wanted.first, wanted.last, wanted.type}, own)) {
    CO_ASSIGN_OR_RETURN(bool free, co_await is_free(range));
    if (free) continue;
    uint64_t low = range.first, high = range.last;  // The first locked byte is among them.
    while (low < high) {
      const uint64_t middle = low + (high - low) / 2;
      CO_ASSIGN_OR_RETURN(free, co_await is_free({low, middle, wanted.type}));
      if (free) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    CO_ASSIGN_OR_RETURN(free, co_await is_free({low, low, LockType::kShared}));
    co_return LockRange{low, low, free ? LockType::kShared : LockType::kExclusive};
  }
  co_return std::nullopt;
}

}  // namespace dfscsi::vfs
