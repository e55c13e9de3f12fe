// The memory of a reply of 1 MiB: from the pool, beyond the pool, and beside them the limit, one
// buffer that is never given back.

#include <benchmark/benchmark.h>
#include <string.h>

#include "node-agent/fuse/buffer_pool.h"

namespace dfscsi::fuse {
namespace {

constexpr size_t kMiB = 1 << 20;

void BM_TakeAndReturn(benchmark::State& state) {
  BufferPool pool(64 * kMiB);
  const BufferPool::Buffer kept = pool.Take(kMiB);
  for (auto _ : state) benchmark::DoNotOptimize(pool.Take(static_cast<size_t>(state.range(0))));
}
BENCHMARK(BM_TakeAndReturn)->Arg(4096)->Arg(128 << 10)->Arg(kMiB);

// A READ of 1 MiB whose data is stored once.
void Fill(benchmark::State& state, size_t pool_bytes) {
  BufferPool pool(pool_bytes);
  for (auto _ : state) {
    const BufferPool::Buffer buffer = pool.Take(kMiB);
    memset(buffer.bytes().data(), 1, buffer.bytes().size());
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * kMiB));
}
BENCHMARK_CAPTURE(Fill, FromThePool, 64 * kMiB);
BENCHMARK_CAPTURE(Fill, BeyondThePool, 0);

void BM_FillTheSameBuffer(benchmark::State& state) {
  BufferPool pool(64 * kMiB);
  const BufferPool::Buffer buffer = pool.Take(kMiB);
  for (auto _ : state) {
    memset(buffer.bytes().data(), 1, buffer.bytes().size());
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * kMiB));
}
BENCHMARK(BM_FillTheSameBuffer);

}  // namespace
}  // namespace dfscsi::fuse
