// SYMLINK and READLINK where files stand for symbolic links (mfsymlinks).

#include <errno.h>
#include <fcntl.h>
#include <gtest/gtest.h>

#include <functional>
#include <optional>
#include <string>

#include "node-agent/vfs/filesystem_test_lab.h"
#include "node-agent/vfs/mf_symlink.h"

namespace dfscsi::vfs {
namespace {

using smb::wire::Command;
using smb::wire::NtStatus;
using testing::Closing;
using testing::ScriptedShare;

constexpr state::NodeId kRoot = state::kRootNode;

struct SymlinksTest : public ::testing::Test {
  SymlinksTest() {
    lab.OnBoth([](ScriptedShare& share) {
      share.writable = true;
      share.AddText("link", MfSymlinkOf("dir/inside"));
      share.AddText("plain", std::string(kMfSymlinkBytes, 'x'));
      share.AddText("dir/inside", "inside");
    });
  }
  void Mount(bool mf_symlinks = true) { lab.Mount("//t1/share", {.mf_symlinks = mf_symlinks}); }
  absl::StatusOr<EntryReply> Make(const std::string& name, const std::string& target,
                                  ChangeJournal* journal = nullptr) {
    return lab
        .Await<absl::StatusOr<EntryReply>>([&] {
          return lab.filesystem().MakeSymlink(kRoot, name, target, journal,
                                              runtime::Deadline::Never());
        })
        .value_or(absl::DeadlineExceededError("it does not end"));
  }
  // What an attempt left under a name of its own.
  int Leftovers() {
    int count = 0;
    for (const auto& [name, file] : lab.share("t1").root()->children) {
      count += file->name.starts_with(u".dfscsi") ? 1 : 0;
    }
    return count;
  }
  FilesystemLab lab;
};

TEST_F(SymlinksTest, AFileThatStandsForALinkIsOne) {
  Mount();
  const absl::StatusOr<EntryReply> link = lab.Lookup(kRoot, "link");
  ASSERT_TRUE(link.ok()) << link.status();
  EXPECT_TRUE(S_ISLNK(link->attributes.st_mode));
  EXPECT_EQ(link->attributes.st_size, 10);
  EXPECT_EQ(lab.ReadLink(link->node).value_or(""), "dir/inside");
  lab.RunFor(absl::Seconds(5));
  EXPECT_TRUE(S_ISLNK(lab.GetAttributes(link->node)->attributes.st_mode));
  // One of the same size is a file, and no link.
  const absl::StatusOr<EntryReply> plain = lab.Lookup(kRoot, "plain");
  EXPECT_TRUE(S_ISREG(plain->attributes.st_mode));
  EXPECT_EQ(plain->attributes.st_size, 1067);
  EXPECT_FALSE(lab.ReadLink(plain->node).ok());
}

TEST_F(SymlinksTest, WithoutTheOptionTheyAreFiles) {
  Mount(/*mf_symlinks=*/false);
  EXPECT_TRUE(S_ISREG(lab.Lookup(kRoot, "link")->attributes.st_mode));
  EXPECT_EQ(ErrnoOf(Make("new", "target").status()), EOPNOTSUPP);
  EXPECT_TRUE(lab.server("t1").mutations().empty());
}

TEST_F(SymlinksTest, AListingLeavesTheirTypeOpen) {
  Mount();
  const state::FileHandle fh = *lab.OpenDirectory(kRoot);
  for (const bool plus : {false, true}) {
    const auto entries = lab.ReadDirectory(fh, 0, 100, plus);
    ASSERT_TRUE(entries.ok());
    int open = 0;
    for (const EntryList::Entry& entry : *entries) {
      if (entry.name == "link" || entry.name == "plain") {
        EXPECT_EQ(entry.attributes.st_mode, 0u) << entry.name;
        EXPECT_EQ(entry.node, 0u) << entry.name;
        ++open;
      }
      if (entry.node != 0) lab.filesystem().Forget(entry.node, 1);
    }
    EXPECT_EQ(open, 2);
  }
  // Nor does what was listed answer the look that comes next.
  EXPECT_TRUE(S_ISLNK(lab.Lookup(kRoot, "link")->attributes.st_mode));
}

TEST_F(SymlinksTest, ALinkIsMadeReadMovedAndRemoved) {
  Mount();
  for (const std::string& target : {std::string("a"), std::string("/abs/olute"),
                                    std::string("../\xc3\xbc"), std::string(1024, 'x')}) {
    const absl::StatusOr<EntryReply> made = Make("new", target);
    ASSERT_TRUE(made.ok()) << made.status();
    EXPECT_TRUE(S_ISLNK(made->attributes.st_mode));
    EXPECT_EQ(made->attributes.st_size, static_cast<off_t>(target.size()));
    EXPECT_EQ(lab.ContentOf("t1", "new"), MfSymlinkOf(target));
    EXPECT_EQ(lab.ReadLink(made->node).value_or(""), target);
    EXPECT_EQ(Leftovers(), 0);
    EXPECT_EQ(lab.Rename(kRoot, "new", kRoot, "moved"), absl::OkStatus());
    EXPECT_TRUE(S_ISLNK(lab.Lookup(kRoot, "moved")->attributes.st_mode));
    EXPECT_EQ(lab.Unlink(kRoot, "moved"), absl::OkStatus());
  }
}

TEST_F(SymlinksTest, WhatCannotBeMade) {
  Mount();
  EXPECT_EQ(ErrnoOf(Make("link", "target").status()), EEXIST);
  EXPECT_EQ(ErrnoOf(Make("dir", "target").status()), EEXIST);
  EXPECT_EQ(ErrnoOf(Make("new", std::string(1025, 'x')).status()), ENAMETOOLONG);
  EXPECT_EQ(ErrnoOf(Make("new", "").status()), ENOENT);
  EXPECT_EQ(lab.ContentOf("t1", "link"), MfSymlinkOf("dir/inside"));
  lab.share("t1").free_bytes = 100;
  EXPECT_EQ(ErrnoOf(Make("new", "target").status()), ENOSPC);
  EXPECT_EQ(lab.share("t1").Find("new"), nullptr);
  EXPECT_EQ(Leftovers(), 0);
}

TEST_F(SymlinksTest, NobodySeesHalfALink) {
  Mount();
  bool was_seen = false;
  lab.server("t1").set_script(
      [&](const testing::ScriptedRequest& request) -> std::optional<testing::Action> {
        const testing::ScriptedFile* const file = lab.share("t1").Find("new");
        if (file != nullptr && file->Content() != MfSymlinkOf("target")) was_seen = true;
        return std::nullopt;
      });
  EXPECT_TRUE(Make("new", "target").ok());
  EXPECT_FALSE(was_seen);
}

TEST_F(SymlinksTest, ALinkWhoseAnswerWasLostIsMadeOnce) {
  Mount();
  lab.RunFor(absl::Minutes(10));
  for (const Command command : {Command::kCreate, Command::kWrite, Command::kSetInfo}) {
    for (const bool executed : {true, false}) {
      const std::string name =
          "new" + std::to_string(static_cast<int>(command)) + (executed ? "done" : "not");
      lab.server("t1").ClearRules();
      lab.server("t1").AddRule(
          {.command = command,
           .times = 1,
           .action = {.drop = executed, .ignore = !executed, .close = Closing::kReset}});
      const absl::StatusOr<EntryReply> made = Make(name, "target");
      ASSERT_TRUE(made.ok()) << name << made.status();
      EXPECT_EQ(lab.ContentOf("t1", name), MfSymlinkOf("target"));
      EXPECT_EQ(Leftovers(), 0) << name;
    }
  }
  // One that was there before is not taken for ours.
  lab.server("t1").ClearRules();
  lab.server("t1").AddRule({.command = Command::kSetInfo,
                            .times = 1,
                            .action = {.ignore = true, .close = Closing::kReset}});
  EXPECT_EQ(ErrnoOf(Make("link", "dir/inside").status()), EEXIST);
  EXPECT_EQ(Leftovers(), 0);
}

TEST_F(SymlinksTest, TheNextAgentMakesTheLinkOnce) {
  for (const bool executed : {true, false}) {
    FilesystemLab fresh;
    fresh.share("t1").writable = true;
    fresh.Mount("//t1/share", {.mf_symlinks = true});
    fresh.RunFor(absl::Minutes(10));
    TestJournal journal;
    const auto make = [&](runtime::Deadline until) -> runtime::Task<absl::Status> {
      co_return (co_await fresh.filesystem().MakeSymlink(kRoot, "new", "target", &journal, until))
          .status();
    };
    fresh.server("t1").AddRule({.command = Command::kSetInfo,
                                .times = 1,
                                .action = {.drop = executed, .ignore = !executed}});
    EXPECT_FALSE(fresh.TryChange(make, absl::Milliseconds(500)).has_value());
    EXPECT_EQ(fresh.share("t1").Find("new") != nullptr, executed);
    journal.Die();
    journal.asked_ago = absl::Seconds(2);
    fresh.server("t1").ClearRules();
    fresh.TakeOver();
    EXPECT_EQ(fresh.Change(make), absl::OkStatus()) << executed;
    EXPECT_EQ(fresh.ContentOf("t1", "new"), MfSymlinkOf("target"));
    EXPECT_EQ(fresh.share("t1").root()->children.size(), 1u) << executed;
  }
}

}  // namespace
}  // namespace dfscsi::vfs
