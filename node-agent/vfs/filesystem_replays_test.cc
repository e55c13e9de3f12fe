// failover_writes=replay: the catalogue's D05, where the mount asks for it.

#include <errno.h>
#include <fcntl.h>
#include <gtest/gtest.h>

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "node-agent/runtime/wait.h"
#include "node-agent/vfs/filesystem_test_lab.h"

namespace dfscsi::vfs {
namespace {

using smb::wire::Command;
using testing::ScriptedShare;

constexpr char kBefore[] = "0123456789";

struct ReplaysTest : public ::testing::Test {
  ReplaysTest() {
    lab.OnBoth([](ScriptedShare& share) {
      share.writable = true;
      share.AddText("file", kBefore);
    });
  }
  void Mount(Options options = {.replay_writes = true}) {
    lab.Mount("//root1/dfs", std::move(options), {.write_grace = absl::Seconds(10)});
    file = lab.Walk("two/file");
  }
  state::FileHandle MustOpen(int flags = O_RDWR) {
    const absl::StatusOr<OpenReply> open = lab.Open(file, flags);
    EXPECT_TRUE(open.ok()) << open.status();
    return open.ok() ? open->fh : 0;
  }
  // From the next request of this kind on it answers nothing; that one is executed, or is not.
  void FallSilentAt(Command command, bool executed) {
    lab.server("t1").AddRule(
        {.command = command, .action = {.drop = executed, .ignore = !executed}});
    lab.server("t1").set_script(
        [this, command](const testing::ScriptedRequest& request) -> std::optional<testing::Action> {
          if (request.header.command == command) lab.server("t1").options().silent = true;
          return std::nullopt;
        });
  }
  FilesystemLab lab;
  state::NodeId file = 0;
};

struct ReplayCase {
  std::string name;
  // Before the write that is lost.
  std::function<void(ReplaysTest&, state::FileHandle)> before = {};
  Options options = {.replay_writes = true};
  int flags = O_RDWR;
  bool executed = false;  // By the lost server.
  bool is_replayed = false;
  std::string on_other = kBefore;
};

class ReplayCaseTest : public ReplaysTest, public ::testing::WithParamInterface<ReplayCase> {};

TEST_P(ReplayCaseTest, D05_IsWrittenToTheOtherCopyOnceOrEioOnce) {
  const ReplayCase& c = GetParam();
  Mount(c.options);
  const state::FileHandle fh = MustOpen(c.flags);
  if (c.before != nullptr) c.before(*this, fh);
  FallSilentAt(Command::kWrite, c.executed);
  const absl::Status status = lab.Write(fh, 3, "NEW");
  EXPECT_EQ(lab.ContentOf("t2", "file"), c.on_other);
  EXPECT_EQ(lab.CountMutations("t2", Command::kWrite), c.is_replayed ? 1 : 0);
  EXPECT_EQ(lab.counters().unknown_changes, c.is_replayed ? 0 : 1);
  EXPECT_EQ(lab.server("t2").Count(Command::kSetInfo), 0);
  if (c.is_replayed) {
    EXPECT_EQ(status, absl::OkStatus());
    EXPECT_EQ(lab.counters().replayed_writes, 1);
    // It is an open file like any other there.
    EXPECT_EQ(lab.Write(fh, 0, "on"), absl::OkStatus());
    EXPECT_EQ(*lab.Read(fh, 0, 100), lab.ContentOf("t2", "file"));
    EXPECT_EQ(lab.ContentOf("t2", "file").substr(0, 3), "on2");
  } else {
    EXPECT_EQ(ErrnoOf(status), EIO);
    EXPECT_EQ(ErrnoOf(lab.Write(fh, 0, "on")), ESTALE);  // The EIO is told once.
    EXPECT_EQ(lab.ContentOf("t2", "file"), c.on_other);
  }
}

INSTANTIATE_TEST_SUITE_P(
    D05, ReplayCaseTest,
    ::testing::Values(
        ReplayCase{.name = "NotExecuted", .is_replayed = true, .on_other = "012NEW6789"},
        ReplayCase{
            .name = "Executed", .executed = true, .is_replayed = true, .on_other = "012NEW6789"},
        ReplayCase{.name = "NotAskedFor", .options = {}},
        ReplayCase{.name = "AnotherFileThere",
                   .before =
                       [](ReplaysTest& test, state::FileHandle) {
                         test.lab.share("t2").Remove("file");
                         test.lab.share("t2").AddText("file", "other");
                       },
                   .on_other = "other"},
        ReplayCase{.name = "NoFileThere",
                   .before = [](ReplaysTest& test,
                                state::FileHandle) { test.lab.share("t2").Remove("file"); },
                   .on_other = "(none)"},
        ReplayCase{.name = "SomethingWasAcknowledgedBefore",
                   .before =
                       [](ReplaysTest& test, state::FileHandle fh) {
                         EXPECT_EQ(test.lab.Write(fh, 0, "A"), absl::OkStatus());
                       }},
        ReplayCase{.name = "AnotherHandleHasWritten",
                   .before =
                       [](ReplaysTest& test, state::FileHandle) {
                         const state::FileHandle other = test.MustOpen();
                         EXPECT_EQ(test.lab.Write(other, 0, "A"), absl::OkStatus());
                       }},
        ReplayCase{.name = "AnotherHandleHasWrittenAndIsClosed",
                   .before =
                       [](ReplaysTest& test, state::FileHandle) {
                         const state::FileHandle other = test.MustOpen();
                         EXPECT_EQ(test.lab.Write(other, 0, "A"), absl::OkStatus());
                         test.lab.lab().agent().RunNow(
                             [&] { test.lab.filesystem().Release(other); });
                       }},
        ReplayCase{.name = "ItWasCut",
                   .before =
                       [](ReplaysTest& test, state::FileHandle fh) {
                         EXPECT_TRUE(
                             test.lab.SetAttributes(test.file, {.size_bytes = 10, .fh = fh}).ok());
                       }},
        ReplayCase{.name = "ItAppends", .flags = O_WRONLY | O_APPEND}),
    [](const auto& row) { return row.param.name; });

TEST_F(ReplaysTest, D05_SeveralWritesThatAreLostTogetherAreAllReplayed) {
  Mount();
  const state::FileHandle one = MustOpen();
  const state::FileHandle other = MustOpen();
  FallSilentAt(Command::kWrite, /*executed=*/false);
  struct Writers {
    static runtime::Task<void> Run(FilesystemLab* lab, state::FileHandle fh, uint64_t at) {
      const std::string text = "ab";
      const absl::Status status = co_await lab->filesystem().Write(
          fh, at, FilesystemLab::BytesOf(text), nullptr, runtime::Deadline::Never());
      EXPECT_EQ(status, absl::OkStatus()) << at;
    }
    static runtime::Task<absl::Status> All(FilesystemLab* lab, state::FileHandle one,
                                           state::FileHandle other) {
      runtime::TaskGroup tasks;
      for (const uint64_t at : {0, 4}) tasks.Spawn(Run(lab, one, at));
      for (const uint64_t at : {2, 8}) tasks.Spawn(Run(lab, other, at));
      co_return co_await tasks.WaitUntilEmpty(runtime::Deadline::Never());
    }
  };
  EXPECT_EQ(lab.Change([&](runtime::Deadline) { return Writers::All(&lab, one, other); }),
            absl::OkStatus());
  EXPECT_EQ(lab.ContentOf("t2", "file"), "ababab67ab");
  EXPECT_EQ(lab.counters().replayed_writes, 4);
  EXPECT_EQ(lab.CountMutations("t2", Command::kWrite), 4);
}

TEST_F(ReplaysTest, D05_ItsOwnServerIsWaitedForFirst) {
  Mount();
  const state::FileHandle fh = MustOpen();
  lab.server("t1").AddRule({.command = Command::kWrite,
                            .times = 1,
                            .action = {.ignore = true, .close = testing::Closing::kReset}});
  EXPECT_EQ(lab.Write(fh, 0, "new"), absl::OkStatus());
  EXPECT_EQ(lab.ContentOf("t1", "file"), "new3456789");
  EXPECT_EQ(lab.ContentOf("t2", "file"), kBefore);
  EXPECT_EQ(lab.counters().replayed_writes, 0);
}

// Nobody knows what the dead agent's writes were acknowledged of.
TEST_F(ReplaysTest, D05_WhatADeadAgentHadSentIsNotReplayed) {
  Mount();
  const state::FileHandle fh = MustOpen();
  TestJournal journal;
  FallSilentAt(Command::kWrite, /*executed=*/false);
  const std::string text = "new";
  (void)lab.TryChange(
      [&](runtime::Deadline until) {
        return lab.filesystem().Write(fh, 0, FilesystemLab::BytesOf(text), &journal,
                                      until.Within(absl::Seconds(1)));
      },
      absl::Seconds(2));
  EXPECT_EQ(journal.sends, 1);
  journal.Die();
  lab.TakeOver();
  EXPECT_EQ(ErrnoOf(lab.Write(fh, 0, "new", &journal)), EIO);
  EXPECT_EQ(lab.ContentOf("t2", "file"), kBefore);
}

}  // namespace
}  // namespace dfscsi::vfs
