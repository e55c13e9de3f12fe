// What only its own server will do for: it is waited for there, also by the next agent, though the
// link has another target by then.

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

// A file of two copies, whose link is on t1.
struct OwnServerTest : LocksTest {
  OwnServerTest() : LocksTest({}, {.write_grace = absl::Seconds(20)}) {}
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

INSTANTIATE_TEST_SUITE_P(Ways, OwnServerAwayTest,
                         ::testing::Values(Absence{"Killed"}, Absence{"Hung", true},
                                           Absence{"KilledWithTheAgent", false, true},
                                           Absence{"HungWithTheAgent", true, true}),
                         [](const auto& row) { return row.param.name; });

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

// Its inode would stand for two files, with one size: what goes by the size that the kernel was
// told, SEEK_END for one, would overwrite what was acknowledged.
TEST(FailbackBesideWritersTest, ALinkDoesNotGoBackWhileWhatIsOpenHasWritten) {
  FilesystemLab lab;
  lab.OnBoth([](testing::ScriptedShare& share) {
    share.writable = true;
    share.AddText("file", "0123456789");
  });
  lab.Mount("//root1/dfs", {},
            {.referral_ttl_min = absl::Seconds(8), .failback = dfs::Failback::kAlways});
  const auto target = [&] { return lab.client().ListLinks().back().target; };
  lab.lab().Kill("t1");
  const absl::StatusOr<OpenReply> open = lab.Open(lab.Walk("two/file"), O_RDWR);
  ASSERT_TRUE(open.ok());
  ASSERT_EQ(lab.Write(open->fh, 10, "abc"), absl::OkStatus());
  lab.lab().Start("t1");
  lab.RunFor(absl::Minutes(2));
  EXPECT_EQ(target(), "//t2/share");
  EXPECT_EQ(lab.GetAttributes(lab.Walk("two/file"))->attributes.st_size, 13);
  lab.lab().agent().RunNow([&] { lab.filesystem().Release(open->fh); });
  lab.RunFor(absl::Minutes(2));
  EXPECT_EQ(target(), "//t1/share");
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
