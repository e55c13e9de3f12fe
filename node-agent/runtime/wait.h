// The innermost suspension of every coroutine, and the primitives made of it: Event, Mutex, Sleep.

#ifndef NODE_AGENT_RUNTIME_WAIT_H_
#define NODE_AGENT_RUNTIME_WAIT_H_

#include <coroutine>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "node-agent/runtime/deadline.h"
#include "node-agent/runtime/list.h"
#include "node-agent/runtime/task.h"

namespace dfscsi::runtime {

class Loop;

struct QueueLink : ListNode {};

// Something a loop can run: it stands in the loop's ready list, or in a primitive's queue, or
// nowhere.
class Runnable : public QueueLink {
 public:
  std::coroutine_handle<> handle;
};

// One suspension: `absl::Status s = co_await wait;`. It ends by Wake(), at its deadline, or when
// its deadline's CancelSource is cancelled, whichever is first; the others then have no effect.
// Lives in the frame of the coroutine that awaits it; destroying it forgets it everywhere.
class Wait : public Runnable, public internal::CancelLink {
 public:
  explicit Wait(Deadline deadline) : deadline_(std::move(deadline)) {}
  // Joins `queue` when the coroutine suspends, and leaves it when the wait ends.
  Wait(Deadline deadline, List<Runnable, QueueLink>& queue)
      : deadline_(std::move(deadline)), queue_(&queue) {}
  Wait(const Wait&) = delete;
  ~Wait();

  // Ends the wait: the coroutine runs on its loop's next turn, and co_await returns `status`.
  // REQUIRES: called on the loop's thread.
  void Wake(absl::Status status);

  bool await_ready();
  void await_suspend(std::coroutine_handle<> h);
  absl::Status await_resume() { return std::move(status_); }

 private:
  friend class Loop;
  static constexpr size_t kNoTimer = SIZE_MAX;

  Deadline deadline_;
  List<Runnable, QueueLink>* queue_ = nullptr;
  Loop* loop_ = nullptr;     // Set while suspended.
  size_t timer_ = kNoTimer;  // Index in the loop's timer heap.
  uint64_t sequence_ = 0;    // Orders timers of the same time.
  bool waiting_ = false;
  absl::Status status_;
};

// Set once, seen by all, until Reset. Not thread-safe (one loop).
class Event {
 public:
  bool is_set() const { return set_; }
  void Set();
  void Reset() { set_ = false; }

  class Awaiter {
   public:
    Awaiter(Event& event, Deadline deadline)
        : event_(event), wait_(std::move(deadline), event.waits_) {}
    bool await_ready() { return event_.set_ || wait_.await_ready(); }
    void await_suspend(std::coroutine_handle<> h) { wait_.await_suspend(h); }
    absl::Status await_resume() { return wait_.await_resume(); }

   private:
    Event& event_;
    Wait wait_;
  };
  // Returns OK once the event is set (at once if it is), else kDeadlineExceeded or kCancelled.
  Awaiter WaitUntilSet(Deadline deadline) { return Awaiter(*this, std::move(deadline)); }

 private:
  List<Runnable, QueueLink> waits_;
  bool set_ = false;
};

// Wakes waiters without state: "look again". One loop.
class Condition {
 public:
  void NotifyAll();
  void NotifyOne();
  Wait WaitForNotify(Deadline deadline) { return Wait(std::move(deadline), waits_); }

 private:
  List<Runnable, QueueLink> waits_;
};

// Mutual exclusion among coroutines of one loop, first come, first served. It may be held over a
// co_await, which is what it is for (a std::mutex must not be). It outlives its guards and waiters.
class Mutex {
 public:
  class [[nodiscard]] Guard {
   public:
    Guard(Guard&& other) noexcept : mutex_(std::exchange(other.mutex_, nullptr)) {}
    Guard& operator=(Guard&&) = delete;
    ~Guard() {
      if (mutex_ != nullptr) mutex_->Unlock();
    }

   private:
    friend class Mutex;
    explicit Guard(Mutex* mutex) : mutex_(mutex) {}
    Mutex* mutex_;
  };

  // Returns a Guard that unlocks when it dies, or kDeadlineExceeded, or kCancelled.
  Task<absl::StatusOr<Guard>> Lock(Deadline deadline);
  bool locked() const { return locked_; }

 private:
  class Waiter;

  // Hands the mutex to the first waiter, if there is one.
  void Unlock();

  List<Runnable, QueueLink> waits_;
  bool locked_ = false;
};

// `co_await Sleep(duration, deadline)` returns OK when `duration` is over; kDeadlineExceeded or
// kCancelled if `deadline` ends before.
class Sleep {
 public:
  Sleep(absl::Duration duration, const Deadline& deadline);
  bool await_ready() { return wait_.await_ready(); }
  void await_suspend(std::coroutine_handle<> h) { wait_.await_suspend(h); }
  absl::Status await_resume();

 private:
  bool cut_short_;  // The deadline comes before the end of the sleep.
  Wait wait_;
};

}  // namespace dfscsi::runtime

#endif  // NODE_AGENT_RUNTIME_WAIT_H_
