// Durable handles: catalogue D14 and D15.

#include <errno.h>
#include <fcntl.h>
#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <vector>

#include "node-agent/smb/wire/create.h"
#include "node-agent/vfs/filesystem_test_lab.h"

namespace dfscsi::vfs {
namespace {

using smb::wire::Command;
using testing::Closing;
using testing::ScriptedShare;

constexpr state::NodeId kRoot = state::kRootNode;

struct DurableTest : public ::testing::Test {
  DurableTest() {
    lab.OnBoth([](ScriptedShare& share) {
      share.writable = true;
      share.AddText("file", "0123456789");
    });
    lab.server("t1").set_script(
        [this](const testing::ScriptedRequest& request) -> std::optional<testing::Action> {
          if (request.header.command != Command::kCreate) return std::nullopt;
          const auto create = smb::wire::DecodeCreateRequest(request.body);
          if (create.ok() && create->durable.has_value()) {
            ++asked;
            asked_for = absl::Milliseconds(create->durable->timeout_ms);
          }
          if (create.ok() && create->durable_reconnect.has_value()) ++reconnects;
          return std::nullopt;
        });
  }
  ~DurableTest() override { lab.server("t1").set_script(nullptr); }
  void Mount(bool durable = true) { lab.Mount("//t1/share", {.durable = durable}); }
  state::FileHandle MustOpen(int flags = O_RDWR) {
    const absl::StatusOr<OpenReply> open = lab.Open(lab.Walk("file"), flags);
    EXPECT_TRUE(open.ok()) << open.status();
    return open.ok() ? open->fh : 0;
  }
  void Close(state::FileHandle fh) {
    lab.lab().agent().RunNow([&] { lab.filesystem().Release(fh); });
  }
  // With the next WRITE, which is not executed.
  void BreakConnection() {
    lab.server("t1").AddRule({.command = Command::kWrite,
                              .times = 1,
                              .action = {.ignore = true, .close = Closing::kReset}});
  }
  FilesystemLab lab;
  int asked = 0;
  absl::Duration asked_for;
  int reconnects = 0;
};

TEST_F(DurableTest, D14_AHandleThatWritesIsTakenUpOnItsServerWithoutAnIdentityCheck) {
  Mount();
  const state::FileHandle fh = MustOpen();
  EXPECT_EQ(asked, 1);
  EXPECT_EQ(lab.Write(fh, 0, "a"), absl::OkStatus());
  BreakConnection();
  // The very handle is the very file, whatever its name shows meanwhile.
  lab.share("t1").Find("file")->id += 1000;
  EXPECT_EQ(lab.Write(fh, 1, "b"), absl::OkStatus());
  EXPECT_EQ(lab.ContentOf("t1", "file"), "ab23456789");
  EXPECT_EQ(lab.counters().durable_reconnects, 1);
  EXPECT_EQ(lab.server("t1").opens(), 1);
  EXPECT_EQ(lab.server("t1").durable_opens(), 0);
  // And once more.
  BreakConnection();
  EXPECT_EQ(lab.Write(fh, 2, "c"), absl::OkStatus());
  EXPECT_EQ(lab.counters().durable_reconnects, 2);
  EXPECT_EQ(*lab.Read(fh, 0, 4), "abc3");
}

// Whoever opens the file after its owner is gone for ever may have to wait for the server's end of
// patience.
TEST_F(DurableTest, IsKeptForNoLongerThanItIsWaitedFor) {
  lab.Mount("//t1/share", {.durable = true, .durable_for = absl::Seconds(7)});
  MustOpen();
  EXPECT_EQ(asked, 1);
  EXPECT_EQ(asked_for, absl::Seconds(7));
}

TEST_F(DurableTest, D15_WhatTheServerHasLetGoOfIsOpenedByItsPath) {
  Mount();
  const state::FileHandle fh = MustOpen();
  EXPECT_EQ(lab.Write(fh, 0, "a"), absl::OkStatus());
  lab.lab().Kill("t1");
  lab.lab().Start("t1");
  EXPECT_EQ(lab.Write(fh, 1, "b"), absl::OkStatus());
  EXPECT_EQ(lab.ContentOf("t1", "file"), "ab23456789");
  EXPECT_EQ(reconnects, 1);
  EXPECT_EQ(lab.counters().durable_reconnects, 0);
  EXPECT_EQ(lab.counters().rebinds, 1);
  // It is durable again.
  BreakConnection();
  EXPECT_EQ(lab.Write(fh, 2, "c"), absl::OkStatus());
  EXPECT_EQ(lab.counters().durable_reconnects, 1);
}

TEST_F(DurableTest, D15_AnotherFileThatIsThereThenIsStale) {
  Mount();
  const state::FileHandle fh = MustOpen();
  EXPECT_EQ(lab.Write(fh, 0, "a"), absl::OkStatus());
  lab.lab().Kill("t1");
  lab.share("t1").Remove("file");
  lab.share("t1").AddText("file", "another");
  lab.lab().Start("t1");
  EXPECT_EQ(ErrnoOf(lab.Write(fh, 1, "b")), ESTALE);
  EXPECT_EQ(lab.ContentOf("t1", "file"), "another");
}

TEST_F(DurableTest, APersistentHandleOutlivesTheServer) {
  lab.share("t1").persistent_handles = true;
  Mount();
  const state::FileHandle fh = MustOpen();
  EXPECT_EQ(lab.Write(fh, 0, "a"), absl::OkStatus());
  lab.lab().Kill("t1");
  lab.lab().Start("t1");
  EXPECT_EQ(lab.Write(fh, 1, "b"), absl::OkStatus());
  EXPECT_EQ(lab.counters().durable_reconnects, 1);
  EXPECT_EQ(lab.ContentOf("t1", "file"), "ab23456789");
}

TEST_F(DurableTest, TheNextAgentTakesUpWhatTheDeadOneHad) {
  Mount();
  const state::FileHandle fh = MustOpen();
  EXPECT_EQ(lab.Write(fh, 0, "a"), absl::OkStatus());
  lab.TakeOver();
  lab.share("t1").Find("file")->id += 1000;
  EXPECT_EQ(lab.Write(fh, 1, "b"), absl::OkStatus());
  EXPECT_EQ(lab.counters().durable_reconnects, 1);
  // And what that one had, which is another handle to the server.
  lab.TakeOver();
  EXPECT_EQ(lab.Write(fh, 2, "c"), absl::OkStatus());
  EXPECT_EQ(lab.counters().durable_reconnects, 1);
  EXPECT_EQ(lab.ContentOf("t1", "file"), "abc3456789");
  EXPECT_EQ(lab.server("t1").opens(), 1);
}

TEST_F(DurableTest, WhatIsClosedWhileItsServerIsAwayDoesNotKeepARemovedName) {
  Mount();
  const state::FileHandle fh = MustOpen();
  EXPECT_EQ(lab.Write(fh, 0, "a"), absl::OkStatus());
  lab.lab().process("t1").RunNow([&] { lab.server("t1").CloseConnections(Closing::kReset); });
  lab.RunFor(absl::Seconds(1));
  EXPECT_EQ(lab.server("t1").durable_opens(), 1);
  Close(fh);
  EXPECT_EQ(lab.Unlink(kRoot, "file"), absl::OkStatus());
  EXPECT_EQ(lab.server("t1").durable_opens(), 0);
  EXPECT_EQ(lab.ContentOf("t1", "file"), "(none)");
}

TEST_F(DurableTest, WhatADeadAgentLeftOpenAndIsClosedDoesNotKeepARemovedName) {
  Mount();
  const state::FileHandle fh = MustOpen();
  EXPECT_EQ(lab.Write(fh, 0, "a"), absl::OkStatus());
  lab.TakeOver();
  Close(fh);
  EXPECT_EQ(lab.Unlink(kRoot, "file"), absl::OkStatus());
  EXPECT_EQ(lab.server("t1").durable_opens(), 0);
  EXPECT_EQ(lab.ContentOf("t1", "file"), "(none)");
}

TEST_F(DurableTest, ItIsAskedForByWritersAloneAndCostsNoFrame) {
  int64_t frames[2] = {};
  for (const bool durable : {false, true}) {
    Mount(durable);
    const absl::StatusOr<CreateReply> made = lab.Create(kRoot, durable ? "with" : "without");
    ASSERT_TRUE(made.ok());
    const int64_t before = lab.frames();
    EXPECT_EQ(lab.Write(made->open.fh, 0, "x"), absl::OkStatus());
    Close(made->open.fh);
    const state::FileHandle reader = MustOpen(O_RDONLY);
    const state::FileHandle writer = MustOpen(O_WRONLY);
    Close(reader);
    Close(writer);
    lab.RunFor(absl::Seconds(1));
    frames[durable ? 1 : 0] = lab.frames() - before;
    EXPECT_EQ(asked, durable ? 2 : 0);
    lab.TakeOver();
  }
  EXPECT_EQ(frames[0], frames[1]);
}

}  // namespace
}  // namespace dfscsi::vfs
