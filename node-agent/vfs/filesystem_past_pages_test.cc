// Who only writes a file goes past its pages, and so does who opens it meanwhile.

#include <fcntl.h>
#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <vector>

#include "node-agent/vfs/filesystem_test_lab.h"

namespace dfscsi::vfs {
namespace {

struct PastPagesTest : public ::testing::Test {
  PastPagesTest() {
    lab.OnBoth([](testing::ScriptedShare& share) {
      share.writable = true;
      share.AddText("file", "0123456789");
    });
    lab.Mount("//t1/share");
  }
  OpenReply MustOpen(int flags) {
    const absl::StatusOr<OpenReply> open = lab.Open(lab.Walk("file"), flags);
    EXPECT_TRUE(open.ok()) << open.status();
    return open.ok() ? *open : OpenReply();
  }
  FilesystemLab lab;
};

TEST_F(PastPagesTest, WhoAloneWritesDoesAndWhoComesMeanwhile) {
  const struct {
    std::vector<int> flags;     // Of opens, one after the other.
    std::vector<bool> is_past;  // What each of them is told.
  } kCases[] = {
      {{O_WRONLY}, {true}},
      {{O_RDWR}, {false}},
      {{O_RDONLY}, {false}},
      {{O_WRONLY, O_RDONLY, O_RDWR, O_WRONLY}, {true, true, true, true}},
      {{O_RDONLY, O_WRONLY, O_RDONLY}, {false, false, false}},
      {{O_RDWR, O_WRONLY}, {false, false}},
      {{O_WRONLY | O_APPEND, O_RDONLY}, {true, false}},
  };
  for (size_t i = 0; i < std::size(kCases); ++i) {
    std::vector<state::FileHandle> handles;
    for (size_t k = 0; k < kCases[i].flags.size(); ++k) {
      const OpenReply open = MustOpen(kCases[i].flags[k]);
      EXPECT_EQ(open.direct_io, kCases[i].is_past[k]) << "case " << i << ", open " << k;
      handles.push_back(open.fh);
    }
    for (const state::FileHandle fh : handles) lab.filesystem().Release(fh);
    lab.RunFor(absl::Milliseconds(10));
  }
}

TEST_F(PastPagesTest, AReaderUsesPagesAgainOnceTheWriterIsGone) {
  const OpenReply writer = MustOpen(O_WRONLY);
  EXPECT_EQ(lab.Write(writer.fh, 0, "abc"), absl::OkStatus());
  const OpenReply beside = MustOpen(O_RDONLY);
  EXPECT_TRUE(beside.direct_io);
  EXPECT_EQ(lab.Read(beside.fh, 0, 5).value_or(""), "abc34");
  lab.filesystem().Release(writer.fh);
  lab.RunFor(absl::Seconds(2));  // The kernel asks for the size again.
  EXPECT_FALSE(MustOpen(O_RDONLY).direct_io);
}

TEST_F(PastPagesTest, AFileThatIsMadeIsWrittenPastThem) {
  const state::NodeId root = lab.Walk("");
  for (const int flags : {O_WRONLY, O_RDWR}) {
    const std::string name = flags == O_WRONLY ? "written" : "both";
    const absl::StatusOr<CreateReply> made = lab.Create(root, name, flags | O_EXCL);
    ASSERT_TRUE(made.ok()) << made.status();
    EXPECT_EQ(made->open.direct_io, flags == O_WRONLY);
  }
}

TEST_F(PastPagesTest, TheNextAgentKnowsOfTheWriter) {
  (void)MustOpen(O_WRONLY);
  lab.TakeOver();
  EXPECT_TRUE(MustOpen(O_RDONLY).direct_io);
}

// A page that was read for a mapping while it was written.
TEST_F(PastPagesTest, WhatWasReadMeanwhileIsDropped) {
  const state::NodeId node = lab.Walk("file");
  const OpenReply writer = MustOpen(O_WRONLY);
  EXPECT_EQ(lab.Write(writer.fh, 0, "abc"), absl::OkStatus());
  const OpenReply beside = MustOpen(O_RDONLY);
  const int before = lab.invalidation().changed[node];
  EXPECT_EQ(lab.Write(writer.fh, 0, "def"), absl::OkStatus());
  EXPECT_EQ(lab.invalidation().changed[node], before + 1);
  lab.filesystem().Release(beside.fh);
  EXPECT_EQ(lab.Write(writer.fh, 0, "ghi"), absl::OkStatus());  // Nobody can have any.
  EXPECT_EQ(lab.invalidation().changed[node], before + 1);
}

TEST(PastPagesOfOlderKernelsTest, NobodyIsToldToGoPastThem) {
  FilesystemLab lab;
  lab.share("t1").writable = true;
  lab.share("t1").AddText("file", "0123456789");
  lab.Mount("//t1/share", {.past_pages = false});
  const absl::StatusOr<OpenReply> open = lab.Open(lab.Walk("file"), O_WRONLY);
  ASSERT_TRUE(open.ok()) << open.status();
  EXPECT_FALSE(open->direct_io);
}

// What lies in the pages of before is not the file any more, whatever its times say.
TEST_F(PastPagesTest, PagesAreNotKeptAfterItThoughTheTimesAreSetBack) {
  const auto keeps = [this] {
    const OpenReply open = MustOpen(O_RDONLY);
    EXPECT_EQ(lab.Read(open.fh, 3, 5).value_or(""), "34567");
    lab.filesystem().Release(open.fh);
    lab.RunFor(absl::Seconds(2));
    return open.keep_cache;
  };
  EXPECT_TRUE(keeps());
  const absl::Time before = lab.share("t1").Find("file")->last_write;
  const OpenReply writer = MustOpen(O_WRONLY);
  EXPECT_EQ(lab.Write(writer.fh, 0, "abc"), absl::OkStatus());
  lab.filesystem().Release(writer.fh);
  lab.RunFor(absl::Seconds(2));
  lab.share("t1").Find("file")->last_write = before;
  EXPECT_FALSE(keeps());
  EXPECT_TRUE(keeps());
}

}  // namespace
}  // namespace dfscsi::vfs
