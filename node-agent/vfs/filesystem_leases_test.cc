// Leases of open files: what is asked for, what a break takes away, what outlives nothing.

#include <errno.h>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "node-agent/vfs/filesystem_test_lab.h"

namespace dfscsi::vfs {
namespace {

using smb::wire::Command;
using smb::wire::kLeaseRead;
using smb::wire::kLeaseWrite;
using smb::wire::NtStatus;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr uint32_t kRh = kLeaseRead | smb::wire::kLeaseHandle;
constexpr uint32_t kRwh = kRh | smb::wire::kLeaseWrite;

// A mount of t1's share with one file in it.
class LeasesTest : public ::testing::Test {
 protected:
  LeasesTest() {
    lab_.share("t1").writable = true;
    lab_.share("t1").AddText("file", "before");
  }
  void Mount(Options options = {}) {
    // So that what is asked again is asked for the sake of a lease.
    if (options.actimeo == absl::Seconds(1)) options.actimeo = absl::Hours(1);
    lab_.Mount("//t1/share", std::move(options));
    node_ = lab_.Walk("file");
  }
  std::vector<uint32_t> leases() { return lab_.server("t1").leases("share", "file"); }
  void Break(uint32_t to) {
    lab_.lab().process("t1").RunNow([&] { lab_.server("t1").BreakLeases("share", "file", to); });
    lab_.RunFor(absl::Milliseconds(100));
  }
  // Another machine writes, as its server does it: leases are broken first.
  void WriteElsewhere(const std::string& text) {
    testing::ScriptedFile& file = *lab_.share("t1").Find("file");
    lab_.lab().process("t1").RunNow([&] {
      lab_.server("t1").BreakLeases("share", "file", 0);
      file.Resize(0);
      file.Write(0, FilesystemLab::BytesOf(text));
    });
    lab_.RunFor(absl::Milliseconds(100));
  }
  state::FileHandle Open(int flags = O_RDONLY) {
    const absl::StatusOr<OpenReply> open = lab_.Open(node_, flags);
    EXPECT_TRUE(open.ok()) << open.status();
    return open.ok() ? open->fh : 0;
  }

  FilesystemLab lab_;
  state::NodeId node_ = 0;
};

TEST_F(LeasesTest, HandlesOfOneFileShareALeaseAndTheLastOneEndsIt) {
  Mount();
  const state::FileHandle reads = Open();
  const state::FileHandle writes = Open(O_RDWR);
  const state::FileHandle appends = Open(O_WRONLY | O_APPEND);
  EXPECT_THAT(leases(), ElementsAre(kRwh)) << "who only reads takes nothing from it";
  EXPECT_EQ(lab_.Write(writes, 0, "BEFORE"), absl::OkStatus());
  EXPECT_EQ(lab_.Write(appends, 6, "+"), absl::OkStatus());
  EXPECT_EQ(lab_.WriteAtEnd(writes, "+"), absl::OkStatus());
  EXPECT_EQ(lab_.Read(reads, 0, 100).value_or("?"), "BEFORE++");
  EXPECT_THAT(leases(), ElementsAre(kRwh)) << "nothing of ours breaks it";
  EXPECT_EQ(lab_.counters().lease_breaks, 0);
  for (const state::FileHandle fh : {reads, writes, appends}) lab_.filesystem().Release(fh);
  lab_.RunFor(absl::Seconds(1));
  EXPECT_THAT(leases(), IsEmpty());
}

TEST_F(LeasesTest, AFileThatIsMadeOrOpenedAnewHasALeaseOfItsOwn) {
  Mount();
  const absl::StatusOr<CreateReply> made = lab_.Create(state::kRootNode, "made");
  ASSERT_TRUE(made.ok()) << made.status();
  EXPECT_THAT(lab_.server("t1").leases("share", "made"), ElementsAre(kRwh));
  const absl::StatusOr<OpenReply> second = lab_.Open(made->entry.node);
  ASSERT_TRUE(second.ok()) << second.status();
  EXPECT_THAT(lab_.server("t1").leases("share", "made"), ElementsAre(kRwh));
  // The same name is another file's now: its handles' key is not that of the first one's.
  EXPECT_EQ(lab_.Rename(state::kRootNode, "file", state::kRootNode, "moved"), absl::OkStatus());
  lab_.share("t1").AddText("file", "another");
  const state::NodeId other = lab_.Walk("file");
  ASSERT_TRUE(lab_.Open(other).ok());
  ASSERT_TRUE(lab_.Open(lab_.Walk("moved")).ok());
  EXPECT_THAT(leases(), ElementsAre(kLeaseRead));
  EXPECT_THAT(lab_.server("t1").leases("share", "moved"), ElementsAre(kLeaseRead));
}

TEST_F(LeasesTest, AnOpenCostsNoFrameMoreThanWithoutLeases) {
  int64_t frames[2] = {};
  for (const bool leases : {false, true}) {
    FilesystemLab lab;
    lab.share("t1").writable = true;
    lab.share("t1").AddText("file", "text");
    lab.Mount("//t1/share", {.leases = leases});
    const state::NodeId node = lab.Walk("file");
    const int64_t before = lab.frames();
    const absl::StatusOr<OpenReply> open = lab.Open(node, O_RDWR);
    ASSERT_TRUE(open.ok());
    EXPECT_TRUE(lab.Read(open->fh, 0, 10).ok());
    lab.filesystem().Release(open->fh);
    lab.RunFor(absl::Seconds(1));
    frames[leases ? 1 : 0] = lab.frames() - before;
  }
  EXPECT_EQ(frames[0], 3);
  EXPECT_EQ(frames[1], frames[0]);
}

TEST_F(LeasesTest, AnotherMachinesWriteIsSeenAtOnceAndAgain) {
  Mount();
  const state::FileHandle fh = Open();
  EXPECT_EQ(lab_.Read(fh, 0, 100).value_or("?"), "before");
  EXPECT_EQ(lab_.GetAttributes(node_)->attributes.st_size, 6);
  for (int i = 0; i < 3; ++i) {
    const std::string text(static_cast<size_t>(10 + i), 'x');
    const int told = lab_.invalidation().changed[node_];
    WriteElsewhere(text);
    EXPECT_GT(lab_.invalidation().changed[node_], told) << i;
    EXPECT_THAT(leases(), ElementsAre(0u)) << i;
    const absl::StatusOr<AttributesReply> now = lab_.GetAttributes(node_);
    EXPECT_EQ(now->attributes.st_size, 10 + i);
    // Who looked has asked for it again: the next write is told, too.
    EXPECT_THAT(leases(), ElementsAre(kLeaseRead)) << i;
    EXPECT_EQ(lab_.Read(fh, 0, 100).value_or("?"), text);
  }
  WriteElsewhere("by reading alone");
  EXPECT_EQ(lab_.Read(fh, 0, 100).value_or("?"), "by reading alone");
  EXPECT_THAT(leases(), ElementsAre(kLeaseRead));
  EXPECT_EQ(lab_.server("t1").opens(), 1) << "what asked for it is closed";
}

TEST_F(LeasesTest, PagesThatWereReadBeforeABreakAreNotKept) {
  Mount();
  const state::FileHandle fh = Open();
  EXPECT_EQ(lab_.Read(fh, 0, 100).value_or("?"), "before");
  EXPECT_TRUE(lab_.Open(node_)->keep_cache);
  Break(0);  // The same content, size and time.
  const absl::StatusOr<OpenReply> renews = lab_.Open(node_);
  EXPECT_FALSE(renews->keep_cache);
  // A break before it is used: the pages that it was to renew are outdated again.
  Break(0);
  EXPECT_EQ(lab_.Read(renews->fh, 0, 100).value_or("?"), "before");
  const absl::StatusOr<OpenReply> again = lab_.Open(node_);
  EXPECT_FALSE(again->keep_cache);
  EXPECT_EQ(lab_.Read(again->fh, 0, 100).value_or("?"), "before");
  EXPECT_TRUE(lab_.Open(node_)->keep_cache);
}

TEST_F(LeasesTest, ABreakThatOvertakesTheAnswerToAnOpenLeavesNoLease) {
  Mount();
  // The answer waits; the break does not.
  lab_.server("t1").AddRule({.command = Command::kCreate,
                             .path = "file",
                             .times = 1,
                             .action = {.delay = absl::Seconds(2)}});
  lab_.lab().world().After(absl::Seconds(1), [&] {
    lab_.lab().process("t1").RunNow([&] { lab_.server("t1").BreakLeases("share", "file", 0); });
  });
  const state::FileHandle fh = Open();
  EXPECT_THAT(leases(), ElementsAre(0u));
  const int told = lab_.invalidation().changed[node_];
  EXPECT_EQ(lab_.Read(fh, 0, 100).value_or("?"), "before");
  EXPECT_THAT(leases(), ElementsAre(kLeaseRead)) << "it was known to be lost, and asked for again";
  WriteElsewhere("after");
  EXPECT_GT(lab_.invalidation().changed[node_], told);
  EXPECT_EQ(lab_.Read(fh, 0, 100).value_or("?"), "after");
}

TEST_F(LeasesTest, WhatWasSeenBeforeABreakIsNotBelievedAfterIt) {
  Mount();
  const state::FileHandle fh = Open();
  lab_.RunFor(absl::Hours(2));
  lab_.server("t1").AddRule(
      {.command = Command::kClose, .times = 1, .action = {.delay = absl::Seconds(2)}});
  // The look is one frame: its answer leaves when its last part does.
  lab_.lab().world().After(absl::Seconds(1), [&] { Break(0); });
  const absl::StatusOr<AttributesReply> old = lab_.GetAttributes(node_);
  ASSERT_TRUE(old.ok());
  EXPECT_EQ(old->timeout, absl::ZeroDuration());
  const int64_t misses = lab_.counters().attribute_misses;
  ASSERT_TRUE(lab_.GetAttributes(node_).ok());
  EXPECT_EQ(lab_.counters().attribute_misses, misses + 1);
  lab_.filesystem().Release(fh);
}

TEST_F(LeasesTest, AServerThatRefusesLeasesIsAskedWithoutOne) {
  for (const NtStatus refusal : {NtStatus::kInvalidParameter, NtStatus::kNotSupported}) {
    FilesystemLab lab;
    lab.share("t1").AddText("file", "text");
    lab.server("t1").set_script(
        [&](const testing::ScriptedRequest& request) -> std::optional<testing::Action> {
          if (request.header.command != Command::kCreate) return std::nullopt;
          const auto create = smb::wire::DecodeCreateRequest(request.body);
          if (!create.ok() || !create->lease.has_value()) return std::nullopt;
          return testing::Action{.status = refusal};
        });
    lab.Mount("//t1/share");
    const absl::StatusOr<OpenReply> open = lab.Open(lab.Walk("file"));
    ASSERT_TRUE(open.ok()) << open.status();
    EXPECT_EQ(lab.Read(open->fh, 0, 10).value_or("?"), "text");
    EXPECT_THAT(lab.server("t1").leases("share", "file"), IsEmpty());
    lab.server("t1").set_script(nullptr);
  }
}

TEST_F(LeasesTest, OthersWhoHaveTheKeyOfAnotherFileAreOpenedWithoutALease) {
  // Another machine renamed what is open, and put another file in its place.
  Mount();
  const state::FileHandle fh = Open();
  const std::shared_ptr<testing::ScriptedFile> root = lab_.share("t1").root();
  const std::shared_ptr<testing::ScriptedFile> file = root->children.begin()->second;
  testing::ScriptedShare::Move(file, root, u"moved");
  lab_.share("t1").AddText("file", "another");
  const absl::StatusOr<OpenReply> open = lab_.Open(node_);
  ASSERT_TRUE(open.ok()) << open.status();
  EXPECT_EQ(lab_.Read(open->fh, 0, 10).value_or("?"), "another");
  EXPECT_EQ(lab_.Read(fh, 0, 10).value_or("?"), "before");
  EXPECT_THAT(leases(), IsEmpty());
  EXPECT_THAT(lab_.server("t1").leases("share", "moved"), ElementsAre(kLeaseRead));
}

TEST_F(LeasesTest, WithoutPagesOrWithNoleaseNoneIsAskedFor) {
  for (const Options& options : {Options{.pages = false}, Options{.leases = false}}) {
    FilesystemLab lab;
    lab.share("t1").AddText("file", "text");
    lab.Mount("//t1/share", options);
    ASSERT_TRUE(lab.Open(lab.Walk("file")).ok());
    EXPECT_THAT(lab.server("t1").leases("share", "file"), IsEmpty());
  }
}

TEST_F(LeasesTest, ALeaseIsAskedForAgainAfterTheDeathOfTheAgent) {
  Mount();
  const state::FileHandle fh = Open();
  lab_.TakeOver();
  EXPECT_EQ(lab_.Read(fh, 0, 100).value_or("?"), "before");
  EXPECT_THAT(leases(), Each(kLeaseRead));
  WriteElsewhere("after");
  EXPECT_EQ(lab_.invalidation().changed[node_], 1);
  EXPECT_EQ(lab_.Read(fh, 0, 100).value_or("?"), "after");
}

// Each opens the file by its name.
TEST_F(LeasesTest, WhatIsDoneByNameTakesNoLeaseFromThisMount) {
  lab_.share("t1").posix_unlink = true;
  Mount();
  const state::FileHandle reads = Open();
  const state::FileHandle writes = Open(O_RDWR);
  const auto expect_held = [&](const std::string& path) {
    EXPECT_THAT(lab_.server("t1").leases("share", path), ElementsAre(kRwh));
    EXPECT_EQ(lab_.counters().lease_breaks, 0);
  };
  // By an appending handle nothing is cut.
  EXPECT_TRUE(lab_.SetAttributes(node_, {.size_bytes = 3, .fh = reads}).ok());
  expect_held("file");
  EXPECT_TRUE(lab_.SetAttributes(node_, {.modified = absl::FromUnixSeconds(7)}).ok());
  expect_held("file");
  EXPECT_EQ(lab_.Change([&](runtime::Deadline until) {
    return lab_.filesystem().SetXattr(node_, "user.x", "1", 0, nullptr, until);
  }),
            absl::OkStatus());
  expect_held("file");
  EXPECT_EQ(lab_.Rename(state::kRootNode, "file", state::kRootNode, "moved"), absl::OkStatus());
  expect_held("moved");
  EXPECT_TRUE(lab_.SetAttributes(node_, {.size_bytes = 2, .fh = reads}).ok());
  expect_held("moved");
  ASSERT_TRUE(lab_.MakeDirectory(state::kRootNode, "dir").ok());
  EXPECT_EQ(lab_.Unlink(state::kRootNode, "moved"), absl::OkStatus());
  EXPECT_EQ(lab_.counters().lease_breaks, 0);
  EXPECT_EQ(lab_.Read(writes, 0, 100).value_or("?"), "be");
}

TEST_F(LeasesTest, AWriteLeaseIsGivenBackAndTheRestIsKept) {
  Mount();
  const state::FileHandle fh = Open(O_RDWR);
  EXPECT_EQ(lab_.Read(fh, 0, 100).value_or("?"), "before");
  const int told = lab_.invalidation().changed[node_];
  Break(kRh);
  EXPECT_THAT(leases(), ElementsAre(kRh));
  EXPECT_EQ(lab_.server("t1").Count(Command::kOplockBreak), 1);
  EXPECT_EQ(lab_.invalidation().changed[node_], told) << "the pages are still the file's";
  Break(0);
  EXPECT_THAT(leases(), ElementsAre(0u));
  EXPECT_EQ(lab_.server("t1").Count(Command::kOplockBreak), 2);
  EXPECT_EQ(lab_.invalidation().changed[node_], told + 2) << "at once, and when it is acknowledged";
  // Who waits for it at the server waits for nobody any more.
  EXPECT_EQ(lab_.Write(fh, 0, "after"), absl::OkStatus());
}

// A server gives nothing before that; what is read until then is not told to be outdated.
TEST_F(LeasesTest, WhatIsReadBeforeABreakIsAcknowledgedIsDroppedOnceMore) {
  Mount();
  const state::FileHandle fh = Open(O_RDWR);
  lab_.server("t1").AddRule(
      {.command = Command::kOplockBreak, .times = 1, .action = {.delay = absl::Seconds(2)}});
  Break(0);
  const int told = lab_.invalidation().changed[node_];
  EXPECT_EQ(told, 1);
  EXPECT_EQ(lab_.Read(fh, 0, 100).value_or("?"), "before");
  EXPECT_THAT(leases(), ElementsAre(0u)) << "it is not asked for yet";
  lab_.RunFor(absl::Seconds(3));
  EXPECT_EQ(lab_.invalidation().changed[node_], told + 1);
  EXPECT_EQ(lab_.Read(fh, 0, 100).value_or("?"), "before");
  EXPECT_THAT(leases(), ElementsAre(kRh));
}

TEST_F(LeasesTest, AnAcknowledgmentThatIsLostStopsNobodyHere) {
  Mount();
  const state::FileHandle fh = Open(O_RDWR);
  lab_.server("t1").AddRule({.command = Command::kOplockBreak, .action = {.ignore = true}});
  Break(0);
  EXPECT_EQ(lab_.Read(fh, 0, 100).value_or("?"), "before");
  EXPECT_EQ(lab_.Write(fh, 0, "BEFORE"), absl::OkStatus());
  EXPECT_TRUE(lab_.GetAttributes(node_).ok());
  lab_.RunFor(absl::Minutes(1));
  lab_.server("t1").ClearRules();
  lab_.filesystem().Release(fh);
  lab_.RunFor(absl::Seconds(1));
  EXPECT_THAT(leases(), IsEmpty());
  const state::FileHandle again = Open(O_RDWR);
  EXPECT_THAT(leases(), ElementsAre(kRwh));
  lab_.filesystem().Release(again);
}

// Whoever waits at the server must not wait the 35 s for it.
TEST_F(LeasesTest, ABreakIsAcknowledgedWhenAnExpiredSessionIsRenewed) {
  Mount();
  const state::FileHandle fh = Open(O_RDWR);
  lab_.server("t1").AddRule(
      {.command = Command::kSessionSetup, .times = 1, .action = {.delay = absl::Seconds(2)}});
  lab_.lab().process("t1").RunNow([&] { lab_.server("t1").ExpireSessions(); });
  Break(0);
  EXPECT_THAT(leases(), ElementsAre(kRwh)) << "nothing can be said on it yet";
  lab_.RunFor(absl::Seconds(4));
  EXPECT_THAT(leases(), ElementsAre(0u));
  EXPECT_EQ(lab_.server("t1").sessions(), 1);
  EXPECT_EQ(lab_.Read(fh, 0, 100).value_or("?"), "before");
}

TEST_F(LeasesTest, ABreakOnASessionThatCannotBeRenewedEndsIt) {
  for (const bool before : {true, false}) {
    SCOPED_TRACE(before ? "the break comes while it is renewed" : "the break comes later");
    FilesystemLab lab;
    lab.share("t1").writable = true;
    lab.share("t1").AddText("file", "text");
    lab.Mount("//t1/share");
    ASSERT_TRUE(lab.Open(lab.Walk("file"), O_RDWR).ok());
    const auto break_lease = [&] {
      lab.lab().process("t1").RunNow([&] { lab.server("t1").BreakLeases("share", "file", 0); });
    };
    lab.server("t1").AddRule(
        {.command = Command::kSessionSetup, .action = {.status = NtStatus::kLogonFailure}});
    lab.lab().process("t1").RunNow([&] { lab.server("t1").ExpireSessions(); });
    if (before) break_lease();
    EXPECT_FALSE(lab.Lookup(state::kRootNode, "other").ok());
    if (!before) break_lease();
    lab.RunFor(absl::Seconds(2));
    EXPECT_EQ(lab.server("t1").opens(), 0) << "what waits for the lease goes on";
    EXPECT_THAT(lab.server("t1").leases("share", "file"), IsEmpty());
    lab.server("t1").ClearRules();
  }
}

// A link's two targets.
TEST(LeasesOfALinkTest, H13_ABreakIsNeverAcknowledgedToAnotherServer) {
  for (const bool before_death : {false, true}) {
    FilesystemLab lab;
    lab.OnBoth([](testing::ScriptedShare& share) {
      share.writable = true;
      share.AddText("file", "text");
    });
    lab.Mount("//root1/dfs");
    const state::NodeId node = lab.Walk("two/file");
    const absl::StatusOr<OpenReply> open = lab.Open(node, O_RDWR);
    ASSERT_TRUE(open.ok()) << open.status();
    ASSERT_THAT(lab.server("t1").leases("share", "file"), ElementsAre(kRwh));
    lab.server("t1").AddRule({.command = Command::kOplockBreak, .action = {.ignore = true}});
    for (int i = 0; i < 20; ++i) {
      lab.lab().process("t1").RunNow(
          [&] { lab.server("t1").BreakLeases("share", "file", i % 2 == 0 ? kRh : 0); });
      if (before_death) lab.RunFor(absl::Milliseconds(10));
    }
    lab.lab().Kill("t1");
    EXPECT_EQ(lab.Read(open->fh, 0, 10).value_or("?"), "text");
    lab.RunFor(absl::Minutes(2));
    EXPECT_EQ(lab.server("t2").Count(Command::kOplockBreak), 0) << before_death;
    EXPECT_THAT(lab.server("t2").leases("share", "file"), ElementsAre(kRwh)) << before_death;
  }
}

// The lease goes with the server; what it covered is not taken over to the other copy.
TEST(LeasesOfALinkTest, D11_ALeaseThatIsHeldWhenTheTargetDiesIsGone) {
  FilesystemLab lab;
  lab.OnBoth([](testing::ScriptedShare& share) { share.writable = true; });
  lab.share("t1").AddText("file", "first");
  lab.share("t2").AddText("file", "the second").last_write += absl::Seconds(10);
  lab.Mount("//root1/dfs", {.actimeo = absl::Hours(1)});
  const state::NodeId node = lab.Walk("two/file");
  const absl::StatusOr<OpenReply> open = lab.Open(node, O_RDWR);
  ASSERT_TRUE(open.ok()) << open.status();
  EXPECT_EQ(lab.Read(open->fh, 0, 10).value_or("?"), "first");
  lab.lab().Kill("t1");
  const absl::StatusOr<OpenReply> fresh = lab.Open(node, O_RDWR);
  ASSERT_TRUE(fresh.ok()) << fresh.status();
  EXPECT_FALSE(fresh->keep_cache);
  lab.RunFor(absl::Milliseconds(1));  // Told behind the answer.
  EXPECT_GE(lab.invalidation().changed[node], 1);
  EXPECT_EQ(lab.Read(fresh->fh, 0, 100).value_or("?"), "the second");
  EXPECT_EQ(ErrnoOf(lab.Read(open->fh, 0, 10).status()), ESTALE);
  EXPECT_THAT(lab.server("t2").leases("share", "file"), ElementsAre(kRwh));
  const int told = lab.invalidation().changed[node];
  lab.lab().process("t2").RunNow([&] { lab.server("t2").BreakLeases("share", "file", 0); });
  lab.RunFor(absl::Seconds(1));
  EXPECT_GT(lab.invalidation().changed[node], told);
}

}  // namespace
}  // namespace dfscsi::vfs
