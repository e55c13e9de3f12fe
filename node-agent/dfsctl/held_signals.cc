#include "node-agent/dfsctl/held_signals.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>

#include <utility>

namespace dfscsi::dfsctl {
namespace {

// Without those that whoever started this program has it ignore (nohup; a shell, of SIGINT behind
// &): blocked, they would come nevertheless.
sigset_t Held() {
  sigset_t held;
  sigemptyset(&held);
  for (const int number : {SIGINT, SIGTERM, SIGHUP}) {
    struct sigaction action = {};
    sigaction(number, nullptr, &action);
    if (action.sa_handler != SIG_IGN) sigaddset(&held, number);
  }
  return held;
}

}  // namespace

HeldSignals::HeldSignals() {
  const sigset_t held = Held();
  pthread_sigmask(SIG_BLOCK, &held, &before_);
}

HeldSignals::~HeldSignals() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

bool HeldSignals::Came() {
  const sigset_t held = Held();
  sigset_t pending;
  sigpending(&pending);
  sigandset(&pending, &pending, &held);
  return sigisemptyset(&pending) == 0;
}

void HeldSignals::Drop() {
  const sigset_t held = Held();
  const timespec now = {};
  while (sigtimedwait(&held, nullptr, &now) > 0) {
  }
}

SignalWatch::SignalWatch(std::function<void()> on_signal)
    : over_(eventfd(0, EFD_CLOEXEC)), thread_([this, on_signal = std::move(on_signal)] {
        const sigset_t held = Held();
        // It is readable while one is pending, and takes none away: nobody reads it.
        const UniqueFd came(signalfd(-1, &held, SFD_CLOEXEC));
        pollfd either[] = {{came.get(), POLLIN, 0}, {over_.get(), POLLIN, 0}};
        while (poll(either, 2, -1) < 0 && errno == EINTR) {
        }
        if ((either[0].revents & POLLIN) != 0) on_signal();
      }) {}

SignalWatch::~SignalWatch() {
  eventfd_write(over_.get(), 1);
  thread_.join();
}

}  // namespace dfscsi::dfsctl
