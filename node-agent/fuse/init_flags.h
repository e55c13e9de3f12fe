// What we ask the kernel for when a mount is made (FUSE_INIT). The mounter answers INIT with these,
// ANDed with the kernel's offer; they cannot change in the life of a mount.

#ifndef NODE_AGENT_FUSE_INIT_FLAGS_H_
#define NODE_AGENT_FUSE_INIT_FLAGS_H_

#include <linux/fuse.h>

#include <cstdint>

namespace dfscsi::fuse {

// Newer than Debian 12's <linux/fuse.h>.
inline constexpr uint64_t kInitDirectIoAllowMmap = uint64_t{1} << 36;
inline constexpr uint64_t kInitHasResend = uint64_t{1} << 39;
inline constexpr uint64_t kInitAllowIdmap = uint64_t{1} << 40;

// Not among them, and why:
//   ATOMIC_O_TRUNC      the kernel would write mapped pages back after we have emptied the file: it
//                       holds them back only for a SETATTR
//   ASYNC_DIO           a process in an O_DIRECT read could not be killed any more
//   AUTO_INVAL_DATA     we tell the kernel when data changed (EXPLICIT_INVAL_DATA)
//   NO_OPENDIR_SUPPORT  a directory stream has state here: SMB has no seekable positions
//   WRITEBACK_CACHE     the kernel would own sizes and times of files that others change, too
//   SPLICE_*            no gain was measured
inline constexpr uint64_t kInitFlags =
    FUSE_ASYNC_READ | FUSE_BIG_WRITES | FUSE_PARALLEL_DIROPS | FUSE_MAX_PAGES | FUSE_INIT_EXT |
    FUSE_DO_READDIRPLUS | FUSE_READDIRPLUS_AUTO | FUSE_EXPLICIT_INVAL_DATA |
    FUSE_HANDLE_KILLPRIV_V2 | kInitHasResend | kInitDirectIoAllowMmap | kInitAllowIdmap;
// But with nobrl: SETLK and its like are ours. Without them the kernel keeps locks to itself, also
// those of a mount that an earlier version made.
inline constexpr uint64_t kInitLockFlags = FUSE_POSIX_LOCKS | FUSE_FLOCK_LOCKS;

}  // namespace dfscsi::fuse

#endif  // NODE_AGENT_FUSE_INIT_FLAGS_H_
