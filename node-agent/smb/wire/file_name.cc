#include "node-agent/smb/wire/file_name.h"

#include <optional>

#include "node-agent/base/status_macros.h"
#include "node-agent/smb/wire/utf16.h"

namespace dfscsi::smb::wire {
namespace {

constexpr char16_t kMapped = 0xF000;

// Illegal wherever it stands. '/' and NUL cannot be in a Linux name and have no mapping.
bool IsIllegal(char16_t unit) {
  switch (unit) {
    case u'"':
    case u'*':
    case u':':
    case u'<':
    case u'>':
    case u'?':
    case u'\\':
    case u'|':
      return true;
    default:
      return unit >= 0x01 && unit <= 0x1F;
  }
}

bool IsIllegalAtEnd(char16_t unit) { return unit == u' ' || unit == u'.'; }

char16_t UnitAt(Bytes utf16le, size_t index) {
  return static_cast<char16_t>(utf16le[2 * index] | utf16le[2 * index + 1] << 8);
}

}  // namespace

absl::Status AppendWireName(std::string_view name, std::u16string* wire) {
  if (name.empty() || name == "." || name == "..") {
    return absl::InvalidArgumentError("a file cannot be named empty, \".\" or \"..\"");
  }
  std::optional<std::u16string> units = Utf8ToUtf16(name);
  if (!units.has_value()) return absl::InvalidArgumentError("file name is not UTF-8");
  if (units->size() > kMaxNameUnits) return absl::OutOfRangeError("file name too long");
  for (char16_t& unit : *units) {
    if (unit == u'/' || unit == u'\0') {
      return absl::InvalidArgumentError("file name with '/' or NUL");
    }
    if (IsIllegal(unit)) unit |= kMapped;
  }
  if (IsIllegalAtEnd(units->back())) units->back() |= kMapped;
  wire->append(*units);
  return absl::OkStatus();
}

absl::StatusOr<std::u16string> WirePath(std::string_view path) {
  std::u16string wire;
  if (path.empty()) return wire;
  for (;;) {
    const size_t slash = path.find('/');
    RETURN_IF_ERROR(AppendWireName(path.substr(0, slash), &wire));
    if (wire.size() > kMaxPathUnits) return absl::OutOfRangeError("path too long");
    if (slash == std::string_view::npos) return wire;
    wire.push_back(u'\\');
    path.remove_prefix(slash + 1);
  }
}

bool FromWireName(Bytes utf16le, std::string* name) {
  if (utf16le.empty() || utf16le.size() % 2 != 0) return false;
  const size_t count = utf16le.size() / 2;
  bool mapped = false;
  for (size_t i = 0; i < count; ++i) {
    const char16_t unit = UnitAt(utf16le, i);
    if (unit == u'/' || unit == u'\\' || unit == u'\0') return false;
    mapped |= (unit & 0xFF80) == kMapped;
  }
  name->clear();
  if (!mapped) {
    AppendUtf8(utf16le, name);
    return true;
  }
  std::u16string units = Utf16FromBytes(utf16le);
  for (size_t i = 0; i < count; ++i) {
    if ((units[i] & 0xFF80) != kMapped) continue;
    const char16_t original = units[i] & 0x7F;
    const bool at_end = i + 1 == count;
    if (IsIllegal(original) || (at_end && IsIllegalAtEnd(original))) units[i] = original;
  }
  *name = Utf16ToUtf8(units);
  return true;
}

}  // namespace dfscsi::smb::wire
