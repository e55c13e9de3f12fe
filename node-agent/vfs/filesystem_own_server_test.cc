// What only its own server has: it is waited for there, by the agent that has written it and by the
// next one, though the link has another target by then.

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

// A file of two copies, of which t1's was written.
struct OwnServerTest : LocksTest {
  explicit OwnServerTest(absl::Duration write_grace = absl::Seconds(10),
                         absl::Duration give_up_after = absl::InfiniteDuration())
      : LocksTest({}, {.give_up_after = give_up_after,
                       .write_grace = write_grace,
                       .referral_ttl_min = absl::Seconds(8)}) {}
  void LeaveT1(bool hangs) {
    if (hangs) {
      lab.lab().process("t1").Freeze();
    } else {
      lab.lab().Kill("t1");
    }
  }
  void ComeBack(bool hangs) {
    if (hangs) {
      lab.lab().process("t1").Unfreeze();
    } else {
      lab.lab().Start("t1");
    }
  }
  // t1 is away, and with `takes_over` the agent dies then; who looks at the link moves it to t2.
  void Move(bool hangs, bool takes_over) {
    LeaveT1(hangs);
    if (takes_over) lab.TakeOver();
    OpenIt(O_RDONLY, "two/beside");
    EXPECT_EQ(lab.client().ListLinks().back().target, "//t2/share");
  }
  std::shared_ptr<std::optional<absl::Status>> BeginWrite(const std::string& text) {
    auto result = std::make_shared<std::optional<absl::Status>>();
    struct Writing {
      static runtime::Task<void> Run(Filesystem* filesystem, state::FileHandle of, std::string text,
                                     std::shared_ptr<std::optional<absl::Status>> into) {
        into->emplace(co_await filesystem->Write(of, 0, FilesystemLab::BytesOf(text), nullptr,
                                                 runtime::Deadline::Never()));
      }
    };
    lab.lab().agent().RunNow(
        [&] { runtime::Loop::Current().Spawn(Writing::Run(&lab.filesystem(), fh, text, result)); });
    return result;
  }
};

struct Absence {
  const char* name;
  bool hangs = false;
  bool takes_over = false;
};

class OwnServerAwayTest : public OwnServerTest, public ::testing::WithParamInterface<Absence> {};

TEST_P(OwnServerAwayTest, WhatWasWrittenGoesOnThereOnceItIsBack) {
  ASSERT_EQ(lab.Write(fh, 0, "ab"), absl::OkStatus());
  Move(GetParam().hangs, GetParam().takes_over);
  const auto writing = BeginWrite("cd");
  lab.RunFor(absl::Seconds(5));
  EXPECT_FALSE(writing->has_value()) << **writing;
  ComeBack(GetParam().hangs);
  lab.RunFor(absl::Seconds(8));
  ASSERT_TRUE(writing->has_value());
  EXPECT_EQ(**writing, absl::OkStatus());
  // From then on it is one request, though the link stays where it is.
  const int64_t before = lab.frames();
  EXPECT_EQ(lab.Write(fh, 2, "ef"), absl::OkStatus());
  EXPECT_EQ(lab.frames(), before + 1);
  EXPECT_EQ(*lab.Read(fh, 0, 10), "cdef456789");
  EXPECT_EQ(lab.ContentOf("t1", "file"), "cdef456789");
  EXPECT_EQ(lab.ContentOf("t2", "file"), "0123456789");
  EXPECT_EQ(lab.client().ListLinks().back().target, "//t2/share");
  EXPECT_EQ(lab.counters().stale_handles, 0);
}

TEST_P(OwnServerAwayTest, OnceWriteGraceIsOverItIsStale) {
  const state::FileHandle other = OpenIt();
  ASSERT_EQ(lab.Write(fh, 0, "ab"), absl::OkStatus());
  ASSERT_EQ(lab.Write(other, 0, "ab"), absl::OkStatus());
  Move(GetParam().hangs, GetParam().takes_over);
  const auto took = [&](state::FileHandle of) {
    const absl::Time began = lab.now();
    EXPECT_EQ(ErrnoOf(lab.Write(of, 0, "cd")), ESTALE);
    return lab.now() - began;
  };
  EXPECT_GE(took(fh), absl::Seconds(9));
  EXPECT_LE(took(fh), absl::Milliseconds(1)) << "it stays so";
  EXPECT_LE(took(other), absl::Seconds(2)) << "its server has been waited for";
  EXPECT_EQ(lab.counters().stale_handles, 2);
  ComeBack(GetParam().hangs);
  EXPECT_EQ(ErrnoOf(lab.Read(fh, 0, 10).status()), ESTALE);
  EXPECT_EQ(lab.ContentOf("t1", "file"), "ab23456789");
  EXPECT_EQ(lab.ContentOf("t2", "file"), "0123456789");
}

TEST_P(OwnServerAwayTest, LocksAreTakenThereAgain) {
  ASSERT_EQ(Try(1, kW, 0, 9), 0);
  Move(GetParam().hangs, GetParam().takes_over);
  const auto writing = BeginWrite("cd");
  lab.RunFor(absl::Seconds(5));
  EXPECT_FALSE(writing->has_value());
  if (!GetParam().hangs) File().locks.clear();
  ComeBack(GetParam().hangs);
  lab.RunFor(absl::Seconds(8));
  ASSERT_TRUE(writing->has_value());
  EXPECT_EQ(**writing, absl::OkStatus());
  EXPECT_EQ(Held("t1"), "w0-9");
  EXPECT_EQ(Held("t2"), "");
  EXPECT_EQ(lab.ContentOf("t1", "file"), "cd23456789");
}

TEST_P(OwnServerAwayTest, WhoHasNotWrittenMoves) {
  Move(GetParam().hangs, GetParam().takes_over);
  EXPECT_EQ(lab.Write(fh, 0, "a"), absl::OkStatus());
  EXPECT_EQ(lab.ContentOf("t2", "file"), "a123456789");
}

INSTANTIATE_TEST_SUITE_P(Ways, OwnServerAwayTest,
                         ::testing::Values(Absence{"Killed"}, Absence{"Hung", true},
                                           Absence{"KilledWithTheAgent", false, true},
                                           Absence{"HungWithTheAgent", true, true}),
                         [](const auto& row) { return row.param.name; });

struct PatientTest : OwnServerTest {
  PatientTest() : OwnServerTest(absl::Minutes(30)) {}
};

TEST_F(PatientTest, AServerThatIsNoLongerListedIsNotWaitedFor) {
  ASSERT_EQ(lab.Write(fh, 0, "ab"), absl::OkStatus());
  Move(/*hangs=*/false, /*takes_over=*/false);
  lab.namespace_share().Remove("two");
  lab.namespace_share().AddLink("two", {.targets = {"t2/share"}});
  const auto writing = BeginWrite("cd");
  lab.RunFor(absl::Minutes(11));
  ASSERT_TRUE(writing->has_value());
  EXPECT_EQ(ErrnoOf(**writing), ESTALE);
}

TEST_F(OwnServerTest, AnAbsenceThatIsOverDoesNotShortenTheNext) {
  ASSERT_EQ(lab.Write(fh, 0, "ab"), absl::OkStatus());
  Move(/*hangs=*/false, /*takes_over=*/false);
  const auto first = BeginWrite("cd");
  lab.RunFor(absl::Seconds(6));
  ComeBack(/*hangs=*/false);
  lab.RunFor(absl::Seconds(60));
  ASSERT_TRUE(first->has_value() && (*first)->ok());
  lab.lab().Kill("t1");
  const auto second = BeginWrite("ef");
  lab.RunFor(absl::Seconds(6));
  EXPECT_FALSE(second->has_value());
  ComeBack(/*hangs=*/false);
  lab.RunFor(absl::Seconds(8));
  ASSERT_TRUE(second->has_value());
  EXPECT_EQ(**second, absl::OkStatus());
  EXPECT_EQ(lab.ContentOf("t1", "file"), "ef23456789");
}

// The kernel has one size of the file, and goes by it: what it is told must not be the copy's.
TEST_P(OwnServerAwayTest, ItsSizeIsNotTheCopys) {
  ASSERT_EQ(lab.Write(fh, 10, "abcdefghij"), absl::OkStatus());
  const state::NodeId node = lab.tables().handles().Get(fh).node;
  Move(GetParam().hangs, GetParam().takes_over);
  // While it is away: at once, and as it was last known; by each reply that tells of a size.
  const auto sizes = [&](off_t expected) {
    lab.RunFor(absl::Seconds(3));  // Nothing is believed from before.
    const absl::Time began = lab.now();
    const absl::StatusOr<AttributesReply> told = lab.GetAttributes(node);
    ASSERT_TRUE(told.ok()) << told.status();
    EXPECT_EQ(told->attributes.st_size, expected);
    EXPECT_LE(lab.now() - began, absl::Seconds(1));
    const absl::StatusOr<EntryReply> entry = lab.Lookup(lab.Walk("two"), "file");
    if (lab.share("t2").Find("file") == nullptr) return;
    ASSERT_TRUE(entry.ok()) << entry.status();
    EXPECT_EQ(entry->attributes.st_size, expected);
  };
  sizes(20);
  const absl::StatusOr<OpenReply> copy = lab.Open(lab.Walk("two/file"));
  ASSERT_TRUE(copy.ok());
  EXPECT_TRUE(copy->direct_io) << "another file, of the same inode";
  EXPECT_EQ(*lab.Read(copy->fh, 0, 99), "0123456789");
  ComeBack(GetParam().hangs);
  lab.RunFor(absl::Seconds(6));
  ASSERT_EQ(lab.Write(fh, 20, "klmn"), absl::OkStatus());
  sizes(24);
  lab.share("t2").Remove("file");
  sizes(24);
  // Through it, too, and by its name.
  const absl::Time when = absl::FromUnixSeconds(1'600'000'000);
  EXPECT_TRUE(lab.SetAttributes(node, {.modified = when}).ok());
  EXPECT_TRUE(lab.SetAttributes(node, {.size_bytes = 12, .fh = fh}).ok());
  EXPECT_EQ(lab.ContentOf("t1", "file"), "0123456789ab");
  sizes(12);
}

struct SoftTest : OwnServerTest {
  SoftTest() : OwnServerTest(absl::Seconds(20), /*give_up_after=*/absl::Seconds(3)) {}
  absl::Duration Took(int error) {
    const absl::Time began = lab.now();
    EXPECT_EQ(ErrnoOf(lab.Write(fh, 0, "cd")), error);
    return lab.now() - began;
  }
};

TEST_F(SoftTest, ASoftMountGivesUpTheOperationAndNotTheHandle) {
  ASSERT_EQ(lab.Write(fh, 0, "ab"), absl::OkStatus());
  Move(/*hangs=*/false, /*takes_over=*/false);
  EXPECT_LE(Took(EHOSTDOWN), absl::Seconds(4));
  ComeBack(/*hangs=*/false);
  lab.RunFor(absl::Seconds(6));
  EXPECT_EQ(lab.Write(fh, 0, "cd"), absl::OkStatus());
  EXPECT_EQ(lab.ContentOf("t1", "file"), "cd23456789");
  // Nor does it wait for a server that is there and answers nothing, or that it is too busy.
  for (const bool is_busy : {true, false}) {
    testing::Action action{.ignore = !is_busy};
    if (is_busy) action.status = NtStatus::kInsufficientResources;
    lab.server("t1").ClearRules();
    lab.server("t1").AddRule({.command = Command::kWrite, .times = 1000, .action = action});
    EXPECT_LE(Took(EHOSTDOWN), absl::Seconds(5)) << is_busy;
  }
}

TEST_F(OwnServerTest, AnAbsenceLongAgoDoesNotShortenTheNextNorDoesASlowLogOn) {
  const state::FileHandle other = OpenIt();
  ASSERT_EQ(lab.Write(fh, 0, "ab"), absl::OkStatus());
  ASSERT_EQ(lab.Write(other, 0, "ab"), absl::OkStatus());
  Move(/*hangs=*/false, /*takes_over=*/false);
  EXPECT_EQ(ErrnoOf(lab.Write(fh, 0, "cd")), ESTALE);
  ComeBack(/*hangs=*/false);
  lab.RunFor(absl::Seconds(8));
  lab.server("t1").AddRule({.command = Command::kSessionSetup,
                            .times = 2,
                            .action = {.delay = absl::Milliseconds(1200)}});
  EXPECT_EQ(lab.Write(other, 0, "ef"), absl::OkStatus());
  lab.RunFor(absl::Minutes(60));
  lab.lab().Kill("t1");
  fh = other;
  const auto writing = BeginWrite("gh");
  lab.RunFor(absl::Seconds(5));
  EXPECT_FALSE(writing->has_value());
  ComeBack(/*hangs=*/false);
  lab.RunFor(absl::Seconds(8));
  ASSERT_TRUE(writing->has_value());
  EXPECT_EQ(**writing, absl::OkStatus());
}

TEST_F(OwnServerTest, APathThatIsNotThatServersAnyMoreIsNotWaitedFor) {
  ASSERT_EQ(lab.Write(fh, 0, "ab"), absl::OkStatus());
  Move(/*hangs=*/false, /*takes_over=*/false);
  ComeBack(/*hangs=*/false);
  lab.RunFor(absl::Seconds(6));
  lab.server("t1").AddRule({.command = Command::kCreate,
                            .path = "file",
                            .times = 1000,
                            .action = {.status = NtStatus::kPathNotCovered}});
  const absl::Time began = lab.now();
  EXPECT_EQ(ErrnoOf(lab.Write(fh, 0, "cd")), ESTALE);
  EXPECT_LE(lab.now() - began, absl::Seconds(1));
}

// Of what is just being opened nothing was acknowledged.
TEST_F(OwnServerTest, WhoCutsAFileThatIsBeingOpenedWaitsForNobody) {
  lab.server("t1").AddRule({.command = Command::kSetInfo,
                            .times = 1,
                            .action = {.status = NtStatus::kInsufficientResources}});
  const state::NodeId node = lab.Walk("two/beside");
  lab.lab().world().After(absl::Milliseconds(100), [&] { lab.lab().Kill("t1"); });
  EXPECT_EQ(ErrnoOf(lab.Open(node, O_RDWR | O_TRUNC).status()), ESTALE);  // The kernel asks again.
  EXPECT_EQ(lab.Open(node, O_RDWR | O_TRUNC).status(), absl::OkStatus());
  EXPECT_EQ(lab.ContentOf("t2", "beside"), "");
}

// What a dead agent had sent to t1 is not made on t2, and is found out on t1 once that is back.
TEST_F(OwnServerTest, AChangeOfADeadAgentIsSettledWhereItWasSent) {
  for (const bool comes_back : {true, false}) {
    for (const bool executed : {true, false}) {
      SCOPED_TRACE(absl::StrCat(comes_back, executed));
      FilesystemLab fresh;
      fresh.OnBoth([](testing::ScriptedShare& share) {
        share.writable = true;
        share.posix_unlink = true;
        share.AddText("file", "0123456789");
      });
      fresh.Mount("//root1/dfs", {}, {.write_grace = absl::Seconds(20)});
      const state::NodeId two = fresh.Walk("two");
      fresh.Walk("two/file");
      fresh.server("t1").AddRule({.command = Command::kSetInfo,
                                  .times = 1,
                                  .action = {.drop = executed, .ignore = !executed}});
      TestJournal journal;
      (void)fresh.TryChange(
          [&](runtime::Deadline until) {
            return fresh.filesystem().Unlink(two, "file", &journal, until);
          },
          absl::Milliseconds(500));
      ASSERT_EQ(journal.sends, 1);
      journal.Die();
      fresh.lab().Kill("t1");
      fresh.TakeOver();
      EXPECT_EQ(ErrnoOf(fresh.Lookup(two, "none").status()), ENOENT);  // The link moves.
      if (comes_back) fresh.lab().world().After(absl::Seconds(5), [&] { fresh.lab().Start("t1"); });
      EXPECT_EQ(ErrnoOf(fresh.Unlink(two, "file", &journal)), comes_back ? 0 : EIO);
      EXPECT_EQ(fresh.counters().unknown_changes, comes_back ? 0 : 1);
      if (comes_back) {
        EXPECT_EQ(fresh.ContentOf("t1", "file"), "(none)");
      }
      EXPECT_EQ(fresh.ContentOf("t2", "file"), "0123456789");
    }
  }
}

}  // namespace
}  // namespace dfscsi::vfs
