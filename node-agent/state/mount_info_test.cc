#include "node-agent/state/mount_info.h"

#include <gtest/gtest.h>

namespace dfscsi::state {
namespace {

TEST(MountInfoTest, IsParsed) {
  const std::vector<MountInfo> mounts = ParseMountInfo(
      "22 1 253:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw\n"
      "36 22 0:42 / /mnt/a\\040b\\134c rw,nosuid shared:2 master:3 - fuse.dfs-csi //h/s ro\n"
      "garbage\n"
      "37 22 x:y / /bad rw - tmpfs t rw\n");
  ASSERT_EQ(mounts.size(), 2u);
  EXPECT_EQ(mounts[0].mount_point, "/");
  EXPECT_EQ(mounts[0].type, "ext4");
  EXPECT_EQ(mounts[1].mount_point, "/mnt/a b\\c");
  EXPECT_EQ(mounts[1].type, "fuse.dfs-csi");
  EXPECT_EQ(mounts[1].source, "//h/s");
  EXPECT_EQ(mounts[1].dev_major, 0u);
  EXPECT_EQ(mounts[1].dev_minor, 42u);
}

TEST(MountInfoTest, OwnOneIsRead) {
  const std::vector<MountInfo> mounts = ReadMountInfo();
  EXPECT_FALSE(mounts.empty());
}

}  // namespace
}  // namespace dfscsi::state
