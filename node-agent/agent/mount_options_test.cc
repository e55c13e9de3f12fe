#include "node-agent/agent/mount_options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace dfscsi::agent {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

MountOptions Parse(std::vector<std::string> options) {
  absl::StatusOr<MountOptions> parsed = ParseMountOptions(options);
  EXPECT_TRUE(parsed.ok()) << parsed.status();
  return parsed.ok() ? *std::move(parsed) : MountOptions();
}

TEST(MountOptionsTest, Defaults) {
  const MountOptions options = Parse({});
  EXPECT_TRUE(options.vfs.read_only);
  EXPECT_EQ(options.vfs.actimeo, absl::Seconds(1));
  EXPECT_EQ(options.vfs.dir_mode, 0755u);
  EXPECT_EQ(options.dfs.give_up_after, absl::InfiniteDuration());
  EXPECT_EQ(options.smb.signing, smb::Signing::kRequired);
  EXPECT_EQ(options.smb.lowest_dialect, smb::wire::Dialect::k300);
  EXPECT_EQ(options.smb.highest_dialect, smb::wire::Dialect::k311);
  EXPECT_TRUE(options.warnings.empty());
}

TEST(MountOptionsTest, EachReachesWhatItIsFor) {
  const MountOptions options = Parse({"uid=1000",
                                      "gid=2000",
                                      "file_mode=0640",
                                      "dir_mode=750",
                                      "actimeo=30",
                                      "vers=3.0.2",
                                      "nosign",
                                      "seal",
                                      "port=1445",
                                      "allowed_targets=t1:.corp.example.com",
                                      "soft",
                                      "op_timeout=5s",
                                      "connect_timeout=500ms",
                                      "suspect_after=2",
                                      "write_grace=1m",
                                      "referral_ttl_min=0",
                                      "referral_ttl_max=1h",
                                      "failover_identity=off",
                                      "failback=10m",
                                      "site=Berlin",
                                      "ro",
                                      "rsize=1",
                                      "noserverino"});
  EXPECT_EQ(options.vfs.uid, 1000u);
  EXPECT_EQ(options.vfs.gid, 2000u);
  EXPECT_EQ(options.vfs.file_mode, 0640u);
  EXPECT_EQ(options.vfs.dir_mode, 0750u);
  EXPECT_EQ(options.vfs.actimeo, absl::Seconds(30));
  EXPECT_FALSE(options.vfs.check_identity);
  EXPECT_EQ(options.smb.lowest_dialect, smb::wire::Dialect::k302);
  EXPECT_EQ(options.smb.highest_dialect, smb::wire::Dialect::k302);
  EXPECT_EQ(options.smb.signing, smb::Signing::kIfRequired);
  EXPECT_EQ(options.smb.encryption, smb::Encryption::kRequired);
  EXPECT_EQ(options.smb.port, 1445);
  EXPECT_EQ(options.smb.connect_timeout, absl::Milliseconds(500));
  EXPECT_EQ(options.smb.suspect_after, absl::Seconds(2));
  EXPECT_THAT(options.dfs.allowed_targets, ElementsAre("t1", ".corp.example.com"));
  EXPECT_EQ(options.dfs.give_up_after, absl::Seconds(5));
  EXPECT_EQ(options.dfs.write_grace, absl::Minutes(1));
  EXPECT_EQ(options.dfs.referral_ttl_min, absl::ZeroDuration());
  EXPECT_EQ(options.dfs.referral_ttl_max, absl::Hours(1));
  EXPECT_EQ(options.dfs.failback, dfs::Failback::kAlways);
  EXPECT_EQ(options.dfs.failback_dwell, absl::Minutes(10));
  EXPECT_EQ(options.dfs.site, "Berlin");
  EXPECT_THAT(options.warnings, ElementsAre("option rsize has no effect"));
}

TEST(MountOptionsTest, AliasesAndTheLastOfTwoWins) {
  EXPECT_EQ(Parse({"echo_interval=4"}).smb.suspect_after, absl::Seconds(2));
  EXPECT_EQ(Parse({"acregmax=7"}).vfs.actimeo, absl::Seconds(7));
  EXPECT_EQ(Parse({"dfs.referralTtlMax=2m"}).dfs.referral_ttl_max, absl::Minutes(2));
  EXPECT_EQ(Parse({"dfs.preferredSite=Paris"}).dfs.site, "Paris");
  EXPECT_EQ(Parse({"failback=never"}).dfs.failback, dfs::Failback::kNever);
  EXPECT_EQ(Parse({"failback=never", "dfs.failback=referral"}).dfs.failback,
            dfs::Failback::kReferral);
  EXPECT_EQ(Parse({"uid=1", "uid=2"}).vfs.uid, 2u);
  EXPECT_EQ(Parse({"soft", "hard", "op_timeout=9"}).dfs.give_up_after, absl::InfiniteDuration());
  EXPECT_EQ(Parse({"nosign", "sign"}).smb.signing, smb::Signing::kRequired);
}

TEST(MountOptionsTest, WhatIsWrongIsSaid) {
  struct {
    const char* option;
    const char* message;
  } const kCases[] = {
      {"", "without a name"},
      {"=1", "without a name"},
      {"actime=1", "unknown option actime; the nearest is actimeo"},
      {"referal_ttl_min=1", "the nearest is referral_ttl_min"},
      {"VERS=3", "unknown option VERS"},
      {"vers=1.0", "vers=1.0: is not spoken"},
      {"vers=4", "must be 2.1"},
      {"vers", "needs a value"},
      {"vers=", "needs a value"},
      {"ro=1", "takes no value"},
      {"rw", "not implemented yet"},
      {"failback=soon", "must be never, referral or a duration"},
      {"sec=krb5", "not implemented yet"},
      {"sec=none", "must be ntlmssp"},
      {"guest", "every mount needs a user"},
      {"domian=x", "the nearest is domain"},
      {"uid=root", "needs a number"},
      {"uid=4294967295", "needs a number"},
      {"uid=-1", "needs a number"},
      {"file_mode=9", "octal"},
      {"file_mode=07777", "more than permission bits"},
      {"file_mode=0x1ff", "octal"},
      {"actimeo=soon", "needs a duration"},
      {"actimeo=-1", "between 0 and a year"},
      {"actimeo=nan", "between 0 and a year"},
      {"actimeo=inf", "between 0 and a year"},
      {"op_timeout=10ms", "at least 1s"},
      {"port=0", "needs a port"},
      {"port=70000", "needs a port"},
      {"allowed_targets=:", "needs a host"},
      {"cache=loose", "must be strict"},
      {"credentials=/x", "not part of a mount's options"},
      {"signing=no", "must be required"},
  };
  for (const auto& c : kCases) {
    const absl::Status status = ParseMountOptions({std::string(c.option)}).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << c.option;
    EXPECT_THAT(std::string(status.message()), HasSubstr(c.message)) << c.option;
  }
  EXPECT_FALSE(ParseMountOptions({"referral_ttl_min=2h", "referral_ttl_max=1h"}).ok());
}

TEST(MountOptionsTest, ASecretInTheWrongPlaceIsNotRepeated) {
  for (const std::string option : {"password=hunter2", "pass=hunter2", "passwrd=hunter2"}) {
    const absl::Status status = ParseMountOptions({option}).status();
    EXPECT_FALSE(status.ok());
    EXPECT_THAT(std::string(status.message()), Not(HasSubstr("hunter2"))) << option;
  }
}

}  // namespace
}  // namespace dfscsi::agent
