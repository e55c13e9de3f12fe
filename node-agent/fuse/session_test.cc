// The session between a fake kernel and a fake file system; races by name.

#include "node-agent/fuse/session.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/fuse.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/time/clock.h"
#include "node-agent/fuse/arena_room.h"
#include "node-agent/fuse/buffer_pool.h"
#include "node-agent/fuse/init_flags.h"
#include "node-agent/fuse/session_test_lab.h"
#include "node-agent/fuse/statx.h"
#include "node-agent/runtime/real_loop.h"
#include "node-agent/testing/fake_filesystem.h"
#include "node-agent/testing/fake_fuse_kernel.h"

namespace dfscsi::fuse {
namespace {

// ---- One request, one answer ----

TEST_F(SessionTest, LookupCarriesNodeAttributesAndTimeouts) {
  const uint64_t unique = kernel_.SendLookup(1, "7");
  const FakeFuseKernel::Answer answer = Receive();
  EXPECT_EQ(answer.unique, unique);
  EXPECT_EQ(answer.error, 0);
  const auto entry = As<fuse_entry_out>(answer.body);
  EXPECT_EQ(entry.nodeid, 7u);
  EXPECT_EQ(entry.attr.ino, 107u);
  EXPECT_EQ(entry.attr.size, FakeServer::kFileBytes);
  EXPECT_EQ(entry.attr.mtimensec, 678u);
  EXPECT_EQ(entry.attr_valid, 1u);
  EXPECT_EQ(entry.attr_valid_nsec, 500'000'000u);
  EXPECT_EQ(entry.entry_valid, 2u);
  EXPECT_EQ(server_.lookups[7], 1u);

  kernel_.SendLookup(1, "missing");
  EXPECT_EQ(Receive().error, ENOENT);
  EXPECT_EQ(agent_->counters().error_answers, 1);
  EXPECT_EQ(agent_->counters().eio_answers, 0);
  ExpectAllSlotsFree();
}

TEST_F(SessionTest, EveryRequestHasItsAnswer) {
  fuse_getxattr_in xattr = {};
  xattr.size = 100;
  const std::string get_user_a = std::string(testing::BytesOf(xattr)) + "user.a" + '\0';
  const std::string get_security_b = std::string(testing::BytesOf(xattr)) + "security.b" + '\0';
  fuse_access_in write_access = {};
  write_access.mask = W_OK;
  fuse_lseek_in seek = {};
  seek.whence = SEEK_HOLE;
  const std::string none(128, '\0');  // Long enough for any fixed part.
  const std::string two_names = none + "a" + '\0' + "b" + '\0';
  struct {
    const char* name;
    uint32_t opcode;
    std::string body;
    int error;
    size_t body_bytes;
  } const kCases[] = {
      {"GETATTR", FUSE_GETATTR, none, 0, sizeof(fuse_attr_out)},
      {"STATX", kFuseStatx, none, 0, sizeof(StatxOut)},
      {"READLINK", FUSE_READLINK, "", 0, 4},  // "to/3"
      {"OPEN", FUSE_OPEN, none, 0, sizeof(fuse_open_out)},
      {"STATFS", FUSE_STATFS, "", 0, sizeof(fuse_statfs_out)},
      {"FLUSH", FUSE_FLUSH, none, 0, 0},
      {"FSYNC", FUSE_FSYNC, none, 0, 0},
      {"RELEASE", FUSE_RELEASE, none, 0, 0},
      {"OPENDIR", FUSE_OPENDIR, none, 0, sizeof(fuse_open_out)},
      {"RELEASEDIR", FUSE_RELEASEDIR, none, 0, 0},
      {"FSYNCDIR", FUSE_FSYNCDIR, none, 0, 0},
      {"GETXATTR user", FUSE_GETXATTR, get_user_a, 0, 5},
      {"GETXATTR security", FUSE_GETXATTR, get_security_b, ENOSYS, 0},
      {"LISTXATTR", FUSE_LISTXATTR, none, ENOSYS, 0},
      {"ACCESS", FUSE_ACCESS, std::string(testing::BytesOf(write_access)), EROFS, 0},
      {"LSEEK", FUSE_LSEEK, std::string(testing::BytesOf(seek)), 0, sizeof(fuse_lseek_out)},
      {"SETATTR", FUSE_SETATTR, none, 0, sizeof(fuse_attr_out)},
      {"MKNOD", FUSE_MKNOD, two_names, EROFS, 0},
      {"MKDIR", FUSE_MKDIR, std::string(8, '\0') + "7" + '\0', 0, sizeof(fuse_entry_out)},
      {"UNLINK", FUSE_UNLINK, two_names, 0, 0},
      {"RMDIR", FUSE_RMDIR, two_names, 0, 0},
      {"SYMLINK", FUSE_SYMLINK, two_names, EROFS, 0},
      {"RENAME", FUSE_RENAME, two_names, 0, 0},
      {"RENAME2", FUSE_RENAME2, two_names, 0, 0},
      {"LINK", FUSE_LINK, two_names, EROFS, 0},
      {"CREATE", FUSE_CREATE, std::string(16, '\0') + "7" + '\0', 0,
       sizeof(fuse_entry_out) + sizeof(fuse_open_out)},
      {"CREATE of what is there", FUSE_CREATE, std::string(16, '\0') + "a" + '\0', EEXIST, 0},
      {"WRITE", FUSE_WRITE, none, 0, sizeof(fuse_write_out)},
      {"SETXATTR", FUSE_SETXATTR, two_names, EROFS, 0},
      {"REMOVEXATTR", FUSE_REMOVEXATTR, two_names, EROFS, 0},
      {"FALLOCATE", FUSE_FALLOCATE, none, EROFS, 0},
      {"COPY_FILE_RANGE", FUSE_COPY_FILE_RANGE, none, EROFS, 0},
      {"IOCTL", FUSE_IOCTL, none, ENOTTY, 0},
      {"BMAP", FUSE_BMAP, none, ENOSYS, 0},
      {"of a later kernel", 60, none, ENOSYS, 0},
      {"of no kernel", 1000, none, ENOSYS, 0},
  };
  for (const auto& c : kCases) {
    SCOPED_TRACE(c.name);
    const FakeFuseKernel::Answer answer = Ask(c.opcode, 3, c.body);
    EXPECT_EQ(answer.error, c.error);
    EXPECT_EQ(answer.body.size(), c.body_bytes);
    ExpectAllSlotsFree();
  }
  EXPECT_EQ(agent_->counters().unanswered, 0);
  EXPECT_EQ(agent_->counters().eio_answers, 0);
}

TEST_F(SessionTest, ASlowRequestIsToldOfOnceWhileItWaitsAndWhenItIsAnswered) {
  server_.parked = true;
  kernel_.Send(FUSE_GETATTR, 3, std::string(128, '\0'));
  RunUntil([&] { return server_.waiting == 1; });
  agent_->session->ReportSlow();
  agent_->moves = 2;
  agent_->session->ReportSlow();
  ASSERT_EQ(agent_->slow.size(), 1u);
  EXPECT_EQ(agent_->slow[0].opcode, static_cast<uint32_t>(FUSE_GETATTR));
  EXPECT_EQ(agent_->slow[0].node, 3u);
  EXPECT_FALSE(agent_->slow[0].answered);
  EXPECT_FALSE(agent_->slow[0].behind);
  EXPECT_EQ(agent_->slow[0].moves, 0);
  server_.released.Set();
  RunUntil([&] { return agent_->slow.size() == 2; });
  EXPECT_TRUE(agent_->slow[1].answered);
  EXPECT_EQ(agent_->slow[1].moves, 2);
  EXPECT_GE(agent_->slow[1].age, agent_->slow[0].age);
}

TEST_F(SessionTest, StatxTellsWhatGetattrDoesAndWhenTheFileWasMade) {
  const std::string body(sizeof(fuse_getattr_in) + 8, '\0');
  const auto attributes = As<fuse_attr_out>(Ask(FUSE_GETATTR, 3, body).body);
  const auto statx = As<StatxOut>(Ask(kFuseStatx, 3, body).body);
  EXPECT_EQ(statx.mask, STATX_BASIC_STATS | STATX_BTIME);
  EXPECT_EQ(statx.attr_valid, attributes.attr_valid);
  EXPECT_EQ(statx.ino, attributes.attr.ino);
  EXPECT_EQ(statx.size, attributes.attr.size);
  EXPECT_EQ(statx.mode, attributes.attr.mode);
  EXPECT_EQ(statx.nlink, attributes.attr.nlink);
  EXPECT_EQ(statx.mtime.seconds, 12345);
  EXPECT_EQ(statx.mtime.nanoseconds, 678u);
  EXPECT_EQ(statx.btime.seconds, FakeServer::kBornSeconds);
  // Not what a kernel sends: as libfuse answers what it does not know.
  EXPECT_EQ(Ask(kFuseStatx, 3, "short").error, ENOSYS);
  ExpectAllSlotsFree();
}

TEST_F(SessionTest, ReadReturnsTheBytesAndStopsAtTheEnd) {
  for (const auto& [offset, size, expected] :
       std::vector<std::array<uint64_t, 3>>{{0, 4096, 4096},
                                            {5, 100'000, 100'000},
                                            {FakeServer::kFileBytes - 10, 4096, 10},
                                            {FakeServer::kFileBytes, 4096, 0},
                                            {0, 0, 0}}) {
    kernel_.SendRead(3, 9, offset, static_cast<uint32_t>(size));
    const FakeFuseKernel::Answer answer = Receive();
    EXPECT_EQ(answer.error, 0);
    ASSERT_EQ(answer.body.size(), expected);
    for (uint64_t i = 0; i < expected; i += 97) {
      ASSERT_EQ(static_cast<uint8_t>(answer.body[i]), static_cast<uint8_t>((offset + i) * 31 + 9));
    }
  }
  kernel_.SendRead(3, 9, 0, 2 << 20);  // More than INIT allows.
  EXPECT_EQ(Receive().error, EIO);
  EXPECT_EQ(agent_->counters().eio_answers, 1);
}

// FOPEN_PARALLEL_DIRECT_WRITES: who maps the file while such a write waits could not be killed, and
// two writes of one place would mix.
TEST_F(SessionTest, DirectOpensWriteOneAfterTheOther) {
  kernel_.SendOpen(3, O_RDONLY);
  const auto cached = As<fuse_open_out>(Receive().body);
  EXPECT_EQ(cached.open_flags, uint32_t{FOPEN_KEEP_CACHE});
  kernel_.SendOpen(3, O_DIRECT);
  const auto direct = As<fuse_open_out>(Receive().body);
  EXPECT_EQ(direct.open_flags, uint32_t{FOPEN_KEEP_CACHE | FOPEN_DIRECT_IO});
}

TEST_F(SessionTest, AWriteCarriesItsBytes) {
  fuse_write_in write = {};
  write.size = 5;
  EXPECT_EQ(
      As<fuse_write_out>(Ask(FUSE_WRITE, 3, std::string(testing::BytesOf(write)) + "bytes").body)
          .size,
      5u);
  EXPECT_EQ(server_.written, "bytes");
}

TEST_F(SessionTest, AWriteForWhichThereIsNoRoomAnswersWhatFitted) {
  fuse_write_in write = {};
  write.size = 5;
  const std::string request = std::string(testing::BytesOf(write)) + "bytes";
  server_.room = 3;
  EXPECT_EQ(As<fuse_write_out>(Ask(FUSE_WRITE, 3, request).body).size, 3u);
  server_.room = 0;
  EXPECT_EQ(Ask(FUSE_WRITE, 3, request).error, ENOSPC);
}

// The kernel takes what a short count leaves out for written, and nobody is told.
TEST_F(SessionTest, MappedPagesForWhichThereIsNoRoomAreAnError) {
  fuse_write_in write = {};
  write.size = 5;
  write.write_flags = FUSE_WRITE_CACHE;
  server_.room = 3;
  EXPECT_EQ(Ask(FUSE_WRITE, 3, std::string(testing::BytesOf(write)) + "bytes").error, ENOSPC);
}

TEST_F(SessionTest, TheNextAgentKnowsWhatMayHaveBeenDone) {
  server_.parked = true;
  for (const bool sent : {false, true}) {
    server_.sends = sent;
    server_.offset = sent ? 0 : vfs::kNoOffset;
    const uint64_t unique =
        kernel_.Send(FUSE_MKDIR, 1, std::string(8, '\0') + (sent ? "8" : "7") + '\0');
    RunUntil([&] { return server_.waiting == 1; });
    EXPECT_EQ(server_.sent_before, 0u);
    StartAgent();
    RunUntil([&] { return server_.waiting == 1; });
    EXPECT_EQ(server_.sent_before, sent ? FakeServer::kServerKey : 0u);
    EXPECT_EQ(server_.offset_before, sent ? 0 : vfs::kNoOffset);
    // And so does the one after it.
    StartAgent();
    RunUntil([&] { return server_.waiting == 1; });
    EXPECT_EQ(server_.sent_before, sent ? FakeServer::kServerKey : 0u);
    server_.released.Set();
    EXPECT_EQ(Receive().unique, unique);
    server_.released.Reset();
  }
}

TEST_F(SessionTest, TheNextAgentKnowsByWhichHandleAFileIsChanged) {
  server_.parked = true;
  fuse_setattr_in body = {};
  body.valid = FATTR_SIZE | FATTR_FH;
  body.fh = 77;
  kernel_.Send(FUSE_SETATTR, 7, {reinterpret_cast<const char*>(&body), sizeof(body)});
  for (int agents = 0; agents < 2; ++agents) {
    RunUntil([&] { return server_.waiting == 1; });
    EXPECT_EQ(server_.changed_through, 77u);
    server_.changed_through.reset();
    if (agents == 0) StartAgent();
  }
  server_.released.Set();
  EXPECT_EQ(Receive().error, 0);
}

TEST_F(SessionTest, LocksAreAskedForAsTheKernelSaysThem) {
  using vfs::LockKind;
  using vfs::LockType;
  constexpr uint64_t kEnd = INT64_MAX;
  const struct {
    uint32_t opcode;
    fuse_lk_in body;
    LockKind kind;
    LockType type;
    uint64_t first, last;
    bool wait;
  } kCases[] = {
      {FUSE_SETLK,
       {.fh = 5, .owner = 6, .lk = {10, 19, F_WRLCK, 7}},
       LockKind::kRange,
       LockType::kExclusive,
       10,
       19,
       false},
      {FUSE_SETLKW,
       {.fh = 5, .owner = 6, .lk = {10, kEnd, F_RDLCK, 7}},
       LockKind::kRange,
       LockType::kShared,
       10,
       kEnd,
       true},
      {FUSE_SETLK,
       {.fh = 5, .owner = 6, .lk = {0, kEnd, F_UNLCK, 7}},
       LockKind::kRange,
       LockType::kNone,
       0,
       kEnd,
       false},
      {FUSE_SETLKW,
       {.fh = 5, .owner = 6, .lk = {0, kEnd, F_WRLCK, 7}, .lk_flags = FUSE_LK_FLOCK},
       LockKind::kWhole,
       LockType::kExclusive,
       0,
       kEnd,
       true},
      {FUSE_SETLK,
       {.fh = 5, .owner = 6, .lk = {0, kEnd, F_RDLCK, 7}, .lk_flags = FUSE_LK_FLOCK},
       LockKind::kWhole,
       LockType::kShared,
       0,
       kEnd,
       false},
      {FUSE_GETLK,
       {.fh = 5, .owner = 6, .lk = {3, 4, F_WRLCK, 7}},
       LockKind::kRange,
       LockType::kExclusive,
       3,
       4,
       false},
  };
  for (const auto& test : kCases) {
    const FakeFuseKernel::Answer answer = Ask(test.opcode, 2, testing::BytesOf(test.body));
    EXPECT_EQ(answer.error, 0);
    ASSERT_FALSE(server_.locks.empty());
    const vfs::FileLock& asked = server_.locks.back().wanted;
    EXPECT_EQ(asked.fh, 5u);
    EXPECT_EQ(asked.owner, 6u);
    EXPECT_EQ(asked.kind, test.kind);
    EXPECT_EQ(asked.type, test.type);
    EXPECT_EQ(asked.first, test.first);
    EXPECT_EQ(asked.last, test.last);
    EXPECT_EQ(server_.locks.back().wait, test.wait);
    if (test.opcode != FUSE_GETLK) continue;
    const auto found = As<fuse_lk_out>(answer.body);
    EXPECT_EQ(found.lk.type, uint32_t{F_RDLCK});
    EXPECT_EQ(found.lk.start, 3u);
    EXPECT_EQ(found.lk.end, 4u);
    EXPECT_EQ(found.lk.pid, 77u);
  }
  const fuse_flush_in flush = {.fh = 5, .lock_owner = 9};
  EXPECT_EQ(Ask(FUSE_FLUSH, 2, testing::BytesOf(flush)).error, 0);
  EXPECT_EQ(server_.flushed_by, 9u);
}

TEST_F(SessionTest, ADirectoryIsReadInPieces) {
  for (const bool plus : {false, true}) {
    uint64_t offset = 0;
    int names = 0;
    while (true) {
      kernel_.SendReadDirectory(plus, 9, offset, 1000);
      const FakeFuseKernel::Answer answer = Receive();
      ASSERT_EQ(answer.error, 0);
      if (answer.body.empty()) break;
      ASSERT_LE(answer.body.size(), 1000u);
      for (size_t at = 0; at < answer.body.size(); ++names) {
        if (plus) {
          const auto entry = As<fuse_entry_out>(answer.body, at);
          EXPECT_EQ(entry.nodeid, static_cast<uint64_t>(names) + 2);
          EXPECT_EQ(entry.attr.size, FakeServer::kFileBytes);
          EXPECT_EQ(entry.attr_valid_nsec, 500'000'000u);
          EXPECT_EQ(entry.entry_valid, 3u);
          at += sizeof(entry);
        }
        const auto dirent = As<fuse_dirent>(answer.body, at);
        EXPECT_EQ(answer.body.substr(at + FUSE_NAME_OFFSET, dirent.namelen),
                  std::to_string(names + 2));
        EXPECT_EQ(dirent.type, uint32_t{DT_REG});
        EXPECT_EQ(dirent.ino, static_cast<uint64_t>(names) + 102);
        offset = dirent.off;
        at += FUSE_DIRENT_ALIGN(FUSE_NAME_OFFSET + dirent.namelen);
      }
    }
    EXPECT_EQ(names, FakeServer::kEntries);
    EXPECT_EQ(server_.lookups[2], plus ? 1u : 0u);
  }
}

TEST_F(SessionTest, AnOperationThatThrowsIsAnsweredWithEio) {
  server_.throws = true;
  kernel_.SendLookup(1, "7");
  EXPECT_EQ(Receive().error, EIO);
  EXPECT_EQ(agent_->counters().unanswered, 1);
  EXPECT_EQ(agent_->counters().eio_answers, 1);
  ExpectAllSlotsFree();
}

TEST_F(SessionTest, RequestsOfThisProcessAreRefused) {
  kernel_.set_pid(static_cast<uint32_t>(getpid()));
  kernel_.SendLookup(1, "7");
  EXPECT_EQ(Receive().error, EDEADLK);
  kernel_.SendForget(7, 1);  // Must be heard all the same.
  RunUntil([this] { return server_.calls["forget"] == 1; });
  kernel_.set_pid(1);
  kernel_.SendLookup(1, "7");
  EXPECT_EQ(Receive().error, 0);
  EXPECT_EQ(agent_->counters().own_requests, 1);
}

TEST_F(SessionTest, ManyParkedRequestsKeepNobodyWaiting) {
  server_.parked = true;
  constexpr int kParked = 1500;  // Small slots of one step: 1,598.
  for (int i = 0; i < kParked; i += 100) {
    for (int j = 0; j < 100; ++j) kernel_.SendRead(3, 9, 0, 1 << 20);
    RunUntil([&] { return server_.waiting == i + 100; });
  }
  EXPECT_EQ(agent_->room.shortages(), 0);
  EXPECT_LE(agent_->buffers.held_bytes(), size_t{4} << 20);
  server_.parked = false;
  kernel_.SendLookup(1, "7");
  EXPECT_EQ(Receive().error, 0);
  // All end by interrupts.
  for (int i = 0; i < kParked; ++i) kernel_.SendInterrupt(2 * static_cast<uint64_t>(i + 1));
  int answered = 0;
  RunUntil([&] {
    while (const auto answer = kernel_.TryReceive()) {
      EXPECT_EQ(answer->error, EINTR);
      ++answered;
    }
    return answered == kParked;
  });
  ExpectAllSlotsFree();
  EXPECT_EQ(agent_->buffers.overflow_bytes(), 0u);
}

TEST_F(SessionTest, WhenSlotsRunOutReadingWaitsAndAsksForMore) {
  server_.parked = true;
  const RequestArena::Usage usage = agent_->arena->GetUsage();
  const int all = usage.small_total + usage.big_total;
  for (int i = 0; i < all; ++i) {
    kernel_.SendLookup(1, "7");
    if (i % 100 == 0) RunUntil([&] { return server_.waiting == i + 1; });
  }
  kernel_.SendLookup(1, "8");
  RunUntil([&] { return agent_->room.shortages() > 0; });
  EXPECT_EQ(server_.waiting, all);
  EXPECT_EQ(agent_->grow_requests, 1);
  server_.released.Set();
  int answered = 0;
  RunUntil([&] {
    while (kernel_.TryReceive()) ++answered;
    return answered == all + 1;
  });
  EXPECT_EQ(server_.lookups[8], 1u);
  ExpectAllSlotsFree();
}

// ---- Interrupts ----

TEST_F(SessionTest, InterruptEndsAnOperationOfASilentServer) {
  server_.parked = true;
  const uint64_t unique = kernel_.SendRead(3, 9, 0, 4096);
  RunUntil([this] { return server_.waiting == 1; });
  const absl::Time start = absl::Now();
  kernel_.SendInterrupt(unique);
  const FakeFuseKernel::Answer answer = Receive();
  EXPECT_EQ(answer.unique, unique);
  EXPECT_EQ(answer.error, EINTR);
  EXPECT_GE(absl::Now() - start, Session::kInterruptGrace - absl::Milliseconds(5));
  ExpectAllSlotsFree();
}

// Every kind of request that may wait for a server. (No Samba of the lab can show READLINK.)
TEST_F(SessionTest, InterruptEndsEachKindOfRequestThatWaits) {
  server_.parked = true;
  const std::string none(64, '\0');
  fuse_lseek_in seek = {};
  seek.whence = SEEK_DATA;
  const std::map<uint64_t, const char*> kinds = {
      {kernel_.SendLookup(1, "7"), "LOOKUP"},
      {kernel_.Send(FUSE_GETATTR, 3, none), "GETATTR"},
      {kernel_.Send(FUSE_READLINK, 3), "READLINK"},
      {kernel_.SendOpen(3), "OPEN"},
      {kernel_.SendRead(3, 9, 0, 4096), "READ"},
      {kernel_.Send(FUSE_LSEEK, 3, testing::BytesOf(seek)), "LSEEK"},
      {kernel_.Send(FUSE_OPENDIR, 3, none), "OPENDIR"},
      {kernel_.SendReadDirectory(false, 9, 0, 4096), "READDIR"},
      {kernel_.SendReadDirectory(true, 9, 0, 4096), "READDIRPLUS"},
      {kernel_.Send(FUSE_STATFS, 3), "STATFS"},
      {kernel_.Send(FUSE_SETLKW, 3, none), "SETLKW"},
      {kernel_.Send(FUSE_FLUSH, 3, none), "FLUSH"},
  };
  const int count = static_cast<int>(kinds.size());
  RunUntil([&] { return server_.waiting == count; });
  for (const auto& [unique, name] : kinds) kernel_.SendInterrupt(unique);
  for (int i = 0; i < count; ++i) {
    const FakeFuseKernel::Answer answer = Receive();
    EXPECT_EQ(answer.error, EINTR) << kinds.at(answer.unique);
  }
  ExpectAllSlotsFree();
}

TEST_F(SessionTest, InterruptWhileTheServerAnswersIsNotSeen) {
  server_.parked = true;
  const uint64_t unique = kernel_.SendRead(3, 9, 0, 4096);
  RunUntil([this] { return server_.waiting == 1; });
  kernel_.SendInterrupt(unique);
  kernel_.SendInterrupt(unique);  // The kernel never says it twice; if it does, once is enough.
  RunUntil([this] { return agent_->counters().interrupts == 2; });
  server_.released.Set();
  EXPECT_EQ(Receive().error, 0);
  ExpectAllSlotsFree();
}

TEST_F(SessionTest, InterruptBeforeItsRequest) {
  server_.parked = true;
  const uint64_t unique = kernel_.Reserve();
  kernel_.SendInterrupt(unique);
  RunUntil([this] { return agent_->counters().early_interrupts == 1; });
  kernel_.SendReserved(unique, FUSE_STATFS, 1, "");
  const FakeFuseKernel::Answer answer = Receive();
  EXPECT_EQ(answer.unique, unique);
  EXPECT_EQ(answer.error, EINTR);
  ExpectAllSlotsFree();
}

TEST_F(SessionTest, InterruptAfterTheAnswerIsGivenBackWithTheNextRequest) {
  const uint64_t unique = kernel_.SendLookup(1, "7");
  EXPECT_EQ(Receive().error, 0);
  kernel_.SendInterrupt(unique);
  ExpectNoAnswer();
  kernel_.SendLookup(1, "8");
  const FakeFuseKernel::Answer again = Receive();
  EXPECT_EQ(again.unique, unique | FakeFuseKernel::kInterruptBit);
  EXPECT_EQ(again.error, EAGAIN);
  EXPECT_EQ(Receive().error, 0);
  ExpectAllSlotsFree();
}

TEST_F(SessionTest, FloodOfInterruptsForNobodyIsBounded) {
  for (uint64_t i = 0; i < 200; ++i) kernel_.SendInterrupt(1'000'000 + 2 * i);
  RunUntil([this] { return agent_->counters().early_interrupts == 200; });
  int answered = 0;
  while (const auto answer = kernel_.TryReceive()) {
    EXPECT_EQ(answer->error, EAGAIN);
    ++answered;
  }
  EXPECT_EQ(answered, 200 - 64);
}

TEST_F(SessionTest, MalformedInterruptIsDropped) {
  kernel_.Send(FUSE_INTERRUPT, 0, "");
  RunUntil([this] { return agent_->counters().malformed == 1; });
  ExpectAllSlotsFree();
}

// ---- Forgetting ----

TEST_F(SessionTest, ForgetDuringLookup) {
  kernel_.SendLookup(1, "7");
  Receive();
  server_.parked = true;
  kernel_.SendLookup(1, "7");
  RunUntil([this] { return server_.waiting == 1; });
  kernel_.SendForget(7, 1);
  RunUntil([this] { return server_.calls["forget"] == 1; });
  EXPECT_EQ(server_.lookups[7], 0u);
  server_.released.Set();
  EXPECT_EQ(Receive().error, 0);
  EXPECT_EQ(server_.lookups[7], 1u);
  ExpectAllSlotsFree();
}

TEST_F(SessionTest, BatchForgetCountsEach) {
  server_.lookups = {{7, 3}, {8, 2}};
  const fuse_batch_forget_in batch = {2, 0};
  const fuse_forget_one forgets[] = {{7, 2}, {8, 2}};
  kernel_.Send(FUSE_BATCH_FORGET, 0,
               std::string(testing::BytesOf(batch)) + std::string(testing::BytesOf(forgets)));
  RunUntil([this] { return server_.calls["forget"] == 2; });
  EXPECT_EQ(server_.lookups[7], 1u);
  EXPECT_EQ(server_.lookups[8], 0u);
  ExpectNoAnswer();
  ExpectAllSlotsFree();
}

// ---- Death ----

TEST_F(SessionTest, KillWithRequestsInFlightAndEachIsAnsweredOnce) {
  server_.parked = true;
  std::map<uint64_t, int> answers;
  for (int i = 0; i < 50; ++i) {
    answers[kernel_.SendLookup(1, std::to_string(i + 2))] = 0;
    answers[kernel_.SendRead(3, 9, 0, 65536)] = 0;
  }
  RunUntil([this] { return server_.waiting == 100; });
  StartAgent();
  RunUntil([this] { return server_.waiting == 100; });
  EXPECT_EQ(agent_->counters().adopted_requests, 100);
  EXPECT_FALSE(kernel_.TryReceive().has_value());
  server_.released.Set();
  for (int i = 0; i < 100; ++i) {
    const FakeFuseKernel::Answer answer = Receive();
    EXPECT_EQ(answer.error, 0);
    ++answers.at(answer.unique);
  }
  for (const auto& [unique, count] : answers) EXPECT_EQ(count, 1);
  ExpectNoAnswer();
  ExpectAllSlotsFree();
}

TEST_F(SessionTest, KillBetweenReadAndStart) {
  agent_->session->StopReading();
  const uint64_t unique = kernel_.SendLookup(1, "7");
  const RequestArena::Read read = agent_->arena->ReadRequest(agent_->session->fuse_fd(), kMount);
  ASSERT_EQ(read.result, RequestArena::ReadResult::kRequest);
  StartAgent();
  const FakeFuseKernel::Answer answer = Receive();
  EXPECT_EQ(answer.unique, unique);
  EXPECT_EQ(answer.error, 0);
  EXPECT_EQ(server_.lookups[7], 1u);
  ExpectAllSlotsFree();
}

TEST_F(SessionTest, KillBetweenTheJournalAndTheAnswer) {
  agent_->session->StopReading();
  const uint64_t unique = kernel_.SendLookup(1, "7");
  const RequestArena::Read read = agent_->arena->ReadRequest(agent_->session->fuse_fd(), kMount);
  ASSERT_EQ(read.result, RequestArena::ReadResult::kRequest);
  agent_->arena->MarkDone(read.slot, 0, std::string("the answer that was given"));
  StartAgent();
  const FakeFuseKernel::Answer answer = Receive();
  EXPECT_EQ(answer.unique, unique);
  EXPECT_EQ(answer.body, "the answer that was given");
  EXPECT_EQ(server_.calls["lookup"], 0);  // Not counted a second time.
  EXPECT_EQ(agent_->counters().adopted_answers, 1);
  ExpectAllSlotsFree();
}

TEST_F(SessionTest, AnswersThatMustNotBeComputedTwiceAreJournaled) {
  struct {
    const char* name;
    std::function<uint64_t()> send;
    bool journaled;
  } const kCases[] = {
      {"LOOKUP", [this] { return kernel_.SendLookup(1, "7"); }, true},
      {"LOOKUP of nothing", [this] { return kernel_.SendLookup(1, "x"); }, false},
      {"OPEN", [this] { return kernel_.SendOpen(3); }, true},
      {"READ", [this] { return kernel_.SendRead(3, 9, 0, 100); }, false},
      {"FLUSH", [&] { return kernel_.Send(FUSE_FLUSH, 3, std::string(24, 0)); }, true},
      {"SETLK", [&] { return kernel_.Send(FUSE_SETLK, 3, std::string(48, 0)); }, true},
      {"GETLK", [&] { return kernel_.Send(FUSE_GETLK, 3, std::string(48, 0)); }, false},
  };
  static RequestSlot watched;
  static bool seen_done;
  for (const auto& c : kCases) {
    SCOPED_TRACE(c.name);
    agent_->session->StopReading();
    c.send();
    const RequestArena::Read read = agent_->arena->ReadRequest(agent_->session->fuse_fd(), kMount);
    ASSERT_EQ(read.result, RequestArena::ReadResult::kRequest);
    watched = read.slot;
    seen_done = false;
    state::store_hook = [] { seen_done |= watched.state() == state::SlotState::kDone; };
    agent_->session->Adopt({read.slot});
    Receive();
    state::store_hook = nullptr;
    EXPECT_EQ(seen_done, c.journaled);
    agent_->session->Start();
  }
}

TEST_F(SessionTest, ForgetThatTheDeadHadBegunIsDropped) {
  server_.lookups[7] = 1;
  agent_->session->StopReading();
  kernel_.SendForget(7, 1);
  const RequestArena::Read read = agent_->arena->ReadRequest(agent_->session->fuse_fd(), kMount);
  ASSERT_EQ(read.result, RequestArena::ReadResult::kRequest);
  agent_->arena->MarkStarted(read.slot);
  StartAgent();
  EXPECT_EQ(agent_->counters().dropped_forgets, 1);
  EXPECT_EQ(server_.calls["forget"], 0);
  ExpectAllSlotsFree();
}

TEST_F(SessionTest, InterruptOutlivesTheAgentThatHeardIt) {
  server_.parked = true;
  const uint64_t unique = kernel_.SendRead(3, 9, 0, 4096);
  RunUntil([this] { return server_.waiting == 1; });
  kernel_.SendInterrupt(unique);
  RunUntil([this] { return agent_->counters().interrupts == 1; });
  StartAgent();  // Within the grace.
  const FakeFuseKernel::Answer answer = Receive();
  EXPECT_EQ(answer.unique, unique);
  EXPECT_EQ(answer.error, EINTR);
  ExpectAllSlotsFree();
}

TEST_F(SessionTest, AnswerAfterTheKernelIsGone) {
  ASSERT_NE(signal(SIGPIPE, SIG_IGN), SIG_ERR);
  server_.parked = true;
  kernel_.SendLookup(1, "7");
  RunUntil([this] { return server_.waiting == 1; });
  shutdown(kernel_.fd(), SHUT_RDWR);
  server_.released.Set();
  RunUntil([this] { return agent_->session->in_flight() == 0; });
  EXPECT_EQ(server_.lookups[7], 0u);  // Taken back.
  EXPECT_EQ(agent_->counters().write_failures, 1);
}

TEST_F(SessionTest, DrainWaitsForWhatIsInFlight) {
  server_.parked = true;
  kernel_.SendLookup(1, "7");
  RunUntil([this] { return server_.waiting == 1; });
  agent_->session->StopReading();
  kernel_.SendLookup(1, "8");  // Not read any more.
  absl::Status drained = absl::UnknownError("");
  struct Drain {
    static Task<void> Run(Session* session, absl::Duration most, absl::Status* status) {
      *status = co_await session->WaitUntilIdle(Deadline::After(most));
    }
  };
  loop_.RunUntilDone(Drain::Run(agent_->session.get(), absl::Milliseconds(10), &drained));
  EXPECT_TRUE(absl::IsDeadlineExceeded(drained));
  server_.released.Set();
  loop_.RunUntilDone(Drain::Run(agent_->session.get(), kTooLong, &drained));
  EXPECT_TRUE(drained.ok());
  EXPECT_EQ(Receive().error, 0);
  ExpectNoAnswer();
  StartAgent();
  EXPECT_EQ(Receive().error, 0);
}

// Else the kernel writes mapped pages back after the OPEN that has emptied their file.
TEST(SessionMakeTest, TheKernelEmptiesFilesByItself) {
  EXPECT_EQ(kInitFlags & (FUSE_ATOMIC_O_TRUNC | FUSE_WRITEBACK_CACHE), 0u);
}

TEST(SessionMakeTest, AnInitThatIsNoneIsRefused) {
  runtime::RealLoop loop;
  FakeFuseKernel kernel;
  FakeServer server;
  const UniqueFd arena_fd = *state::CreateSharedMemory("arena", state::kArenaBytes);
  const auto arena = *RequestArena::Map(arena_fd.get());
  const auto filesystem = testing::MakeFakeFilesystem(&server);
  ArenaRoom room(*arena, [] {});
  BufferPool buffers(1 << 20);
  std::string old_init = FakeFuseKernel::InitIn();
  old_init[sizeof(fuse_in_header)] = 6;  // major
  for (const std::string& init : {std::string(), std::string(40, '\0'), old_init}) {
    UniqueFd fd = kernel.OpenDevice();
    auto watch = loop.Watch(fd.get());
    const auto session = Session::Make({kMount, std::move(fd), init}, std::move(watch), *filesystem,
                                       room, buffers, [] {});
    EXPECT_FALSE(session.ok());
  }
}

}  // namespace
}  // namespace dfscsi::fuse
