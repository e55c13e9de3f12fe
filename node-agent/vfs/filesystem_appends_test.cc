// WRITE through a handle that appends, where the server does not append by itself.

#include <errno.h>
#include <fcntl.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "node-agent/vfs/filesystem_test_lab.h"

namespace dfscsi::vfs {
namespace {

using smb::wire::Command;
using smb::wire::NtStatus;
using testing::Closing;
using testing::ScriptedShare;

constexpr char kFile[] = "0123456789";

// A mount of a server that refuses a WRITE at offset -1.
struct AppendsTest : public ::testing::Test {
  AppendsTest() {
    lab.OnBoth([](ScriptedShare& share) {
      share.writable = true;
      share.AddText("file", kFile);
    });
    for (const char* name : {"t1", "t2"}) lab.server(name).options().appends = false;
    lab.Mount("//root1/dfs");
  }
  state::FileHandle OpenToAppend() {
    const absl::StatusOr<OpenReply> open = lab.Open(lab.Walk("two/file"), O_WRONLY | O_APPEND);
    EXPECT_TRUE(open.ok()) << open.status();
    return open.ok() ? open->fh : 0;
  }
  std::string Content() { return lab.ContentOf("t1", "file"); }
  // What is done, at the next append's WRITE, instead of answering it.
  void AtNextWrite(testing::Action action) {
    lab.server("t1").ClearRules();
    lab.server("t1").AddRule({.command = Command::kWrite, .times = 1, .action = action});
  }
  // Another node's, by its own lock, which it could have once ours was lost.
  void AppendAsOther(const std::string& text) {
    testing::ScriptedFile& file = *lab.share("t1").Find("file");
    file.Write(file.size, FilesystemLab::BytesOf(text));
  }
  // An append that the agent dies in: its WRITE was executed, or was not.
  void DieAppending(state::FileHandle fh, const std::string& text, bool executed,
                    TestJournal* journal) {
    AtNextWrite({.drop = executed, .ignore = !executed});
    (void)lab.TryChange(
        [&](runtime::Deadline) {
          return lab.filesystem().Write(fh, 0, FilesystemLab::BytesOf(text), journal,
                                        runtime::Deadline::Never());
        },
        absl::Milliseconds(500));
    EXPECT_EQ(journal->last_offset, std::string(kFile).size() + 1);
    journal->Die();
    lab.server("t1").ClearRules();
    lab.TakeOver();
  }
  FilesystemLab lab;
};

const testing::Action kLoseAnswer{.drop = true, .close = Closing::kReset};
const testing::Action kLoseRequest{.ignore = true, .close = Closing::kReset};

TEST_F(AppendsTest, GoToTheEndUnderALock) {
  const state::FileHandle fh = OpenToAppend();
  EXPECT_EQ(lab.Write(fh, 0, "a"), absl::OkStatus());
  AppendAsOther("b");
  const int64_t before = lab.server("t1").frames();
  EXPECT_EQ(lab.Write(fh, 3, "c"), absl::OkStatus());
  EXPECT_EQ(lab.server("t1").frames() - before, 2);  // It was asked once whether it appends.
  EXPECT_EQ(Content(), "0123456789abc");
  EXPECT_EQ(lab.GetAttributes(lab.Walk("two/file"))->attributes.st_size, 13);
  EXPECT_TRUE(lab.share("t1").Find("file")->locks.empty());
}

TEST_F(AppendsTest, AreRefusedWhereTheServerHasNoLocksEither) {
  lab.server("t1").AddRule(
      {.command = Command::kLock, .action = {.status = NtStatus::kNotSupported}});
  EXPECT_EQ(ErrnoOf(lab.Write(OpenToAppend(), 3, "x")), EOPNOTSUPP);
  EXPECT_EQ(Content(), kFile);
}

TEST_F(AppendsTest, OfOneMountWaitForEachOtherHere) {
  std::vector<state::FileHandle> handles;
  for (int i = 0; i < 10; ++i) handles.push_back(OpenToAppend());
  EXPECT_EQ(lab.Write(handles[0], 0, "\n"), absl::OkStatus());
  const int64_t before = lab.server("t1").frames();
  struct Writer {
    static runtime::Task<void> Run(FilesystemLab* lab, state::FileHandle fh) {
      const std::string line = "line\n";
      const absl::Status status = co_await lab->filesystem().Write(
          fh, 0, FilesystemLab::BytesOf(line), nullptr, runtime::Deadline::Never());
      EXPECT_TRUE(status.ok()) << status;
    }
    static runtime::Task<absl::Status> All(FilesystemLab* lab, std::vector<state::FileHandle> all) {
      runtime::TaskGroup tasks;
      for (const state::FileHandle fh : all) tasks.Spawn(Run(lab, fh));
      co_return co_await tasks.WaitUntilEmpty(runtime::Deadline::Never());
    }
  };
  EXPECT_EQ(lab.Change([&](runtime::Deadline) { return Writer::All(&lab, handles); }),
            absl::OkStatus());
  EXPECT_EQ(lab.server("t1").frames() - before, 2 * 10);
  const std::string content = Content();
  EXPECT_EQ(std::count(content.begin(), content.end(), '\n'), 11);
  EXPECT_EQ(content.size(), 10u + 1 + 10 * 5);
}

// --- The answer is lost

TEST_F(AppendsTest, AnAppendWhoseAnswerWasLostIsThereOnce) {
  const state::FileHandle fh = OpenToAppend();
  EXPECT_EQ(lab.Write(fh, 0, "-"), absl::OkStatus());
  AtNextWrite(kLoseAnswer);
  EXPECT_EQ(lab.Write(fh, 0, "executed,"), absl::OkStatus());
  EXPECT_EQ(Content(), "0123456789-executed,");
  AtNextWrite(kLoseRequest);
  EXPECT_EQ(lab.Write(fh, 0, "not yet,"), absl::OkStatus());
  EXPECT_EQ(Content(), "0123456789-executed,not yet,");
  EXPECT_EQ(lab.counters().lost_answers, 2);
  EXPECT_EQ(lab.counters().unknown_changes, 0);
  EXPECT_TRUE(lab.server("t2").mutations().empty());
}

TEST_F(AppendsTest, WhatAnotherNodeAppendedInItsPlaceIsNotTakenForIt) {
  const state::FileHandle fh = OpenToAppend();
  EXPECT_EQ(lab.Write(fh, 0, "-"), absl::OkStatus());
  const struct {
    std::string other;
    bool known;
  } kCases[] = {{"others", true}, {"ours and more", true}, {"ou", false}};
  for (const auto& test : kCases) {
    const std::string before = Content();
    AtNextWrite(kLoseRequest);
    bool came = false;
    lab.server("t1").set_script(
        [&](const testing::ScriptedRequest& request) -> std::optional<testing::Action> {
          // Once ours was lost.
          if (request.header.command == Command::kNegotiate && !std::exchange(came, true)) {
            AppendAsOther(test.other);
          }
          return std::nullopt;
        });
    const absl::Status status = lab.Write(fh, 0, "ours!");
    lab.server("t1").set_script(nullptr);
    EXPECT_EQ(ErrnoOf(status), test.known ? 0 : EIO) << test.other;
    EXPECT_EQ(Content(), before + test.other + (test.known ? "ours!" : ""));
  }
}

TEST_F(AppendsTest, OneOfTheSameMountDoesNotComeBetween) {
  const state::FileHandle one = OpenToAppend();
  const state::FileHandle two = OpenToAppend();
  EXPECT_EQ(lab.Write(one, 0, "\n"), absl::OkStatus());
  AtNextWrite(kLoseRequest);
  struct Writer {
    static runtime::Task<void> Run(FilesystemLab* lab, state::FileHandle fh) {
      const std::string line = "the same line\n";
      const absl::Status status = co_await lab->filesystem().Write(
          fh, 0, FilesystemLab::BytesOf(line), nullptr, runtime::Deadline::Never());
      EXPECT_TRUE(status.ok()) << status;
    }
    static runtime::Task<absl::Status> Both(FilesystemLab* lab, state::FileHandle one,
                                            state::FileHandle two) {
      runtime::TaskGroup tasks;
      tasks.Spawn(Run(lab, one));
      tasks.Spawn(Run(lab, two));
      co_return co_await tasks.WaitUntilEmpty(runtime::Deadline::Never());
    }
  };
  EXPECT_EQ(lab.Change([&](runtime::Deadline) { return Writer::Both(&lab, one, two); }),
            absl::OkStatus());
  EXPECT_EQ(Content(), "0123456789\nthe same line\nthe same line\n");
}

TEST_F(AppendsTest, AnAppendThatIsGivenUpOnItsWayIsNotAskedForAgain) {
  const state::FileHandle fh = OpenToAppend();
  EXPECT_EQ(lab.Write(fh, 0, "-"), absl::OkStatus());
  AtNextWrite({.delay = absl::Seconds(5)});
  const std::string text = "x";
  const std::optional<absl::Status> status = lab.TryChange([&](runtime::Deadline until) {
    return lab.filesystem().Write(fh, 0, FilesystemLab::BytesOf(text), nullptr,
                                  until.Within(absl::Seconds(1)));
  });
  ASSERT_TRUE(status.has_value());
  EXPECT_EQ(ErrnoOf(*status), EIO);  // And not EINTR or such.
  // One that waits for its lock has done nothing.
  lab.share("t1").Find("file")->locks.push_back(
      {.owner = 0, .offset = uint64_t{1} << 63, .length_bytes = 1, .exclusive = true});
  const std::optional<absl::Status> waited = lab.TryChange([&](runtime::Deadline until) {
    return lab.filesystem().Write(fh, 0, FilesystemLab::BytesOf(text), nullptr,
                                  until.Within(absl::Seconds(1)));
  });
  ASSERT_TRUE(waited.has_value());
  EXPECT_TRUE(absl::IsDeadlineExceeded(*waited)) << *waited;
  lab.share("t1").Find("file")->locks.clear();
}

// --- The agent dies

TEST_F(AppendsTest, TheNextAgentFindsOutWhetherAnAppendWasMade) {
  for (const bool executed : {true, false}) {
    lab.share("t1").Find("file")->Resize(std::string(kFile).size());
    const state::FileHandle fh = OpenToAppend();
    EXPECT_EQ(lab.Write(fh, 0, "-"), absl::OkStatus());
    TestJournal journal;
    DieAppending(fh, "line", executed, &journal);
    EXPECT_EQ(Content(), executed ? "0123456789-line" : "0123456789-");
    const int64_t writes = lab.server("t1").Count(Command::kWrite);
    EXPECT_EQ(lab.Write(fh, 0, "line", &journal), absl::OkStatus());
    EXPECT_EQ(Content(), "0123456789-line");
    // The next one knows that the server does not append by itself.
    EXPECT_EQ(lab.server("t1").Count(Command::kWrite) - writes, executed ? 0 : 1);
    lab.filesystem().Release(fh);
  }
}

TEST_F(AppendsTest, TheNextAgentDoesNotGuessWhereAnAppendWentTo) {
  const state::FileHandle fh = OpenToAppend();
  EXPECT_EQ(lab.Write(fh, 0, "-"), absl::OkStatus());
  TestJournal journal;
  DieAppending(fh, "line", true, &journal);
  journal.offset_before = kNoOffset;  // Of an agent that noted none.
  EXPECT_EQ(ErrnoOf(lab.Write(fh, 0, "line", &journal)), EIO);
  EXPECT_EQ(Content(), "0123456789-line");
}

TEST_F(AppendsTest, WhatTheServerRefusedWasNotSentForTheNextAgent) {
  const state::FileHandle fh = OpenToAppend();
  lab.share("t1").Find("file")->locks.push_back(
      {.owner = 0, .offset = uint64_t{1} << 63, .length_bytes = 1, .exclusive = true});
  TestJournal journal;
  const std::string text = "line";
  (void)lab.TryChange(
      [&](runtime::Deadline) {
        return lab.filesystem().Write(fh, 0, FilesystemLab::BytesOf(text), &journal,
                                      runtime::Deadline::Never());
      },
      absl::Milliseconds(500));
  EXPECT_EQ(journal.sends, 1);
  EXPECT_EQ(journal.last, 0u);
  journal.Die();
  lab.share("t1").Find("file")->locks.clear();
  lab.TakeOver();
  EXPECT_EQ(lab.Write(fh, 0, text, &journal), absl::OkStatus());
  EXPECT_EQ(Content(), "0123456789line");
}

// In pieces of 256 KiB: by the server itself, and under a lock.
TEST_F(AppendsTest, WhatFittedOnAFullDiskIsTheShortCount) {
  constexpr size_t kPiece = 256 << 10;
  std::string text(3 * kPiece, ' ');
  for (size_t i = 0; i < text.size(); ++i) text[i] = static_cast<char>('a' + i / 4096 % 26);
  const struct {
    int64_t failing;
    NtStatus status;
    size_t written;
    int error;
  } kCases[] = {{0, NtStatus::kDiskFull, 0, ENOSPC},
                {1, NtStatus::kDiskFull, kPiece, ENOSPC},
                {2, NtStatus::kQuotaExceeded, 2 * kPiece, EDQUOT},
                {1, NtStatus::kInvalidParameter, kPiece, EINVAL}};
  for (const bool server_appends : {true, false}) {
    for (const char* name : {"t1", "t2"}) lab.server(name).options().appends = server_appends;
    for (const bool set_later : {false, true}) {
      for (const auto& test : kCases) {
        SCOPED_TRACE(absl::StrCat(server_appends, set_later, " piece ", test.failing));
        if (!server_appends && test.status == NtStatus::kInvalidParameter) continue;
        lab.share("t1").Find("file")->Resize(0);
        const absl::StatusOr<OpenReply> open =
            lab.Open(lab.Walk("two/file"), set_later ? O_RDWR : O_WRONLY | O_APPEND);
        ASSERT_TRUE(open.ok()) << open.status();
        // What it is that refuses appending is found out with something small.
        EXPECT_EQ(lab.WriteAtEnd(open->fh, "-"), absl::OkStatus());
        lab.server("t1").ClearRules();
        lab.server("t1").AddRule({.command = Command::kWrite,
                                  .skip = test.failing,
                                  .times = 1,
                                  .action = {.status = test.status}});
        size_t written = 1;
        EXPECT_EQ(ErrnoOf(lab.Change([&](runtime::Deadline until) {
                    return lab.filesystem().WriteAtEnd(open->fh, FilesystemLab::BytesOf(text),
                                                       nullptr, until, &written);
                  })),
                  test.error);
        EXPECT_EQ(written, test.written);
        EXPECT_TRUE(Content() == absl::StrCat("-", text.substr(0, test.written)))
            << Content().size();
        EXPECT_TRUE(lab.share("t1").Find("file")->locks.empty());
        // Who goes on with the rest has it all there once.
        EXPECT_EQ(lab.WriteAtEnd(open->fh, text.substr(written)), absl::OkStatus());
        EXPECT_TRUE(Content() == absl::StrCat("-", text)) << Content().size();
        lab.filesystem().Release(open->fh);
      }
    }
  }
}

// The count is for what the server has said: of what was lost on its way nobody knows.
TEST_F(AppendsTest, AnAppendWhoseSecondPieceIsLostHasNoShortCount) {
  for (const char* name : {"t1", "t2"}) lab.server(name).options().appends = true;
  const state::FileHandle fh = OpenToAppend();
  const std::string text(600'000, 'x');
  lab.server("t1").AddRule(
      {.command = Command::kWrite, .skip = 1, .times = 1, .action = kLoseAnswer});
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
