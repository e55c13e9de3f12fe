#include "node-agent/agent/mount_options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"

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

TEST(MountOptionsTest, TheLastOfRoAndRwCounts) {
  EXPECT_FALSE(Parse({"rw"}).vfs.read_only);
  EXPECT_FALSE(Parse({"ro", "rw"}).vfs.read_only);
  EXPECT_TRUE(Parse({"rw", "ro"}).vfs.read_only);
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
                                      "failover_writes=replay",
                                      "durable",
                                      "write_behind",
                                      "failback=10m",
                                      "site=Berlin",
                                      "ro",
                                      "mfsymlinks",
                                      "nouser_xattr",
                                      "nobrl",
                                      "rsize=1",
                                      "noserverino"});
  EXPECT_FALSE(options.vfs.locks);
  EXPECT_TRUE(options.vfs.replay_writes);
  EXPECT_TRUE(options.vfs.durable);
  EXPECT_TRUE(options.vfs.write_behind);
  EXPECT_EQ(options.vfs.uid, 1000u);
  EXPECT_EQ(options.vfs.gid, 2000u);
  EXPECT_EQ(options.vfs.file_mode, 0640u);
  EXPECT_EQ(options.vfs.dir_mode, 0750u);
  EXPECT_EQ(options.vfs.actimeo, absl::Seconds(30));
  EXPECT_FALSE(options.vfs.check_identity);
  EXPECT_TRUE(options.vfs.mf_symlinks);
  EXPECT_FALSE(Parse({}).vfs.mf_symlinks);
  EXPECT_FALSE(options.vfs.user_xattr);
  EXPECT_TRUE(Parse({"nouser_xattr", "user_xattr"}).vfs.user_xattr);
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
  EXPECT_EQ(options.vfs.durable_for, absl::Minutes(1));
  EXPECT_EQ(options.dfs.referral_ttl_min, absl::ZeroDuration());
  EXPECT_EQ(options.dfs.referral_ttl_max, absl::Hours(1));
  EXPECT_EQ(options.dfs.failback, dfs::Failback::kAlways);
  EXPECT_EQ(options.dfs.failback_dwell, absl::Minutes(10));
  EXPECT_EQ(options.dfs.site, "Berlin");
  EXPECT_THAT(options.warnings, ::testing::Contains("option rsize has no effect"));
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
      {"actime=1", "unknown option 'actime'; the nearest is actimeo"},
      {"referal_ttl_min=1", "the nearest is referral_ttl_min"},
      {"VERS=3", "unknown option 'VERS'; the nearest is vers"},
      {"vers=1.0", "vers=1.0: is not spoken"},
      {"vers=4", "must be 2.1"},
      {"vers", "needs a value"},
      {"vers=", "needs a value"},
      {"ro=1", "takes no value"},
      {"failback=soon", "must be never, referral or a duration"},
      {"failover_writes=maybe", "must be error or replay"},
      {"failover_identity=maybe", "must be on, off or strict"},
      {"sec=krb5", "not implemented yet"},
      {"sec=none", "must be ntlmssp"},
      {"guest", "every mount needs a user"},
      {"domian=x", "the nearest is domain"},
      {"loose", "unknown option 'loose'"},
      {"username2=x", "the nearest is username"},
      {"sing", "unknown option 'sing'; the nearest is sign"},
      {"pasword=x", "unknown option 'pasword'; the nearest is password"},
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
      {"cache=loose", "must be strict or none"},
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

TEST(MountOptionsTest, ANameThatIsLikeNoneIsNotTakenForOne) {
  for (const std::string option : {"multiuser", "loose", "cifsacl", "x"}) {
    EXPECT_EQ(ParseMountOptions({option}).status().message(), "unknown option '" + option + "'");
  }
}

TEST(MountOptionsTest, WhatNobodyHasCheckedIsNotShown) {
  const std::pair<std::string, std::string> kCases[] = {{"ro", "ro"},
                                                        {"uid=7", "uid=7"},
                                                        {"rsize=hunter2\nforged", "rsize"},
                                                        {"nofail=hunter2", "nofail"},
                                                        {"nofail", "nofail"}};
  for (const auto& [option, shown] : kCases) {
    EXPECT_TRUE(ParseMountOptions({option}).ok()) << option;
    EXPECT_EQ(ShownOption(option), shown);
  }
}

TEST(MountOptionsTest, ASecretInTheWrongPlaceIsNotRepeated) {
  for (const std::string option : {"password=hunter2", "pass=hunter2", "passwrd=hunter2"}) {
    const absl::Status status = ParseMountOptions({option}).status();
    EXPECT_FALSE(status.ok());
    EXPECT_THAT(std::string(status.message()), Not(HasSubstr("hunter2"))) << option;
  }
}

// ---- docs/options.md ----

struct Row {
  std::vector<std::string> names;
  std::vector<std::string> aliases;
  std::string values;
  std::string default_value;
};

// What stands `so` in a cell.
std::vector<std::string> Quoted(absl::string_view cell) {
  std::vector<std::string> words;
  const std::vector<absl::string_view> parts = absl::StrSplit(cell, '`');
  for (size_t i = 1; i < parts.size(); i += 2) words.emplace_back(parts[i]);
  return words;
}

// Rows of tables of options; those of exit codes have other columns.
std::vector<Row> DocumentedOptions() {
  std::ifstream page(DFSCSI_OPTIONS_PAGE);
  std::vector<Row> rows;
  for (std::string line; std::getline(page, line);) {
    const std::vector<std::string> columns = absl::StrSplit(line, '|');
    if (columns.size() != 8 || !absl::StartsWith(line, "| `")) continue;
    Row row{Quoted(columns[1]), Quoted(columns[2]), columns[3], ""};
    const std::vector<std::string> defaults = Quoted(columns[4]);
    if (!defaults.empty()) row.default_value = defaults[0];
    rows.push_back(std::move(row));
  }
  return rows;
}

std::string ErrorOf(const std::string& option) {
  const std::vector<std::string> options = {option};
  return std::string(ParseMountOptions(options).status().message());
}

std::vector<std::string> AcceptedValues(const Row& row) {
  static const std::map<absl::string_view, std::string> kExamples = {
      {"duration", "1h"}, {"number", "1000"}, {"octal", "0755"}, {"port", "1445"}, {"text", "x.y"}};
  const std::pair<absl::string_view, absl::string_view> parts =
      absl::StrSplit(row.values, absl::MaxSplits("not yet", 1));
  std::vector<std::string> values = Quoted(parts.first);
  for (const auto& [word, example] : kExamples) {
    if (absl::StrContains(parts.first, word)) values.push_back(example);
  }
  if (!row.default_value.empty()) values.push_back(row.default_value);
  return values;
}

TEST(OptionsPageTest, EveryDocumentedValueIsWhatThePageSays) {
  const std::vector<Row> rows = DocumentedOptions();
  ASSERT_GE(rows.size(), 25u);
  for (const Row& row : rows) {
    std::vector<std::string> names = row.names;
    for (const std::string& alias : row.aliases) {
      if (!absl::StrContains(alias, '=')) names.push_back(alias);
    }
    for (const std::string& name : names) {
      const std::string alone = ErrorOf(name);
      if (absl::StrContains(alone, "the credential is not part")) continue;
      const absl::string_view values = absl::StripAsciiWhitespace(row.values);
      if (values == "refused") {
        EXPECT_THAT(alone, HasSubstr("refused")) << name;
      } else if (values == "not yet") {
        EXPECT_THAT(alone, HasSubstr("not implemented yet")) << name;
      } else if (values.empty()) {
        EXPECT_EQ(alone, "") << name;
      }
      if (values == "refused" || values == "not yet") continue;
      for (const std::string& value : AcceptedValues(row)) {
        EXPECT_EQ(ErrorOf(absl::StrCat(name, "=", value)), "") << name;
      }
      const size_t later = row.values.find("not yet");
      if (later == std::string::npos) continue;
      for (const std::string& value : Quoted(row.values.substr(later))) {
        EXPECT_THAT(ErrorOf(absl::StrCat(name, "=", value)), HasSubstr("not implemented yet"));
      }
    }
  }
}

TEST(OptionsPageTest, EveryNameIsDocumented) {
  std::set<std::string> documented;
  for (const Row& row : DocumentedOptions()) {
    documented.insert(row.names.begin(), row.names.end());
    for (const std::string& alias : row.aliases)
      documented.insert(alias.substr(0, alias.find('=')));
  }
  for (const std::string& name : MountOptionNames()) EXPECT_EQ(documented.count(name), 1u) << name;
}

TEST(MountOptionsTest, WhatIsNotAppliedIsSaid) {
  EXPECT_THAT(Parse({"noexec"}).warnings, ElementsAre("option noexec has no effect"));
}

TEST(MountOptionsTest, WhatAnotherOptionLeavesNothingToDoIsSaid) {
  const struct {
    std::vector<std::string> options;
    std::vector<std::string> warnings;
  } kCases[] = {
      {{"write_behind"}, {"option write_behind has no effect without rw"}},
      {{"durable"}, {"option durable has no effect without rw"}},
      {{"failover_writes=replay"}, {"option failover_writes=replay has no effect without rw"}},
      {{"rw", "write_behind", "nolease"}, {"option write_behind has no effect with nolease"}},
      {{"rw", "write_behind", "cache=none"}, {"option write_behind has no effect with cache=none"}},
      {{"rw", "failover_writes=replay", "write_behind"},
       {"option write_behind has no effect with failover_writes=replay"}},
      {{"rw", "write_behind", "durable"}, {}},
      {{"rw", "failover_writes=replay", "nolease"}, {}},
  };
  for (const auto& test : kCases) {
    EXPECT_THAT(Parse(test.options).warnings, ::testing::ElementsAreArray(test.warnings))
        << absl::StrJoin(test.options, ",");
  }
}

}  // namespace
}  // namespace dfscsi::agent
