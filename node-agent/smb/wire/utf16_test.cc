#include "node-agent/smb/wire/utf16.h"

#include <gtest/gtest.h>

#include "node-agent/smb/wire/test_bytes.h"

namespace dfscsi::smb::wire {
namespace {

TEST(Utf16Test, ConvertsBothWays) {
  const struct {
    const char* utf8;
    std::u16string utf16;
  } kCases[] = {
      {"", u""},
      {"plain.txt", u"plain.txt"},
      {"\x7F", u"\x7F"},
      {"\xC2\x80", u"\x80"},
      {"Grüße", u"Grüße"},
      {"\xDF\xBF", u"\x7FF"},
      {"\xE0\xA0\x80", u"\x800"},
      {"日本語", u"日本語"},
      {"\xEF\xBF\xBF", u"\xFFFF"},
      {"\xF0\x90\x80\x80", u"\xD800\xDC00"},
      {"😀", u"\xD83D\xDE00"},
      {"\xF4\x8F\xBF\xBF", u"\xDBFF\xDFFF"},
      // Lone surrogates, in every position in which they stay alone.
      {"\xED\xA0\x80", u"\xD800"},
      {"\xED\xBF\xBF", u"\xDFFF"},
      {"\xED\xA0\x80x", u"\xD800x"},
      {"\xED\xB0\x80\xED\xA0\x80", u"\xDC00\xD800"},
      {"\xED\xA0\x80\xF0\x90\x80\x80", u"\xD800\xD800\xDC00"},
  };
  for (const auto& test : kCases) {
    const std::optional<std::u16string> utf16 = Utf8ToUtf16(test.utf8);
    ASSERT_TRUE(utf16.has_value()) << test.utf8;
    EXPECT_EQ(*utf16, test.utf16) << test.utf8;
    EXPECT_EQ(Utf16ToUtf8(test.utf16), test.utf8);
    // From bytes at an odd address.
    std::vector<uint8_t> bytes(1);
    Writer(&bytes).Utf16(test.utf16);
    std::string appended = "/";
    AppendUtf8(Bytes(bytes).subspan(1), &appended);
    EXPECT_EQ(appended, std::string("/") + test.utf8);
    EXPECT_EQ(Utf16FromBytes(Bytes(bytes).subspan(1)), test.utf16);
  }
}

TEST(Utf16Test, EveryUnitSurvivesTheWayThroughUtf8) {
  for (uint32_t unit = 0; unit <= 0xFFFF; ++unit) {
    const std::u16string utf16 = {u'a', static_cast<char16_t>(unit), u'b'};
    const std::optional<std::u16string> back = Utf8ToUtf16(Utf16ToUtf8(utf16));
    ASSERT_TRUE(back.has_value()) << unit;
    ASSERT_EQ(*back, utf16) << unit;
  }
}

TEST(Utf16Test, RejectsWhatIsNotWtf8) {
  constexpr const char* kCases[] = {
      "\x80",                      // Continuation without a lead.
      "a\xC3",                     // Cut short.
      "\xE2\x82",                  //
      "\xF0\x9F\x98",              //
      "\xC3(",                     // Not a continuation.
      "\xC0\x80",                  // Overlong NUL.
      "\xC1\xBF",                  // Overlong.
      "\xE0\x9F\xBF",              //
      "\xF0\x8F\xBF\xBF",          //
      "\xF4\x90\x80\x80",          // Beyond U+10FFFF.
      "\xF8\x88\x80\x80\x80",      // Five bytes.
      "\xFF",                      //
      "\xED\xA0\x80\xED\xB0\x80",  // U+10000 as two surrogates: a second spelling.
  };
  for (const char* text : kCases) EXPECT_FALSE(Utf8ToUtf16(text).has_value()) << text;
}

TEST(Utf16Test, DropsATrailingOddByte) {
  EXPECT_EQ(Utf16FromBytes(FromHex("610062")), u"a");
  std::string text;
  AppendUtf8(FromHex("610062"), &text);
  EXPECT_EQ(text, "a");
}

TEST(FoldCaseTest, FoldsAsWindowsDoes) {
  const struct {
    char16_t unit;
    char16_t folded;
  } kCases[] = {
      {u'a', u'A'},
      {u'z', u'Z'},
      {u'A', u'A'},
      {u'`', u'`'},
      {u'{', u'{'},
      {u'ä', u'Ä'},
      {u'ÿ', u'Ÿ'},
      {u'÷', u'÷'},
      {u'ā', u'Ā'},
      {u'Ā', u'Ā'},
      {u'я', u'Я'},
      {u'ё', u'Ё'},
      {u'ω', u'Ω'},
      {u'σ', u'Σ'},
      {u'ς', u'Σ'},
      {u'ა', u'Ა'},
      {u'ａ', u'Ａ'},
      {u'ⓐ', u'Ⓐ'},
      {u'ǆ', u'Ǆ'},
      {u'ǅ', u'Ǆ'},
      // One letter, two in upper case: no simple upper case.
      {u'ß', u'ß'},
      // These would equal a letter of another script or of ASCII.
      {u'ı', u'ı'},
      {u'ſ', u'ſ'},
      {u'µ', u'µ'},
      {0x212A, 0x212A},
      // No letters at all.
      {0xD83D, 0xD83D},
      {0xF03A, 0xF03A},
      {0xFFFF, 0xFFFF},
      {0, 0},
  };
  for (const auto& test : kCases) {
    EXPECT_EQ(uint32_t{FoldCase(test.unit)}, uint32_t{test.folded}) << uint32_t{test.unit};
  }
}

TEST(FoldCaseTest, IsIdempotent) {
  for (uint32_t unit = 0; unit <= 0xFFFF; ++unit) {
    const char16_t folded = FoldCase(static_cast<char16_t>(unit));
    ASSERT_EQ(uint32_t{FoldCase(folded)}, uint32_t{folded}) << unit;
  }
}

TEST(FoldCaseTest, StringsFoldUnitForUnit) {
  EXPECT_EQ(FoldCase(std::u16string_view(u"Größe Я😀")), u"GRÖßE Я\xD83D\xDE00");
  EXPECT_TRUE(EqualsIgnoreCase(u"\\DFS\\Straße", u"\\dfs\\straßE"));
  EXPECT_FALSE(EqualsIgnoreCase(u"strasse", u"straße"));
  EXPECT_FALSE(EqualsIgnoreCase(u"a", u"ab"));
  EXPECT_EQ(FoldCaseUtf8("größe я 😀 \xFF!"), "GRÖßE Я 😀 \xFF!");
}

}  // namespace
}  // namespace dfscsi::smb::wire
