// Looks at files and folders of which something is pending.

#include <errno.h>
#include <fcntl.h>
#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "node-agent/vfs/write_behind_test_lab.h"

namespace dfscsi::vfs {
namespace {

using runtime::Deadline;

struct WriteBehindLooksTest : WriteBehindTest {
  struct LookCase {
    const char* name;
    std::function<absl::StatusOr<off_t>(const std::string& path)> size;
  };
  state::NodeId ParentOf(const std::string& path) {
    const size_t slash = path.rfind('/');
    return slash == std::string::npos ? state::kRootNode : lab.Walk(path.substr(0, slash));
  }
  static std::string NameOf(const std::string& path) { return path.substr(path.rfind('/') + 1); }
  std::vector<LookCase> Looks() {
    return {{"LOOKUP",
             [this](const std::string& path) -> absl::StatusOr<off_t> {
               const auto reply = lab.Lookup(ParentOf(path), NameOf(path));
               if (!reply.ok()) return reply.status();
               EXPECT_EQ(reply->attributes_timeout, absl::ZeroDuration());
               return reply->attributes.st_size;
             }},
            {"GETATTR", [this](const std::string&) -> absl::StatusOr<off_t> {
               const auto reply = lab.GetAttributes(node);
               if (!reply.ok()) return reply.status();
               EXPECT_EQ(reply->timeout, absl::ZeroDuration());
               return reply->attributes.st_size;
             }}};
  }
  // The server has a WRITE, and has not executed it yet: as the lab made the file.
  void NotExecuted() {
    testing::ScriptedFile* const file = lab.share("t1").Find("file");
    file->text = std::string(64, '.');
    file->size = 64;
  }
  state::NodeId node = 0;
};

TEST_F(WriteBehindLooksTest, WhatAServerThatAnswersHasSoonIsWaitedFor) {
  Mount("//t1/share");
  node = lab.Walk("file");
  const state::FileHandle fh = MustOpen("file");
  Hold(absl::Milliseconds(500));
  const auto first = Write(fh, 64, "text");
  ASSERT_TRUE(first->answered);
  // Another spelling is another name of the node's file.
  const absl::StatusOr<EntryReply> found = lab.Lookup(state::kRootNode, "FILE");
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_EQ(found->attributes.st_size, 68);
  EXPECT_TRUE(first->ended.has_value());
  const auto second = Write(fh, 68, "text");
  ASSERT_TRUE(second->answered);
  const absl::StatusOr<AttributesReply> looked = lab.GetAttributes(node);
  ASSERT_TRUE(looked.ok()) << looked.status();
  EXPECT_EQ(looked->attributes.st_size, 72);
  EXPECT_TRUE(second->ended.has_value());
}

TEST_F(WriteBehindLooksTest, NobodyWhoLooksWaitsForLongAndTheSizeIsThatOfWhatWasAcknowledged) {
  Mount("//t1/share");
  node = lab.Walk("file");
  const state::FileHandle fh = MustOpen("file");
  Hold(absl::Seconds(20));
  const auto write = Write(fh, 64, "text");
  ASSERT_TRUE(write->answered);
  NotExecuted();
  lab.server("t1").ClearRules();
  for (const LookCase& look : Looks()) {
    SCOPED_TRACE(look.name);
    const absl::Time began = lab.now();
    const absl::StatusOr<off_t> size = look.size("file");
    ASSERT_TRUE(size.ok()) << size.status();
    EXPECT_EQ(*size, 68);
    EXPECT_GE(lab.now() - began, absl::Milliseconds(900));
    EXPECT_LE(lab.now() - began, absl::Milliseconds(1500));
    EXPECT_FALSE(write->ended.has_value());
  }
  // Who looks can be killed while he waits.
  runtime::CancelSource killed;
  std::optional<absl::StatusOr<AttributesReply>> ended;
  const auto run = [](Filesystem* filesystem, state::NodeId of, Deadline deadline,
                      std::optional<absl::StatusOr<AttributesReply>>* into) -> runtime::Task<void> {
    *into = co_await filesystem->GetAttributes(of, deadline);
  };
  lab.lab().agent().RunNow(
      [&] { calls->Spawn(run(&lab.filesystem(), node, killed.deadline(), &ended)); });
  lab.RunFor(absl::Milliseconds(10));
  lab.lab().agent().RunNow([&] { killed.Cancel(); });
  lab.RunFor(absl::Milliseconds(10));
  ASSERT_TRUE(ended.has_value());
  EXPECT_TRUE(absl::IsCancelled(ended->status()));
}

TEST_F(WriteBehindLooksTest, WhatIsPendingOnADeadServerStopsNobodyWhoLooks) {
  Mount("//root1/dfs");
  node = lab.Walk("two/file");
  const state::FileHandle fh = MustOpen("two/file");
  Hold(absl::Minutes(5));
  const auto write = Write(fh, 64, "text");
  ASSERT_TRUE(write->answered);
  lab.lab().PowerOff("t1");
  // The link moves by whoever asks first.
  ASSERT_TRUE(lab.Lookup(lab.Walk("two"), "other").ok());
  for (const LookCase& look : Looks()) {
    SCOPED_TRACE(look.name);
    const absl::Time began = lab.now();
    const absl::StatusOr<off_t> size = look.size("two/file");
    ASSERT_TRUE(size.ok()) << size.status();
    EXPECT_EQ(*size, 68);
    EXPECT_LE(lab.now() - began, absl::Milliseconds(500));
  }
  const absl::Time began = lab.now();
  const state::FileHandle listing = *lab.OpenDirectory(lab.Walk("two"));
  EntryList list{100};
  ASSERT_EQ(lab.Change([&](Deadline until) {
    return lab.filesystem().ReadDirectory(listing, 0, true, &list, until);
  }),
            absl::OkStatus());
  EXPECT_LE(lab.now() - began, absl::Milliseconds(500));
  EXPECT_FALSE(write->ended.has_value());
}

TEST_F(WriteBehindLooksTest, AListingSaysNothingOfAFileOfWhichSomethingIsPending) {
  Mount("//t1/share");
  const state::FileHandle fh = MustOpen("file");
  Hold(absl::Seconds(20));
  const auto write = Write(fh, 64, "text");
  ASSERT_TRUE(write->answered);
  NotExecuted();
  const state::FileHandle listing = *lab.OpenDirectory(state::kRootNode);
  EntryList list{100};
  ASSERT_EQ(lab.Change([&](Deadline until) {
    return lab.filesystem().ReadDirectory(listing, 0, true, &list, until);
  }),
            absl::OkStatus());
  EXPECT_FALSE(write->ended.has_value());
  size_t seen = 0;
  for (const EntryList::Entry& entry : list.entries) {
    if (entry.name != "file" && entry.name != "other") continue;
    ++seen;
    EXPECT_EQ(entry.node == 0, entry.name == "file") << entry.name;
  }
  EXPECT_EQ(seen, 2u);
}

TEST_F(WriteBehindLooksTest, AnotherNameOfTheFileShowsItsSize) {
  Mount("//t1/share");
  const state::FileHandle fh = MustOpen("file");
  std::shared_ptr<testing::ScriptedFile> file;
  for (const auto& [name, child] : lab.share("t1").root()->children) {
    if (child.get() == lab.share("t1").Find("file")) file = child;
  }
  lab.share("t1").root()->children[u"AGAIN"] = file;
  Hold(absl::Seconds(20));
  const auto write = Write(fh, 64, "text");
  ASSERT_TRUE(write->answered);
  NotExecuted();
  const absl::StatusOr<EntryReply> again = lab.Lookup(state::kRootNode, "again");
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_FALSE(write->ended.has_value());
  EXPECT_EQ(again->attributes.st_size, 68);
  const absl::StatusOr<AttributesReply> looked = lab.GetAttributes(again->node);
  ASSERT_TRUE(looked.ok());
  EXPECT_EQ(looked->attributes.st_size, 68);
}

}  // namespace
}  // namespace dfscsi::vfs
