// OPEN, READ, LSEEK, FLUSH, RELEASE.

#include <errno.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <string.h>
#include <unistd.h>

#include <optional>
#include <string>
#include <vector>

#include "node-agent/vfs/filesystem_test_lab.h"

namespace dfscsi::vfs {
namespace {

using smb::wire::Command;
using smb::wire::FileRange;
using smb::wire::NtStatus;

std::string Content(const std::string& path, uint64_t offset, size_t size, uint64_t version = 0) {
  std::string bytes(size, '\0');
  testing::FillContent(testing::ContentSeed(path, version), offset,
                       {reinterpret_cast<uint8_t*>(bytes.data()), bytes.size()});
  return bytes;
}

TEST(FilesystemOpenFilesTest, ReadsUpToTheEnd) {
  FilesystemLab lab;
  lab.share("t1").AddFile("file", 3'000'000);
  lab.Mount("//t1/share");
  const state::FileHandle fh = lab.OpenPath("file");
  const struct {
    uint64_t offset;
    size_t size;
    size_t expected;
  } kCases[] = {{0, 10, 10},
                {100, 2'500'000, 2'500'000},
                {2'999'990, 100, 10},
                {3'000'000, 10, 0},
                {uint64_t{1} << 40, 10, 0}};
  for (const auto& test : kCases) {
    const absl::StatusOr<std::string> bytes = lab.Read(fh, test.offset, test.size);
    ASSERT_TRUE(bytes.ok()) << test.offset << ": " << bytes.status();
    EXPECT_EQ(*bytes == Content("file", test.offset, test.expected), true) << test.offset;
  }
  lab.filesystem().Release(fh);
  EXPECT_EQ(ErrnoOf(lab.Read(fh, 0, 1).status()), EBADF);
  EXPECT_EQ(ErrnoOf(lab.Seek(fh, 0, SEEK_DATA).status()), EBADF);
  lab.filesystem().Release(fh);  // Run again after a takeover.
  lab.RunFor(absl::Seconds(1));
  EXPECT_EQ(lab.server("t1").opens(), 0);
}

TEST(FilesystemOpenFilesTest, OpenFlags) {
  for (const bool read_only : {false, true}) {
    FilesystemLab lab;
    lab.share("t1").AddFile("file", 10);
    lab.share("t1").AddDirectory("dir");
    lab.share("t1").AddFile("denied", 10);
    lab.share("t1").writable = true;
    lab.Mount("//t1/share", {.read_only = read_only});
    const int writing = read_only ? EROFS : 0;
    const struct {
      const char* path;
      int flags;
      int error;
    } kCases[] = {{"file", O_RDONLY, 0},
                  {"file", O_RDONLY | O_NOFOLLOW | O_DIRECT, 0},
                  {"file", O_WRONLY, writing},
                  {"file", O_RDWR, writing},
                  {"file", O_RDONLY | O_TRUNC, writing},
                  {"file", O_RDONLY | O_APPEND, 0},
                  {"dir", O_RDONLY, EISDIR},
                  {"denied", O_RDONLY, EACCES}};
    for (const auto& test : kCases) {
      const state::NodeId node = lab.Walk(test.path);
      lab.share("t1").Find("denied")->denied = true;
      EXPECT_EQ(ErrnoOf(lab.Open(node, test.flags).status()), test.error)
          << test.path << " " << test.flags;
      lab.share("t1").Find("denied")->denied = false;
    }
  }
}

TEST(FilesystemOpenFilesTest, PagesAreKeptWhileTheFileIsWhatItWas) {
  FilesystemLab lab;
  testing::ScriptedFile& file = lab.share("t1").AddFile("file", 10);
  lab.Mount("//t1/share", {.locks = false});
  const state::NodeId node = lab.Walk("file");
  const absl::StatusOr<OpenReply> first = lab.Open(node);
  EXPECT_TRUE(first->keep_cache);
  EXPECT_TRUE(first->no_flush);
  file.last_write += absl::Seconds(1);
  const absl::StatusOr<OpenReply> second = lab.Open(node);
  EXPECT_FALSE(second->keep_cache);
  EXPECT_TRUE(lab.Read(second->fh, 0, 10).ok());
  EXPECT_TRUE(lab.Open(node)->keep_cache);
}

// The kernel drops the pages in open(2), after it has the answer: who opens in between must not be
// told to keep them, and would read what is left of the other file.
TEST(FilesystemOpenFilesTest, PagesAreKeptByNobodyBeforeWhoRenewsThemUsesItsHandle) {
  FilesystemLab lab;
  testing::ScriptedFile& file = lab.share("t1").AddFile("file", 10);
  lab.Mount("//t1/share");
  const state::NodeId node = lab.Walk("file");
  lab.filesystem().Release(lab.Open(node)->fh);
  file.last_write += absl::Seconds(1);
  const absl::StatusOr<OpenReply> renews = lab.Open(node);
  EXPECT_FALSE(renews->keep_cache);
  const absl::StatusOr<OpenReply> between = lab.Open(node);
  EXPECT_FALSE(between->keep_cache);
  // The last one that was told so counts: it has not dropped them yet.
  EXPECT_TRUE(lab.Read(renews->fh, 0, 10).ok());
  const absl::StatusOr<OpenReply> last = lab.Open(node);
  EXPECT_FALSE(last->keep_cache);
  EXPECT_EQ(lab.Flush(last->fh), absl::OkStatus());
  EXPECT_TRUE(lab.Open(node)->keep_cache);
  // And not if they became another file's again meanwhile.
  file.last_write += absl::Seconds(1);
  const absl::StatusOr<OpenReply> again = lab.Open(node);
  EXPECT_FALSE(again->keep_cache);
  file.last_write += absl::Seconds(1);
  lab.RunFor(absl::Seconds(5));
  ASSERT_TRUE(lab.Lookup(state::kRootNode, "file").ok());
  EXPECT_TRUE(lab.Read(again->fh, 0, 10).ok());
  EXPECT_FALSE(lab.Open(node)->keep_cache);
}

// LOOKUP, as open(2) does it first, sees the change; word of it has not reached the kernel.
TEST(FilesystemOpenFilesTest, AChangeThatTheKernelWasNotToldOfIsToldByTheNextOpen) {
  for (const bool taken_over : {false, true}) {
    FilesystemLab lab;
    testing::ScriptedFile& file = lab.share("t1").AddFile("file", 10);
    lab.Mount("//t1/share");
    const state::NodeId node = lab.Walk("file");
    lab.filesystem().Release(lab.Open(node)->fh);
    lab.RunFor(absl::Seconds(5));
    file.last_write += absl::Seconds(1);
    ASSERT_TRUE(lab.Lookup(state::kRootNode, "file").ok());
    lab.RunFor(absl::Milliseconds(1));  // Told behind the answer.
    EXPECT_EQ(lab.invalidation().changed[node], 1);
    if (taken_over) lab.TakeOver();
    EXPECT_FALSE(lab.OpenUndelivered(node)->keep_cache);
    const absl::StatusOr<OpenReply> second = lab.Open(node);  // The first answer was lost.
    EXPECT_FALSE(second->keep_cache);
    EXPECT_FALSE(second->direct_io);  // LOOKUP has told the size.
    EXPECT_TRUE(lab.Read(second->fh, 0, 10).ok());
    EXPECT_TRUE(lab.Open(node)->keep_cache);
  }
}

// One node has one set of pages.
TEST(FilesystemOpenFilesTest, HandlesOfDifferentFilesShareNoPages) {
  for (const bool taken_over : {false, true}) {
    FilesystemLab lab;
    lab.share("t1").AddFile("file", 10);
    lab.Mount("//t1/share");
    const state::NodeId node = lab.Walk("file");
    const absl::StatusOr<OpenReply> old = lab.Open(node);
    EXPECT_FALSE(old->direct_io);
    lab.share("t1").Remove("file");  // And another is renamed to its name.
    lab.share("t1").AddFile("file", 20);
    lab.RunFor(absl::Seconds(5));
    ASSERT_TRUE(lab.Lookup(state::kRootNode, "file").ok());
    if (taken_over) lab.TakeOver();
    for (int i = 0; i < 3; ++i) {
      const absl::StatusOr<OpenReply> fresh = lab.Open(node);
      EXPECT_TRUE(fresh->direct_io) << i;
      EXPECT_FALSE(fresh->keep_cache) << i;
    }
    lab.filesystem().Release(old->fh);
    const absl::StatusOr<OpenReply> first = lab.Open(node);
    EXPECT_FALSE(first->direct_io);
    EXPECT_FALSE(first->keep_cache) << "pages of the other file";
    EXPECT_TRUE(lab.Read(first->fh, 0, 10).ok());
    EXPECT_TRUE(lab.Open(node)->keep_cache);
  }
}

TEST(FilesystemOpenFilesTest, AShortAnswerIsNotTheEnd) {
  FilesystemLab lab;
  lab.share("t1").AddFile("big", 300'000);
  lab.Mount("//t1/share");
  const state::FileHandle fh = lab.OpenPath("big");
  lab.server("t1").AddRule(
      {.command = Command::kRead, .action = {.edit = [](std::vector<uint8_t>& message) {
                                    constexpr size_t kFixed =
                                        80;  // Header and the fixed part of READ's response.
                                    if (message.size() <= kFixed + 1) return;
                                    const uint32_t half =
                                        static_cast<uint32_t>((message.size() - kFixed + 1) / 2);
                                    message.resize(kFixed + half);
                                    memcpy(message.data() + 64 + 4, &half, sizeof(half));
                                  }}});
  const absl::StatusOr<std::string> bytes = lab.Read(fh, 0, 65'536);
  ASSERT_TRUE(bytes.ok()) << bytes.status();
  EXPECT_EQ(*bytes == Content("big", 0, 65'536), true) << bytes->size();
}

TEST(FilesystemOpenFilesTest, AFileThatEndsWhereItDidIsReadOnce) {
  FilesystemLab lab;
  lab.share("t1").AddFile("small", 100);
  lab.Mount("//t1/share");
  const state::FileHandle fh = lab.OpenPath("small");
  const int64_t before = lab.frames();
  EXPECT_EQ(lab.Read(fh, 0, 4096)->size(), 100u);
  EXPECT_EQ(lab.frames(), before + 1);
}

TEST(FilesystemOpenFilesTest, AHandleThatWasOpenedAnewIsNotLostByALateAnswer) {
  FilesystemLab lab;
  lab.share("t1").AddFile("big", 300'000);
  lab.Mount("//t1/share");
  const state::FileHandle fh = lab.OpenPath("big");
  for (const absl::Duration delay : {absl::ZeroDuration(), absl::Milliseconds(100)}) {
    lab.server("t1").AddRule({.command = Command::kRead,
                              .times = 1,
                              .action = {.delay = delay, .status = NtStatus::kFileClosed}});
  }
  struct Two {
    static runtime::Task<void> One(Filesystem* filesystem, state::FileHandle file, uint64_t at) {
      std::vector<uint8_t> bytes(4096);
      const absl::StatusOr<size_t> n =
          co_await filesystem->Read(file, at, absl::MakeSpan(bytes), runtime::Deadline::Never());
      EXPECT_TRUE(n.ok()) << n.status();
    }
    static runtime::Task<absl::Status> Run(Filesystem* filesystem, state::FileHandle file) {
      runtime::TaskGroup group;
      group.Spawn(One(filesystem, file, 0));
      group.Spawn(One(filesystem, file, 8192));
      co_return co_await group.WaitUntilEmpty(runtime::Deadline::Never());
    }
  };
  ASSERT_TRUE(lab.Await<absl::Status>([&] { return Two::Run(&lab.filesystem(), fh); }).has_value());
  EXPECT_EQ(lab.counters().rebinds, 1);
  lab.filesystem().Release(fh);
  lab.RunFor(absl::Seconds(5));
  EXPECT_LE(lab.server("t1").opens(), 1) << "the one that the server said was closed";
}

// Design §5's table, the row of reading: what stands at the path on the other target.
TEST(FilesystemOpenFilesTest, OnAnotherTargetTheSameCopyIsReadAndNoOther) {
  const struct {
    const char* what;
    std::optional<uint64_t> size;  // None: no such file.
    absl::Duration later;
    bool is_directory;
    bool check_identity;
    int error;
  } kCases[] = {
      {"the same", 1000, absl::ZeroDuration(), false, true, 0},
      {"a rounded time", 1000, absl::Seconds(2), false, true, 0},
      {"an earlier rounded time", 1000, -absl::Seconds(2), false, true, 0},
      {"another time", 1000, absl::Milliseconds(2001), false, true, ESTALE},
      {"an earlier time", 1000, -absl::Milliseconds(2001), false, true, ESTALE},
      {"another size", 1001, absl::ZeroDuration(), false, true, ESTALE},
      {"none", std::nullopt, absl::ZeroDuration(), false, true, ESTALE},
      {"a directory", 0, absl::ZeroDuration(), true, true, ESTALE},
      {"another time, unchecked", 1000, absl::Hours(1), false, false, 0},
      {"another size, unchecked", 2000, absl::Hours(1), false, false, 0},
      {"none, unchecked", std::nullopt, absl::ZeroDuration(), false, false, ESTALE},
  };
  for (const auto& test : kCases) {
    FilesystemLab lab;
    lab.share("t1").AddFile("file", 1000);
    if (test.is_directory) {
      lab.share("t2").AddDirectory("file");
    } else if (test.size.has_value()) {
      lab.share("t2").AddFile("file", *test.size).last_write += test.later;
    }
    lab.Mount("//root1/dfs", {.check_identity = test.check_identity});
    const state::FileHandle fh = lab.OpenPath("two/file");
    ASSERT_TRUE(lab.Read(fh, 0, 10).ok());
    lab.lab().Kill("t1");
    const absl::StatusOr<std::string> moved = lab.Read(fh, 100, 10);
    EXPECT_EQ(ErrnoOf(moved.status()), test.error) << test.what << ": " << moved.status();
    if (moved.ok()) EXPECT_EQ(*moved, Content("file", 100, 10)) << test.what;
    // For ever, also when the first target is back.
    lab.lab().Start("t1");
    lab.lab().Kill("t2");
    const absl::StatusOr<std::string> back = lab.Read(fh, 200, 10);
    EXPECT_EQ(ErrnoOf(back.status()), test.error) << test.what << ": " << back.status();
    EXPECT_EQ(lab.counters().stale_handles, test.error != 0 ? 1 : 0) << test.what;
  }
}

TEST(FilesystemOpenFilesTest, ManyReadsAfterABreakOpenTheFileOnce) {
  FilesystemLab lab;
  lab.share("t1").AddFile("file", 100'000);
  lab.Mount("//t1/share");
  const state::FileHandle fh = lab.OpenPath("file");
  ASSERT_TRUE(lab.Read(fh, 0, 10).ok());
  lab.server("t1").CloseConnections(testing::Closing::kReset);
  lab.RunFor(absl::Milliseconds(10));
  lab.server("t1").ClearLog();
  struct Reader {
    static runtime::Task<void> Run(Filesystem* filesystem, state::FileHandle file, uint64_t offset,
                                   int* right) {
      std::vector<uint8_t> bytes(100);
      const absl::StatusOr<size_t> n = co_await filesystem->Read(
          file, offset, absl::MakeSpan(bytes), runtime::Deadline::Never());
      if (n.ok() && std::string(bytes.begin(), bytes.end()) == Content("file", offset, 100)) {
        ++*right;
      }
    }
  };
  int right = 0;
  for (int i = 0; i < 20; ++i) {
    lab.lab().agent().Spawn(
        Reader::Run(&lab.filesystem(), fh, static_cast<uint64_t>(i) * 1000, &right));
  }
  lab.RunFor(absl::Seconds(5));
  EXPECT_EQ(right, 20);
  EXPECT_EQ(lab.counters().rebinds, 1);
  int opened = 0;
  for (const testing::ScriptedRequest& request : lab.server("t1").log()) {
    if (request.header.command == Command::kCreate && request.path == "file") ++opened;
  }
  EXPECT_EQ(opened, 1);
}

TEST(FilesystemOpenFilesTest, AHandleThatTheServerDroppedIsOpenedOnceMore) {
  for (const bool for_ever : {false, true}) {
    FilesystemLab lab;
    testing::ScriptedFile& file = lab.share("t1").AddFile("file", 1000);
    file.allocated = {{.offset = 0, .length_bytes = 500}};
    lab.Mount("//t1/share");
    const state::FileHandle fh = lab.OpenPath("file");
    for (const Command command : {Command::kRead, Command::kIoctl}) {
      testing::Rule rule{.command = command, .action = {.status = NtStatus::kFileClosed}};
      if (!for_ever) rule.times = 1;
      lab.server("t1").AddRule(rule);
    }
    EXPECT_EQ(ErrnoOf(lab.Read(fh, 0, 10).status()), for_ever ? EIO : 0);
    EXPECT_EQ(ErrnoOf(lab.Seek(fh, 0, SEEK_HOLE).status()), for_ever ? EIO : 0);
  }
}

TEST(FilesystemOpenFilesTest, OpenFilesOutliveTheAgent) {
  // On the server that it was open on its id tells, whatever others have written to it. Another id
  // may be that of a copy: the server's name may lead to another host by now.
  enum class Meanwhile { kNothing, kWritten, kReplaced, kCopy };
  for (const Meanwhile meanwhile :
       {Meanwhile::kNothing, Meanwhile::kWritten, Meanwhile::kReplaced, Meanwhile::kCopy}) {
    FilesystemLab lab;
    testing::ScriptedFile& file = lab.share("t1").AddFile("file", 1000);
    lab.Mount("//t1/share");
    const state::FileHandle fh = lab.OpenPath("file");
    lab.TakeOver();
    if (meanwhile == Meanwhile::kWritten) file.last_write += absl::Seconds(10);
    if (meanwhile == Meanwhile::kReplaced || meanwhile == Meanwhile::kCopy) {
      const absl::Time written = file.last_write;
      lab.share("t1").Remove("file");
      const bool copy = meanwhile == Meanwhile::kCopy;
      lab.share("t1").AddFile("file", 1000).last_write =
          written + (copy ? absl::ZeroDuration() : absl::Seconds(10));
    }
    const bool stale = meanwhile == Meanwhile::kReplaced;
    const absl::StatusOr<std::string> bytes = lab.Read(fh, 5, 10);
    EXPECT_EQ(ErrnoOf(bytes.status()), stale ? ESTALE : 0) << bytes.status();
    if (!stale) EXPECT_EQ(*bytes, Content("file", 5, 10));
    const auto flushed = lab.Await<absl::Status>(
        [&] { return lab.filesystem().Flush(fh, 1, runtime::Deadline::Never()); });
    EXPECT_EQ(ErrnoOf(*flushed), 0);
    lab.filesystem().Release(fh);
  }
}

TEST(FilesystemOpenFilesTest, ReadEndsWhenItIsCancelled) {
  FilesystemLab lab;
  lab.share("t1").AddFile("file", 1000);
  lab.Mount("//t1/share");
  const state::FileHandle fh = lab.OpenPath("file");
  lab.server("t1").options().silent = true;
  runtime::CancelSource interrupt;
  lab.lab().world().After(absl::Seconds(30),
                          [&] { lab.lab().agent().RunNow([&] { interrupt.Cancel(); }); });
  std::vector<uint8_t> bytes(10);
  const auto n = lab.Await<absl::StatusOr<size_t>>(
      [&] { return lab.filesystem().Read(fh, 0, absl::MakeSpan(bytes), interrupt.deadline()); });
  ASSERT_TRUE(n.has_value());
  EXPECT_TRUE(absl::IsCancelled(n->status())) << n->status();
  lab.server("t1").options().silent = false;
  EXPECT_EQ(lab.Read(fh, 0, 10).value_or("?"), Content("file", 0, 10));
}

TEST(FilesystemOpenFilesTest, SeekDataAndHole) {
  FilesystemLab lab;
  testing::ScriptedFile& file = lab.share("t1").AddFile("sparse", 1000);
  file.allocated = {{.offset = 100, .length_bytes = 100}, {.offset = 300, .length_bytes = 700}};
  lab.share("t1").AddFile("hole", 1000).allocated.emplace();
  lab.share("t1").AddFile("plain", 1000);
  lab.share("t1").AddFile("unable", 1000);
  lab.server("t1").AddRule({.fsctl = smb::wire::Fsctl::kQueryAllocatedRanges,
                            .path = "unable",
                            .action = {.status = NtStatus::kInvalidDeviceRequest}});
  lab.Mount("//t1/share");
  const struct {
    const char* path;
    uint64_t offset;
    int64_t data;  // Negative: the error.
    int64_t hole;
  } kCases[] = {
      {"sparse", 0, 100, 0},           {"sparse", 99, 100, 99},
      {"sparse", 100, 100, 200},       {"sparse", 199, 199, 200},
      {"sparse", 200, 300, 200},       {"sparse", 300, 300, 1000},
      {"sparse", 999, 999, 1000},      {"sparse", 1000, -ENXIO, -ENXIO},
      {"hole", 0, -ENXIO, 0},          {"hole", 500, -ENXIO, 500},
      {"plain", 0, 0, 1000},           {"plain", 999, 999, 1000},
      {"plain", 2000, -ENXIO, -ENXIO}, {"unable", 5, 5, 1000},
  };
  for (const auto& test : kCases) {
    const state::FileHandle fh = lab.OpenPath(test.path);
    for (const int whence : {SEEK_DATA, SEEK_HOLE}) {
      const absl::StatusOr<uint64_t> found = lab.Seek(fh, test.offset, whence);
      const int64_t got = found.ok() ? static_cast<int64_t>(*found) : -ErrnoOf(found.status());
      EXPECT_EQ(got, whence == SEEK_DATA ? test.data : test.hole)
          << test.path << " from " << test.offset << (whence == SEEK_DATA ? " data" : " hole");
    }
  }
  EXPECT_EQ(ErrnoOf(lab.Seek(lab.OpenPath("plain"), 0, SEEK_SET).status()), EINVAL);
}

// A server tells of 4,096 ranges in one answer: cut off, or none at all.
TEST(FilesystemOpenFilesTest, SeekGoesOnBehindTheRangesOfOneAnswer) {
  for (const bool cut_off : {true, false}) {
    FilesystemLab lab;
    lab.server("t1").options().cuts_ranges = cut_off;
    constexpr uint64_t kBlock = 4096;
    constexpr uint64_t kRanges = 10'000;
    testing::ScriptedFile& touching = lab.share("t1").AddFile("touching", kBlock * kRanges * 2);
    testing::ScriptedFile& broken = lab.share("t1").AddFile("broken", kBlock * kRanges * 2);
    touching.allocated.emplace();
    broken.allocated.emplace();
    for (uint64_t i = 0; i < kRanges; ++i) {
      touching.allocated->push_back({.offset = i * kBlock, .length_bytes = kBlock});
      broken.allocated->push_back({.offset = 2 * i * kBlock, .length_bytes = kBlock});
    }
    lab.Mount("//t1/share");
    const state::FileHandle whole = lab.OpenPath("touching");
    EXPECT_EQ(lab.Seek(whole, 0, SEEK_HOLE).value_or(1), kBlock * kRanges) << cut_off;
    EXPECT_EQ(lab.Seek(whole, 3, SEEK_DATA).value_or(1), 3u) << cut_off;
    EXPECT_EQ(ErrnoOf(lab.Seek(whole, kBlock * kRanges, SEEK_DATA).status()), ENXIO) << cut_off;
    const state::FileHandle holes = lab.OpenPath("broken");
    EXPECT_EQ(lab.Seek(holes, 0, SEEK_HOLE).value_or(1), kBlock) << cut_off;
    EXPECT_EQ(lab.Seek(holes, kBlock, SEEK_DATA).value_or(1), 2 * kBlock) << cut_off;
  }
}

}  // namespace
}  // namespace dfscsi::vfs
