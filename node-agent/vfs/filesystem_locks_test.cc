// Locks of files: what is asked of the server, who is kept out, and what outlives whom.

#include <errno.h>
#include <fcntl.h>
#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "node-agent/vfs/filesystem_locks_test_lab.h"

namespace dfscsi::vfs {
namespace {

using smb::wire::Command;
using smb::wire::NtStatus;
using testing::Closing;

TEST_F(LocksTest, TheServerHoldsWhatTheProgramsNeedTogether) {
  const struct {
    const char* name;
    std::vector<FileLock> steps;
    const char* held;
  } kCases[] = {
      {"one", {Lock(1, kW, 0, 9)}, "w0-9"},
      {"none any more", {Lock(1, kW, 0, 9), Lock(1, kU, 0, kEnd)}, ""},
      {"to the end", {Lock(1, kR, 5, kEnd)}, "r5-end"},
      {"two owners, one range", {Lock(1, kR, 0, 9), Lock(2, kR, 0, 9), Lock(1, kU, 0, 9)}, "r0-9"},
      {"twice the same", {Lock(1, kW, 0, 9), Lock(1, kW, 0, 9)}, "w0-9"},
      {"what is missing only", {Lock(1, kW, 10, 19), Lock(1, kW, 0, 29)}, "w0-9 w10-19 w20-29"},
      {"a part is unlocked", {Lock(1, kW, 0, 99), Lock(1, kU, 40, 59)}, "w0-39 w60-99"},
      {"a shared part is unlocked", {Lock(1, kR, 0, 99), Lock(1, kU, 0, 59)}, "r60-99"},
      {"a part is made shared", {Lock(1, kW, 0, 99), Lock(1, kR, 0, 49)}, "r0-49 w50-99"},
      {"all is made shared", {Lock(1, kW, 0, 99), Lock(1, kR, 0, 99)}, "r0-99"},
      {"a part is made exclusive",
       {Lock(1, kR, 0, 99), Lock(1, kW, 40, 59)},
       "r0-39 w40-59 r60-99"},
      {"shared by two, and one goes",
       {Lock(1, kR, 0, 19), Lock(2, kR, 10, 29), Lock(1, kU, 0, 19)},
       "r10-19 r20-29"},
  };
  for (const auto& test : kCases) {
    for (const FileLock& step : test.steps) {
      EXPECT_EQ(Set(step), absl::OkStatus()) << test.name;
    }
    EXPECT_EQ(Held(), test.held) << test.name;
    for (const uint64_t owner : {1, 2}) EXPECT_EQ(Try(owner, kU, 0, kEnd), 0);
    EXPECT_EQ(Held(), "") << test.name;
  }
  EXPECT_EQ(lab.tables().locks().size(), 0u);
}

TEST_F(LocksTest, AnotherMachineIsInTheWay) {
  LockAsOther(0, 9, /*exclusive=*/false);
  EXPECT_EQ(Try(1, kW, 5, 14), EAGAIN);
  EXPECT_EQ(Try(1, kR, 5, 14), 0);
  EXPECT_EQ(Held(), "r5-14");
  LockAsOther(20, 29, /*exclusive=*/true);
  EXPECT_EQ(Try(1, kR, 15, 40), EAGAIN);
  EXPECT_EQ(Held(), "r5-14");
  UnlockAsOther();
  EXPECT_EQ(Try(1, kW, 0, 40), 0);
  EXPECT_EQ(Held(), "w0-40");
}

TEST_F(LocksTest, ProgramsOfOneMountExcludeEachOtherWithoutTheServer) {
  ASSERT_EQ(Try(1, kW, 0, 9), 0);
  const int64_t before = lab.frames();
  EXPECT_EQ(Try(2, kR, 5, 5), EAGAIN);
  EXPECT_EQ(Get(Lock(2, kR, 0, 99)).pid, 5u);
  EXPECT_EQ(lab.frames(), before);
  // flock and fcntl do not meet on one machine.
  FileLock whole = Lock(3, kW, 0, kEnd);
  whole.kind = LockKind::kWhole;
  EXPECT_EQ(Set(whole), absl::OkStatus());
  EXPECT_EQ(Held(), "w0-9 w10-end");
}

TEST_F(LocksTest, ReadsAndWritesGoThroughTheHolder) {
  const state::FileHandle second = OpenIt();
  const state::FileHandle appending = OpenIt(O_WRONLY | O_APPEND);
  ASSERT_EQ(Try(1, kW, 0, kEnd), 0);
  for (const state::FileHandle one : {fh, second}) {
    EXPECT_EQ(lab.Write(one, 0, "ab"), absl::OkStatus());
    EXPECT_EQ(lab.Read(one, 0, 4).value_or("?"), "ab23");
  }
  EXPECT_EQ(lab.Write(appending, 0, "end"), absl::OkStatus());
  AttributesChange cut;
  cut.size_bytes = 12;
  cut.fh = fh;
  EXPECT_TRUE(lab.SetAttributes(lab.Walk("two/file"), cut).ok());
  EXPECT_EQ(lab.ContentOf("t1", "file"), "ab23456789en");
  EXPECT_EQ(Held(), "w0-end");
  // And with the last lock they go their own ways again.
  EXPECT_EQ(Try(1, kU, 0, kEnd), 0);
  EXPECT_EQ(lab.Write(appending, 0, "!"), absl::OkStatus());
  EXPECT_EQ(lab.Read(second, 10, 9).value_or("?"), "en!");
}

TEST_F(LocksTest, WhatAnotherMachineHasLockedIsRefused) {
  LockAsOther(0, 9, /*exclusive=*/true);
  EXPECT_EQ(ErrnoOf(lab.Read(fh, 0, 4).status()), EACCES);
  EXPECT_EQ(ErrnoOf(lab.Write(fh, 0, "ab")), EACCES);
  EXPECT_EQ(lab.Write(fh, 10, "ab"), absl::OkStatus());
  // The kernel reads whole pages: not through those who open it from now on.
  EXPECT_TRUE(lab.Open(lab.Walk("two/file"))->direct_io);
  EXPECT_FALSE(lab.Open(lab.Walk("two/beside"))->direct_io);
}

TEST_F(LocksTest, WhoCannotMakeItExclusiveKeepsItShared) {
  ASSERT_EQ(Try(1, kR, 0, 9), 0);
  LockAsOther(5, 5, /*exclusive=*/false);
  EXPECT_EQ(Try(1, kW, 0, 9), EAGAIN);
  EXPECT_EQ(Held(), "r0-9");
  EXPECT_EQ(lab.Read(fh, 0, 2).value_or("?"), "01");
  EXPECT_EQ(lab.counters().lost_locks, 0);
}

TEST_F(LocksTest, WhoCannotGetItBackHasLostIt) {
  ASSERT_EQ(Try(1, kR, 0, 9), 0);
  // Between unlocking it and locking it exclusively another machine takes it.
  lab.server("t1").AddRule(
      {.command = Command::kLock, .skip = 1, .action = {.status = NtStatus::kLockNotGranted}});
  EXPECT_EQ(Try(1, kW, 0, 9), EAGAIN);
  lab.server("t1").ClearRules();
  EXPECT_EQ(lab.counters().lost_locks, 1);
  EXPECT_EQ(ErrnoOf(lab.Read(fh, 0, 2).status()), EIO);
  EXPECT_EQ(ErrnoOf(lab.Write(fh, 0, "a")), EIO);
  EXPECT_EQ(Try(1, kR, 0, 9), EIO);
  EXPECT_EQ(lab.tables().locks().size(), 0u);
  EXPECT_EQ(lab.Read(OpenIt(), 0, 2).value_or("?"), "01");
}

TEST_F(LocksTest, WhoWaitsGetsItOnceItIsFree) {
  LockAsOther(0, 9, /*exclusive=*/true);
  const auto waiting = Begin(Lock(1, kW, 0, 9), runtime::Deadline::Never());
  EXPECT_FALSE(waiting->has_value());
  EXPECT_EQ(Try(2, kW, 20, 29), 0) << "nobody else waits";
  UnlockAsOther();
  EXPECT_EQ(Try(2, kU, 20, 29), 0);  // The server looks again at what waits.
  lab.RunFor(absl::Seconds(1));
  ASSERT_TRUE(waiting->has_value());
  EXPECT_EQ(**waiting, absl::OkStatus());
  EXPECT_EQ(Held(), "w0-9");
}

TEST_F(LocksTest, WhoWaitsForOneOfThisMountIsToldByIt) {
  ASSERT_EQ(Try(1, kW, 0, 9), 0);
  const auto waiting = Begin(Lock(2, kW, 5, 14), runtime::Deadline::Never());
  EXPECT_FALSE(waiting->has_value());
  EXPECT_EQ(lab.Flush(fh, 1), absl::OkStatus());
  lab.RunFor(absl::Seconds(1));
  ASSERT_TRUE(waiting->has_value());
  EXPECT_EQ(**waiting, absl::OkStatus());
  EXPECT_EQ(Held(), "w5-9 w10-14");
}

TEST_F(LocksTest, WhoIsInterruptedHoldsNothing) {
  for (const bool silent : {false, true}) {
    LockAsOther(0, 9, /*exclusive=*/true);
    runtime::CancelSource interrupt;
    const auto waiting = Begin(Lock(1, kW, 0, 9), interrupt.deadline());
    EXPECT_FALSE(waiting->has_value());
    lab.server("t1").options().silent = silent;
    lab.lab().agent().RunNow([&] { interrupt.Cancel(); });
    lab.RunFor(absl::Milliseconds(500));
    ASSERT_TRUE(waiting->has_value()) << silent;
    EXPECT_TRUE(absl::IsCancelled(**waiting)) << **waiting;
    lab.server("t1").options().silent = false;
    UnlockAsOther();
    EXPECT_EQ(Try(2, kW, 20, 29), 0);
    EXPECT_EQ(Try(2, kU, 20, 29), 0);
    lab.RunFor(absl::Seconds(5));
    EXPECT_EQ(Held(), "") << silent;
  }
}

TEST_F(LocksTest, WhatIsGrantedWhenNobodyWantsItIsGivenBack) {
  ASSERT_EQ(Try(2, kW, 20, 29), 0);
  lab.server("t1").AddRule(
      {.command = Command::kLock, .times = 1, .action = {.delay = absl::Seconds(6)}});
  runtime::CancelSource interrupt;
  const auto waiting = Begin(Lock(1, kW, 0, 9), interrupt.deadline());
  EXPECT_FALSE(waiting->has_value());
  lab.lab().agent().RunNow([&] { interrupt.Cancel(); });
  lab.RunFor(absl::Milliseconds(500));
  ASSERT_TRUE(waiting->has_value());
  EXPECT_TRUE(absl::IsCancelled(**waiting)) << **waiting;
  const absl::Time before = lab.now();
  EXPECT_EQ(Try(3, kW, 40, 49), 0);
  EXPECT_LT(lab.now() - before, absl::Seconds(1)) << "it is not held up by that";
  lab.RunFor(absl::Seconds(20));
  EXPECT_EQ(Held(), "w20-29 w40-49");
  EXPECT_EQ(lab.tables().locks().size(), 2u);
}

TEST_F(LocksTest, WhoWouldWaitForEverIsTold) {
  ASSERT_EQ(Try(1, kW, 0, 9), 0);
  ASSERT_EQ(Try(2, kW, 10, 19), 0);
  const auto waiting = Begin(Lock(1, kW, 10, 19), runtime::Deadline::Never());
  EXPECT_FALSE(waiting->has_value());
  EXPECT_EQ(ErrnoOf(Set(Lock(2, kW, 0, 9), /*wait=*/true)), EDEADLK);
  EXPECT_EQ(Try(2, kU, 0, kEnd), 0);
  lab.RunFor(absl::Seconds(1));
  EXPECT_TRUE(waiting->has_value());
}

TEST_F(LocksTest, WhoClosesGivesBack) {
  const state::FileHandle second = OpenIt();
  FileLock whole = Lock(7, kW, 0, kEnd);
  whole.kind = LockKind::kWhole;
  ASSERT_EQ(Set(whole), absl::OkStatus());
  ASSERT_EQ(Try(1, kW, 0, 9), 0);
  ASSERT_EQ(Try(2, kW, 20, 29), 0);
  EXPECT_EQ(lab.Flush(second, 1), absl::OkStatus()) << "any handle of the file";
  EXPECT_EQ(Try(3, kW, 0, 9), 0);
  EXPECT_EQ(Try(3, kW, 20, 29), EAGAIN);
  Release(fh);
  EXPECT_EQ(Held(), "");
  EXPECT_EQ(lab.tables().locks().size(), 0u);
  fh = second;
  EXPECT_EQ(Try(2, kW, 20, 29), 0);
  Release(second);
  EXPECT_EQ(Held(), "");
}

TEST_F(LocksTest, WhoIsInTheWay) {
  LockAsOther(40, 49, /*exclusive=*/true);
  LockAsOther(70, 79, /*exclusive=*/false);
  const struct {
    FileLock asked;
    LockType type;
    uint64_t first;
  } kCases[] = {
      {Lock(1, kW, 0, kEnd), kW, 40}, {Lock(1, kR, 0, 99), kW, 40},  {Lock(1, kW, 0, 39), kU, 0},
      {Lock(1, kW, 50, 99), kR, 70},  {Lock(1, kR, 50, 99), kU, 50}, {Lock(1, kW, 75, 75), kR, 75},
  };
  for (const auto& test : kCases) {
    const FileLock found = Get(test.asked);
    EXPECT_EQ(found.type, test.type) << test.asked.first;
    EXPECT_EQ(found.first, test.first);
    EXPECT_EQ(Held(), "");
  }
}

TEST_F(LocksTest, WhatIsReadUnderALockIsWhatTheServerHas) {
  const state::NodeId node = lab.Walk("two/file");
  ASSERT_TRUE(lab.GetAttributes(node).ok());
  File().Write(10, FilesystemLab::BytesOf("of another"));
  lab.invalidation().changed.clear();
  ASSERT_EQ(Try(1, kR, 0, 0), 0);
  EXPECT_GE(lab.invalidation().changed[node], 1);
  EXPECT_EQ(lab.GetAttributes(node)->attributes.st_size, 20);
}

TEST_F(LocksTest, NamesBesideALockedFileAreNotBelieved) {
  const state::NodeId two = lab.Walk("two");
  EXPECT_GT(lab.Lookup(two, "beside")->name_timeout, absl::ZeroDuration());
  ASSERT_EQ(Try(1, kR, 0, 0), 0);
  EXPECT_EQ(lab.Lookup(two, "beside")->name_timeout, absl::ZeroDuration());
  lab.share("t1").Remove("beside");
  EXPECT_EQ(ErrnoOf(lab.Lookup(two, "beside").status()), ENOENT);
  EXPECT_EQ(lab.Create(two, "new")->entry.name_timeout, absl::ZeroDuration());
}

TEST_F(LocksTest, AFileThatIsOnlyReadIsLockedToo) {
  for (const char* name : {"t1", "t2"}) lab.share(name).writable = false;
  fh = OpenIt(O_RDONLY, "two/beside");
  EXPECT_EQ(Try(1, kR, 0, 9), 0);
  EXPECT_EQ(lab.share("t1").Find("beside")->locks.size(), 1u);
  EXPECT_EQ(lab.Read(fh, 0, 3).value_or("?"), "bes");
}

TEST_F(LocksTest, EveryCloseIsSaidWhereItMayGiveLocksBack) {
  EXPECT_FALSE(lab.Open(lab.Walk("two/file"), O_RDONLY)->no_flush);
}

struct NoLocksTest : LocksTest {
  NoLocksTest() : LocksTest({.locks = false}) {}
};

TEST_F(NoLocksTest, NothingOfAReaderIsFlushed) {
  EXPECT_TRUE(lab.Open(lab.Walk("two/file"), O_RDONLY)->no_flush);
  EXPECT_FALSE(lab.Open(lab.Walk("two/file"), O_RDWR)->no_flush);
}

// --- Deaths

TEST_F(LocksTest, LocksOutliveTheAgent) {
  ASSERT_EQ(Try(1, kW, 0, 9), 0);
  ASSERT_EQ(Try(2, kR, 20, 29), 0);
  TakeOver();
  EXPECT_EQ(Held(), "w0-9 r20-29");
  EXPECT_EQ(lab.counters().retaken_locks, 2);
  EXPECT_EQ(Try(3, kW, 5, 5), EAGAIN);
  EXPECT_EQ(Try(1, kW, 0, 9), 0) << "asked again: its answer was lost";
  EXPECT_EQ(lab.Write(fh, 0, "ab"), absl::OkStatus());
  EXPECT_EQ(lab.Flush(fh, 1), absl::OkStatus());
  EXPECT_EQ(Held(), "r20-29");
}

TEST_F(LocksTest, WhatAnotherMachineHadByThenIsLost) {
  const state::FileHandle second = OpenIt();
  ASSERT_EQ(Try(1, kW, 0, 9), 0);
  FileLock kept = Lock(2, kW, 20, 29);
  kept.fh = second;
  ASSERT_EQ(Set(kept), absl::OkStatus());
  LockAsOther(5, 5, /*exclusive=*/true);
  TakeOver();
  EXPECT_EQ(Held(), "w20-29");
  EXPECT_EQ(lab.counters().lost_locks, 1);
  EXPECT_EQ(ErrnoOf(lab.Read(fh, 0, 2).status()), EIO);
  EXPECT_EQ(Try(1, kR, 40, 49), EIO);
  EXPECT_EQ(lab.Write(second, 20, "ab"), absl::OkStatus());
  TakeOver();
  EXPECT_EQ(ErrnoOf(lab.Read(fh, 0, 2).status()), EIO) << "for ever";
}

TEST_F(LocksTest, TheServerRestarts) {
  ASSERT_EQ(Try(1, kW, 0, 9), 0);
  lab.lab().Kill("t1");
  File().locks.clear();
  lab.RunFor(absl::Seconds(5));
  lab.lab().Start("t1");
  lab.RunFor(absl::Seconds(20));  // Nobody reads or writes.
  EXPECT_EQ(Held("t1"), "w0-9");
  EXPECT_EQ(Held("t2"), "");
  EXPECT_EQ(lab.Write(fh, 0, "ab"), absl::OkStatus());
  EXPECT_EQ(lab.ContentOf("t1", "file").substr(0, 3), "ab2");
  EXPECT_EQ(lab.counters().lost_locks, 0);
}

TEST_F(LocksTest, TheConnectionBreaks) {
  ASSERT_EQ(Try(1, kW, 0, 9), 0);
  lab.server("t1").AddRule({.command = Command::kWrite,
                            .times = 1,
                            .action = {.ignore = true, .close = Closing::kReset}});
  EXPECT_EQ(lab.Write(fh, 0, "ab"), absl::OkStatus());
  EXPECT_EQ(Held("t1"), "w0-9");
  EXPECT_EQ(lab.ContentOf("t1", "file").substr(0, 3), "ab2");
}

TEST_F(LocksTest, ItsServerDies) {
  ASSERT_EQ(Try(1, kW, 0, 9), 0);
  lab.lab().PowerOff("t1");
  lab.RunFor(absl::Seconds(10));
  EXPECT_EQ(Held("t2"), "") << "it may come back";
  lab.RunFor(absl::Minutes(2));
  EXPECT_EQ(Held("t2"), "w0-9");
  EXPECT_EQ(lab.Read(fh, 0, 2).value_or("?"), "01");
  EXPECT_EQ(lab.counters().lost_locks, 0);
}

TEST_F(LocksTest, ItsServerDiesAndTheOtherIsLockedByAnother) {
  ASSERT_EQ(Try(1, kW, 0, 9), 0);
  LockAsOther(0, 0, /*exclusive=*/true, "t2");
  lab.lab().PowerOff("t1");
  EXPECT_EQ(ErrnoOf(lab.Read(fh, 0, 2).status()), EIO);
  EXPECT_EQ(lab.counters().lost_locks, 1);
}

}  // namespace
}  // namespace dfscsi::vfs
