#include "node-agent/dfsctl/credentials_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <string_view>

#include "node-agent/smb/credential.h"

namespace dfscsi::dfsctl {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using namespace std::string_view_literals;

absl::StatusOr<smb::Credential> Parse(std::string_view text) {
  return ParseCredentials({text.data(), text.size()}, "file");
}

TEST(CredentialsFileTest, ValuesAreTakenAsTheyAre) {
  const struct {
    std::string_view text, user, domain, password;
  } kCases[] = {
      {"username=u\npassword=p\n", "u", "", "p"},
      {"username=u\r\npassword=p\r\n", "u", "", "p"},
      {"# comment\n\n user=u\ndom=D\npass= p=, \n", "u", "D", " p=, "},
      {"\xEF\xBB\xBFusername=u\npassword=p", "u", "", "p"},
      {"username=D\\u\npassword=\"p\"\n", "D\\u", "", "\"p\""},
      {"username=\u00fc\ndomain=\npassword=p\u00e4\u94fe\n", "\u00fc", "", "p\u00e4\u94fe"},
      {"username=a\nusername=b\npassword=p\npassword=q\n", "b", "", "q"},
  };
  for (const auto& c : kCases) {
    const absl::StatusOr<smb::Credential> read = Parse(c.text);
    ASSERT_TRUE(read.ok()) << read.status();
    EXPECT_EQ(read->user, c.user);
    EXPECT_EQ(read->domain, c.domain);
    EXPECT_EQ(read->password.Expose(), c.password);
  }
}

// Before any server or agent is asked: neither could say which file is to be mended.
TEST(CredentialsFileTest, WhatNoServerCanBeAskedWithIsRefused) {
  const struct {
    std::string_view text, says;
  } kCases[] = {
      {"username=\xff\xfe\npassword=hunter2\n"sv, "the user name is not UTF-8"},
      {"username=a\0b\npassword=hunter2\n"sv, "control character"},
      {"username=a\rpassword=hunter2\r"sv, "no password="},
      {"username=u\ndomain=\xed\xa0\x80\npassword=hunter2\n"sv, "not UTF-8"},
      {"username=A\\u\ndomain=B\npassword=hunter2\n"sv, "another domain"},
      {"username=u\npassword=hunter2\0\n"sv, "the password is not UTF-8 text"},
      {"username=u\npassword=hunter2\xff\n"sv, "the password is not UTF-8 text"},
      {"username=u\nhunter2\n"sv, "line 2"},
  };
  for (const auto& c : kCases) {
    const absl::Status status = Parse(c.text).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << c.says;
    const std::string message(status.message());
    EXPECT_THAT(message, HasSubstr(std::string(c.says)));
    EXPECT_THAT(message, HasSubstr("file"));
    EXPECT_THAT(message, Not(HasSubstr("hunter2")));
  }
}

}  // namespace
}  // namespace dfscsi::dfsctl
