// Handles whose agent dies while it tells the kernel of them.

#include <errno.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/fuse.h>
#include <signal.h>
#include <sys/socket.h>

#include <string>

#include "node-agent/fuse/session_test_lab.h"

namespace dfscsi::fuse {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

constexpr uint64_t kNode = 7;
constexpr uint64_t kOfTheDead = 500;

struct Opening {
  const char* name;
  uint32_t opcode;
  std::string body;
  size_t before;  // Of the answer, what stands before fuse_open_out.
};

const Opening kOpenings[] = {
    {"OPEN", FUSE_OPEN, std::string(sizeof(fuse_open_in), 0), 0},
    {"OPENDIR", FUSE_OPENDIR, std::string(sizeof(fuse_open_in), 0), 0},
    {"CREATE", FUSE_CREATE, std::string(sizeof(fuse_create_in), 0) + "7" + '\0',
     sizeof(fuse_entry_out)},
};

class SessionHandlesTest : public SessionTest {
 protected:
  // A request that is in the arena, and that nobody has begun with.
  RequestSlot Read(const Opening& opening) {
    agent_->session->StopReading();
    unique_ = kernel_.Send(opening.opcode, 1, opening.body);
    const RequestArena::Read read = agent_->arena->ReadRequest(agent_->session->fuse_fd(), kMount);
    EXPECT_EQ(read.result, RequestArena::ReadResult::kRequest);
    return read.slot;
  }
  // As its agent has made it.
  void MakeHandle(const Opening& opening) {
    const bool creates = opening.opcode == FUSE_CREATE;
    server_.open_handles = {kOfTheDead};
    server_.undelivered = {{kOfTheDead, creates ? kNode : 0}};
    server_.lookups = {{kNode, creates ? 1 : 0}};
  }
  static std::string AnswerOf(const Opening& opening) {
    const fuse_open_out opened = {.fh = kOfTheDead};
    return std::string(opening.before, 0) + std::string(testing::BytesOf(opened));
  }
  void ExpectOneHandle(const Opening& opening, uint64_t fh) {
    EXPECT_THAT(server_.open_handles, UnorderedElementsAre(fh));
    EXPECT_THAT(server_.undelivered, IsEmpty());
    EXPECT_EQ(server_.lookups[kNode], opening.opcode == FUSE_CREATE ? 1u : 0u);
    ExpectNoAnswer();
    ExpectAllSlotsFree();
  }
  uint64_t unique_ = 0;
};

TEST_F(SessionHandlesTest, AHandleThatNoAnswerNamesIsClosedAndItsRequestRunAgain) {
  for (const Opening& opening : kOpenings) {
    SCOPED_TRACE(opening.name);
    Read(opening);
    MakeHandle(opening);
    StartAgent();
    const FakeFuseKernel::Answer answer = Receive();
    EXPECT_EQ(answer.unique, unique_);
    const uint64_t fh = As<fuse_open_out>(answer.body, opening.before).fh;
    EXPECT_NE(fh, kOfTheDead);
    ExpectOneHandle(opening, fh);
  }
}

TEST_F(SessionHandlesTest, AHandleThatARecordedAnswerNamesIsTheKernels) {
  for (const Opening& opening : kOpenings) {
    for (const bool delivered : {false, true}) {
      SCOPED_TRACE(std::string(opening.name) + (delivered ? ", delivered" : ""));
      const RequestSlot slot = Read(opening);
      MakeHandle(opening);
      agent_->arena->MarkDone(slot, 0, AnswerOf(opening));
      if (delivered) server_.undelivered.clear();
      StartAgent();
      const FakeFuseKernel::Answer answer = Receive();
      EXPECT_EQ(answer.unique, unique_);
      EXPECT_EQ(As<fuse_open_out>(answer.body, opening.before).fh, kOfTheDead);
      ExpectOneHandle(opening, kOfTheDead);
      // Its answer is forgotten: the next agent knows it by itself.
      StartAgent();
      ExpectOneHandle(opening, kOfTheDead);
    }
  }
}

TEST_F(SessionHandlesTest, ARecordedErrorNamesNoHandle) {
  for (const Opening& opening : kOpenings) {
    SCOPED_TRACE(opening.name);
    const RequestSlot slot = Read(opening);
    MakeHandle(opening);
    agent_->arena->MarkDone(slot, EIO, AnswerOf(opening));
    StartAgent();
    EXPECT_EQ(Receive().error, EIO);
    EXPECT_THAT(server_.open_handles, IsEmpty());
    EXPECT_EQ(server_.lookups[kNode], 0u);
  }
}

// At each store into the arena, as if it were the last.
TEST_F(SessionHandlesTest, AtEveryStepTheNextAgentCanTellWhoseAHandleIs) {
  static FakeServer* server;
  static RequestSlot slot;
  static int stores;
  server = &server_;
  for (const Opening& opening : kOpenings) {
    SCOPED_TRACE(opening.name);
    server_.open_handles.clear();
    slot = Read(opening);
    stores = 0;
    state::store_hook = [] {
      if (server->open_handles.empty()) return;
      ++stores;
      const bool is_answered = slot.state() == state::SlotState::kDone;
      const bool is_free = slot.state() == state::SlotState::kFree;
      const bool undelivered = !server->undelivered.empty();
      EXPECT_TRUE(!is_free || !undelivered) << "it would be closed, and the kernel has it";
      EXPECT_TRUE(is_free || is_answered || undelivered) << "nobody would close it";
    };
    agent_->session->Adopt({slot});
    Receive();
    RunForAWhile();
    state::store_hook = nullptr;
    EXPECT_GE(stores, 2);
    EXPECT_EQ(server_.open_handles.size(), 1u);
    ExpectAllSlotsFree();
  }
}

TEST_F(SessionHandlesTest, AHandleThatTheKernelRefusesIsNobodysUntilItIsReleased) {
  ASSERT_NE(signal(SIGPIPE, SIG_IGN), SIG_ERR);
  static FakeServer* server;
  static RequestSlot slot;
  static bool freed;
  server = &server_;
  freed = false;
  slot = Read(kOpenings[0]);
  shutdown(kernel_.fd(), SHUT_RDWR);
  state::store_hook = [] {
    if (slot.state() != state::SlotState::kFree) return;
    freed = true;
    EXPECT_EQ(server->undelivered.size(), server->open_handles.size());
  };
  agent_->session->Adopt({slot});
  RunUntil([] { return freed; });
  state::store_hook = nullptr;
  EXPECT_THAT(server_.open_handles, IsEmpty());
}

}  // namespace
}  // namespace dfscsi::fuse
