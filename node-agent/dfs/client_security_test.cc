// Where credentials go, and what a hostile server or wire achieves.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "node-agent/dfs/client_test_lab.h"
#include "node-agent/smb/secret_refused.h"

namespace dfscsi::dfs {
namespace {

using runtime::IpAddress;
using smb::wire::Command;
using smb::wire::NtStatus;
using testing::Action;
using ::testing::HasSubstr;

constexpr char kWho[] = "//root1/dfs/link/who";

TEST(ClientSecurityTest, F01_ATargetThatDeniesIsPassedOverAndNotDown) {
  ClientLab lab;
  lab.servers().server("t1").passwords().SetPassword("user", "another");
  EXPECT_EQ(lab.Where(kWho), "t2");
  const DfsPath t1 = *DfsPath::Parse("//t1/data");
  EXPECT_EQ(lab.health().Get(t1, lab.servers().credential().Identity(), lab.world().now()).state,
            TargetState::kDenied);
}

TEST(ClientSecurityTest, F02_AllDenyIsEaccesWithoutAStormOfLogOns) {
  ClientLab lab;
  for (const char* target : {"t1", "t2", "t3"}) {
    lab.servers().server(target).passwords().SetPassword("user", "another");
  }
  std::vector<CallPtr> calls;
  for (int i = 0; i < 50; ++i) calls.push_back(lab.Start(kWho));
  for (const CallPtr& call : calls) {
    ASSERT_TRUE(lab.Finish(call));
    EXPECT_EQ(call->Outcome(), "PERMISSION_DENIED");
  }
  for (int i = 0; i < 50; ++i) {
    lab.RunFor(absl::Seconds(1));
    EXPECT_EQ(lab.Where(kWho), "PERMISSION_DENIED");
  }
  for (const char* target : {"t1", "t2", "t3"}) {
    EXPECT_EQ(lab.servers().server(target).passwords().refused(), 1) << target;
  }
  // It is tried again after a minute: somebody may have mended it.
  lab.servers().server("t2").passwords().SetPassword("user", "secret");
  lab.RunFor(absl::Seconds(15));
  EXPECT_EQ(lab.Where(kWho), "t2");
}

// The log-on guard as this lab needs it: a refusal is remembered for 5 minutes of the world's time.
class Guard final : public smb::SessionMemory {
 public:
  uint64_t PreviousSessionId(const std::string& host, const std::string& identity) override {
    return 0;
  }
  void RememberSessionId(const std::string& host, const std::string& identity,
                         uint64_t session_id) override {}
  absl::Duration RefusedFor(const std::string& host, const std::string& identity) override {
    const auto refused = until.find(for_all_hosts ? "" : host);
    if (refused == until.end()) return absl::ZeroDuration();
    return std::max(absl::ZeroDuration(), refused->second - runtime::Loop::Current().Now());
  }
  void RememberRefusal(const std::string& host, const smb::Credential& credential,
                       const absl::Status& refused) override {
    until[for_all_hosts ? "" : host] = runtime::Loop::Current().Now() + absl::Minutes(5);
  }
  bool for_all_hosts = false;  // What the KDC refuses.
  std::map<std::string, absl::Time> until;
};

TEST(ClientSecurityTest, F02_ATargetIsTriedAgainWhenTheGuardAllowsAndNotBefore) {
  Guard guard;
  ClientLab lab({}, 1, {}, &guard);
  const std::string identity = lab.servers().credential().Identity();
  for (const char* target : {"t1", "t2", "t3"}) {
    lab.servers().server(target).passwords().SetPassword("user", "another");
  }
  EXPECT_EQ(lab.Where(kWho), "PERMISSION_DENIED");
  const absl::Time tried = guard.until.at("t1");
  const auto next_try = [&] {
    return lab.health().Get(*DfsPath::Parse("//t1/data"), identity, lab.world().now()).not_before;
  };
  EXPECT_EQ(next_try(), tried);
  lab.RunFor(absl::Minutes(4));
  // Another agent knows the refusal from the guard alone.
  lab.health().Forgive();
  EXPECT_EQ(lab.Where(kWho), "PERMISSION_DENIED");
  EXPECT_LE(absl::AbsDuration(next_try() - tried), absl::Milliseconds(1));
  EXPECT_EQ(lab.servers().server("t1").passwords().refused(), 1);
  // Mended on the server; somebody says so.
  lab.servers().server("t1").passwords().SetPassword("user", "secret");
  EXPECT_EQ(lab.Where(kWho), "PERMISSION_DENIED");
  guard.until.clear();
  lab.health().Forgive();
  EXPECT_EQ(lab.Where(kWho), "t1");
}

// It is no server that refuses it, and there is no NTSTATUS.
TEST(ClientSecurityTest, F02_APasswordThatTheKdcRefusedIsOnceForAllAndTheGuardKnows) {
  Guard guard;
  guard.for_all_hosts = true;
  ClientLab lab({}, 1, {}, &guard);
  ASSERT_EQ(lab.Where(kWho), "t1");
  guard.until.clear();
  testing::PasswordAuthenticators& authenticators = lab.servers().authenticators();
  authenticators.set_failure([](const std::string& host) {
    return smb::SecretRefusedError(absl::StrCat("log-on at ", host, ": Preauthentication failed"));
  });
  for (const char* target : {"t1", "t2", "t3"}) {
    lab.servers().server(target).CloseConnections(testing::Closing::kReset);
  }
  const int64_t before = authenticators.begun();
  EXPECT_EQ(lab.Where(kWho), "PERMISSION_DENIED");
  EXPECT_EQ(authenticators.begun(), before + 1);
  // What somebody forgives, and another agent: both ask the guard.
  lab.health().Forgive();
  EXPECT_EQ(lab.Where(kWho), "PERMISSION_DENIED");
  EXPECT_EQ(authenticators.begun(), before + 1);
}

TEST(ClientSecurityTest, F02_AtMostOneLogOnIsInFlightPerTarget) {
  ClientLab lab;
  lab.servers().authenticators().set_step_time(absl::Milliseconds(50));
  lab.AddClient({});
  std::vector<CallPtr> calls;
  for (int i = 0; i < 20; ++i) {
    calls.push_back(lab.Start(kWho, {.client = static_cast<size_t>(i % 2)}));
  }
  for (const CallPtr& call : calls) ASSERT_TRUE(lab.Finish(call));
  EXPECT_EQ(lab.servers().server("t1").passwords().accepted(), 1);
}

TEST(ClientSecurityTest, F03_ADeniedFileIsNoReasonToMove) {
  ClientLab lab;
  ASSERT_EQ(lab.Where(kWho), "t1");
  lab.servers().server("t1").FindShare("data")->Find("who")->denied = true;
  const CallPtr call = lab.Do(kWho);
  EXPECT_EQ(smb::wire::NtStatusOf(call->status), NtStatus::kAccessDenied);
  EXPECT_EQ(call->runs, 1);
  EXPECT_EQ(lab.Connects("t2"), 0);
}

// --- Where a referral may lead
// --------------------------------------------------------------------

TEST(ClientSecurityTest, F05_ATargetThatIsNotAllowedIsNotConnectedTo) {
  ClientLab lab({.allowed_targets = {"root2", "t2"}});
  EXPECT_EQ(lab.Where(kWho), "t2");
  lab.servers().Kill("t2");
  lab.AddLink("only", {.targets = {"t1/data", "t3/data"}});
  const CallPtr call = lab.Do("//root1/dfs/only/who");
  EXPECT_EQ(call->Outcome(), "PERMISSION_DENIED");
  EXPECT_THAT(call->status.message(), HasSubstr("allowed_targets"));
  EXPECT_EQ(lab.Connects("t1"), 0);
  EXPECT_EQ(lab.Connects("t3"), 0);
}

TEST(ClientSecurityTest, F05_ARootTargetThatIsNotAllowedIsNotAskedForReferrals) {
  ClientLab lab({.allowed_targets = {"t1"}});
  ASSERT_EQ(lab.Where("//root1/dfs/plain"), "root1");
  lab.servers().Kill("root1");
  const CallPtr call = lab.Start(kWho, {.within = absl::Seconds(30)});
  ASSERT_TRUE(lab.Finish(call));
  EXPECT_FALSE(call->status.ok());
  EXPECT_EQ(lab.Connects("root2"), 0);
}

struct Resolved {
  const char* name;
  std::vector<const char*> addresses;
  bool allowed = false;
  bool allow_local = false;
};

class ResolvedTest : public ::testing::TestWithParam<Resolved> {};

TEST_P(ResolvedTest, G15_ANameThatIsThisMachineIsNoTarget) {
  const Resolved& c = GetParam();
  ClientLab lab({.allow_local_targets = c.allow_local});
  std::vector<IpAddress> addresses;
  for (const char* text : c.addresses) addresses.push_back(*IpAddress::Parse(text));
  lab.network().SetName("evil", addresses);
  lab.network().set_unknown_addresses_unreachable(absl::Milliseconds(1));
  lab.AddLink("link", {.targets = {"evil/data", "t2/data"}});
  const size_t before = lab.network().connect_attempts().size();
  EXPECT_EQ(lab.Where(kWho), c.allowed ? "evil" : "t2");
  for (size_t i = before; i < lab.network().connect_attempts().size(); ++i) {
    const IpAddress& to = lab.network().connect_attempts()[i].to.address;
    if (!c.allow_local) {
      EXPECT_FALSE(to.IsLoopback() || to.IsLinkLocal() || to.ToString() == "10.0.0.1");
    }
  }
}

INSTANTIATE_TEST_SUITE_P(ClientSecurity, ResolvedTest,
                         ::testing::ValuesIn(std::vector<Resolved>{
                             {"Loopback", {"127.0.0.1"}},
                             {"LoopbackElsewhere", {"127.8.8.8"}},
                             {"LinkLocal", {"169.254.169.254"}},
                             {"Unspecified", {"0.0.0.0"}},
                             {"Loopback6", {"::1"}},
                             {"LinkLocal6", {"fe80::1"}},
                             {"Mapped", {"::ffff:127.0.0.1"}},
                             {"OfThisNode", {"10.0.0.1"}},
                             {"SeveralAllLocal", {"127.0.0.1", "10.0.0.1"}},
                             {"OneOfThemIsElsewhere", {"127.0.0.1", "10.0.0.13"}, true},
                             {"Elsewhere", {"10.0.0.13"}, true},
                         }),
                         [](const auto& info) { return info.param.name; });

TEST(ClientSecurityTest, G15_LocalTargetsAreForWhoAllowsThem) {
  ClientLab lab({.allow_local_targets = true});
  lab.network().SetName("self", {*IpAddress::Parse("10.0.0.1")});
  lab.AddLink("link", {.targets = {"self/data"}});
  lab.Do(kWho, {.within = absl::Seconds(3)});
  bool tried = false;
  for (const auto& attempt : lab.network().connect_attempts()) {
    tried |= attempt.to.address.ToString() == "10.0.0.1";
  }
  EXPECT_TRUE(tried);
}

TEST(ClientSecurityTest, G15_ASessionOfAMountThatAllowsMoreIsNotUsed) {
  ClientLab lab({.allow_local_targets = true});
  lab.AddClient({});
  // t1 moves to an address of this node, as after a failover of a virtual address.
  lab.servers().agent_host().SetAddresses(
      {*IpAddress::Parse("10.0.0.1"), lab.servers().host("t1").addresses().front()});
  lab.servers().agent_host().SetAddresses({*IpAddress::Parse("10.0.0.1")});
  ASSERT_EQ(lab.Where(kWho), "t1");
  lab.servers().agent_host().SetAddresses(
      {*IpAddress::Parse("10.0.0.1"), lab.servers().host("t1").addresses().front()});
  const CallPtr call = lab.Do(kWho, {.client = 1, .within = absl::Seconds(30)});
  EXPECT_NE(call->Outcome(), "t1");
}

TEST(ClientSecurityTest, G15_IpcIsNoTarget) {
  ClientLab lab;
  lab.AddLink("link", {.targets = {"t1/IPC$", "t2/data"}});
  EXPECT_EQ(lab.Where(kWho), "t2");
}

// --- The wire
// -------------------------------------------------------------------------------------

// What t1, or whoever sits before it, does to an answer; t2 serves then, and t1's is not believed.
struct Attack {
  const char* name;
  Command command;
  Action action;
  bool ends_connection = true;
};

class AttackTest : public ::testing::TestWithParam<Attack> {};

TEST_P(AttackTest, IsNotBelieved) {
  ClientLab lab;
  lab.servers().server("t1").AddRule({.command = GetParam().command, .action = GetParam().action});
  const CallPtr call = lab.Do(kWho);
  EXPECT_EQ(call->Outcome(), "t2");
  EXPECT_LT(call->took(), absl::Seconds(6));
  lab.RunFor(absl::Seconds(1));
  if (GetParam().ends_connection) EXPECT_EQ(lab.servers().server("t1").connections(), 0);
}

void FlipLastByte(std::vector<uint8_t>& bytes) { bytes.back() ^= 1; }
void CutShort(std::vector<uint8_t>& message) { message.resize(64 + 20); }
// CreateContextsOffset and CreateContextsLength of a CREATE response.
void ContextsBeyondTheEnd(std::vector<uint8_t>& message) {
  for (const size_t at : {64 + 80, 64 + 84}) message[at + 1] = 0x10;
}

INSTANTIATE_TEST_SUITE_P(
    ClientSecurity, AttackTest,
    ::testing::ValuesIn(std::vector<Attack>{
        {"F12_TamperedSignature", Command::kTreeConnect, {.bad_signature = true}},
        {"F12_TamperedBytes", Command::kTreeConnect, {.tamper = FlipLastByte}},
        {"F12_Unsigned", Command::kTreeConnect, {.is_unsigned = true}},
        {"F12_ReplayedFrame", Command::kTreeConnect, {.copies = 2}},
        {"F13_EditedNegotiation", Command::kNegotiate, {.tamper = FlipLastByte}},
        {"G21_WrongMessageId", Command::kTreeConnect, {.message_id = 77}},
        {"G23_CreateResponseCutShort", Command::kCreate, {.edit = CutShort}, false},
        {"G23_CreateContextsBeyondTheEnd", Command::kCreate, {.edit = ContextsBeyondTheEnd}, false},
        {"G21_CutOffFrame", Command::kTreeConnect, {.truncate_to = 20}},
    }),
    [](const auto& info) { return info.param.name; });

TEST(ClientSecurityTest, G21_AnAnswerAfterItsCancellationIsDropped) {
  ClientLab lab;
  ASSERT_EQ(lab.Where(kWho), "t1");
  lab.servers().server("t1").AddRule(
      {.command = Command::kCreate, .times = 1, .action = {.delay = absl::Milliseconds(300)}});
  const CallPtr call = lab.Start(kWho);
  lab.RunFor(absl::Milliseconds(100));
  lab.servers().agent().RunNow([&] { call->cancel.Cancel(); });
  ASSERT_TRUE(lab.Finish(call));
  EXPECT_EQ(call->Outcome(), "CANCELLED");
  lab.RunFor(absl::Seconds(1));
  EXPECT_EQ(lab.Where(kWho), "t1");
  EXPECT_EQ(lab.servers().server("t1").connections_ever(), 1);
}

// What root1 answers to a referral request: root2 is asked then.
struct BadReferral {
  const char* name;
  Action action;
};

class BadReferralTest : public ::testing::TestWithParam<BadReferral> {};

TEST_P(BadReferralTest, IsNotBelieved) {
  ClientLab lab;
  ASSERT_EQ(lab.Where("//root1/dfs/plain"), "root1");
  lab.servers().server("root1").AddRule(
      {.fsctl = smb::wire::Fsctl::kDfsGetReferrals, .action = GetParam().action});
  const CallPtr call = lab.Do(kWho);
  EXPECT_EQ(call->Outcome(), "t1");
  EXPECT_LT(call->took(), absl::Seconds(3));
  EXPECT_GE(lab.servers().server("root2").CountReferrals(), 1);
}

// Offsets in an IOCTL response, its header included.
constexpr size_t kCtlCode = 64 + 4, kFileId = 64 + 8, kOutputOffset = 64 + 32,
                 kOutputCount = 64 + 36;

std::function<void(std::vector<uint8_t>&)> SetAt(size_t offset, uint32_t value) {
  return [=](std::vector<uint8_t>& message) {
    for (size_t i = 0; i < 4; ++i) message[offset + i] = static_cast<uint8_t>(value >> (8 * i));
  };
}

INSTANTIATE_TEST_SUITE_P(ClientSecurity, BadReferralTest,
                         ::testing::ValuesIn(std::vector<BadReferral>{
                             {"F14_Unsigned", {.is_unsigned = true}},
                             {"F14_BadSignature", {.bad_signature = true}},
                             {"G17_OutputInsideTheHeader", {.edit = SetAt(kOutputOffset, 8)}},
                             {"G17_OutputBeyondTheFrame", {.edit = SetAt(kOutputCount, 1 << 20)}},
                             {"G17_AnotherCtlCode", {.edit = SetAt(kCtlCode, 0x00140204)}},
                             {"G17_AnotherFileId", {.edit = SetAt(kFileId, 7)}},
                             {"G21_WrongMessageId", {.message_id = 4711}},
                         }),
                         [](const auto& info) { return info.param.name; });

TEST(ClientSecurityTest, G16_AReplyThatNeverFitsIsGivenUpAtItsLimit) {
  ClientLab lab;
  ASSERT_EQ(lab.Where("//root1/dfs/plain"), "root1");
  for (const char* root : {"root1", "root2"}) {
    lab.servers().server(root).AddRule({.fsctl = smb::wire::Fsctl::kDfsGetReferrals,
                                        .action = {.status = NtStatus::kBufferOverflow}});
  }
  const int64_t before = lab.servers().server("root1").CountReferrals();
  const CallPtr call = lab.Do(kWho, {.within = absl::Seconds(20)});
  EXPECT_FALSE(call->status.ok());
  EXPECT_NE(call->Outcome(), "DEADLINE_EXCEEDED");
  // 8, 16, 32 and 56 KiB.
  EXPECT_EQ(lab.servers().server("root1").CountReferrals() - before, 4);
}

TEST(ClientSecurityTest, G01_G14_AMalformedReferralIsAnErrorOfItsLinkAlone) {
  ClientLab lab;
  for (const std::vector<uint8_t>& raw : std::vector<std::vector<uint8_t>>{
           {}, {1, 2, 3}, std::vector<uint8_t>(8, 0xFF), std::vector<uint8_t>(4096, 0x41)}) {
    lab.AddLink("bad", {.raw = raw});
    lab.servers().agent().RunNow([&] { lab.cache().Flush(); });
    const CallPtr call = lab.Do("//root1/dfs/bad/who", {.within = absl::Seconds(20)});
    EXPECT_FALSE(call->status.ok()) << raw.size();
    EXPECT_NE(call->Outcome(), "DEADLINE_EXCEEDED") << raw.size();
    EXPECT_EQ(lab.Where(kWho), "t1");
  }
}

}  // namespace
}  // namespace dfscsi::dfs
