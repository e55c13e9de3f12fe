// DFS links as names of the mount: dead, dangling, empty, new, and gone.

#include <errno.h>
#include <gtest/gtest.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "node-agent/vfs/filesystem_test_lab.h"

namespace dfscsi::vfs {
namespace {

const dfs::ClientOptions kShortReferrals = {.referral_ttl_min = absl::Seconds(5),
                                            .referral_ttl_max = absl::Seconds(10)};

// A directory in LOOKUP and in GETATTR, which the kernel keeps for a moment at most.
void ExpectDirectory(FilesystemLab& lab, const std::string& name) {
  const absl::StatusOr<EntryReply> entry = lab.Lookup(state::kRootNode, name);
  ASSERT_TRUE(entry.ok()) << name << ": " << entry.status();
  EXPECT_TRUE(S_ISDIR(entry->attributes.st_mode)) << name;
  EXPECT_EQ(entry->name_timeout, absl::Seconds(1)) << name;
  EXPECT_LE(entry->attributes_timeout, absl::Seconds(1)) << name;
  const absl::StatusOr<AttributesReply> attributes = lab.GetAttributes(entry->node);
  ASSERT_TRUE(attributes.ok()) << name << ": " << attributes.status();
  EXPECT_TRUE(S_ISDIR(attributes->attributes.st_mode)) << name;
  EXPECT_EQ(attributes->attributes.st_ino, entry->attributes.st_ino) << name;
  EXPECT_LE(attributes->timeout, absl::Seconds(1)) << name;
}

TEST(FilesystemLinksTest, LookupOfAKnownLinkDoesNoIo) {
  FilesystemLab lab;
  lab.Mount("//root1/dfs");
  ExpectDirectory(lab, "two");
  const int64_t before = lab.frames();
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(lab.Lookup(state::kRootNode, "two").ok());
  EXPECT_EQ(lab.frames(), before);
  // Nor does it when everything is dead.
  lab.RunFor(absl::Seconds(3));
  for (const char* name : {"root1", "t1", "t2"}) lab.lab().Kill(name);
  const absl::Time began = lab.now();
  ASSERT_TRUE(lab.Lookup(state::kRootNode, "two").ok());
  EXPECT_LT(lab.now() - began, absl::Milliseconds(1));
}

TEST(FilesystemLinksTest, FirstLookupOfADeadLinkDoesNotWaitForIt) {
  FilesystemLab lab;
  lab.Mount("//root1/dfs");
  ASSERT_TRUE(lab.GetAttributes(state::kRootNode).ok());
  lab.lab().PowerOff("t1");
  lab.lab().PowerOff("t2");
  absl::Time began = lab.now();
  const absl::StatusOr<EntryReply> entry = lab.Lookup(state::kRootNode, "two");
  ASSERT_TRUE(entry.ok()) << entry.status();
  EXPECT_LT(lab.now() - began, absl::Milliseconds(100));
  began = lab.now();
  const absl::StatusOr<AttributesReply> attributes = lab.GetAttributes(entry->node);
  ASSERT_TRUE(attributes.ok()) << attributes.status();
  EXPECT_TRUE(S_ISDIR(attributes->attributes.st_mode));
  EXPECT_LE(lab.now() - began, absl::Seconds(1));
}

TEST(FilesystemLinksTest, ALinkWhoseTargetDiesKeepsItsLastKnownAttributes) {
  FilesystemLab lab;
  lab.OnBoth([](testing::ScriptedShare& share) {
    share.root()->last_write = absl::FromUnixSeconds(1'000'000);
  });
  lab.Mount("//root1/dfs");
  const state::NodeId link = lab.Walk("two");
  EXPECT_EQ(lab.GetAttributes(link)->attributes.st_mtim.tv_sec, 1'000'000);
  lab.lab().PowerOff("t1");
  lab.lab().PowerOff("t2");
  absl::StatusOr<AttributesReply> dead;
  for (int second = 0; second < 20; ++second) {
    lab.RunFor(absl::Seconds(1));
    const absl::Time began = lab.now();
    dead = lab.GetAttributes(link);
    ASSERT_TRUE(dead.ok()) << dead.status();
    EXPECT_LT(lab.now() - began, absl::Milliseconds(1)) << second;
  }
  EXPECT_EQ(dead->attributes.st_mtim.tv_sec, 1'000'000);
  EXPECT_GE(lab.counters().last_known_answers, 18);
  // Forgotten by the kernel, it is forgotten here.
  EXPECT_EQ(lab.counters().last_known_kept, 1);
  lab.filesystem().Forget(link, 1);
  EXPECT_EQ(lab.counters().last_known_kept, 0);
  EXPECT_EQ(lab.GetAttributes(lab.Walk("two"))->attributes.st_mtim.tv_sec, 0);
}

// What `ls -l` or a build does: the kernel checks each directory of a path, by attributes that it
// believes for as long as it was told.
TEST(FilesystemLinksTest, WhoWalksBelowALinkAsksForItsAttributesOnceInAWhile) {
  FilesystemLab lab;
  lab.Mount("//root1/dfs");
  struct Known {
    state::NodeId node;
    absl::Time until = absl::InfinitePast();
  } known[] = {{state::kRootNode}, {lab.Walk("two")}};
  int asked = 0;
  for (int walk = 0; walk < 300; ++walk) {
    for (Known& one : known) {
      if (lab.now() < one.until) continue;
      ++asked;
      const absl::StatusOr<AttributesReply> reply = lab.GetAttributes(one.node);
      ASSERT_TRUE(reply.ok()) << reply.status();
      one.until = lab.now() + reply->timeout;
    }
    lab.RunFor(absl::Milliseconds(10));
  }
  // In each of three seconds: who begins a look, and who is told what it saw.
  EXPECT_LE(asked, 2 * 2 * 4);
}

TEST(FilesystemLinksTest, LinksThatLeadNowhereAreDirectoriesAllTheSame) {
  FilesystemLab lab;
  lab.namespace_share().AddLink("dangling", {.targets = {"nosuchhost/share"}});
  lab.namespace_share().AddLink("noshare", {.targets = {"t1/nosuchshare"}});
  lab.namespace_share().AddLink("empty", {});
  lab.Mount("//root1/dfs", {}, kShortReferrals);
  for (const bool listed_before : {false, true}) {
    if (listed_before) {
      const absl::StatusOr<state::FileHandle> fh = lab.OpenDirectory(state::kRootNode);
      ASSERT_TRUE(lab.ListFrom(*fh, 0, 100).ok());
    }
    for (int minute = 0; minute < 3; ++minute) {
      // Twice: what was learned the first time must not hide it.
      for (int look = 0; look < 2; ++look) {
        for (const char* name : {"dangling", "noshare", "empty"}) ExpectDirectory(lab, name);
      }
      lab.RunFor(absl::Minutes(1));
    }
  }
  // Using it says what is wrong.
  EXPECT_EQ(ErrnoOf(lab.OpenDirectory(lab.Walk("dangling")).status()), ENOENT);
}

// As open("l1/who") asks: the name, whether the directory may be searched, the name below it.
TEST(FilesystemLinksTest, A11_BelowAChainOfNineLinksIsALoopError) {
  for (const int links : {8, 9}) {
    FilesystemLab lab;
    lab.OnBoth([](testing::ScriptedShare& share) { share.AddFile("who", 2); });
    for (int i = 1; i < links; ++i) {
      lab.namespace_share().AddLink(absl::StrCat("l", i),
                                    {.targets = {absl::StrCat("root1/dfs/l", i + 1)}});
    }
    lab.namespace_share().AddLink(absl::StrCat("l", links), {.targets = {"t1/share"}});
    lab.Mount("//root1/dfs");
    for (int turn = 0; turn < 3; ++turn) {
      const state::NodeId chain = lab.Walk("l1");
      EXPECT_TRUE(lab.GetAttributes(chain).ok());
      EXPECT_EQ(ErrnoOf(lab.Lookup(chain, "who").status()), links == 8 ? 0 : ELOOP) << turn;
      lab.RunFor(absl::Seconds(2));
    }
  }
}

TEST(FilesystemLinksTest, ALinkThatIsTakenOutOfTheNamespaceGoesAway) {
  for (const bool in_use : {true, false}) {
    FilesystemLab lab;
    lab.OnBoth([](testing::ScriptedShare& share) { share.AddFile("file", 10); });
    lab.Mount("//root1/dfs", {}, kShortReferrals);
    const absl::StatusOr<state::FileHandle> fh = lab.OpenDirectory(state::kRootNode);
    ASSERT_TRUE(fh.ok());
    ASSERT_TRUE(lab.ListFrom(*fh, 0, 100).ok());
    const state::NodeId link = lab.Walk("two");
    if (in_use) {
      ASSERT_NE(lab.Walk("two/file"), 0u);
      ExpectDirectory(lab, "two");
    }
    lab.namespace_share().Remove("two");
    lab.RunFor(absl::Seconds(30));  // The referral's life.
    EXPECT_EQ(ErrnoOf(lab.Lookup(state::kRootNode, "two").status()), ENOENT) << in_use;
    EXPECT_EQ(ErrnoOf(lab.GetAttributes(link).status()), ENOENT) << in_use;
    if (in_use) EXPECT_EQ(ErrnoOf(lab.Lookup(link, "file").status()), ENOENT);
    // It may come back.
    lab.namespace_share().AddLink("two", {.targets = {"t2/share"}});
    lab.RunFor(absl::Seconds(15));
    ExpectDirectory(lab, "two");
    ASSERT_NE(lab.Walk("two/file"), 0u);
  }
}

TEST(FilesystemLinksTest, AFolderThatTakesALinksPlaceIsSeen) {
  FilesystemLab lab;
  lab.OnBoth([](testing::ScriptedShare& share) { share.AddFile("old", 10); });
  lab.Mount("//root1/dfs", {}, kShortReferrals);
  ASSERT_NE(lab.Walk("two/old"), 0u);
  lab.namespace_share().Remove("two");
  lab.namespace_share().AddFile("two/new", 10);
  lab.RunFor(absl::Seconds(30));
  const state::NodeId folder = lab.Walk("two");
  EXPECT_TRUE(lab.Lookup(folder, "new").ok());
  EXPECT_EQ(ErrnoOf(lab.Lookup(folder, "old").status()), ENOENT);
  EXPECT_FALSE(lab.client().IsKnownLink(*dfs::DfsPath::Parse("//root1/dfs/two")));
}

TEST(FilesystemLinksTest, ALinkBelowAFolderThatIsNotKnownYet) {
  FilesystemLab lab;
  lab.namespace_share().AddLink("folder/deeper/link", {.targets = {"t1/share"}});
  lab.OnBoth([](testing::ScriptedShare& share) { share.AddFile("sub/file", 10); });
  lab.namespace_share().AddLink("sub", {.targets = {"t1/share/sub"}});
  lab.Mount("//root1/dfs");
  EXPECT_NE(lab.Walk("folder/deeper/link/sub/file"), 0u);
  EXPECT_NE(lab.Walk("sub/file"), 0u);
  // After a takeover nothing is bound: which part of a path is the link must be found out anew.
  const state::NodeId sub = lab.Walk("folder/deeper/link/sub");
  lab.TakeOver();
  const absl::StatusOr<EntryReply> file = lab.Lookup(sub, "file");
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_TRUE(S_ISREG(file->attributes.st_mode));
}

}  // namespace
}  // namespace dfscsi::vfs
