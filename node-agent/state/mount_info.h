// What is mounted where: /proc/self/mountinfo. Reading it asks no file system anything.

#ifndef NODE_AGENT_STATE_MOUNT_INFO_H_
#define NODE_AGENT_STATE_MOUNT_INFO_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace dfscsi::state {

// Of our mounts.
inline constexpr std::string_view kFileSystemType = "fuse.dfs-csi";

// One line.
struct MountInfo {
  uint32_t dev_major = 0;
  uint32_t dev_minor = 0;
  std::string mount_point;
  std::string type;
  std::string source;
};
// Lines that are something else are left out.
std::vector<MountInfo> ParseMountInfo(std::string_view text);
std::vector<MountInfo> ReadMountInfo();

// "" if it cannot be read.
std::string ReadFile(const std::string& path);

}  // namespace dfscsi::state

#endif  // NODE_AGENT_STATE_MOUNT_INFO_H_
