#include "node-agent/dfs/referral_cache.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "node-agent/dfs/allocation_count.h"
#include "node-agent/dfs/referral_cache_file.h"

namespace dfscsi::dfs {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

constexpr char kUser[] = "user@corp";
const absl::Time kStart = absl::UnixEpoch() + absl::Hours(1);

DfsPath P(absl::string_view text) {
  absl::StatusOr<DfsPath> path = DfsPath::Parse(text);
  EXPECT_TRUE(path.ok()) << path.status();
  return *std::move(path);
}

Referral Link(size_t consumed, std::vector<std::string> targets,
              absl::Duration ttl = absl::Seconds(600)) {
  Referral referral;
  referral.version = 4;
  referral.consumed_components = consumed;
  referral.ttl = ttl;
  for (const std::string& target : targets) {
    referral.targets.push_back({P(target), referral.targets.empty()});
  }
  return referral;
}
Referral Root(size_t consumed, std::vector<std::string> targets,
              absl::Duration ttl = absl::Seconds(600)) {
  Referral referral = Link(consumed, std::move(targets), ttl);
  referral.root = true;
  return referral;
}

class ReferralCacheTest : public testing::Test {
 protected:
  ReferralCache::Entry Put(absl::string_view request, const Referral& referral,
                           absl::string_view credential = kUser) {
    return cache_.Put(P(request), credential, referral, limits_, now_, 0.5);
  }
  // The prefix that answers for `path`; "" if none does.
  std::string Prefix(absl::string_view path, absl::string_view credential = kUser) {
    const ReferralCache::Entry entry = cache_.Get(P(path), credential, now_);
    return entry == nullptr ? "" : entry->prefix.ToString();
  }
  std::string Hint(absl::string_view path) {
    const ReferralCache::Entry entry = cache_.Get(P(path), kUser, now_);
    return entry->targets[entry->hint].path.ToString();
  }

  absl::Time now_ = kStart;
  TtlLimits limits_;
  ReferralCache cache_;
};

TEST_F(ReferralCacheTest, E11_LongestPrefixInWholeComponents) {
  Put("//d/n", Root(2, {"//r/n"}));
  Put("//d/n/a", Link(3, {"//t/a"}));
  Put("//d/n/a/b/c", Link(5, {"//t/c"}));
  EXPECT_EQ(Prefix("//d/n"), "//d/n");
  EXPECT_EQ(Prefix("//d/n/x/y"), "//d/n");
  EXPECT_EQ(Prefix("//d/n/a"), "//d/n/a");
  EXPECT_EQ(Prefix("//d/n/a/b"), "//d/n/a");
  EXPECT_EQ(Prefix("//d/n/a/b/c/d"), "//d/n/a/b/c");
  EXPECT_EQ(Prefix("//d/n/ab"), "//d/n");
  EXPECT_EQ(Prefix("//d/other"), "");
  EXPECT_EQ(cache_.GetExact(P("//d/n/a/x"), 3, kUser, now_)->prefix, P("//d/n/a"));
  EXPECT_EQ(cache_.GetExact(P("//d/n/a/x"), 4, kUser, now_), nullptr);
}

TEST_F(ReferralCacheTest, A23_CaseVariantsAreOneEntry) {
  Put("//root1/dfs/link", Link(3, {"//t/s"}));
  Put("//ROOT1/DFS/Link", Link(3, {"//t/s"}));
  EXPECT_EQ(Prefix("//Root1/Dfs/LINK/x"), "//ROOT1/DFS/Link");
  EXPECT_EQ(cache_.GetCounters().entries, 1);
}

TEST_F(ReferralCacheTest, TheEntryCoversWhatWasConsumed) {
  Put("//d/n/l/deep/file", Link(3, {"//t/s"}));
  EXPECT_EQ(Prefix("//d/n/l/other"), "//d/n/l");
}

TEST_F(ReferralCacheTest, E13_CredentialsShareNothing) {
  Put("//d/n/l", Link(3, {"//t1/s"}), "alice");
  Put("//d/n/l", Link(3, {"//t2/s"}), "bob");
  EXPECT_EQ(cache_.Get(P("//d/n/l"), "alice", now_)->targets[0].path, P("//t1/s"));
  EXPECT_EQ(cache_.Get(P("//d/n/l"), "bob", now_)->targets[0].path, P("//t2/s"));
  EXPECT_EQ(cache_.Get(P("//d/n/l"), "carol", now_), nullptr);
}

TEST_F(ReferralCacheTest, E02_TtlsAreClamped) {
  struct Case {
    absl::Duration sent, want;
  };
  for (const Case& c : std::vector<Case>{{absl::ZeroDuration(), absl::Seconds(30)},
                                         {absl::Seconds(1), absl::Seconds(30)},
                                         {absl::Seconds(60), absl::Seconds(60)},
                                         {absl::Seconds(1u << 31), absl::Hours(24)},
                                         {absl::Seconds(0xFFFFFFFFu), absl::Hours(24)}}) {
    const ReferralCache::Entry entry = Put("//d/n/l", Link(3, {"//t/s"}, c.sent));
    EXPECT_EQ(entry->expiry, now_ + c.want) << c.sent;
    EXPECT_FALSE(entry->Expired(now_));
    EXPECT_TRUE(entry->Expired(now_ + c.want));
    EXPECT_GE(entry->refresh_at, now_ + 0.7 * c.want);
    EXPECT_LE(entry->refresh_at, now_ + 0.8 * c.want);
  }
  limits_.min = absl::ZeroDuration();  // As tests do.
  EXPECT_TRUE(Put("//d/n/l", Link(3, {"//t/s"}, absl::ZeroDuration()))->Expired(now_));
}

TEST_F(ReferralCacheTest, E07_StaleEntriesStay) {
  Put("//d/n/l", Link(3, {"//t/s"}));
  now_ += absl::Hours(100);
  const ReferralCache::Entry entry = cache_.Get(P("//d/n/l"), kUser, now_);
  ASSERT_NE(entry, nullptr);
  EXPECT_TRUE(entry->Expired(now_));
  cache_.NoteRefreshFailed(entry->prefix, kUser, now_ + absl::Seconds(3));
  EXPECT_EQ(cache_.Get(P("//d/n/l"), kUser, now_)->retry_at, now_ + absl::Seconds(3));
}

TEST_F(ReferralCacheTest, E12_NegativeEntriesEnd) {
  Put("//d/n", Root(2, {"//r/n"}));
  EXPECT_EQ(Put("//d/n/empty", Link(3, {}))->kind, EntryKind::kNoSuchPath);
  EXPECT_EQ(Prefix("//d/n/empty/x"), "//d/n/empty");
  now_ += absl::Seconds(4.9);
  EXPECT_EQ(Prefix("//d/n/empty/x"), "//d/n/empty");
  now_ += absl::Seconds(5.1);
  EXPECT_EQ(Prefix("//d/n/empty/x"), "//d/n");

  cache_.PutNegative(P("//t/s"), kUser, EntryKind::kNotDfs, now_, 0);
  EXPECT_EQ(cache_.Get(P("//t/s/x"), kUser, now_)->kind, EntryKind::kNotDfs);
  cache_.Flush();
  EXPECT_EQ(cache_.Get(P("//t/s/x"), kUser, now_), nullptr);
}

TEST_F(ReferralCacheTest, A18_OnlyUnusableTargetsIsNotAnEmptyLink) {
  Referral broken = Link(3, {});
  broken.dropped_targets = 1;
  EXPECT_EQ(Put("//d/n/broken", broken)->kind, EntryKind::kUnusable);
}

TEST_F(ReferralCacheTest, E05_AReorderedListKeepsTheHint) {
  Put("//d/n/l", Link(3, {"//t1/s", "//t2/s", "//t3/s"}));
  EXPECT_EQ(Hint("//d/n/l"), "//t1/s");
  cache_.SetHint(P("//d/n/l"), kUser, P("//T2/S"));
  EXPECT_EQ(Hint("//d/n/l"), "//t2/s");
  Put("//d/n/l", Link(3, {"//t3/s", "//t1/s", "//t2/s"}));
  EXPECT_EQ(Hint("//d/n/l"), "//t2/s");
}

TEST_F(ReferralCacheTest, E04_AHintThatIsGoneGoesToTheFirst) {
  Put("//d/n/l", Link(3, {"//t1/s", "//t2/s"}));
  cache_.SetHint(P("//d/n/l"), kUser, P("//t2/s"));
  Put("//d/n/l", Link(3, {"//t3/s", "//t1/s"}));
  EXPECT_EQ(Hint("//d/n/l"), "//t3/s");
  cache_.SetHint(P("//d/n/l"), kUser, P("//t2/s"));  // Not listed: no effect.
  EXPECT_EQ(Hint("//d/n/l"), "//t3/s");
}

TEST_F(ReferralCacheTest, C17_TargetFailbackStartsAtTheTopAgain) {
  Referral referral = Link(3, {"//t1/s", "//t2/s"});
  referral.target_failback = true;
  Put("//d/n/l", referral);
  cache_.SetHint(P("//d/n/l"), kUser, P("//t2/s"));
  Put("//d/n/l", referral);
  EXPECT_EQ(Hint("//d/n/l"), "//t1/s");
}

TEST_F(ReferralCacheTest, WhatWasLearnedOfATargetOutlivesARefresh) {
  Put("//d/n/l", Link(3, {"//t1/s", "//r2/dfs"}));
  cache_.SetTargetShare(P("//d/n/l"), kUser, P("//r2/dfs"), TargetShare::kNamespace);
  Put("//d/n/l", Link(3, {"//r2/dfs", "//t1/s"}));
  const ReferralCache::Entry entry = cache_.Get(P("//d/n/l"), kUser, now_);
  EXPECT_EQ(entry->targets[0].share, TargetShare::kNamespace);
  EXPECT_EQ(entry->targets[1].share, TargetShare::kUnknown);
}

TEST_F(ReferralCacheTest, ASnapshotDoesNotChangeUnderItsHolder) {
  const ReferralCache::Entry before = Put("//d/n/l", Link(3, {"//t1/s", "//t2/s"}));
  cache_.SetHint(P("//d/n/l"), kUser, P("//t2/s"));
  Put("//d/n/l", Link(3, {"//t9/s"}));
  cache_.Erase(P("//d/n/l"), kUser);
  EXPECT_EQ(before->hint, 0u);
  EXPECT_EQ(before->targets.size(), 2u);
}

TEST_F(ReferralCacheTest, E06_AnErasedLinkIsCoveredByItsRoot) {
  Put("//d/n", Root(2, {"//r/n"}));
  Put("//d/n/l", Link(3, {"//t/s"}));
  const ReferralCache::Pin pin = cache_.PinPrefix(P("//d/n/l"), kUser);
  cache_.Erase(P("//d/n/l"), kUser);
  EXPECT_EQ(Prefix("//d/n/l/x"), "//d/n");
  // And is there again when the namespace has it again, still pinned.
  Put("//d/n/l", Link(3, {"//t/s"}));
  EXPECT_EQ(Prefix("//d/n/l/x"), "//d/n/l");
  EXPECT_EQ(cache_.GetCounters().pinned, 1);
}

std::string Numbered(int i) { return "//d/n/link" + std::to_string(i); }

TEST_F(ReferralCacheTest, E09_TheLeastRecentlyUsedGoesAndPinnedStay) {
  ReferralCache cache({.capacity = 100});
  std::vector<ReferralCache::Pin> pins;
  for (int i = 0; i < 10000; ++i) {
    cache.Put(P(Numbered(i)), kUser, Link(3, {"//t/s"}), limits_, now_, 0);
    if (i < 5) pins.push_back(cache.PinPrefix(P(Numbered(i)), kUser));
    if (i >= 50) {
      EXPECT_NE(cache.Get(P(Numbered(50)), kUser, now_), nullptr);  // Kept warm.
    }
  }
  EXPECT_EQ(cache.GetCounters().entries, 100);
  EXPECT_EQ(cache.GetCounters().pinned, 5);
  for (const int i : {0, 4, 50, 9999, 9906}) {
    EXPECT_NE(cache.Get(P(Numbered(i)), kUser, now_), nullptr) << i;
  }
  for (const int i : {5, 51, 9000}) {
    EXPECT_EQ(cache.Get(P(Numbered(i)), kUser, now_), nullptr) << i;
  }
  pins.clear();
  EXPECT_EQ(cache.GetCounters().pinned, 0);
  EXPECT_EQ(cache.GetCounters().entries, 100);
}

TEST_F(ReferralCacheTest, E09_PinnedEntriesMayExceedTheCapacity) {
  ReferralCache cache({.capacity = 2});
  std::vector<ReferralCache::Pin> pins;
  for (int i = 0; i < 5; ++i) {
    cache.Put(P(Numbered(i)), kUser, Link(3, {"//t/s"}), limits_, now_, 0);
    pins.push_back(cache.PinPrefix(P(Numbered(i)), kUser));
    ASSERT_TRUE(pins.back());
  }
  EXPECT_EQ(cache.GetCounters().entries, 5);
  pins.clear();
  EXPECT_EQ(cache.GetCounters().entries, 2);
}

TEST_F(ReferralCacheTest, PinsCountAndMove) {
  Put("//d/n/l", Link(3, {"//t/s"}));
  EXPECT_FALSE(cache_.PinPrefix(P("//d/n/none"), kUser));
  ReferralCache::Pin a = cache_.PinPrefix(P("//d/n/l"), kUser);
  {
    ReferralCache::Pin b = cache_.PinPrefix(P("//d/n/l"), kUser);
    ReferralCache::Pin c = std::move(b);
    EXPECT_EQ(cache_.List()[0].pins, 2);
  }
  EXPECT_EQ(cache_.List()[0].pins, 1);
  a = ReferralCache::Pin();
  EXPECT_EQ(cache_.List()[0].pins, 0);
}

TEST_F(ReferralCacheTest, E15_FlushForgetsTheIdleAndStalesThePinned) {
  Put("//d/n/idle", Link(3, {"//t/s"}));
  Put("//d/n/used", Link(3, {"//t/s"}));
  const ReferralCache::Pin pin = cache_.PinPrefix(P("//d/n/used"), kUser);
  EXPECT_EQ(cache_.Flush(), 2u);
  EXPECT_EQ(Prefix("//d/n/idle"), "");
  const ReferralCache::Entry used = cache_.Get(P("//d/n/used"), kUser, now_);
  ASSERT_NE(used, nullptr);
  EXPECT_TRUE(used->Expired(now_));
  EXPECT_EQ(cache_.DueForRefresh(kUser, now_).size(), 1u);
}

TEST_F(ReferralCacheTest, E08_WhatIsInUseIsRefreshedInTheBackground) {
  Put("//d/n/idle", Link(3, {"//t/s"}));
  Put("//d/n/looked-up", Link(3, {"//t/s"}));
  Put("//d/n/pinned", Link(3, {"//t/s"}, absl::Seconds(300)));
  cache_.Get(P("//d/n/looked-up/x"), kUser, now_);
  const ReferralCache::Pin pin = cache_.PinPrefix(P("//d/n/pinned"), kUser);
  EXPECT_THAT(cache_.DueForRefresh(kUser, now_), IsEmpty());
  now_ += absl::Seconds(490);
  std::vector<ReferralCache::Entry> due = cache_.DueForRefresh(kUser, now_);
  ASSERT_EQ(due.size(), 2u);
  EXPECT_EQ(due[0]->prefix, P("//d/n/pinned"));  // Longest overdue.
  EXPECT_EQ(due[1]->prefix, P("//d/n/looked-up"));
  EXPECT_THAT(cache_.DueForRefresh("another account", now_), IsEmpty());

  // A failure waits; a success is due again only after use.
  cache_.NoteRefreshFailed(P("//d/n/pinned"), kUser, now_ + absl::Seconds(5));
  Put("//d/n/looked-up", Link(3, {"//t/s"}));
  EXPECT_THAT(cache_.DueForRefresh(kUser, now_), IsEmpty());
  now_ += absl::Seconds(490);
  EXPECT_EQ(cache_.DueForRefresh(kUser, now_).size(), 1u);
}

TEST_F(ReferralCacheTest, E10_OneFetchPerKey) {
  std::optional<ReferralCache::FetchTicket> first =
      cache_.TryBeginFetch(ReferralKind::kLink, u"\\d\\n\\l", kUser);
  ASSERT_TRUE(first);
  EXPECT_FALSE(cache_.TryBeginFetch(ReferralKind::kLink, u"\\D\\N\\L", kUser));
  EXPECT_TRUE(cache_.TryBeginFetch(ReferralKind::kRoot, u"\\d\\n\\l", kUser));
  EXPECT_TRUE(cache_.TryBeginFetch(ReferralKind::kLink, u"\\d\\n\\l", "other"));
  EXPECT_TRUE(cache_.TryBeginFetch(ReferralKind::kLink, u"\\d\\n\\m", kUser));
  {
    const ReferralCache::FetchTicket moved = *std::move(first);
    EXPECT_FALSE(cache_.TryBeginFetch(ReferralKind::kLink, u"\\d\\n\\l", kUser));
  }
  EXPECT_TRUE(cache_.TryBeginFetch(ReferralKind::kLink, u"\\d\\n\\l", kUser));
}

TEST_F(ReferralCacheTest, CountersSayWhatHappened) {
  Put("//d/n/l", Link(3, {"//t/s"}));
  Put("//d/n/e", Link(3, {}));
  Prefix("//d/n/l");
  Prefix("//d/n/l");
  Prefix("//d/n/e");
  Prefix("//d/x");
  const ReferralCache::Counters counters = cache_.GetCounters();
  EXPECT_EQ(counters.hits, 2);
  EXPECT_EQ(counters.negative_hits, 1);
  EXPECT_EQ(counters.misses, 1);
}

// --- The file ---

TEST_F(ReferralCacheTest, AFileBringsEverythingBack) {
  Referral root = Root(2, {"//r1/n", "//r2/n"});
  Put("//d/n", root);
  Referral link = Link(3, {"//t1/s/päth", "//t2/s", "//t3/s"});
  link.targets[2].starts_set = true;
  link.target_failback = true;
  Put("//d/n/l", link);
  cache_.SetHint(P("//d/n/l"), kUser, P("//t2/s"));
  cache_.SetTargetShare(P("//d/n/l"), kUser, P("//t3/s"), TargetShare::kNamespace);
  Put("//d/n/nothing", Link(3, {}));

  const absl::Time wall = absl::FromUnixSeconds(1'700'000'000);
  const std::string file = cache_.Save(now_ + absl::Seconds(100), wall);
  ReferralCache loaded;
  const absl::Time now = kStart + absl::Hours(50);  // Another boot: another monotonic clock.
  ASSERT_TRUE(loaded.Load(file, now, wall + absl::Seconds(200)).ok());
  EXPECT_EQ(loaded.GetCounters().entries, 2);
  const ReferralCache::Entry entry = loaded.Get(P("//d/n/l/x"), kUser, now);
  ASSERT_NE(entry, nullptr);
  EXPECT_EQ(entry->kind, EntryKind::kLink);
  EXPECT_TRUE(entry->target_failback);
  EXPECT_EQ(entry->targets[entry->hint].path, P("//t2/s"));
  EXPECT_EQ(entry->targets[0].path, P("//t1/s/päth"));
  EXPECT_TRUE(entry->targets[2].starts_set);
  EXPECT_EQ(entry->targets[2].share, TargetShare::kNamespace);
  EXPECT_EQ(entry->expiry, now + absl::Seconds(300));  // 600 - 100 - 200
  EXPECT_EQ(loaded.Get(P("//d/n"), kUser, now)->kind, EntryKind::kRoot);
}

TEST_F(ReferralCacheTest, ALoadedFileIsStaleAfterItsTimeOrIfTheClockWentBack) {
  Put("//d/n/l", Link(3, {"//t/s"}));
  const absl::Time wall = absl::FromUnixSeconds(1'700'000'000);
  const std::string file = cache_.Save(now_, wall);
  for (const absl::Duration later :
       {absl::Hours(1), absl::Seconds(-1), absl::Hours(24 * 10000), absl::InfiniteDuration()}) {
    ReferralCache loaded;
    ASSERT_TRUE(loaded.Load(file, now_, wall + later).ok());
    const ReferralCache::Entry entry = loaded.Get(P("//d/n/l"), kUser, now_);
    ASSERT_NE(entry, nullptr) << later;
    EXPECT_TRUE(entry->Expired(now_)) << later;
  }
}

TEST_F(ReferralCacheTest, LoadingDoesNotReplaceWhatIsFresh) {
  Put("//d/n/l", Link(3, {"//old/s"}));
  const std::string file = cache_.Save(now_, now_);
  Put("//d/n/l", Link(3, {"//new/s"}));
  ASSERT_TRUE(cache_.Load(file, now_, now_).ok());
  EXPECT_EQ(Hint("//d/n/l"), "//new/s");
}

TEST_F(ReferralCacheTest, LoadingKeepsTheOrderOfUse) {
  for (int i = 0; i < 10; ++i) Put(Numbered(i), Link(3, {"//t/s"}));
  Prefix(Numbered(3));
  const std::string file = cache_.Save(now_, now_);
  ReferralCache small({.capacity = 2});
  ASSERT_TRUE(small.Load(file, now_, now_).ok());
  EXPECT_NE(small.Get(P(Numbered(3)), kUser, now_), nullptr);
  EXPECT_NE(small.Get(P(Numbered(9)), kUser, now_), nullptr);
  EXPECT_EQ(small.GetCounters().entries, 2);
}

TEST_F(ReferralCacheTest, ADamagedFileIsAnErrorAndLoadsNothing) {
  Put("//d/n", Root(2, {"//r1/n"}));
  Put("//d/n/l", Link(3, {"//t1/s", "//t2/s"}));
  const std::string file = cache_.Save(now_, now_);
  ReferralCache loaded;
  std::vector<std::string> damaged = {"", "x", std::string(1000, '\0'), file + "x", file + file};
  for (size_t length = 0; length < file.size(); ++length) damaged.push_back(file.substr(0, length));
  for (size_t i = 0; i < file.size(); ++i) {
    damaged.push_back(file);
    damaged.back()[i] ^= 0x10;
  }
  for (const std::string& bytes : damaged) {
    EXPECT_EQ(loaded.Load(bytes, now_, now_).code(), absl::StatusCode::kDataLoss);
  }
  EXPECT_EQ(loaded.GetCounters().entries, 0);
  EXPECT_TRUE(loaded.Load(file, now_, now_).ok());
}

// --- Hot path ---

TEST_F(ReferralCacheTest, ALookupAllocatesNothing) {
  if (!kAllocationsAreCounted) GTEST_SKIP() << "allocations cannot be counted in this build";
  std::vector<DfsPath> paths;
  for (int i = 0; i < 16384; ++i) {
    Put(Numbered(i), Link(3, {"//t/s"}));
    if (i % 64 == 0) paths.push_back(P(Numbered(i) + "/some/directory/below/the/link/file.txt"));
  }
  paths.push_back(P("//d/n/missing/file"));
  paths.push_back(P("//other/share/file"));
  const int64_t before = allocation_count;
  size_t hits = 0;
  for (const DfsPath& path : paths) {
    if (cache_.Get(path, kUser, now_) != nullptr) ++hits;
  }
  EXPECT_EQ(allocation_count - before, 0);
  EXPECT_EQ(hits, 256u);
  // The counter does count.
  ::operator delete(::operator new(1));  // A new-expression could be optimised away.
  EXPECT_GE(allocation_count - before, 1);
}

TEST_F(ReferralCacheTest, RaceOfLookupsAndChanges) {
  std::atomic<bool> stop = false;
  std::vector<std::thread> readers;
  for (int r = 0; r < 3; ++r) {
    readers.emplace_back([&] {
      const DfsPath path = P("//d/n/link3/x");
      while (!stop) {
        const ReferralCache::Entry entry = cache_.Get(path, kUser, kStart);
        if (entry == nullptr) continue;
        ASSERT_LT(entry->hint, entry->targets.size());
        cache_.SetHint(entry->prefix, kUser, entry->targets.back().path);
        const ReferralCache::Pin pin = cache_.PinPrefix(entry->prefix, kUser);
      }
    });
  }
  for (int i = 0; i < 2000; ++i) {
    Put(Numbered(i % 7), Link(3, {"//t1/s", "//t2/s"}));
    if (i % 11 == 0) cache_.Flush();
    if (i % 13 == 0) cache_.Erase(P(Numbered(3)), kUser);
    if (i % 17 == 0) cache_.List();
  }
  stop = true;
  for (std::thread& reader : readers) reader.join();
  cache_.Flush();
  EXPECT_EQ(cache_.GetCounters().pinned, 0);
  EXPECT_EQ(cache_.GetCounters().entries, 0);
}

}  // namespace
}  // namespace dfscsi::dfs
