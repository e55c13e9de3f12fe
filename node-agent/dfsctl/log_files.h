// The logs of the programs that `dfsctl mount` starts, kept from filling the disk.

#ifndef NODE_AGENT_DFSCTL_LOG_FILES_H_
#define NODE_AGENT_DFSCTL_LOG_FILES_H_

#include <sys/types.h>

#include <string>

namespace dfscsi::dfsctl {

inline constexpr off_t kMostLogBytes = 16 << 20;

// If `path` is longer than `most_bytes`, its content goes to `path`.1, in place of what was there,
// and `path` begins anew. Programs that append to it go on doing so; what they say in that instant
// is lost. Missing, or no regular file: nothing is done.
void BoundLog(const std::string& path, off_t most_bytes = kMostLogBytes);

}  // namespace dfscsi::dfsctl

#endif  // NODE_AGENT_DFSCTL_LOG_FILES_H_
