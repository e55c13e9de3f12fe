#include "node-agent/vfs/attribute_cache.h"

#include <algorithm>

namespace dfscsi::vfs {

const AttributeCache::Seen* AttributeCache::Get(state::NodeId parent, std::string_view name,
                                                uint64_t epoch, absl::Time now) const {
  const auto found = seen_.find(Key(parent, name));
  if (found == seen_.end()) return nullptr;
  if (found->second.is_change) return nullptr;
  // What another target said of its copy is not what this one would say.
  if (found->second.epoch != epoch || found->second.until <= now) return nullptr;
  return &found->second;
}

bool AttributeCache::Put(state::NodeId parent, std::string_view name,
                         const ServerAttributes& attributes, uint64_t epoch, Times seen,
                         absl::Time now) {
  const absl::Time until = seen.answered + actimeo_;
  if (actimeo_ <= absl::ZeroDuration()) return seen.answered >= now;
  if (until <= now) return false;
  absl::Time changed = absl::InfinitePast();
  if (const auto known = seen_.find(Key(parent, name)); known != seen_.end()) {
    changed = known->second.changed;
    if (changed > seen.asked) return false;
    if (!known->second.is_change && known->second.until > until) return false;
  }
  MakeRoom(now);
  seen_[Key(parent, name)] = {
      .attributes = attributes, .epoch = epoch, .until = until, .changed = changed};
  return true;
}

void AttributeCache::NoteChange(state::NodeId parent, std::string_view name, absl::Time now) {
  if (actimeo_ <= absl::ZeroDuration()) return;
  MakeRoom(now);
  seen_[Key(parent, name)] = {.until = now + actimeo_, .changed = now, .is_change = true};
}

void AttributeCache::MakeRoom(absl::Time now) {
  if (seen_.size() < kMost) return;
  // What has lapsed goes first; a flood of fresh sights goes all at once: it is only a cache.
  absl::erase_if(seen_, [now](const auto& entry) { return entry.second.until <= now; });
  if (seen_.size() >= kMost) seen_.clear();
}

absl::Duration AttributeCache::Left(const Seen& seen, absl::Time now) const {
  return std::clamp(seen.until - now, absl::ZeroDuration(), actimeo_);
}

}  // namespace dfscsi::vfs
