#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "node-agent/smb/wire/round_trip.h"
#include "node-agent/smb/wire/utf16.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace dfscsi::smb::wire;
  // As UTF-8: what is accepted has one spelling.
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  if (const std::optional<std::u16string> units = Utf8ToUtf16(text)) {
    Require(Utf16ToUtf8(*units) == text);
    Require(FoldCaseUtf8(text) == Utf16ToUtf8(FoldCase(*units)));
  } else {
    FoldCaseUtf8(text);
  }
  // As UTF-16: everything has a spelling, and it leads back.
  const Bytes bytes(data, size);
  const std::u16string units = Utf16FromBytes(bytes);
  std::string utf8;
  AppendUtf8(bytes, &utf8);
  Require(utf8 == Utf16ToUtf8(units));
  Require(Utf8ToUtf16(utf8) == units);
  Require(EqualsIgnoreCase(units, FoldCase(units)));
  return 0;
}
