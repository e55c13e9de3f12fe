// MKDIR, UNLINK, RMDIR, RENAME.

#include <errno.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/fs.h>

#include <functional>
#include <optional>
#include <string>

#include "node-agent/vfs/filesystem_test_lab.h"

namespace dfscsi::vfs {
namespace {

using smb::wire::Command;
using smb::wire::NtStatus;
using testing::Closing;
using testing::ScriptedShare;

constexpr state::NodeId kRoot = state::kRootNode;

struct ChangesTest : public ::testing::Test {
  ChangesTest() {
    lab.OnBoth([](ScriptedShare& share) {
      share.writable = true;
      share.AddText("file", "0123456789");
      share.AddText("other", "other");
      share.AddDirectory("empty");
      share.AddText("dir/inside", "inside");
    });
  }
  bool Exists(const std::string& path) { return lab.share("t1").Find(path) != nullptr; }
  // The next SET_INFO (of a compound: with what belongs to it) is executed or not, and no answer
  // comes.
  void Lose(bool executed, Command command = Command::kSetInfo) {
    lab.server("t1").ClearRules();
    lab.server("t1").AddRule(
        {.command = command,
         .times = 1,
         .action = {.drop = executed, .ignore = !executed, .close = Closing::kReset}});
  }
  FilesystemLab lab;
};

TEST_F(ChangesTest, NamesComeGoAndMove) {
  lab.Mount("//t1/share");
  const absl::StatusOr<EntryReply> made = lab.MakeDirectory(kRoot, "new");
  ASSERT_TRUE(made.ok()) << made.status();
  EXPECT_TRUE(S_ISDIR(made->attributes.st_mode));
  EXPECT_EQ(lab.Lookup(kRoot, "new")->node, made->node);
  EXPECT_EQ(lab.Rename(kRoot, "file", made->node, "moved"), absl::OkStatus());
  EXPECT_EQ(lab.ContentOf("t1", "new/moved"), "0123456789");
  EXPECT_EQ(ErrnoOf(lab.Lookup(kRoot, "file").status()), ENOENT);
  EXPECT_EQ(lab.Unlink(made->node, "moved"), absl::OkStatus());
  EXPECT_EQ(ErrnoOf(lab.Lookup(made->node, "moved").status()), ENOENT);
  EXPECT_EQ(lab.RemoveDirectory(kRoot, "new"), absl::OkStatus());
  EXPECT_FALSE(Exists("new"));
}

TEST_F(ChangesTest, WhatCannotBeDone) {
  lab.Mount("//t1/share");
  for (const char* name : {"file", "dir", "empty"}) lab.Walk(name);
  EXPECT_EQ(ErrnoOf(lab.MakeDirectory(kRoot, "dir").status()), EEXIST);
  EXPECT_EQ(ErrnoOf(lab.MakeDirectory(kRoot, "file").status()), EEXIST);
  EXPECT_EQ(ErrnoOf(lab.Unlink(kRoot, "none")), ENOENT);
  EXPECT_EQ(ErrnoOf(lab.Unlink(kRoot, "dir")), EISDIR);
  EXPECT_EQ(ErrnoOf(lab.RemoveDirectory(kRoot, "dir")), ENOTEMPTY);
  EXPECT_EQ(ErrnoOf(lab.RemoveDirectory(kRoot, "file")), ENOTDIR);
  EXPECT_EQ(ErrnoOf(lab.Rename(kRoot, "none", kRoot, "x")), ENOENT);
  EXPECT_EQ(ErrnoOf(lab.Rename(kRoot, "file", kRoot, "other", RENAME_NOREPLACE)), EEXIST);
  EXPECT_EQ(ErrnoOf(lab.Rename(kRoot, "file", kRoot, "other", RENAME_EXCHANGE)), EINVAL);
  EXPECT_EQ(ErrnoOf(lab.Rename(kRoot, "file", kRoot, "other", RENAME_WHITEOUT)), EINVAL);
  EXPECT_EQ(lab.ContentOf("t1", "other"), "other");
}

TEST_F(ChangesTest, ARenameReplaces) {
  lab.Mount("//t1/share");
  lab.Walk("other");
  const state::NodeId file = lab.Walk("file");
  EXPECT_EQ(lab.Rename(kRoot, "file", kRoot, "other"), absl::OkStatus());
  EXPECT_EQ(lab.ContentOf("t1", "other"), "0123456789");
  EXPECT_EQ(lab.Lookup(kRoot, "other")->node, file);
}

TEST_F(ChangesTest, ARenameMayChangeTheCaseAlone) {
  lab.Mount("//t1/share");
  lab.Walk("file");
  lab.Walk("FILE");
  EXPECT_EQ(lab.Rename(kRoot, "file", kRoot, "FILE"), absl::OkStatus());
  ASSERT_TRUE(Exists("file"));
  EXPECT_EQ(lab.share("t1").Find("file")->name, u"FILE");
}

TEST_F(ChangesTest, AnOpenFileIsFoundByItsNewName) {
  lab.Mount("//t1/share");
  const state::FileHandle fh = lab.OpenPath("dir/inside");
  EXPECT_EQ(lab.Rename(lab.Walk("dir"), "inside", kRoot, "outside"), absl::OkStatus());
  lab.server("t1").CloseConnections(Closing::kReset);
  EXPECT_EQ(*lab.Read(fh, 0, 100), "inside");
}

TEST_F(ChangesTest, AnOpenFileOutlivesItsName) {
  lab.Mount("//t1/share");
  const state::FileHandle fh = lab.Open(lab.Walk("file"), O_RDWR)->fh;
  EXPECT_EQ(lab.Unlink(kRoot, "file"), absl::OkStatus());
  EXPECT_FALSE(Exists("file"));
  EXPECT_EQ(lab.counters().hidden_files, 1);
  // The hidden name does not count.
  const state::NodeId node = lab.tables().handles().Get(fh).node;
  EXPECT_EQ(lab.GetAttributes(node)->attributes.st_nlink, 0);
  // The name is free, and the file is another one.
  ASSERT_TRUE(lab.Create(kRoot, "file", O_RDWR | O_EXCL).ok());
  lab.server("t1").CloseConnections(Closing::kReset);
  EXPECT_EQ(lab.Write(fh, 0, "abc"), absl::OkStatus());
  EXPECT_EQ(*lab.Read(fh, 0, 100), "abc3456789");
  EXPECT_EQ(lab.ContentOf("t1", "file"), "");
  // So does the next agent see it.
  lab.TakeOver();
  EXPECT_EQ(*lab.Read(fh, 0, 100), "abc3456789");
  const size_t names = lab.share("t1").root()->children.size();
  lab.filesystem().Release(fh);
  lab.RunFor(absl::Seconds(5));
  EXPECT_EQ(lab.share("t1").root()->children.size(), names - 1);
}

TEST_F(ChangesTest, AnOpenFileOutlivesARenameOverIt) {
  lab.Mount("//t1/share");
  const state::FileHandle fh = lab.OpenPath("other");
  lab.Walk("file");
  const size_t names = lab.share("t1").root()->children.size();
  EXPECT_EQ(lab.Rename(kRoot, "file", kRoot, "other"), absl::OkStatus());
  EXPECT_EQ(lab.ContentOf("t1", "other"), "0123456789");
  EXPECT_EQ(*lab.Read(fh, 0, 100), "other");
  lab.filesystem().Release(fh);
  lab.RunFor(absl::Seconds(5));
  EXPECT_EQ(lab.share("t1").root()->children.size(), names - 1);
}

TEST_F(ChangesTest, AHiddenFileGoesWithTheNextAgentThoughTheKernelHasForgottenIt) {
  lab.Mount("//t1/share");
  const state::NodeId file = lab.Walk("file");
  const state::FileHandle fh = lab.OpenPath("file");
  EXPECT_EQ(lab.Unlink(kRoot, "file"), absl::OkStatus());
  const size_t names = lab.share("t1").root()->children.size();
  lab.lab().agent().RunNow([&] {
    lab.filesystem().Release(fh);
    lab.filesystem().Forget(file, 2);
  });
  lab.TakeOver();  // Nothing was sent yet.
  EXPECT_EQ(lab.share("t1").root()->children.size(), names);
  lab.lab().agent().RunNow([&] { lab.filesystem().ResumeInvalidations(); });
  lab.RunFor(absl::Seconds(10));
  EXPECT_EQ(lab.share("t1").root()->children.size(), names - 1);
  EXPECT_EQ(lab.tables().inodes().size(), 1u) << "but for the root nothing is known any more";
}

TEST_F(ChangesTest, AHiddenFileThatTheKernelStillKnowsIsNotForgottenForIt) {
  lab.Mount("//t1/share");
  const state::NodeId file = lab.Walk("file");
  const state::FileHandle fh = lab.OpenPath("file");
  EXPECT_EQ(lab.Unlink(kRoot, "file"), absl::OkStatus());
  lab.lab().agent().RunNow([&] { lab.filesystem().Release(fh); });
  lab.RunFor(absl::Seconds(10));
  EXPECT_TRUE(lab.tables().inodes().Contains(file));
  lab.filesystem().Forget(file, 2);
  EXPECT_FALSE(lab.tables().inodes().Contains(file));
}

TEST_F(ChangesTest, AHiddenFileGoesWithTheNextAgentIfTheLastHandleIsGone) {
  lab.Mount("//t1/share");
  const state::FileHandle fh = lab.OpenPath("file");
  EXPECT_EQ(lab.Unlink(kRoot, "file"), absl::OkStatus());
  const size_t names = lab.share("t1").root()->children.size();
  // The server does not answer the last removal, and the agent dies.
  lab.server("t1").options().silent = true;
  lab.filesystem().Release(fh);
  lab.RunFor(absl::Milliseconds(1));
  lab.lab().Kill("t1");
  lab.server("t1").options().silent = false;
  lab.lab().Start("t1");
  lab.TakeOver();
  lab.lab().agent().RunNow([&] { lab.filesystem().ResumeInvalidations(); });
  lab.RunFor(absl::Seconds(10));
  EXPECT_LE(lab.share("t1").root()->children.size(), names);
  EXPECT_TRUE(Exists("other"));
}

TEST_F(ChangesTest, AReadOnlyFileIsRemoved) {
  lab.Mount("//t1/share");
  for (const bool posix : {false, true}) {
    lab.share("t1").posix_unlink = posix;
    testing::ScriptedFile& file = lab.share("t1").AddText("locked", "x");
    file.extra_attributes = smb::wire::kAttributeReadonly | smb::wire::kAttributeHidden;
    lab.Walk("locked");
    EXPECT_EQ(lab.Unlink(kRoot, "locked"), absl::OkStatus()) << posix;
    EXPECT_FALSE(Exists("locked"));
  }
}

TEST_F(ChangesTest, AReadOnlyFileIsRemovedWithItsLastHandle) {
  lab.Mount("//t1/share");
  lab.share("t1").AddText("locked", "x").extra_attributes = smb::wire::kAttributeReadonly;
  const state::FileHandle fh = lab.OpenPath("locked");
  const size_t names = lab.share("t1").root()->children.size();
  EXPECT_EQ(lab.Unlink(kRoot, "locked"), absl::OkStatus());
  lab.filesystem().Release(fh);
  lab.RunFor(absl::Seconds(5));
  EXPECT_EQ(lab.share("t1").root()->children.size(), names - 1);
}

TEST_F(ChangesTest, AReadOnlyFileThatIsNotRemovedStaysReadOnly) {
  constexpr uint32_t kBefore = smb::wire::kAttributeReadonly | smb::wire::kAttributeHidden;
  lab.share("t1").AddText("locked", "x").extra_attributes = kBefore;
  lab.Mount("//t1/share");
  lab.Walk("locked");
  // As of somebody who has mapped it: whatever its attributes are.
  int refused = 0;
  lab.server("t1").set_script(
      [&](const testing::ScriptedRequest& request) -> std::optional<testing::Action> {
        if (request.header.command != Command::kSetInfo) return std::nullopt;
        const auto set = smb::wire::DecodeSetInfoRequest(request.body);
        if (!set.ok() || set->info_class == static_cast<uint8_t>(smb::wire::FileInfoClass::kBasic))
          return std::nullopt;
        ++refused;
        return testing::Action{.status = NtStatus::kCannotDelete};
      });
  EXPECT_EQ(ErrnoOf(lab.Unlink(kRoot, "locked")), EACCES);
  EXPECT_GE(refused, 2);
  ASSERT_TRUE(Exists("locked"));
  EXPECT_EQ(lab.share("t1").Find("locked")->extra_attributes, kBefore);
}

TEST_F(ChangesTest, ARemovalOfAReadOnlyFileWhoseAnswerWasLostIsMadeOnce) {
  lab.Mount("//t1/share");
  lab.share("t1").posix_unlink = true;
  int lost = 0;
  for (const bool executed : {true, false}) {
    lab.share("t1").AddText("locked", "x").extra_attributes = smb::wire::kAttributeReadonly;
    lab.Walk("locked");
    lab.server("t1").ClearRules();
    lab.server("t1").AddRule(
        {.command = Command::kSetInfo,
         .skip = 1,
         .times = 1,
         .action = {.drop = executed, .ignore = !executed, .close = Closing::kReset}});
    EXPECT_EQ(lab.Unlink(kRoot, "locked"), absl::OkStatus()) << executed;
    EXPECT_FALSE(Exists("locked"));
    EXPECT_EQ(lab.counters().lost_answers, ++lost) << executed;
  }
}

TEST_F(ChangesTest, AFolderIsSeenAnewAfterAChangeInIt) {
  lab.Mount("//t1/share", {.actimeo = absl::Minutes(10)});
  for (const char* folder : {"dir", ""}) {
    const state::NodeId node = lab.Walk(folder);
    int64_t seconds = 1'500'000'000;
    // Each change gives the folder another time, as servers do.
    const auto next_time = [&] {
      lab.share("t1").Find(folder)->last_write = absl::FromUnixSeconds(++seconds);
    };
    const auto is_seen = [&](const char* what) {
      EXPECT_EQ(lab.GetAttributes(node)->attributes.st_mtim.tv_sec, seconds) << folder << what;
      next_time();
    };
    ASSERT_TRUE(lab.GetAttributes(node).ok());
    next_time();
    EXPECT_TRUE(lab.MakeDirectory(node, "new").ok());
    is_seen("mkdir");
    EXPECT_EQ(lab.Rename(node, "new", node, "newer"), absl::OkStatus());
    is_seen("rename");
    EXPECT_EQ(lab.RemoveDirectory(node, "newer"), absl::OkStatus());
    is_seen("rmdir");
    EXPECT_TRUE(lab.Create(node, "created").ok());
    is_seen("create");
    EXPECT_EQ(lab.Unlink(node, "created"), absl::OkStatus());
    is_seen("unlink");
  }
}

// --- Links (catalogue A32, A33)

TEST_F(ChangesTest, ALinkIsNotChangedAndNotCrossed) {
  lab.Mount("//root1/dfs");
  lab.namespace_share().writable = true;
  lab.namespace_share().AddText("plain", "plain");
  lab.namespace_share().AddDirectory("folder");
  for (const bool known : {false, true}) {
    if (known) lab.Walk("two/file");
    EXPECT_EQ(ErrnoOf(lab.Unlink(kRoot, "two")), EBUSY) << known;
    EXPECT_EQ(ErrnoOf(lab.RemoveDirectory(kRoot, "two")), EBUSY) << known;
    EXPECT_EQ(ErrnoOf(lab.MakeDirectory(kRoot, "two").status()), EEXIST) << known;
    EXPECT_EQ(ErrnoOf(lab.Create(kRoot, "two", O_RDWR | O_EXCL).status()), EEXIST) << known;
    EXPECT_EQ(ErrnoOf(lab.Create(kRoot, "two", O_RDWR).status()), EISDIR) << known;
    EXPECT_EQ(ErrnoOf(lab.Rename(kRoot, "two", kRoot, "three")), EBUSY) << known;
  }
  lab.Walk("plain");
  const state::NodeId two = lab.Walk("two");
  EXPECT_EQ(ErrnoOf(lab.Rename(kRoot, "plain", two, "plain")), EXDEV);
  EXPECT_EQ(ErrnoOf(lab.Rename(two, "file", kRoot, "file")), EXDEV);
  EXPECT_EQ(ErrnoOf(lab.Rename(kRoot, "folder", kRoot, "two")), EBUSY);
  EXPECT_EQ(lab.Rename(kRoot, "plain", lab.Walk("folder"), "plain"), absl::OkStatus());
  for (const char* name : {"t1", "t2"}) EXPECT_TRUE(lab.server(name).mutations().empty());
}

TEST_F(ChangesTest, ALinkWhoseTargetIsAFolderIsNotRemovedWithIt) {
  lab.namespace_share().AddLink("deep", {.targets = {"t1/share/empty"}});
  lab.Mount("//root1/dfs");
  EXPECT_EQ(ErrnoOf(lab.RemoveDirectory(kRoot, "deep")), EBUSY);
  EXPECT_TRUE(Exists("empty"));
}

// --- The answer is lost (C28)

TEST_F(ChangesTest, ARemovalWhoseAnswerWasLostIsNoFalseEnoent) {
  for (const bool executed : {true, false}) {
    FilesystemLab fresh;
    fresh.share("t1").writable = true;
    fresh.share("t1").posix_unlink = true;
    fresh.share("t1").AddText("file", "x");
    fresh.share("t1").AddDirectory("empty");
    fresh.Mount("//t1/share");
    fresh.Walk("file");
    fresh.Walk("empty");
    for (const bool directory : {false, true}) {
      fresh.server("t1").ClearRules();
      fresh.server("t1").AddRule(
          {.command = Command::kSetInfo,
           .times = 1,
           .action = {.drop = executed, .ignore = !executed, .close = Closing::kReset}});
      EXPECT_EQ(directory ? fresh.RemoveDirectory(kRoot, "empty") : fresh.Unlink(kRoot, "file"),
                absl::OkStatus())
          << executed << directory;
    }
    EXPECT_EQ(fresh.share("t1").Find("file"), nullptr);
    EXPECT_EQ(fresh.share("t1").Find("empty"), nullptr);
    EXPECT_EQ(fresh.counters().lost_answers, 2) << executed;
    EXPECT_EQ(fresh.counters().unknown_changes, 0);
  }
}

TEST_F(ChangesTest, ARemovalWhoseAnswerWasLostSparesWhoHasTheNameByNow) {
  lab.Mount("//t1/share");
  lab.Walk("file");
  Lose(/*executed=*/false);
  lab.server("t1").set_script(
      [&](const testing::ScriptedRequest& request) -> std::optional<testing::Action> {
        if (request.header.command == Command::kSetInfo) {
          lab.share("t1").Remove("file");
          lab.share("t1").AddText("file", "of somebody else");
        }
        return std::nullopt;
      });
  EXPECT_EQ(lab.Unlink(kRoot, "file"), absl::OkStatus());
  EXPECT_EQ(lab.ContentOf("t1", "file"), "of somebody else");
}

TEST_F(ChangesTest, ARenameWhoseAnswerWasLostIsAppliedOnce) {
  lab.Mount("//t1/share");
  lab.Walk("other");
  for (const bool executed : {true, false}) {
    const std::string from = executed ? "file" : "moved";
    const std::string to = executed ? "moved" : "other";
    lab.Walk(from);
    Lose(executed);
    EXPECT_EQ(lab.Rename(kRoot, from, kRoot, to), absl::OkStatus()) << executed;
    EXPECT_FALSE(Exists(from));
    EXPECT_EQ(lab.ContentOf("t1", to), "0123456789");
  }
  EXPECT_EQ(lab.counters().lost_answers, 2);
}

TEST_F(ChangesTest, ADirectoryWhoseAnswerWasLostIsMadeOnce) {
  lab.Mount("//t1/share");
  lab.RunFor(absl::Minutes(10));
  for (const bool executed : {true, false}) {
    const std::string name = executed ? "made" : "not_made";
    lab.server("t1").ClearRules();
    lab.server("t1").AddRule(
        {.command = Command::kCreate,
         .path = name,
         .times = 1,
         .action = {.drop = executed, .ignore = !executed, .close = Closing::kReset}});
    const absl::StatusOr<EntryReply> made = lab.MakeDirectory(kRoot, name);
    ASSERT_TRUE(made.ok()) << executed << made.status();
    EXPECT_TRUE(Exists(name));
  }
  EXPECT_EQ(lab.CountMutations("t1", Command::kCreate), 2);
  // One that was there before is not taken for ours.
  Lose(/*executed=*/false, Command::kCreate);
  EXPECT_EQ(ErrnoOf(lab.MakeDirectory(kRoot, "empty").status()), EEXIST);
}

TEST_F(ChangesTest, AChangeIsNotMadeOnAnotherCopy) {
  lab.Mount("//root1/dfs", {}, {.write_grace = absl::Seconds(5)});
  const state::NodeId two = lab.Walk("two");
  lab.Walk("two/file");
  lab.server("t1").set_script(
      [&](const testing::ScriptedRequest& request) -> std::optional<testing::Action> {
        if (request.header.command == Command::kSetInfo) lab.server("t1").options().silent = true;
        return std::nullopt;
      });
  EXPECT_EQ(ErrnoOf(lab.Unlink(two, "file")), EIO);
  EXPECT_EQ(lab.counters().unknown_changes, 1);
  EXPECT_TRUE(lab.server("t2").mutations().empty());
}

TEST_F(ChangesTest, WhatWasNotSentGoesToAnotherCopy) {
  lab.Mount("//root1/dfs");
  const state::NodeId two = lab.Walk("two");
  lab.Walk("two/file");
  lab.lab().Kill("t1");
  lab.RunFor(absl::Seconds(1));
  EXPECT_EQ(lab.Unlink(two, "file"), absl::OkStatus());
  EXPECT_EQ(lab.share("t2").Find("file"), nullptr);
  EXPECT_TRUE(Exists("file"));
}

// --- The agent dies

TEST_F(ChangesTest, TheNextAgentFindsOutWhatWasDone) {
  struct Case {
    const char* what;
    std::function<runtime::Task<absl::Status>(FilesystemLab&, ChangeJournal*, runtime::Deadline)>
        run;
  };
  const Case kCases[] = {
      {"unlink",
       [](FilesystemLab& l, ChangeJournal* journal, runtime::Deadline until) {
         return l.filesystem().Unlink(kRoot, "file", journal, until);
       }},
      {"rmdir",
       [](FilesystemLab& l, ChangeJournal* journal, runtime::Deadline until) {
         return l.filesystem().RemoveDirectory(kRoot, "empty", journal, until);
       }},
      {"rename",
       [](FilesystemLab& l, ChangeJournal* journal, runtime::Deadline until) {
         return l.filesystem().Rename(kRoot, "file", kRoot, "moved", 0, journal, until);
       }},
      {"mkdir",
       [](FilesystemLab& l, ChangeJournal* journal, runtime::Deadline until) {
         struct Made {
           static runtime::Task<absl::Status> Run(FilesystemLab* lab, ChangeJournal* journal,
                                                  runtime::Deadline until) {
             co_return (co_await lab->filesystem().MakeDirectory(kRoot, "new", journal, until))
                 .status();
           }
         };
         return Made::Run(&l, journal, until);
       }},
      {"create",
       [](FilesystemLab& l, ChangeJournal* journal, runtime::Deadline until) {
         struct Made {
           static runtime::Task<absl::Status> Run(FilesystemLab* lab, ChangeJournal* journal,
                                                  runtime::Deadline until) {
             co_return (
                 co_await lab->filesystem().Create(kRoot, "new", O_RDWR | O_EXCL, journal, until))
                 .status();
           }
         };
         return Made::Run(&l, journal, until);
       }},
  };
  for (const Case& test : kCases) {
    for (const bool executed : {true, false}) {
      FilesystemLab fresh;
      fresh.share("t1").writable = true;
      fresh.share("t1").posix_unlink = true;  // Each change is one frame.
      fresh.share("t1").AddText("file", "x");
      fresh.share("t1").AddDirectory("empty");
      fresh.Mount("//t1/share");
      fresh.RunFor(absl::Minutes(10));
      fresh.Walk("file");
      fresh.Walk("empty");
      TestJournal journal;
      const auto drop =
          [executed,
           &journal](const testing::ScriptedRequest& request) -> std::optional<testing::Action> {
        if (journal.sends == 0) return std::nullopt;
        return testing::Action{.drop = executed, .ignore = !executed};
      };
      fresh.server("t1").set_script(drop);
      const std::optional<absl::Status> first =
          fresh.TryChange([&](runtime::Deadline until) { return test.run(fresh, &journal, until); },
                          absl::Milliseconds(500));
      EXPECT_FALSE(first.has_value()) << test.what;
      EXPECT_EQ(journal.sends, 1) << test.what;
      fresh.server("t1").set_script(nullptr);
      const size_t changes = fresh.server("t1").mutations().size();
      EXPECT_EQ(changes > 0, executed) << test.what;
      journal.Die();
      journal.asked_ago = absl::Seconds(2);
      fresh.TakeOver();
      EXPECT_EQ(
          fresh.Change([&](runtime::Deadline until) { return test.run(fresh, &journal, until); }),
          absl::OkStatus())
          << test.what << " executed=" << executed;
      const size_t once = fresh.server("t1").mutations().size();
      if (executed) EXPECT_EQ(once, changes) << test.what;
      EXPECT_GT(once, 0u) << test.what;
    }
  }
}

// --- What sessions have open that are lost

// Its CLOSE is lost with its connection, of whose end the server learns nothing.
void LoseClose(FilesystemLab& lab, state::FileHandle fh) {
  runtime::SimNetwork& network = lab.lab().network();
  network.SetPath(lab.lab().agent_host(), lab.lab().host("t1"),
                  {.fate = runtime::SimPath::Fate::kReset});
  lab.lab().agent().RunNow([&] { lab.filesystem().Release(fh); });
  lab.RunFor(absl::Seconds(1));
  network.SetPath(lab.lab().agent_host(), lab.lab().host("t1"), {});
  EXPECT_GT(lab.server("t1").opens(), 0);
}

TEST_F(ChangesTest, AFileWhoseCloseWasLostIsClosedByTheNextSession) {
  lab.Mount("//t1/share");
  LoseClose(lab, lab.OpenPath("dir/inside"));
  const int64_t before = lab.server("t1").connections_ever();
  // In which nothing may be open.
  EXPECT_EQ(lab.Rename(kRoot, "dir", kRoot, "moved"), absl::OkStatus());
  EXPECT_EQ(lab.server("t1").opens(), 0);
  EXPECT_EQ(lab.server("t1").sessions(), 1);
  EXPECT_EQ(lab.server("t1").connections_ever() - before, 1);
}

TEST_F(ChangesTest, ASessionThatServesIsNeverEndedForALostOne) {
  lab.Mount("//t1/share");
  const state::FileHandle held = lab.OpenPath("file");
  for (int i = 0; i < 3; ++i) {
    LoseClose(lab, lab.OpenPath(i == 0 ? "dir/inside" : "moved/inside"));
    EXPECT_EQ(*lab.Read(held, 0, 3), "012");
    const int64_t before = lab.server("t1").connections_ever();
    EXPECT_EQ(lab.Rename(kRoot, i == 0 ? "dir" : "moved", kRoot, "moved"), absl::OkStatus());
    EXPECT_EQ(*lab.Read(held, 0, 3), "012");
    EXPECT_EQ(lab.server("t1").connections_ever(), before);
    EXPECT_EQ(lab.server("t1").sessions(), 1);
  }
}

TEST_F(ChangesTest, WhatASessionHasOpenThatWasLeftInSilenceIsNotInTheWay) {
  lab.Mount("//t1/share", {}, {.write_grace = absl::Seconds(10)});
  lab.OpenPath("dir/inside");
  const state::FileHandle writing = lab.Open(lab.Walk("file"), O_RDWR)->fh;
  runtime::SimNetwork& network = lab.lab().network();
  network.Cut(lab.lab().agent_host(), lab.lab().host("t1"));
  EXPECT_EQ(ErrnoOf(lab.Write(writing, 0, "x")), EIO);
  network.Heal(lab.lab().agent_host(), lab.lab().host("t1"));
  EXPECT_EQ(lab.server("t1").opens(), 2);
  EXPECT_EQ(lab.Rename(kRoot, "dir", kRoot, "moved"), absl::OkStatus());
  EXPECT_EQ(lab.server("t1").opens(), 0);
  EXPECT_EQ(lab.server("t1").sessions(), 1);
}

// As of a server whose process hangs that has the lost session.
TEST_F(ChangesTest, ALostSessionThatCannotBeEndedHoldsUpOneLogOnOnly) {
  lab.Mount("//t1/share");
  LoseClose(lab, lab.OpenPath("dir/inside"));
  int named = 0;
  lab.server("t1").set_script(
      [&](const testing::ScriptedRequest& request) -> std::optional<testing::Action> {
        if (request.header.command != Command::kSessionSetup ||
            smb::wire::DecodeSessionSetupRequest(request.body)->previous_session_id == 0) {
          return std::nullopt;
        }
        ++named;
        return testing::Action{.ignore = true};
      });
  const absl::Time began = lab.now();
  EXPECT_TRUE(lab.Lookup(kRoot, "other").ok());
  EXPECT_LT(lab.now() - began, absl::Seconds(10));
  EXPECT_EQ(named, 1);
  const absl::Time then = lab.now();
  EXPECT_EQ(lab.Unlink(kRoot, "other"), absl::OkStatus());
  EXPECT_LT(lab.now() - then, absl::Seconds(10));
  EXPECT_EQ(named, 2);
  EXPECT_EQ(lab.Unlink(kRoot, "file"), absl::OkStatus());
  EXPECT_EQ(named, 2);
  lab.server("t1").set_script(nullptr);
}

}  // namespace
}  // namespace dfscsi::vfs
