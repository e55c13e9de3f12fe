// Appending under a lock: two clients of a server that does not append by itself.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "node-agent/testing/scripted_clients.h"

namespace dfscsi::testing {
namespace {

using runtime::Task;
using smb::Tree;
using smb::wire::Command;
using smb::wire::Disposition;
using smb::wire::FileId;
using smb::wire::NtStatus;
using smb::wire::NtStatusOf;

class ScriptedAppendTest : public ScriptedClientsTest {
 public:
  ScriptedAppendTest() {
    server_.options().appends = false;
    share_->AddText("log", "old\n");
  }
  Task<FileId> OpenLog(std::shared_ptr<Tree> tree) {
    co_return co_await MustOpen(
        tree, Open("log", Disposition::kOpen,
                   smb::wire::kAccessAppendData | smb::wire::kAccessReadAttributes));
  }
  static Task<absl::Status> Append(std::shared_ptr<Tree> tree, FileId id, std::string text,
                                   runtime::Deadline deadline = Soon()) {
    co_return (co_await tree->AppendLocked(id, BytesOf(text), [](uint64_t) {}, deadline)).status();
  }
  bool IsLocked() { return !share_->Find("log")->locks.empty(); }
};

TEST_F(ScriptedAppendTest, ItCostsTwoFrames) {
  RunOne([&](std::shared_ptr<Tree> tree) -> Task<void> {
    const FileId id = co_await OpenLog(tree);
    for (const size_t size : {1, 7, 65536}) {
      const int64_t before = server_.frames();
      const uint64_t end = share_->Find("log")->size;
      uint64_t told = 0;
      const std::string text(size, 'x');
      const absl::StatusOr<uint64_t> at = co_await tree->AppendLocked(
          id, BytesOf(text), [&](uint64_t offset) { told = offset; }, Soon());
      EXPECT_EQ(at.value_or(0), end) << at.status();
      EXPECT_EQ(told, end);
      EXPECT_EQ(server_.frames() - before, 2);
      EXPECT_FALSE(IsLocked());
    }
  });
  EXPECT_EQ(ContentOf("log"), "old\n" + std::string(65544, 'x'));
}

TEST_F(ScriptedAppendTest, TwoClientsLoseNothingAndTearNothing) {
  constexpr int kLines = 100;
  struct Writer {
    static Task<void> Run(ScriptedAppendTest* test, std::shared_ptr<Tree> tree, char name) {
      const FileId id = co_await test->OpenLog(tree);
      for (int i = 0; i < kLines; ++i) {
        const std::string line = absl::StrCat(std::string(1 + i % 50, name), " ", i, "\n");
        EXPECT_EQ(co_await Append(tree, id, line), absl::OkStatus());
      }
    }
  };
  Run([&](Client& one, Client& two) -> Task<void> {
    runtime::TaskGroup tasks;
    tasks.Spawn(Writer::Run(this, co_await one.Connect(), 'a'));
    tasks.Spawn(Writer::Run(this, co_await two.Connect(), 'b'));
    EXPECT_TRUE((co_await tasks.WaitUntilEmpty(Soon())).ok());
  });
  std::multiset<std::string> expected = {"old", ""};
  for (int i = 0; i < kLines; ++i) {
    for (const char name : {'a', 'b'}) {
      expected.insert(absl::StrCat(std::string(1 + i % 50, name), " ", i));
    }
  }
  const std::vector<std::string> lines = absl::StrSplit(ContentOf("log"), '\n');
  EXPECT_EQ(std::multiset<std::string>(lines.begin(), lines.end()), expected);
}

TEST_F(ScriptedAppendTest, OneThatWaitsAndIsGivenUpHoldsNobodyUp) {
  Run([&](Client& one, Client& two) -> Task<void> {
    const std::shared_ptr<Tree> first = co_await one.Connect();
    const std::shared_ptr<Tree> second = co_await two.Connect();
    const FileId holding = co_await OpenLog(first);
    const FileId waiting = co_await OpenLog(second);
    EXPECT_TRUE((co_await first->Lock(holding, {Exclusive(uint64_t{1} << 63, 1)}, 0, Soon())).ok());
    const absl::Status status =
        co_await Append(second, waiting, "x", runtime::Deadline::After(absl::Seconds(1)));
    EXPECT_TRUE(absl::IsDeadlineExceeded(status)) << status;
    EXPECT_TRUE((co_await first->Unlock(holding, {{uint64_t{1} << 63, 1}}, 0, Soon())).ok());
    EXPECT_EQ(co_await Append(first, holding, "first\n"), absl::OkStatus());
    EXPECT_EQ(co_await Append(second, waiting, "second\n"), absl::OkStatus());
  });
  EXPECT_EQ(ContentOf("log"), "old\nfirst\nsecond\n");
}

TEST_F(ScriptedAppendTest, ServersThatLetNoLockWaitAreAskedAgain) {
  Run([&](Client& one, Client& two) -> Task<void> {
    const std::shared_ptr<Tree> first = co_await one.Connect();
    const std::shared_ptr<Tree> second = co_await two.Connect();
    const FileId holding = co_await OpenLog(first);
    const FileId waiting = co_await OpenLog(second);
    server_.AddRule(
        {.command = Command::kLock, .times = 4, .action = {.status = NtStatus::kLockNotGranted}});
    EXPECT_EQ(co_await Append(second, waiting, "second\n"), absl::OkStatus());
    EXPECT_EQ(co_await Append(first, holding, "first\n"), absl::OkStatus());
  });
  EXPECT_EQ(ContentOf("log"), "old\nsecond\nfirst\n");
}

TEST_F(ScriptedAppendTest, ALargeOneIsOnePiece) {
  options_.max_write_bytes = 100'000;
  const std::string large(300'001, 'L');
  Run([&](Client& one, Client& two) -> Task<void> {
    const std::shared_ptr<Tree> first = co_await one.Connect();
    const std::shared_ptr<Tree> second = co_await two.Connect();
    const FileId a = co_await OpenLog(first);
    const FileId b = co_await OpenLog(second);
    struct Run {
      static Task<void> It(std::shared_ptr<Tree> tree, FileId id, std::string text) {
        EXPECT_EQ(co_await Append(tree, id, text), absl::OkStatus());
      }
    };
    runtime::TaskGroup tasks;
    tasks.Spawn(Run::It(first, a, large));
    tasks.Spawn(Run::It(second, b, "small"));
    EXPECT_TRUE((co_await tasks.WaitUntilEmpty(Soon())).ok());
  });
  const std::string found = ContentOf("log");
  EXPECT_TRUE(found == "old\n" + large + "small" || found == "old\nsmall" + large) << found.size();
  EXPECT_FALSE(IsLocked());
}

TEST_F(ScriptedAppendTest, ALargeOneThatIsGivenUpIsExecutedWholeAndLeavesNoLock) {
  options_.max_write_bytes = 100'000;
  server_.AddRule({.command = Command::kWrite, .times = 1, .action = {.delay = absl::Seconds(4)}});
  const std::string large(300'001, 'L');
  RunOne([&](std::shared_ptr<Tree> tree) -> Task<void> {
    const FileId id = co_await OpenLog(tree);
    const absl::Status status =
        co_await Append(tree, id, large, runtime::Deadline::After(absl::Seconds(1)));
    EXPECT_TRUE(absl::IsDeadlineExceeded(status)) << status;
    // By the same handle: it is not closed.
    EXPECT_EQ(co_await Append(tree, id, "x"), absl::OkStatus());
  });
  EXPECT_EQ(ContentOf("log"), "old\n" + large + "x");
  EXPECT_FALSE(IsLocked());
}

TEST_F(ScriptedAppendTest, AShortWriteIsGoneOnWithIfNobodyCameBetween) {
  server_.options().most_written_bytes = 3;
  RunOne([&](std::shared_ptr<Tree> tree) -> Task<void> {
    const FileId id = co_await OpenLog(tree);
    EXPECT_EQ(co_await Append(tree, id, "0123456789"), absl::OkStatus());
    EXPECT_EQ(ContentOf("log"), "old\n0123456789");
    bool first = true;
    server_.set_script([&](const ScriptedRequest& request) -> std::optional<Action> {
      if (request.header.command == Command::kQueryInfo && !std::exchange(first, false)) {
        const std::string other = "other";
        share_->Find("log")->Write(share_->Find("log")->size, BytesOf(other));
      }
      return std::nullopt;
    });
    size_t written = 0;
    const absl::StatusOr<uint64_t> at =
        co_await tree->AppendLocked(id, BytesOf("abcdef"), [](uint64_t) {}, Soon(), &written);
    EXPECT_TRUE(absl::IsUnknown(at.status())) << at.status();
    EXPECT_EQ(written, 3u);
    EXPECT_FALSE(IsLocked());
  });
  EXPECT_EQ(ContentOf("log"), "old\n0123456789abcother");
}

TEST_F(ScriptedAppendTest, WhatTheServerRefusesLeavesNoLock) {
  const struct {
    Command command;
    NtStatus status;
    int skip;
  } kCases[] = {{Command::kWrite, NtStatus::kDiskFull, 0},
                {Command::kQueryInfo, NtStatus::kAccessDenied, 0},
                {Command::kLock, NtStatus::kInsufficientResources, 1}};
  for (const auto& test : kCases) {
    server_.ClearRules();
    server_.AddRule({.command = test.command,
                     .skip = test.skip,
                     .times = 1,
                     .action = {.status = test.status}});
    RunOne([&](std::shared_ptr<Tree> tree) -> Task<void> {
      const FileId id = co_await OpenLog(tree);
      const absl::Status status = co_await Append(tree, id, "x");
      // An unlock that was refused does not undo what was written.
      EXPECT_EQ(status.ok(), test.command == Command::kLock) << status;
      if (!status.ok()) EXPECT_EQ(NtStatusOf(status), test.status);
      EXPECT_EQ(co_await Append(tree, id, "y"), absl::OkStatus());
      EXPECT_FALSE(IsLocked());
    });
  }
}

TEST_F(ScriptedAppendTest, AServerWithoutLocksIsToldApart) {
  server_.AddRule({.command = Command::kLock, .action = {.status = NtStatus::kNotSupported}});
  RunOne([&](std::shared_ptr<Tree> tree) -> Task<void> {
    const FileId id = co_await OpenLog(tree);
    EXPECT_TRUE(absl::IsUnimplemented(co_await Append(tree, id, "x")));
  });
  EXPECT_EQ(ContentOf("log"), "old\n");
}

TEST_F(ScriptedAppendTest, GivenUpBetweenTheLockAndTheEndItLeavesNoLock) {
  for (const int most_credits : {512, 1}) {  // In one frame, and one by one.
    server_.options().most_credits = most_credits;
    server_.ClearRules();
    server_.AddRule(
        {.command = Command::kQueryInfo, .times = 1, .action = {.delay = absl::Seconds(2)}});
    RunOne([&](std::shared_ptr<Tree> tree) -> Task<void> {
      const FileId id = co_await OpenLog(tree);
      const absl::Status status =
          co_await Append(tree, id, "x", runtime::Deadline::After(absl::Seconds(1)));
      EXPECT_TRUE(absl::IsDeadlineExceeded(status)) << status;
      (void)co_await runtime::Sleep(absl::Seconds(2), runtime::Deadline::Never());
      EXPECT_FALSE(IsLocked()) << most_credits;
    });
  }
  EXPECT_EQ(ContentOf("log"), "old\n");
}

TEST_F(ScriptedAppendTest, AServerThatGrantsFewCreditsIsAskedOneByOne) {
  server_.options().most_credits = 1;
  RunOne([&](std::shared_ptr<Tree> tree) -> Task<void> {
    const FileId id = co_await OpenLog(tree);
    EXPECT_EQ(co_await Append(tree, id, "x"), absl::OkStatus());
    EXPECT_FALSE(IsLocked());
    EXPECT_EQ(co_await Append(tree, id, "y"), absl::OkStatus());
    EXPECT_FALSE(IsLocked());
  });
  EXPECT_EQ(ContentOf("log"), "old\nxy");
}

}  // namespace
}  // namespace dfscsi::testing
