#include "node-agent/dfsctl/direct_name.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <vector>

namespace dfscsi::dfsctl {
namespace {

TEST(DirectNameTest, WhatIsTypedIsWhatAMountWouldSend) {
  const struct {
    const char* typed;
    const char* sent;
  } kRows[] = {
      {"//t1/share/a:b", "//t1/share/a\uF03Ab"},
      {"//t1/share/what?/*", "//t1/share/what\uF03F/\uF02A"},
      {"//t1/share/end.", "//t1/share/end\uF02E"},
      {"//t1/share/plain/grüße", "//t1/share/plain/grüße"},
      {"\\\\t1\\share\\a:b\\", "\\\\t1\\share\\a\uF03Ab\\"},
      {"\\\\t1\\share\\a/b\\c", "\\\\t1\\share\\a/b\\c"},
      // What follows the share says whether a backslash separates, too.
      {"//t1/share/a\\b//\\c\\/", "//t1/share/a\uF05Cb//\uF05Cc\uF05C/"},
      {"//t1/share\\a\\b", "//t1/share\\a\\b"},
      {"\\\\t1\\share/a\\b", "\\\\t1\\share/a\uF05Cb"},
      {"\\/t1\\/share/a", "\\/t1\\/share/a"},
      // As they are: it is said elsewhere what is wrong with them.
      {"//t1@1445/sh:are/", "//t1@1445/sh:are/"},
      {"//[fe80::1]/share/a", "//[fe80::1]/share/a"},
      {"//t1/share/..", "//t1/share/.."},
      {"smb://t1/share", "smb://t1/share"},
      {"", ""},
  };
  for (const auto& row : kRows) EXPECT_EQ(WithWireNames(row.typed), row.sent) << row.typed;
}

TEST(DirectNameTest, ASeparatorAtTheEndIsOfAFolder) {
  for (const char* const typed :
       {"//t1/share/a/", "//t1/share/", "\\\\t1\\share\\a\\", "//t1/share/a//"}) {
    EXPECT_TRUE(NamesFolder(typed)) << typed;
  }
  for (const char* const typed : {"//t1/share/a", "//t1/share", "//t1/share/a\\", ""}) {
    EXPECT_FALSE(NamesFolder(typed)) << typed;
  }
}

TEST(DirectNameTest, ANameThatCannotBeIsNotTakenForSeveral) {
  const std::string half(200, 'n');
  const absl::Status status =
      dfs::DfsPath::Parse(WithWireNames("//t1/share/" + half + "\\" + half)).status();
  EXPECT_FALSE(status.ok());
}

TEST(DirectNameTest, APathIsShownAsItWasTyped) {
  for (const char* const typed :
       {"//t1/share/a:b/c", "//t1/share", "//t1/share/\"<>|?*:/x.", "//t1/share/a\\b/c"}) {
    const absl::StatusOr<dfs::DfsPath> path = dfs::DfsPath::Parse(WithWireNames(typed));
    ASSERT_TRUE(path.ok()) << path.status();
    EXPECT_EQ(ShownPath(*path), typed);
  }
}

TEST(DirectNameTest, ANameIsOneLine) {
  const auto shown = [](const std::u16string& name) {
    std::vector<uint8_t> bytes;
    for (const char16_t unit : name) {
      bytes.push_back(static_cast<uint8_t>(unit));
      bytes.push_back(static_cast<uint8_t>(unit >> 8));
    }
    return ShownName(bytes);
  };
  EXPECT_EQ(shown(u"a\uF03Ab"), "a:b");
  EXPECT_EQ(shown(u"\uF01B[2J\uF00Aforged"), "?[2J?forged");
  EXPECT_EQ(shown(u"\uE03A"), "\uE03A");  // Not one of ours.
  EXPECT_EQ(shown(u"a/b"), std::nullopt);
}

}  // namespace
}  // namespace dfscsi::dfsctl
