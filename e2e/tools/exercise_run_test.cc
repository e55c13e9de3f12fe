#include "e2e/tools/exercise_run.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "e2e/tools/file_exercise.h"
#include "e2e/tools/tree_exercise.h"

namespace dfscsi::exercise {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class ExerciseRunTest : public ::testing::Test {
 protected:
  ExerciseRunTest() {
    std::string made = ::testing::TempDir() + "/exercise-XXXXXX";
    folder_ = mkdtemp(made.data());
  }
  ~ExerciseRunTest() override { std::filesystem::remove_all(folder_); }

  std::unique_ptr<Exercise> MakeFile() {
    return std::make_unique<FileExercise>(FileExercise::Options{
        .path = folder_ + "/file", .size_max_bytes = 128 << 10, .direct = true});
  }
  std::unique_ptr<Exercise> MakeTree() {
    return std::make_unique<TreeExercise>(
        TreeExercise::Options{.folder = folder_ + "/tree", .names = TreeExercise::names_max()});
  }

  std::string folder_;
};

TEST_F(ExerciseRunTest, ALocalDiskDoesAsTheModelsDo) {
  for (uint64_t seed = 1; seed <= 2; ++seed) {
    SCOPED_TRACE(seed);
    const RunOptions options{.seed = seed, .operations = 2000, .check_every = 100};
    for (const auto& exercise : {MakeFile(), MakeTree()}) {
      const RunOutcome outcome = RunAtRandom(exercise.get(), options);
      EXPECT_TRUE(outcome.status.ok()) << outcome.operations.back() << ": " << outcome.status;
      EXPECT_EQ(outcome.operations.size(), 2000);
      EXPECT_EQ(outcome.operations.back(), "check");
      exercise->End();
    }
  }
}

TEST_F(ExerciseRunTest, OneSeedIsOneSequence) {
  const RunOptions options{.seed = 7, .operations = 500};
  const RunOptions others{.seed = 8, .operations = 500};
  const auto exercise = MakeFile();
  const RunOutcome outcome = RunAtRandom(exercise.get(), options);
  EXPECT_EQ(RunAtRandom(exercise.get(), options).operations, outcome.operations);
  EXPECT_NE(RunAtRandom(exercise.get(), others).operations, outcome.operations);
  EXPECT_EQ(RunAgain(exercise.get(), outcome.operations).operations, outcome.operations);
}

TEST_F(ExerciseRunTest, ALieIsFound) {
  const RunOptions options{.seed = 3, .operations = 2000, .lie_at = 700};
  for (const auto& exercise : {MakeFile(), MakeTree()}) {
    const RunOutcome outcome = RunAtRandom(exercise.get(), options);
    EXPECT_THAT(std::string(outcome.status.message()), HasSubstr("wrong bytes"));
    EXPECT_GE(outcome.operations.size(), 700);
    EXPECT_LT(outcome.operations.size(), 800);
  }
}

// Goes wrong once a "bad" comes anywhere after a "set".
class FakeExercise final : public Exercise {
 public:
  absl::Status Begin() override {
    set_ = false;
    return absl::OkStatus();
  }
  std::string Draw(Random&) override { return "nothing"; }
  absl::Status Run(absl::string_view operation) override {
    if (operation == "set") set_ = true;
    return set_ && operation == "bad" ? absl::InternalError("bad") : absl::OkStatus();
  }
  bool Lie(Random&) override { return false; }
  void End() override {}

 private:
  bool set_ = false;
};

TEST_F(ExerciseRunTest, ShrinkingLeavesWhatIsNeeded) {
  FakeExercise exercise;
  std::vector<std::string> operations(200, "nothing");
  operations[37] = "set";
  operations[150] = "bad";
  const std::optional<RunOutcome> shrunk = Shrink(&exercise, operations, absl::Seconds(30));
  ASSERT_TRUE(shrunk.has_value());
  EXPECT_THAT(shrunk->operations, ElementsAre("set", "bad"));
  operations[37] = "nothing";
  EXPECT_FALSE(Shrink(&exercise, operations, absl::Seconds(30)).has_value());
}

TEST(RandomTest, SizesCoverTheirRange) {
  Random random(1);
  std::vector<uint64_t> seen;
  for (int i = 0; i < 2000; ++i) {
    seen.push_back(random.Size(100));
    ASSERT_GE(seen.back(), 1);
    ASSERT_LE(seen.back(), 100);
  }
  EXPECT_THAT(seen, Contains(1));
  EXPECT_THAT(seen, Contains(100));
  EXPECT_EQ(random.Size(1), 1);
}

}  // namespace
}  // namespace dfscsi::exercise
