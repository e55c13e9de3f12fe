// GETATTR, ACCESS, READLINK, and mounts without extended attributes.

#include <errno.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <optional>
#include <string>

#include "node-agent/vfs/filesystem_test_lab.h"

namespace dfscsi::vfs {
namespace {

TEST(FilesystemAttributesTest, WhatTheServerSaysAsPosixSeesIt) {
  FilesystemLab lab;
  testing::ScriptedShare& share = lab.share("t1");
  share.AddFile("file", 5000).last_write = absl::FromUnixSeconds(1'234'567);
  share.AddDirectory("dir");
  share.AddSymlink("symlink", "file");
  lab.Mount("//t1/share", {.uid = 11, .gid = 12, .file_mode = 0640, .dir_mode = 0750});
  const struct {
    const char* path;
    mode_t mode;
    off_t size;
    nlink_t links;
  } kCases[] = {{"", S_IFDIR | 0750, 0, 2},
                {"file", S_IFREG | 0640, 5000, 1},
                {"dir", S_IFDIR | 0750, 0, 2},
                {"symlink", S_IFLNK | 0777, 0, 1}};
  for (const auto& test : kCases) {
    const absl::StatusOr<AttributesReply> reply = lab.GetAttributes(lab.Walk(test.path));
    ASSERT_TRUE(reply.ok()) << test.path << ": " << reply.status();
    const struct stat& st = reply->attributes;
    EXPECT_EQ(st.st_mode, test.mode) << test.path;
    EXPECT_EQ(st.st_size, test.size) << test.path;
    EXPECT_EQ(st.st_nlink, test.links) << test.path;
    EXPECT_EQ(st.st_uid, 11u) << test.path;
    EXPECT_EQ(st.st_gid, 12u) << test.path;
  }
  EXPECT_EQ(lab.GetAttributes(lab.Walk("file"))->attributes.st_mtim.tv_sec, 1'234'567);
  EXPECT_EQ(lab.GetAttributes(lab.Walk("file"))->attributes.st_blocks, 16);
}

// Behind the former end the last page has zeros.
TEST(FilesystemAttributesTest, OutdatedPagesAreGoneBeforeWhoHasSeenItIsAnswered) {
  FilesystemLab lab;
  lab.share("t1").AddText("file", "before");
  lab.Mount("//t1/share");
  const state::NodeId node = lab.Walk("file");
  lab.RunFor(absl::Seconds(5));
  testing::ScriptedFile& file = *lab.share("t1").Find("file");
  file.Write(file.size, FilesystemLab::BytesOf(" and after"));
  const int before = lab.invalidation().changed[node];
  std::optional<off_t> size;
  int at_the_answer = -1;
  (void)lab.Await<bool>([&]() -> runtime::Task<bool> {
    const absl::StatusOr<AttributesReply> reply =
        co_await lab.filesystem().GetAttributes(node, runtime::Deadline::Never());
    if (reply.ok()) size = reply->attributes.st_size;
    at_the_answer = lab.invalidation().changed[node];
    co_return true;
  });
  EXPECT_EQ(size, 16);
  EXPECT_EQ(at_the_answer, before + 1);
  lab.RunFor(absl::Milliseconds(1));
  EXPECT_EQ(lab.invalidation().changed[node], before + 1);
}

// Close-to-open: tar, rsync and mmap read as much as fstat says.
TEST(FilesystemAttributesTest, WhoOpensAFileThatHasChangedIsToldItsSize) {
  FilesystemLab lab;
  lab.share("t1").AddText("file", "before");
  lab.Mount("//t1/share", {.leases = false, .actimeo = absl::Seconds(30)});
  const state::NodeId node = lab.Walk("file");
  ASSERT_EQ(lab.GetAttributes(node)->attributes.st_size, 6);
  testing::ScriptedFile& file = *lab.share("t1").Find("file");
  file.Write(file.size, FilesystemLab::BytesOf(" and after"));
  file.last_write += absl::Seconds(1);
  const int before = lab.invalidation().changed[node];
  const absl::StatusOr<OpenReply> open = lab.Open(node);
  ASSERT_TRUE(open.ok()) << open.status();
  EXPECT_EQ(lab.invalidation().changed[node], before + 1) << "what the kernel believes";
  EXPECT_EQ(lab.GetAttributes(node)->attributes.st_size, 16) << "what we believe";
  lab.RunFor(absl::Milliseconds(10));
  EXPECT_EQ(lab.invalidation().changed[node], before + 1) << "told once";
  lab.filesystem().Release(open->fh);
}

// What kubelet and df touch must not hang: nor must who opens a file by its whole path.
TEST(FilesystemAttributesTest, RootAnswersAtOnceFromLastKnownValues) {
  for (const bool power_off : {false, true}) {
    FilesystemLab lab;
    lab.share("t1").root()->last_write = absl::FromUnixSeconds(1'000'000);
    lab.Mount("//t1/share");
    ASSERT_TRUE(lab.GetAttributes(state::kRootNode).ok());
    lab.RunFor(absl::Seconds(2));
    lab.server("t1").options().silent = true;
    if (power_off) lab.lab().PowerOff("t1");
    for (int tenth = 0; tenth < 300; ++tenth) {
      lab.RunFor(absl::Milliseconds(100));
      const absl::Time began = lab.now();
      const absl::StatusOr<AttributesReply> reply = lab.GetAttributes(state::kRootNode);
      ASSERT_TRUE(reply.ok()) << reply.status();
      EXPECT_LT(lab.now() - began, absl::Milliseconds(1)) << tenth;
      EXPECT_EQ(reply->attributes.st_mtim.tv_sec, 1'000'000);
      EXPECT_EQ(reply->timeout, absl::ZeroDuration());
    }
    EXPECT_GE(lab.counters().last_known_answers, 290);
  }
}

// Whoever walks asks for the root's attributes: that must not be a connect each time.
TEST(FilesystemAttributesTest, ADeadRootIsConnectedToEverLessOften) {
  for (const bool power_off : {false, true}) {
    FilesystemLab lab;
    lab.Mount("//root1/dfs");
    ASSERT_TRUE(lab.GetAttributes(state::kRootNode).ok());
    if (power_off) {
      lab.lab().PowerOff("root1");
    } else {
      lab.lab().Kill("root1");
    }
    const size_t before = lab.lab().network().connect_attempts().size();
    for (int tenth = 0; tenth < 600; ++tenth) {
      lab.RunFor(absl::Milliseconds(100));
      ASSERT_TRUE(lab.GetAttributes(state::kRootNode).ok());
    }
    const size_t connects = lab.lab().network().connect_attempts().size() - before;
    EXPECT_GE(connects, 6u) << power_off;
    // Once in 4 to 5 s for binding it, and as often for refreshing its referral.
    EXPECT_LE(connects, 36u) << power_off;
    // Its return shows itself all the same.
    lab.lab().Start("root1");
    lab.RunFor(absl::Seconds(6));
    (void)lab.GetAttributes(state::kRootNode);
    lab.RunFor(absl::Seconds(12));
    (void)lab.GetAttributes(state::kRootNode);
    lab.RunFor(absl::Milliseconds(100));
    const int64_t last_known = lab.counters().last_known_answers;
    ASSERT_TRUE(lab.GetAttributes(state::kRootNode).ok());
    EXPECT_EQ(lab.counters().last_known_answers, last_known) << power_off;
  }
}

TEST(FilesystemAttributesTest, RootThatWasNeverSeenAnswersWithinASecond) {
  FilesystemLab lab;
  lab.Mount("//t1/share");
  lab.server("t1").options().silent = true;
  const absl::Time began = lab.now();
  const absl::StatusOr<AttributesReply> reply = lab.GetAttributes(state::kRootNode);
  ASSERT_TRUE(reply.ok()) << reply.status();
  EXPECT_LE(lab.now() - began, absl::Seconds(1));
  EXPECT_TRUE(S_ISDIR(reply->attributes.st_mode));
  EXPECT_EQ(lab.counters().last_known_answers, 1);
}

TEST(FilesystemAttributesTest, AFileWaitsForItsServer) {
  FilesystemLab lab;
  lab.share("t1").AddFile("file", 10);
  lab.Mount("//t1/share");
  const state::NodeId node = lab.Walk("file");
  lab.RunFor(absl::Seconds(2));
  lab.lab().Kill("t1");
  lab.lab().world().After(absl::Seconds(20), [&] { lab.lab().Start("t1"); });
  const absl::Time began = lab.now();
  EXPECT_TRUE(lab.GetAttributes(node).ok());
  EXPECT_GE(lab.now() - began, absl::Seconds(20));
}

// Attributes of the target that is left are not those of the one that serves now.
TEST(FilesystemAttributesTest, AfterAFailoverAttributesAreThoseOfTheNewTarget) {
  FilesystemLab lab;
  lab.share("t1").AddFile("file", 10);
  lab.share("t2").AddFile("file", 20);
  lab.Mount("//root1/dfs", {.actimeo = absl::Hours(1)});
  const state::NodeId link = lab.Walk("two");
  const absl::StatusOr<EntryReply> file = lab.Lookup(link, "file");
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(file->attributes.st_size, 10);
  lab.lab().Kill("t1");
  // Somebody notices.
  ASSERT_EQ(ErrnoOf(lab.Lookup(link, "other").status()), ENOENT);
  EXPECT_EQ(lab.GetAttributes(file->node)->attributes.st_size, 20);
  EXPECT_EQ(lab.Lookup(link, "file")->attributes.st_size, 20);
}

TEST(FilesystemAttributesTest, ChangedDataIsToldToTheKernelOnce) {
  FilesystemLab lab;
  testing::ScriptedFile& file = lab.share("t1").AddFile("file", 10);
  lab.Mount("//t1/share", {.actimeo = absl::ZeroDuration()});
  const state::NodeId node = lab.Walk("file");
  ASSERT_TRUE(lab.GetAttributes(node).ok());
  EXPECT_EQ(lab.invalidation().changed[node], 0);
  file.last_write += absl::Milliseconds(1);
  ASSERT_TRUE(lab.GetAttributes(node).ok());
  ASSERT_TRUE(lab.GetAttributes(node).ok());
  lab.RunFor(absl::Milliseconds(1));  // Told behind the answer.
  EXPECT_EQ(lab.invalidation().changed[node], 1);
  file.size = 11;
  ASSERT_TRUE(lab.GetAttributes(node).ok());
  lab.RunFor(absl::Milliseconds(1));
  EXPECT_EQ(lab.invalidation().changed[node], 2);
  // The dead agent may not have told; the next one says it again, once, of what the kernel holds.
  lab.TakeOver();
  lab.filesystem().ResumeInvalidations();
  EXPECT_EQ(lab.invalidation().changed[node], 3);
}

TEST(FilesystemAttributesTest, ReadLink) {
  FilesystemLab lab;
  testing::ScriptedShare& share = lab.share("t1");
  share.AddFile("file", 10);
  share.AddSymlink("relative", "dir/../file");
  share.AddSymlink("absolute", "/etc/passwd");
  lab.Mount("//t1/share");
  EXPECT_EQ(lab.ReadLink(lab.Walk("relative")).value_or("?"), "dir/../file");
  EXPECT_EQ(ErrnoOf(lab.ReadLink(lab.Walk("absolute")).status()), ELOOP);
  EXPECT_EQ(ErrnoOf(lab.ReadLink(lab.Walk("file")).status()), EINVAL);
}

TEST(FilesystemAttributesTest, AccessAndXattrs) {
  for (const bool read_only : {false, true}) {
    FilesystemLab lab;
    lab.Mount("//t1/share", {.read_only = read_only, .user_xattr = false});
    Filesystem& filesystem = lab.filesystem();
    EXPECT_EQ(ErrnoOf(filesystem.Access(state::kRootNode, R_OK | X_OK)), 0);
    EXPECT_EQ(ErrnoOf(filesystem.Access(state::kRootNode, R_OK | W_OK)), read_only ? EROFS : 0);
    EXPECT_EQ(ErrnoOf(filesystem.RefuseChange()), read_only ? EROFS : EOPNOTSUPP);
    const struct {
      const char* name;
      int error;
    } kCases[] = {{"security.selinux", ENOSYS},
                  {"system.posix_acl_access", ENOSYS},
                  {"user.anything", EOPNOTSUPP},
                  {"trusted.overlay", EOPNOTSUPP}};
    for (const auto& test : kCases) {
      const auto value = lab.Await<absl::StatusOr<std::string>>([&] {
        return filesystem.GetXattr(state::kRootNode, test.name, runtime::Deadline::Never());
      });
      ASSERT_TRUE(value.has_value());
      EXPECT_EQ(ErrnoOf(value->status()), test.error) << test.name;
    }
    const auto names = lab.Await<absl::StatusOr<std::string>>(
        [&] { return filesystem.ListXattrs(state::kRootNode, runtime::Deadline::Never()); });
    ASSERT_TRUE(names.has_value());
    EXPECT_EQ(ErrnoOf(names->status()), ENOSYS);
  }
}

// What is believed of a file goes to the kernel, which cuts the file's pages to a size that it is
// told.
class SizesTest : public ::testing::Test {
 protected:
  void SetUp() override {
    lab_.share("t1").AddText("file", "0123456789");
    lab_.share("t1").writable = true;
    lab_.Mount("//t1/share", {.read_only = false, .leases = false, .actimeo = absl::Seconds(30)});
    node_ = lab_.Walk("file");
    fh_ = lab_.Open(node_, O_RDWR)->fh;
    lab_.RunFor(absl::Minutes(1));
    // The next answer waits, with what was true when it was asked.
    lab_.server("t1").AddRule(
        {.command = asked_by_, .times = 1, .action = {.delay = absl::Seconds(2)}});
    lab_.lab().world().After(absl::Seconds(1), [this] {
      lab_.lab().agent().Spawn([](FilesystemLab* lab, state::FileHandle fh) -> runtime::Task<void> {
        const absl::Status done = co_await lab->filesystem().Write(
            fh, 10, FilesystemLab::BytesOf("abcde"), nullptr, runtime::Deadline::Never());
        EXPECT_TRUE(done.ok()) << done;
      }(&lab_, fh_));
    });
  }
  void TearDown() override {
    const absl::StatusOr<AttributesReply> then = lab_.GetAttributes(node_);
    ASSERT_TRUE(then.ok()) << then.status();
    EXPECT_EQ(then->attributes.st_size, 15) << "the sight from before the write was believed";
    lab_.filesystem().Release(fh_);
  }

  FilesystemLab lab_;
  smb::wire::Command asked_by_ = smb::wire::Command::kClose;
  state::NodeId node_ = 0;
  state::FileHandle fh_ = 0;
};

TEST_F(SizesTest, ALookFromBeforeAWriteIsNotBelievedAfterIt) {
  const absl::StatusOr<AttributesReply> old = lab_.GetAttributes(node_);
  ASSERT_TRUE(old.ok()) << old.status();
  EXPECT_EQ(old->attributes.st_size, 10);
  EXPECT_EQ(old->timeout, absl::ZeroDuration());
}

TEST_F(SizesTest, ALookUpFromBeforeAWriteIsNotBelievedAfterIt) {
  ASSERT_TRUE(lab_.Lookup(state::kRootNode, "file").ok());
}

class ListedSizesTest : public SizesTest {
 protected:
  ListedSizesTest() { asked_by_ = smb::wire::Command::kQueryDirectory; }
};

TEST_F(ListedSizesTest, AListingFromBeforeAWriteIsNotBelievedAfterIt) {
  const absl::StatusOr<state::FileHandle> listing = lab_.OpenDirectory(state::kRootNode);
  ASSERT_TRUE(listing.ok()) << listing.status();
  EXPECT_TRUE(lab_.ReadDirectory(*listing, 0, 100, /*plus=*/true).ok());
  lab_.filesystem().ReleaseDirectory(*listing);
}

}  // namespace
}  // namespace dfscsi::vfs
