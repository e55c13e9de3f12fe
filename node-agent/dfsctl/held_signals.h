// SIGINT, SIGTERM and SIGHUP, held back while something is done that must be whole or undone. Those
// that this program was started to ignore (nohup) stay ignored.

#ifndef NODE_AGENT_DFSCTL_HELD_SIGNALS_H_
#define NODE_AGENT_DFSCTL_HELD_SIGNALS_H_

#include <signal.h>

#include <functional>
#include <thread>

#include "node-agent/base/unique_fd.h"

namespace dfscsi::dfsctl {

// While it lives none of them ends this program, and none reaches a thread that is started. One
// that came does its work when this is destroyed, if it was not dropped. Made by the main thread
// while it is the only one that does not block them.
class HeldSignals {
 public:
  HeldSignals();
  HeldSignals(const HeldSignals&) = delete;
  ~HeldSignals();

  // Whether one of them has come.
  static bool Came();
  // Those that came do nothing any more: what they would have stopped is done.
  void Drop();

 private:
  sigset_t before_;
};

// Calls `on_signal`, once and from a thread of its own, when one of the held signals comes.
class SignalWatch {
 public:
  explicit SignalWatch(std::function<void()> on_signal);
  SignalWatch(const SignalWatch&) = delete;
  ~SignalWatch();

 private:
  UniqueFd over_;  // An eventfd: the thread is to end.
  std::thread thread_;
};

}  // namespace dfscsi::dfsctl

#endif  // NODE_AGENT_DFSCTL_HELD_SIGNALS_H_
