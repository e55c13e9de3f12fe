// What tests of a session share: a fake kernel, a fake file system, and agents that die between
// them. After fake_filesystem.h: one mount of one loop.

#ifndef NODE_AGENT_FUSE_SESSION_TEST_LAB_H_
#define NODE_AGENT_FUSE_SESSION_TEST_LAB_H_

#include <gtest/gtest.h>
#include <string.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "node-agent/fuse/arena_room.h"
#include "node-agent/fuse/buffer_pool.h"
#include "node-agent/fuse/session.h"
#include "node-agent/runtime/real_loop.h"
#include "node-agent/testing/fake_filesystem.h"
#include "node-agent/testing/fake_fuse_kernel.h"

namespace dfscsi::fuse {

using runtime::Deadline;
using runtime::Task;
using state::RequestArena;
using state::RequestSlot;
using testing::FakeFuseKernel;
using testing::FakeServer;

inline constexpr uint32_t kMount = 7;
inline constexpr absl::Duration kTooLong = absl::Seconds(20);

template <typename T>
T As(const std::string& body, size_t offset = 0) {
  T value = {};
  EXPECT_GE(body.size(), offset + sizeof(T));
  if (body.size() >= offset + sizeof(T)) memcpy(&value, body.data() + offset, sizeof(T));
  return value;
}

// One agent: what would die with its process. The arena's memory and the kernel do not.
struct Agent {
  Agent(runtime::RealLoop& loop, const FakeFuseKernel& kernel, FakeServer& server, int arena_fd,
        uint32_t generation)
      : filesystem(testing::MakeFakeFilesystem(&server)),
        arena(*RequestArena::Map(arena_fd)),
        room(*arena, [this] { ++grow_requests; }) {
    absl::StatusOr<std::vector<RequestSlot>> adopted = arena->Adopt(generation, 1);
    EXPECT_TRUE(adopted.ok()) << adopted.status();
    UniqueFd fd = kernel.OpenDevice();
    std::unique_ptr<runtime::FdWatch> watch = loop.Watch(fd.get());
    Session::Config config{kMount, std::move(fd), FakeFuseKernel::InitIn()};
    config.slow = absl::ZeroDuration();  // Whatever waits is slow.
    config.on_slow = [this](const SlowRequest& request) { slow.push_back(request); };
    config.moves = [this] { return moves; };
    absl::StatusOr<std::unique_ptr<Session>> made =
        Session::Make(std::move(config), std::move(watch), *filesystem, room, buffers, [] {});
    EXPECT_TRUE(made.ok()) << made.status();
    session = *std::move(made);
    session->Adopt(*adopted);
    session->Start();
  }

  const SessionCounters& counters() const { return session->counters(); }

  int grow_requests = 0;
  std::vector<SlowRequest> slow;
  int64_t moves = 0;
  BufferPool buffers{4 << 20};
  std::unique_ptr<vfs::Filesystem> filesystem;
  std::unique_ptr<RequestArena> arena;
  ArenaRoom room;
  std::unique_ptr<Session> session;
};

class SessionTest : public ::testing::Test {
 protected:
  SessionTest() : arena_fd_(*state::CreateSharedMemory("arena", state::kArenaBytes)) {
    StartAgent();
  }

  // The one before, if any, dies as by SIGKILL: it answers nothing more.
  void StartAgent() {
    agent_.reset();
    agent_ = std::make_unique<Agent>(loop_, kernel_, server_, arena_fd_.get(), ++generation_);
  }

  // Runs the loop until `done`.
  void RunUntil(std::function<bool()> done) { loop_.RunUntilDone(Until(std::move(done))); }
  // Runs it until nothing more is to be read, in two turns or more.
  void RunForAWhile() {
    const absl::Time end = absl::Now() + absl::Milliseconds(20);
    RunUntil([end] { return absl::Now() > end; });
  }

  FakeFuseKernel::Answer Receive() {
    std::optional<FakeFuseKernel::Answer> answer;
    RunUntil([&] { return (answer = kernel_.TryReceive()).has_value(); });
    return *answer;
  }
  FakeFuseKernel::Answer Ask(uint32_t opcode, uint64_t node, std::string_view body) {
    const uint64_t unique = kernel_.Send(opcode, node, body);
    const FakeFuseKernel::Answer answer = Receive();
    EXPECT_EQ(answer.unique, unique);
    return answer;
  }
  void ExpectNoAnswer() {
    RunForAWhile();
    EXPECT_FALSE(kernel_.TryReceive().has_value());
  }
  // Nothing is left in the arena: no slot leaks.
  void ExpectAllSlotsFree() {
    const RequestArena::Usage usage = agent_->arena->GetUsage();
    EXPECT_EQ(usage.big_free, usage.big_total);
    EXPECT_EQ(usage.small_free, usage.small_total);
    EXPECT_EQ(agent_->session->in_flight(), 0u);
  }

  static Task<void> Until(std::function<bool()> done) {
    const absl::Time end = absl::Now() + kTooLong;
    while (!done()) {
      if (absl::Now() > end) {
        ADD_FAILURE() << "waited too long";
        co_return;
      }
      (void)co_await runtime::Sleep(absl::Milliseconds(1), Deadline::Never());
    }
  }

  runtime::RealLoop loop_;
  FakeFuseKernel kernel_;
  FakeServer server_;
  UniqueFd arena_fd_;
  uint32_t generation_ = 0;
  std::unique_ptr<Agent> agent_;
};

}  // namespace dfscsi::fuse

#endif  // NODE_AGENT_FUSE_SESSION_TEST_LAB_H_
