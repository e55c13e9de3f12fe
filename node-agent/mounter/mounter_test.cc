#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include "node-agent/mounter/fuse_mount.h"

namespace dfscsi::mounter {
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
  EXPECT_EQ(mounts[1].dev_major, 0u);
  EXPECT_EQ(mounts[1].dev_minor, 42u);
}

TEST(MountInfoTest, OwnOneIsRead) {
  const std::vector<MountInfo> mounts = ReadMountInfo();
  EXPECT_FALSE(mounts.empty());
}

TEST(MountRootTest, PathsStayBelowIt) {
  auto root = MountRoot::Open("/tmp");
  ASSERT_TRUE(root.has_value());
  EXPECT_FALSE(MountRoot::Open("/nonexistent").has_value());
  EXPECT_FALSE(MountRoot::Open("tmp").has_value());
  for (const char* path : {"/etc", "/tmp", "/tmpfile", "tmp/x", "", "/tmp/../etc"}) {
    MountRoot::Made made;
    const auto error = root->Mount({.mount_point = path, .max_write = 1 << 20}, &made);
    ASSERT_TRUE(error.has_value()) << path;
    EXPECT_THAT(error->error, testing::AnyOf(EPERM, EINVAL)) << path << ": " << error->text;
  }
}

TEST(FuseDeviceTest, OtherDescriptorsAreRefused) {
  int fds[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
  const UniqueFd a(fds[0]), b(fds[1]);
  EXPECT_FALSE(IsFuseDevice(a.get()));
  EXPECT_FALSE(IsFuseDevice(-1));
}

}  // namespace
}  // namespace dfscsi::mounter
