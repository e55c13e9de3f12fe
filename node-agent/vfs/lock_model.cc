#include "node-agent/vfs/lock_model.h"

#include <algorithm>
#include <map>
#include <utility>

namespace dfscsi::vfs {
namespace {

bool IsSameOwner(const FileLock& a, const FileLock& b) {
  return a.kind == b.kind && a.owner == b.owner;
}

bool Overlap(const FileLock& a, const FileLock& b) {
  return a.first <= b.last && b.first <= a.last;
}

bool Touch(const FileLock& a, const FileLock& b) {
  return Overlap(a, b) || (a.last != UINT64_MAX && a.last + 1 == b.first) ||
         (b.last != UINT64_MAX && b.last + 1 == a.first);
}

}  // namespace

std::vector<LockRange> Uncovered(const LockRange& wanted, const std::vector<LockRange>& held) {
  std::vector<LockRange> left = {wanted};
  for (const LockRange& one : held) {
    if (one.type < wanted.type) continue;
    std::vector<LockRange> next;
    for (const LockRange& part : left) {
      if (!part.Overlaps(one)) {
        next.push_back(part);
        continue;
      }
      if (part.first < one.first) next.push_back({part.first, one.first - 1, part.type});
      if (part.last > one.last) next.push_back({one.last + 1, part.last, part.type});
    }
    left = std::move(next);
  }
  return left;
}

std::vector<LockRange> Clip(const std::vector<LockRange>& ranges, const LockRange& within) {
  std::vector<LockRange> clipped;
  for (const LockRange& range : ranges) {
    if (!range.Overlaps(within)) continue;
    clipped.push_back(
        {std::max(range.first, within.first), std::min(range.last, within.last), range.type});
  }
  return clipped;
}

const FileLock* LockModel::FindConflict(const FileLock& wanted) const {
  const FileLock* first = nullptr;
  if (wanted.type == LockType::kNone) return first;
  for (const Held& held : held_) {
    const FileLock& lock = held.lock;
    if (lock.kind != wanted.kind || lock.owner == wanted.owner || !Overlap(lock, wanted)) continue;
    if (lock.type != LockType::kExclusive && wanted.type != LockType::kExclusive) continue;
    if (first == nullptr || lock.first < first->first) first = &lock;
  }
  return first;
}

std::vector<uint32_t> LockModel::Set(const FileLock& wanted) {
  std::vector<uint32_t> gone;
  std::vector<Held> next;
  FileLock given = wanted;
  for (Held& held : held_) {
    const FileLock& lock = held.lock;
    const bool joins = lock.type == wanted.type;
    if (!IsSameOwner(lock, wanted) || !(joins ? Touch(lock, wanted) : Overlap(lock, wanted))) {
      next.push_back(held);
      continue;
    }
    if (held.record.has_value()) gone.push_back(*held.record);
    if (joins) {
      given.first = std::min(given.first, lock.first);
      given.last = std::max(given.last, lock.last);
      continue;
    }
    if (lock.first < wanted.first) {
      next.push_back({lock});
      next.back().lock.last = wanted.first - 1;
    }
    if (lock.last > wanted.last) {
      next.push_back({lock});
      next.back().lock.first = wanted.last + 1;
    }
  }
  if (wanted.type != LockType::kNone) next.push_back({given});
  held_ = std::move(next);
  return gone;
}

std::vector<uint32_t> LockModel::Drop(const std::function<bool(const FileLock&)>& which) {
  std::vector<uint32_t> gone;
  std::erase_if(held_, [&](const Held& held) {
    if (!which(held.lock)) return false;
    if (held.record.has_value()) gone.push_back(*held.record);
    return true;
  });
  return gone;
}

std::vector<LockRange> LockModel::Needed() const {
  // How many of each type begin, or have ended, at a byte. The end of 2^64 - 1 is never reached.
  std::map<uint64_t, std::pair<int, int>> steps;
  for (const Held& held : held_) {
    const bool exclusive = held.lock.type == LockType::kExclusive;
    auto& begin = steps[held.lock.first];
    ++(exclusive ? begin.second : begin.first);
    if (held.lock.last == UINT64_MAX) continue;
    auto& end = steps[held.lock.last + 1];
    --(exclusive ? end.second : end.first);
  }
  std::vector<LockRange> needed;
  int shared = 0, exclusive = 0;
  LockType type = LockType::kNone;
  uint64_t since = 0;
  for (const auto& [at, step] : steps) {
    shared += step.first;
    exclusive += step.second;
    const LockType now = exclusive > 0 ? LockType::kExclusive
                         : shared > 0  ? LockType::kShared
                                       : LockType::kNone;
    if (now == type) continue;
    if (type != LockType::kNone) needed.push_back({since, at - 1, type});
    type = now;
    since = at;
  }
  if (type != LockType::kNone) needed.push_back({since, UINT64_MAX, type});
  return needed;
}

std::vector<LockRange> LockModel::NeededWith(const FileLock& wanted) const {
  LockModel with = *this;
  (void)with.Set(wanted);
  return with.Needed();
}

}  // namespace dfscsi::vfs
