// For tests of runtime/: the same test on the real loop and on the simulated one.

#ifndef NODE_AGENT_RUNTIME_BOTH_LOOPS_H_
#define NODE_AGENT_RUNTIME_BOTH_LOOPS_H_

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "node-agent/runtime/real_loop.h"
#include "node-agent/runtime/sim_network.h"
#include "node-agent/runtime/sim_world.h"

namespace dfscsi::runtime {

enum class LoopKind { kReal, kSimulated };

// A loop of either kind, with an address to listen on.
class AnyLoop {
 public:
  explicit AnyLoop(LoopKind kind, uint64_t seed = 1) {
    if (kind == LoopKind::kReal) {
      real_ = std::make_unique<RealLoop>();
      address_ = *IpAddress::Parse("127.0.0.1");
      return;
    }
    world_.emplace(seed);
    address_ = *IpAddress::Parse("10.0.0.1");
    host_ = &world_->network().AddNamedHost("self", {address_});
    simulated_ = std::make_unique<SimLoop>(*world_, *host_, "process");
  }

  Loop& loop() {
    if (real_ != nullptr) return *real_;
    return *simulated_;
  }
  bool is_real() const { return real_ != nullptr; }
  const IpAddress& address() const { return address_; }
  SimWorld& world() { return *world_; }
  SimHost& host() { return *host_; }

  // Runs `task` to its end.
  void Run(Task<void> task) {
    if (real_ != nullptr) return real_->RunUntilDone(std::move(task));
    ASSERT_TRUE(world_->RunTask(*simulated_, std::move(task), absl::Hours(1)));
  }
  // Destroys the loop and all it owns.
  void Destroy() {
    real_.reset();
    simulated_.reset();
  }

 private:
  std::unique_ptr<RealLoop> real_;
  std::optional<SimWorld> world_;
  SimHost* host_ = nullptr;
  std::unique_ptr<SimLoop> simulated_;
  IpAddress address_;
};

class BothLoopsTest : public testing::TestWithParam<LoopKind> {
 protected:
  AnyLoop any_{GetParam()};
};

inline std::string LoopKindName(const testing::TestParamInfo<LoopKind>& info) {
  return info.param == LoopKind::kReal ? "Real" : "Simulated";
}

#define INSTANTIATE_ON_BOTH_LOOPS(suite)                                                      \
  INSTANTIATE_TEST_SUITE_P(On, suite, testing::Values(LoopKind::kReal, LoopKind::kSimulated), \
                           LoopKindName)

}  // namespace dfscsi::runtime

#endif  // NODE_AGENT_RUNTIME_BOTH_LOOPS_H_
