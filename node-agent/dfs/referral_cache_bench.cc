// What a cached lookup, and a whole cached resolution, cost with a full cache of 16,384 entries.

#include <benchmark/benchmark.h>

#include <string>
#include <vector>

#include "node-agent/dfs/allocation_count.h"
#include "node-agent/dfs/domain_cache.h"
#include "node-agent/dfs/referral_cache.h"
#include "node-agent/dfs/resolver.h"

namespace dfscsi::dfs {
namespace {

constexpr char kCredential[] = "svc-backup@CORP.EXAMPLE.COM";
const absl::Time kNow = absl::UnixEpoch() + absl::Hours(1);

std::string LinkName(int i) {
  return "//corp.example.com/projects/department-" + std::to_string(i % 128) + "/team-" +
         std::to_string(i);
}

// 16,384 links below one root; paths that are `below` components deeper than their links, in an
// order that the processor's caches cannot follow.
struct FullCache {
  explicit FullCache(int below) {
    Referral root{.version = 4, .consumed_components = 2, .root = true, .ttl = absl::Hours(1)};
    root.targets.push_back({*DfsPath::Parse("//root1.corp.example.com/projects"), true});
    cache.Put(*DfsPath::Parse("//corp.example.com/projects"), kCredential, root, {}, kNow, 0);
    for (int i = 0; i < 16383; ++i) {
      Referral link{.version = 4, .consumed_components = 4, .ttl = absl::Hours(1)};
      link.targets.push_back({*DfsPath::Parse("//fs1.corp.example.com/data"), true});
      link.targets.push_back({*DfsPath::Parse("//fs2.corp.example.com/data"), false});
      cache.Put(*DfsPath::Parse(LinkName(i)), kCredential, link, {}, kNow, 0);
    }
    for (int i = 0; i < 4096; ++i) {
      std::string path = LinkName(i * 7919 % 16383);
      for (int j = 0; j < below; ++j) path += "/directory-" + std::to_string(j);
      paths.push_back(*DfsPath::Parse(path));
    }
  }
  ReferralCache cache;
  std::vector<DfsPath> paths;
};

void BM_CachedLookup(benchmark::State& state) {
  FullCache full(static_cast<int>(state.range(0)));
  size_t i = 0;
  const int64_t before = allocation_count;
  for (auto _ : state) {
    const ReferralCache::Entry entry =
        full.cache.Get(full.paths[i++ % full.paths.size()], kCredential, kNow);
    if (entry == nullptr || entry->kind != EntryKind::kLink) state.SkipWithError("no link found");
    benchmark::DoNotOptimize(entry);
  }
  state.counters["allocations"] = static_cast<double>(allocation_count - before);
  state.counters["entries"] = static_cast<double>(full.cache.GetCounters().entries);
}
BENCHMARK(BM_CachedLookup)->Arg(0)->Arg(4)->Arg(16);

void BM_CachedResolve(benchmark::State& state) {
  FullCache full(static_cast<int>(state.range(0)));
  DomainCache domains;
  Resolver resolver(full.cache, domains, {});
  size_t i = 0;
  const int64_t before = allocation_count;
  for (auto _ : state) {
    Resolution resolution(full.paths[i++ % full.paths.size()], kCredential);
    const ResolveStep step = resolver.Next(resolution, kNow);
    if (step.kind != ResolveStep::Kind::kTryTargets) state.SkipWithError("not resolved");
    benchmark::DoNotOptimize(step.entry);
  }
  state.counters["allocations"] = static_cast<double>(allocation_count - before);
  state.counters["entries"] = static_cast<double>(full.cache.GetCounters().entries);
}
BENCHMARK(BM_CachedResolve)->Arg(0)->Arg(4)->Arg(16);

void BM_CachedLookupFourThreads(benchmark::State& state) {
  static FullCache* full = new FullCache(4);
  size_t i = static_cast<size_t>(state.thread_index()) * 1000;
  for (auto _ : state) {
    benchmark::DoNotOptimize(
        full->cache.Get(full->paths[i++ % full->paths.size()], kCredential, kNow));
  }
}
BENCHMARK(BM_CachedLookupFourThreads)->Threads(4);

}  // namespace
}  // namespace dfscsi::dfs
