// What is open while its name is changed, and the answer is lost.

#include <errno.h>
#include <fcntl.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "node-agent/vfs/errno.h"
#include "node-agent/vfs/filesystem_test_lab.h"
#include "node-agent/vfs/name_doubts.h"
#include "node-agent/vfs/write_behind_test_lab.h"

namespace dfscsi::vfs {
namespace {

using runtime::Deadline;
using runtime::Task;
using smb::wire::Command;
using testing::Closing;

constexpr state::NodeId kRoot = state::kRootNode;

enum class Kind { kRemove, kRename, kReplace };
constexpr const char* kNames[] = {"removed", "renamed", "replaced"};

// A file that is open, and a change of its name beside what reads or writes it.
class MovedNamesTest : public ::testing::TestWithParam<Kind> {
 protected:
  MovedNamesTest() {
    testing::ScriptedShare& share = lab_.share("t1");
    share.writable = true;
    share.AddText("file", "0123456789");
    // As alike as two files can be.
    share.AddText("other", "abcdefghij").last_write = share.Find("file")->last_write;
    lab_.Mount("//t1/share");
    lab_.Walk("other");
    fh_ = lab_.Open(lab_.Walk("file"), O_RDWR)->fh;
  }

  static Task<absl::Status> Change(Filesystem* filesystem, Kind kind, ChangeJournal* journal) {
    const Deadline never = Deadline::Never();
    if (kind == Kind::kRemove) return filesystem->Unlink(kRoot, "file", journal, never);
    if (kind == Kind::kRename) {
      return filesystem->Rename(kRoot, "file", kRoot, "moved", 0, journal, never);
    }
    return filesystem->Rename(kRoot, "other", kRoot, "file", 0, journal, never);
  }
  static Task<void> RunChange(Filesystem* filesystem, Kind kind, ChangeJournal* journal,
                              absl::Status* result) {
    *result = co_await Change(filesystem, kind, journal);
  }
  // Reads and writes until an error, or until it was done so often.
  static Task<void> Use(Filesystem* filesystem, state::FileHandle fh, int times,
                        absl::Status* result, std::string* last) {
    std::vector<uint8_t> bytes(10);
    const std::string text = "x";
    absl::Status status;
    for (int i = 0; i < times && status.ok(); ++i) {
      const absl::StatusOr<size_t> n =
          co_await filesystem->Read(fh, 0, absl::MakeSpan(bytes), Deadline::Never());
      status = n.status();
      if (!status.ok()) break;
      last->assign(bytes.begin(), bytes.begin() + static_cast<ptrdiff_t>(*n));
      status = co_await filesystem->Write(
          fh, 9, absl::MakeSpan(reinterpret_cast<const uint8_t*>(text.data()), 1), nullptr,
          Deadline::Never());
      (void)co_await runtime::Sleep(absl::Milliseconds(1), Deadline::Never());
    }
    *result = status;
  }
  // The change first, if `changes_first`.
  void Both(Kind kind, ChangeJournal* journal, bool changes_first, int times) {
    std::unique_ptr<runtime::TaskGroup> group;
    lab_.lab().agent().RunNow([&] {
      group = std::make_unique<runtime::TaskGroup>();
      if (changes_first) {
        group->Spawn(RunChange(&lab_.filesystem(), kind, journal, &changed_));
      }
      group->Spawn(Use(&lab_.filesystem(), fh_, times, &used_, &last_));
      if (!changes_first) {
        group->Spawn(RunChange(&lab_.filesystem(), kind, journal, &changed_));
      }
    });
    lab_.RunFor(absl::Minutes(1));
    lab_.lab().agent().RunNow([&] { group.reset(); });
    EXPECT_EQ(changed_, absl::OkStatus());
    EXPECT_EQ(used_, absl::OkStatus());
    EXPECT_EQ(last_, "012345678x");
  }

  FilesystemLab lab_;
  state::FileHandle fh_ = 0;
  absl::Status changed_ = absl::UnknownError("it does not end");
  absl::Status used_ = absl::UnknownError("it does not end");
  std::string last_;
};

TEST_P(MovedNamesTest, WhatIsOpenGoesOnThoughTheConnectionIsLostInTheAnswer) {
  lab_.server("t1").AddRule({.command = Command::kSetInfo,
                             .times = 1,
                             .action = {.drop = true, .close = Closing::kReset}});
  Both(GetParam(), nullptr, /*changes_first=*/false, 300);
}

TEST_P(MovedNamesTest, WhoOpensItMeanwhileOpensNoOther) {
  lab_.server("t1").AddRule(
      {.command = Command::kSetInfo, .times = 1, .action = {.delay = absl::Seconds(2)}});
  const state::NodeId node = lab_.Walk("file");
  std::unique_ptr<runtime::TaskGroup> group;
  lab_.lab().agent().RunNow([&] {
    group = std::make_unique<runtime::TaskGroup>();
    group->Spawn(RunChange(&lab_.filesystem(), GetParam(), nullptr, &changed_));
  });
  lab_.RunFor(absl::Seconds(1));  // It is executed, and not answered.
  const absl::StatusOr<OpenReply> open = lab_.Open(node, O_RDONLY);
  ASSERT_EQ(open.status(), absl::OkStatus());  // Of what is open: a hidden file, if it is removed.
  EXPECT_EQ(*lab_.Read(open->fh, 0, 10), "0123456789");
  EXPECT_EQ(changed_, absl::OkStatus());
  lab_.lab().agent().RunNow([&] { group.reset(); });
}

TEST_P(MovedNamesTest, ItsLocksGoOnToo) {
  ASSERT_EQ(lab_.Change([&](Deadline until) {
    return lab_.filesystem().SetLock(
        {.type = LockType::kExclusive, .owner = 7, .first = 0, .last = 9, .pid = 5, .fh = fh_},
        /*wait=*/false, until);
  }),
            absl::OkStatus());
  lab_.server("t1").AddRule({.command = Command::kSetInfo,
                             .times = 1,
                             .action = {.drop = true, .close = Closing::kReset}});
  Both(GetParam(), nullptr, /*changes_first=*/false, 300);
}

TEST_P(MovedNamesTest, WhatIsOpenGoesOnWithTheNextAgent) {
  TestJournal journal;
  lab_.server("t1").AddRule({.command = Command::kSetInfo, .times = 1, .action = {.drop = true}});
  const Kind kind = GetParam();
  EXPECT_FALSE(lab_.TryChange([&](Deadline) { return Change(&lab_.filesystem(), kind, &journal); },
                              absl::Milliseconds(500))
                   .has_value());
  for (const bool changes_first : {true, false}) {
    SCOPED_TRACE(changes_first);
    journal.Die();
    journal.asked_ago = absl::Seconds(1);
    lab_.TakeOver();
    lab_.server("t1").ClearRules();
    Both(kind, &journal, changes_first, 5);
    if (kind != Kind::kRename) break;  // What is hidden is not removed a second time.
  }
}

INSTANTIATE_TEST_SUITE_P(Each, MovedNamesTest,
                         ::testing::Values(Kind::kRemove, Kind::kRename, Kind::kReplace),
                         [](const auto& info) { return kNames[static_cast<int>(info.param)]; });

// The agent dies between the tables' rename and its record of having answered.
TEST(StoredRenameTest, TheNextAgentSeesThatARenameIsDoneAndStored) {
  for (const bool is_open : {false, true}) {
    for (const bool is_done : {true, false}) {
      SCOPED_TRACE(
          absl::StrCat(is_open ? "over an open file" : "", is_done ? "" : ", undone since"));
      FilesystemLab lab;
      lab.share("t1").writable = true;
      lab.share("t1").AddText("file", "0123456789");
      lab.share("t1").AddText("other", "other");
      lab.Mount("//t1/share");
      lab.Walk("file");
      lab.Walk("other");
      if (is_open) lab.OpenPath("other");
      TestJournal journal;
      EXPECT_EQ(lab.Rename(kRoot, "file", kRoot, "other", 0, &journal), absl::OkStatus());
      journal.Die();
      journal.asked_ago = absl::Seconds(1);
      // Something has the former name: nobody can tell any more.
      if (!is_done) lab.share("t1").AddText("file", "another");
      lab.TakeOver();
      EXPECT_EQ(ErrnoOf(lab.Rename(kRoot, "file", kRoot, "other", 0, &journal)), is_done ? 0 : EIO);
      EXPECT_EQ(lab.ContentOf("t1", "other"), "0123456789");
    }
  }
}

// It would be looked for by a name that may be another file's, if its server were lost.
class MovedNamesBehindTest : public WriteBehindTest {
 protected:
  static Task<void> Rename(Filesystem* filesystem, bool* ended) {
    EXPECT_EQ(
        co_await filesystem->Rename(kRoot, "file", kRoot, "moved", 0, nullptr, Deadline::Never()),
        absl::OkStatus());
    *ended = true;
  }
};

TEST_F(MovedNamesBehindTest, NothingIsAcknowledgedWhileANameIsChanged) {
  lab.share("t1").posix_unlink = true;
  Mount("//t1/share");
  const state::FileHandle fh = MustOpen("file");
  lab.server("t1").AddRule(
      {.command = Command::kSetInfo, .times = 1, .action = {.delay = absl::Seconds(1)}});
  bool ended = false;
  lab.lab().agent().RunNow([&] { calls->Spawn(Rename(&lab.filesystem(), &ended)); });
  lab.RunFor(absl::Milliseconds(20));
  Hold(absl::Milliseconds(100));
  const auto beside = Write(fh, 64, "text");
  EXPECT_FALSE(beside->answered);
  lab.RunFor(absl::Seconds(2));
  ASSERT_TRUE(ended);
  EXPECT_EQ(beside->ended, absl::OkStatus());
  const auto after = Write(fh, 68, "more");
  EXPECT_TRUE(after->answered);
  lab.RunFor(absl::Seconds(2));
  EXPECT_EQ(lab.ContentOf("t1", "moved"), std::string(64, '.') + "textmore");
}

TEST(NameDoubtsTest, WhatIsBelowANameIsInDoubtWithItAndSomeTimeIsRemembered) {
  const auto path = [](absl::string_view text) { return *dfs::DfsPath::Parse(text); };
  const auto names = std::make_shared<NameDoubts>();
  const uint64_t before = names->now();
  EXPECT_FALSE(names->Touched(path("//s/v/a"), before));
  {
    NameDoubts::Doubt doubt(names, {path("//s/v/a")});
    EXPECT_FALSE(names->Touched(path("//s/v/a"), before));
    doubt.Begin();
    doubt.Begin();
    EXPECT_TRUE(names->Touched(path("//s/v/A"), names->now()));
    EXPECT_TRUE(names->Touched(path("//s/v/a/b"), names->now()));
    EXPECT_FALSE(names->Touched(path("//s/v/b"), before));
  }
  EXPECT_TRUE(names->Touched(path("//s/v/a"), before));
  EXPECT_FALSE(names->Touched(path("//s/v/a"), names->now()));
  const uint64_t after = names->now();
  for (int i = 0; i < 1000; ++i) NameDoubts::Doubt(names, {path("//s/v/c")}).Begin();
  EXPECT_TRUE(names->Touched(path("//s/v/a"), after));  // Not known any more.
  EXPECT_FALSE(names->Touched(path("//s/v/a"), names->now()));
}

}  // namespace
}  // namespace dfscsi::vfs
