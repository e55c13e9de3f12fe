// Hidden files whose agent dies while it notes that they are.

#include <fcntl.h>
#include <gtest/gtest.h>

#include <optional>
#include <string>

#include "node-agent/state/store_deaths.h"
#include "node-agent/vfs/filesystem_test_lab.h"

namespace dfscsi::vfs {
namespace {

constexpr state::NodeId kRoot = state::kRootNode;

struct HiddenLab : FilesystemLab {
  HiddenLab() {
    share("t1").writable = true;
    share("t1").AddText("file", "0123456789");
    share("t1").AddText("other", "other");
    Mount("//t1/share");
    Walk("other");
    fh = OpenPath("file");
  }
  size_t names() { return share("t1").root()->children.size(); }
  // Of the open file's name; nullopt: the agent died.
  std::optional<absl::Status> TakeName(bool by_rename, ChangeJournal* journal) {
    return TryChange(
        [this, by_rename, journal](runtime::Deadline until) {
          if (!by_rename) return filesystem().Unlink(kRoot, "file", journal, until);
          return filesystem().Rename(kRoot, "other", kRoot, "file", 0, journal, until);
        },
        absl::Milliseconds(500));
  }
  state::FileHandle fh = 0;
};

TEST(FilesystemHiddenTest, WhoDiesAtAnyStoreLeavesNoHiddenFileForEver) {
  for (const bool by_rename : {false, true}) {
    bool ended = false;
    long stores = 0;
    for (; !ended && !::testing::Test::HasFailure(); ++stores) {
      SCOPED_TRACE(::testing::Message() << stores << (by_rename ? " rename" : " unlink"));
      HiddenLab own;
      const size_t names = own.names();
      TestJournal journal;
      {
        const state::DieAfterStores death(stores);
        ended = own.TakeName(by_rename, &journal).has_value();
      }
      journal.Die();
      journal.asked_ago = absl::Seconds(2);
      own.TakeOver();
      own.lab().agent().RunNow([&] { own.filesystem().ResumeInvalidations(); });
      // The request is still there, and the next agent runs it again.
      if (!ended) {
        const std::optional<absl::Status> again = own.TakeName(by_rename, &journal);
        ASSERT_TRUE(again.has_value());
        EXPECT_EQ(*again, absl::OkStatus());
      }
      EXPECT_EQ(own.Read(own.fh, 0, 100).value_or("?"), "0123456789");
      own.lab().agent().RunNow([&] { own.filesystem().Release(own.fh); });
      own.RunFor(absl::Seconds(10));
      EXPECT_EQ(own.names(), names - 1);
      EXPECT_EQ(own.ContentOf("t1", "file"), by_rename ? "other" : "(none)");
    }
    EXPECT_GT(stores, 4) << "where it dies";
  }
}

}  // namespace
}  // namespace dfscsi::vfs
