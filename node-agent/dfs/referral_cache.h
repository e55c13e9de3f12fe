// What is known about namespaces: which targets serve which path prefix, and until when.
//
// One cache per node, shared by all loops and mounts. It does no I/O and knows no clock: who
// fetches a referral puts it here, and every function that needs the time takes it. `now` is always
// the monotonic clock of the engine.
//
// Source: [MS-DFSC] 3.1.1 (ReferralCache), 3.1.5.4.3 (what a reply changes).
// Departures: the credential is part of the key (servers show different links to different users);
// TTLs are clamped; an expired entry stays, and is used where no fresh one can be had.

#ifndef NODE_AGENT_DFS_REFERRAL_CACHE_H_
#define NODE_AGENT_DFS_REFERRAL_CACHE_H_

#include <cstddef>
#include <cstdint>
#include <list>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "node-agent/base/mutex.h"
#include "node-agent/dfs/path.h"
#include "node-agent/dfs/referral.h"
#include "node-agent/dfs/referral_request.h"

namespace dfscsi::dfs {

// What a cache entry says about its prefix.
enum class EntryKind {
  kRoot,        // A namespace root.
  kLink,        // A link, or a share that refers elsewhere as a whole.
  kNotDfs,      // \host\share is an ordinary share: no namespace, no referral needed.
  kNoSuchPath,  // The namespace has nothing here: ENOENT.
  kUnusable,    // A link without one usable target: EIO.
};
inline bool HasTargets(EntryKind kind) {
  return kind == EntryKind::kRoot || kind == EntryKind::kLink;
}

// What was learned about a target's share by using it.
enum class TargetShare {
  kUnknown,
  kNamespace,  // A namespace of its own (an interlink that the referral did not announce).
  kPlain,
};

struct CachedTarget {
  DfsPath path;
  bool starts_set = false;
  TargetShare share = TargetShare::kUnknown;

  friend bool operator==(const CachedTarget&, const CachedTarget&) = default;
};

// One cached answer. Immutable once in the cache: who holds it keeps a consistent picture while the
// cache moves on.
struct ReferralEntry {
  EntryKind kind = EntryKind::kRoot;
  DfsPath prefix;          // What of a path it covers.
  std::string credential;  // smb::Credential's identity.
  bool interlink = false;  // kLink: announced as one ([MS-DFSC] 3.1.5.4.5).
  bool target_failback = false;
  absl::Duration ttl;     // As clamped; says nothing about now.
  absl::Time expiry;      // From here on it is stale.
  absl::Time refresh_at;  // From here on it should be fetched again in the background.
  absl::Time retry_at;    // A failed refresh is not repeated before this.
  std::vector<CachedTarget> targets = {};  // HasTargets(kind): at least one. Server's order.
  size_t hint = 0;                         // TargetHint: the target that worked last.

  bool Expired(absl::Time now) const { return now >= expiry; }
};

struct TtlLimits {
  absl::Duration min = absl::Seconds(30);
  absl::Duration max = absl::Hours(24);
};

// Thread-safe; every function is short and none blocks but for the mutex.
class ReferralCache {
 public:
  struct Options {
    size_t capacity = 16384;  // Entries; pinned ones are never evicted, so they may exceed it.
    absl::Duration negative_ttl_min = absl::Seconds(5);
    absl::Duration negative_ttl_max = absl::Seconds(10);
    absl::Duration not_dfs_ttl = absl::Minutes(5);
    uint64_t hash_seed = 0;  // Random in production: path names come from others.
  };
  using Entry = std::shared_ptr<const ReferralEntry>;

  ReferralCache();
  explicit ReferralCache(Options options);
  ~ReferralCache();
  ReferralCache(const ReferralCache&) = delete;
  ReferralCache& operator=(const ReferralCache&) = delete;

  // The entry with the longest prefix of `path` in whole components, or null. Entries with targets
  // are returned at any age (look at expiry); negative ones until they expire. Allocates nothing.
  Entry Get(const DfsPath& path, absl::string_view credential, absl::Time now);
  // The entry whose prefix is the first `components` of `path`.
  Entry GetExact(const DfsPath& path, size_t components, absl::string_view credential,
                 absl::Time now);

  // Enters what a server answered to a ROOT, LINK or SYSVOL request for `request`, in place of what
  // was known of that prefix, and returns it. TargetHint: the first target where the reply asks for
  // failback, else the old hint if it is still listed, else the first. A reply without targets
  // becomes a negative entry. `random` in [0, 1) spreads refreshes and negative entries in time.
  Entry Put(const DfsPath& request, absl::string_view credential, const Referral& referral,
            const TtlLimits& limits, absl::Time now, double random);
  // REQUIRES: !HasTargets(kind).
  Entry PutNegative(const DfsPath& prefix, absl::string_view credential, EntryKind kind,
                    absl::Time now, double random);

  // The four below change nothing if the prefix (or target) is not cached any more.
  void SetHint(const DfsPath& prefix, absl::string_view credential, const DfsPath& target);
  void SetTargetShare(const DfsPath& prefix, absl::string_view credential, const DfsPath& target,
                      TargetShare share);
  // A refresh failed: the entry stays, and nobody tries again before `retry_at`.
  void NoteRefreshFailed(const DfsPath& prefix, absl::string_view credential, absl::Time retry_at);
  // The namespace has this prefix no more; what covers it now is the next shorter entry.
  void Erase(const DfsPath& prefix, absl::string_view credential);

  // Makes everything that is pinned stale and forgets the rest. Returns how many entries that was.
  size_t Flush();

  // Keeps an entry from eviction, and in the background refresh, while it is alive: held for each
  // link in use. The cache must outlive it.
  class Pin {
   public:
    Pin() = default;
    Pin(Pin&& other) noexcept;
    Pin& operator=(Pin&& other) noexcept;
    ~Pin();
    explicit operator bool() const { return slot_ != nullptr; }

   private:
    friend class ReferralCache;
    Pin(ReferralCache* cache, void* slot) : cache_(cache), slot_(slot) {}
    ReferralCache* cache_ = nullptr;
    void* slot_ = nullptr;
  };
  // An empty Pin if the prefix is not cached.
  Pin PinPrefix(const DfsPath& prefix, absl::string_view credential);

  // The credential's entries to refresh: due, not failed lately, and pinned or looked up since they
  // were fetched. All of them, the most overdue first: who refreshes knows which it may ask about.
  std::vector<Entry> DueForRefresh(absl::string_view credential, absl::Time now);

  // Marks a fetch as under way, so that only one runs per (kind, request, credential). The one that
  // holds the ticket fetches; who gets none waits for its result.
  class FetchTicket {
   public:
    FetchTicket(FetchTicket&& other) noexcept;
    FetchTicket& operator=(FetchTicket&& other) = delete;
    ~FetchTicket();

   private:
    friend class ReferralCache;
    FetchTicket(ReferralCache* cache, std::u16string key) : cache_(cache), key_(std::move(key)) {}
    ReferralCache* cache_;
    std::u16string key_;
  };
  std::optional<FetchTicket> TryBeginFetch(ReferralKind kind, std::u16string_view request,
                                           absl::string_view credential);

  // For people and metrics: everything, in the order of last use, pinned entries first.
  struct Listed {
    Entry entry;
    int pins = 0;
  };
  std::vector<Listed> List() const;

  struct Counters {
    int64_t hits = 0;
    int64_t negative_hits = 0;
    int64_t misses = 0;
    int64_t evictions = 0;
    int64_t entries = 0;
    int64_t pinned = 0;
  };
  Counters GetCounters() const;

  // The cache as a file, and back. `wall_now` is the time of day: monotonic time does not survive a
  // reboot. Entries come back with what is left of their TTL, none if the time of day went back.
  // Negative entries are not saved. Load keeps what is already cached.
  // Errors: kDataLoss, the file is not one that Save made; nothing was loaded.
  std::string Save(absl::Time now, absl::Time wall_now) const;
  absl::Status Load(absl::string_view file, absl::Time now, absl::Time wall_now);

 private:
  struct Slot;
  using SlotList = std::list<Slot*>;
  // What a slot is found by, without making a key object.
  struct Probe {
    uint64_t hash;
    std::u16string_view key;
    absl::string_view credential;
  };
  struct SlotHash {
    using is_transparent = void;
    size_t operator()(const std::unique_ptr<Slot>& slot) const;
    size_t operator()(const Probe& probe) const { return probe.hash; }
  };
  struct SlotEqual {
    using is_transparent = void;
    bool operator()(const std::unique_ptr<Slot>& a, const std::unique_ptr<Slot>& b) const;
    bool operator()(const std::unique_ptr<Slot>& slot, const Probe& probe) const;
    bool operator()(const Probe& probe, const std::unique_ptr<Slot>& slot) const;
  };

  Probe MakeProbe(std::u16string_view key, absl::string_view credential) const;
  Slot* FindLocked(const DfsPath& prefix, absl::string_view credential) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  Entry StoreLocked(ReferralEntry entry, bool replace) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void RemoveLocked(Slot* slot) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void EvictLocked(const Slot* kept) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void UsedLocked(Slot* slot) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  template <typename Change>
  void ChangeLocked(const DfsPath& prefix, absl::string_view credential, Change change)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Unpin(void* slot);
  void EndFetch(const std::u16string& key);

  // Constant after construction.
  const Options options_;

  mutable Mutex mutex_;
  absl::flat_hash_set<std::unique_ptr<Slot>, SlotHash, SlotEqual> slots_ ABSL_GUARDED_BY(mutex_);
  SlotList lru_ ABSL_GUARDED_BY(mutex_);     // Evictable slots, last used first.
  SlotList pinned_ ABSL_GUARDED_BY(mutex_);  // Last used first, too.
  // How many slots have a prefix of n components: lengths that nobody has are not looked up.
  std::vector<int> slots_of_size_ ABSL_GUARDED_BY(mutex_);
  absl::flat_hash_set<std::u16string> fetching_ ABSL_GUARDED_BY(mutex_);
  Counters counters_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace dfscsi::dfs

#endif  // NODE_AGENT_DFS_REFERRAL_CACHE_H_
