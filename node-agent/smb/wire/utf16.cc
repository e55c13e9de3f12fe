#include "node-agent/smb/wire/utf16.h"

#include <string.h>

#include <algorithm>
#include <iterator>

namespace dfscsi::smb::wire {
namespace {

constexpr char32_t kInvalid = 0xFFFFFFFF;

bool IsHighSurrogate(char32_t unit) { return unit >= 0xD800 && unit <= 0xDBFF; }
bool IsLowSurrogate(char32_t unit) { return unit >= 0xDC00 && unit <= 0xDFFF; }

bool IsContinuation(char byte) { return (static_cast<uint8_t>(byte) & 0xC0) == 0x80; }

// Takes one code point (surrogates are let through) off the front of `utf8`; kInvalid leaves it.
char32_t TakeCodePoint(std::string_view& utf8) {
  const uint8_t lead = static_cast<uint8_t>(utf8[0]);
  size_t length = 0;
  char32_t point = 0;
  char32_t smallest = 0;
  if (lead < 0x80) {
    utf8.remove_prefix(1);
    return lead;
  }
  if ((lead & 0xE0) == 0xC0) {
    length = 2, point = lead & 0x1F, smallest = 0x80;
  } else if ((lead & 0xF0) == 0xE0) {
    length = 3, point = lead & 0x0F, smallest = 0x800;
  } else if ((lead & 0xF8) == 0xF0) {
    length = 4, point = lead & 0x07, smallest = 0x10000;
  } else {
    return kInvalid;
  }
  if (utf8.size() < length) return kInvalid;
  for (size_t i = 1; i < length; ++i) {
    if (!IsContinuation(utf8[i])) return kInvalid;
    point = point << 6 | (static_cast<uint8_t>(utf8[i]) & 0x3F);
  }
  if (point < smallest || point > 0x10FFFF) return kInvalid;
  utf8.remove_prefix(length);
  return point;
}

void AppendCodePoint(char32_t point, std::string* utf8) {
  if (point < 0x80) {
    utf8->push_back(static_cast<char>(point));
  } else if (point < 0x800) {
    utf8->push_back(static_cast<char>(0xC0 | point >> 6));
    utf8->push_back(static_cast<char>(0x80 | (point & 0x3F)));
  } else if (point < 0x10000) {
    utf8->push_back(static_cast<char>(0xE0 | point >> 12));
    utf8->push_back(static_cast<char>(0x80 | (point >> 6 & 0x3F)));
    utf8->push_back(static_cast<char>(0x80 | (point & 0x3F)));
  } else {
    utf8->push_back(static_cast<char>(0xF0 | point >> 18));
    utf8->push_back(static_cast<char>(0x80 | (point >> 12 & 0x3F)));
    utf8->push_back(static_cast<char>(0x80 | (point >> 6 & 0x3F)));
    utf8->push_back(static_cast<char>(0x80 | (point & 0x3F)));
  }
}

// `unit_at(i)` gives the i-th of `count` units.
template <typename UnitAt>
void AppendUnits(size_t count, UnitAt unit_at, std::string* utf8) {
  for (size_t i = 0; i < count; ++i) {
    const char32_t unit = unit_at(i);
    if (IsHighSurrogate(unit) && i + 1 < count && IsLowSurrogate(unit_at(i + 1))) {
      const char32_t low = unit_at(++i);
      AppendCodePoint(0x10000 + ((unit - 0xD800) << 10) + (low - 0xDC00), utf8);
    } else {
      AppendCodePoint(unit, utf8);
    }
  }
}

struct UpcaseRun {
  uint16_t first;
  uint16_t last;
  int step;
  int delta;
};

constexpr UpcaseRun kUpcase[] = {
#include "node-agent/smb/wire/upcase_table.inc"
};

}  // namespace

std::u16string Utf16FromBytes(Bytes utf16le) {
  std::u16string text(utf16le.size() / 2, u'\0');
  if (!text.empty()) memcpy(text.data(), utf16le.data(), text.size() * 2);
  return text;
}

std::optional<std::u16string> Utf8ToUtf16(std::string_view utf8) {
  std::u16string utf16;
  utf16.reserve(utf8.size());
  while (!utf8.empty()) {
    const char32_t point = TakeCodePoint(utf8);
    if (point == kInvalid) return std::nullopt;
    if (point >= 0x10000) {
      utf16.push_back(static_cast<char16_t>(0xD800 + ((point - 0x10000) >> 10)));
      utf16.push_back(static_cast<char16_t>(0xDC00 + ((point - 0x10000) & 0x3FF)));
      continue;
    }
    // Two lone surrogates that would become a pair: that character has a four-byte spelling.
    const bool pairs = IsLowSurrogate(point) && !utf16.empty() && IsHighSurrogate(utf16.back());
    if (pairs) return std::nullopt;
    utf16.push_back(static_cast<char16_t>(point));
  }
  return utf16;
}

std::string Utf16ToUtf8(std::u16string_view utf16) {
  std::string utf8;
  utf8.reserve(utf16.size());
  AppendUnits(utf16.size(), [utf16](size_t i) -> char32_t { return utf16[i]; }, &utf8);
  return utf8;
}

void AppendUtf8(Bytes utf16le, std::string* utf8) {
  AppendUnits(
      utf16le.size() / 2,
      [utf16le](size_t i) -> char32_t {
        return static_cast<char32_t>(utf16le[2 * i] | utf16le[2 * i + 1] << 8);
      },
      utf8);
}

char16_t FoldCase(char16_t unit) {
  if (unit < 0x80) return unit >= u'a' && unit <= u'z' ? static_cast<char16_t>(unit - 32) : unit;
  const UpcaseRun* run = std::lower_bound(
      std::begin(kUpcase), std::end(kUpcase), unit,
      [](const UpcaseRun& candidate, char16_t value) { return candidate.last < value; });
  if (run == std::end(kUpcase) || unit < run->first) return unit;
  if ((unit - run->first) % run->step != 0) return unit;
  return static_cast<char16_t>(unit + run->delta);
}

std::u16string FoldCase(std::u16string_view utf16) {
  std::u16string folded(utf16);
  for (char16_t& unit : folded) unit = FoldCase(unit);
  return folded;
}

bool EqualsIgnoreCase(std::u16string_view a, std::u16string_view b) {
  return a.size() == b.size() &&
         std::equal(a.begin(), a.end(), b.begin(),
                    [](char16_t x, char16_t y) { return FoldCase(x) == FoldCase(y); });
}

std::string FoldCaseUtf8(std::string_view utf8) {
  std::string folded;
  folded.reserve(utf8.size());
  while (!utf8.empty()) {
    const char32_t point = TakeCodePoint(utf8);
    if (point == kInvalid) {
      folded.push_back(utf8[0]);
      utf8.remove_prefix(1);
    } else {
      // Characters beyond the BMP are surrogate pairs, and those have no case here.
      AppendCodePoint(point < 0x10000 ? FoldCase(static_cast<char16_t>(point)) : point, &folded);
    }
  }
  return folded;
}

}  // namespace dfscsi::smb::wire
