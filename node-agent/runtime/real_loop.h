// The loop of a real process: Asio's reactor for descriptors, the loop's own heap for timers,
// c-ares for names, a few threads for blocking work. Asio is included here (in the .cc files) and
// nowhere else.

#ifndef NODE_AGENT_RUNTIME_REAL_LOOP_H_
#define NODE_AGENT_RUNTIME_REAL_LOOP_H_

#include <functional>
#include <memory>

#include "node-agent/base/unique_fd.h"
#include "node-agent/runtime/loop.h"
#include "node-agent/runtime/network.h"

namespace dfscsi::runtime {

// Waits for one descriptor. It does not own the descriptor, which must stay open as long as this
// lives. At most one wait of each kind at a time. Destroying it ends a suspended wait with
// kUnavailable, which is also the answer for a descriptor that the reactor refuses.
class FdWatch {
 public:
  virtual ~FdWatch() = default;
  virtual Task<absl::Status> WaitReadable(Deadline deadline) = 0;
  virtual Task<absl::Status> WaitWritable(Deadline deadline) = 0;
};

class RealLoop final : public Loop {
 public:
  RealLoop();
  ~RealLoop() override;

  // Runs until Stop(). May be called again afterwards.
  void Run();
  // Runs `task` to its end (or until it throws), and everything else meanwhile.
  void RunUntilDone(Task<void> task);
  // Ends Run() after this turn. From the loop's thread.
  void Stop() { stopped_ = true; }

  // Thread-safe: runs `work` on the loop. A thread that may outlive the loop keeps a poster
  // instead: it returns false once the loop has died, and `work` dies with the call.
  void Post(std::function<void()> work);
  using Poster = std::function<bool(std::function<void()>)>;
  Poster MakePoster();

  Network& network() override;
  uint64_t Random() override;
  void RunBlocking(std::function<void()> work, std::function<void()> done) override;

  // `fd` must be non-blocking.
  std::unique_ptr<FdWatch> Watch(int fd);

 private:
  class Reactor;

  void Turn();

  std::unique_ptr<Reactor> reactor_;
  std::unique_ptr<Network> network_;
  bool stopped_ = false;
};

}  // namespace dfscsi::runtime

#endif  // NODE_AGENT_RUNTIME_REAL_LOOP_H_
