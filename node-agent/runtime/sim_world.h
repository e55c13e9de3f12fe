// A simulated machine room: virtual time, processes (each a SimLoop), a network (sim_network.h).
//
// One thread runs everything; the world always runs what comes earliest, and where two things come
// at the same instant the seed decides. The same seed and the same calls give the same schedule,
// byte for byte; trace_hash() shows it. (Code under test keeps that promise only if nothing it does
// depends on addresses or on the order of a hash table.)
//
//   SimWorld world(seed);
//   SimHost& host = world.network().AddHost("t1", {*IpAddress::Parse("10.0.0.1")});
//   auto server = std::make_unique<SimLoop>(world, host, "smbd");
//   server->Spawn(Serve());
//   world.After(absl::Seconds(3), [&] { server.reset(); });  // kill -9
//   ASSERT_TRUE(world.RunUntil([&] { return done; }, absl::Minutes(1)));

#ifndef NODE_AGENT_RUNTIME_SIM_WORLD_H_
#define NODE_AGENT_RUNTIME_SIM_WORLD_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "node-agent/runtime/loop.h"
#include "node-agent/runtime/network.h"

namespace dfscsi::runtime {

class SimHost;
class SimLoop;
class SimNetwork;

// A small, fast generator whose sequence is ours for ever (the standard's distributions differ
// between libraries, and a seed in a bug report must replay).
class SimRandom {
 public:
  explicit SimRandom(uint64_t seed) : state_(seed) {}
  uint64_t Next();
  // Uniform in [0, n). REQUIRES: n > 0.
  uint64_t Below(uint64_t n);
  bool Chance(double probability);
  // Uniform in [low, high].
  absl::Duration Between(absl::Duration low, absl::Duration high);

 private:
  uint64_t state_;
};

class SimWorld {
 public:
  explicit SimWorld(uint64_t seed);
  SimWorld(const SimWorld&) = delete;
  // REQUIRES: its loops are gone.
  ~SimWorld();

  uint64_t seed() const { return seed_; }
  absl::Time now() const { return now_; }
  // For the test's own choices (which fault, when). The schedule draws from another sequence, so
  // that a choice more or less does not change everything that follows.
  SimRandom& random() { return test_random_; }
  SimNetwork& network() { return *network_; }

  // Runs `action` at an instant at which no process runs: it may kill, freeze, cut, and look into
  // everything. A time that has passed means now.
  void At(absl::Time when, std::function<void()> action);
  void After(absl::Duration delay, std::function<void()> action) {
    At(now_ + delay, std::move(action));
  }

  // Runs until `done()` (asked after every step), at most `limit` of virtual time. Returns whether
  // it was done. It also ends, with false, when nothing is left to happen, or after step_limit()
  // steps: a livelock.
  bool RunUntil(const std::function<bool()>& done, absl::Duration limit);
  void RunFor(absl::Duration duration);
  // Spawns `task` on `loop` and runs until it has ended. False: it did not, within `limit`, or it
  // threw, or `loop` died.
  bool RunTask(SimLoop& loop, Task<void> task, absl::Duration limit);

  uint64_t steps() const { return steps_; }
  void set_step_limit(uint64_t steps_per_run) { step_limit_ = steps_per_run; }

  // Covers every step (who, when) and every byte that arrived anywhere.
  uint64_t trace_hash() const { return trace_hash_; }
  // Mixes something of the test's own into trace_hash().
  void Trace(uint64_t value);
  // What happens, one line per event, to stderr: for looking at one seed.
  void set_verbose(bool verbose) { verbose_ = verbose; }
  bool verbose() const { return verbose_; }
  void Log(absl::string_view line) const;

 private:
  friend class SimLoop;
  friend class SimNetwork;

  struct Event {
    absl::Time when;
    uint64_t sequence;
    std::function<void()> action;
    // For a heap with the earliest on top.
    friend bool operator<(const Event& a, const Event& b) {
      return a.when != b.when ? a.when > b.when : a.sequence > b.sequence;
    }
  };

  // Runs the earliest thing; false if that comes after `until`, or never.
  bool Step(absl::Time until);

  const uint64_t seed_;
  absl::Time now_;
  SimRandom test_random_;
  SimRandom schedule_random_;
  std::vector<Event> events_;
  uint64_t next_sequence_ = 0;
  std::vector<SimLoop*> loops_;  // In order of creation.
  int loops_created_ = 0;
  uint64_t steps_ = 0;
  uint64_t step_limit_ = 50'000'000;
  uint64_t trace_hash_ = 0;
  bool verbose_ = false;
  std::unique_ptr<SimNetwork> network_;
};

// One process. Destroying it is kill -9: its coroutines are gone at once, and the kernel closes its
// sockets (a FIN; a reset where unread bytes were waiting).
class SimLoop final : public Loop {
 public:
  SimLoop(SimWorld& world, SimHost& host, std::string name);
  // REQUIRES: called neither from this process nor from another one: from the test, or from
  // SimWorld::At.
  ~SimLoop() override;

  SimWorld& world() { return world_; }
  SimHost& host() { return host_; }
  const std::string& name() const { return name_; }

  Network& network() override { return *network_; }
  uint64_t Random() override { return random_.Next(); }
  void RunBlocking(std::function<void()> work, std::function<void()> done) override;

  // Runs `work` in the process on its next turn.
  void Post(std::function<void()> work) { posted_.push_back(std::move(work)); }
  // Runs `work` at once as this process: for tests that make or destroy objects of the process from
  // outside.
  void RunNow(const std::function<void()>& work);

  // SIGSTOP, a VM pause, no CPU: coroutines, timers and blocking work stand still, while the
  // kernel's TCP goes on and acknowledges. Waking late, the loop hides the pause (Loop's comment).
  void Freeze() { frozen_ = true; }
  void Unfreeze() { frozen_ = false; }
  bool frozen() const { return frozen_; }
  void Stall(absl::Duration duration);

  // How long blocking work takes; InfiniteDuration() means stuck for ever. Default: 50 us to 2 ms.
  void set_blocking_time(std::function<absl::Duration()> time) { blocking_time_ = std::move(time); }

 private:
  friend class SimWorld;

  // When this process has something to do: never, a time, or now.
  absl::Time NextTurn();
  void Turn();
  void Plan();

  SimWorld& world_;
  SimHost& host_;
  const std::string name_;
  const uint64_t id_;
  SimRandom random_;
  std::unique_ptr<Network> network_;
  std::vector<std::function<void()>> posted_;
  std::function<absl::Duration()> blocking_time_;
  std::shared_ptr<const bool> alive_ = std::make_shared<const bool>(true);
  bool frozen_ = false;
  bool running_ = false;
  std::optional<absl::Time> turn_at_;  // Of the turn that runs what is ready.
  absl::Time last_turn_ = absl::InfinitePast();
  absl::Time planned_ = absl::InfiniteFuture();  // When the loop meant to wake at the latest.
};

}  // namespace dfscsi::runtime

#endif  // NODE_AGENT_RUNTIME_SIM_WORLD_H_
