// One component of a path: as Linux spells it, and as SMB servers accept it.

#ifndef NODE_AGENT_SMB_WIRE_FILE_NAME_H_
#define NODE_AGENT_SMB_WIRE_FILE_NAME_H_

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "node-agent/smb/wire/reader.h"

namespace dfscsi::smb::wire {

inline constexpr size_t kMaxNameUnits = 255;    // Of one component.
inline constexpr size_t kMaxPathUnits = 32767;  // Of all a CREATE can carry.

// Characters that Linux names may have and Windows names may not (" * : < > ? \ |, 0x01–0x1F, and a
// space or dot at the end, which Windows strips) travel as U+F000 + character, a private-use range
// that Services for Unix began with. Everything else travels as it is.
//
// Appends the wire form of `name`. Errors:
//   kInvalidArgument  not WTF-8, empty, ".", "..", or has '/' or NUL: cannot exist (EILSEQ, EINVAL)
//   kOutOfRange       longer than kMaxNameUnits: ENAMETOOLONG
absl::Status AppendWireName(std::string_view name, std::u16string* wire);

// A whole relative path, '/' to '\'; an empty path is the share's root. Empty components ("a//b",
// a leading or trailing '/') are kInvalidArgument; a path longer than kMaxPathUnits is kOutOfRange.
absl::StatusOr<std::u16string> WirePath(std::string_view path);

// Replaces `name` by the Linux spelling of a name that a server sent (UTF-16LE). What
// AppendWireName maps is mapped back, and nothing else, so each name has one spelling. False, and
// `name` undefined, if the name must not reach the kernel: empty, odd length, with '/', '\' or NUL.
// "." and ".." come through; listings have them.
bool FromWireName(Bytes utf16le, std::string* name);

}  // namespace dfscsi::smb::wire

#endif  // NODE_AGENT_SMB_WIRE_FILE_NAME_H_
