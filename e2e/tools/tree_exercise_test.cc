// That the exercise of a tree sees what is wrong: the tree is changed behind its back, or its model
// is.

#include "e2e/tools/tree_exercise.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <string>
#include <vector>

namespace dfscsi::exercise {
namespace {

using ::testing::HasSubstr;

struct Case {
  std::vector<std::string> before;          // Which must succeed.
  std::function<void(std::string)> change;  // Of the folder, behind the exercise's back.
  std::string operation;                    // Which must fail then.
  std::string says;
};

void RemoveA(std::string folder) { ASSERT_EQ(unlink((folder + "/a").c_str()), 0); }
void MakeA(std::string folder) { std::ofstream(folder + "/a") << "x"; }

class TreeExerciseTest : public ::testing::TestWithParam<Case> {
 protected:
  TreeExerciseTest() {
    std::string made = ::testing::TempDir() + "/exercise-XXXXXX";
    folder_ = mkdtemp(made.data());
  }
  ~TreeExerciseTest() override { std::filesystem::remove_all(folder_); }

  std::string folder_;
};

// Name 0 is "a", name 1 "file.txt".
TEST_P(TreeExerciseTest, SeesWhatIsWrong) {
  TreeExercise exercise({.folder = folder_ + "/tree", .names = 4});
  ASSERT_TRUE(exercise.Begin().ok());
  for (const std::string& operation : GetParam().before) {
    const absl::Status status = exercise.Run(operation);
    ASSERT_TRUE(status.ok()) << operation << ": " << status;
  }
  GetParam().change(folder_ + "/tree");
  const absl::Status status = exercise.Run(GetParam().operation);
  EXPECT_FALSE(status.ok());
  EXPECT_THAT(std::string(status.message()), HasSubstr(GetParam().says));
}

INSTANTIATE_TEST_SUITE_P(
    All, TreeExerciseTest,
    ::testing::Values(
        Case{{"create 0 0"}, RemoveA, "stat 0", "stat: ENOENT"},
        Case{{"create 0 0"}, RemoveA, "open 0 1 -", "open: ENOENT instead of 0"},
        Case{{"create 0 0"}, RemoveA, "unlink 0", "unlink: ENOENT instead of 0"},
        Case{{"create 0 0"}, RemoveA, "rename 0 1", "rename: ENOENT instead of 0"},
        Case{{"create 0 0"}, RemoveA, "list 0", "opendir: ENOENT instead of ENOTDIR"},
        Case{{"create 0 0"}, RemoveA, "check", "the listing lacks a"},
        Case{{}, MakeA, "create 0 0", "open: EEXIST instead of 0"},
        Case{{}, MakeA, "open 0 0 -", "open: 0 instead of ENOENT"},
        Case{{}, MakeA, "mkdir 0", "mkdir: EEXIST instead of 0"},
        Case{{}, MakeA, "rmdir 0", "rmdir: ENOTDIR instead of ENOENT"},
        Case{{}, MakeA, "check", "the listing has a"},
        Case{{"create 0 0"}, MakeA, "stat 0", "stat says 1 bytes instead of 0"},
        Case{{"create 0 0"}, MakeA, "open 0 1 -", "stat says 1 bytes instead of 0"},
        Case{{"create 0 0"}, MakeA, "read 0 0 10", "pread: 1 bytes instead of 0"},
        Case{{"create 0 0", "write 0 0 1 5"}, MakeA, "read 0 0 10", "wrong bytes"},
        Case{{"create 0 0", "write 0 0 1 5"}, MakeA, "check", "wrong bytes"},
        Case{{"create 0 0", "write 0 0 1 5", "close 0"}, MakeA, "check", "/tree/a]"},
        Case{{"create 0 0", "rename 0 1"}, MakeA, "rename-new 1 0", "EEXIST instead of 0"},
        Case{{"mkdir 0"},
             [](std::string folder) { std::ofstream(folder + "/a/b") << "x"; },
             "rmdir 0",
             "rmdir: ENOTEMPTY instead of 0"},
        Case{{"mkdir 0", "mkdir 1"},
             [](std::string folder) { std::ofstream(folder + "/a/b") << "x"; },
             "rename 1 0",
             "rename: ENOTEMPTY instead of 0"}));

// Without the bound it is all 16^3 of them in the end.
TEST(TreeExerciseBoundTest, ATreeStaysAboutAsLargeAsItMayBe) {
  for (const size_t bound : {size_t{0}, size_t{10}}) {
    std::string folder = ::testing::TempDir() + "/exercise-XXXXXX";
    ASSERT_NE(mkdtemp(folder.data()), nullptr);
    TreeExercise exercise({.folder = folder + "/tree", .names = 16, .directories = bound});
    ASSERT_TRUE(exercise.Begin().ok());
    Random random(1);
    for (int i = 0; i < 5000; ++i) {
      const std::string operation = exercise.Draw(random);
      ASSERT_TRUE(exercise.Run(operation).ok()) << operation;
    }
    size_t directories = 0;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(folder)) {
      if (entry.is_directory()) ++directories;
    }
    if (bound == 0) EXPECT_GT(directories, 60u);
    if (bound > 0) EXPECT_LT(directories, 25u);
    exercise.End();
    std::filesystem::remove_all(folder);
  }
}

TEST(TreeExerciseLieTest, FindsTheLieInItsModel) {
  std::string folder = ::testing::TempDir() + "/exercise-XXXXXX";
  ASSERT_NE(mkdtemp(folder.data()), nullptr);
  TreeExercise exercise({.folder = folder + "/tree", .names = 4});
  ASSERT_TRUE(exercise.Begin().ok());
  Random random(1);
  EXPECT_FALSE(exercise.Lie(random));
  for (const char* operation : {"mkdir 0", "create 0/1 0", "write 0 5 9 1", "check"}) {
    ASSERT_TRUE(exercise.Run(operation).ok()) << operation;
  }
  EXPECT_TRUE(exercise.Lie(random));
  EXPECT_FALSE(exercise.Run("check").ok());
  exercise.End();
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace dfscsi::exercise
