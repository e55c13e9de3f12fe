// What was acknowledged early and is sent by another open than the one that had the lease.

#include <errno.h>
#include <fcntl.h>
#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "node-agent/vfs/write_behind_test_lab.h"

namespace dfscsi::vfs {
namespace {

using smb::wire::Command;

struct WriteBehindProofTest : WriteBehindTest {
  // As it is on the server, whoever has made it so.
  void SetContent(const std::string& text) {
    testing::ScriptedFile* const file = lab.share("t1").Find("file");
    file->text = text;
    file->size = text.size();
  }
  int acknowledgments() {
    int count = 0;
    for (const testing::ScriptedRequest& request : lab.server("t1").log()) {
      count += request.header.command == Command::kOplockBreak ? 1 : 0;
    }
    return count;
  }
};

TEST_F(WriteBehindProofTest, OnlyWhatIsRightBehindTheEndIsAcknowledgedEarly) {
  constexpr struct {
    const char* name;
    uint64_t offset;
    bool early;
  } kCases[] = {
      {"at the end", 64, true},
      {"a little behind it", 5000, true},
      {"over what is there", 0, false},
      {"in part", 62, false},
      {"far behind it", uint64_t{64} << 20, false},
      {"where no file ends", (uint64_t{1} << 63) - 5, false},
  };
  for (const auto& c : kCases) {
    SCOPED_TRACE(c.name);
    Mount("//t1/share");
    const state::FileHandle fh = MustOpen("file");
    Hold(absl::Milliseconds(50));
    const auto write = Write(fh, c.offset, "text");
    EXPECT_EQ(write->answered, c.early);
    lab.server("t1").ClearRules();
    lab.lab().agent().RunNow([this] { calls = std::make_unique<runtime::TaskGroup>(); });
    lab.share("t1").Remove("file");
    lab.share("t1").AddText("file", std::string(64, '.'));
  }
}

TEST_F(WriteBehindProofTest, WithoutItsLeaseOnlyWhatNobodyElseHasChangedIsWritten) {
  const std::string dots(64, '.');
  const std::string zeros(4, '\0');
  struct {
    const char* name;
    std::function<void(WriteBehindProofTest&)> meanwhile;
    std::string left;  // Of what two writes of four bytes find and make of it; empty: all is well.
  } const kCases[] = {
      {"nothing was executed", [&](auto& t) { t.SetContent(dots); }, ""},
      {"all was executed", [&](auto& t) { t.SetContent(dots + "aaaabbbb"); }, ""},
      {"one in part", [&](auto& t) { t.SetContent(dots + "aa"); }, ""},
      {"the second alone", [&](auto& t) { t.SetContent(dots + zeros + "bbbb"); }, ""},
      {"another has appended", [&](auto& t) { t.SetContent(dots + "their line"); },
       dots + "their line"},
      {"another has cut it", [&](auto& t) { t.SetContent("short"); }, "short"},
      {"another has made it anew", [&](auto& t) { t.SetContent(std::string(80, 'X')); },
       std::string(80, 'X')},
      {"another file has its name",
       [&](auto& t) {
         t.lab.share("t1").Remove("file");
         t.lab.share("t1").AddText("file", dots);
       },
       dots},
  };
  for (const int flags : {O_RDWR, O_WRONLY}) {
    for (const bool agent_dies : {false, true}) {
      for (const auto& c : kCases) {
        SCOPED_TRACE(absl::StrCat(c.name, flags == O_RDWR ? "" : ", write-only",
                                  agent_dies ? ", the agent dies" : ""));
        Mount("//t1/share");
        const state::FileHandle fh = MustOpen("file", flags);
        Hold(absl::Minutes(5));
        const auto first = Write(fh, 64, "aaaa");
        const auto second = Write(fh, 68, "bbbb");
        ASSERT_TRUE(first->answered && second->answered);
        lab.server("t1").ClearRules();
        lab.lab().Kill("t1");
        if (agent_dies) TakeOver();
        c.meanwhile(*this);
        lab.lab().Start("t1");
        if (agent_dies) {
          first->Die();
          second->Die();
          Start(fh, 64, first);
          Start(fh, 68, second);
        }
        const absl::Status told = lab.Sync(fh);
        ASSERT_TRUE(first->ended.has_value() && second->ended.has_value());
        if (c.left.empty()) {
          EXPECT_EQ(told, absl::OkStatus());
          EXPECT_EQ(lab.ContentOf("t1", "file"), dots + "aaaabbbb");
          EXPECT_EQ(lab.counters().unproven_writes, 0);
        } else {
          EXPECT_TRUE(Filesystem::IsKeptError(told)) << told;
          EXPECT_EQ(ErrnoOf(told), EIO);
          EXPECT_EQ(lab.ContentOf("t1", "file"), c.left);
        }
        lab.lab().agent().RunNow([this] { calls = std::make_unique<runtime::TaskGroup>(); });
        lab.share("t1").Remove("file");
        lab.share("t1").AddText("file", dots);
      }
    }
  }
}

TEST_F(WriteBehindProofTest, ABreakIsAcknowledgedInTimeThoughSomethingIsStillPending) {
  lab.Mount("//t1/share");
  const state::FileHandle fh = MustOpen("file");
  Hold(absl::Minutes(5));
  const auto write = Write(fh, 64, "aaaa");
  ASSERT_TRUE(write->answered);
  lab.server("t1").ClearRules();
  lab.lab().process("t1").RunNow(
      [&] { lab.server("t1").BreakLeases("share", "file", smb::wire::kLeaseRead); });
  // Something else keeps the server from being silent.
  for (int i = 0; i < 24; ++i) {
    lab.RunFor(absl::Seconds(1));
    (void)lab.Lookup(state::kRootNode, absl::StrCat("none", i));
  }
  EXPECT_EQ(acknowledgments(), 0);
  for (int i = 0; i < 4; ++i) {
    lab.RunFor(absl::Seconds(1));
    (void)lab.Lookup(state::kRootNode, absl::StrCat("gone", i));
  }
  EXPECT_EQ(acknowledgments(), 1);
  EXPECT_FALSE(write->ended.has_value());
}

TEST_F(WriteBehindProofTest, WhatIsWrittenAfterAFailedProofIsNotLost) {
  Mount("//t1/share");
  const state::FileHandle fh = MustOpen("file");
  Hold(absl::Minutes(5));
  const auto first = Write(fh, 64, "aaaa");
  ASSERT_TRUE(first->answered);
  lab.server("t1").ClearRules();
  lab.lab().Kill("t1");
  SetContent("short");  // Another machine has cut it.
  lab.lab().Start("t1");
  const absl::Status told = lab.Sync(fh);
  EXPECT_EQ(ErrnoOf(told), EIO);
  lab.filesystem().NoteErrorTold(fh, EIO);
  EXPECT_EQ(lab.Sync(fh), absl::OkStatus());
  for (int i = 0; i < 3; ++i) {
    (void)Write(fh, 5 + 4 * i, "cccc");
    const absl::Status later = lab.Sync(fh);
    EXPECT_EQ(later, absl::OkStatus()) << i;
    lab.filesystem().NoteErrorTold(fh, EIO);
  }
  EXPECT_EQ(lab.ContentOf("t1", "file"), "shortcccccccccccc");
}

TEST_F(WriteBehindProofTest, WhatAnotherHandleOfOursWroteIsNoOtherMachines) {
  Mount("//t1/share");
  const state::FileHandle fh = MustOpen("file");
  const state::FileHandle other = MustOpen("file");
  (void)Write(other, 64, "oooo");
  EXPECT_EQ(lab.Sync(other), absl::OkStatus());
  lab.filesystem().Release(other);
  lab.RunFor(absl::Milliseconds(10));
  Hold(absl::Minutes(5));
  const auto first = Write(fh, 68, "aaaa");
  ASSERT_TRUE(first->answered);
  lab.server("t1").ClearRules();
  lab.lab().Kill("t1");
  lab.lab().Start("t1");
  EXPECT_EQ(lab.Sync(fh), absl::OkStatus());
  EXPECT_EQ(lab.ContentOf("t1", "file"), std::string(64, '.') + "ooooaaaa");
}

TEST_F(WriteBehindProofTest, WhatIsWrittenAfterADrainThatTookTooLongIsNotLost) {
  lab.Mount("//t1/share", Options{.write_behind = true});
  const state::FileHandle fh = MustOpen("file");
  Hold(absl::Seconds(28));
  const auto first = Write(fh, 64, "aaaa");
  ASSERT_TRUE(first->answered);
  lab.server("t1").ClearRules();
  lab.lab().process("t1").RunNow(
      [&] { lab.server("t1").BreakLeases("share", "file", smb::wire::kLeaseRead); });
  for (int i = 0; i < 32; ++i) {
    lab.RunFor(absl::Seconds(1));
    (void)lab.Lookup(state::kRootNode, absl::StrCat("none", i));
  }
  EXPECT_EQ(acknowledgments(), 1);
  EXPECT_TRUE(first->ended.has_value() && first->ended->ok());
  (void)Write(fh, 68, "bbbb");
  EXPECT_EQ(lab.Sync(fh), absl::OkStatus());
  const state::FileHandle other = MustOpen("file");  // Asks for W again, and gets it for all.
  (void)Write(fh, 72, "cccc");
  EXPECT_EQ(lab.Sync(fh), absl::OkStatus());
  EXPECT_EQ(lab.ContentOf("t1", "file"), std::string(64, '.') + "aaaabbbbcccc");
  lab.filesystem().Release(other);
}

TEST_F(WriteBehindProofTest, WhatIsWrittenAfterATakeoverWithoutProofIsNotLost) {
  lab.Mount("//t1/share", Options{.write_behind = true});
  const state::FileHandle fh = MustOpen("file");
  Hold(absl::Minutes(5));
  const auto first = Write(fh, 64, "aaaa");
  ASSERT_TRUE(first->answered);
  lab.server("t1").ClearRules();
  lab.lab().agent().RunNow([this] { calls = std::make_unique<runtime::TaskGroup>(); });
  lab.TakeOver();
  SetContent("short");
  first->Die();
  Start(fh, 64, first);
  EXPECT_EQ(ErrnoOf(lab.Sync(fh)), EIO);
  lab.filesystem().NoteErrorTold(fh, EIO);
  for (int i = 0; i < 3; ++i) {
    (void)Write(fh, 5 + 4 * i, "cccc");
    EXPECT_EQ(lab.Sync(fh), absl::OkStatus()) << i;
    lab.filesystem().NoteErrorTold(fh, EIO);
  }
  EXPECT_EQ(lab.ContentOf("t1", "file"), "shortcccccccccccc");
}

}  // namespace
}  // namespace dfscsi::vfs
