// Handles whose agent has died before the kernel was told of them.

#include <fcntl.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "node-agent/state/store_deaths.h"
#include "node-agent/vfs/filesystem_test_lab.h"

namespace dfscsi::vfs {
namespace {

constexpr state::NodeId kRoot = state::kRootNode;

enum class Kind { kOpen, kCreate, kOpenDirectory };
constexpr Kind kKinds[] = {Kind::kOpen, Kind::kCreate, Kind::kOpenDirectory};

struct UndeliveredLab : FilesystemLab {
  UndeliveredLab() {
    share("t1").writable = true;
    share("t1").AddText("file", "0123456789");
    share("t1").AddDirectory("dir");
    Mount("//t1/share");
    file = Walk("file");
    directory = Walk("dir");
  }
  state::FileHandle Make(Kind kind) {
    if (kind == Kind::kOpen) return OpenUndelivered(file, O_RDWR)->fh;
    if (kind == Kind::kCreate) return Create(kRoot, "file", O_RDWR)->open.fh;
    return **Await<absl::StatusOr<state::FileHandle>>(
        [this] { return filesystem().OpenDirectory(directory, runtime::Deadline::Never()); });
  }
  void CloseUndelivered(const std::vector<state::FileHandle>& answered) {
    lab().agent().RunNow([&] { filesystem().CloseUndelivered(answered); });
  }
  uint64_t lookups() { return tables().inodes().Get(file).nlookup(); }
  state::NodeId file = 0;
  state::NodeId directory = 0;
};

TEST(FilesystemUndeliveredTest, AHandleThatNobodyWasToldOfIsClosedByTheNextAgent) {
  for (const Kind kind : kKinds) {
    SCOPED_TRACE(static_cast<int>(kind));
    UndeliveredLab own;
    const uint64_t lookups = own.lookups();
    const state::FileHandle fh = own.Make(kind);
    own.TakeOver();
    EXPECT_TRUE(own.tables().handles().Contains(fh));
    own.CloseUndelivered({});
    EXPECT_EQ(own.tables().handles().size(), 0u);
    EXPECT_EQ(own.lookups(), lookups);
    // Nor is the file hidden, as an open one is: it goes, and its name with it.
    const size_t names = own.share("t1").root()->children.size();
    EXPECT_EQ(own.Unlink(kRoot, "file"), absl::OkStatus());
    EXPECT_EQ(own.share("t1").root()->children.size(), names - 1);
    EXPECT_EQ(own.counters().hidden_files, 0);
  }
}

TEST(FilesystemUndeliveredTest, AHandleThatAnAnswerNamesIsTheKernels) {
  for (const Kind kind : kKinds) {
    SCOPED_TRACE(static_cast<int>(kind));
    UndeliveredLab own;
    const state::FileHandle fh = own.Make(kind);
    const uint64_t lookups = own.lookups();
    own.TakeOver();
    own.CloseUndelivered({fh});
    EXPECT_TRUE(own.tables().handles().Contains(fh));
    // The answer is given, and forgotten.
    own.TakeOver();
    own.CloseUndelivered({});
    EXPECT_TRUE(own.tables().handles().Contains(fh));
    EXPECT_EQ(own.lookups(), lookups);
  }
}

TEST(FilesystemUndeliveredTest, ADeliveredHandleOutlivesItsAgent) {
  for (const Kind kind : kKinds) {
    SCOPED_TRACE(static_cast<int>(kind));
    UndeliveredLab own;
    const state::FileHandle fh = own.Make(kind);
    const uint64_t lookups = own.lookups();
    own.filesystem().HandleDelivered(fh);
    own.TakeOver();
    own.CloseUndelivered({});
    EXPECT_TRUE(own.tables().handles().Contains(fh));
    EXPECT_EQ(own.lookups(), lookups);
    if (kind != Kind::kOpenDirectory) EXPECT_EQ(own.Read(fh, 0, 4).value_or("?"), "0123");
  }
}

TEST(FilesystemUndeliveredTest, OtherHandlesOfTheFileStay) {
  UndeliveredLab own;
  const state::FileHandle kept = own.OpenPath("file");
  own.filesystem().HandleDelivered(kept);
  own.Make(Kind::kOpen);
  own.TakeOver();
  own.CloseUndelivered({});
  EXPECT_EQ(own.tables().handles().size(), 1u);
  EXPECT_EQ(own.Read(kept, 0, 4).value_or("?"), "0123");
  const size_t names = own.share("t1").root()->children.size();
  EXPECT_EQ(own.Unlink(kRoot, "file"), absl::OkStatus());
  EXPECT_EQ(own.share("t1").root()->children.size(), names) << "hidden: it is open";
}

// A lookup that is taken back twice would be the kernel's.
TEST(FilesystemUndeliveredTest, WhoDiesWhileItClosesThemForgetsNothingTwice) {
  bool ended = false;
  for (long stores = 0; !ended && !::testing::Test::HasFailure(); ++stores) {
    SCOPED_TRACE(stores);
    UndeliveredLab own;
    const uint64_t lookups = own.lookups();
    for (const Kind kind : kKinds) own.Make(kind);
    own.TakeOver();
    ended = state::RunUntilStore(stores, [&] { own.CloseUndelivered({}); });
    own.TakeOver();
    own.CloseUndelivered({});
    EXPECT_EQ(own.tables().handles().size(), 0u);
    EXPECT_GE(own.lookups(), lookups);
    EXPECT_LE(own.lookups(), lookups + (ended ? 0 : 1));
  }
}

}  // namespace
}  // namespace dfscsi::vfs
