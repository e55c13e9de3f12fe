#include "node-agent/dfsctl/held_signals.h"

#include <pthread.h>

#include <utility>

#include "absl/time/clock.h"

namespace dfscsi::dfsctl {
namespace {

constexpr absl::Duration kPoll = absl::Milliseconds(5);

sigset_t Held() {
  sigset_t held;
  sigemptyset(&held);
  for (const int number : {SIGINT, SIGTERM, SIGHUP}) sigaddset(&held, number);
  return held;
}

}  // namespace

HeldSignals::HeldSignals() {
  const sigset_t held = Held();
  pthread_sigmask(SIG_BLOCK, &held, &before_);
}

HeldSignals::~HeldSignals() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

bool HeldSignals::Came() {
  sigset_t pending;
  sigpending(&pending);
  return sigismember(&pending, SIGINT) == 1 || sigismember(&pending, SIGTERM) == 1 ||
         sigismember(&pending, SIGHUP) == 1;
}

void HeldSignals::Drop() {
  const sigset_t held = Held();
  const timespec now = {};
  while (sigtimedwait(&held, nullptr, &now) > 0) {
  }
}

SignalWatch::SignalWatch(std::function<void()> on_signal)
    : thread_([this, on_signal = std::move(on_signal)] {
        while (!over_.load()) {
          if (HeldSignals::Came()) return on_signal();
          absl::SleepFor(kPoll);
        }
      }) {}

SignalWatch::~SignalWatch() {
  over_.store(true);
  thread_.join();
}

}  // namespace dfscsi::dfsctl
