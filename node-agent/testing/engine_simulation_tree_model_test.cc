#include "node-agent/testing/engine_simulation_tree_model.h"

#include <errno.h>
#include <gtest/gtest.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "node-agent/testing/scripted_share.h"

namespace dfscsi::simulation {
namespace {

using Kind = Step::Kind;

TreeModel Small() {
  TreeModel model;
  model.Add("a", 1, "content");
  (void)model.Apply({.kind = Kind::kMakeDirectory, .path = "d"});
  return model;
}

TEST(TreeModelTest, EachStepHasItsErrno) {
  const struct {
    Step step;
    int error;
  } kCases[] = {
      {{.kind = Kind::kMakeDirectory, .path = "d"}, EEXIST},
      {{.kind = Kind::kMakeDirectory, .path = "x/y"}, ENOENT},
      {{.kind = Kind::kRemoveDirectory, .path = "d"}, 0},
      {{.kind = Kind::kRemoveDirectory, .path = "a"}, ENOTDIR},
      {{.kind = Kind::kRemoveDirectory, .path = ""}, ENOTEMPTY},
      {{.kind = Kind::kCreate, .path = "a", .file = 2, .exclusive = true}, EEXIST},
      {{.kind = Kind::kCreate, .path = "a", .file = 2}, 0},
      {{.kind = Kind::kCreate, .path = "d", .file = 2}, EISDIR},
      {{.kind = Kind::kOpen, .path = "none"}, ENOENT},
      {{.kind = Kind::kWrite, .through_handle = true, .file = 1, .bytes = "x"}, 0},
      {{.kind = Kind::kWrite, .through_handle = true, .file = 9, .bytes = "x"}, ESTALE},
      {{.kind = Kind::kTruncate, .path = "none"}, ENOENT},
      {{.kind = Kind::kRename, .path = "a", .target = "d"}, EEXIST},
      {{.kind = Kind::kRename, .path = "none", .target = "b"}, ENOENT},
      {{.kind = Kind::kRename, .path = "a", .target = "d/a"}, 0},
      {{.kind = Kind::kUnlink, .path = "d"}, EISDIR},
      {{.kind = Kind::kUnlink, .path = "a"}, 0},
  };
  for (const auto& c : kCases) {
    TreeModel model = Small();
    EXPECT_EQ(model.Apply(c.step), c.error) << c.step.ToString();
  }
}

// Each is a change that a server may have made, and which must show.
TEST(TreeModelTest, EveryDifferenceIsSeen) {
  const struct {
    const char* what;
    void (*change)(testing::ScriptedShare& share);
    const char* says;
  } kCases[] = {
      {"nothing", [](testing::ScriptedShare&) {}, ""},
      {"another byte", [](testing::ScriptedShare& share) { share.AddText("w/a", "contenT"); },
       "differ from 6"},
      {"shorter", [](testing::ScriptedShare& share) { share.Find("w/a")->Resize(3); },
       "has 3 bytes"},
      {"removed", [](testing::ScriptedShare& share) { share.Remove("w/a"); }, "\"a\" is missing"},
      {"made", [](testing::ScriptedShare& share) { share.AddText("w/d/new", ""); },
       "\"d/new\" is there"},
      {"of another kind",
       [](testing::ScriptedShare& share) {
         share.Remove("w/d");
         share.AddText("w/d", "");
       },
       "another kind"},
      {"hidden", [](testing::ScriptedShare& share) { share.AddText("w/.dfscsi01", ""); }, ""},
      {"at another time",
       [](testing::ScriptedShare& share) { share.Find("w/a")->last_write += absl::Seconds(1); },
       "last written"},
  };
  for (const auto& c : kCases) {
    testing::ScriptedShare share;
    share.AddText("w/a", "content");
    share.AddDirectory("w/d");
    TreeModel model = Small();
    (void)model.Apply({.kind = Kind::kSetTime, .path = "a", .time = share.Find("w/a")->last_write});
    c.change(share);
    const std::string difference = model.DifferenceTo(share.Find("w"));
    EXPECT_EQ(difference.empty(), std::string(c.says).empty()) << c.what << ": " << difference;
    EXPECT_NE(difference.find(c.says), std::string::npos) << c.what << ": " << difference;
  }
}

TEST(TreeModelTest, AFileOutlivesItsName) {
  TreeModel model = Small();
  EXPECT_EQ(model.Apply({.kind = Kind::kUnlink, .path = "a"}), 0);
  EXPECT_EQ(
      model.Apply(
          {.kind = Kind::kWrite, .through_handle = true, .file = 1, .appends = true, .bytes = "!"}),
      0);
  EXPECT_EQ(*model.ContentOf(1), "content!");
  EXPECT_FALSE(model.Has("a"));
}

TEST(TreeModelTest, WhatIsInAFolderMovesWithIt) {
  TreeModel model = Small();
  EXPECT_EQ(model.Apply({.kind = Kind::kRename, .path = "a", .target = "d/a"}), 0);
  EXPECT_EQ(model.Apply({.kind = Kind::kRename, .path = "d", .target = "e"}), 0);
  EXPECT_EQ(model.FileAt("e/a"), 1u);
  EXPECT_FALSE(model.Has("d/a"));
}

}  // namespace
}  // namespace dfscsi::simulation
