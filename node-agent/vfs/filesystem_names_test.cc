// LOOKUP and FORGET.

#include <errno.h>
#include <gtest/gtest.h>

#include <string>

#include "node-agent/vfs/filesystem_test_lab.h"

namespace dfscsi::vfs {
namespace {

using smb::wire::Command;
using smb::wire::NtStatus;

TEST(FilesystemNamesTest, EachLookupCountsAndForgetGivesBack) {
  FilesystemLab lab;
  lab.share("t1").AddFile("dir/file", 10);
  lab.Mount("//t1/share");
  const state::NodeId dir = lab.Walk("dir");
  const absl::StatusOr<EntryReply> file = lab.Lookup(dir, "file");
  ASSERT_TRUE(file.ok()) << file.status();
  const absl::StatusOr<EntryReply> again = lab.Lookup(dir, "file");
  ASSERT_TRUE(again.ok());
  EXPECT_EQ(again->node, file->node);
  state::InodeTable& inodes = lab.tables().inodes();
  EXPECT_EQ(inodes.Get(file->node).nlookup(), 2u);
  lab.filesystem().Forget(file->node, 1);
  EXPECT_TRUE(inodes.Contains(file->node));
  // The directory is kept by what the kernel holds below it.
  lab.filesystem().Forget(dir, 1);
  EXPECT_TRUE(inodes.Contains(dir));
  lab.filesystem().Forget(file->node, 1);
  EXPECT_FALSE(inodes.Contains(file->node));
  EXPECT_FALSE(inodes.Contains(dir));
  // What is forgotten is ESTALE, and forgetting it once more does no harm.
  lab.filesystem().Forget(file->node, 7);
  EXPECT_EQ(ErrnoOf(lab.GetAttributes(file->node).status()), ESTALE);
  EXPECT_EQ(ErrnoOf(lab.Lookup(dir, "file").status()), ESTALE);
}

TEST(FilesystemNamesTest, TwoSpellingsAreTwoNodesOfOneInodeNumber) {
  FilesystemLab lab;
  lab.share("t1").AddFile("File", 10);
  lab.Mount("//t1/share");
  const absl::StatusOr<EntryReply> upper = lab.Lookup(state::kRootNode, "File");
  const absl::StatusOr<EntryReply> lower = lab.Lookup(state::kRootNode, "file");
  ASSERT_TRUE(upper.ok() && lower.ok()) << upper.status() << lower.status();
  EXPECT_NE(upper->node, lower->node);
  EXPECT_EQ(upper->attributes.st_ino, lower->attributes.st_ino);
  EXPECT_EQ(upper->attributes.st_size, lower->attributes.st_size);
  // The same numbers in the next life of the mount, or an unmount would change them all.
  const uint64_t ino = upper->attributes.st_ino;
  lab.TakeOver();
  EXPECT_EQ(lab.Lookup(state::kRootNode, "FILE")->attributes.st_ino, ino);
}

TEST(FilesystemNamesTest, ErrnosOfNames) {
  FilesystemLab lab;
  lab.share("t1").AddFile("file", 10);
  lab.share("t1").AddFile("denied", 10).denied = true;
  lab.Mount("//t1/share");
  const struct {
    std::string name;
    int error;
  } kCases[] = {
      {"file", 0},
      {"missing", ENOENT},
      {"denied", EACCES},
      {std::string(255, 'x'), ENOENT},
      {std::string(256, 'x'), ENAMETOOLONG},
      {std::string(255, '\xc3') + "\xa4", EILSEQ},
      {"not\xffutf8", EILSEQ},
  };
  for (const auto& test : kCases) {
    const absl::StatusOr<EntryReply> entry = lab.Lookup(state::kRootNode, test.name);
    EXPECT_EQ(ErrnoOf(entry.status()), test.error) << test.name << ": " << entry.status();
  }
  // There is no negative entry: what appears is seen by the next look.
  lab.share("t1").AddFile("missing", 1);
  EXPECT_TRUE(lab.Lookup(state::kRootNode, "missing").ok());
}

TEST(FilesystemNamesTest, NamesAndAttributesAreBelievedForActimeo) {
  FilesystemLab lab;
  testing::ScriptedFile& file = lab.share("t1").AddFile("file", 10);
  lab.Mount("//t1/share", {.actimeo = absl::Seconds(3)});
  const absl::StatusOr<EntryReply> first = lab.Lookup(state::kRootNode, "file");
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_EQ(first->name_timeout, absl::Seconds(3));
  EXPECT_EQ(first->attributes_timeout, absl::Seconds(3));
  file.size = 11;
  lab.RunFor(absl::Seconds(2));
  const int64_t before = lab.frames();
  const absl::StatusOr<EntryReply> second = lab.Lookup(state::kRootNode, "file");
  EXPECT_EQ(lab.frames(), before);
  EXPECT_EQ(second->attributes.st_size, 10);
  // What is left of it, not all of it again.
  EXPECT_GT(second->name_timeout, absl::Milliseconds(900));
  EXPECT_LE(second->name_timeout, absl::Seconds(1));
  EXPECT_LE(lab.GetAttributes(first->node)->timeout, second->attributes_timeout);
  lab.RunFor(absl::Seconds(2));
  const absl::StatusOr<AttributesReply> third = lab.GetAttributes(first->node);
  EXPECT_EQ(third->attributes.st_size, 11);
  EXPECT_EQ(third->timeout, absl::Seconds(3));
  lab.RunFor(absl::Milliseconds(1));  // Told behind the answer.
  EXPECT_EQ(lab.invalidation().changed[first->node], 1);
}

TEST(FilesystemNamesTest, LookupEndsWhenItIsCancelled) {
  FilesystemLab lab;
  lab.share("t1").AddFile("file", 10);
  lab.Mount("//t1/share");
  ASSERT_TRUE(lab.GetAttributes(state::kRootNode).ok());
  lab.RunFor(absl::Seconds(2));
  lab.server("t1").options().silent = true;
  runtime::CancelSource interrupt;
  lab.lab().world().After(absl::Seconds(5),
                          [&] { lab.lab().agent().RunNow([&] { interrupt.Cancel(); }); });
  const absl::Time began = lab.now();
  const std::optional<absl::StatusOr<EntryReply>> entry = lab.Await<absl::StatusOr<EntryReply>>(
      [&] { return lab.filesystem().Lookup(state::kRootNode, "file", interrupt.deadline()); });
  ASSERT_TRUE(entry.has_value());
  EXPECT_TRUE(absl::IsCancelled(entry->status())) << entry->status();
  EXPECT_EQ(ErrnoOf(entry->status()), EINTR);
  EXPECT_LT(lab.now() - began, absl::Milliseconds(5100));
  EXPECT_EQ(lab.tables().inodes().Find(state::kRootNode, "file"), 0u);
}

}  // namespace
}  // namespace dfscsi::vfs
