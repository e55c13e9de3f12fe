// FALLOCATE and COPY_FILE_RANGE.

#include <errno.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/falloc.h>

#include <optional>
#include <string>

#include "node-agent/vfs/filesystem_test_lab.h"

namespace dfscsi::vfs {
namespace {

using smb::wire::Command;
using smb::wire::Fsctl;
using smb::wire::NtStatus;
using testing::Closing;
using testing::ScriptedShare;

struct SpaceTest : public ::testing::Test {
  SpaceTest() {
    lab.OnBoth([](ScriptedShare& share) {
      share.writable = true;
      share.AddText("file", "0123456789");
      share.AddText("other", "other");
    });
  }
  state::FileHandle MustOpen(const std::string& path, int flags) {
    const absl::StatusOr<OpenReply> open = lab.Open(lab.Walk(path), flags);
    EXPECT_TRUE(open.ok()) << open.status();
    return open.ok() ? open->fh : 0;
  }
  int Allocate(state::FileHandle fh, int mode, uint64_t offset, uint64_t length) {
    return ErrnoOf(lab.Change([=, this](runtime::Deadline until) {
      return lab.filesystem().Allocate(fh, mode, offset, length, nullptr, until);
    }));
  }
  absl::StatusOr<uint64_t> Copy(state::FileHandle from, uint64_t from_offset, state::FileHandle to,
                                uint64_t to_offset, uint64_t length) {
    return lab
        .Await<absl::StatusOr<uint64_t>>([=, this] {
          return lab.filesystem().CopyRange(from, from_offset, to, to_offset, length, nullptr,
                                            runtime::Deadline::Never());
        })
        .value_or(absl::DeadlineExceededError("it does not end"));
  }
  FilesystemLab lab;
};

TEST_F(SpaceTest, AllocationOnlyMakesBigger) {
  lab.Mount("//t1/share");
  const state::FileHandle fh = MustOpen("file", O_RDWR);
  EXPECT_EQ(Allocate(fh, 0, 2, 3), 0);
  EXPECT_EQ(lab.ContentOf("t1", "file"), "0123456789");
  EXPECT_EQ(Allocate(fh, FALLOC_FL_KEEP_SIZE, 0, 1000), 0);
  EXPECT_EQ(Allocate(fh, FALLOC_FL_KEEP_SIZE, 0, 3), 0);
  EXPECT_EQ(lab.ContentOf("t1", "file"), "0123456789");
  EXPECT_EQ(Allocate(fh, 0, 8, 4), 0);
  EXPECT_EQ(lab.ContentOf("t1", "file"), std::string("0123456789\0\0", 12));
  EXPECT_EQ(lab.GetAttributes(lab.Walk("file"))->attributes.st_size, 12);
  EXPECT_EQ(*lab.Read(fh, 9, 10), std::string("9\0\0", 3));
}

TEST_F(SpaceTest, HolesAndZeros) {
  lab.Mount("//t1/share");
  const state::FileHandle fh = MustOpen("file", O_RDWR);
  EXPECT_EQ(Allocate(fh, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 2, 3), 0);
  EXPECT_EQ(lab.ContentOf("t1", "file"), std::string("01\0\0\0"
                                                     "56789",
                                                     10));
  EXPECT_EQ(Allocate(fh, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 8, 100), 0);
  EXPECT_EQ(lab.ContentOf("t1", "file"), std::string("01\0\0\0"
                                                     "567\0\0",
                                                     10));
  EXPECT_EQ(Allocate(fh, FALLOC_FL_ZERO_RANGE, 7, 5), 0);
  EXPECT_EQ(lab.ContentOf("t1", "file"), std::string("01\0\0\0"
                                                     "56\0\0\0\0\0",
                                                     12));
}

TEST_F(SpaceTest, WhatCannotBeAllocated) {
  lab.Mount("//t1/share");
  const state::FileHandle fh = MustOpen("file", O_RDWR);
  EXPECT_EQ(Allocate(fh, FALLOC_FL_COLLAPSE_RANGE, 0, 3), EOPNOTSUPP);
  EXPECT_EQ(Allocate(fh, FALLOC_FL_INSERT_RANGE, 0, 3), EOPNOTSUPP);
  EXPECT_EQ(Allocate(fh, 0, 0, 0), EINVAL);
  EXPECT_EQ(Allocate(MustOpen("file", O_RDONLY), 0, 0, 100), EBADF);
  EXPECT_EQ(Allocate(99, 0, 0, 100), EBADF);
  lab.share("t1").free_bytes = 5;
  EXPECT_EQ(Allocate(fh, 0, 0, 100), ENOSPC);
  lab.share("t1").free_bytes.reset();
  // A server that cannot: told so, and nothing is changed.
  lab.server("t1").AddRule({.command = Command::kIoctl,
                            .fsctl = Fsctl::kSetSparse,
                            .action = {.status = NtStatus::kInvalidDeviceRequest}});
  EXPECT_EQ(Allocate(fh, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 2, 3), EOPNOTSUPP);
  EXPECT_EQ(lab.ContentOf("t1", "file"), "0123456789");
}

TEST_F(SpaceTest, AnAllocationWhoseAnswerWasLostIsMade) {
  lab.Mount("//t1/share");
  const state::FileHandle fh = MustOpen("file", O_RDWR);
  for (const bool executed : {true, false}) {
    lab.server("t1").ClearRules();
    lab.server("t1").AddRule(
        {.command = Command::kIoctl,
         .fsctl = Fsctl::kSetZeroData,
         .times = 1,
         .action = {.drop = executed, .ignore = !executed, .close = Closing::kReset}});
    EXPECT_EQ(Allocate(fh, FALLOC_FL_ZERO_RANGE, executed ? 0 : 5, 1), 0);
  }
  EXPECT_EQ(lab.ContentOf("t1", "file"), std::string("\0"
                                                     "1234\0"
                                                     "6789",
                                                     10));
  EXPECT_EQ(lab.counters().lost_answers, 2);
}

TEST_F(SpaceTest, TheServerCopies) {
  lab.Mount("//t1/share");
  const state::FileHandle from = MustOpen("file", O_RDONLY);
  const state::FileHandle to = MustOpen("other", O_RDWR);
  EXPECT_EQ(Copy(from, 2, to, 4, 3).value_or(0), 3u);
  EXPECT_EQ(lab.ContentOf("t1", "other"), "othe234");
  // The source ends before the range does.
  EXPECT_EQ(Copy(from, 8, to, 0, 100).value_or(0), 2u);
  EXPECT_EQ(lab.ContentOf("t1", "other"), "89he234");
  EXPECT_EQ(Copy(from, 10, to, 0, 100).value_or(1), 0u);
  EXPECT_EQ(lab.CountMutations("t1", Command::kWrite), 0);
  EXPECT_EQ(lab.GetAttributes(lab.Walk("other"))->attributes.st_size, 7);
}

TEST_F(SpaceTest, WhatTheKernelCopiesItself) {
  lab.namespace_share().AddLink("three", {.targets = {"t2/share"}});
  lab.Mount("//root1/dfs");
  const state::FileHandle from = MustOpen("two/file", O_RDONLY);
  EXPECT_EQ(ErrnoOf(Copy(from, 0, MustOpen("three/other", O_RDWR), 0, 3).status()), EXDEV);
  lab.server("t1").AddRule(
      {.command = Command::kIoctl, .action = {.status = NtStatus::kInvalidDeviceRequest}});
  const state::FileHandle to = MustOpen("two/other", O_RDWR);
  EXPECT_EQ(ErrnoOf(Copy(from, 0, to, 0, 3).status()), EOPNOTSUPP);
  EXPECT_EQ(ErrnoOf(Copy(to, 0, from, 0, 3).status()), EBADF);
  for (const char* name : {"t1", "t2"}) EXPECT_EQ(lab.ContentOf(name, "other"), "other");
}

}  // namespace
}  // namespace dfscsi::vfs
