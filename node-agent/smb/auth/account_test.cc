#include "node-agent/smb/auth/account.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace dfscsi::smb::auth {
namespace {

struct Case {
  const char* user;
  const char* domain;
  const char* ntlm;
  const char* realm;
  const char* display;
};

TEST(AccountTest, Spellings) {
  const Case kCases[] = {
      {"ann", "", "ann", "", "ann"},
      {"ann", "CORP", "CORP\\ann", "", "CORP\\ann"},
      {"ann", "corp.example.com", "corp.example.com\\ann", "CORP.EXAMPLE.COM",
       "corp.example.com\\ann"},
      {"CORP\\ann", "", "CORP\\ann", "", "CORP\\ann"},
      {"CORP;ann", "", "CORP\\ann", "", "CORP\\ann"},
      {"CORP\\ann", "corp", "CORP\\ann", "", "CORP\\ann"},
      {"ann@corp.example.com", "", "ann\\@corp.example.com", "CORP.EXAMPLE.COM",
       "ann@corp.example.com"},
      {"ann@CORP", "", "ann\\@CORP", "CORP", "ann@CORP"},
      {"ann@x", "CORP", "CORP\\ann@x", "", "CORP\\ann@x"},
      {"CORP\\ann@x", "", "CORP\\ann@x", "", "CORP\\ann@x"},
      {"J\xc3\xb6rg M", "", "J\xc3\xb6rg M", "", "J\xc3\xb6rg M"},
      {"", "", "", "", ""},
  };
  for (const Case& c : kCases) {
    const auto account = ParseAccount(c.user, c.domain);
    ASSERT_TRUE(account.ok()) << c.user << ": " << account.status();
    EXPECT_EQ(NtlmName(*account), c.ntlm) << c.user;
    EXPECT_EQ(RealmOf(*account), c.realm) << c.user;
    EXPECT_EQ(DisplayName(*account), c.display) << c.user;
  }
}

TEST(AccountTest, RefusesWhatIsNoName) {
  const std::pair<const char*, const char*> kCases[] = {
      {"CORP\\", ""},    {"\\ann", ""},    {"@corp", ""}, {"ann@", ""},
      {"A\\B\\ann", ""}, {"A;B\\ann", ""}, {"a@b@c", ""}, {"CORP\\ann", "OTHER"},
      {"ann", "CO\\RP"}, {"ann", "a@b"},   {"ann\n", ""}, {"ann", "C\tRP"},
      {"a\xff", ""},
  };
  for (const auto& [user, domain] : kCases) {
    const auto account = ParseAccount(user, domain);
    EXPECT_EQ(account.status().code(), absl::StatusCode::kInvalidArgument) << user << " " << domain;
  }
}

TEST(AccountTest, Utf8) {
  for (const char* good : {"", "abc", "\xc2\x80", "\xe0\xa0\x80", "\xed\x9f\xbf",
                           "\xf0\x90\x80\x80", "\xf4\x8f\xbf\xbf", "a\xc3\xb6z"}) {
    EXPECT_TRUE(IsUtf8(good)) << good;
  }
  for (const char* bad :
       {"\x80", "\xc1\xbf", "\xc3", "a\xc3z", "\xe0\x9f\xbf", "\xed\xa0\x80", "\xe2\x82",
        "\xf0\x8f\xbf\xbf", "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xff"}) {
    EXPECT_FALSE(IsUtf8(bad)) << bad;
  }
}

}  // namespace
}  // namespace dfscsi::smb::auth
