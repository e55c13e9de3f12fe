#include "node-agent/agent/slow_operations.h"

#include <linux/fuse.h>

#include <utility>

#include "node-agent/fuse/statx.h"

namespace dfscsi::agent {

std::optional<int64_t> SlowOperations::Note(absl::Time now) {
  ++total_;
  if (now - since_ >= kPeriod) {
    since_ = now;
    lines_ = 0;
  }
  if (lines_ >= kLines) {
    ++unsaid_;
    return std::nullopt;
  }
  ++lines_;
  return std::exchange(unsaid_, 0);
}

const char* OpcodeName(uint32_t opcode) {
  static constexpr std::pair<uint32_t, const char*> kNames[] = {
      {FUSE_LOOKUP, "LOOKUP"},
      {FUSE_GETATTR, "GETATTR"},
      {FUSE_SETATTR, "SETATTR"},
      {FUSE_READLINK, "READLINK"},
      {FUSE_SYMLINK, "SYMLINK"},
      {FUSE_MKNOD, "MKNOD"},
      {FUSE_MKDIR, "MKDIR"},
      {FUSE_UNLINK, "UNLINK"},
      {FUSE_RMDIR, "RMDIR"},
      {FUSE_RENAME, "RENAME"},
      {FUSE_LINK, "LINK"},
      {FUSE_OPEN, "OPEN"},
      {FUSE_READ, "READ"},
      {FUSE_WRITE, "WRITE"},
      {FUSE_STATFS, "STATFS"},
      {FUSE_FSYNC, "FSYNC"},
      {FUSE_SETXATTR, "SETXATTR"},
      {FUSE_GETXATTR, "GETXATTR"},
      {FUSE_LISTXATTR, "LISTXATTR"},
      {FUSE_REMOVEXATTR, "REMOVEXATTR"},
      {FUSE_FLUSH, "FLUSH"},
      {FUSE_OPENDIR, "OPENDIR"},
      {FUSE_READDIR, "READDIR"},
      {FUSE_CREATE, "CREATE"},
      {FUSE_FALLOCATE, "FALLOCATE"},
      {FUSE_READDIRPLUS, "READDIRPLUS"},
      {FUSE_RENAME2, "RENAME"},
      {FUSE_LSEEK, "LSEEK"},
      {FUSE_COPY_FILE_RANGE, "COPY_FILE_RANGE"},
      {fuse::kFuseStatx, "STATX"},
  };
  for (const auto& [number, name] : kNames) {
    if (number == opcode) return name;
  }
  return "an operation";
}

}  // namespace dfscsi::agent
