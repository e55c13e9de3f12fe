#include "node-agent/fuse/statx.h"

#include <linux/stat.h>
#include <string.h>
#include <sys/sysmacros.h>

namespace dfscsi::fuse {
namespace {

// It begins as GETATTR's does: flags, fh.
constexpr size_t kStatxInBytes = sizeof(fuse_getattr_in) + 2 * sizeof(uint32_t);

}  // namespace

std::optional<GetattrRequest> GetattrOf(absl::Span<const char> request) {
  if (request.size() < sizeof(fuse_in_header) + kStatxInBytes) return std::nullopt;
  GetattrRequest getattr = {};
  memcpy(&getattr, request.data(), sizeof(getattr));
  getattr.header.opcode = FUSE_GETATTR;
  getattr.header.len = sizeof(getattr);
  return getattr;
}

StatxOut StatxOf(const fuse_attr_out& attributes, std::optional<absl::Time> born) {
  const fuse_attr& from = attributes.attr;
  StatxOut to = {};
  to.attr_valid = attributes.attr_valid;
  to.attr_valid_nsec = attributes.attr_valid_nsec;
  to.mask = STATX_BASIC_STATS;
  to.blksize = from.blksize;
  to.nlink = from.nlink;
  to.uid = from.uid;
  to.gid = from.gid;
  to.mode = static_cast<uint16_t>(from.mode);
  to.ino = from.ino;
  to.size = from.size;
  to.blocks = from.blocks;
  to.atime = {static_cast<int64_t>(from.atime), from.atimensec, 0};
  to.ctime = {static_cast<int64_t>(from.ctime), from.ctimensec, 0};
  to.mtime = {static_cast<int64_t>(from.mtime), from.mtimensec, 0};
  to.rdev_major = major(from.rdev);
  to.rdev_minor = minor(from.rdev);
  if (born.has_value()) {
    const timespec time = absl::ToTimespec(*born);
    to.mask |= STATX_BTIME;
    to.btime = {time.tv_sec, static_cast<uint32_t>(time.tv_nsec), 0};
  }
  return to;
}

}  // namespace dfscsi::fuse
