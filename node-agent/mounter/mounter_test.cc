#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include "node-agent/mounter/fuse_mount.h"

namespace dfscsi::mounter {
namespace {

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
