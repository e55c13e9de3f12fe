// A loop runs coroutines, timers and I/O on one thread. There are two kinds behind this interface:
// the real one (real_loop.h) and the simulated one (sim_world.h: virtual time, simulated network,
// one seed = one schedule). Everything above runtime/ runs on either.
//
// Time is the loop's own: monotonic, with an arbitrary epoch, and standing still while the process
// itself was stopped (a VM pause, CPU throttling): if the loop woke more than kStallThreshold late,
// all its deadlines move by that much, because our own pause is not the server's death.
//
// Not thread-safe, but for what says so. One thread runs one loop at a time.

#ifndef NODE_AGENT_RUNTIME_LOOP_H_
#define NODE_AGENT_RUNTIME_LOOP_H_

#include <coroutine>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "node-agent/runtime/list.h"
#include "node-agent/runtime/task.h"
#include "node-agent/runtime/wait.h"

namespace dfscsi::runtime {

class Network;

struct RootLink : ListNode {};

// The outermost coroutine: owned by the loop or by a TaskGroup, destroys itself at its end.
class Root {
 public:
  class promise_type : public Runnable, public RootLink {
   public:
    Root get_return_object() {
      return Root(std::coroutine_handle<promise_type>::from_promise(*this));
    }
    std::suspend_always initial_suspend() const noexcept { return {}; }
    std::suspend_never final_suspend() const noexcept { return {}; }
    void return_void() const {}
    // Counted by the loop; the coroutine ends. Whatever it owned answers in its destructor.
    void unhandled_exception();
  };
  using Handle = std::coroutine_handle<promise_type>;
  Handle handle() const { return handle_; }

 private:
  explicit Root(Handle handle) : handle_(handle) {}
  Handle handle_;
};

class Loop {
 public:
  static constexpr absl::Duration kStallThreshold = absl::Milliseconds(250);

  Loop(const Loop&) = delete;
  virtual ~Loop();

  // The loop that this thread is running, or the last one made on it.
  static Loop& Current();

  // Stands still during one turn of the loop.
  absl::Time Now() const { return now_; }

  virtual Network& network() = 0;
  // For jitter, salts and ids. Seeded in a simulation, from the kernel otherwise; never keys.
  virtual uint64_t Random() = 0;

  // Runs `task` from the loop's next turn on, until it ends or the loop dies.
  void Spawn(Task<void> task);

  // Runs `work` where it may block (real: a pool of threads; simulated: a moment later).
  // `done` runs on the loop, unless the loop has died. Use Blocking() of blocking.h.
  virtual void RunBlocking(std::function<void()> work, std::function<void()> done) = 0;

  // How often, and for how long in all, this process was found to have stood still.
  int64_t local_stalls() const { return local_stalls_; }
  absl::Duration local_stall_time() const { return stalled_; }
  // Exceptions that escaped a root coroutine, or posted work: bugs, or memory exhausted.
  int64_t escaped_exceptions() const { return escaped_exceptions_; }

 protected:
  Loop();

  // Runs everything that is ready, including what becomes ready meanwhile (bounded). Returns
  // whether anything is left.
  bool RunReady();
  // Wakes the waits whose time has come.
  void FireTimers();
  bool has_ready() const { return !ready_.empty(); }
  // When the next timer ends; InfiniteFuture if there is none.
  absl::Time NextTimer() const;
  // Takes the outside clock's time; a step that is `late` by more than the threshold is hidden.
  void SetTime(absl::Time outside, absl::Duration late);
  // Runs `work`; counts an exception that escapes it.
  static void RunGuarded(const std::function<void()>& work);
  // Destroys all coroutines that the loop owns. Derived destructors call it first.
  void DestroyRoots();
  // Makes this the thread's current loop.
  void MakeCurrent();

 private:
  friend class Root::promise_type;
  friend class TaskGroup;
  friend class Wait;

  void MakeReady(Runnable& runnable) { ready_.PushBack(runnable); }
  void AddTimer(Wait& wait);
  void RemoveTimer(Wait& wait);
  void SiftUp(size_t i);
  void SiftDown(size_t i);
  void Place(size_t i, Wait* wait);
  static bool Earlier(const Wait& a, const Wait& b);

  List<Runnable, QueueLink> ready_;
  std::vector<Wait*> timers_;  // A binary heap.
  List<Root::promise_type, RootLink> roots_;
  absl::Time now_ = absl::UnixEpoch();
  absl::Duration stalled_ = absl::ZeroDuration();
  uint64_t next_sequence_ = 0;
  int64_t local_stalls_ = 0;
  int64_t escaped_exceptions_ = 0;
};

// Coroutines that die with their owner: the destructor cancels nothing, it destroys what is still
// suspended, so tasks may use their owner freely. One loop.
class TaskGroup {
 public:
  TaskGroup() = default;
  TaskGroup(const TaskGroup&) = delete;
  // REQUIRES: not called from inside one of its own tasks.
  ~TaskGroup();

  // Runs `task` from the loop's next turn on.
  void Spawn(Task<void> task);
  int running() const { return running_; }
  // Returns OK once no task is running.
  Task<absl::Status> WaitUntilEmpty(Deadline deadline);

 private:
  Root Run(Task<void> task);

  List<Root::promise_type, RootLink> roots_;
  int running_ = 0;
  Condition ended_;
};

}  // namespace dfscsi::runtime

#endif  // NODE_AGENT_RUNTIME_LOOP_H_
