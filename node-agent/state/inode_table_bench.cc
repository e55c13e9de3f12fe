// What the tables cost beside a FUSE round trip (about 12 us).

#include <benchmark/benchmark.h>

#include <random>
#include <string>
#include <vector>

#include "node-agent/state/mount_tables.h"

namespace dfscsi::state {
namespace {

struct Tree {
  UniqueFd memory = *CreateSharedMemory("bench", kTablesBytes);
  std::unique_ptr<MountTables> tables = *MountTables::Format(memory.get(), 1);
  std::vector<NodeId> parents;
  std::vector<std::string> names;
  std::vector<NodeId> ids;

  explicit Tree(int64_t nodes) {
    std::vector<NodeId> folders = {kRootNode};
    for (int64_t i = 0; i < nodes; ++i) {
      parents.push_back(folders[static_cast<size_t>(i) % folders.size()]);
      names.push_back("document-" + std::to_string(i) + ".txt");
      ids.push_back(*tables->inodes().FindOrInsert(parents.back(), names.back(), {}));
      tables->inodes().AddLookup(ids.back());
      if (i % 100 == 0) folders.push_back(ids.back());
    }
  }
};

void BM_InsertAndForget(benchmark::State& state) {
  Tree tree(state.range(0));
  InodeTable& inodes = tree.tables->inodes();
  for (auto _ : state) {
    const NodeId id = *inodes.FindOrInsert(kRootNode, "a new file.txt", {});
    inodes.AddLookup(id);
    inodes.Forget(id, 1);
  }
}
BENCHMARK(BM_InsertAndForget)->Arg(1'000)->Arg(900'000);

void BM_LookupHit(benchmark::State& state) {
  Tree tree(state.range(0));
  InodeTable& inodes = tree.tables->inodes();
  std::mt19937 random(1);
  for (auto _ : state) {
    const size_t i = random() % tree.ids.size();
    const NodeId id = inodes.Find(tree.parents[i], tree.names[i]);
    inodes.AddLookup(id);
    benchmark::DoNotOptimize(id);
  }
}
BENCHMARK(BM_LookupHit)->Arg(1'000)->Arg(900'000);

void BM_Path(benchmark::State& state) {
  Tree tree(state.range(0));
  std::mt19937 random(1);
  for (auto _ : state) {
    benchmark::DoNotOptimize(tree.tables->inodes().Path(tree.ids[random() % tree.ids.size()]));
  }
}
BENCHMARK(BM_Path)->Arg(1'000)->Arg(900'000);

void BM_OpenAndClose(benchmark::State& state) {
  Tree tree(1'000);
  HandleTable& handles = tree.tables->handles();
  for (auto _ : state) handles.Close(*handles.Open({.node = tree.ids[5]}));
}
BENCHMARK(BM_OpenAndClose);

void BM_Recover(benchmark::State& state) {
  Tree tree(state.range(0));
  for (auto _ : state) {
    tree.tables.reset();
    tree.tables = *MountTables::Map(tree.memory.get());
    if (!tree.tables->Recover().ok()) state.SkipWithError("recovery");
  }
}
BENCHMARK(BM_Recover)->Arg(1'000)->Arg(50'000)->Arg(900'000)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace dfscsi::state
