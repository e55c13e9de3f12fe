#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "node-agent/smb/wire/file_name.h"
#include "node-agent/smb/wire/round_trip.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace dfscsi::smb::wire;
  // A server's name: what comes through must be fit for the kernel, and lead back to the same name
  // unless the server stores a character that SMB forbids.
  std::string name;
  if (FromWireName(Bytes(data, size), &name)) {
    Require(!name.empty() && name.find('/') == std::string::npos &&
            name.find('\0') == std::string::npos);
    std::u16string wire;
    const bool accepted = AppendWireName(name, &wire).ok();
    const std::u16string sent = UnitsOf(Bytes(data, size));
    const bool has_ascii_specials =
        std::any_of(sent.begin(), sent.end(), [](char16_t unit) { return unit < u'A'; }) ||
        sent.find(u'|') != std::u16string::npos;
    if (accepted && !has_ascii_specials) Require(wire == sent);
  }
  // A user's path.
  const std::string_view path(reinterpret_cast<const char*>(data), size);
  if (const absl::StatusOr<std::u16string> wire = WirePath(path); wire.ok()) {
    Require(wire->size() <= kMaxPathUnits);
    Require(wire->find(u'/') == std::u16string::npos);
    Require(wire->find(u':') == std::u16string::npos);
  }
  return 0;
}
