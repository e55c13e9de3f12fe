// Who opens a file on another target than the one that this mount has written to.

#include <errno.h>
#include <fcntl.h>
#include <gtest/gtest.h>

#include <string>

#include "node-agent/vfs/filesystem_test_lab.h"

namespace dfscsi::vfs {
namespace {

using testing::ScriptedShare;

struct WrittenRecordsTest : public ::testing::Test {
  WrittenRecordsTest() {
    lab.OnBoth([](ScriptedShare& share) {
      share.writable = true;
      share.AddText("file", "0123456789").last_write = absl::FromUnixSeconds(1);
      share.AddText("other", "x").last_write = absl::FromUnixSeconds(1);
    });
  }
  void Mount(bool strict) {
    lab.Mount("//root1/dfs", {.refuse_older = strict}, {.write_grace = absl::Seconds(5)});
    lab.RunFor(absl::Minutes(1));  // Later than what is there.
  }
  // Through a handle that is closed again.
  void WriteTo(const std::string& path, int flags = O_RDWR) {
    const absl::StatusOr<OpenReply> open = lab.Open(lab.Walk(path), flags);
    ASSERT_TRUE(open.ok()) << open.status();
    EXPECT_EQ(lab.Write(open->fh, 0, "new"), absl::OkStatus());
    Close(open->fh);
  }
  void Close(state::FileHandle fh) {
    lab.lab().agent().RunNow([&] { lab.filesystem().Release(fh); });
  }
  // From now on t2 serves the link.
  void Move() {
    lab.RunFor(absl::Seconds(10));
    lab.lab().Kill("t1");
  }
  absl::Status OpenAgain(const std::string& path, int flags = O_RDONLY) {
    const absl::StatusOr<OpenReply> open = lab.Open(lab.Walk(path), flags);
    if (open.ok()) Close(open->fh);
    return open.status();
  }
  FilesystemLab lab;
};

TEST_F(WrittenRecordsTest, AnOlderCopyIsCountedAndOpened) {
  Mount(/*strict=*/false);
  WriteTo("two/file");
  Move();
  EXPECT_EQ(OpenAgain("two/file"), absl::OkStatus());
  EXPECT_EQ(lab.counters().older_copies, 1);
  EXPECT_EQ(OpenAgain("two/other"), absl::OkStatus());
  EXPECT_EQ(lab.counters().older_copies, 1);
}

TEST_F(WrittenRecordsTest, AStrictMountRefusesAnOlderCopyBeforeItCutsIt) {
  Mount(/*strict=*/true);
  WriteTo("two/file");
  Move();
  EXPECT_EQ(ErrnoOf(OpenAgain("two/file")), ESTALE);
  EXPECT_EQ(ErrnoOf(OpenAgain("two/file", O_RDWR | O_TRUNC)), ESTALE);
  EXPECT_EQ(ErrnoOf(lab.Create(lab.Walk("two"), "file", O_RDWR | O_CREAT).status()), ESTALE);
  EXPECT_EQ(lab.ContentOf("t2", "file"), "0123456789");
  EXPECT_EQ(lab.counters().older_copies, 3);
  lab.RunFor(absl::Seconds(1));
  EXPECT_EQ(lab.server("t2").opens(), 0);
  EXPECT_EQ(OpenAgain("two/other"), absl::OkStatus());
}

TEST_F(WrittenRecordsTest, ACopyThatHasItIsNoNews) {
  Mount(/*strict=*/true);
  WriteTo("two/file");
  lab.share("t2").Find("file")->last_write = lab.now();
  Move();
  EXPECT_EQ(OpenAgain("two/file"), absl::OkStatus());
  EXPECT_EQ(lab.counters().older_copies, 0);
}

TEST_F(WrittenRecordsTest, EveryWayToChangeAFileIsRecorded) {
  Mount(/*strict=*/true);
  WriteTo("two/file", O_WRONLY | O_APPEND);
  EXPECT_TRUE(lab.SetAttributes(lab.Walk("two/other"), {.size_bytes = 0}).ok());
  Move();
  EXPECT_EQ(ErrnoOf(OpenAgain("two/file")), ESTALE);
  EXPECT_EQ(ErrnoOf(OpenAgain("two/other")), ESTALE);
}

TEST_F(WrittenRecordsTest, WhatIsRenamedIsKnownByItsNewName) {
  Mount(/*strict=*/true);
  WriteTo("two/file");
  EXPECT_EQ(lab.Rename(lab.Walk("two"), "file", lab.Walk("two"), "other"), absl::OkStatus());
  Move();
  EXPECT_EQ(ErrnoOf(OpenAgain("two/other")), ESTALE);
  EXPECT_EQ(OpenAgain("two/file"), absl::OkStatus());
}

TEST_F(WrittenRecordsTest, ATimeThatWasSetIsNotTakenForAnOlderCopy) {
  Mount(/*strict=*/true);
  const absl::Time old = absl::FromUnixSeconds(2);
  WriteTo("two/file");
  EXPECT_TRUE(lab.SetAttributes(lab.Walk("two/file"), {.modified = old}).ok());
  lab.share("t2").Find("file")->text = "new3456789";
  lab.share("t2").Find("file")->last_write = old;
  Move();
  EXPECT_EQ(OpenAgain("two/file"), absl::OkStatus());
}

TEST_F(WrittenRecordsTest, ItIsForgottenWithTheReferral) {
  lab.namespace_share().Find("two")->referral.ttl_seconds = 300;
  Mount(/*strict=*/true);
  WriteTo("two/file");
  Move();
  EXPECT_EQ(ErrnoOf(OpenAgain("two/file")), ESTALE);
  lab.RunFor(absl::Seconds(300));
  EXPECT_EQ(OpenAgain("two/file"), absl::OkStatus());
}

TEST_F(WrittenRecordsTest, AShareWithoutOtherTargetsHasNoRecord) {
  lab.Mount("//t1/share", {.refuse_older = true});
  WriteTo("file");
  lab.lab().Kill("t1");
  lab.lab().Start("t1");
  lab.share("t1").Find("file")->last_write = absl::FromUnixSeconds(1);
  EXPECT_EQ(OpenAgain("file"), absl::OkStatus());
}

}  // namespace
}  // namespace dfscsi::vfs
