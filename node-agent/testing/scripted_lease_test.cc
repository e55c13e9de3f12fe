// What outlives a request, between the client and the scripted server: leases and durable handles
// of two clients, and answers that nobody waits for.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "node-agent/testing/scripted_clients.h"

namespace dfscsi::testing {
namespace {

using runtime::Deadline;
using runtime::Task;
using smb::Tree;
using smb::wire::Command;
using smb::wire::Disposition;
using smb::wire::FileId;
using smb::wire::kLeaseRead;
using smb::wire::NtStatus;
using smb::wire::NtStatusOf;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

class ScriptedLeaseTest : public ScriptedClientsTest {};

// --- Answers that nobody waits for

TEST_F(ScriptedLeaseTest, ACreateThatNobodyWaitsForIsClosedWhenItsAnswerComes) {
  share_->AddText("file", "text");
  for (const bool destroyed : {false, true}) {
    RunOne([&](std::shared_ptr<Tree> tree) -> Task<void> {
      server_.AddRule(
          {.command = Command::kCreate, .times = 1, .action = {.delay = absl::Seconds(2)}});
      if (destroyed) {  // Its caller, not out of time.
        struct Opener {
          static Task<void> Run(std::shared_ptr<Tree> tree) {
            (void)co_await tree->Create(Open("file"), Soon());
            ADD_FAILURE() << "it should be destroyed";
          }
        };
        {
          runtime::TaskGroup tasks;
          tasks.Spawn(Opener::Run(tree));
          EXPECT_TRUE((co_await runtime::Sleep(absl::Seconds(1), Soon())).ok());
        }
      } else {
        const auto opened = co_await tree->Create(Open("file"), Deadline::After(absl::Seconds(1)));
        EXPECT_TRUE(absl::IsDeadlineExceeded(opened.status())) << opened.status();
      }
      EXPECT_EQ(server_.opens(), 1);
      EXPECT_TRUE((co_await runtime::Sleep(absl::Seconds(2), Soon())).ok());
      EXPECT_EQ(server_.opens(), 0);
      EXPECT_TRUE(tree->usable());
      server_.ClearRules();
    });
  }
}

TEST_F(ScriptedLeaseTest, ADirectoryThatNobodyWaitsForIsClosedWhenItsAnswerComes) {
  share_->AddText("dir/file", "text");
  for (const int most_credits : {512, 1}) {  // One frame, or one for each part.
    server_.options().most_credits = most_credits;
    RunOne([&](std::shared_ptr<Tree> tree) -> Task<void> {
      server_.AddRule({.command = Command::kQueryDirectory, .action = {.delay = absl::Seconds(2)}});
      const auto opened = co_await tree->OpenDirectory(u"dir", Deadline::After(absl::Seconds(1)));
      EXPECT_TRUE(absl::IsDeadlineExceeded(opened.status())) << opened.status();
      EXPECT_EQ(server_.opens(), 1);
      EXPECT_TRUE((co_await runtime::Sleep(absl::Seconds(5), Soon())).ok());
      EXPECT_EQ(server_.opens(), 0);
      server_.ClearRules();
    });
  }
}

TEST_F(ScriptedLeaseTest, ACompoundThatClosesItselfIsNotClosedAgain) {
  share_->AddText("file", "text");
  RunOne([&](std::shared_ptr<Tree> tree) -> Task<void> {
    server_.AddRule(
        {.command = Command::kCreate, .times = 1, .action = {.delay = absl::Seconds(2)}});
    EXPECT_FALSE((co_await tree->Stat(u"file", Deadline::After(absl::Seconds(1)))).ok());
    EXPECT_TRUE((co_await runtime::Sleep(absl::Seconds(5), Soon())).ok());
    EXPECT_EQ(server_.Count(Command::kClose), 1);
    EXPECT_EQ(server_.opens(), 0);
  });
}

TEST_F(ScriptedLeaseTest, ACreateThatIsCancelledWhileItIsPendingLeavesNoOpen) {
  share_->AddText("dir/file", "text");
  RunOne([&](std::shared_ptr<Tree> tree) -> Task<void> {
    for (const bool directory : {false, true}) {
      server_.AddRule(
          {.command = Command::kCreate, .action = {.delay = absl::Seconds(5), .pending = true}});
      const Deadline soon = Deadline::After(absl::Seconds(1));
      if (directory) {
        EXPECT_FALSE((co_await tree->OpenDirectory(u"dir", soon)).ok());
      } else {
        EXPECT_FALSE((co_await tree->Create(Open("dir/file"), soon)).ok());
      }
      EXPECT_TRUE((co_await runtime::Sleep(absl::Seconds(1), Soon())).ok());
      EXPECT_EQ(server_.Count(Command::kCancel), directory ? 2 : 1);
      EXPECT_EQ(server_.opens(), 0) << directory;
      EXPECT_TRUE(tree->usable());
      server_.ClearRules();
    }
  });
}

TEST_F(ScriptedLeaseTest, ASessionThatExpiresWithinACompoundLeavesNoSecondOpen) {
  share_->AddText("dir/file", "text");
  for (const int most_credits : {512, 1}) {  // One frame, or one for each part.
    server_.options().most_credits = most_credits;
    RunOne([&](std::shared_ptr<Tree> tree) -> Task<void> {
      bool expired = false;
      server_.set_script([&](const ScriptedRequest& request) -> std::optional<Action> {
        if (request.header.command == Command::kCreate && !std::exchange(expired, true)) {
          server_.ExpireSessions();  // Behind this one, which is executed.
        }
        return std::nullopt;
      });
      const auto opened = co_await tree->OpenDirectory(u"dir", Soon());
      EXPECT_TRUE(opened.ok()) << opened.status();
      EXPECT_TRUE((co_await runtime::Sleep(absl::Seconds(1), Soon())).ok());
      EXPECT_EQ(server_.opens(), 1) << most_credits;
      if (opened.ok()) EXPECT_TRUE((co_await tree->Close(opened->file_id, Soon())).ok());
      EXPECT_EQ(server_.opens(), 0);
      server_.set_script(nullptr);
    });
  }
}

TEST_F(ScriptedLeaseTest, CancelledRequestsGiveTheirCreditsBack) {
  share_->AddFile("file", 1 << 20);
  server_.options().most_credits = 40;
  RunOne([&](std::shared_ptr<Tree> tree) -> Task<void> {
    const FileId id = co_await MustOpen(tree, Open("file"));
    const int before = tree->session().connection().largest_charge();
    for (const bool pending : {true, false}) {
      server_.AddRule(
          {.command = Command::kRead, .action = {.delay = absl::Seconds(2), .pending = pending}});
      for (int i = 0; i < 20; ++i) {
        std::vector<uint8_t> into(1 << 20);
        const auto n = co_await tree->Read(id, 0, absl::MakeSpan(into),
                                           Deadline::After(absl::Milliseconds(100)));
        EXPECT_FALSE(n.ok());
      }
      server_.ClearRules();
      EXPECT_TRUE((co_await runtime::Sleep(absl::Seconds(5), Soon())).ok());
      EXPECT_EQ(tree->session().connection().largest_charge(), before);
    }
    std::vector<uint8_t> into(1 << 20);
    const auto n = co_await tree->Read(id, 0, absl::MakeSpan(into), Soon());
    EXPECT_TRUE(n.ok()) << n.status();
  });
}

// --- Leases

TEST_F(ScriptedLeaseTest, AnotherClientsOpenTakesTheWriteLease) {
  share_->AddText("file", "old");
  Run([&](Client& one, Client& two) -> Task<void> {
    const auto first = co_await one.Connect();
    const auto second = co_await two.Connect();
    const auto observer = std::make_shared<Observer>(first);
    const auto mine =
        co_await first->Create(OpenWithLease("file", 1), Soon(), {.observer = observer});
    EXPECT_TRUE(mine.ok()) << mine.status();
    if (!mine.ok()) co_return;
    EXPECT_EQ(mine->response.lease->state, kRwh);
    // What lies unwritten is written before the other's open is answered.
    observer->before = [&]() -> Task<void> {
      EXPECT_TRUE((co_await first->Write(mine->file_id, 0, BytesOf("new"), Soon())).ok());
    };
    const FileId theirs = co_await MustOpen(second, Open("file"));
    std::vector<uint8_t> into(3);
    const auto n = co_await second->Read(theirs, 0, absl::MakeSpan(into), Soon());
    EXPECT_TRUE(n.ok()) << n.status();
    EXPECT_EQ(TextOf(into), "new");
    EXPECT_EQ(observer->acknowledged, absl::OkStatus());
    EXPECT_THAT(observer->breaks, ElementsAre(smb::LeaseBreak{{1}, kRwh, kRh, true}));
    EXPECT_EQ(first->session().leases().StateOf({1}), kRh);
    // Their write takes the rest.
    EXPECT_TRUE((co_await second->Write(theirs, 0, BytesOf("x"), Soon())).ok());
    EXPECT_TRUE((co_await runtime::Sleep(absl::Seconds(1), Soon())).ok());
    EXPECT_THAT(observer->breaks, SizeIs(2));
    EXPECT_EQ(first->session().leases().StateOf({1}), 0u);
    EXPECT_THAT(server_.leases("data", "file"), ElementsAre(0));
  });
}

TEST_F(ScriptedLeaseTest, OneLeaseForAllHandlesOfItsKey) {
  share_->AddText("file", "old");
  RunOne([&](std::shared_ptr<Tree> tree) -> Task<void> {
    const auto observer = std::make_shared<Observer>(tree);
    for (int i = 0; i < 3; ++i) {
      const auto opened =
          co_await tree->Create(OpenWithLease("file", 1), Soon(), {.observer = observer});
      EXPECT_TRUE(opened.ok());
      if (opened.ok()) EXPECT_EQ(opened->response.lease->state, kRwh);
    }
    EXPECT_THAT(observer->breaks, IsEmpty());
    EXPECT_THAT(server_.leases("data", "file"), ElementsAre(kRwh));
  });
}

// With as few credits as there are, and every one of them used by CREATEs that wait for this very
// acknowledgment.
TEST_F(ScriptedLeaseTest, AnAcknowledgmentWaitsNotBehindOurOwnCreates) {
  for (const int credits : {1, 3, 16, 512}) {
    share_->AddText("file", "old");
    server_.options().most_credits = credits;
    Run([&](Client& one, Client&) -> Task<void> {
      const auto tree = co_await one.Connect();
      const auto observer = std::make_shared<Observer>(tree);
      const auto mine =
          co_await tree->Create(OpenWithLease("file", 1), Soon(), {.observer = observer});
      EXPECT_TRUE(mine.ok()) << mine.status();
      const absl::Time begun = lab_.world().now();
      runtime::TaskGroup tasks;
      struct Opener {
        static Task<void> Run(std::shared_ptr<Tree> tree) {
          (void)co_await MustOpen(tree, Open("file"));
        }
      };
      for (int i = 0; i < 20; ++i) tasks.Spawn(Opener::Run(tree));
      EXPECT_TRUE((co_await tasks.WaitUntilEmpty(Soon())).ok());
      EXPECT_LT(lab_.world().now() - begun, absl::Seconds(5)) << credits;
      EXPECT_EQ(observer->acknowledged, absl::OkStatus());
    });
  }
}

TEST_F(ScriptedLeaseTest, ALeaseThatNobodyObservesIsGivenBackAtOnce) {
  share_->AddText("file", "old");
  Run([&](Client& one, Client& two) -> Task<void> {
    const auto first = co_await one.Connect();
    const auto second = co_await two.Connect();
    EXPECT_TRUE((co_await first->Create(OpenWithLease("file", 1), Soon())).ok());
    const absl::Time begun = lab_.world().now();
    (void)co_await MustOpen(second, Open("file"));
    EXPECT_LT(lab_.world().now() - begun, absl::Seconds(1));
  });
}

TEST_F(ScriptedLeaseTest, AClientThatAcknowledgesNothingLosesItsLease) {
  share_->AddText("file", "old");
  Run([&](Client& one, Client& two) -> Task<void> {
    const auto first = co_await one.Connect();
    const auto second = co_await two.Connect();
    const auto observer = std::make_shared<Observer>(first);
    observer->acknowledges = false;
    EXPECT_TRUE(
        (co_await first->Create(OpenWithLease("file", 1), Soon(), {.observer = observer})).ok());
    const absl::Time begun = lab_.world().now();
    (void)co_await MustOpen(second, Open("file"));
    EXPECT_GE(lab_.world().now() - begun, absl::Seconds(35));
    EXPECT_LT(lab_.world().now() - begun, absl::Seconds(40));
    EXPECT_EQ(NtStatusOf(co_await first->session().AcknowledgeLease({1}, kRh, Soon())),
              NtStatus::kUnsuccessful);
  });
}

TEST_F(ScriptedLeaseTest, AStormOfBreaks) {
  for (int i = 0; i < 50; ++i) share_->AddText(absl::StrCat("f", i), "x");
  RunOne([&](std::shared_ptr<Tree> tree) -> Task<void> {
    const auto observer = std::make_shared<Observer>(tree);
    for (int i = 0; i < 50; ++i) {
      EXPECT_TRUE(
          (co_await tree->Create(OpenWithLease(absl::StrCat("f", i), static_cast<uint8_t>(i + 1)),
                                 Soon(), {.observer = observer}))
              .ok());
    }
    for (const uint32_t to : {kRh, uint32_t{kLeaseRead}, 0u}) {
      for (int i = 0; i < 50; ++i) server_.BreakLeases("data", absl::StrCat("f", i), to);
      EXPECT_TRUE((co_await runtime::Sleep(absl::Seconds(1), Soon())).ok());
    }
    EXPECT_THAT(observer->breaks, SizeIs(150));
    for (int i = 0; i < 50; ++i) {
      EXPECT_THAT(server_.leases("data", absl::StrCat("f", i)), ElementsAre(0u));
      EXPECT_EQ(tree->session().leases().StateOf({static_cast<uint8_t>(i + 1)}), 0u);
    }
  });
}

TEST_F(ScriptedLeaseTest, ACreateThatFailsOrIsGivenUpLeavesNoLease) {
  share_->AddText("denied", "x").denied = true;
  share_->AddText("slow", "x");
  server_.AddRule({.command = Command::kCreate, .path = "slow", .action = {.drop = true}});
  RunOne([&](std::shared_ptr<Tree> tree) -> Task<void> {
    EXPECT_EQ(NtStatusOf((co_await tree->Create(OpenWithLease("denied", 1), Soon())).status()),
              NtStatus::kAccessDenied);
    const auto slow =
        co_await tree->Create(OpenWithLease("slow", 2), Deadline::After(absl::Milliseconds(100)));
    EXPECT_TRUE(absl::IsDeadlineExceeded(slow.status())) << slow.status();
    EXPECT_EQ(tree->session().leases().size(), 0u);
  });
}

TEST_F(ScriptedLeaseTest, WithoutLeasesNothingIsGranted) {
  server_.options().leases = false;
  RunOne([&](std::shared_ptr<Tree> tree) -> Task<void> {
    const auto opened = co_await tree->Create(OpenWithLease("file", 1), Soon());
    EXPECT_TRUE(opened.ok()) << opened.status();
    if (opened.ok()) EXPECT_FALSE(opened->response.lease.has_value());
    EXPECT_EQ(tree->session().leases().size(), 0u);
  });
}

// --- Durable handles

smb::wire::CreateRequest Durable(std::string_view path, uint8_t key) {
  smb::wire::CreateRequest create = OpenWithLease(path, key);
  create.durable = smb::wire::DurableRequest{.create_guid = {key, 0xD}};
  return create;
}

TEST_F(ScriptedLeaseTest, ADurableHandleOutlivesItsConnection) {
  Run([&](Client& one, Client& two) -> Task<void> {
    auto tree = co_await one.Connect();
    const smb::wire::CreateRequest create = Durable("file", 1);
    const auto opened = co_await tree->Create(create, Soon());
    EXPECT_TRUE(opened.ok()) << opened.status();
    if (!opened.ok()) co_return;
    EXPECT_TRUE(opened->response.durable.has_value());
    EXPECT_TRUE((co_await tree->Write(opened->file_id, 0, BytesOf("one"), Soon())).ok());
    EXPECT_TRUE((co_await tree->Lock(opened->file_id, {Exclusive(0, 3)},
                                     smb::wire::LockSequence(1, 1), Soon()))
                    .ok());
    server_.CloseConnections(Closing::kReset);
    EXPECT_TRUE((co_await runtime::Sleep(absl::Seconds(10), Soon())).ok());
    EXPECT_EQ(server_.durable_opens(), 1);
    tree = co_await one.Connect();
    const auto again = co_await tree->Reconnect(create, opened->file_id, Soon());
    EXPECT_TRUE(again.ok()) << again.status();
    if (!again.ok() || !again->has_value()) {
      ADD_FAILURE() << "gone";
      co_return;
    }
    EXPECT_EQ((*again)->file_id.persistent_id, opened->file_id.persistent_id);
    EXPECT_NE((*again)->file_id.volatile_id, opened->file_id.volatile_id);
    EXPECT_EQ((*again)->response.lease->state, kRwh);
    EXPECT_EQ(server_.locks("data", "file"), 1);
    // Whether the lock was taken is unknown: asked again, it is not taken twice.
    EXPECT_TRUE((co_await tree->Lock((*again)->file_id, {Exclusive(0, 3)},
                                     smb::wire::LockSequence(1, 1), Soon()))
                    .ok());
    EXPECT_EQ(server_.locks("data", "file"), 1);
    EXPECT_TRUE((co_await tree->Write((*again)->file_id, 3, BytesOf("two"), Soon())).ok());
    EXPECT_EQ(ContentOf("file"), "onetwo");
    EXPECT_EQ(server_.mutations().back().client, smb::wire::Guid{1});
    // Of the session's second life.
    EXPECT_EQ(server_.log().back().header.channel_sequence, 1);
    EXPECT_TRUE((co_await tree->Close((*again)->file_id, Soon())).ok());
    EXPECT_EQ(server_.opens(), 0);
  });
}

TEST_F(ScriptedLeaseTest, ADurableHandleThatIsGone) {
  enum class Why { kTime, kRestart, kAnotherWriter, kWrongGuid, kWrongClient };
  for (const Why why :
       {Why::kTime, Why::kRestart, Why::kAnotherWriter, Why::kWrongGuid, Why::kWrongClient}) {
    Run([&](Client& one, Client& two) -> Task<void> {
      auto tree = co_await one.Connect();
      smb::wire::CreateRequest create = Durable("file", 1);
      const auto opened = co_await tree->Create(create, Soon());
      EXPECT_TRUE(opened.ok()) << opened.status();
      server_.CloseConnections(Closing::kReset);
      EXPECT_TRUE((co_await runtime::Sleep(absl::Seconds(1), Soon())).ok());
      if (why == Why::kTime) {
        EXPECT_TRUE((co_await runtime::Sleep(absl::Seconds(60), Deadline::Never())).ok());
      } else if (why == Why::kRestart) {
        lab_.Start("t1");
      } else if (why == Why::kAnotherWriter) {
        const FileId id = co_await MustOpen(co_await two.Connect(), Open("file"));
        EXPECT_NE(id, FileId{});
      } else if (why == Why::kWrongGuid) {
        create.durable->create_guid[5] ^= 1;
      }
      tree = co_await (why == Why::kWrongClient ? two : one).Connect();
      const auto again = co_await tree->Reconnect(create, opened->file_id, Soon());
      EXPECT_TRUE(again.ok()) << again.status();
      if (again.ok()) EXPECT_FALSE(again->has_value()) << static_cast<int>(why);
    });
    lab_.world().RunFor(absl::Minutes(2));
  }
}

TEST_F(ScriptedLeaseTest, APersistentHandleOutlivesTheServersProcess) {
  share_->persistent_handles = true;
  Run([&](Client& one, Client&) -> Task<void> {
    auto tree = co_await one.Connect();
    EXPECT_TRUE(tree->continuously_available());
    const smb::wire::CreateRequest create = Durable("file", 1);
    const auto opened = co_await tree->Create(create, Soon());
    EXPECT_TRUE(opened.ok()) << opened.status();
    if (!opened.ok()) co_return;
    EXPECT_EQ(opened->response.durable->flags, smb::wire::kDurablePersistent);
    lab_.Start("t1");
    EXPECT_TRUE((co_await runtime::Sleep(absl::Seconds(1), Soon())).ok());
    tree = co_await one.Connect();
    const auto again = co_await tree->Reconnect(create, opened->file_id, Soon());
    EXPECT_TRUE(again.ok() && again->has_value()) << again.status();
  });
}

TEST_F(ScriptedLeaseTest, ACreateThatIsReplayedIsExecutedOnce) {
  RunOne([&](std::shared_ptr<Tree> tree) -> Task<void> {
    smb::wire::CreateRequest create = Durable("file", 1);
    create.disposition = Disposition::kCreate;
    const auto first = co_await tree->Create(create, Soon());
    const auto replayed = co_await tree->Create(create, Soon(), {.replay = true});
    EXPECT_TRUE(first.ok() && replayed.ok()) << replayed.status();
    if (!first.ok() || !replayed.ok()) co_return;
    EXPECT_EQ(replayed->file_id, first->file_id);
    EXPECT_EQ(NtStatusOf((co_await tree->Create(create, Soon())).status()),
              NtStatus::kDuplicateObjectId);
  });
  EXPECT_EQ(CountMutations(Command::kCreate), 1);
}

TEST_F(ScriptedLeaseTest, AWriteWhoseAnswerWasLostIsKnownToTheOracle) {
  Run([&](Client& one, Client&) -> Task<void> {
    auto tree = co_await one.Connect();
    const FileId id = co_await MustOpen(tree, Open("file"));
    server_.AddRule({.command = Command::kWrite,
                     .times = 1,
                     .action = {.drop = true, .close = Closing::kReset}});
    const absl::Status lost = co_await tree->Write(id, 0, BytesOf("text"), Soon());
    EXPECT_TRUE(absl::IsAborted(lost)) << lost;
    tree = co_await one.Connect();
    const FileId again = co_await MustOpen(tree, Open("file"));
    EXPECT_TRUE((co_await tree->Write(again, 0, BytesOf("text"), Soon(), {.replay = true})).ok());
  });
  std::vector<const ScriptedMutation*> writes;
  for (const ScriptedMutation& mutation : server_.mutations()) {
    if (mutation.command == Command::kWrite) writes.push_back(&mutation);
  }
  ASSERT_THAT(writes, SizeIs(2));  // Executed twice, which the oracle can tell.
  EXPECT_EQ(writes[0]->content_hash, writes[1]->content_hash);
  EXPECT_NE(writes[0]->session_id, writes[1]->session_id);
  EXPECT_FALSE(writes[0]->replay);
  EXPECT_TRUE(writes[1]->replay);
}

TEST_F(ScriptedLeaseTest, WhatIsToBeDeletedOnCloseIsGoneWithItsSession) {
  share_->AddText("file", "text");
  RunOne([&](std::shared_ptr<Tree> tree) -> Task<void> {
    smb::wire::CreateRequest create = Open("file");
    create.options |= smb::wire::kOptionDeleteOnClose;
    (void)co_await MustOpen(tree, create);
    EXPECT_NE(share_->Find("file"), nullptr);
  });
  EXPECT_EQ(share_->Find("file"), nullptr);
}

}  // namespace
}  // namespace dfscsi::testing
