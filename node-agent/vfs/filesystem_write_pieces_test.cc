// What of the kernel's requests is one frame on the wire and what is several, and what is said
// where some of these fail.

#include <errno.h>
#include <fcntl.h>
#include <gtest/gtest.h>

#include <optional>
#include <string>

#include "absl/strings/str_cat.h"
#include "node-agent/vfs/filesystem_test_lab.h"

namespace dfscsi::vfs {
namespace {

using smb::wire::Command;
using smb::wire::NtStatus;
using testing::Closing;
using testing::ScriptedShare;

struct WritePiecesTest : public ::testing::Test {
  WritePiecesTest() {
    lab.OnBoth([](ScriptedShare& share) {
      share.writable = true;
      share.AddText("file", "0123456789");
      share.AddDirectory("dir");
    });
  }
  state::FileHandle MustOpen(const std::string& path, int flags) {
    const absl::StatusOr<OpenReply> open = lab.Open(lab.Walk(path), flags);
    EXPECT_TRUE(open.ok()) << path << ": " << open.status();
    return open.ok() ? open->fh : 0;
  }
  FilesystemLab lab;
};

TEST_F(WritePiecesTest, ASmallFileIsMadeWithFourFrames) {
  for (const bool below_a_link : {false, true}) {
    lab.Mount(below_a_link ? "//root1/dfs" : "//t1/share");
    const state::NodeId dir = lab.Walk(below_a_link ? "two/dir" : "dir");
    const absl::Time then = absl::FromUnixSeconds(1'650'000'000);
    lab.server("t1").set_script([&](const testing::ScriptedRequest& request) {
      const bool makes = request.header.command == Command::kCreate && request.path == "dir/new2";
      if (makes) lab.share("t1").Find("dir")->last_write = then;
      return std::optional<testing::Action>();
    });
    for (const std::string name : {"new1", "new2"}) {
      const int64_t before = lab.frames();
      EXPECT_EQ(ErrnoOf(lab.Lookup(dir, name).status()), ENOENT);
      const absl::StatusOr<CreateReply> made = lab.Create(dir, name, O_WRONLY | O_EXCL);
      ASSERT_TRUE(made.ok()) << made.status();
      EXPECT_EQ(lab.Write(made->open.fh, 0, std::string(1024, 'x')), absl::OkStatus());
      lab.filesystem().Release(made->open.fh);
      lab.RunFor(absl::Milliseconds(10));
      // The kernel looks at the directory as soon as it walks there again.
      const absl::StatusOr<AttributesReply> seen = lab.GetAttributes(dir);
      ASSERT_TRUE(seen.ok()) << seen.status();
      EXPECT_EQ(lab.frames() - before, 4);
      EXPECT_EQ(absl::TimeFromTimespec(seen->attributes.st_mtim) == then, name == "new2");
    }
    lab.share("t1").Find("dir")->last_write = absl::UnixEpoch();
    for (const char* name : {"new1", "new2"}) lab.share("t1").Remove(absl::StrCat("dir/", name));
    lab.server("t1").set_script({});
  }
}

// 1 MiB is four WRITEs.
TEST_F(WritePiecesTest, WhatFittedOnAFullDiskIsTheShortCount) {
  constexpr size_t kPiece = 256 << 10;
  const std::string text(4 * kPiece, 'x');
  const struct {
    int64_t failing;
    NtStatus status;
    size_t written;
    int error;
  } kCases[] = {{0, NtStatus::kDiskFull, 0, ENOSPC},
                {2, NtStatus::kDiskFull, 2 * kPiece, ENOSPC},
                {3, NtStatus::kQuotaExceeded, 3 * kPiece, EDQUOT}};
  lab.Mount("//t1/share");
  for (const auto& test : kCases) {
    const state::FileHandle fh = MustOpen("file", O_RDWR | O_TRUNC);
    lab.server("t1").ClearRules();
    lab.server("t1").AddRule({.command = Command::kWrite,
                              .skip = test.failing,
                              .times = 1,
                              .action = {.status = test.status}});
    size_t written = 1;
    EXPECT_EQ(ErrnoOf(lab.Change([&](runtime::Deadline until) {
                return lab.filesystem().Write(fh, 0, FilesystemLab::BytesOf(text), nullptr, until,
                                              &written);
              })),
              test.error);
    EXPECT_EQ(written, test.written);
    EXPECT_EQ(lab.ContentOf("t1", "file").substr(0, test.written), text.substr(0, test.written));
    lab.filesystem().Release(fh);
  }
}

// Whatever part of it was executed and answered when the server went.
TEST_F(WritePiecesTest, AServerThatGoesAmongThePiecesOfAWriteHasThemAllInTheEnd) {
  lab.Mount("//root1/dfs");
  std::string text(1 << 20, ' ');
  for (size_t i = 0; i < text.size(); ++i) text[i] = static_cast<char>('a' + i / 4096 % 26);
  for (int answered = 0; answered < 4; ++answered) {
    for (const bool executed : {true, false}) {
      const state::FileHandle fh = MustOpen("two/file", O_RDWR | O_TRUNC);
      lab.server("t1").ClearRules();
      lab.server("t1").AddRule(
          {.command = Command::kWrite,
           .skip = answered,
           .times = 1,
           .action = {.drop = executed, .ignore = !executed, .close = Closing::kReset}});
      size_t written = 1;
      EXPECT_EQ(lab.Change([&](runtime::Deadline until) {
        return lab.filesystem().Write(fh, 0, FilesystemLab::BytesOf(text), nullptr, until,
                                      &written);
      }),
                absl::OkStatus())
          << answered;
      EXPECT_EQ(written, 0u);
      EXPECT_TRUE(lab.ContentOf("t1", "file") == text) << answered;
      lab.filesystem().Release(fh);
    }
  }
  EXPECT_EQ(lab.counters().lost_answers, 8);
  EXPECT_TRUE(lab.server("t2").mutations().empty());
}

// The count is for errors of the server alone: what becomes of the rest here, nobody knows.
TEST_F(WritePiecesTest, AWriteWhoseServerIsLostHasNoShortCount) {
  lab.Mount("//root1/dfs", {}, {.write_grace = absl::Seconds(10)});
  const state::FileHandle fh = MustOpen("two/file", O_RDWR);
  const std::string text(1 << 20, 'x');
  lab.server("t1").set_script(
      [&](const testing::ScriptedRequest& request) -> std::optional<testing::Action> {
        if (request.header.command != Command::kWrite || request.number <= 2) return std::nullopt;
        lab.server("t1").options().silent = true;
        return std::nullopt;
      });
  size_t written = 1;
  EXPECT_EQ(ErrnoOf(lab.Change([&](runtime::Deadline until) {
              return lab.filesystem().Write(fh, 0, FilesystemLab::BytesOf(text), nullptr, until,
                                            &written);
            })),
            EIO);
  EXPECT_EQ(written, 0u);
}

}  // namespace
}  // namespace dfscsi::vfs
