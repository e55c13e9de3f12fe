#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdio.h>
#include <string.h>

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <string>
#include <string_view>
#include <type_traits>

#include "node-agent/base/log.h"
#include "node-agent/base/secret.h"
#include "node-agent/base/status_macros.h"
#include "node-agent/base/unique_fd.h"

namespace dfscsi {
namespace {

bool IsOpen(int fd) { return fcntl(fd, F_GETFD) >= 0; }

TEST(UniqueFdTest, ClosesOnceAndMoves) {
  const int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
  ASSERT_GE(fd, 0);
  {
    UniqueFd a(fd);
    UniqueFd b = std::move(a);
    EXPECT_EQ(a.get(), -1);
    EXPECT_EQ(b.get(), fd);
    UniqueFd& same = b;
    b = std::move(same);
    EXPECT_TRUE(IsOpen(fd));
  }
  EXPECT_FALSE(IsOpen(fd));
}

TEST(UniqueFdTest, ReleaseGivesItAway) {
  UniqueFd a(open("/dev/null", O_RDONLY | O_CLOEXEC));
  const int fd = a.release();
  a.reset();
  EXPECT_TRUE(IsOpen(fd));
  close(fd);
}

template <typename T>
concept Printable = requires(std::ostream& os, const T& t) { os << t; };
static_assert(!Printable<Secret>);
static_assert(!std::is_convertible_v<Secret, std::string_view>);

TEST(SecretTest, AMovedFromSecretKeepsNothing) {
  Secret a("short");
  Secret b = std::move(a);
  EXPECT_EQ(b.Expose(), "short");
  EXPECT_TRUE(a.empty());
}

TEST(SecretTest, TheStringItCameInIsWiped) {
  for (const std::string_view text :
       {"short", "a secret that is too long to lie within its string"}) {
    std::string value(text);
    const char* const bytes = value.data();
    const Secret secret(std::move(value));
    EXPECT_EQ(secret.Expose(), text);
    EXPECT_TRUE(std::all_of(bytes, bytes + text.size(), [](char c) { return c == 0; })) << text;
  }
}

TEST(SecretTest, MemoryThatIsGivenBackIsWiped) {
  const std::string text(100, 'x');
  const char* where = nullptr;
  {
    const Secret secret{std::string_view(text)};
    where = secret.Expose().data();
    EXPECT_EQ(where[text.size()], '\0');
  }
  // The first word links free memory; the pages stay mapped.
  EXPECT_EQ(std::count(where, where + text.size(), 'x'), 0);
}

TEST(SecretTest, IsFilledInPlace) {
  Secret secret = Secret::WithRoom(70'000);
  memcpy(secret.data(), "abcdef", 6);
  secret.Truncate(3);
  EXPECT_EQ(secret.Expose(), "abc");
  EXPECT_EQ(secret.data()[3], '\0');
  const Secret copy = secret;
  EXPECT_EQ(copy, secret);
  EXPECT_NE(copy.Expose().data(), secret.Expose().data());
  EXPECT_EQ(Secret::WithRoom(0).Expose(), "");
}

// Core files leave its pages out: "dd" of smaps.
TEST(SecretTest, LiesInPagesThatNoCoreFileHolds) {
  const Secret secret("canary");
  const uintptr_t at = reinterpret_cast<uintptr_t>(secret.Expose().data());
  std::ifstream smaps("/proc/self/smaps");
  bool inside = false;
  for (std::string line; std::getline(smaps, line);) {
    unsigned long from = 0, to = 0;
    if (sscanf(line.c_str(), "%lx-%lx ", &from, &to) == 2) inside = from <= at && at < to;
    if (inside && line.starts_with("VmFlags:")) {
      EXPECT_NE(line.find(" dd"), std::string::npos) << line;
      return;
    }
  }
  FAIL() << "not in smaps";
}

absl::StatusOr<int> Half(int n) {
  if (n % 2 != 0) return absl::InvalidArgumentError("odd");
  return n / 2;
}
absl::StatusOr<int> Quarter(int n) {
  ASSIGN_OR_RETURN(const int half, Half(n));
  RETURN_IF_ERROR(Half(half).status());
  return half / 2;
}

TEST(StatusMacrosTest, ReturnsTheFirstError) {
  EXPECT_EQ(*Quarter(8), 2);
  EXPECT_EQ(Quarter(6).status().message(), "odd");
  EXPECT_EQ(Quarter(3).status().message(), "odd");
}

// What a block of code writes to stderr.
template <class Work>
std::string StderrOf(Work work) {
  testing::internal::CaptureStderr();
  work();
  return testing::internal::GetCapturedStderr();
}

TEST(LogTest, ServerTextCannotForgeALine) {
  const std::string text = StderrOf([] { LogWarning("name ", "a\nE b\x7f", " ", 7); });
  EXPECT_THAT(text, testing::EndsWith(" W name a\\x0aE b\\x7f 7\n"));
}

TEST(LogTest, LevelsAndLongLines) {
  SetLogLevel(*ParseLogLevel("warning"));
  EXPECT_EQ(StderrOf([] { LogInfo("not this"); }), "");
  SetLogLevel(LogLevel::kInfo);
  EXPECT_THAT(StderrOf([] { LogInfo("this"); }), testing::EndsWith(" I this\n"));
  EXPECT_LE(StderrOf([] { LogError(std::string(10000, 'x')); }).size(), 4096u);
  EXPECT_FALSE(ParseLogLevel("loud").has_value());
}

TEST(LogTest, AFullPipeDropsLinesInsteadOfBlocking) {
  int ends[2];
  ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
  UniqueFd reader(ends[0]), writer(ends[1]);
  UniqueFd saved(dup(STDERR_FILENO));
  ASSERT_GE(dup2(writer.get(), STDERR_FILENO), 0);
  const int64_t before = DroppedLogLines();
  for (int i = 0; i < 100; ++i) LogError(std::string(3000, 'x'));
  ASSERT_GE(dup2(saved.get(), STDERR_FILENO), 0);
  EXPECT_GT(DroppedLogLines(), before);
}

}  // namespace
}  // namespace dfscsi
