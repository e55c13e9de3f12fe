// Where a symbolic link of a server leads, as readlink(2) says it.

#ifndef NODE_AGENT_VFS_REPARSE_TARGET_H_
#define NODE_AGENT_VFS_REPARSE_TARGET_H_

#include <string>

#include "absl/status/statusor.h"
#include "node-agent/smb/wire/reader.h"

namespace dfscsi::vfs {

// `reparse` is what FSCTL_GET_REPARSE_POINT returned. A link never leads out of the mount: a
// server's word must not point a pod at another place of its node or at another server. Errors
// (errno.h): ELOOP, it is absolute or leads to a drive or a server; EIO, malformed; EOPNOTSUPP, a
// kind of link that is not known; EINVAL, no link.
absl::StatusOr<std::string> ReparseTarget(smb::wire::Bytes reparse);

}  // namespace dfscsi::vfs

#endif  // NODE_AGENT_VFS_REPARSE_TARGET_H_
