// Symbolic links as files ("Minshall+French", mfsymlinks of cifs): 1067 bytes that begin with XSym.
//
//   XSym\n  four digits\n  MD5 of the target, 32 hex digits\n  the target\n  blanks to the end
// The digits are the target's length; with the longest target nothing comes behind it.

#ifndef NODE_AGENT_VFS_MF_SYMLINK_H_
#define NODE_AGENT_VFS_MF_SYMLINK_H_

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

#include "node-agent/vfs/attributes.h"

namespace dfscsi::vfs {

inline constexpr size_t kMfSymlinkBytes = 1067;
inline constexpr size_t kMostMfTargetBytes = 1024;

// True if only its content tells whether a file is one.
bool MayBeMfSymlink(const ServerAttributes& attributes);

// The target; nullopt: the content is that of a plain file.
std::optional<std::string> ParseMfSymlink(std::string_view content);

// REQUIRES: 0 < target.size() <= kMostMfTargetBytes.
std::string MfSymlinkOf(std::string_view target);

}  // namespace dfscsi::vfs

#endif  // NODE_AGENT_VFS_MF_SYMLINK_H_
