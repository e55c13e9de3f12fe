// A CREATE that asks, in the same frame, what the directory of the name is like after it.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <optional>

#include "absl/strings/str_cat.h"
#include "node-agent/smb/wire/filetime.h"
#include "node-agent/testing/scripted_clients.h"

namespace dfscsi::testing {
namespace {

using runtime::Task;
using smb::Tree;
using smb::wire::Command;
using smb::wire::NtStatus;
using smb::wire::NtStatusOf;

const absl::Time kThen = absl::FromUnixSeconds(1'650'000'000);

class ScriptedLookTest : public ScriptedClientsTest {
 protected:
  ScriptedLookTest() { share_->AddDirectory("dir").last_write = kThen; }

  // Creates `path`, and closes it. nullopt: nothing was seen of its directory.
  std::optional<absl::Time> LookWhileMaking(std::string_view path,
                                            NtStatus expected = NtStatus::kSuccess) {
    std::optional<absl::Time> seen;
    RunOne([&](std::shared_ptr<Tree> tree) -> Task<void> {
      if (expires_) server_.ExpireSessions();
      frames_ = server_.frames();
      const auto opened = co_await tree->Create(Open(path), Soon(), {.looks_at_directory = true});
      frames_ = server_.frames() - frames_;
      EXPECT_EQ(NtStatusOf(opened.status()).value_or(NtStatus::kSuccess), expected)
          << opened.status();
      (void)co_await runtime::Sleep(absl::Seconds(1), runtime::Deadline::Never());
      EXPECT_EQ(server_.opens(), opened.ok() ? 1 : 0) << "the look has left something open";
      if (!opened.ok()) co_return;
      if (opened->directory.has_value()) {
        EXPECT_TRUE(opened->directory->attributes.Has(smb::wire::kAttributeDirectory));
        seen = smb::wire::TimeOfFileTime(opened->directory->attributes.last_write_time);
      }
      // It is the file's, whatever else was opened with it.
      EXPECT_TRUE((co_await tree->Write(opened->file_id, 0, BytesOf("text"), Soon())).ok());
      EXPECT_TRUE((co_await tree->Close(opened->file_id, Soon())).ok());
    });
    return seen;
  }
  // The CREATE, or the CLOSE, of the look is answered with `status`, once.
  void AnswerLook(Command command, NtStatus status) {
    server_.AddRule({.command = command, .path = "dir", .times = 1, .action = {.status = status}});
  }
  bool expires_ = false;  // Before the file is made.
  int64_t frames_ = 0;
};

TEST_F(ScriptedLookTest, ItCostsNoFrame) {
  EXPECT_EQ(LookWhileMaking("dir/new"), kThen);
  EXPECT_EQ(frames_, 1);
  EXPECT_EQ(ContentOf("dir/new"), "text");
}

TEST_F(ScriptedLookTest, WhatLiesInTheSharesRootIsMadeWithoutOne) {
  EXPECT_EQ(LookWhileMaking("new"), std::nullopt);
  EXPECT_EQ(server_.Count(Command::kCreate), 1);
}

TEST_F(ScriptedLookTest, AFileThatCannotBeMadeIsWhatCounts) {
  EXPECT_EQ(LookWhileMaking("none/new", NtStatus::kObjectPathNotFound), std::nullopt);
  server_.AddRule({.command = Command::kCreate,
                   .path = "dir/refused",
                   .action = {.status = NtStatus::kAccessDenied}});
  EXPECT_EQ(LookWhileMaking("dir/refused", NtStatus::kAccessDenied), std::nullopt);
}

TEST_F(ScriptedLookTest, ALookThatFailsIsDoneWithout) {
  for (const NtStatus status :
       {NtStatus::kAccessDenied, NtStatus::kInternalError, NtStatus::kNetworkSessionExpired}) {
    server_.ClearRules();
    AnswerLook(Command::kCreate, status);
    server_.ClearLog();
    EXPECT_EQ(LookWhileMaking("dir/new"), std::nullopt);
    EXPECT_EQ(CountMutations(Command::kCreate), 1);
  }
}

TEST_F(ScriptedLookTest, ASessionThatHasExpiredIsRenewedForTheWholeFrame) {
  expires_ = true;
  EXPECT_EQ(LookWhileMaking("dir/new"), kThen);
  EXPECT_EQ(CountMutations(Command::kCreate), 1);
}

TEST_F(ScriptedLookTest, ASessionThatExpiresBehindTheFileCostsTheLookAlone) {
  server_.set_script([&, done = false](const ScriptedRequest& request) mutable {
    if (!done && request.header.command == Command::kCreate) {
      done = true;
      server_.ExpireSessions();  // Behind this one, which is executed.
    }
    return std::optional<Action>();
  });
  EXPECT_EQ(LookWhileMaking("dir/new"), std::nullopt);
  EXPECT_EQ(CountMutations(Command::kCreate), 1);
}

TEST_F(ScriptedLookTest, ASplitCompoundIsPutTogether) {
  server_.options().splits_compounds = true;
  EXPECT_EQ(LookWhileMaking("dir/new"), kThen);
}

TEST_F(ScriptedLookTest, WhatIsGivenUpIsClosedWithItsDirectoryOnce) {
  const struct {
    Command command;
    const char* path;
  } kSlow[] = {{Command::kCreate, "dir/new"}, {Command::kCreate, "dir"}, {Command::kClose, "dir"}};
  for (const int most_credits : {512, 2}) {  // In one frame, and one by one.
    for (const auto& slow : kSlow) {
      SCOPED_TRACE(absl::StrCat(most_credits, " credits, slow: ", slow.path, " ", slow.command));
      server_.options().most_credits = most_credits;
      server_.ClearRules();
      server_.AddRule({.command = slow.command,
                       .path = slow.path,
                       .times = 1,
                       .action = {.delay = absl::Seconds(1)}});
      const int before = CountMutations(Command::kCreate);
      RunOne([&](std::shared_ptr<Tree> tree) -> Task<void> {
        const auto opened = co_await tree->Create(Open("dir/new"),
                                                  runtime::Deadline::After(absl::Milliseconds(200)),
                                                  {.looks_at_directory = true});
        EXPECT_TRUE(absl::IsDeadlineExceeded(opened.status())) << opened.status();
        (void)co_await runtime::Sleep(absl::Seconds(2), runtime::Deadline::Never());
        EXPECT_EQ(CountMutations(Command::kCreate) - before, 1) << "it was not made at all";
        EXPECT_EQ(server_.opens(), 0);
        EXPECT_EQ(server_.Count(Command::kClose), server_.Count(Command::kCreate));
      });
      server_.ClearLog();
      share_->Remove("dir/new");
    }
  }
}

TEST_F(ScriptedLookTest, ALookThatFailsInAFrameOfItsOwnLeavesTheFileOpen) {
  server_.options().most_credits = 2;
  AnswerLook(Command::kCreate, NtStatus::kAccessDenied);
  EXPECT_EQ(LookWhileMaking("dir/new"), std::nullopt);
  EXPECT_GT(frames_, 1);
  EXPECT_EQ(ContentOf("dir/new"), "text");
}

}  // namespace
}  // namespace dfscsi::testing
