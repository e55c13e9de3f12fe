// What the primitives cost. `make bench` reports the medians.

#include <benchmark/benchmark.h>

#include <memory>

#include "node-agent/runtime/both_loops.h"
#include "node-agent/runtime/real_loop.h"
#include "node-agent/runtime/sim_network.h"
#include "node-agent/runtime/sim_world.h"

namespace dfscsi::runtime {
namespace {

Task<int> Return(int value) { co_return value; }

void BM_TaskCall(benchmark::State& state) {
  RealLoop loop;
  loop.RunUntilDone([](benchmark::State& s) -> Task<void> {
    for (auto _ : s) benchmark::DoNotOptimize(co_await Return(1));
  }(state));
}
BENCHMARK(BM_TaskCall);

// Two coroutines wake each other.
void BM_EventWake(benchmark::State& state) {
  RealLoop loop;
  loop.RunUntilDone([](benchmark::State& s) -> Task<void> {
    Condition ping, pong;
    TaskGroup group;
    group.Spawn([](Condition& a, Condition& b) -> Task<void> {
      while (true) {
        (void)co_await a.WaitForNotify(Deadline::Never());
        b.NotifyAll();
      }
    }(ping, pong));
    (void)co_await Sleep(absl::Milliseconds(1), Deadline::Never());
    for (auto _ : s) {
      ping.NotifyAll();
      (void)co_await pong.WaitForNotify(Deadline::Never());
    }
  }(state));
}
BENCHMARK(BM_EventWake);

// As before, with a deadline among 10,000 others: what a request on a busy mount pays.
void BM_EventWakeWithDeadline(benchmark::State& state) {
  RealLoop loop;
  loop.RunUntilDone([](benchmark::State& s) -> Task<void> {
    TaskGroup group;
    for (int i = 0; i < 10'000; ++i) {
      group.Spawn([](int n) -> Task<void> {
        (void)co_await Sleep(absl::Hours(1) + absl::Microseconds(n), Deadline::Never());
      }(i));
    }
    Condition ping, pong;
    group.Spawn([](Condition& a, Condition& b) -> Task<void> {
      while (true) {
        (void)co_await a.WaitForNotify(Deadline::After(absl::Seconds(30)));
        b.NotifyAll();
      }
    }(ping, pong));
    (void)co_await Sleep(absl::Milliseconds(1), Deadline::Never());
    CancelSource source;
    for (auto _ : s) {
      ping.NotifyAll();
      (void)co_await pong.WaitForNotify(source.deadline().Within(absl::Seconds(30)));
    }
  }(state));
}
BENCHMARK(BM_EventWakeWithDeadline);

void BM_SleepOver(benchmark::State& state) {
  RealLoop loop;
  loop.RunUntilDone([](benchmark::State& s) -> Task<void> {
    for (auto _ : s) (void)co_await Sleep(absl::ZeroDuration(), Deadline::Never());
  }(state));
}
BENCHMARK(BM_SleepOver);

void BM_Spawn(benchmark::State& state) {
  RealLoop loop;
  loop.RunUntilDone([](benchmark::State& s) -> Task<void> {
    TaskGroup group;
    while (s.KeepRunningBatch(100)) {
      for (int i = 0; i < 100; ++i) group.Spawn([]() -> Task<void> { co_return; }());
      (void)co_await group.WaitUntilEmpty(Deadline::Never());
    }
  }(state));
}
BENCHMARK(BM_Spawn);

void BM_MutexUncontended(benchmark::State& state) {
  RealLoop loop;
  loop.RunUntilDone([](benchmark::State& s) -> Task<void> {
    Mutex mutex;
    for (auto _ : s) benchmark::DoNotOptimize(co_await mutex.Lock(Deadline::Never()));
  }(state));
}
BENCHMARK(BM_MutexUncontended);

Task<void> Echo(Stream& stream) {
  char bytes[4096];
  while (true) {
    auto n = co_await stream.Read(bytes, sizeof bytes, Deadline::Never());
    if (!n.ok() || *n == 0) co_return;
    if (!(co_await stream.WriteAll(bytes, *n, Deadline::Never())).ok()) co_return;
  }
}

// 100 bytes there and back on one loop; on the simulated loop it tells what a test can afford.
void BM_RoundTrip(benchmark::State& state) {
  AnyLoop any(state.range(0) == 0 ? LoopKind::kReal : LoopKind::kSimulated);
  any.Run([](benchmark::State& s, AnyLoop& on) -> Task<void> {
    Network& network = on.loop().network();
    auto listener = *network.Listen({on.address(), 0});
    auto near = *co_await network.Connect(listener->local(), Deadline::Never());
    auto far = *co_await listener->Accept(Deadline::Never());
    TaskGroup group;
    group.Spawn(Echo(*far));
    char bytes[100] = {};
    for (auto _ : s) {
      (void)co_await near->WriteAll(bytes, sizeof bytes, Deadline::Never());
      (void)co_await near->ReadFull(bytes, sizeof bytes, Deadline::Never());
    }
  }(state, any));
}
BENCHMARK(BM_RoundTrip)->Arg(0)->Arg(1)->ArgName("simulated")->Iterations(20000);

}  // namespace
}  // namespace dfscsi::runtime
