// Locks of files where a server fails in the middle: what is given back, kept, and done once.

#include <errno.h>
#include <fcntl.h>
#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <string>

#include "node-agent/vfs/filesystem_locks_test_lab.h"

namespace dfscsi::vfs {
namespace {

using smb::wire::Command;
using smb::wire::NtStatus;
using testing::Closing;

struct LocksFaultsTest : LocksTest {
  // Of one byte that no file has: what an append is locked by.
  const std::string kEndLock = "w9223372036854775808-9223372036854775808";

  // t1 restarts, and its locks are taken there again; the link has moved to t2 meanwhile.
  void MoveTheLinkAndNotTheLocks() {
    lab.lab().Kill("t1");
    File().locks.clear();
    OpenIt(O_RDONLY, "two/beside");
    lab.RunFor(absl::Seconds(5));
    lab.lab().Start("t1");
    lab.RunFor(absl::Seconds(20));
  }
  // A write that goes on beside the test.
  std::shared_ptr<std::optional<absl::Status>> BeginWrite(state::FileHandle of,
                                                          const std::string& text,
                                                          runtime::Deadline until) {
    auto result = std::make_shared<std::optional<absl::Status>>();
    struct Writing {
      static runtime::Task<void> Run(Filesystem* filesystem, state::FileHandle of,
                                     absl::Span<const uint8_t> from, runtime::Deadline until,
                                     std::shared_ptr<std::optional<absl::Status>> into) {
        into->emplace(co_await filesystem->Write(of, 0, from, nullptr, until));
      }
    };
    lab.lab().agent().RunNow([&] {
      runtime::Loop::Current().Spawn(
          Writing::Run(&lab.filesystem(), of, FilesystemLab::BytesOf(text), until, result));
    });
    lab.RunFor(absl::Seconds(1));
    return result;
  }
};

TEST_F(LocksFaultsTest, WhoClosesDoesNotWaitForASilentServer) {
  ASSERT_EQ(Try(1, kW, 0, 9), 0);
  ASSERT_EQ(Try(2, kW, 20, 29), 0);
  lab.server("t1").options().silent = true;
  const absl::Time before = lab.now();
  EXPECT_EQ(lab.Flush(fh, 1), absl::OkStatus());
  EXPECT_LE(lab.now() - before, absl::Seconds(2));
  lab.server("t1").options().silent = false;
  lab.RunFor(absl::Seconds(30));
  EXPECT_EQ(Held(), "w20-29") << "it is given back nevertheless";
}

TEST_F(LocksFaultsTest, AnAppendWhoseAnswerIsLostIsLookedForWhereItWasSent) {
  ASSERT_EQ(Try(1, kW, 0, 9), 0);
  MoveTheLinkAndNotTheLocks();
  ASSERT_EQ(Held("t1"), "w0-9");
  const state::FileHandle appending = OpenIt(O_WRONLY | O_APPEND);
  lab.server("t1").AddRule(
      {.command = Command::kWrite, .times = 1, .action = {.drop = true, .close = Closing::kReset}});
  EXPECT_EQ(lab.Write(appending, 0, "ab"), absl::OkStatus());
  EXPECT_EQ(lab.ContentOf("t1", "file"), "0123456789ab");
  EXPECT_EQ(lab.ContentOf("t2", "file"), "0123456789");
  EXPECT_EQ(lab.counters().lost_answers, 1);
}

TEST_F(LocksFaultsTest, WhoReadsWhileLocksAreTakenAgainIsNotWaitedForByWhatWaitsForHim) {
  ASSERT_EQ(Try(1, kW, 0, 9), 0);
  lab.invalidation().may_drop = std::make_shared<runtime::Event>();
  lab.TakeOver();
  lab.lab().agent().RunNow([&] { lab.filesystem().ResumeInvalidations(); });
  const absl::Time before = lab.now();
  EXPECT_EQ(*lab.Read(fh, 0, 10), "0123456789");
  EXPECT_LE(lab.now() - before, absl::Seconds(1));
  lab.lab().agent().RunNow([&] { lab.invalidation().may_drop->Set(); });
  lab.RunFor(absl::Seconds(1));
  EXPECT_EQ(Held(), "w0-9");
}

TEST_F(LocksFaultsTest, TheJournalHasTheServerThatHoldsTheLocks) {
  ASSERT_EQ(Try(1, kW, 0, 9), 0);
  MoveTheLinkAndNotTheLocks();
  TestJournal moved, own;
  EXPECT_EQ(lab.Write(OpenIt(O_WRONLY), 0, "b", &moved), absl::OkStatus());
  EXPECT_EQ(lab.Write(fh, 1, "c", &own), absl::OkStatus());
  EXPECT_NE(own.last, 0u);
  EXPECT_EQ(moved.last, own.last);
  EXPECT_EQ(lab.ContentOf("t1", "file"), "bc23456789");
}

TEST_F(LocksFaultsTest, WhatWasWrittenOnOneServerIsNotGoneOnWithOnAnother) {
  ASSERT_EQ(Try(1, kW, 0, 9), 0);
  MoveTheLinkAndNotTheLocks();
  const state::FileHandle second = OpenIt(O_RDWR);
  ASSERT_EQ(lab.Write(second, 0, "b"), absl::OkStatus());
  EXPECT_EQ(lab.ContentOf("t1", "file"), "b123456789");
  EXPECT_EQ(Try(1, kU, 0, 9), 0);
  EXPECT_EQ(ErrnoOf(lab.Write(second, 1, "c")), ESTALE) << "the link leads to t2";
  EXPECT_EQ(lab.ContentOf("t2", "file"), "0123456789");
}

TEST_F(LocksFaultsTest, WhoAppendsAndIsKilledTakesNoLocksWithHim) {
  const state::FileHandle appending = OpenIt(O_WRONLY | O_APPEND);
  ASSERT_EQ(Try(2, kW, 0, 9), 0);
  lab.server("t1").AddRule(
      {.command = Command::kWrite, .times = 1, .action = {.delay = absl::Seconds(4)}});
  runtime::CancelSource interrupt;
  const std::string text(300000, 'x');
  const auto writing = BeginWrite(appending, text, interrupt.deadline());
  EXPECT_EQ(Held(), "w0-9 " + kEndLock);
  lab.lab().agent().RunNow([&] { interrupt.Cancel(); });
  lab.RunFor(absl::Seconds(1));
  ASSERT_TRUE(writing->has_value());
  EXPECT_EQ(ErrnoOf(**writing), EIO);
  EXPECT_EQ(Held(), "w0-9 " + kEndLock) << "what was sent is not yet executed";
  for (int i = 0; i < 20; ++i) {
    lab.RunFor(absl::Milliseconds(500));
    EXPECT_EQ(Held().substr(0, 4), "w0-9");
  }
  EXPECT_EQ(Held(), "w0-9");
  EXPECT_EQ(lab.counters().retaken_locks, 0);
  EXPECT_EQ(lab.Write(appending, 0, "end"), absl::OkStatus());
  EXPECT_EQ(lab.ContentOf("t1", "file"), "0123456789" + text + "end");
}

TEST_F(LocksFaultsTest, WhoCannotMakeItExclusiveKeepsItSharedWhateverTheServerSays) {
  const struct {
    const char* failing;
    int64_t skip, times;
  } kCases[] = {{"the unlock", 0, 2}, {"the lock", 1, 1}};
  for (const auto& test : kCases) {
    ASSERT_EQ(Try(1, kR, 0, 9), 0);
    lab.server("t1").AddRule({.command = Command::kLock,
                              .skip = test.skip,
                              .times = test.times,
                              .action = {.status = NtStatus::kInternalError}});
    EXPECT_NE(Try(1, kW, 0, 9), 0) << test.failing;
    lab.server("t1").ClearRules();
    EXPECT_EQ(Held(), "r0-9") << test.failing;
    EXPECT_EQ(Try(1, kU, 0, 9), 0);
    EXPECT_EQ(Held(), "") << test.failing;
  }
  EXPECT_EQ(lab.counters().lost_locks, 0);
}

// One of two that are to become exclusive is unlocked, the other is not.
TEST_F(LocksFaultsTest, WhatIsUnlockedInPartIsHeldAgain) {
  ASSERT_EQ(Try(1, kR, 0, 9), 0);
  ASSERT_EQ(Try(1, kR, 20, 29), 0);
  // Of the whole, of the first, and of the second alone.
  lab.server("t1").AddRule(
      {.command = Command::kLock, .times = 1, .action = {.status = NtStatus::kInternalError}});
  lab.server("t1").AddRule({.command = Command::kLock,
                            .skip = 1,
                            .times = 1,
                            .action = {.status = NtStatus::kInternalError}});
  EXPECT_NE(Try(1, kW, 0, 29), 0);
  lab.server("t1").ClearRules();
  EXPECT_EQ(Held(), "r0-9 r20-29");
  EXPECT_EQ(lab.counters().lost_locks, 0);
}

TEST_F(LocksFaultsTest, WhatCannotBeRecordedAnyMoreIsGivenBack) {
  lab.server("t1").AddRule(
      {.command = Command::kLock, .times = 1, .action = {.delay = absl::Seconds(4)}});
  const auto waiting = Begin(Lock(1, kW, 0, 9), runtime::Deadline::Never());
  EXPECT_FALSE(waiting->has_value());
  while (lab.tables().locks().HasRoom(1)) {
    ASSERT_TRUE(lab.tables().locks().Add({.node = 1, .fh = 0, .owner = 9}).ok());
  }
  lab.RunFor(absl::Seconds(10));
  ASSERT_TRUE(waiting->has_value());
  EXPECT_EQ(ErrnoOf(**waiting), ENOLCK);
  EXPECT_EQ(Held(), "");
}

}  // namespace
}  // namespace dfscsi::vfs
