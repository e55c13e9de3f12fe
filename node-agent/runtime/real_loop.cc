#include "node-agent/runtime/real_loop.h"

#include <sys/random.h>
#include <time.h>

#include <algorithm>
#include <asio/executor_work_guard.hpp>
#include <asio/io_context.hpp>
#include <asio/posix/stream_descriptor.hpp>
#include <asio/post.hpp>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>

#include "node-agent/runtime/real_network.h"

namespace dfscsi::runtime {
namespace {

absl::Time MonotonicNow() {
  timespec ts;
  clock_gettime(CLOCK_MONOTONIC, &ts);
  return absl::TimeFromTimespec(ts);
}

// Threads for blocking work. They hold the pool, not the loop: work that never ends never delays
// the end of the loop.
class BlockingPool : public std::enable_shared_from_this<BlockingPool> {
 public:
  void Run(std::function<void()> work) {
    std::unique_lock lock(mutex_);
    queue_.push_back(std::move(work));
    // A thread that was woken still counts as idle: compare with all the work that waits.
    if (queue_.size() > idle_ && threads_ < kMostThreads) {
      try {
        std::thread([self = shared_from_this()] { self->Work(); }).detach();
        ++threads_;
      } catch (const std::system_error&) {  // NOLINT(bugprone-empty-catch)
        // No more threads to be had: the work waits for one, or for its caller's deadline.
      }
    }
    wake_.notify_one();
  }

  void Stop() {
    std::deque<std::function<void()>> dropped;  // Dies without the lock.
    std::unique_lock lock(mutex_);
    stopped_ = true;
    dropped.swap(queue_);
    wake_.notify_all();
    lock.unlock();
  }

 private:
  static constexpr size_t kMostThreads = 8;

  void Work() {
    std::unique_lock lock(mutex_);
    while (true) {
      ++idle_;
      wake_.wait(lock, [this] { return stopped_ || !queue_.empty(); });
      --idle_;
      if (queue_.empty()) break;
      std::function<void()> work = std::move(queue_.front());
      queue_.pop_front();
      lock.unlock();
      work();
      work = nullptr;
      lock.lock();
    }
    --threads_;
  }

  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::function<void()>> queue_;
  size_t threads_ = 0;
  size_t idle_ = 0;
  bool stopped_ = false;
};

}  // namespace

class RealLoop::Reactor {
 public:
  // Where other threads leave work; outlives the loop in their hands.
  struct Mailbox {
    std::mutex mutex;
    asio::io_context* io = nullptr;  // Null once the loop has died.
  };

  Reactor() : guard(io.get_executor()), last_turn(MonotonicNow()) { mailbox->io = &io; }
  ~Reactor() {
    pool->Stop();
    std::unique_lock lock(mailbox->mutex);
    mailbox->io = nullptr;
  }

  static bool Post(Mailbox& mailbox, std::function<void()> work) {
    std::unique_lock lock(mailbox.mutex);
    if (mailbox.io == nullptr) return false;
    asio::post(*mailbox.io, [work = std::move(work)] { RunGuarded(work); });
    return true;
  }

  std::shared_ptr<Mailbox> mailbox = std::make_shared<Mailbox>();
  std::shared_ptr<BlockingPool> pool = std::make_shared<BlockingPool>();
  asio::io_context io{1};
  asio::executor_work_guard<asio::io_context::executor_type> guard;
  absl::Time last_turn;
};

namespace {

class AsioFdWatch final : public FdWatch {
 public:
  AsioFdWatch(asio::io_context& io, int fd) : state_(std::make_shared<State>(io, fd)) {}
  ~AsioFdWatch() override {
    // Gives the descriptor back unclosed; the handlers run with an error, and end any wait.
    if (state_->descriptor.is_open()) (void)state_->descriptor.release();
  }

  Task<absl::Status> WaitReadable(Deadline deadline) override {
    return WaitFor(state_, &State::read, asio::posix::stream_descriptor::wait_read,
                   std::move(deadline));
  }
  Task<absl::Status> WaitWritable(Deadline deadline) override {
    return WaitFor(state_, &State::write, asio::posix::stream_descriptor::wait_write,
                   std::move(deadline));
  }

 private:
  struct Direction {
    Condition changed;
    bool armed = false;  // The reactor will call us.
    bool ready = false;  // It called, and nobody has used the chance yet.
  };
  struct State {
    State(asio::io_context& io, int fd) : descriptor(io) {
      asio::error_code refused;  // Then it is not open, and the waits say so.
      (void)descriptor.assign(fd, refused);
    }
    asio::posix::stream_descriptor descriptor;
    Direction read;
    Direction write;
  };

  // A wait that is destroyed leaves the reactor's call pending; the next one uses it.
  static Task<absl::Status> WaitFor(std::shared_ptr<State> state, Direction State::* which,
                                    asio::posix::stream_descriptor::wait_type type,
                                    Deadline deadline) {
    Direction& direction = (*state).*which;
    if (!direction.ready) {
      if (!state->descriptor.is_open()) co_return absl::UnavailableError("closed");
      if (!direction.armed) {
        direction.armed = true;
        state->descriptor.async_wait(type, [state, which](const asio::error_code&) {
          Direction& done = (*state).*which;
          done.armed = false;
          done.ready = true;
          done.changed.NotifyAll();
        });
      }
      absl::Status status = co_await direction.changed.WaitForNotify(deadline);
      if (!status.ok()) co_return status;
      if (!state->descriptor.is_open()) co_return absl::UnavailableError("closed");
    }
    direction.ready = false;
    co_return absl::OkStatus();
  }

  std::shared_ptr<State> state_;
};

}  // namespace

RealLoop::RealLoop() : reactor_(std::make_unique<Reactor>()) {
  SetTime(MonotonicNow(), absl::ZeroDuration());
  network_ = MakeRealNetwork(*this);
}

RealLoop::~RealLoop() {
  DestroyRoots();
  network_.reset();
}

void RealLoop::Run() {
  MakeCurrent();
  stopped_ = false;
  reactor_->last_turn = MonotonicNow();
  while (!stopped_) Turn();
}

void RealLoop::RunUntilDone(Task<void> task) {
  MakeCurrent();
  struct Runner {
    static Task<void> Run(Task<void> task, RealLoop* loop) {
      struct StopAtEnd {
        RealLoop* loop;
        ~StopAtEnd() { loop->Stop(); }
      } stop{loop};
      co_await task;
    }
  };
  Spawn(Runner::Run(std::move(task), this));
  Run();
}

void RealLoop::Turn() {
  constexpr absl::Duration kLongestWait = absl::Minutes(10);
  const bool more = RunReady();
  if (stopped_) return;
  const absl::Time before = MonotonicNow();
  const absl::Duration busy = before - reactor_->last_turn;
  // Timers are in loop time, which advances with the outside clock between here and SetTime.
  absl::Duration wait =
      std::clamp(NextTimer() - (Now() + busy), absl::ZeroDuration(), kLongestWait);
  if (more) wait = absl::ZeroDuration();
  if (wait > absl::ZeroDuration()) {
    reactor_->io.run_one_for(absl::ToChronoMicroseconds(wait + absl::Microseconds(1)));
  }
  reactor_->io.poll();
  const absl::Time after = MonotonicNow();
  absl::Duration late = std::max(after - before - wait, absl::ZeroDuration());
  if (busy > kStallThreshold) late += busy;
  reactor_->last_turn = after;
  SetTime(after, late);
  FireTimers();
}

void RealLoop::Post(std::function<void()> work) {
  Reactor::Post(*reactor_->mailbox, std::move(work));
}

RealLoop::Poster RealLoop::MakePoster() {
  return [mailbox = reactor_->mailbox](std::function<void()> work) {
    return Reactor::Post(*mailbox, std::move(work));
  };
}

Network& RealLoop::network() { return *network_; }

uint64_t RealLoop::Random() {
  uint64_t value;
  while (getrandom(&value, sizeof value, 0) != sizeof value) {
  }
  return value;
}

void RealLoop::RunBlocking(std::function<void()> work, std::function<void()> done) {
  reactor_->pool->Run(
      [mailbox = reactor_->mailbox, work = std::move(work), done = std::move(done)]() mutable {
        work();
        // What `work` and `done` hold dies on the loop's thread, or after it.
        Reactor::Post(*mailbox, [work = std::move(work), done = std::move(done)] { done(); });
      });
}

std::unique_ptr<FdWatch> RealLoop::Watch(int fd) {
  return std::make_unique<AsioFdWatch>(reactor_->io, fd);
}

}  // namespace dfscsi::runtime
