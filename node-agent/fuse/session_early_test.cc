// WRITEs that are acknowledged before their server has them: their answers, and what the next agent
// makes of them.

#include <errno.h>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/fuse.h>
#include <string.h>
#include <unistd.h>

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "node-agent/fuse/session_internal.h"
#include "node-agent/fuse/session_test_lab.h"

namespace dfscsi::fuse {
namespace {

using ::testing::ElementsAre;

class SessionEarlyTest : public SessionTest {
 protected:
  SessionEarlyTest() {
    server_.early = true;
    server_.parked = true;
  }

  static std::string WriteOf(const std::string& bytes, uint32_t flags = 0,
                             uint32_t write_flags = 0) {
    fuse_write_in write = {};
    write.fh = 9;
    write.size = static_cast<uint32_t>(bytes.size());
    write.flags = flags;
    write.write_flags = write_flags;
    return std::string(testing::BytesOf(write)) + bytes;
  }
  uint64_t SendWrite(const std::string& bytes) {
    return kernel_.Send(FUSE_WRITE, 3, WriteOf(bytes));
  }
  void ExpectWritten(uint64_t unique, uint32_t size) {
    const FakeFuseKernel::Answer answer = Receive();
    EXPECT_EQ(answer.unique, unique);
    EXPECT_EQ(answer.error, 0);
    EXPECT_EQ(As<fuse_write_out>(answer.body).size, size);
  }
  int acknowledged() const { return agent_->arena->GetUsage().acknowledged; }
};

TEST_F(SessionEarlyTest, AnAcknowledgedWriteKeepsItsSlotUntilTheServerHasIt) {
  const uint64_t first = SendWrite("first");
  ExpectWritten(first, 5);
  const std::string big(100'000, 'b');
  const uint64_t second = SendWrite(big);
  ExpectWritten(second, 100'000);
  RunUntil([&] { return server_.waiting == 2; });
  EXPECT_EQ(acknowledged(), 2);
  EXPECT_EQ(agent_->session->acknowledged(), 2u);
  EXPECT_EQ(agent_->session->in_flight(), 0u);
  EXPECT_EQ(agent_->counters().early_answers, 2);
  server_.released.Set();
  RunUntil([&] { return agent_->session->acknowledged() == 0; });
  EXPECT_EQ(acknowledged(), 0);
  EXPECT_EQ(server_.written, big);
  ExpectNoAnswer();
  ExpectAllSlotsFree();
}

TEST_F(SessionEarlyTest, WhatTheCallerWaitsForIsNotAnsweredEarly) {
  struct {
    const char* name;
    uint32_t flags;
    uint32_t write_flags;
  } const kCases[] = {
      {"O_APPEND", O_APPEND, 0},
      {"O_DIRECT", O_DIRECT, 0},
      {"O_DSYNC", O_DSYNC, 0},
      {"O_SYNC", O_SYNC, 0},
      {"mapped pages", 0, FUSE_WRITE_CACHE},
  };
  for (const auto& c : kCases) {
    SCOPED_TRACE(c.name);
    const int waiting = server_.waiting;
    kernel_.Send(FUSE_WRITE, 3, WriteOf("bytes", c.flags, c.write_flags));
    RunUntil([&] { return server_.waiting == waiting + 1; });
    ExpectNoAnswer();
    EXPECT_EQ(acknowledged(), 0);
  }
  // Nor is one whose bytes had to be parked: its mount has enough of them.
  for (int step = 1; step < 5; ++step) {
    ASSERT_TRUE(agent_->arena->AddStep(step, RequestArena::StepKind::kMixed).ok());
  }
  const std::string big(5'000, 'b');
  for (int i = 0; i < RequestArena::kMostBigOfMount; ++i) SendWrite(big);
  for (int i = 0; i < RequestArena::kMostBigOfMount; ++i) EXPECT_EQ(Receive().error, 0);
  SendWrite(big);
  RunUntil([&] { return agent_->arena->GetUsage().parked.slots == 1; });
  ExpectNoAnswer();
}

TEST_F(SessionEarlyTest, HowAnAcknowledgedWriteEndsIsToldToNobody) {
  server_.room = 3;
  const uint64_t unique = SendWrite("bytes");
  ExpectWritten(unique, 5);
  RunUntil([&] { return server_.waiting == 1; });
  server_.released.Set();
  RunUntil([&] { return agent_->session->acknowledged() == 0; });
  ExpectNoAnswer();
  EXPECT_EQ(agent_->counters().error_answers, 0);
  ExpectAllSlotsFree();
}

TEST_F(SessionEarlyTest, ASignalDoesNotEndAnAcknowledgedWrite) {
  const uint64_t unique = SendWrite("bytes");
  ExpectWritten(unique, 5);
  kernel_.SendInterrupt(unique);
  RunUntil([&] { return agent_->counters().interrupts == 1; });
  const absl::Time end = absl::Now() + Session::kInterruptGrace + absl::Milliseconds(50);
  RunUntil([end] { return absl::Now() > end; });
  EXPECT_EQ(server_.waiting, 1);
  EXPECT_EQ(acknowledged(), 1);
  server_.released.Set();
  RunUntil([&] { return agent_->session->acknowledged() == 0; });
  EXPECT_EQ(server_.written, "bytes");
}

TEST_F(SessionEarlyTest, TheNextAgentWritesItAgainAndAnswersNothingNew) {
  const uint64_t unique = SendWrite("bytes");
  ExpectWritten(unique, 5);
  RunUntil([&] { return server_.waiting == 1; });
  StartAgent();
  RunUntil([&] { return server_.waiting == 1; });
  // The kernel may not have had it: a store comes before the answer.
  ExpectWritten(unique, 5);
  EXPECT_EQ(server_.sent_before, FakeServer::kServerKey);
  EXPECT_EQ(acknowledged(), 1);
  server_.released.Set();
  RunUntil([&] { return agent_->session->acknowledged() == 0; });
  EXPECT_EQ(server_.written, "bytes");
  ExpectNoAnswer();
  ExpectAllSlotsFree();
}

TEST_F(SessionEarlyTest, AcknowledgedWritesAreRunBeforeWhatElseWasLeft) {
  // Read, and not begun with, when the agent dies.
  agent_->session->StopReading();
  const fuse_fsync_in sync = {};
  kernel_.Send(FUSE_FSYNC, 3, testing::BytesOf(sync));
  std::vector<uint64_t> writes;
  for (const char* bytes : {"1", "2", "3", "4"}) writes.push_back(SendWrite(bytes));
  const auto read = [&] {
    const RequestArena::Read read = agent_->arena->ReadRequest(agent_->session->fuse_fd(), kMount);
    EXPECT_EQ(read.result, RequestArena::ReadResult::kRequest);
    return read.slot;
  };
  read();
  std::vector<RequestSlot> slots;
  for (int i = 0; i < 4; ++i) slots.push_back(read());
  const fuse_write_out one = {.size = 1};
  const std::string body(testing::BytesOf(one));
  agent_->arena->MarkAcknowledged(slots[3], body);
  agent_->arena->MarkAcknowledged(slots[1], body);
  server_.begun.clear();
  StartAgent();
  RunUntil([&] { return server_.waiting == 5; });
  EXPECT_THAT(server_.begun, ElementsAre("2", "4", "fsync", "1", "3"));
  // Those of the dead one again; the others as they would have been.
  std::map<uint64_t, int> answers;
  for (int i = 0; i < 4; ++i) ++answers[Receive().unique];
  for (const uint64_t unique : writes) EXPECT_EQ(answers[unique], 1);
  server_.released.Set();
  EXPECT_EQ(Receive().error, 0);  // FSYNC
  ExpectNoAnswer();
  ExpectAllSlotsFree();
}

TEST_F(SessionEarlyTest, DrainWaitsForAcknowledgedWritesOrLeavesThem) {
  const uint64_t unique = SendWrite("bytes");
  ExpectWritten(unique, 5);
  agent_->session->StopReading();
  absl::Status drained = absl::UnknownError("");
  struct Drain {
    static Task<void> Run(Session* session, absl::Duration most, absl::Status* status) {
      *status = co_await session->WaitUntilIdle(Deadline::After(most));
    }
  };
  loop_.RunUntilDone(Drain::Run(agent_->session.get(), absl::Milliseconds(10), &drained));
  EXPECT_TRUE(absl::IsDeadlineExceeded(drained));
  // It goes over as it is.
  StartAgent();
  ExpectWritten(unique, 5);
  EXPECT_EQ(acknowledged(), 1);
  server_.released.Set();
  loop_.RunUntilDone(Drain::Run(agent_->session.get(), kTooLong, &drained));
  EXPECT_TRUE(drained.ok());
  EXPECT_EQ(acknowledged(), 0);
}

TEST_F(SessionEarlyTest, AServerThatIsLateWithAnAcknowledgedWriteIsToldOf) {
  const uint64_t unique = SendWrite("bytes");
  ExpectWritten(unique, 5);
  RunUntil([&] { return server_.waiting == 1; });
  EXPECT_TRUE(agent_->slow.empty());
  agent_->session->ReportSlow();
  agent_->session->ReportSlow();
  ASSERT_EQ(agent_->slow.size(), 1u);
  EXPECT_EQ(agent_->slow[0].opcode, static_cast<uint32_t>(FUSE_WRITE));
  EXPECT_EQ(agent_->slow[0].node, 3u);
  EXPECT_TRUE(agent_->slow[0].behind);
  EXPECT_FALSE(agent_->slow[0].answered);
  // It has waited since it came, whoever was there to see.
  const absl::Duration age = agent_->slow[0].age;
  StartAgent();
  ExpectWritten(unique, 5);
  agent_->session->ReportSlow();
  ASSERT_EQ(agent_->slow.size(), 1u);
  EXPECT_GT(agent_->slow[0].age, age);
  server_.released.Set();
  RunUntil([&] { return agent_->session->acknowledged() == 0; });
  ASSERT_EQ(agent_->slow.size(), 2u);
  EXPECT_TRUE(agent_->slow[1].behind);
  EXPECT_TRUE(agent_->slow[1].answered);
  ExpectAllSlotsFree();
}

// ---- Errors of acknowledged writes ----

class SessionKeptErrorTest : public SessionEarlyTest {
 protected:
  struct Case {
    const char* name;
    uint32_t opcode;
    std::string body;
  };

  SessionKeptErrorTest() {
    server_.parked = false;
    server_.early = false;
  }
  static std::vector<Case> Cases() {
    return {{"WRITE", FUSE_WRITE, WriteOf("bytes")},
            {"FLUSH", FUSE_FLUSH, std::string(testing::BytesOf(fuse_flush_in{.fh = 9}))},
            {"FSYNC", FUSE_FSYNC, std::string(testing::BytesOf(fuse_fsync_in{.fh = 9}))}};
  }
  // Reads a request, and dies with its answer in the journal.
  uint64_t SendAndDie(const Case& c, int error) {
    agent_->session->StopReading();
    const uint64_t unique = kernel_.Send(c.opcode, 3, c.body);
    const RequestArena::Read read = agent_->arena->ReadRequest(agent_->session->fuse_fd(), kMount);
    EXPECT_EQ(read.result, RequestArena::ReadResult::kRequest);
    agent_->arena->MarkDone(read.slot, error, {});
    return unique;
  }
  // What an agent leaves that dies now.
  UniqueFd CopyOfArena() const {
    UniqueFd copy = state::CreateSharedMemory("arena", state::kArenaBytes).value();
    std::vector<char> bytes(state::kArenaHeaderBytes + state::kArenaStepBytes);
    EXPECT_EQ(pread(arena_fd_.get(), bytes.data(), bytes.size(), 0), std::ssize(bytes));
    EXPECT_EQ(pwrite(copy.get(), bytes.data(), bytes.size(), 0), std::ssize(bytes));
    return copy;
  }
};

TEST_F(SessionKeptErrorTest, AnErrorOfAnEarlierWriteIsToldOnceWhoeverDies) {
  for (const Case& c : Cases()) {
    SCOPED_TRACE(c.name);
    server_.kept_error = ENOSPC;
    server_.told.clear();
    UniqueFd arena;
    server_.on_told = [&] { arena = CopyOfArena(); };
    const uint64_t unique = kernel_.Send(c.opcode, 3, c.body);
    EXPECT_EQ(Receive().error, ENOSPC);
    server_.on_told = nullptr;
    EXPECT_THAT(server_.told, ElementsAre(std::pair(uint64_t{9}, ENOSPC)));
    EXPECT_EQ(Ask(c.opcode, 3, c.body).error, 0);
    // The agent dies with the answer in the journal, before it has noted that it is told.
    server_.kept_error = ENOSPC;
    server_.told.clear();
    agent_.reset();
    arena_fd_ = std::move(arena);
    StartAgent();
    const FakeFuseKernel::Answer answer = Receive();
    EXPECT_EQ(answer.unique, unique);
    EXPECT_EQ(answer.error, ENOSPC);
    EXPECT_THAT(server_.told, ElementsAre(std::pair(uint64_t{9}, ENOSPC)));
    EXPECT_EQ(Ask(c.opcode, 3, c.body).error, 0);
    ExpectAllSlotsFree();
  }
}

TEST_F(SessionKeptErrorTest, AnErrorOfTheRequestItselfTellsOfNoEarlierWrite) {
  for (const Case& c : Cases()) {
    SCOPED_TRACE(c.name);
    // Of a page that was written back, say, and of the same errno.
    const uint64_t unique = SendAndDie(c, ENOSPC);
    server_.kept_error = ENOSPC;
    server_.told.clear();
    StartAgent();
    const FakeFuseKernel::Answer answer = Receive();
    EXPECT_EQ(answer.unique, unique);
    EXPECT_EQ(answer.error, ENOSPC);
    EXPECT_TRUE(server_.told.empty());
    EXPECT_EQ(Ask(c.opcode, 3, c.body).error, ENOSPC);
    EXPECT_EQ(Ask(c.opcode, 3, c.body).error, 0);
    ExpectAllSlotsFree();
  }
}

TEST_F(SessionKeptErrorTest, AMarkThatTellsIsTakenBackWithTheAnswerThatDidNot) {
  agent_->session->StopReading();
  kernel_.Send(FUSE_FSYNC, 3, testing::BytesOf(fuse_fsync_in{.fh = 9}));
  const RequestSlot slot = agent_->arena->ReadRequest(agent_->session->fuse_fd(), kMount).slot;
  const auto name = [&](uint64_t offset) {
    state::Guid guid = {};
    memcpy(guid.data(), &offset, sizeof(offset));
    return guid;
  };
  agent_->arena->MarkStarted(slot, name(77), FakeServer::kServerKey);
  for (const bool tells : {false, true, true, false}) {
    MarkTellsKeptError(*agent_->arena, slot, tells);
    EXPECT_EQ(TellsKeptError(slot), tells);
    EXPECT_EQ(slot.server(), FakeServer::kServerKey);
    uint64_t offset = 0;
    memcpy(&offset, slot.create_guid().data(), sizeof(offset));
    EXPECT_EQ(offset, 77u);
  }
  EXPECT_EQ(slot.create_guid(), name(77));
}

TEST_F(SessionEarlyTest, AReleaseWaitsForWhatItsHandleWrote) {
  server_.unwritten = true;
  const fuse_release_in release = {.fh = 9};
  kernel_.Send(FUSE_RELEASE, 3, testing::BytesOf(release));
  RunUntil([&] { return server_.waiting == 1; });
  EXPECT_EQ(server_.calls["release"], 0);
  // Who dies in between releases it again.
  StartAgent();
  RunUntil([&] { return server_.waiting == 1; });
  server_.released.Set();
  EXPECT_EQ(Receive().error, 0);
  EXPECT_EQ(server_.calls["release"], 1);
  ExpectAllSlotsFree();
}

TEST_F(SessionEarlyTest, AnAcknowledgedWriteThatEndsWithoutAWordIsAnErrorOfItsHandle) {
  server_.throws = true;
  const uint64_t unique = SendWrite("bytes");
  ExpectWritten(unique, 5);
  RunUntil([&] { return !server_.lost_writes.empty(); });
  EXPECT_THAT(server_.lost_writes, ElementsAre(9u));
  EXPECT_EQ(agent_->counters().unanswered, 1);
  ExpectNoAnswer();
  ExpectAllSlotsFree();
}

}  // namespace
}  // namespace dfscsi::fuse
