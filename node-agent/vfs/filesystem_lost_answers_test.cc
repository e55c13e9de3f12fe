// What simulated writers have found (testing/engine_simulation_writers.h): changes whose answers
// were lost, links that move while a change is made, agents that die in the middle of one.

#include <errno.h>
#include <fcntl.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>

#include "node-agent/vfs/errno.h"
#include "node-agent/vfs/filesystem_test_lab.h"

namespace dfscsi::vfs {
namespace {

using smb::wire::Command;
using testing::Closing;

constexpr state::NodeId kRoot = state::kRootNode;

class LostAnswersTest : public ::testing::Test {
 protected:
  LostAnswersTest() {
    lab.OnBoth([](testing::ScriptedShare& share) {
      share.writable = true;
      share.AddText("file", "0123456789");
    });
  }
  // The answer to the next one.
  void LoseCreate(const std::string& name) {
    lab.server("t1").AddRule({.command = Command::kCreate,
                              .path = name,
                              .times = 1,
                              .action = {.drop = true, .close = Closing::kReset}});
  }
  FilesystemLab lab;
};

// A lock file of another machine's, made just before. To take it for ours would be two holders.
TEST_F(LostAnswersTest, WhatWasMadeJustBeforeIsNotTakenForOurs) {
  lab.Mount("//t1/share");
  for (const bool known : {false, true}) {
    const std::string name = known ? "known" : "of_another";
    lab.RunFor(absl::Milliseconds(60'123));
    if (known) {
      ASSERT_TRUE(lab.Create(kRoot, name, O_RDWR | O_EXCL).ok());
    } else {
      testing::ScriptedShare& share = lab.share("t1");
      share.Make(share.root(), u"of_another", testing::FileKind::kFile, lab.now());
    }
    lab.RunFor(known ? absl::Milliseconds(1) : absl::Milliseconds(700));
    LoseCreate(name);
    EXPECT_EQ(ErrnoOf(lab.Create(kRoot, name, O_RDWR | O_EXCL).status()), EIO) << name;
  }
  EXPECT_EQ(lab.counters().lost_answers, 2);
}

// Where a server rounds birthdays, what is there may well be ours.
TEST_F(LostAnswersTest, ABirthdayInWholeSecondsMayBeEarly) {
  lab.Mount("//t1/share");
  lab.RunFor(absl::Milliseconds(10'900));
  lab.server("t1").set_script(
      [this](const testing::ScriptedRequest&) -> std::optional<testing::Action> {
        if (testing::ScriptedFile* const made = lab.share("t1").Find("new"); made != nullptr) {
          made->created = absl::FromUnixSeconds(absl::ToUnixSeconds(*made->created));
        }
        return std::nullopt;
      });
  LoseCreate("new");
  EXPECT_TRUE(lab.Create(kRoot, "new", O_RDWR | O_EXCL).ok());
  EXPECT_EQ(lab.CountMutations("t1", Command::kCreate), 1);
}

// The change is made on t1; then the link leads to t2, which does not have the file.
TEST_F(LostAnswersTest, AChangeIsDoneThoughItsFileIsOnTheFormerTargetAlone) {
  lab.Mount("//root1/dfs");
  lab.share("t2").Remove("file");
  const state::NodeId file = lab.Walk("two/file");
  lab.server("t1").set_script(
      [this](const testing::ScriptedRequest& request) -> std::optional<testing::Action> {
        if (lab.CountMutations("t1", Command::kSetInfo) == 0) return std::nullopt;
        // The look behind the change.
        if (request.header.command != Command::kCreate) return std::nullopt;
        return testing::Action{.ignore = true, .close = Closing::kReset};
      });
  const absl::StatusOr<AttributesReply> cut = lab.SetAttributes(file, {.size_bytes = 4});
  ASSERT_TRUE(cut.ok()) << cut.status();
  EXPECT_EQ(cut->attributes.st_size, 4);
  EXPECT_EQ(cut->timeout, absl::ZeroDuration());
  EXPECT_EQ(lab.ContentOf("t1", "file"), "0123");
}

// The kernel has no answer yet, so it gives nothing back.
TEST_F(LostAnswersTest, WhoDiesWhileItCutsWhatItOpensLeavesNothingInTheTables) {
  for (const bool create : {false, true}) {
    FilesystemLab own;
    own.share("t1").writable = true;
    own.share("t1").AddText("file", "0123456789");
    own.Mount("//t1/share");
    const state::NodeId file = own.Walk("file");
    own.server("t1").AddRule({.command = Command::kSetInfo, .action = {.ignore = true}});
    TestJournal journal;
    (void)own.TryChange(
        [&](runtime::Deadline until) -> runtime::Task<absl::Status> {
          struct Opens {
            static runtime::Task<absl::Status> Run(Filesystem* filesystem, state::NodeId node,
                                                   bool creates, ChangeJournal* notes,
                                                   runtime::Deadline deadline) {
              if (creates) {
                co_return (
                    co_await filesystem->Create(kRoot, "file", O_RDWR | O_TRUNC, notes, deadline))
                    .status();
              }
              co_return (co_await filesystem->Open(node, O_RDWR | O_TRUNC, notes, deadline))
                  .status();
            }
          };
          return Opens::Run(&own.filesystem(), file, create, &journal, until);
        },
        absl::Milliseconds(500));
    EXPECT_EQ(journal.sends, create ? 2 : 1);
    own.TakeOver();
    int handles = 0;
    own.tables().handles().ForEach([&](const auto&...) { ++handles; });
    EXPECT_EQ(handles, 0) << create;
    EXPECT_EQ(own.tables().inodes().Get(file).nlookup(), 1u) << create;
    own.server("t1").ClearRules();
    own.RunFor(absl::Seconds(1));
  }
}

}  // namespace
}  // namespace dfscsi::vfs
