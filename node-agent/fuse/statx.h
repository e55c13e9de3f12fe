// FUSE_STATX (Linux 6.6, FUSE 7.39): what GETATTR answers, and when the file was made. libfuse 3.14
// and Debian 12's <linux/fuse.h> do not know it, so it is decoded as the GETATTR that it begins
// with, and the answer to that is translated.

#ifndef NODE_AGENT_FUSE_STATX_H_
#define NODE_AGENT_FUSE_STATX_H_

#include <linux/fuse.h>

#include <cstdint>
#include <optional>

#include "absl/time/time.h"
#include "absl/types/span.h"

namespace dfscsi::fuse {

inline constexpr uint32_t kFuseStatx = 52;

// Layouts of the kernel's ABI.
struct StatxTime {
  int64_t seconds;
  uint32_t nanoseconds;
  int32_t reserved;
};
struct StatxOut {
  uint64_t attr_valid;
  uint32_t attr_valid_nsec;
  uint32_t flags;
  uint64_t spare[2];
  uint32_t mask;  // STATX_*: what is there.
  uint32_t blksize;
  uint64_t attributes;
  uint32_t nlink;
  uint32_t uid;
  uint32_t gid;
  uint16_t mode;
  uint16_t spare0;
  uint64_t ino;
  uint64_t size;
  uint64_t blocks;
  uint64_t attributes_mask;
  StatxTime atime;
  StatxTime btime;
  StatxTime ctime;
  StatxTime mtime;
  uint32_t rdev_major;
  uint32_t rdev_minor;
  uint32_t dev_major;
  uint32_t dev_minor;
  uint64_t spare2[14];
};
static_assert(sizeof(StatxOut) == 288);

// A GETATTR, for libfuse to decode.
struct GetattrRequest {
  fuse_in_header header;
  fuse_getattr_in body;
};

// `request`: a FUSE_STATX as the kernel sent it. nullopt: too short.
std::optional<GetattrRequest> GetattrOf(absl::Span<const char> request);

StatxOut StatxOf(const fuse_attr_out& attributes, std::optional<absl::Time> born);

}  // namespace dfscsi::fuse

#endif  // NODE_AGENT_FUSE_STATX_H_
