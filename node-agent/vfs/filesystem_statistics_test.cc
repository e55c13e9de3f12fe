// STATFS.

#include <errno.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "node-agent/vfs/filesystem_test_lab.h"

namespace dfscsi::vfs {
namespace {

TEST(FilesystemStatisticsTest, AreTheSharesAndKeptForAWhile) {
  FilesystemLab lab;
  lab.Mount("//t1/share");
  const absl::StatusOr<struct statvfs> values = lab.GetStatistics(state::kRootNode);
  ASSERT_TRUE(values.ok()) << values.status();
  EXPECT_EQ(values->f_bsize, 4096u);
  EXPECT_EQ(values->f_frsize, 4096u);
  EXPECT_EQ(values->f_blocks, 1u << 20);
  EXPECT_EQ(values->f_bfree, 1u << 19);
  EXPECT_EQ(values->f_bavail, 1u << 18);
  EXPECT_EQ(values->f_namemax, 255u);
  const int64_t before = lab.frames();
  ASSERT_TRUE(lab.GetStatistics(state::kRootNode).ok());
  EXPECT_EQ(lab.frames(), before);
  lab.RunFor(absl::Seconds(6));
  ASSERT_TRUE(lab.GetStatistics(state::kRootNode).ok());
  EXPECT_EQ(lab.frames(), before + 1);
}

TEST(FilesystemStatisticsTest, AnswerWithinASecondFromLastKnownValues) {
  FilesystemLab lab;
  lab.Mount("//t1/share");
  ASSERT_TRUE(lab.GetStatistics(state::kRootNode).ok());
  lab.RunFor(absl::Seconds(6));
  lab.server("t1").options().silent = true;
  const absl::Time began = lab.now();
  const absl::StatusOr<struct statvfs> values = lab.GetStatistics(state::kRootNode);
  ASSERT_TRUE(values.ok()) << values.status();
  EXPECT_LE(lab.now() - began, absl::Seconds(1));
  EXPECT_EQ(values->f_blocks, 1u << 20);
  EXPECT_EQ(lab.counters().last_known_answers, 1);
}

// Dead links have the last known values of their own shares, or none.
TEST(FilesystemStatisticsTest, LinksThatAreNotBoundDoNotShareTheirs) {
  FilesystemLab lab;
  lab.namespace_share().AddLink("dead", {.targets = {"t2/share"}});
  lab.namespace_share().AddLink("alive", {.targets = {"t1/share"}});
  lab.Mount("//root1/dfs");
  const state::NodeId dead = lab.Walk("dead");
  const state::NodeId alive = lab.Walk("alive");
  lab.lab().PowerOff("t2");
  EXPECT_EQ(lab.GetStatistics(dead)->f_blocks, 0u);
  EXPECT_EQ(lab.GetStatistics(alive)->f_blocks, 1u << 20);
  EXPECT_EQ(lab.GetStatistics(state::kRootNode)->f_blocks, 1u << 20);
  EXPECT_EQ(lab.GetStatistics(dead)->f_blocks, 0u);
  lab.lab().PowerOff("t1");
  lab.RunFor(absl::Seconds(10));
  EXPECT_EQ(lab.GetStatistics(alive)->f_blocks, 1u << 20);
  EXPECT_EQ(lab.GetStatistics(dead)->f_blocks, 0u);
}

// The table is cleared when it is full, while other questions are on their way.
TEST(FilesystemStatisticsTest, AreRightForMoreLinksThanTheTableHolds) {
  FilesystemLab lab;
  constexpr int kLinks = 1100;
  for (int i = 0; i < kLinks; ++i) {
    lab.namespace_share().AddLink(absl::StrCat("link", i), {.targets = {"t1/share"}});
  }
  lab.Mount("//root1/dfs");
  const state::NodeId first = lab.Walk("link0");
  ASSERT_TRUE(lab.GetStatistics(first).ok());
  for (int i = 1; i < kLinks; ++i) {
    const state::NodeId link = lab.Walk(absl::StrCat("link", i));
    const absl::StatusOr<struct statvfs> values = lab.GetStatistics(link);
    ASSERT_TRUE(values.ok()) << values.status();
    ASSERT_EQ(values->f_blocks, 1u << 20);
    const int64_t before = lab.frames();
    ASSERT_TRUE(lab.GetStatistics(link).ok());
    ASSERT_EQ(lab.frames(), before) << "what was fetched is not in the table";
  }
  EXPECT_EQ(lab.GetStatistics(first)->f_blocks, 1u << 20);
}

TEST(FilesystemStatisticsTest, EndWhenTheyAreCancelled) {
  FilesystemLab lab;
  lab.Mount("//t1/share");
  ASSERT_TRUE(lab.GetAttributes(state::kRootNode).ok());
  lab.server("t1").options().silent = true;
  runtime::CancelSource interrupt;
  lab.lab().world().After(absl::Milliseconds(300),
                          [&] { lab.lab().agent().RunNow([&] { interrupt.Cancel(); }); });
  const auto values = lab.Await<absl::StatusOr<struct statvfs>>(
      [&] { return lab.filesystem().GetStatistics(state::kRootNode, interrupt.deadline()); });
  ASSERT_TRUE(values.has_value());
  EXPECT_EQ(ErrnoOf(values->status()), EINTR);
}

}  // namespace
}  // namespace dfscsi::vfs
