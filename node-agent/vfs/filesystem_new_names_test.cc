// LINK and MKNOD, and what a file of several names is to the kernel.

#include <errno.h>
#include <fcntl.h>
#include <gtest/gtest.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "node-agent/vfs/filesystem_test_lab.h"

namespace dfscsi::vfs {
namespace {

using smb::wire::Command;
using testing::Closing;
using testing::ScriptedShare;

constexpr state::NodeId kRoot = state::kRootNode;

struct NewNamesTest : public ::testing::Test {
  NewNamesTest() {
    lab.OnBoth([](ScriptedShare& share) {
      share.writable = true;
      share.hard_links = true;
      share.AddText("file", "0123456789");
      share.AddText("other", "other");
      share.AddDirectory("dir");
    });
  }
  void Lose(bool executed) {
    lab.server("t1").ClearRules();
    lab.server("t1").AddRule(
        {.command = Command::kSetInfo,
         .times = 1,
         .action = {.drop = executed, .ignore = !executed, .close = Closing::kReset}});
  }
  FilesystemLab lab;
};

TEST_F(NewNamesTest, AFileIsMadeWithoutOpeningIt) {
  lab.Mount("//t1/share");
  const absl::StatusOr<EntryReply> made = lab.MakeFile(kRoot, "new");
  ASSERT_TRUE(made.ok()) << made.status();
  EXPECT_TRUE(S_ISREG(made->attributes.st_mode));
  EXPECT_EQ(lab.Lookup(kRoot, "new")->node, made->node);
  EXPECT_EQ(lab.ContentOf("t1", "new"), "");
  EXPECT_EQ(ErrnoOf(lab.MakeFile(kRoot, "new").status()), EEXIST);
  EXPECT_EQ(ErrnoOf(lab.MakeFile(kRoot, "dir").status()), EEXIST);
}

// The disk of the server counts bytes, and Samba says "not found" of what it does not take.
TEST_F(NewNamesTest, ANewNameThatTheServersDiskDoesNotTakeIsTooLong) {
  std::string name;
  for (int i = 0; i < 128; ++i) name += "\u00e9";
  const std::string taken = name.substr(2);
  lab.Mount("//t1/share");
  const state::NodeId file = lab.Walk("file");
  lab.server("t1").AddRule({.command = Command::kCreate,
                            .action = {.status = smb::wire::NtStatus::kObjectNameNotFound}});
  EXPECT_EQ(ErrnoOf(lab.MakeFile(kRoot, name).status()), ENAMETOOLONG);
  EXPECT_EQ(ErrnoOf(lab.Create(kRoot, name, O_RDWR).status()), ENAMETOOLONG);
  EXPECT_EQ(ErrnoOf(lab.MakeDirectory(kRoot, name).status()), ENAMETOOLONG);
  EXPECT_EQ(ErrnoOf(lab.Link(file, kRoot, name).status()), ENAMETOOLONG);
  EXPECT_EQ(ErrnoOf(lab.Rename(kRoot, "file", kRoot, name)), ENAMETOOLONG);
  // Nothing of that name is there, and a shorter one is told what the server says.
  EXPECT_EQ(ErrnoOf(lab.Lookup(kRoot, name).status()), ENOENT);
  EXPECT_EQ(ErrnoOf(lab.MakeFile(kRoot, taken).status()), ENOENT);
  // NTFS takes it.
  lab.server("t1").ClearRules();
  EXPECT_TRUE(lab.MakeFile(kRoot, name).ok());
}

TEST_F(NewNamesTest, WhoHoldsTheFirstNameSeesTheSecondAtOnce) {
  lab.Mount("//t1/share");
  const state::NodeId file = lab.Walk("file");
  const absl::StatusOr<EntryReply> linked = lab.Link(file, lab.Walk("dir"), "second");
  ASSERT_TRUE(linked.ok()) << linked.status();
  // So the kernel's inode of the first name learns of it.
  EXPECT_EQ(linked->node, file);
  EXPECT_EQ(linked->attributes.st_nlink, 2u);
  EXPECT_EQ(linked->attributes_timeout, absl::ZeroDuration());
  EXPECT_EQ(linked->name_timeout, absl::ZeroDuration());
  EXPECT_EQ(lab.ContentOf("t1", "dir/second"), "0123456789");
}

TEST_F(NewNamesTest, TwoNamesAreOneInodeNumberAndNeverBelieved) {
  lab.Mount("//t1/share");
  const state::NodeId file = lab.Walk("file");
  ASSERT_TRUE(lab.Link(file, kRoot, "second").ok());
  const absl::StatusOr<EntryReply> second = lab.Lookup(kRoot, "second");
  ASSERT_TRUE(second.ok()) << second.status();
  EXPECT_NE(second->node, file);
  EXPECT_EQ(second->attributes.st_ino, lab.GetAttributes(file)->attributes.st_ino);
  EXPECT_EQ(second->attributes.st_nlink, 2u);
  EXPECT_EQ(second->attributes_timeout, absl::ZeroDuration());
  EXPECT_EQ(lab.GetAttributes(file)->timeout, absl::ZeroDuration());
  const state::FileHandle fh = lab.Open(second->node, O_RDWR)->fh;
  EXPECT_EQ(lab.Write(fh, 10, "more"), absl::OkStatus());
  EXPECT_EQ(lab.GetAttributes(file)->attributes.st_size, 14);
}

TEST_F(NewNamesTest, AFileOfTwoNamesIsNotReadThroughPages) {
  lab.Mount("//t1/share");
  const state::NodeId file = lab.Walk("file");
  EXPECT_FALSE(lab.Open(file)->direct_io);
  ASSERT_TRUE(lab.Link(file, kRoot, "second").ok());
  const state::NodeId second = lab.Walk("second");
  EXPECT_TRUE(lab.Open(file)->direct_io);
  const absl::StatusOr<OpenReply> open = lab.Open(second, O_RDWR);
  EXPECT_TRUE(open->direct_io);
  // By a handle from before there were two the first may have pages.
  lab.invalidation().changed.clear();
  EXPECT_EQ(lab.Write(open->fh, 0, "abc"), absl::OkStatus());
  EXPECT_TRUE(lab.invalidation().changed.contains(file));
}

TEST_F(NewNamesTest, AnotherNameOfSomebodyElseIsSeen) {
  lab.Mount("//t1/share");
  const state::NodeId file = lab.Walk("file");
  ScriptedShare& share = lab.share("t1");
  ScriptedShare::Link(share.root()->children.at(u"FILE"), share.root(), u"theirs");
  lab.RunFor(absl::Seconds(2));
  EXPECT_EQ(lab.GetAttributes(file)->attributes.st_nlink, 2u);
  EXPECT_TRUE(lab.Open(file)->direct_io);
  EXPECT_EQ(lab.Lookup(kRoot, "theirs")->attributes.st_ino,
            lab.GetAttributes(file)->attributes.st_ino);
}

TEST_F(NewNamesTest, TheLastNameIsAFileAsAnyOther) {
  lab.Mount("//t1/share");
  const state::NodeId file = lab.Walk("file");
  ASSERT_TRUE(lab.Link(file, kRoot, "second").ok());
  lab.share("t1").Find("file")->names = 1;
  EXPECT_EQ(lab.GetAttributes(file)->timeout, Options().actimeo);
  EXPECT_FALSE(lab.Open(file)->direct_io);
}

TEST_F(NewNamesTest, AListingLeavesWhatHasTwoNamesToBeLookedUp) {
  lab.Mount("//t1/share");
  ASSERT_TRUE(lab.Link(lab.Walk("file"), kRoot, "second").ok());
  const uint64_t ino = lab.Lookup(kRoot, "second")->attributes.st_ino;
  const auto listed = lab.ReadDirectory(*lab.OpenDirectory(kRoot), 2, 100);
  ASSERT_TRUE(listed.ok());
  int names = 0;
  for (const EntryList::Entry& entry : *listed) {
    const bool linked = entry.name == "file" || entry.name == "second";
    names += linked ? 1 : 0;
    EXPECT_EQ(entry.node == 0, linked) << entry.name;
    if (linked) EXPECT_EQ(entry.attributes.st_ino, ino) << entry.name;
  }
  EXPECT_EQ(names, 2);
}

TEST_F(NewNamesTest, RenamingOneNameOverTheOtherLeavesBoth) {
  lab.Mount("//t1/share");
  ASSERT_TRUE(lab.Link(lab.Walk("file"), kRoot, "second").ok());
  lab.Walk("second");
  EXPECT_EQ(lab.Rename(kRoot, "file", kRoot, "second"), absl::OkStatus());
  EXPECT_EQ(lab.ContentOf("t1", "file"), "0123456789");
  EXPECT_EQ(lab.ContentOf("t1", "second"), "0123456789");
}

TEST_F(NewNamesTest, WhatCannotBeLinked) {
  lab.Mount("//root1/dfs");
  const state::NodeId two = lab.Walk("two");
  const state::NodeId file = lab.Walk("two/file");
  EXPECT_EQ(ErrnoOf(lab.Link(file, two, "other").status()), EEXIST);
  EXPECT_EQ(ErrnoOf(lab.Link(file, kRoot, "outside").status()), EXDEV);
  EXPECT_EQ(ErrnoOf(lab.Link(file, kRoot, "two").status()), EEXIST);
  EXPECT_EQ(ErrnoOf(lab.Link(file, lab.Walk("two/dir"), std::string(300, 'n')).status()),
            ENAMETOOLONG);
  lab.share("t1").hard_links = false;
  EXPECT_EQ(ErrnoOf(lab.Link(file, two, "new").status()), EOPNOTSUPP);
  EXPECT_EQ(lab.ContentOf("t1", "other"), "other");
}

TEST_F(NewNamesTest, NothingIsMadeOnAReadOnlyMount) {
  lab.Mount("//t1/share", {.read_only = true});
  EXPECT_EQ(ErrnoOf(lab.Link(lab.Walk("file"), kRoot, "second").status()), EROFS);
  EXPECT_EQ(ErrnoOf(lab.MakeFile(kRoot, "new").status()), EROFS);
}

TEST_F(NewNamesTest, ALinkWhoseAnswerWasLostIsMadeOnce) {
  for (const bool executed : {false, true}) {
    SCOPED_TRACE(executed);
    lab.Mount("//t1/share");
    const state::NodeId file = lab.Walk("file");
    Lose(executed);
    const std::string name = executed ? "executed" : "ignored";
    EXPECT_TRUE(lab.Link(file, kRoot, name).ok());
    EXPECT_EQ(lab.ContentOf("t1", name), "0123456789");
    EXPECT_EQ(lab.counters().lost_answers, 1);
  }
}

// Both are empty and of the same second: alike, as copies are, and not the same.
TEST(NewNamesOnTwoTargetsTest, WhatIsOpenIsNotTheFileOfItsNameThatWasMadeElsewhere) {
  constexpr struct {
    const char* name;
    bool is_copied;  // By somebody, before it is asked for there.
    bool by_mknod;
    int flags;
    int error;
  } kCases[] = {
      {"made exclusively", false, false, O_RDWR | O_EXCL, ESTALE},
      {"made", false, false, O_RDWR, ESTALE},
      {"made without opening it", false, true, 0, ESTALE},
      {"a copy that was there", true, false, O_RDWR, 0},
  };
  for (const auto& c : kCases) {
    for (const bool agent_dies : {false, true}) {
      SCOPED_TRACE(absl::StrCat(c.name, agent_dies ? ", the agent dies" : ""));
      FilesystemLab lab;
      lab.OnBoth([](testing::ScriptedShare& share) { share.writable = true; });
      lab.Mount("//root1/dfs");
      const state::NodeId link = lab.Walk("two");
      const absl::StatusOr<CreateReply> first = lab.Create(link, "file");
      ASSERT_TRUE(first.ok()) << first.status();
      ASSERT_TRUE(lab.share("t1").Find("file") != nullptr);
      if (c.is_copied) {
        lab.share("t2").AddText("file", "").last_write = lab.share("t1").Find("file")->last_write;
      }
      lab.lab().Kill("t1");
      EXPECT_EQ(ErrnoOf(lab.Lookup(link, "none").status()), ENOENT);  // The link moves.
      if (c.by_mknod) {
        ASSERT_EQ(lab.MakeFile(link, "file").status(), absl::OkStatus());
      } else {
        ASSERT_EQ(lab.Create(link, "file", c.flags).status(), absl::OkStatus());
      }
      if (agent_dies) lab.TakeOver();
      EXPECT_EQ(ErrnoOf(lab.Write(first->open.fh, 0, "of the first")), c.error);
      EXPECT_EQ(lab.ContentOf("t2", "file"), c.error == 0 ? "of the first" : "");
    }
  }
}

TEST(NewNamesOnTwoTargetsTest, NorIsItThatOfACreateWhoseAnswerWasLost) {
  for (const bool agent_dies : {false, true}) {
    SCOPED_TRACE(agent_dies);
    FilesystemLab lab;
    lab.OnBoth([](testing::ScriptedShare& share) { share.writable = true; });
    lab.Mount("//root1/dfs");
    const state::NodeId link = lab.Walk("two");
    const absl::StatusOr<CreateReply> first = lab.Create(link, "file");
    ASSERT_TRUE(first.ok()) << first.status();
    lab.lab().Kill("t1");
    EXPECT_EQ(ErrnoOf(lab.Lookup(link, "none").status()), ENOENT);
    TestJournal journal;
    lab.server("t2").AddRule(
        {.command = smb::wire::Command::kCreate,
         .path = "file",
         .times = 1,
         .action = {.drop = true,
                    .close = agent_dies ? testing::Closing::kNothing : testing::Closing::kReset}});
    if (agent_dies) {
      struct Made {
        static runtime::Task<absl::Status> Run(Filesystem* filesystem, state::NodeId link,
                                               ChangeJournal* journal, runtime::Deadline until) {
          co_return (co_await filesystem->Create(link, "file", O_RDWR, journal, until)).status();
        }
      };
      EXPECT_FALSE(lab.TryChange(
                          [&](runtime::Deadline until) {
                            return Made::Run(&lab.filesystem(), link, &journal, until);
                          },
                          absl::Milliseconds(300))
                       .has_value());
      journal.Die();
      journal.asked_ago = absl::Seconds(1);
      lab.TakeOver();
    }
    ASSERT_EQ(lab.Create(link, "file", O_RDWR, &journal).status(), absl::OkStatus());
    EXPECT_EQ(ErrnoOf(lab.Write(first->open.fh, 0, "of the first")), ESTALE);
    EXPECT_EQ(lab.ContentOf("t2", "file"), "");
  }
}

TEST_F(NewNamesTest, AHandleThatIsSetToAppendWritesAtTheEnd) {
  lab.Mount("//t1/share");
  const state::NodeId file = lab.Walk("file");
  const state::FileHandle fh = lab.Open(file, O_RDWR)->fh;
  // Somebody else has made it longer.
  lab.share("t1").Find("file")->Write(10, FilesystemLab::BytesOf("theirs"));
  lab.invalidation().changed.clear();
  EXPECT_EQ(lab.WriteAtEnd(fh, "ours"), absl::OkStatus());
  EXPECT_EQ(lab.ContentOf("t1", "file"), "0123456789theirsours");
  // The kernel has it where the file ended before.
  EXPECT_TRUE(lab.invalidation().changed.contains(file));
  EXPECT_EQ(*lab.Read(fh, 10, 100), "theirsours");
  // Not any more.
  EXPECT_EQ(lab.Write(fh, 0, "x"), absl::OkStatus());
  EXPECT_EQ(lab.ContentOf("t1", "file"), "x123456789theirsours");
  lab.TakeOver();
  EXPECT_EQ(lab.WriteAtEnd(fh, "!"), absl::OkStatus());
  EXPECT_EQ(lab.ContentOf("t1", "file"), "x123456789theirsours!");
}

}  // namespace
}  // namespace dfscsi::vfs
