#include "node-agent/runtime/loop.h"

#include <algorithm>
#include <utility>

namespace dfscsi::runtime {
namespace {

thread_local Loop* current_loop = nullptr;

}  // namespace

// --- Deadlines
// -------------------------------------------------------------------------------------

Deadline Deadline::After(absl::Duration duration) {
  return Deadline(Loop::Current().Now() + duration, {});
}

Deadline Deadline::Within(absl::Duration duration) const {
  return Before(Loop::Current().Now() + duration);
}

CancelSource::CancelSource(const Deadline& parent)
    : when_(parent.when_), state_(new internal::CancelState) {
  if (parent.cancel_.get() != nullptr) parent.cancel_.get()->AddChild(*state_.get());
}

void internal::CancelState::Cancel() {
  if (cancelled_) return;
  cancelled_ = true;
  const CancelRef self(
      this);  // A woken coroutine never runs here, but a child may be the last ref.
  while (Wait* const wait = waits_.Front()) wait->Wake(absl::CancelledError("cancelled"));
  while (CancelState* const child = children_.PopFront()) {
    const CancelRef keep(child);
    child->Cancel();
  }
}

void internal::CancelState::AddWait(Wait& wait) { waits_.PushBack(wait); }

void internal::CancelState::AddChild(CancelState& child) {
  if (cancelled_) {
    child.Cancel();
  } else {
    children_.PushBack(child);
  }
}

// --- Waits
// -----------------------------------------------------------------------------------------

Wait::~Wait() {
  if (timer_ != kNoTimer) loop_->RemoveTimer(*this);
}

bool Wait::await_ready() {
  if (deadline_.cancelled()) {
    status_ = absl::CancelledError("cancelled");
    return true;
  }
  if (deadline_.when() <= Loop::Current().Now()) {
    status_ = absl::DeadlineExceededError("deadline exceeded");
    return true;
  }
  return false;
}

void Wait::await_suspend(std::coroutine_handle<> h) {
  handle = h;
  loop_ = &Loop::Current();
  waiting_ = true;
  if (queue_ != nullptr) queue_->PushBack(*this);
  if (deadline_.cancel_.get() != nullptr) deadline_.cancel_.get()->AddWait(*this);
  if (deadline_.when() != absl::InfiniteFuture()) loop_->AddTimer(*this);
}

void Wait::Wake(absl::Status status) {
  if (!waiting_) return;
  waiting_ = false;
  status_ = std::move(status);
  static_cast<internal::CancelLink&>(*this).Unlink();
  if (timer_ != kNoTimer) loop_->RemoveTimer(*this);
  loop_->MakeReady(*this);  // Leaves its queue.
}

void Event::Set() {
  set_ = true;
  while (Runnable* const waiting = waits_.Front()) {
    static_cast<Wait*>(waiting)->Wake(absl::OkStatus());
  }
}

void Condition::NotifyAll() {
  while (Runnable* const waiting = waits_.Front()) {
    static_cast<Wait*>(waiting)->Wake(absl::OkStatus());
  }
}

void Condition::NotifyOne() {
  if (Runnable* const waiting = waits_.Front()) {
    static_cast<Wait*>(waiting)->Wake(absl::OkStatus());
  }
}

// One that was handed the mutex owns it, even if it never runs again.
class Mutex::Waiter : public Wait {
 public:
  Waiter(Mutex& mutex, Deadline deadline)
      : Wait(std::move(deadline), mutex.waits_), mutex_(mutex) {}
  ~Waiter() {
    if (handed_) mutex_.Unlock();
  }
  void Hand() {
    handed_ = true;
    Wake(absl::OkStatus());
  }
  Guard Take() {
    handed_ = false;
    return Guard(&mutex_);
  }

 private:
  Mutex& mutex_;
  bool handed_ = false;
};

Task<absl::StatusOr<Mutex::Guard>> Mutex::Lock(Deadline deadline) {
  if (!locked_) {
    locked_ = true;
    co_return Guard(this);
  }
  Waiter waiter(*this, std::move(deadline));
  absl::Status status = co_await waiter;
  if (!status.ok()) co_return status;
  co_return waiter.Take();
}

void Mutex::Unlock() {
  // Nobody can take it between two holders, so nobody waits for ever behind one who comes often.
  if (Runnable* const next = waits_.Front()) {
    static_cast<Waiter*>(next)->Hand();
  } else {
    locked_ = false;
  }
}

Sleep::Sleep(absl::Duration duration, const Deadline& deadline)
    : cut_short_(deadline.when() < Loop::Current().Now() + duration),
      wait_(deadline.Within(duration)) {}

absl::Status Sleep::await_resume() {
  absl::Status status = wait_.await_resume();
  if (absl::IsDeadlineExceeded(status) && !cut_short_) return absl::OkStatus();
  return status;
}

// --- Roots
// -----------------------------------------------------------------------------------------

void Root::promise_type::unhandled_exception() { ++Loop::Current().escaped_exceptions_; }

namespace {

Root RunToEnd(Task<void> task) { co_await task; }

void DestroyAll(List<Root::promise_type, RootLink>& roots) {
  while (Root::promise_type* const promise = roots.PopFront()) {
    Root::Handle::from_promise(*promise).destroy();
  }
}

}  // namespace

void Loop::Spawn(Task<void> task) {
  Root::promise_type& promise = RunToEnd(std::move(task)).handle().promise();
  promise.handle = Root::Handle::from_promise(promise);
  roots_.PushBack(promise);
  MakeReady(promise);
}

TaskGroup::~TaskGroup() { DestroyAll(roots_); }

Root TaskGroup::Run(Task<void> task) {
  struct Ended {
    TaskGroup* group;
    ~Ended() {
      --group->running_;
      group->ended_.NotifyAll();
    }
  } ended{this};
  Task<void> running =
      std::move(task);  // Dies before `ended` tells: it may use what the owner frees.
  co_await running;
}

void TaskGroup::Spawn(Task<void> task) {
  ++running_;
  Root::promise_type& promise = Run(std::move(task)).handle().promise();
  promise.handle = Root::Handle::from_promise(promise);
  roots_.PushBack(promise);
  Loop::Current().MakeReady(promise);
}

Task<absl::Status> TaskGroup::WaitUntilEmpty(Deadline deadline) {
  while (running_ > 0) {
    absl::Status status = co_await ended_.WaitForNotify(deadline);
    if (!status.ok()) co_return status;
  }
  co_return absl::OkStatus();
}

// --- The loop
// --------------------------------------------------------------------------------------

Loop::Loop() { MakeCurrent(); }

Loop::~Loop() {
  DestroyRoots();
  for (Wait* const wait : timers_) wait->timer_ = Wait::kNoTimer;  // Of coroutines owned elsewhere.
  if (current_loop == this) current_loop = nullptr;
}

Loop& Loop::Current() { return *current_loop; }

void Loop::MakeCurrent() { current_loop = this; }

void Loop::RunGuarded(const std::function<void()>& work) {
  try {
    work();
  } catch (...) {
    ++Current().escaped_exceptions_;
  }
}

void Loop::DestroyRoots() {
  MakeCurrent();
  DestroyAll(roots_);
}

bool Loop::RunReady() {
  // Bounded, so that a busy group of coroutines cannot keep I/O and timers from their turn.
  constexpr int kMostPerTurn = 256;
  for (int i = 0; i < kMostPerTurn; ++i) {
    Runnable* const next = ready_.PopFront();
    if (next == nullptr) return false;
    next->handle.resume();
  }
  return !ready_.empty();
}

void Loop::FireTimers() {
  while (!timers_.empty() && timers_.front()->deadline_.when() <= now_) {
    timers_.front()->Wake(absl::DeadlineExceededError("deadline exceeded"));
  }
}

absl::Time Loop::NextTimer() const {
  return timers_.empty() ? absl::InfiniteFuture() : timers_.front()->deadline_.when();
}

void Loop::SetTime(absl::Time outside, absl::Duration late) {
  if (late > kStallThreshold) {
    stalled_ += late;
    ++local_stalls_;
  }
  now_ = std::max(now_, outside - stalled_);
}

// A binary heap with positions kept in the waits, so that any wait can leave in O(log n).

bool Loop::Earlier(const Wait& a, const Wait& b) {
  if (a.deadline_.when() != b.deadline_.when()) return a.deadline_.when() < b.deadline_.when();
  return a.sequence_ < b.sequence_;  // Order of arrival: a simulation replays.
}

void Loop::Place(size_t i, Wait* wait) {
  timers_[i] = wait;
  wait->timer_ = i;
}

void Loop::SiftUp(size_t i) {
  Wait* const wait = timers_[i];
  while (i > 0) {
    const size_t parent = (i - 1) / 2;
    if (!Earlier(*wait, *timers_[parent])) break;
    Place(i, timers_[parent]);
    i = parent;
  }
  Place(i, wait);
}

void Loop::SiftDown(size_t i) {
  Wait* const wait = timers_[i];
  while (true) {
    size_t child = 2 * i + 1;
    if (child >= timers_.size()) break;
    if (child + 1 < timers_.size() && Earlier(*timers_[child + 1], *timers_[child])) ++child;
    if (!Earlier(*timers_[child], *wait)) break;
    Place(i, timers_[child]);
    i = child;
  }
  Place(i, wait);
}

void Loop::AddTimer(Wait& wait) {
  wait.sequence_ = next_sequence_++;
  timers_.push_back(&wait);
  SiftUp(timers_.size() - 1);
}

void Loop::RemoveTimer(Wait& wait) {
  const size_t i = wait.timer_;
  Wait* const last = timers_.back();
  timers_.pop_back();
  wait.timer_ = Wait::kNoTimer;
  if (last == &wait) return;
  Place(i, last);
  SiftUp(i);
  SiftDown(last->timer_);
}

}  // namespace dfscsi::runtime
