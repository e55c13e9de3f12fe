#include "node-agent/agent/memory_limit.h"

#include <filesystem>
#include <fstream>
#include <limits>

#include "gtest/gtest.h"

namespace dfscsi::agent {
namespace {

class MemoryLimitTest : public testing::Test {
 protected:
  MemoryLimitTest() : root_(testing::TempDir() + "/cgroups") { std::filesystem::remove_all(root_); }
  ~MemoryLimitTest() override { std::filesystem::remove_all(root_); }

  void Write(const std::string& path, const std::string& text) {
    const std::filesystem::path file(root_ + path);
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file) << text;
  }
  uint64_t Limit(const std::string& membership) { return MemoryLimitBytes(membership, root_); }

  const std::string root_;
};

constexpr uint64_t kNone = std::numeric_limits<uint64_t>::max();

TEST_F(MemoryLimitTest, TheLeastOfTheGroupAndThoseAboveIt) {
  Write("/pods/memory.max", "300\n");
  Write("/pods/one/memory.max", "max\n");
  Write("/pods/two/memory.max", "200\n");
  Write("/pods/three/memory.max", "400\n");
  EXPECT_EQ(Limit("0::/pods/one\n"), 300u);
  EXPECT_EQ(Limit("0::/pods/two\n"), 200u);
  EXPECT_EQ(Limit("0::/pods/three\n"), 300u);
  EXPECT_EQ(Limit("0::/\n"), kNone);
}

TEST_F(MemoryLimitTest, InAContainerThePathMayBeTheHosts) {
  Write("/memory.max", "500\n");
  EXPECT_EQ(Limit("0::/kubepods.slice/pod1/container\n"), 500u);
  EXPECT_EQ(Limit("0::/\n"), 500u);
}

TEST_F(MemoryLimitTest, Version1) {
  Write("/memory/docker/abc/memory.limit_in_bytes", "700\n");
  const std::string membership = "12:cpu,cpuacct:/x\n5:memory,other:/docker/abc\n0::/y\n";
  EXPECT_EQ(Limit(membership), 700u);
  Write("/memory/memory.limit_in_bytes", "9223372036854771712\n");
  EXPECT_EQ(Limit(membership), 700u);
}

TEST_F(MemoryLimitTest, WhatCannotBeReadIsNoLimit) {
  Write("/pods/memory.max", "many");
  for (const char* const text : {"", "nonsense", "0::", ":::", "0::/pods", "1:memory:", "\n\n"}) {
    EXPECT_EQ(Limit(text), kNone) << text;
  }
  EXPECT_GT(OwnMemoryLimitBytes(), 1u << 20);
}

}  // namespace
}  // namespace dfscsi::agent
