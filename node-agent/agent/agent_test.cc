#include "node-agent/agent/agent.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/fuse.h>
#include <stdlib.h>
#include <unistd.h>

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "node-agent/runtime/real_loop.h"
#include "node-agent/state/mounter_protocol.h"
#include "node-agent/testing/fake_fuse_kernel.h"

namespace dfscsi::agent {
namespace {

using runtime::Deadline;
using runtime::Task;
using ::testing::HasSubstr;

using testing::FakeFuseKernel;

// Welcomes whoever connects to memory of its own making, with no mounts.
struct Mounter {
  state::MessageListener listener;
  std::vector<UniqueFd> memory;
  uint64_t granted_steps = 0;
  uint32_t generation = 0;  // Not 0: who connects is the active agent.
  std::vector<state::MessageSocket> agents;

  static Task<void> Run(runtime::RealLoop* loop, Mounter* mounter) {
    const std::unique_ptr<runtime::FdWatch> watch = loop->Watch(mounter->listener.fd());
    while ((co_await watch->WaitReadable(Deadline::Never())).ok()) {
      std::optional<state::MessageListener::Accepted> accepted = mounter->listener.Accept();
      if (!accepted.has_value()) continue;
      std::vector<int> fds;
      for (const UniqueFd& fd : mounter->memory) fds.push_back(fd.get());
      const state::Welcome welcome{.state_id = 7, .granted_steps = mounter->granted_steps};
      EXPECT_TRUE(accepted->socket.Send(welcome, 0, fds).ok());
      if (mounter->generation != 0) {
        EXPECT_TRUE(accepted->socket.Send(state::ListEnd()).ok());
        EXPECT_TRUE(accepted->socket.Send(state::Activate{mounter->generation}).ok());
      }
      mounter->agents.push_back(std::move(accepted->socket));
    }
  }
};

TEST(AgentTest, MemoryOfALayoutThatItCannotReadIsItsEnd) {
  std::string folder = ::testing::TempDir() + "agent-XXXXXX";
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

// As an agent leaves it that dies with acknowledged writes of mount 7, and one that is not.
UniqueFd ArenaWithWrites() {
  UniqueFd memory = state::CreateSharedMemory("arena", state::kArenaBytes).value();
  const std::unique_ptr<state::RequestArena> arena = state::RequestArena::Map(memory.get()).value();
  EXPECT_TRUE(arena->Adopt(1, 1).ok());
  FakeFuseKernel kernel;
  const UniqueFd device = kernel.OpenDevice();
  for (const uint32_t size : {3u, 5'000u, 1u}) {
    fuse_write_in write = {};
    write.size = size;
    kernel.Send(FUSE_WRITE, 3, std::string(testing::BytesOf(write)) + std::string(size, 'x'));
    const state::RequestArena::Read read = arena->ReadRequest(device.get(), 7);
    EXPECT_EQ(read.result, state::RequestArena::ReadResult::kRequest);
    const fuse_write_out answer = {.size = size};
    if (size > 1) arena->MarkAcknowledged(read.slot, std::string(testing::BytesOf(answer)));
  }
  return memory;
}

TEST(AgentTest, WritesThatAreLostWithTheirMountAndTheirAgentAreToldOf) {
  std::string folder = ::testing::TempDir() + "agent-XXXXXX";
  ASSERT_NE(mkdtemp(folder.data()), nullptr);
  // It does not come as far as its own socket, which is made in a thread that may outlive it.
  std::filesystem::create_directory(folder + "/credential.sock");
  runtime::RealLoop loop;
  {
    Mounter mounter;
    mounter.listener = state::MessageListener::Listen(folder, std::nullopt).value();
    mounter.memory.push_back(ArenaWithWrites());
    mounter.memory.push_back(state::Vault::Create().value());
    mounter.memory.push_back(state::LogonGuard::Create().value());
    mounter.memory.push_back(state::Heartbeat::Create().value());
    mounter.granted_steps = 1;
    mounter.generation = 2;
    Agent agent(loop, {.socket_dir = folder});
    const auto run = [](Agent* ran) -> Task<void> { (void)co_await ran->Run(); };
    std::string metrics;
    const auto wait = [](Agent* watched, std::string* text) -> Task<void> {
      v1::GetVersionResponse version;
      for (int i = 0; i < 2'000 && version.generation() == 0; ++i) {
        (void)co_await runtime::Sleep(absl::Milliseconds(10), Deadline::Never());
        (void)co_await watched->GetVersion({}, &version, Deadline::Never());
      }
      if (version.generation() == 0) co_return;
      v1::GetMetricsResponse response;
      (void)co_await watched->GetMetrics({}, &response, Deadline::Never());
      *text = response.text();
    };
    ::testing::internal::CaptureStderr();
    runtime::TaskGroup tasks;
    tasks.Spawn(Mounter::Run(&loop, &mounter));
    tasks.Spawn(run(&agent));
    loop.RunUntilDone(wait(&agent, &metrics));
    const std::string log = ::testing::internal::GetCapturedStderr();
    EXPECT_THAT(log, HasSubstr("mount 7: unmounted, and 2 acknowledged writes of 5003 bytes"));
    EXPECT_THAT(metrics, HasSubstr("\ndfscsi_lost_early_writes_total 2\n"));
    EXPECT_THAT(metrics, HasSubstr("\ndfscsi_acknowledged_writes 0\n"));
  }
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace dfscsi::agent
