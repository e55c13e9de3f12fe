// Failing over: which target operations run on while targets die, hang and come back.

#include "node-agent/dfs/client.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "node-agent/dfs/client_test_lab.h"

namespace dfscsi::dfs {
namespace {

using smb::wire::Command;
using smb::wire::NtStatus;
using ::testing::AnyOf;
using testing::Closing;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::StartsWith;

constexpr char kWho[] = "//root1/dfs/link/who";

TEST(ClientTest, A10_TheFirstOperationBindsTheLinkAndTheNextOnesFindItBound) {
  ClientLab lab;
  EXPECT_EQ(lab.Where(kWho), "t1");
  const int64_t referrals = lab.counters().referral_requests;
  const int64_t frames = lab.servers().server("root1").frames();
  const CallPtr again = lab.Do(kWho);
  EXPECT_EQ(again->Outcome(), "t1");
  EXPECT_EQ(again->epoch, lab.client().GetEpoch(*DfsPath::Parse(kWho)));
  EXPECT_EQ(lab.counters().referral_requests, referrals);  // E01
  EXPECT_EQ(lab.servers().server("root1").frames(), frames);
  EXPECT_EQ(lab.Connects("t2"), 0);
  EXPECT_THAT(lab.servers().Violations(), IsEmpty());
}

TEST(ClientTest, C01_AResetTargetIsLeftAtOnceAndTheNextOneIsTheHint) {
  ClientLab lab;
  ASSERT_EQ(lab.Where(kWho), "t1");
  const uint64_t before = lab.client().GetEpoch(*DfsPath::Parse(kWho));
  lab.servers().Kill("t1");
  const CallPtr call = lab.Do(kWho);
  EXPECT_EQ(call->Outcome(), "t2");
  EXPECT_LT(call->took(), absl::Milliseconds(500));
  EXPECT_GT(call->epoch, before);
  EXPECT_EQ(lab.counters().lost_targets, 1);
  // C15: it stays there although t1 is back.
  lab.servers().Start("t1");
  lab.RunFor(absl::Minutes(2));
  EXPECT_EQ(lab.Where(kWho), "t2");
  EXPECT_EQ(lab.counters().lost_targets, 1);
}

TEST(ClientTest, C02_C04_C05_ASilentTargetIsSuspectAndTheGuardFindsAnother) {
  struct Case {
    const char* name;
    std::function<void(ClientLab&)> fault;
  };
  for (const Case& c : std::vector<Case>{
           {"C02 drop", [](ClientLab& lab) { lab.servers().host("t1").SetLinkUp(false); }},
           {"C04 half-open",
            [](ClientLab& lab) {
              lab.network().CutOneWay(lab.servers().host("t1"), lab.servers().agent_host());
            }},
           {"C05 hang", [](ClientLab& lab) { lab.servers().process("t1").Freeze(); }},
           {"C05 silent",
            [](ClientLab& lab) { lab.servers().server("t1").options().silent = true; }},
       }) {
    SCOPED_TRACE(c.name);
    ClientLab lab;
    ASSERT_EQ(lab.Where(kWho), "t1");
    c.fault(lab);
    const CallPtr call = lab.Do(kWho);
    EXPECT_EQ(call->Outcome(), "t2");
    EXPECT_LT(call->took(), absl::Seconds(3));
    EXPECT_EQ(lab.counters().suspicions, 1);
    EXPECT_EQ(lab.counters().failovers, 1);
    EXPECT_EQ(lab.counters().moved_operations, 1);
  }
}

TEST(ClientTest, C32_ASlowTargetIsNotLeft) {
  ClientLab lab;
  ASSERT_EQ(lab.Where(kWho), "t1");
  lab.network().SetBothPaths(lab.servers().agent_host(), lab.servers().host("t1"),
                             {.latency = absl::Milliseconds(250)});
  for (int i = 0; i < 60; ++i) EXPECT_EQ(lab.Where(kWho), "t1");
  EXPECT_EQ(lab.counters().failovers, 0);
  EXPECT_EQ(lab.counters().lost_targets, 0);
}

// An agent that takes over has bound nothing yet.
TEST(ClientTest, ATargetThatIsSlowForAMomentIsNotLeftByTheNextAgent) {
  struct Case {
    absl::Duration slow_for;
    const char* served_by;
  };
  for (const Case& c : {Case{absl::Milliseconds(300), "t1"}, Case{absl::Milliseconds(800), "t1"},
                        Case{absl::Seconds(4), "t2"}}) {
    SCOPED_TRACE(absl::FormatDuration(c.slow_for));
    ClientLab lab;
    lab.servers().server("t1").AddRule(
        {.command = smb::wire::Command::kNegotiate, .times = 1, .action = {.delay = c.slow_for}});
    const CallPtr call = lab.Do(kWho);
    EXPECT_EQ(call->Outcome(), c.served_by);
    EXPECT_LT(call->took(), absl::Milliseconds(1500));
  }
}

TEST(ClientTest, AnOperationThatMayNotMoveWaitsForItsOwnServer) {
  ClientLab lab;
  ASSERT_EQ(lab.Where(kWho), "t1");
  lab.servers().process("t1").Freeze();
  const CallPtr call = lab.Start(kWho, {.run = {.movable = false}});
  lab.RunFor(absl::Seconds(4));
  EXPECT_EQ(call->Outcome(), "waits");
  lab.servers().process("t1").Unfreeze();
  ASSERT_TRUE(lab.Finish(call));
  EXPECT_EQ(call->Outcome(), "t1");
}

TEST(ClientTest, AnOperationThatMayHaveBeenExecutedIsNotRepeated) {
  ClientLab lab;
  ASSERT_EQ(lab.Where(kWho), "t1");
  lab.servers().server("t1").AddRule({.command = Command::kCreate,
                                      .times = 1,
                                      .action = {.drop = true, .close = Closing::kReset}});
  EXPECT_EQ(lab.Do(kWho, {.run = {.repeatable = false}})->Outcome(), "ABORTED");
  EXPECT_THAT(lab.Where(kWho), AnyOf("t1", "t2"));
}

// What a target does when it is connected to again, and where the operation goes then.
struct Refusal {
  const char* name;
  std::function<void(testing::ScriptedServer&)> change;
  bool close = true;
  const char* then = "t2";
};

class RefusalTest : public ::testing::TestWithParam<Refusal> {};

TEST_P(RefusalTest, LeadsOn) {
  ClientLab lab;
  ASSERT_EQ(lab.Where(kWho), "t1");
  testing::ScriptedServer& t1 = lab.servers().server("t1");
  lab.servers().process("t1").RunNow([&] {
    GetParam().change(t1);
    if (GetParam().close) t1.CloseConnections(Closing::kReset);
  });
  lab.RunFor(absl::Milliseconds(5));
  const CallPtr call = lab.Do(kWho);
  EXPECT_EQ(call->Outcome(), GetParam().then) << call->last;
  EXPECT_LT(call->took(), absl::Seconds(1));
}

std::function<void(testing::ScriptedServer&)> Answers(Command command, NtStatus status) {
  return [=](testing::ScriptedServer& server) {
    server.AddRule({.command = command, .action = {.status = status}});
  };
}

INSTANTIATE_TEST_SUITE_P(
    Client, RefusalTest,
    ::testing::ValuesIn(std::vector<Refusal>{
        {"C06_NegotiateUnanswered",
         [](testing::ScriptedServer& t1) {
           t1.AddRule({.command = Command::kNegotiate, .action = {.ignore = true}});
         }},
        {"C07_LogOnRefused",
         [](testing::ScriptedServer& t1) { t1.passwords().SetPassword("user", "another"); }},
        {"C08_ShareGoneAfterReconnect",
         [](testing::ScriptedServer& t1) { t1.RemoveShare("data"); }},
        {"C09_ShareClosedAndBack", [](testing::ScriptedServer& t1) { t1.DisconnectTrees("data"); },
         false, "t1"},
        {"C10_ShareClosedForGood",
         [](testing::ScriptedServer& t1) {
           t1.DisconnectTrees("data");
           t1.FindShare("data")->connect_status = NtStatus::kBadNetworkName;
         },
         false},
        {"C35_ServiceRestarted", [](testing::ScriptedServer&) {}, true, "t1"},
        {"F08_SessionExpired", [](testing::ScriptedServer& t1) { t1.ExpireSessions(); }, false,
         "t1"},
        // The answer is unsigned (the server has no key any more): nobody believes it, but it is no
        // reason to leave the target.
        {"SessionDeletedUnsigned", [](testing::ScriptedServer& t1) { t1.DeleteSessions(); }, false,
         "t1"},
        {"H08_SessionLimit", Answers(Command::kSessionSetup, NtStatus::kRequestNotAccepted)},
        {"H08_SessionSetupShortOfResources",
         Answers(Command::kSessionSetup, NtStatus::kInsuffServerResources)},
        {"H08_ShareLimit", Answers(Command::kTreeConnect, NtStatus::kRequestNotAccepted)},
        {"H08_TreeConnectShortOfResources",
         Answers(Command::kTreeConnect, NtStatus::kInsuffServerResources)},
        {"RootDoesNotOpen", Answers(Command::kCreate, NtStatus::kObjectPathNotFound)},
    }),
    [](const auto& info) { return info.param.name; });

// It is the ECHO, sent while a CREATE takes long, that is told so.
TEST(ClientTest, ASessionThatIsDeletedWhileItsTargetIsBoundIsNoError) {
  ClientLab lab;
  lab.AddLink("one", {.targets = {"t1/data"}});
  lab.servers().server("t1").AddRule(
      {.command = Command::kCreate,
       .times = 1,
       .action = {.delay = absl::InfiniteDuration(), .pending = true}});
  const CallPtr call = lab.Start("//root1/dfs/one/who");
  lab.RunFor(absl::Milliseconds(300));
  lab.servers().server("t1").DeleteSessions();
  ASSERT_TRUE(lab.Finish(call));
  EXPECT_EQ(call->Outcome(), "t1") << call->last;
  EXPECT_LT(call->took(), absl::Seconds(2));
}

TEST(ClientTest, F08_ASessionThatExpiresAgainWhileItIsRenewedIsNoReasonToMove) {
  ClientLab lab;
  ASSERT_EQ(lab.Where(kWho), "t1");
  runtime::SimHost& agent = lab.servers().agent_host();
  runtime::SimHost& t1 = lab.servers().host("t1");
  lab.network().SetPath(agent, t1, {.latency = absl::Milliseconds(200)});
  lab.network().SetPath(t1, agent, {.latency = absl::Milliseconds(200)});
  lab.servers().server("t1").ExpireSessions();
  const CallPtr call = lab.Start(kWho);
  // The session has been renewed, and the request is on its way for the second time.
  lab.RunFor(absl::Milliseconds(1'300));
  lab.servers().server("t1").ExpireSessions();
  ASSERT_TRUE(lab.Finish(call));
  EXPECT_EQ(call->Outcome(), "t1");
  EXPECT_EQ(call->runs, 1);
  EXPECT_EQ(lab.Connects("t2"), 0);
}

// A try has the session renewed, and is given up when another target was quicker.
TEST(ClientTest, F08_ARenewalOutlivesWhoAskedForIt) {
  ClientLab lab;
  ASSERT_EQ(lab.Where("//root1/dfs/plain"), "root1");
  lab.AddClient({});
  runtime::SimHost& agent = lab.servers().agent_host();
  runtime::SimHost& root1 = lab.servers().host("root1");
  lab.network().SetPath(agent, root1, {.latency = absl::Milliseconds(100)});
  lab.network().SetPath(root1, agent, {.latency = absl::Milliseconds(100)});
  lab.servers().server("root1").ExpireSessions();
  EXPECT_EQ(lab.Do("//root1/dfs/plain", {.client = 1})->Outcome(), "root2");
  const CallPtr call = lab.Do("//root1/dfs/plain");
  EXPECT_EQ(call->Outcome(), "root1");
  EXPECT_EQ(lab.Connects("root1"), 1);
  EXPECT_LT(call->took(), absl::Seconds(1));
}

// Who waits for a connection and sees its maker go does not make one without asking for the right.
TEST(ClientTest, H09_ConnectionsThatAreGivenUpAreRationed) {
  ClientLab lab;
  ASSERT_EQ(lab.Where("//root1/dfs/plain"), "root1");
  // root2 is asked, too, when root1 takes long; it has no power, and each question to it is given
  // up when root1 answers.
  lab.servers().host("root2").PowerOff();
  std::vector<CallPtr> calls;
  for (int i = 0; i < 40; ++i) {
    lab.AddLink(absl::StrCat("l", i), {.targets = {"t1/data"}});
  }
  lab.servers().server("root1").AddRule(
      {.command = Command::kIoctl, .action = {.delay = absl::Milliseconds(700)}});
  for (int i = 0; i < 40; ++i) calls.push_back(lab.Start(absl::StrCat("//root1/dfs/l", i, "/who")));
  for (const CallPtr& call : calls) {
    ASSERT_TRUE(lab.Finish(call));
    EXPECT_EQ(call->Outcome(), "t1");
  }
  EXPECT_LE(lab.MostConnectsInASecond("root2"), 10);
}

TEST(ClientTest, H08_ThrottlingOfAnOperationIsWaitedForNotFledFrom) {
  ClientLab lab;
  ASSERT_EQ(lab.Where(kWho), "t1");
  lab.servers().server("t1").AddRule({.command = Command::kCreate,
                                      .times = 3,
                                      .action = {.status = NtStatus::kInsuffServerResources}});
  const CallPtr call = lab.Do(kWho);
  EXPECT_EQ(call->Outcome(), "t1");
  EXPECT_EQ(call->runs, 4);
  EXPECT_LT(call->took(), absl::Seconds(5));
}

TEST(ClientTest, H02_AServerThatTakesAllCreditsBackIsLeft) {
  ClientLab lab;
  ASSERT_EQ(lab.Where(kWho), "t1");
  lab.servers().server("t1").AddRule({.action = {.credits = 0}});
  std::string where = "t1";
  for (int i = 0; i < 600 && where == "t1"; ++i) where = lab.Where(kWho);
  EXPECT_EQ(where, "t2") << lab.counters().suspicions;
}

TEST(ClientTest, C11_TheFirstTargetInOrderThatIsUp) {
  for (int dead = 1; dead < 8; ++dead) {
    SCOPED_TRACE(absl::StrCat("dead: ", dead));
    for (const bool bound_before : {false, true}) {
      ClientLab lab({.give_up_after = absl::Seconds(10)});
      if (bound_before) ASSERT_EQ(lab.Where(kWho), "t1");
      std::string want = "UNAVAILABLE";
      for (int t = 3; t >= 1; --t) {
        if ((dead >> (t - 1) & 1) != 0) {
          lab.servers().Kill(absl::StrCat("t", t));
        } else {
          want = absl::StrCat("t", t);
        }
      }
      EXPECT_EQ(lab.Where(kWho), want);
    }
  }
}

TEST(ClientTest, WhereAllTargetsRefuseTheErrorDoesNotSayThatTheyWereLate) {
  ClientLab lab({.give_up_after = absl::Seconds(10)});
  for (const char* target : {"t1", "t2", "t3"}) lab.servers().Kill(target);
  const std::string message(lab.Do(kWho)->status.message());
  EXPECT_THAT(message, StartsWith("no target is up: "));
  EXPECT_THAT(message, HasSubstr("refused"));
}

TEST(ClientTest, C11_ASoftMountGivesUpAtItsTimeAndAHardOneWaits) {
  ClientLab lab({.give_up_after = absl::Seconds(20)});
  lab.AddClient({});
  for (const char* target : {"t1", "t2", "t3"}) lab.servers().PowerOff(target);
  const CallPtr hard = lab.Start(kWho, {.client = 1});
  const CallPtr soft = lab.Do(kWho);
  EXPECT_EQ(soft->Outcome(), "UNAVAILABLE");
  EXPECT_GE(soft->took(), absl::Seconds(20));
  EXPECT_LT(soft->took(), absl::Seconds(32));
  lab.RunFor(absl::Minutes(5));
  EXPECT_EQ(hard->Outcome(), "waits");
  lab.servers().Start("t2");
  ASSERT_TRUE(lab.Finish(hard, absl::Seconds(12)));
  EXPECT_EQ(hard->Outcome(), "t2");
}

// Whenever it gives up: also while the last round finds the target held back, as it failed just
// now.
TEST(ClientTest, ASoftMountThatGivesUpTellsWhyItsFirstAttemptFailed) {
  for (int tenths = 10; tenths < 60; tenths += 3) {
    ClientLab lab({.give_up_after = absl::Milliseconds(100) * tenths});
    for (const char* root : {"root1", "root2"}) lab.servers().Kill(root);
    const CallPtr call = lab.Do(kWho);
    EXPECT_EQ(call->Outcome(), "UNAVAILABLE");
    EXPECT_TRUE(absl::StrContains(call->status.message(), "refused"))
        << tenths << ": " << call->status;
  }
}

TEST(ClientTest, C12_AMinuteWithoutTargetsEndsSoonAfterOneIsUpAndSpinsNot) {
  ClientLab lab;
  ASSERT_EQ(lab.Where(kWho), "t1");
  for (const char* target : {"t1", "t2", "t3"}) lab.servers().Kill(target);
  std::vector<CallPtr> calls;
  for (int i = 0; i < 20; ++i) calls.push_back(lab.Start(kWho));
  const uint64_t steps = lab.world().steps();
  lab.RunFor(absl::Seconds(60));
  for (const char* target : {"t1", "t2", "t3"}) EXPECT_LT(lab.Connects(target), 40) << target;
  EXPECT_LT(lab.world().steps() - steps, 100'000u);
  lab.servers().Start("t3");
  const absl::Time up = lab.world().now();
  for (const CallPtr& call : calls) {
    ASSERT_TRUE(lab.Finish(call));
    EXPECT_EQ(call->Outcome(), "t3");
    EXPECT_LT(call->ended - up, absl::Seconds(6));
  }
}

TEST(ClientTest, C13_CancellingEndsEveryWaitAtOnce) {
  struct Case {
    const char* name;
    std::function<void(ClientLab&)> fault;
    bool bound = false;
  };
  const auto unanswered = [](const char* host, Command command) {
    return [=](ClientLab& lab) {
      lab.servers().server(host).AddRule({.command = command, .action = {.ignore = true}});
    };
  };
  for (const Case& c : std::vector<Case>{
           {"name servers",
            [](ClientLab& lab) {
              lab.network().set_name_server(runtime::SimNetwork::NameServer::kSilent);
            }},
           {"root's TCP",
            [](ClientLab& lab) {
              lab.servers().host("root1").SetLinkUp(false);
              lab.servers().host("root2").SetLinkUp(false);
            }},
           {"referral", unanswered("root1", Command::kIoctl)},
           {"negotiate", unanswered("t1", Command::kNegotiate)},
           {"log-on", unanswered("t1", Command::kSessionSetup)},
           {"tree connect", unanswered("t1", Command::kTreeConnect)},
           {"target's root", unanswered("t1", Command::kCreate)},
           {"the operation", unanswered("t1", Command::kCreate), true},
           {"no target is up",
            [](ClientLab& lab) {
              for (const char* t : {"t1", "t2", "t3"}) lab.servers().Kill(t);
            }},
       }) {
    SCOPED_TRACE(c.name);
    ClientLab lab;
    lab.AddLink("link", {.targets = {"t1/data"}});
    if (c.bound) ASSERT_EQ(lab.Where(kWho), "t1");
    c.fault(lab);
    const CallPtr call = lab.Start(kWho);
    const CallPtr other = lab.Start(kWho);
    lab.RunFor(absl::Milliseconds(400));
    ASSERT_EQ(call->Outcome(), "waits");
    lab.servers().agent().RunNow([&] { call->cancel.Cancel(); });
    EXPECT_TRUE(lab.Finish(call, absl::Milliseconds(1)));
    EXPECT_EQ(call->Outcome(), "CANCELLED");
    EXPECT_EQ(other->Outcome(), "waits");  // It has not been cancelled with it.
  }
}

TEST(ClientTest, C14_AFlappingTargetIsLeftAlone) {
  ClientLab lab({.failback = Failback::kAlways});
  ASSERT_EQ(lab.Where(kWho), "t1");
  int done = 0;
  for (int i = 0; i < 20; ++i) {
    lab.servers().Kill("t1");
    for (int k = 0; k < 6; ++k, lab.RunFor(absl::Milliseconds(500))) {
      done += lab.Where(kWho) == "t2" ? 1 : 0;
    }
    lab.servers().Start("t1");
    for (int k = 0; k < 6; ++k, lab.RunFor(absl::Milliseconds(500))) {
      done += lab.Where(kWho) == "t2" ? 1 : 0;
    }
  }
  EXPECT_EQ(done, 240);  // It went to t2 once, and never back to what does not stay up.
  EXPECT_EQ(lab.counters().lost_targets, 1);
  EXPECT_EQ(lab.counters().failbacks, 0);
  EXPECT_EQ(lab.servers().server("t2").connections_ever(), 1);
}

TEST(ClientTest, C18_C19_ADeadRootDoesNotMatterToBoundLinks) {
  ClientLab lab;
  ASSERT_EQ(lab.Where(kWho), "t1");
  lab.servers().Kill("root1");
  lab.servers().Kill("root2");
  EXPECT_EQ(lab.Where(kWho), "t1");
  lab.servers().Kill("t1");
  const CallPtr call = lab.Do(kWho);
  EXPECT_EQ(call->Outcome(), "t2");
  EXPECT_LT(call->took(), absl::Seconds(1));
}

TEST(ClientTest, C20_TheNextRootTargetIsAskedForALink) {
  ClientLab lab;
  ASSERT_EQ(lab.Where("//root1/dfs/plain"), "root1");
  lab.servers().PowerOff("root1");
  const CallPtr call = lab.Do(kWho);
  EXPECT_EQ(call->Outcome(), "t1");
  EXPECT_LT(call->took(), absl::Seconds(5));
}

TEST(ClientTest, C23_ATargetWithAnotherAddressIsFound) {
  ClientLab lab;
  lab.AddLink("link", {.targets = {"t1/data"}});
  ASSERT_EQ(lab.Where(kWho), "t1");
  const std::vector<runtime::IpAddress> moved = {runtime::IpAddress::V4({10, 0, 9, 9})};
  lab.servers().PowerOff("t1");
  lab.servers().host("t1").SetAddresses(moved);
  lab.network().SetName("t1", moved);
  lab.servers().Start("t1");
  const CallPtr call = lab.Do(kWho);
  EXPECT_EQ(call->Outcome(), "t1");
  EXPECT_LT(call->took(), absl::Seconds(10));
}

TEST(ClientTest, C24_WithoutNameServersTheLastAddressesAreUsed) {
  using NameServer = runtime::SimNetwork::NameServer;
  for (const NameServer state : {NameServer::kFails, NameServer::kSilent}) {
    ClientLab lab;
    lab.AddLink("other", {.targets = {"t2/data"}});
    ASSERT_EQ(lab.Where(kWho), "t1");
    ASSERT_EQ(lab.Where("//root1/dfs/other/who"), "t2");  // So t2's address has been seen.
    lab.network().set_name_server(state);
    lab.servers().server("t2").CloseConnections(Closing::kReset);
    lab.servers().Kill("t1");
    const CallPtr call = lab.Do(kWho);
    EXPECT_EQ(call->Outcome(), "t2");
    EXPECT_LT(call->took(), absl::Seconds(20));
  }
}

TEST(ClientTest, C25_TwoMountsThatShareADeadTargetFailOverOnceEach) {
  ClientLab lab;
  lab.AddClient({});
  ASSERT_EQ(lab.Where(kWho), "t1");
  ASSERT_EQ(lab.Do(kWho, {.client = 1})->Outcome(), "t1");
  EXPECT_EQ(lab.servers().server("t1").connections_ever(), 1);
  lab.servers().process("t1").Freeze();
  std::vector<CallPtr> calls;
  for (int i = 0; i < 40; ++i) {
    calls.push_back(lab.Start(kWho, {.client = static_cast<size_t>(i % 2)}));
  }
  for (const CallPtr& call : calls) {
    ASSERT_TRUE(lab.Finish(call));
    EXPECT_EQ(call->Outcome(), "t2");
  }
  for (const size_t client : {0, 1}) EXPECT_EQ(lab.counters(client).failovers, 1);
  EXPECT_EQ(lab.servers().server("t2").connections_ever(), 1);
  EXPECT_LE(lab.Connects("t1"), 2);  // The second one beside the attempt at t2.
}

TEST(ClientTest, C26_TwoHundredLinksOfOneDeadTargetConnectAFewTimes) {
  for (const bool hang : {false, true}) {
    ClientLab lab;
    std::vector<CallPtr> calls;
    for (int i = 0; i < 200; ++i) {
      lab.AddLink(absl::StrCat("l", i), {.targets = {"t1/data", "t2/data"}});
      calls.push_back(lab.Start(absl::StrCat("//root1/dfs/l", i, "/who")));
    }
    for (const CallPtr& call : calls) ASSERT_TRUE(lab.Finish(call));
    EXPECT_EQ(lab.servers().server("t1").connections_ever(), 1);
    calls.clear();
    if (hang) {
      lab.servers().process("t1").Freeze();
    } else {
      lab.servers().Kill("t1");
    }
    for (int i = 0; i < 200; ++i) {
      calls.push_back(lab.Start(absl::StrCat("//root1/dfs/l", i, "/who")));
    }
    for (const CallPtr& call : calls) {
      ASSERT_TRUE(lab.Finish(call));
      EXPECT_EQ(call->Outcome(), "t2");
      EXPECT_LT(call->took(), absl::Seconds(4));
    }
    EXPECT_EQ(lab.servers().server("t2").connections_ever(), 1);
    for (const char* target : {"t1", "t2"}) {
      EXPECT_LE(lab.MostConnectsInASecond(target), TargetHealthTable::kConnectsPerSecond) << target;
    }
  }
}

TEST(ClientTest, C31_AnHoursSleepOfTheNodeIsNobodysDeath) {
  ClientLab lab;
  ASSERT_EQ(lab.Where(kWho), "t1");
  const int64_t referrals = lab.counters().referral_requests;
  lab.servers().agent().Stall(absl::Hours(1));
  lab.RunFor(absl::Hours(1) + absl::Seconds(5));
  EXPECT_EQ(lab.Where(kWho), "t1");
  EXPECT_EQ(lab.counters().suspicions, 0);
  EXPECT_LE(lab.counters().referral_requests - referrals, 3);  // No mass expiry.
}

TEST(ClientTest, E10_AHundredMissesOfOneLinkAreOneReferral) {
  ClientLab lab;
  ASSERT_EQ(lab.Where("//root1/dfs/plain"), "root1");
  const int64_t before = lab.counters().referral_requests;
  std::vector<CallPtr> calls;
  for (int i = 0; i < 100; ++i) calls.push_back(lab.Start(kWho));
  for (const CallPtr& call : calls) {
    ASSERT_TRUE(lab.Finish(call));
    EXPECT_EQ(call->Outcome(), "t1");
  }
  EXPECT_EQ(lab.counters().referral_requests - before, 1);
  EXPECT_EQ(lab.Connects("t1"), 1);
}

}  // namespace
}  // namespace dfscsi::dfs
