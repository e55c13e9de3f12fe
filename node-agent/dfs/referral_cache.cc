#include "node-agent/dfs/referral_cache.h"

#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "node-agent/base/status_macros.h"
#include "node-agent/dfs/referral_cache_file.h"
#include "node-agent/smb/wire/utf16.h"

namespace dfscsi::dfs {
namespace {

// Hash of a key, unit by unit, so that all prefixes of a path are hashed in one pass.
constexpr uint64_t kMultiplier = 0x9E3779B97F4A7C15;
uint64_t AddUnit(uint64_t state, char16_t unit) {
  state = (state ^ unit) * kMultiplier;
  return state ^ (state >> 32);
}
// The table takes its control bits from the low end and its position from the rest.
uint64_t Finish(uint64_t state, uint64_t credential_hash) {
  state = (state ^ credential_hash) * 0xD6E8FEB86659FD93;
  state ^= state >> 32;
  state *= 0xD6E8FEB86659FD93;
  return state ^ (state >> 32);
}
uint64_t HashText(absl::string_view text, uint64_t seed) {
  for (const char c : text) seed = AddUnit(seed, static_cast<unsigned char>(c));
  return Finish(seed, text.size());
}

size_t IndexOf(const std::vector<CachedTarget>& targets, const DfsPath& path) {
  size_t i = 0;
  while (i < targets.size() && !(targets[i].path == path)) ++i;
  return i;
}

}  // namespace

struct ReferralCache::Slot {
  uint64_t hash;
  std::u16string key;
  std::string credential;
  size_t components;
  Entry entry;  // Null: erased, but pinned.
  int pins = 0;
  bool used = false;  // Looked up since the last Put.
  SlotList::iterator position;
};

size_t ReferralCache::SlotHash::operator()(const std::unique_ptr<Slot>& slot) const {
  return slot->hash;
}
bool ReferralCache::SlotEqual::operator()(const std::unique_ptr<Slot>& a,
                                          const std::unique_ptr<Slot>& b) const {
  return a->key == b->key && a->credential == b->credential;
}
bool ReferralCache::SlotEqual::operator()(const std::unique_ptr<Slot>& slot,
                                          const Probe& probe) const {
  return slot->hash == probe.hash && slot->key == probe.key && slot->credential == probe.credential;
}
bool ReferralCache::SlotEqual::operator()(const Probe& probe,
                                          const std::unique_ptr<Slot>& slot) const {
  return (*this)(slot, probe);
}

ReferralCache::ReferralCache() : ReferralCache(Options()) {}
ReferralCache::ReferralCache(Options options) : options_(options) {}
ReferralCache::~ReferralCache() = default;

ReferralCache::Probe ReferralCache::MakeProbe(std::u16string_view key,
                                              absl::string_view credential) const {
  uint64_t state = options_.hash_seed;
  for (const char16_t unit : key) state = AddUnit(state, unit);
  return {Finish(state, HashText(credential, options_.hash_seed)), key, credential};
}

ReferralCache::Slot* ReferralCache::FindLocked(const DfsPath& prefix,
                                               absl::string_view credential) const {
  const auto found = slots_.find(MakeProbe(prefix.Key(), credential));
  return found == slots_.end() ? nullptr : found->get();
}

void ReferralCache::UsedLocked(Slot* slot) {
  slot->used = true;
  SlotList& list = slot->pins > 0 ? pinned_ : lru_;
  list.splice(list.begin(), list, slot->position);
}

ReferralCache::Entry ReferralCache::Get(const DfsPath& path, absl::string_view credential,
                                        absl::Time now) {
  const uint64_t credential_hash = HashText(credential, options_.hash_seed);
  const std::u16string_view key = path.Key();
  uint64_t state = options_.hash_seed;
  size_t at = 0;
  Slot* longest = nullptr;
  MutexLock lock(mutex_);
  const size_t most = std::min(path.size() + 1, slots_of_size_.size());
  for (size_t components = 1; components < most; ++components) {
    const std::u16string_view prefix = path.KeyPrefix(components);
    for (; at < prefix.size(); ++at) state = AddUnit(state, key[at]);
    if (slots_of_size_[components] == 0) continue;
    const auto found = slots_.find(Probe{Finish(state, credential_hash), prefix, credential});
    if (found == slots_.end() || (*found)->entry == nullptr) continue;
    const ReferralEntry& entry = *(*found)->entry;
    if (!HasTargets(entry.kind) && entry.Expired(now)) continue;
    longest = found->get();
  }
  if (longest == nullptr) {
    ++counters_.misses;
    return nullptr;
  }
  UsedLocked(longest);
  ++(HasTargets(longest->entry->kind) ? counters_.hits : counters_.negative_hits);
  return longest->entry;
}

ReferralCache::Entry ReferralCache::GetExact(const DfsPath& path, size_t components,
                                             absl::string_view credential, absl::Time now) {
  MutexLock lock(mutex_);
  const auto found = slots_.find(MakeProbe(path.KeyPrefix(components), credential));
  if (found == slots_.end() || (*found)->entry == nullptr) return nullptr;
  const Entry& entry = (*found)->entry;
  if (!HasTargets(entry->kind) && entry->Expired(now)) return nullptr;
  UsedLocked(found->get());
  return entry;
}

ReferralCache::Entry ReferralCache::StoreLocked(ReferralEntry entry, bool replace) {
  Slot* slot = FindLocked(entry.prefix, entry.credential);
  if (slot != nullptr && slot->entry != nullptr && !replace) return slot->entry;
  if (slot == nullptr) {
    auto added = std::make_unique<Slot>();
    slot = added.get();
    slot->key = std::u16string(entry.prefix.Key());
    slot->credential = entry.credential;
    slot->hash = MakeProbe(slot->key, slot->credential).hash;
    slot->components = entry.prefix.size();
    lru_.push_front(slot);
    slot->position = lru_.begin();
    if (slots_of_size_.size() <= slot->components) slots_of_size_.resize(slot->components + 1);
    ++slots_of_size_[slot->components];
    slots_.insert(std::move(added));
  }
  slot->used = false;
  slot->entry = std::make_shared<const ReferralEntry>(std::move(entry));
  Entry stored = slot->entry;
  EvictLocked(slot);
  return stored;
}

void ReferralCache::RemoveLocked(Slot* slot) {
  --slots_of_size_[slot->components];
  lru_.erase(slot->position);
  slots_.erase(slots_.find(Probe{slot->hash, slot->key, slot->credential}));
}

// `kept` was just stored: where everything else is pinned it exceeds the capacity.
void ReferralCache::EvictLocked(const Slot* kept) {
  while (slots_.size() > options_.capacity && !lru_.empty() && lru_.back() != kept) {
    ++counters_.evictions;
    RemoveLocked(lru_.back());
  }
}

ReferralCache::Entry ReferralCache::Put(const DfsPath& request, absl::string_view credential,
                                        const Referral& referral, const TtlLimits& limits,
                                        absl::Time now, double random) {
  const DfsPath prefix = request.Prefix(referral.consumed_components);
  if (referral.targets.empty()) {
    return PutNegative(prefix, credential,
                       referral.dropped_targets > 0 ? EntryKind::kUnusable : EntryKind::kNoSuchPath,
                       now, random);
  }
  const absl::Duration ttl = std::clamp(referral.ttl, limits.min, std::max(limits.min, limits.max));
  ReferralEntry entry{.kind = referral.root ? EntryKind::kRoot : EntryKind::kLink,
                      .prefix = prefix,
                      .credential = std::string(credential),
                      .interlink = referral.interlink,
                      .target_failback = referral.target_failback,
                      .ttl = ttl,
                      .expiry = now + ttl,
                      .refresh_at = now + ttl * (0.7 + 0.1 * random),
                      .retry_at = absl::InfinitePast(),
                      .targets = {},
                      .hint = 0};
  for (const Target& target : referral.targets) {
    entry.targets.push_back({target.path, target.starts_set, TargetShare::kUnknown});
  }
  MutexLock lock(mutex_);
  if (const Slot* slot = FindLocked(prefix, credential);
      slot != nullptr && slot->entry != nullptr && HasTargets(slot->entry->kind)) {
    const ReferralEntry& old = *slot->entry;
    for (CachedTarget& target : entry.targets) {
      const size_t was = IndexOf(old.targets, target.path);
      if (was < old.targets.size()) target.share = old.targets[was].share;
    }
    const size_t hint = IndexOf(entry.targets, old.targets[old.hint].path);
    if (!entry.target_failback && hint < entry.targets.size()) entry.hint = hint;
  }
  return StoreLocked(std::move(entry), /*replace=*/true);
}

ReferralCache::Entry ReferralCache::PutNegative(const DfsPath& prefix, absl::string_view credential,
                                                EntryKind kind, absl::Time now, double random) {
  const absl::Duration spread = options_.negative_ttl_max - options_.negative_ttl_min;
  const absl::Duration ttl = kind == EntryKind::kNotDfs
                                 ? options_.not_dfs_ttl
                                 : options_.negative_ttl_min + spread * random;
  MutexLock lock(mutex_);
  return StoreLocked({.kind = kind,
                      .prefix = prefix,
                      .credential = std::string(credential),
                      .ttl = ttl,
                      .expiry = now + ttl,
                      .refresh_at = absl::InfiniteFuture(),
                      .retry_at = absl::InfinitePast(),
                      .targets = {}},
                     /*replace=*/true);
}

template <typename Change>
void ReferralCache::ChangeLocked(const DfsPath& prefix, absl::string_view credential,
                                 Change change) {
  Slot* slot = FindLocked(prefix, credential);
  if (slot == nullptr || slot->entry == nullptr || !HasTargets(slot->entry->kind)) return;
  ReferralEntry entry = *slot->entry;
  if (change(entry)) slot->entry = std::make_shared<const ReferralEntry>(std::move(entry));
}

void ReferralCache::SetHint(const DfsPath& prefix, absl::string_view credential,
                            const DfsPath& target) {
  MutexLock lock(mutex_);
  ChangeLocked(prefix, credential, [&](ReferralEntry& entry) {
    const size_t hint = IndexOf(entry.targets, target);
    if (hint >= entry.targets.size() || hint == entry.hint) return false;
    entry.hint = hint;
    return true;
  });
}

void ReferralCache::SetTargetShare(const DfsPath& prefix, absl::string_view credential,
                                   const DfsPath& target, TargetShare share) {
  MutexLock lock(mutex_);
  ChangeLocked(prefix, credential, [&](ReferralEntry& entry) {
    const size_t index = IndexOf(entry.targets, target);
    if (index >= entry.targets.size() || entry.targets[index].share == share) return false;
    entry.targets[index].share = share;
    return true;
  });
}

void ReferralCache::NoteRefreshFailed(const DfsPath& prefix, absl::string_view credential,
                                      absl::Time retry_at) {
  MutexLock lock(mutex_);
  ChangeLocked(prefix, credential, [&](ReferralEntry& entry) {
    entry.retry_at = retry_at;
    return true;
  });
}

void ReferralCache::Erase(const DfsPath& prefix, absl::string_view credential) {
  MutexLock lock(mutex_);
  Slot* slot = FindLocked(prefix, credential);
  if (slot == nullptr) return;
  if (slot->pins > 0) {
    slot->entry = nullptr;
  } else {
    RemoveLocked(slot);
  }
}

size_t ReferralCache::Flush() {
  MutexLock lock(mutex_);
  const size_t count = slots_.size();
  while (!lru_.empty()) RemoveLocked(lru_.back());
  for (Slot* slot : pinned_) {
    if (slot->entry == nullptr) continue;
    if (!HasTargets(slot->entry->kind)) {
      slot->entry = nullptr;
      continue;
    }
    ReferralEntry entry = *slot->entry;
    entry.expiry = entry.refresh_at = entry.retry_at = absl::InfinitePast();
    slot->entry = std::make_shared<const ReferralEntry>(std::move(entry));
  }
  return count;
}

ReferralCache::Pin::Pin(Pin&& other) noexcept
    : cache_(other.cache_), slot_(std::exchange(other.slot_, nullptr)) {}
ReferralCache::Pin& ReferralCache::Pin::operator=(Pin&& other) noexcept {
  std::swap(cache_, other.cache_);
  std::swap(slot_, other.slot_);
  return *this;
}
ReferralCache::Pin::~Pin() {
  if (slot_ != nullptr) cache_->Unpin(slot_);
}

ReferralCache::Pin ReferralCache::PinPrefix(const DfsPath& prefix, absl::string_view credential) {
  MutexLock lock(mutex_);
  Slot* slot = FindLocked(prefix, credential);
  if (slot == nullptr || slot->entry == nullptr) return Pin();
  if (slot->pins++ == 0) pinned_.splice(pinned_.begin(), lru_, slot->position);
  return Pin(this, slot);
}

void ReferralCache::Unpin(void* opaque) {
  Slot* slot = static_cast<Slot*>(opaque);
  MutexLock lock(mutex_);
  if (--slot->pins > 0) return;
  lru_.splice(lru_.begin(), pinned_, slot->position);
  if (slot->entry == nullptr) {
    RemoveLocked(slot);
  } else {
    EvictLocked(nullptr);
  }
}

std::vector<ReferralCache::Entry> ReferralCache::DueForRefresh(absl::string_view credential,
                                                               absl::Time now) {
  std::vector<Entry> due;
  {
    MutexLock lock(mutex_);
    for (const std::unique_ptr<Slot>& slot : slots_) {
      if (slot->entry == nullptr || (slot->pins == 0 && !slot->used)) continue;
      if (slot->credential != credential) continue;
      if (slot->entry->refresh_at <= now && slot->entry->retry_at <= now) {
        due.push_back(slot->entry);
      }
    }
  }
  std::sort(due.begin(), due.end(), [](const Entry& a, const Entry& b) {
    return a->refresh_at != b->refresh_at ? a->refresh_at < b->refresh_at
                                          : a->prefix.Key() < b->prefix.Key();
  });
  return due;
}

ReferralCache::FetchTicket::FetchTicket(FetchTicket&& other) noexcept
    : cache_(std::exchange(other.cache_, nullptr)), key_(std::move(other.key_)) {}
ReferralCache::FetchTicket::~FetchTicket() {
  if (cache_ != nullptr) cache_->EndFetch(key_);
}

std::optional<ReferralCache::FetchTicket> ReferralCache::TryBeginFetch(
    ReferralKind kind, std::u16string_view request, absl::string_view credential) {
  std::u16string key(1, static_cast<char16_t>(kind));
  key += smb::wire::FoldCase(request);
  key.push_back(u'\0');
  key.append(credential.begin(), credential.end());
  MutexLock lock(mutex_);
  if (!fetching_.insert(key).second) return std::nullopt;
  return FetchTicket(this, std::move(key));
}

void ReferralCache::EndFetch(const std::u16string& key) {
  MutexLock lock(mutex_);
  fetching_.erase(key);
}

std::vector<ReferralCache::Listed> ReferralCache::List() const {
  std::vector<Listed> listed;
  MutexLock lock(mutex_);
  listed.reserve(slots_.size());
  for (const SlotList* list : {&pinned_, &lru_}) {
    for (const Slot* slot : *list) {
      if (slot->entry != nullptr) listed.push_back({slot->entry, slot->pins});
    }
  }
  return listed;
}

ReferralCache::Counters ReferralCache::GetCounters() const {
  MutexLock lock(mutex_);
  Counters counters = counters_;
  counters.entries = static_cast<int64_t>(slots_.size());
  counters.pinned = static_cast<int64_t>(pinned_.size());
  return counters;
}

std::string ReferralCache::Save(absl::Time now, absl::Time wall_now) const {
  std::vector<const ReferralEntry*> entries;
  const std::vector<Listed> listed = List();  // Keeps the entries while they are written.
  for (const Listed& one : listed) {
    if (HasTargets(one.entry->kind)) entries.push_back(one.entry.get());
  }
  return EncodeCacheFile(entries, now, wall_now);
}

absl::Status ReferralCache::Load(absl::string_view file, absl::Time now, absl::Time wall_now) {
  ASSIGN_OR_RETURN(std::vector<ReferralEntry> entries, DecodeCacheFile(file, now, wall_now));
  MutexLock lock(mutex_);
  // The file starts with what was used last; so does the list that each entry is put in front of.
  for (auto entry = entries.rbegin(); entry != entries.rend(); ++entry) {
    StoreLocked(std::move(*entry), /*replace=*/false);
  }
  return absl::OkStatus();
}

}  // namespace dfscsi::dfs
