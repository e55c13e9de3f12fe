#include "node-agent/vfs/mf_symlink.h"

#include <gtest/gtest.h>

#include <string>

namespace dfscsi::vfs {
namespace {

// As other clients write it, byte for byte.
std::string Known() {
  std::string content = "XSym\n0006\n6d9bd718e5d3b23d4f0a9d9ef5e8d9a8\ntarget\n";
  content.resize(1067, ' ');
  return content;
}

TEST(MfSymlinkTest, TheFormatIsThatOfOtherClients) {
  std::string known = Known();
  known.replace(10, 32, "42aefbae01d2dfd981f7da7d823d689e");  // md5sum of "target".
  EXPECT_EQ(MfSymlinkOf("target"), known);
  EXPECT_EQ(ParseMfSymlink(known), "target");
}

TEST(MfSymlinkTest, WhatIsWrittenIsReadAgain) {
  for (const size_t length : {1, 2, 255, 1000, 1023, 1024}) {
    const std::string target(length, 'x');
    const std::string content = MfSymlinkOf(target);
    EXPECT_EQ(content.size(), kMfSymlinkBytes) << length;
    EXPECT_EQ(ParseMfSymlink(content), target) << length;
  }
  EXPECT_EQ(ParseMfSymlink(MfSymlinkOf("/abs/../\xc3\xbc \n")), "/abs/../\xc3\xbc \n");
}

TEST(MfSymlinkTest, WhatIsAPlainFile) {
  const std::string good = MfSymlinkOf("target");
  EXPECT_EQ(ParseMfSymlink(Known()), std::nullopt);  // Another hash.
  EXPECT_EQ(ParseMfSymlink(""), std::nullopt);
  EXPECT_EQ(ParseMfSymlink(good + " "), std::nullopt);
  EXPECT_EQ(ParseMfSymlink(good.substr(1)), std::nullopt);
  struct Case {
    size_t at;
    const char* text;
  } kCases[] = {{0, "x"},    {4, " "},    {5, "0000"}, {5, "0007"}, {5, "1025"}, {5, " 006"},
                {5, "-006"}, {5, "9999"}, {9, " "},    {10, "0"},   {42, " "},   {43, "T"}};
  for (const Case& test : kCases) {
    std::string content = good;
    content.replace(test.at, std::string(test.text).size(), test.text);
    EXPECT_EQ(ParseMfSymlink(content), std::nullopt) << test.at << test.text;
  }
  std::string zero = MfSymlinkOf(std::string("a\0b", 3));
  EXPECT_EQ(ParseMfSymlink(zero), std::nullopt);
}

}  // namespace
}  // namespace dfscsi::vfs
