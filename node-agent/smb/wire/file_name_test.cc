#include "node-agent/smb/wire/file_name.h"

#include <gtest/gtest.h>

#include "node-agent/smb/wire/test_bytes.h"

namespace dfscsi::smb::wire {
namespace {

std::vector<uint8_t> WireBytes(std::u16string_view name) {
  std::vector<uint8_t> bytes;
  Writer(&bytes).Utf16(name);
  return bytes;
}

TEST(FileNameTest, MapsWhatWindowsForbidsAndBack) {
  const struct {
    std::string linux_name;
    std::u16string wire;
  } kCases[] = {
      {"plain", u"plain"},
      {"a:b",
       u"a\xF03A"
       u"b"},
      {"\"*:<>?\\|", u"\xF022\xF02A\xF03A\xF03C\xF03E\xF03F\xF05C\xF07C"},
      {"\x01\x1F", u"\xF001\xF01F"},
      {"dot.", u"dot\xF02E"},
      {"space ", u"space\xF020"},
      {"...", u"..\xF02E"},
      {".hidden name", u".hidden name"},
      {"\x7F", u"\x7F"},
      {"Grüße 日本 😀", u"Grüße 日本 \xD83D\xDE00"},
      {"lone \xED\xA0\x80", u"lone \xD800"},
  };
  for (const auto& test : kCases) {
    std::u16string wire;
    ASSERT_TRUE(AppendWireName(test.linux_name, &wire).ok()) << test.linux_name;
    EXPECT_EQ(wire, test.wire) << test.linux_name;
    std::string back;
    ASSERT_TRUE(FromWireName(WireBytes(wire), &back)) << test.linux_name;
    EXPECT_EQ(back, test.linux_name);
  }
}

TEST(FileNameTest, MapsBackOnlyWhatItWouldMap) {
  std::string name;
  // 'A' is legal, '/' must never appear, a dot or space inside needs no mapping.
  const std::u16string kNames[] = {{0xF041}, {u'a', 0xF02F, u'b'}, {0xF02E, u'b'}, {0xF020, u'b'}};
  for (const std::u16string& wire : kNames) {
    ASSERT_TRUE(FromWireName(WireBytes(wire), &name));
    std::u16string again;
    ASSERT_TRUE(AppendWireName(name, &again).ok());
    EXPECT_EQ(again, wire);
  }
}

TEST(FileNameTest, EveryUnitOfAServersNameComesBackAsItWas) {
  for (uint32_t unit = 1; unit <= 0xFFFF; ++unit) {
    for (const std::u16string& wire : {std::u16string{static_cast<char16_t>(unit), u'x'},
                                       std::u16string{u'x', static_cast<char16_t>(unit)}}) {
      std::string name;
      if (!FromWireName(WireBytes(wire), &name)) {
        ASSERT_TRUE(unit == u'/' || unit == u'\\') << std::hex << unit;
        continue;
      }
      std::u16string back;
      ASSERT_TRUE(AppendWireName(name, &back).ok()) << std::hex << unit;
      // A server that stores a forbidden character itself is the one case that has no way back.
      if (back != wire) {
        ASSERT_LT(unit, 0x80u) << std::hex << unit;
      }
    }
  }
}

TEST(FileNameTest, RefusesNamesThatCannotExist) {
  const std::string kInvalid[] = {"", ".", "..", "a/b", std::string("a\0b", 3), "\xFF", "\xC0\x80"};
  for (const std::string& name : kInvalid) {
    std::u16string wire;
    EXPECT_EQ(AppendWireName(name, &wire).code(), absl::StatusCode::kInvalidArgument) << name;
    EXPECT_TRUE(wire.empty());
  }
  std::u16string wire;
  EXPECT_TRUE(AppendWireName(std::string(255, 'x'), &wire).ok());
  EXPECT_EQ(AppendWireName(std::string(256, 'x'), &wire).code(), absl::StatusCode::kOutOfRange);
}

TEST(FileNameTest, NamesOfServersThatMustNotReachTheKernel) {
  std::string name;
  for (const std::u16string& wire : {std::u16string(), std::u16string(u"a/b"),
                                     std::u16string(u"..\\x"), std::u16string(u"a\0b", 3)}) {
    EXPECT_FALSE(FromWireName(WireBytes(wire), &name));
  }
  EXPECT_FALSE(FromWireName(FromHex("610062"), &name));
}

TEST(WirePathTest, JoinsComponentsByBackslash) {
  EXPECT_EQ(*WirePath(""), u"");
  EXPECT_EQ(*WirePath("a"), u"a");
  EXPECT_EQ(*WirePath("a/b:c/d."),
            u"a\\b\xF03A"
            u"c\\d\xF02E");
  for (const char* path : {"/", "/a", "a/", "a//b", "a/../b", "."}) {
    EXPECT_EQ(WirePath(path).status().code(), absl::StatusCode::kInvalidArgument) << path;
  }
  std::string longest = "x";
  while (longest.size() < kMaxPathUnits) longest += "/x";
  EXPECT_TRUE(WirePath(longest).ok());
  EXPECT_EQ(WirePath(longest + "/x").status().code(), absl::StatusCode::kOutOfRange);
}

}  // namespace
}  // namespace dfscsi::smb::wire
