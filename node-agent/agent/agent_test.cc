#include "node-agent/agent/agent.h"

#include <gtest/gtest.h>
#include <stdlib.h>
#include <unistd.h>

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "node-agent/runtime/real_loop.h"
#include "node-agent/state/mounter_protocol.h"

namespace dfscsi::agent {
namespace {

using runtime::Deadline;
using runtime::Task;

// Welcomes whoever connects to memory of its own making.
struct Mounter {
  state::MessageListener listener;
  std::vector<UniqueFd> memory;
  std::vector<state::MessageSocket> agents;

  static Task<void> Run(runtime::RealLoop* loop, Mounter* mounter) {
    const std::unique_ptr<runtime::FdWatch> watch = loop->Watch(mounter->listener.fd());
    while ((co_await watch->WaitReadable(Deadline::Never())).ok()) {
      std::optional<state::MessageListener::Accepted> accepted = mounter->listener.Accept();
      if (!accepted.has_value()) continue;
      std::vector<int> fds;
      for (const UniqueFd& fd : mounter->memory) fds.push_back(fd.get());
      EXPECT_TRUE(accepted->socket.Send(state::Welcome{.state_id = 7}, 0, fds).ok());
      mounter->agents.push_back(std::move(accepted->socket));
    }
  }
};

TEST(AgentTest, MemoryOfALayoutThatItCannotReadIsItsEnd) {
  std::string folder = testing::TempDir() + "agent-XXXXXX";
  ASSERT_NE(mkdtemp(folder.data()), nullptr);
  runtime::RealLoop loop;
  {
    Mounter mounter;
    mounter.listener = state::MessageListener::Listen(folder, std::nullopt).value();
    mounter.memory.push_back(state::CreateSharedMemory("arena", state::kArenaBytes).value());
    mounter.memory.push_back(state::CreateSharedMemory("other", state::Vault::kBytes).value());
    mounter.memory.push_back(state::LogonGuard::Create().value());
    mounter.memory.push_back(state::Heartbeat::Create().value());
    Agent agent(loop, {.socket_dir = folder});
    std::optional<absl::Status> ended;
    const auto run = [](Agent* ran, std::optional<absl::Status>* status) -> Task<void> {
      *status = co_await ran->Run();
    };
    const auto wait = [](std::optional<absl::Status>* status) -> Task<void> {
      for (int i = 0; i < 200 && !status->has_value(); ++i) {
        (void)co_await runtime::Sleep(absl::Milliseconds(10), Deadline::Never());
      }
    };
    runtime::TaskGroup tasks;
    tasks.Spawn(Mounter::Run(&loop, &mounter));
    tasks.Spawn(run(&agent, &ended));
    loop.RunUntilDone(wait(&ended));
    ASSERT_TRUE(ended.has_value()) << "it came " << mounter.agents.size() << " times";
    EXPECT_TRUE(absl::IsFailedPrecondition(*ended)) << *ended;
    EXPECT_EQ(mounter.agents.size(), 1u);
  }
  rmdir(folder.c_str());
}

}  // namespace
}  // namespace dfscsi::agent
