#include "node-agent/dfs/target_policy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace dfscsi::dfs {
namespace {

struct Case {
  std::string name;
  std::string mounted;
  std::vector<std::string> allowed;
  std::vector<std::string> yes, no;

  friend void PrintTo(const Case& c, std::ostream* os) { *os << c.name; }
};

class AllowedTargetsTest : public testing::TestWithParam<Case> {};

TEST_P(AllowedTargetsTest, F05_Decides) {
  const Case& c = GetParam();
  const absl::StatusOr<AllowedTargets> targets = AllowedTargets::Make(c.mounted, c.allowed, false);
  ASSERT_TRUE(targets.ok()) << targets.status();
  for (const std::string& host : c.yes) EXPECT_TRUE(targets->AllowsHost(host)) << host;
  for (const std::string& host : c.no) EXPECT_FALSE(targets->AllowsHost(host)) << host;
}

INSTANTIATE_TEST_SUITE_P(
    AllowedTargets, AllowedTargetsTest,
    testing::ValuesIn<Case>({
        {"DefaultByServer",
         "root1.corp.example.com",
         {},
         {"root1.corp.example.com", "FS2.Corp.Example.com", "fs2.site.corp.example.com", "fs2",
          "fs2.corp.example.com."},
         {"fs2.example.com", "corp.example.com", "evilcorp.example.com", "fs.evil.com", "10.0.0.1",
          ""}},
        {"DefaultByDomain",
         "corp.example.com",
         {},
         {"corp.example.com", "dc1.corp.example.com"},
         {"evil.com", "xcorp.example.com.evil.com"}},
        {"DefaultByShortDomain", "corp.com", {}, {"corp.com", "fs1.corp.com"}, {"evil.com"}},
        {"DefaultByCountry", "corp.co.uk", {}, {"corp.co.uk", "fs1.corp.co.uk"}, {"evil.co.uk"}},
        {"DefaultBySingleLabel", "root1", {}, {"anything.else", "t1", "10.0.0.1"}, {"localhost"}},
        {"DefaultByAddress", "10.77.0.11", {}, {"t1.lab.test", "10.77.0.21"}, {"127.0.0.1"}},
        {"List",
         "root1",
         {"fs1.corp", ".data.corp", "10.0.0.7"},
         {"root1", "FS1.corp", "a.data.corp", "b.a.data.corp", "10.0.0.7"},
         {"fs2.corp", "data.corp", "10.0.0.8", "fs1"}},
        {"WhatTheUserMountsIsTheUsersToSay", "127.0.0.1", {}, {"127.0.0.1"}, {"127.0.0.2", "::1"}},
        {"Star", "root1.corp", {"*"}, {"any.where", "t1"}, {"127.0.0.1"}},
    }),
    [](const auto& info) { return info.param.name; });

TEST(AllowedTargetsTest, G15_ThisMachineIsNoTargetHoweverItIsSpelt) {
  const AllowedTargets targets = *AllowedTargets::Make("root1", {"*"}, false);
  const AllowedTargets in_tests = *AllowedTargets::Make("root1", {"*"}, true);
  for (const std::string host :
       {"localhost", "LOCALHOST.", "x.localhost", "127.0.0.1", "127.9.9.9", "127.1", "2130706433",
        "0x7f.1", "0177.0.0.1", "0.0.0.0", "169.254.1.1", "::1", "::", "fe80::1", "fe80::1%eth0",
        "::ffff:127.0.0.1", "::ffff:169.254.0.9", "--1.ipv6-literal.net",
        "fe80--1s4.ipv6-literal.net"}) {
    EXPECT_FALSE(targets.AllowsHost(host)) << host;
    EXPECT_TRUE(in_tests.AllowsHost(host)) << host;
  }
  for (const std::string host : {"10.0.0.1", "fd00::1", "localhost1", "t1.localhostile.net",
                                 "fd00--1.ipv6-literal.net", "::ffff:10.0.0.1"}) {
    EXPECT_TRUE(targets.AllowsHost(host)) << host;
  }
  EXPECT_FALSE(targets.AllowsAddress("127.0.0.53"));
  EXPECT_FALSE(targets.AllowsAddress("::1"));
  EXPECT_TRUE(targets.AllowsAddress("192.168.1.1"));
  EXPECT_TRUE(in_tests.AllowsAddress("::1"));
}

TEST(AllowedTargetsTest, SaysWhenNothingNarrowsItDown) {
  EXPECT_TRUE(AllowedTargets::Make("root1", {}, false)->allows_all());
  EXPECT_FALSE(AllowedTargets::Make("root1.corp", {}, false)->allows_all());
}

TEST(AllowedTargetsTest, NamesABadPattern) {
  for (const std::string pattern : {"", ".", "*.corp.example.com", "a b", "//fs1/share"}) {
    const absl::StatusOr<AllowedTargets> targets = AllowedTargets::Make("root1", {pattern}, false);
    ASSERT_FALSE(targets.ok()) << pattern;
    EXPECT_THAT(std::string(targets.status().message()),
                testing::HasSubstr("\"" + pattern + "\" is neither"));
  }
}

}  // namespace
}  // namespace dfscsi::dfs
