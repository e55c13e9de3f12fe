// Writes that are acknowledged before their server has them.

#include "node-agent/vfs/write_behind.h"

#include <errno.h>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "node-agent/vfs/write_behind_test_lab.h"

namespace dfscsi::vfs {
namespace {

using runtime::CancelSource;
using runtime::Deadline;
using runtime::Task;
using smb::wire::Command;
using smb::wire::NtStatus;
using ::testing::HasSubstr;
using ::testing::Not;
using testing::ScriptedShare;

TEST_F(WriteBehindTest, UnderALeaseAWriterDoesNotWaitForTheServer) {
  Mount("//t1/share");
  const state::FileHandle fh = MustOpen("file");
  Hold(absl::Milliseconds(500));
  std::vector<std::shared_ptr<EarlyWrite>> writes;
  for (int i = 0; i < 4; ++i) writes.push_back(Write(fh, 64 + i * 4, std::string(4, 'a' + i)));
  lab.RunFor(absl::Milliseconds(100));
  for (const auto& write : writes) {
    EXPECT_TRUE(write->answered);
    EXPECT_FALSE(write->ended.has_value());
    EXPECT_EQ(write->sends, 1);  // All of them are on the wire.
  }
  EXPECT_TRUE(lab.filesystem().HasUnwritten(fh));
  lab.RunFor(absl::Seconds(1));
  for (const auto& write : writes) EXPECT_EQ(write->ended, absl::OkStatus());
  EXPECT_FALSE(lab.filesystem().HasUnwritten(fh));
  EXPECT_EQ(lab.ContentOf("t1", "file").substr(64, 16), "aaaabbbbccccdddd");
  EXPECT_EQ(lab.counters().early_writes, 4);
  EXPECT_EQ(lab.counters().early_failures, 0);
}

TEST_F(WriteBehindTest, WithoutWhatItNeedsAWriteIsAcknowledgedByItsServer) {
  struct {
    const char* name;
    std::function<void(WriteBehindTest&, EarlyWrite&)> spoil;
    int flags = O_RDWR;
    Options options = {};
  } const kCases[] = {
      {"nothing", nullptr},
      {"no lease", [](WriteBehindTest& t, EarlyWrite&) { t.leased = false; }},
      {"it must not be", [](WriteBehindTest&, EarlyWrite& write) { write.held = 0; }},
      {"a dead agent has sent it", [](WriteBehindTest&, EarlyWrite& write) { write.before = 77; }},
      {"cache=none", nullptr, O_RDWR, {.pages = false}},
      {"failover_writes=replay", nullptr, O_RDWR, {.replay_writes = true}},
      {"O_APPEND", nullptr, O_WRONLY | O_APPEND},
      {"locked",
       [](WriteBehindTest& t, EarlyWrite&) {
         const FileLock lock{.type = LockType::kExclusive,
                             .owner = 5,
                             .first = 40,
                             .last = 50,
                             .fh = t.MustOpen("file")};
         EXPECT_EQ(t.lab.Change([&](Deadline until) {
           return t.lab.filesystem().SetLock(lock, false, until);
         }),
                   absl::OkStatus());
       }},
      {"a silent server",
       [](WriteBehindTest& t, EarlyWrite&) {
         t.lab.server("t1").options().silent = true;
         auto look = std::make_shared<EarlyWrite>();
         look->text = "x";
         look->held = 0;
         t.Start(t.opened, 20, look);
         t.lab.RunFor(absl::Seconds(5));
       }},
  };
  for (const auto& c : kCases) {
    SCOPED_TRACE(c.name);
    leased = true;
    lab.server("t1").options().silent = false;
    Mount("//t1/share", c.options);
    const state::FileHandle fh = MustOpen("file", c.flags);
    opened = fh;
    auto write = std::make_shared<EarlyWrite>();
    write->text = "text";
    if (c.spoil != nullptr) c.spoil(*this, *write);
    Start(fh, 64, write);
    EXPECT_EQ(write->answered, c.spoil == nullptr && c.flags == O_RDWR && c.options.pages &&
                                   !c.options.replay_writes);
    lab.lab().agent().RunNow([this] { calls = std::make_unique<runtime::TaskGroup>(); });
  }
}

// --- What waits

struct DrainCase {
  const char* name;
  std::function<Task<absl::Status>(WriteBehindTest&, Deadline)> call;
};

template <class T>
Task<absl::Status> StatusOf(Task<absl::StatusOr<T>> call) {
  co_return (co_await std::move(call)).status();
}

struct WriteBehindDrainTest : WriteBehindTest {
  std::vector<DrainCase> Cases();
  state::NodeId node = 0, other_node = 0, dir = 0;
  state::FileHandle fh = 0, second = 0, other = 0;
  std::vector<uint8_t> buffer = std::vector<uint8_t>(64);
};

std::vector<DrainCase> WriteBehindDrainTest::Cases() {
  Filesystem* const fs = &lab.filesystem();
  const state::NodeId root = state::kRootNode;
  const auto lock = [](state::FileHandle by) {
    return FileLock{.type = LockType::kExclusive, .owner = 5, .first = 40, .last = 50, .fh = by};
  };
  using W = WriteBehindTest&;
  return {
      {"SETATTR",
       [=, this](W, Deadline d) {
         return StatusOf(fs->SetAttributes(node, {.size_bytes = 10}, nullptr, d));
       }},
      {"OPEN", [=, this](W, Deadline d) { return StatusOf(fs->Open(node, O_RDONLY, nullptr, d)); }},
      {"READ",
       [=, this](W, Deadline d) { return StatusOf(fs->Read(fh, 0, absl::MakeSpan(buffer), d)); }},
      {"READ by another handle",
       [=, this](W, Deadline d) {
         return StatusOf(fs->Read(second, 0, absl::MakeSpan(buffer), d));
       }},
      {"LSEEK", [=, this](W, Deadline d) { return StatusOf(fs->Seek(fh, 0, SEEK_DATA, d)); }},
      {"FSYNC", [=, this](W, Deadline d) { return fs->Sync(fh, d); }},
      {"FSYNC by another handle", [=, this](W, Deadline d) { return fs->Sync(second, d); }},
      {"FLUSH", [=, this](W, Deadline d) { return fs->Flush(fh, 1, d); }},
      {"RELEASE", [=, this](W, Deadline d) { return fs->AwaitWritten(fh, d); }},
      {"a lease that breaks", [=, this](W, Deadline d) { return fs->AwaitNodeWritten(node, d); }},
      {"SETLK", [=, this](W, Deadline d) { return fs->SetLock(lock(fh), false, d); }},
      {"GETLK", [=, this](W, Deadline d) { return StatusOf(fs->GetLock(lock(fh), d)); }},
      {"GETXATTR", [=, this](W, Deadline d) { return StatusOf(fs->GetXattr(node, "user.a", d)); }},
      {"LISTXATTR", [=, this](W, Deadline d) { return StatusOf(fs->ListXattrs(node, d)); }},
      {"SETXATTR",
       [=, this](W, Deadline d) { return fs->SetXattr(node, "user.a", "b", 0, nullptr, d); }},
      {"REMOVEXATTR",
       [=, this](W, Deadline d) { return fs->RemoveXattr(node, "user.a", nullptr, d); }},
      {"FALLOCATE", [=, this](W, Deadline d) { return fs->Allocate(fh, 0, 0, 100, nullptr, d); }},
      {"COPY_FILE_RANGE from it",
       [=, this](W, Deadline d) {
         return StatusOf(fs->CopyRange(fh, 0, other, 0, 8, nullptr, d));
       }},
      {"COPY_FILE_RANGE to it",
       [=, this](W, Deadline d) {
         return StatusOf(fs->CopyRange(other, 0, fh, 0, 4, nullptr, d));
       }},
      {"CREATE without O_EXCL",
       [=](W, Deadline d) { return StatusOf(fs->Create(root, "file", O_RDWR, nullptr, d)); }},
      {"MKNOD", [=](W, Deadline d) { return StatusOf(fs->MakeFile(root, "file", nullptr, d)); }},
      {"LINK",
       [=, this](W, Deadline d) { return StatusOf(fs->Link(node, root, "link", nullptr, d)); }},
      {"SYMLINK",
       [=](W, Deadline d) { return StatusOf(fs->MakeSymlink(root, "file", "x", nullptr, d)); }},
      {"WRITE at the end",
       [=, this](W, Deadline d) {
         static const std::string text = "x";
         return fs->WriteAtEnd(fh, FilesystemLab::BytesOf(text), nullptr, d);
       }},
      {"WRITE that is not acknowledged early",
       [=, this](W, Deadline d) {
         static const std::string text = "x";
         return fs->Write(fh, 30, FilesystemLab::BytesOf(text), nullptr, d);
       }},
      {"RENAME over it",
       [=](W, Deadline d) { return fs->Rename(root, "other", root, "file", 0, nullptr, d); }},
      {"RENAME of it",
       [=](W, Deadline d) { return fs->Rename(root, "file", root, "new", 0, nullptr, d); }},
      {"UNLINK", [=](W, Deadline d) { return fs->Unlink(root, "file", nullptr, d); }},
  };
}

TEST_F(WriteBehindDrainTest, WhateverElseIsDoneWithTheFileWaits) {
  size_t count = 1;
  for (size_t i = 0; i < count; ++i) {
    lab.OnBoth([](ScriptedShare& share) {
      if (share.Find("new") != nullptr) share.Remove("new");
      if (share.Find("file") != nullptr) share.Remove("file");
      share.AddText("file", std::string(64, '.'));
      if (share.Find("other") == nullptr) share.AddText("other", "other");
      if (share.Find("link") != nullptr) share.Remove("link");
    });
    lab.server("t1").ClearRules();
    Mount("//t1/share");
    node = lab.Walk("file");
    fh = MustOpen("file");
    second = MustOpen("file");
    other = MustOpen("other");
    const std::vector<DrainCase> cases = Cases();
    count = cases.size();
    SCOPED_TRACE(cases[i].name);
    Hold(absl::Seconds(10));
    const auto write = Write(fh, 64, "text");
    ASSERT_TRUE(write->answered);
    lab.server("t1").ClearRules();
    lab.RunFor(absl::Milliseconds(50));
    std::optional<absl::Status> ended;
    const auto run = [](Task<absl::Status> call, std::optional<absl::Status>* into) -> Task<void> {
      *into = co_await std::move(call);
    };
    lab.lab().agent().RunNow(
        [&] { calls->Spawn(run(cases[i].call(*this, Deadline::Never()), &ended)); });
    lab.RunFor(absl::Seconds(5));
    EXPECT_FALSE(ended.has_value());
    EXPECT_FALSE(write->ended.has_value());
    // Who waits can be killed.
    CancelSource killed;
    std::optional<absl::Status> killed_call;
    lab.lab().agent().RunNow(
        [&] { calls->Spawn(run(cases[i].call(*this, killed.deadline()), &killed_call)); });
    lab.RunFor(absl::Milliseconds(1));
    lab.lab().agent().RunNow([&] { killed.Cancel(); });
    lab.RunFor(absl::Milliseconds(10));
    EXPECT_TRUE(killed_call.has_value() && absl::IsCancelled(*killed_call));
    lab.RunFor(absl::Seconds(10));
    EXPECT_TRUE(ended.has_value());
    EXPECT_EQ(write->ended, absl::OkStatus());
    lab.lab().agent().RunNow([this] { calls = std::make_unique<runtime::TaskGroup>(); });
  }
  EXPECT_GT(count, 26u);
}

TEST_F(WriteBehindDrainTest, WhatIsDoneWithOtherFilesDoesNotWait) {
  Mount("//t1/share");
  fh = MustOpen("file");
  node = lab.Walk("file");
  other = MustOpen("other", O_RDWR);
  Hold(absl::Minutes(5));
  const auto write = Write(fh, 64, "text");
  ASSERT_TRUE(write->answered);
  lab.server("t1").ClearRules();
  EXPECT_TRUE(lab.Lookup(state::kRootNode, "other").ok());
  EXPECT_TRUE(lab.Read(other, 0, 5).ok());
  EXPECT_TRUE(lab.Sync(other).ok());
  EXPECT_TRUE(lab.Flush(other).ok());
  EXPECT_TRUE(lab.GetAttributes(lab.Walk("dir")).ok());
  EXPECT_TRUE(lab.GetAttributes(state::kRootNode).ok());
  EXPECT_TRUE(lab.OpenDirectory(lab.Walk("dir")).ok());
  EXPECT_TRUE(lab.GetStatistics(node).ok());
  EXPECT_TRUE(lab.Rename(state::kRootNode, "dir", state::kRootNode, "moved").ok());
  EXPECT_FALSE(write->ended.has_value());
}

TEST_F(WriteBehindTest, ADirectoryIsRenamedOnceNothingBelowItIsPending) {
  Mount("//t1/share");
  const state::FileHandle fh = MustOpen("dir/inner");
  Hold(absl::Seconds(5));
  const auto write = Write(fh, 64, "text");
  ASSERT_TRUE(write->answered);
  // Its name alone can be looked up.
  EXPECT_TRUE(lab.Lookup(state::kRootNode, "dir").ok());
  EXPECT_FALSE(write->ended.has_value());
  // The server refuses it, as long as a file below is open.
  EXPECT_EQ(ErrnoOf(lab.Rename(state::kRootNode, "dir", state::kRootNode, "moved")), EACCES);
  EXPECT_TRUE(write->ended.has_value());
}

TEST_F(WriteBehindTest, AWriteWaitsForOneThatItOverlaps) {
  Mount("//t1/share");
  const state::FileHandle fh = MustOpen("file");
  lab.server("t1").AddRule(
      {.command = Command::kWrite, .times = 1, .action = {.delay = absl::Seconds(1)}});
  const auto first = Write(fh, 64, "aaaa");
  const auto second = Write(fh, 67, "bbbb");
  const auto beside = Write(fh, 72, "cccc");
  lab.RunFor(absl::Milliseconds(500));
  EXPECT_TRUE(first->answered);
  EXPECT_FALSE(second->answered);
  EXPECT_TRUE(beside->answered);
  lab.RunFor(absl::Seconds(2));
  EXPECT_EQ(second->ended, absl::OkStatus());
  EXPECT_FALSE(second->answered);  // It is not behind the end.
  EXPECT_EQ(lab.ContentOf("t1", "file").substr(64), std::string("aaabbbb\0cccc", 12));
}

TEST_F(WriteBehindTest, WhatIsPendingIsBoundedByFileAndByMount) {
  Mount("//t1/share");
  for (int i = 0; i < 3; ++i) lab.share("t1").AddText(absl::StrCat("f", i), "");
  Hold(absl::Seconds(10));
  std::vector<std::shared_ptr<EarlyWrite>> writes;
  const auto answered = [&] {
    int count = 0;
    for (const auto& write : writes) count += write->answered ? 1 : 0;
    return count;
  };
  const state::FileHandle fh = MustOpen("f0");
  for (int i = 0; i < 12; ++i) writes.push_back(Write(fh, i, "x"));
  EXPECT_EQ(answered(), 8);
  for (const char* path : {"f1", "f2"}) {
    const state::FileHandle next = MustOpen(path);
    for (int i = 0; i < 12; ++i) writes.push_back(Write(next, i, "x"));
  }
  EXPECT_EQ(answered(), 16);
  // Who finds no room because of other files does not wait for them: their servers may be dead.
  EXPECT_EQ(writes_begun(), 16 + 12);
  lab.RunFor(absl::Minutes(1));
  EXPECT_EQ(answered(), 24);
  for (const auto& write : writes) EXPECT_EQ(write->ended, absl::OkStatus());
  // Small ones are bounded by their number.
  writes.clear();
  for (int i = 0; i < 100; ++i) writes.push_back(Write(fh, 12 + i, "x", 1024));
  EXPECT_EQ(answered(), 64);
  lab.RunFor(absl::Minutes(1));
  EXPECT_EQ(answered(), 100);
}

TEST_F(WriteBehindTest, ALeaseIsGivenBackOnceNothingIsPending) {
  lab.Mount("//t1/share");
  const state::FileHandle reader = MustOpen("other", O_RDONLY);
  const state::FileHandle fh = MustOpen("file");
  lab.server("t1").AddRule(
      {.command = Command::kWrite, .times = 1, .action = {.delay = absl::Seconds(5)}});
  const auto write = Write(fh, 64, "aaaa");
  EXPECT_TRUE(write->answered);
  const auto acknowledgments = [&] {
    int count = 0;
    for (const testing::ScriptedRequest& request : lab.server("t1").log()) {
      count += request.header.command == Command::kOplockBreak ? 1 : 0;
    }
    return count;
  };
  lab.lab().process("t1").RunNow(
      [&] { lab.server("t1").BreakLeases("share", "file", smb::wire::kLeaseRead); });
  lab.RunFor(absl::Seconds(2));
  // Whoever waits at the server goes on with all that was acknowledged, and nothing new is.
  EXPECT_EQ(acknowledgments(), 0);
  const auto late = Write(fh, 72, "bbbb");
  EXPECT_FALSE(late->answered);
  lab.RunFor(absl::Seconds(5));
  EXPECT_EQ(write->ended, absl::OkStatus());
  EXPECT_EQ(late->ended, absl::OkStatus());
  EXPECT_FALSE(late->answered);
  EXPECT_EQ(acknowledgments(), 1);
  lab.filesystem().Release(reader);
}

// --- Errors

TEST_F(WriteBehindTest, AnErrorIsToldOnceToTheHandleThatWrote) {
  struct {
    const char* name;
    std::function<absl::Status(WriteBehindTest&, state::FileHandle)> call;
  } const kCases[] = {
      {"fsync", [](WriteBehindTest& t, state::FileHandle fh) { return t.lab.Sync(fh); }},
      {"close", [](WriteBehindTest& t, state::FileHandle fh) { return t.lab.Flush(fh); }},
      {"write",
       [](WriteBehindTest& t, state::FileHandle fh) { return t.lab.Write(fh, 20, "more"); }},
      {"append",
       [](WriteBehindTest& t, state::FileHandle fh) { return t.lab.WriteAtEnd(fh, "more"); }},
  };
  for (const auto& c : kCases) {
    SCOPED_TRACE(c.name);
    lab.server("t1").ClearRules();
    Options options;
    options.name_in_log = "mount 7 (/mnt)";
    Mount("//t1/share", std::move(options));
    const state::FileHandle fh = MustOpen("file");
    const state::FileHandle second = MustOpen("file");
    const state::FileHandle third = MustOpen("file");
    for (const NtStatus status : {NtStatus::kDiskFull, NtStatus::kQuotaExceeded}) {
      lab.server("t1").AddRule({.command = Command::kWrite,
                                .times = 1,
                                .action = {.delay = absl::Seconds(1), .status = status}});
    }
    ::testing::internal::CaptureStderr();
    const auto full = Write(fh, 64, "aaaa");
    const auto quota = Write(second, 68, "bbbb");
    const auto good = Write(fh, 72, "cccc");
    EXPECT_TRUE(full->answered && quota->answered && good->answered);
    // Whoever takes over tells it, too.
    lab.RunFor(absl::Seconds(3));
    const std::string log = ::testing::internal::GetCapturedStderr();
    // Whose it was, but for the file's name.
    EXPECT_THAT(log, HasSubstr("E mount 7 (/mnt): //t1/share: a write that was acknowledged"));
    EXPECT_THAT(log, Not(HasSubstr("file")));
    TakeOver();
    EXPECT_EQ(c.call(*this, third), absl::OkStatus());
    for (const auto& [handle, error] : {std::pair(fh, ENOSPC), std::pair(second, EDQUOT)}) {
      const absl::Status told = c.call(*this, handle);
      EXPECT_TRUE(Filesystem::IsKeptError(told));
      EXPECT_EQ(ErrnoOf(told), error);
      lab.filesystem().NoteErrorTold(handle, ErrnoOf(told));
      EXPECT_EQ(c.call(*this, handle), absl::OkStatus());
    }
    // What was pending behind it had its own fate.
    EXPECT_EQ(lab.ContentOf("t1", "file").substr(64, 12), std::string(8, '\0') + "cccc");
    lab.share("t1").Remove("file");
    lab.share("t1").AddText("file", std::string(64, '.'));
  }
}

TEST_F(WriteBehindTest, MappedPagesAreWrittenAndTellNobodyOfAnEarlierError) {
  Mount("//t1/share");
  const state::FileHandle fh = MustOpen("file");
  lab.server("t1").AddRule(
      {.command = Command::kWrite, .times = 1, .action = {.status = NtStatus::kDiskFull}});
  const auto full = Write(fh, 64, "aaaa");
  EXPECT_TRUE(full->answered);
  auto page = std::make_shared<EarlyWrite>();
  page->text = "page";
  page->held = 0;
  page->of_pages = true;
  Start(fh, 72, page);
  EXPECT_EQ(page->ended, absl::OkStatus());
  EXPECT_EQ(lab.ContentOf("t1", "file").substr(64, 12), std::string(8, '\0') + "page");
  EXPECT_EQ(ErrnoOf(lab.Sync(fh)), ENOSPC);
}

TEST_F(WriteBehindTest, ALostServerIsAnErrorAfterItsGraceAndNoOtherCopyGetsTheBytes) {
  Mount("//root1/dfs", {}, {.write_grace = absl::Seconds(20)});
  const state::FileHandle fh = MustOpen("two/file");
  ASSERT_EQ(lab.Write(fh, 60, "...."), absl::OkStatus());
  Hold(absl::Minutes(5));
  const auto first = Write(fh, 64, "aaaa");
  const auto second = Write(fh, 68, "bbbb");
  EXPECT_TRUE(first->answered && second->answered);
  lab.lab().PowerOff("t1");
  lab.RunFor(absl::Seconds(15));
  EXPECT_FALSE(first->ended.has_value());
  lab.RunFor(absl::Minutes(2));
  ASSERT_TRUE(first->ended.has_value() && second->ended.has_value());
  const absl::Status told = lab.Flush(fh);
  EXPECT_TRUE(Filesystem::IsKeptError(told));
  EXPECT_EQ(ErrnoOf(told), EIO);
  EXPECT_EQ(lab.ContentOf("t2", "file"), std::string(64, '.'));
}

TEST_F(WriteBehindTest, AServerThatComesBackGetsWhatWasAcknowledged) {
  Mount("//root1/dfs");
  const state::FileHandle fh = MustOpen("two/file");
  Hold(absl::Minutes(5));
  std::vector<std::shared_ptr<EarlyWrite>> writes;
  for (int i = 0; i < 4; ++i) writes.push_back(Write(fh, 64 + i * 4, std::string(4, 'a' + i)));
  lab.RunFor(absl::Milliseconds(50));
  lab.lab().Kill("t1");
  lab.server("t1").ClearRules();
  lab.RunFor(absl::Seconds(5));
  lab.lab().Start("t1");
  EXPECT_EQ(lab.Flush(fh), absl::OkStatus());
  for (const auto& write : writes) EXPECT_EQ(write->ended, absl::OkStatus());
  EXPECT_EQ(lab.ContentOf("t1", "file").substr(64, 16), "aaaabbbbccccdddd");
  EXPECT_EQ(lab.ContentOf("t2", "file"), std::string(64, '.'));
}

// --- Death

TEST_F(WriteBehindTest, TheNextAgentWritesWhatWasAcknowledgedBeforeAnythingElse) {
  Mount("//t1/share");
  const state::FileHandle fh = MustOpen("file");
  Hold(absl::Minutes(5));
  std::vector<std::shared_ptr<EarlyWrite>> writes;
  for (int i = 0; i < 4; ++i) writes.push_back(Write(fh, 64 + i * 4, std::string(4, 'a' + i)));
  const auto waiting = Write(fh, 66, "xxxx");
  EXPECT_FALSE(waiting->answered);
  lab.RunFor(absl::Milliseconds(50));
  lab.server("t1").ClearRules();
  TakeOver();
  Hold(absl::Milliseconds(100));
  // As the session does: those that were acknowledged come first.
  for (size_t i = 0; i < writes.size(); ++i) {
    writes[i]->Die();
    Start(fh, 64 + 4 * i, writes[i]);
  }
  waiting->Die();
  Start(fh, 66, waiting);
  EXPECT_FALSE(waiting->answered);
  EXPECT_EQ(lab.Sync(fh), absl::OkStatus());
  lab.RunFor(absl::Seconds(1));
  for (const auto& write : writes) EXPECT_EQ(write->ended, absl::OkStatus());
  EXPECT_EQ(waiting->ended, absl::OkStatus());
  EXPECT_EQ(lab.ContentOf("t1", "file").substr(64, 16), "aaxxxxbbccccdddd");
}

TEST_F(WriteBehindTest, ALeaseThatGoesWhileAWriterWaitsIsNotUsed) {
  Mount("//t1/share");
  const state::FileHandle fh = MustOpen("file");
  lab.server("t1").AddRule(
      {.command = Command::kWrite, .times = 1, .action = {.delay = absl::Seconds(1)}});
  const auto first = Write(fh, 64, "aaaa");
  const auto second = Write(fh, 68, "bbbb", 8 * kBig);
  leased = false;
  EXPECT_EQ(lab.Change([&](Deadline until) {
    return lab.filesystem().AwaitNodeWritten(lab.Walk("file"), until);
  }),
            absl::OkStatus());
  lab.RunFor(absl::Seconds(1));
  EXPECT_TRUE(first->answered);
  EXPECT_FALSE(second->answered);
  EXPECT_EQ(second->ended, absl::OkStatus());
  EXPECT_EQ(lab.ContentOf("t1", "file").substr(68, 4), "bbbb");
}

// --- Not for others

TEST_F(WriteBehindTest, WhatIsPendingOnADeadLinkStopsNoWriterOfAnother) {
  lab.namespace_share().AddLink("three", {.targets = {"t2/share"}});
  Mount("//root1/dfs");
  Hold(absl::Minutes(10));
  std::vector<std::shared_ptr<EarlyWrite>> writes;
  for (const char* path : {"two/file", "two/other"}) {
    const state::FileHandle fh = MustOpen(path);
    for (int i = 0; i < 8; ++i) writes.push_back(Write(fh, 64 + i, "x"));
  }
  for (const auto& write : writes) EXPECT_TRUE(write->answered);
  const state::FileHandle healthy = MustOpen("three/file");
  const auto write = Write(healthy, 0, "aaaa");
  lab.RunFor(absl::Milliseconds(100));
  EXPECT_EQ(write->ended, absl::OkStatus());
  lab.server("t1").ClearRules();
}

TEST_F(WriteBehindTest, TheLeaseOfTheFileThatHadTheNameBeforeIsNotThatOfAnother) {
  lab.Mount("//t1/share");
  const state::FileHandle fh = MustOpen("file");
  const std::shared_ptr<testing::ScriptedFile> root = lab.share("t1").root();
  std::shared_ptr<testing::ScriptedFile> file;
  for (const auto& [name, child] : root->children) {
    if (child.get() == lab.share("t1").Find("file")) file = child;
  }
  testing::ScriptedShare::Move(file, root, u"moved");
  lab.share("t1").AddText("file", "another");
  const state::FileHandle second = MustOpen("file");
  EXPECT_TRUE(lab.server("t1").leases("share", "file").empty());
  Hold(absl::Milliseconds(500));
  const auto write = Write(second, 7, "aaaa");
  EXPECT_FALSE(write->answered);
  lab.RunFor(absl::Seconds(1));
  EXPECT_EQ(write->ended, absl::OkStatus());
  lab.filesystem().Release(fh);
}

TEST_F(WriteBehindTest, ATruncateByAnotherLinkToTheSameShareComesBehindWhatIsPending) {
  lab.namespace_share().AddLink("again", {.targets = {"t1/share"}});
  lab.namespace_share().AddLink("first", {.targets = {"t1/share"}});
  lab.Mount("//root1/dfs");
  const state::FileHandle fh = MustOpen("first/file");
  const state::NodeId other = lab.Walk("again/file");
  Hold(absl::Seconds(5));
  const auto write = Write(fh, 64, "aaaa");
  EXPECT_TRUE(write->answered);
  ASSERT_TRUE(lab.SetAttributes(other, {.size_bytes = 0}).ok());
  // Not before: what has to be written again would be behind it.
  EXPECT_EQ(write->ended, absl::OkStatus());
  EXPECT_EQ(lab.ContentOf("t1", "file"), "");
}

}  // namespace
}  // namespace dfscsi::vfs
