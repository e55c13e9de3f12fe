// Names that the protocol takes, and the disk of a server may not.

#ifndef NODE_AGENT_VFS_LONG_NAME_H_
#define NODE_AGENT_VFS_LONG_NAME_H_

#include <errno.h>

#include <string_view>
#include <type_traits>
#include <utility>

#include "absl/status/status.h"
#include "node-agent/runtime/task.h"
#include "node-agent/vfs/errno.h"

namespace dfscsi::vfs {

// The protocol counts 255 UTF-16 units; the file systems below a Samba server count 255 bytes.
inline constexpr size_t kMostNameBytesOfDisks = 255;

template <typename Result>
runtime::Task<Result> TellTooLong(runtime::Task<Result> making) {
  Result made = co_await std::move(making);
  int error = 0;
  if constexpr (std::is_same_v<Result, absl::Status>) {
    error = ErrnoOf(made);
  } else {
    error = ErrnoOf(made.status());
  }
  if (error == ENOENT) co_return ErrnoError(ENAMETOOLONG, "a name too long for the server's disk");
  co_return made;
}

// What makes a name: "not found" is what a server says of a new one that its disk does not take.
template <typename Result>
runtime::Task<Result> Naming(std::string_view name, runtime::Task<Result> making) {
  if (name.size() <= kMostNameBytesOfDisks) return making;
  return TellTooLong(std::move(making));
}

}  // namespace dfscsi::vfs

#endif  // NODE_AGENT_VFS_LONG_NAME_H_
