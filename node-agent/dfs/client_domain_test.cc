// Domain-based namespaces, and asking for referrals with a site.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "node-agent/dfs/client_test_lab.h"
#include "node-agent/dfs/referral_request.h"

namespace dfscsi::dfs {
namespace {

using smb::wire::Command;
using smb::wire::Fsctl;
using smb::wire::NtStatus;
using testing::Closing;

constexpr char kWho[] = "//root1/dfs/link/who";
constexpr char kDomainWho[] = "//corp.test/dfs/link/who";

// Two controllers of corp.test, which know its namespace "dfs" on root1 and root2.
class DomainTest : public ::testing::Test {
 protected:
  DomainTest() : lab_({.referral_ttl_min = absl::Seconds(30)}) {
    std::vector<runtime::Network::Service> services;
    for (const char* dc : {"dc1.corp.test", "dc2.corp.test"}) {
      testing::ScriptedServer& server = lab_.servers().AddServer(dc);
      server.AddDomain("corp.test", {"dc1.corp.test", "dc2.corp.test"});
      testing::ScriptedShare& share = server.AddShare("dfs");
      share.dfs_root = true;
      share.root_referral = {.targets = {"root1.corp.test/dfs", "root2.corp.test/dfs"}};
      services.push_back({dc, 389});
    }
    for (const char* host : {"root1", "root2", "t1", "t2", "t3"}) {
      lab_.network().SetName(absl::StrCat(host, ".corp.test"),
                             lab_.servers().host(host).addresses());
    }
    lab_.network().SetService("_ldap._tcp.dc._msdcs.corp.test", services);
    lab_.AddLink("link", {.targets = {"t1.corp.test/data", "t2.corp.test/data"}});
    lab_.AddClient({}, "//corp.test/dfs");
  }
  std::string Where(const char* path) {
    return lab_.Do(path, {.client = 1, .within = absl::Minutes(1)})->Outcome();
  }

  ClientLab lab_;
};

TEST_F(DomainTest, B01_ADomainsNamespaceIsFoundByItsControllers) {
  EXPECT_EQ(Where(kDomainWho), "t1.corp.test");
}

TEST_F(DomainTest, B05_ADeadControllerIsPassedOver) {
  lab_.servers().PowerOff("dc1.corp.test");
  const CallPtr call = lab_.Do(kDomainWho, {.client = 1});
  EXPECT_EQ(call->Outcome(), "t1.corp.test");
  EXPECT_LT(call->took(), absl::Seconds(15));
  EXPECT_EQ(lab_.domains().GetControllers("corp.test", lab_.world().now()).front(),
            "dc2.corp.test");
}

TEST_F(DomainTest, B06_TheOtherRootTargetIsAskedForLinks) {
  ASSERT_EQ(Where("//corp.test/dfs/plain"), "root1.corp.test");
  lab_.servers().PowerOff("root1");
  const CallPtr call = lab_.Do(kDomainWho, {.client = 1});
  EXPECT_EQ(call->Outcome(), "t1.corp.test");
  EXPECT_LT(call->took(), absl::Seconds(6));
  EXPECT_GE(lab_.servers().server("root2").CountReferrals(), 1);
}

TEST_F(DomainTest, B07_WithAllControllersDownAWarmCacheServes) {
  ASSERT_EQ(Where(kDomainWho), "t1.corp.test");
  lab_.servers().PowerOff("dc1.corp.test");
  lab_.servers().PowerOff("dc2.corp.test");
  EXPECT_EQ(Where(kDomainWho), "t1.corp.test");
  lab_.RunFor(absl::Minutes(15));  // Beyond every TTL.
  EXPECT_EQ(Where(kDomainWho), "t1.corp.test");
  lab_.servers().Kill("t1");
  EXPECT_EQ(Where(kDomainWho), "t2.corp.test");
}

TEST_F(DomainTest, B08_ANamespaceThatTheControllersDoNotKnow) {
  for (const NtStatus status :
       {NtStatus::kNoSuchFile, NtStatus::kDfsUnavailable, NtStatus::kNotFound}) {
    for (const char* dc : {"dc1.corp.test", "dc2.corp.test"}) {
      lab_.servers().server(dc).ClearRules();
      lab_.servers().server(dc).AddRule({.fsctl = Fsctl::kDfsGetReferrals,
                                         .path = "\\corp.test\\nosuch",
                                         .action = {.status = status}});
    }
    lab_.network().SetName("corp.test", lab_.servers().host("dc1.corp.test").addresses());
    EXPECT_EQ(Where("//corp.test/nosuch/x"), "NOT_FOUND") << static_cast<uint32_t>(status);
  }
}

TEST_F(DomainTest, B09_AControllerThatRefusesTheLevelIsAskedForTheRootAllTheSame) {
  for (const char* dc : {"dc1.corp.test", "dc2.corp.test"}) {
    lab_.servers().server(dc).AddRule({.fsctl = Fsctl::kDfsGetReferrals,
                                       .path = "\\corp.test",
                                       .action = {.status = NtStatus::kUnsuccessful}});
  }
  lab_.network().SetName("corp.test", lab_.servers().host("dc2.corp.test").addresses());
  EXPECT_EQ(Where(kDomainWho), "t1.corp.test");
}

TEST_F(DomainTest, F05_AControllerOutsideTheListIsNotAsked) {
  lab_.AddClient({.allowed_targets = {".elsewhere.test"}}, "//corp.test/dfs");
  const CallPtr call = lab_.Do(kDomainWho, {.client = 2, .within = absl::Seconds(20)});
  EXPECT_FALSE(call->status.ok());
  EXPECT_EQ(lab_.Connects("dc1.corp.test") + lab_.Connects("dc2.corp.test"), 0);
}

// --- The site
// ---------------------------------------------------------------------------------------

int CountEx(testing::ScriptedServer& server) {
  int count = 0;
  for (const testing::ScriptedRequest& request : server.log()) {
    if (request.fsctl == Fsctl::kDfsGetReferralsEx) ++count;
  }
  return count;
}

TEST(SiteTest, B11_AServerThatKnowsExIsAskedWithTheSite) {
  ClientLab lab({.site = "Berlin"});
  std::vector<uint8_t> sent;
  for (const char* root : {"root1", "root2"}) {
    lab.servers().server(root).options().referrals_ex = true;
  }
  lab.servers().server("root1").set_script(
      [&](const testing::ScriptedRequest& request) -> std::optional<testing::Action> {
        if (request.fsctl == Fsctl::kDfsGetReferralsEx) {
          sent.assign(request.body.data(), request.body.data() + request.body.size());
        }
        return std::nullopt;
      });
  EXPECT_EQ(lab.Where(kWho), "t1");
  EXPECT_GE(CountEx(lab.servers().server("root1")), 2);
  EXPECT_EQ(lab.servers().server("root1").CountReferrals(), CountEx(lab.servers().server("root1")));
  const std::vector<uint8_t> want = EncodeReferralRequestEx(u"\\root1\\dfs\\link\\who", u"Berlin");
  ASSERT_GT(sent.size(), want.size());
  EXPECT_TRUE(std::equal(want.begin(), want.end(), sent.end() - want.size()));
}

TEST(SiteTest, WithoutASiteNobodyIsAskedWithEx) {
  ClientLab lab;
  lab.servers().server("root1").options().referrals_ex = true;
  EXPECT_EQ(lab.Where(kWho), "t1");
  EXPECT_EQ(CountEx(lab.servers().server("root1")), 0);
}

TEST(SiteTest, B10_ARefusedExIsAskedPlainlyAndNotAgainOnThatConnection) {
  for (const NtStatus status : {NtStatus::kFsDriverRequired, NtStatus::kInvalidDeviceRequest,
                                NtStatus::kNotSupported, NtStatus::kInvalidParameter}) {
    ClientLab lab({.site = "Berlin"});
    testing::ScriptedServer& root1 = lab.servers().server("root1");
    root1.AddRule({.fsctl = Fsctl::kDfsGetReferralsEx, .action = {.status = status}});
    lab.AddLink("other", {.targets = {"t2/data"}});
    EXPECT_EQ(lab.Where(kWho), "t1");
    EXPECT_EQ(lab.Where("//root1/dfs/other/who"), "t2");
    EXPECT_EQ(CountEx(root1), 1) << static_cast<uint32_t>(status);
    // Another connection may be to another server.
    root1.CloseConnections(Closing::kReset);
    lab.RunFor(absl::Milliseconds(10));
    lab.AddLink("third", {.targets = {"t3/data"}});
    EXPECT_EQ(lab.Where("//root1/dfs/third/who"), "t3");
    EXPECT_EQ(CountEx(root1), 2) << static_cast<uint32_t>(status);
  }
}

TEST(SiteTest, B10_OtherErrorsOfExAreAnswers) {
  ClientLab lab({.site = "Berlin"});
  testing::ScriptedServer& root1 = lab.servers().server("root1");
  root1.options().referrals_ex = true;
  ASSERT_EQ(lab.Where("//root1/dfs/plain"), "root1");
  const int64_t before = root1.CountReferrals();
  root1.AddRule(
      {.fsctl = Fsctl::kDfsGetReferralsEx, .action = {.status = NtStatus::kObjectPathNotFound}});
  lab.servers().Kill("root2");
  EXPECT_EQ(lab.Where(kWho), "NOT_FOUND");
  EXPECT_EQ(root1.CountReferrals() - before, CountEx(root1) - before);
}

}  // namespace
}  // namespace dfscsi::dfs
