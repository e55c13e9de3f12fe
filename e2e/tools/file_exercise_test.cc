// That the exercise of a file sees what is wrong: the file is changed behind its back, or its model
// is.

#include "e2e/tools/file_exercise.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <unistd.h>

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "e2e/tools/shadow_file.h"

namespace dfscsi::exercise {
namespace {

using ::testing::HasSubstr;

std::string Folder() {
  std::string folder = ::testing::TempDir() + "/exercise-XXXXXX";
  return mkdtemp(folder.data());
}

struct Case {
  std::vector<std::string> before;  // Which must succeed.
  std::string operation;            // Which must fail then.
  std::string says;
};

class FileExerciseTest : public ::testing::Test {
 protected:
  FileExerciseTest()
      : path_(Folder() + "/file"),
        exercise_({.path = path_, .size_max_bytes = 64 << 10, .direct = true}) {}
  ~FileExerciseTest() override {
    exercise_.End();
    std::filesystem::remove_all(std::filesystem::path(path_).parent_path());
  }

  // A table of cases, each after `change`.
  void ExpectFailures(const std::vector<Case>& cases, const std::function<void()>& change) {
    for (const Case& c : cases) {
      SCOPED_TRACE(c.operation);
      ASSERT_TRUE(exercise_.Begin().ok());
      for (const std::string& operation : c.before) {
        const absl::Status status = exercise_.Run(operation);
        ASSERT_TRUE(status.ok()) << operation << ": " << status;
      }
      change();
      const absl::Status status = exercise_.Run(c.operation);
      EXPECT_FALSE(status.ok());
      EXPECT_THAT(std::string(status.message()), HasSubstr(c.says));
    }
  }

  std::string path_;
  FileExercise exercise_;
};

TEST_F(FileExerciseTest, SeesAWrongByteByEachWayOfReading) {
  ExpectFailures(
      {
          {{"write a 0 1 1"}, "read a 0 10", "the first at 0x0"},
          {{"write a 0 1 1"}, "read b 0 1", "the first at 0x0"},
          {{"write a 0 1 1"}, "direct-read 0 4096", "the first at 0x0"},
          {{"write a 0 1 1"}, "map-read 0 1", "the first at 0x0"},
          {{"write a 0 1 1", "hold"}, "map-read 0 1", "the first at 0x0"},
          {{"write a 0 1 1"}, "copy 0 100 1", "the first at 0x0"},
          {{"write a 0 1 1"}, "check", "the first at 0x0"},
          {{"cut a 1"}, "seek-hole 0", "the first at 0x0"},
          {{"cut a 1"}, "seek-data 0", "the first at 0x0"},
      },
      [this] {
        Random random(1);
        ASSERT_TRUE(exercise_.Lie(random));
      });
}

TEST_F(FileExerciseTest, SeesAWrongSize) {
  ExpectFailures(
      {
          {{"write a 0 5000 1"}, "read a 0 10", "pread: 3 bytes instead of 10"},
          {{"write a 0 5000 1"}, "stat", "stat says 3 bytes instead of 5000"},
          {{"write a 0 5000 1"}, "fsync a", "fstat says 3 bytes instead of 5000"},
          {{"write a 0 5000 1"}, "map-read 4096 10", "SIGBUS"},
          {{"write a 0 5000 1"}, "append 4 2", "fstat says 7 bytes instead of 5004"},
          {{"write a 0 5000 1"},
           "copy-range 4096 0 100",
           "copy_file_range: 0 bytes instead of 100"},
      },
      [this] { ASSERT_EQ(truncate(path_.c_str(), 3), 0); });
}

TEST_F(FileExerciseTest, SeesAnErrno) {
  ExpectFailures(
      {
          {{}, "truncate 5", "truncate: ENOENT"},
          {{}, "append 5 1", "ENOENT"},
          {{}, "reopen b", "ENOENT"},
          {{}, "empty", "ENOENT"},
          {{}, "check", "stat: ENOENT"},
      },
      [this] { ASSERT_EQ(unlink(path_.c_str()), 0); });
}

TEST_F(FileExerciseTest, SeesWhatWasWrittenBehindItsBack) {
  ExpectFailures(
      {{{"write a 0 9000 7"}, "check", "where there must be"},
       {{"write a 0 9000 7", "clear 4096 4096", "punch 0 100"}, "check", "(zeros)"},
       {{"write a 0 9000 7", "forget"}, "map-read 5000 10", "(write 7 for offset 0x1388)"}},
      [this] {
        const int fd = open(path_.c_str(), O_WRONLY | O_CLOEXEC);
        ASSERT_EQ(pwrite(fd, "changed!", 8, 5000), 8);
        close(fd);
      });
}

TEST_F(FileExerciseTest, KnowsNoOtherOperation) {
  ASSERT_TRUE(exercise_.Begin().ok());
  EXPECT_EQ(exercise_.Run("melt 1").code(), absl::StatusCode::kInvalidArgument);
}

TEST(ShadowFileTest, SaysWhichWriteAByteCameFrom) {
  ShadowFile shadow(4096);
  std::vector<uint8_t> first(64);
  FillContent(11, 0, absl::MakeSpan(first));
  shadow.Write(0, first);
  std::vector<uint8_t> second(64);
  FillContent(12, 0, absl::MakeSpan(second));
  const std::string wrong(shadow.Compare(0, second).message());
  EXPECT_THAT(wrong, HasSubstr("write 12 for offset 0"));
  EXPECT_THAT(wrong, HasSubstr("write 11 for offset 0"));
  FillContent(11, 64, absl::MakeSpan(second));
  EXPECT_THAT(std::string(shadow.Compare(0, second).message()),
              HasSubstr("write 11 for offset 0x40 (elsewhere"));
}

TEST(ShadowFileTest, GrowsWithZerosOnly) {
  ShadowFile shadow(100);
  shadow.Write(0, std::vector<uint8_t>(50, 1));
  shadow.Resize(10);
  shadow.Resize(20);
  EXPECT_TRUE(shadow.Compare(10, std::vector<uint8_t>(10, 0)).ok());
  EXPECT_FALSE(shadow.Compare(10, std::vector<uint8_t>(11, 0)).ok());
}

}  // namespace
}  // namespace dfscsi::exercise
