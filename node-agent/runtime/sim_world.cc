#include "node-agent/runtime/sim_world.h"

#include <stdio.h>

#include <algorithm>
#include <cassert>
#include <utility>

#include "absl/strings/str_cat.h"
#include "node-agent/runtime/sim_network.h"

namespace dfscsi::runtime {
namespace {

// A turn takes a moment, and so does waking up: without it a loop that is always ready would stop
// the world's time.
constexpr absl::Duration kTurnTime = absl::Microseconds(1);
constexpr absl::Duration kWakeTime = absl::Microseconds(20);

uint64_t Mix(uint64_t x) {  // The finalizer of splitmix64.
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

}  // namespace

uint64_t SimRandom::Next() {
  state_ += 0x9e3779b97f4a7c15;
  return Mix(state_);
}

uint64_t SimRandom::Below(uint64_t n) {
  return static_cast<uint64_t>((static_cast<unsigned __int128>(Next()) * n) >> 64);
}

bool SimRandom::Chance(double probability) {
  return static_cast<double>(Next() >> 11) * 0x1p-53 < probability;
}

absl::Duration SimRandom::Between(absl::Duration low, absl::Duration high) {
  const int64_t span = absl::ToInt64Nanoseconds(high - low);
  if (span <= 0) return low;
  return low + absl::Nanoseconds(static_cast<int64_t>(Below(static_cast<uint64_t>(span) + 1)));
}

// --- The world

SimWorld::SimWorld(uint64_t seed)
    : seed_(seed),
      now_(absl::UnixEpoch() + absl::Hours(24)),
      test_random_(Mix(seed + 1)),
      schedule_random_(Mix(seed + 2)),
      network_(new SimNetwork(*this, Mix(seed + 3))) {}

SimWorld::~SimWorld() {
  assert(loops_.empty());
  events_.clear();  // What they hold may look at the network once more.
}

void SimWorld::At(absl::Time when, std::function<void()> action) {
  events_.push_back({std::max(when, now_), next_sequence_++, std::move(action)});
  std::push_heap(events_.begin(), events_.end());
}

bool SimWorld::Step(absl::Time until) {
  absl::Time when = events_.empty() ? absl::InfiniteFuture() : events_.front().when;
  SimLoop* process = nullptr;  // Null: the event.
  uint64_t contenders = 1;
  for (SimLoop* const loop : loops_) {
    const absl::Time turn = loop->NextTurn();
    if (turn > when || turn == absl::InfiniteFuture()) continue;
    contenders = turn < when ? 1 : contenders + 1;
    when = turn;
    if (schedule_random_.Below(contenders) == 0) process = loop;
  }
  if (when > until || when == absl::InfiniteFuture()) return false;
  now_ = when;
  ++steps_;
  Trace(static_cast<uint64_t>(absl::ToUnixNanos(now_)));
  Trace(process == nullptr ? 0 : process->id_);
  if (process != nullptr) {
    process->Turn();
    return true;
  }
  std::pop_heap(events_.begin(), events_.end());
  const Event event = std::move(events_.back());
  events_.pop_back();
  event.action();
  return true;
}

bool SimWorld::RunUntil(const std::function<bool()>& done, absl::Duration limit) {
  const absl::Time until = now_ + limit;
  const uint64_t last_step = steps_ + step_limit_;
  while (!done()) {
    if (steps_ >= last_step) {
      fprintf(stderr, "simulation: livelock? seed %llu, %llu steps in one run\n",
              static_cast<unsigned long long>(seed_), static_cast<unsigned long long>(step_limit_));
      return false;
    }
    if (!Step(until)) {
      if (until != absl::InfiniteFuture()) now_ = until;
      return done();
    }
  }
  return true;
}

void SimWorld::RunFor(absl::Duration duration) {
  RunUntil([] { return false; }, duration);
}

namespace {

struct Ending {
  bool returned = false;
  bool gone = false;  // It returned, threw, or was destroyed with its loop.
};

Task<void> RunAndTell(Task<void> task, std::shared_ptr<Ending> ending) {
  struct Gone {
    Ending& ending;
    ~Gone() { ending.gone = true; }
  } gone{*ending};
  co_await task;
  ending->returned = true;
}

}  // namespace

bool SimWorld::RunTask(SimLoop& loop, Task<void> task, absl::Duration limit) {
  auto ending = std::make_shared<Ending>();
  loop.Spawn(RunAndTell(std::move(task), ending));
  // Destroyed before its first turn, it cannot tell; then nobody else holds `ending`.
  RunUntil([&] { return ending->gone || ending.use_count() == 1; }, limit);
  return ending->returned;
}

void SimWorld::Trace(uint64_t value) { trace_hash_ = Mix(trace_hash_ * 31 + value + 1); }

void SimWorld::Log(absl::string_view line) const {
  if (!verbose_) return;
  const std::string text = absl::StrCat(
      absl::FormatDuration(now_ - (absl::UnixEpoch() + absl::Hours(24))), " ", line, "\n");
  fputs(text.c_str(), stderr);
}

// --- A process

SimLoop::SimLoop(SimWorld& world, SimHost& host, std::string name)
    : world_(world),
      host_(host),
      name_(std::move(name)),
      id_(static_cast<uint64_t>(++world.loops_created_)),
      random_(Mix(world.seed_ * 1000 + id_)),
      network_(world.network_->Attach(*this, host)) {
  world_.loops_.push_back(this);
  SetTime(world_.now_, absl::ZeroDuration());
}

SimLoop::~SimLoop() {
  assert(!running_);
  world_.Log(absl::StrCat(name_, ": gone"));
  DestroyRoots();
  posted_.clear();
  alive_.reset();
  world_.network_->Detach(*this);
  network_.reset();
  std::erase(world_.loops_, this);
}

void SimLoop::RunBlocking(std::function<void()> work, std::function<void()> done) {
  const absl::Duration time = blocking_time_ ? blocking_time_()
                                             : world_.schedule_random_.Between(
                                                   absl::Microseconds(50), absl::Milliseconds(2));
  if (time == absl::InfiniteDuration()) return;
  world_.After(time, [this, alive = std::weak_ptr<const bool>(alive_), work = std::move(work),
                      done = std::move(done)]() mutable {
    if (alive.expired()) return;
    if (frozen_) {
      posted_.push_back([work = std::move(work), done = std::move(done)] {
        work();
        done();
      });
      return;
    }
    work();
    posted_.push_back(std::move(done));
  });
}

void SimLoop::RunNow(const std::function<void()>& work) {
  MakeCurrent();
  SetTime(world_.now_, absl::ZeroDuration());
  work();
  // The timer that the loop meant to wake for may be gone, which is no stall; one that it has
  // missed already is.
  if (planned_ >= world_.now_) Plan();
}

void SimLoop::Plan() {
  planned_ =
      has_ready() || !posted_.empty() ? world_.now_ + kTurnTime : NextTimer() + local_stall_time();
}

void SimLoop::Stall(absl::Duration duration) {
  world_.Log(absl::StrCat(name_, ": stalled for ", absl::FormatDuration(duration)));
  Freeze();
  world_.After(duration, [this, alive = std::weak_ptr<const bool>(alive_)] {
    if (!alive.expired()) Unfreeze();
  });
}

absl::Time SimLoop::NextTurn() {
  if (frozen_) return absl::InfiniteFuture();
  if (has_ready() || !posted_.empty()) {
    if (!turn_at_.has_value()) {
      turn_at_ = std::max(world_.now_, last_turn_ + kTurnTime) +
                 world_.schedule_random_.Between(absl::ZeroDuration(), kWakeTime);
    }
    return std::max(*turn_at_, world_.now_);
  }
  turn_at_.reset();
  const absl::Time timer = NextTimer();
  if (timer == absl::InfiniteFuture()) return timer;
  return std::max(timer + local_stall_time(), world_.now_);
}

void SimLoop::Turn() {
  MakeCurrent();
  running_ = true;
  turn_at_.reset();
  last_turn_ = world_.now_;
  SetTime(world_.now_, std::max(world_.now_ - planned_, absl::ZeroDuration()));
  std::vector<std::function<void()>> posted;
  posted.swap(posted_);
  for (const std::function<void()>& work : posted) RunGuarded(work);
  FireTimers();
  RunReady();
  running_ = false;
  Plan();
}

}  // namespace dfscsi::runtime
