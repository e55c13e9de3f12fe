#include "node-agent/dfsctl/log_files.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

#include "node-agent/base/unique_fd.h"

namespace dfscsi::dfsctl {
namespace {

struct LogFilesTest : public ::testing::Test {
  LogFilesTest() {
    std::string made = ::testing::TempDir() + "/log-files-XXXXXX";
    folder = mkdtemp(made.data());
    log = folder + "/a.log";
  }
  ~LogFilesTest() override { std::filesystem::remove_all(folder); }
  static std::string Content(const std::string& path) {
    std::ifstream file(path);
    std::stringstream text;
    text << file.rdbuf();
    return text.str();
  }
  void Say(int fd, const std::string& text) {
    ASSERT_EQ(write(fd, text.data(), text.size()), static_cast<ssize_t>(text.size()));
  }
  std::string folder;
  std::string log;
};

TEST_F(LogFilesTest, AWriterGoesOnInTheLogThatBeginsAnew) {
  const UniqueFd writer(open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0640));
  Say(writer.get(), "0123456789");
  BoundLog(log, 10);
  EXPECT_EQ(Content(log), "0123456789");  // Not longer than it may be.
  EXPECT_FALSE(std::filesystem::exists(log + ".1"));
  Say(writer.get(), "x");
  BoundLog(log, 10);
  EXPECT_EQ(Content(log), "");
  EXPECT_EQ(Content(log + ".1"), "0123456789x");
  Say(writer.get(), "new");
  EXPECT_EQ(Content(log), "new");
  // One old one is kept.
  Say(writer.get(), "0123456789");
  BoundLog(log, 10);
  EXPECT_EQ(Content(log + ".1"), "new0123456789");
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder), {}), 2);
}

TEST_F(LogFilesTest, WhatIsNoLogIsLeftAlone) {
  BoundLog(log, 0);
  EXPECT_FALSE(std::filesystem::exists(log));
  std::ofstream(folder + "/other") << "precious";
  std::filesystem::create_symlink("other", log);
  BoundLog(log, 1);
  EXPECT_EQ(Content(folder + "/other"), "precious");
}

}  // namespace
}  // namespace dfscsi::dfsctl
