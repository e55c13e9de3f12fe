// Files that one thread uses while another one changes their names, has locked them or sets their
// times.

#include <errno.h>
#include <fcntl.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "node-agent/vfs/errno.h"
#include "node-agent/vfs/filesystem_test_lab.h"

namespace dfscsi::vfs {
namespace {

using runtime::Deadline;
using runtime::Task;
using smb::wire::Command;
using testing::Closing;

constexpr state::NodeId kRoot = state::kRootNode;

enum class Kind { kRemove, kRename, kReplace };
constexpr const char* kNames[] = {"removed", "renamed", "replaced"};

class SharedFilesTest : public ::testing::Test {
 protected:
  SharedFilesTest() {
    testing::ScriptedShare& share = lab_.share("t1");
    share.writable = true;
    share.AddText("file", "0123456789");
    share.AddText("other", "abc");
    share.AddText("unseen", "vwxyz");
    lab_.Mount("//t1/share", {.actimeo = absl::ZeroDuration()});
    lab_.Walk("other");
    node_ = lab_.Walk("file");
  }

  static Task<void> Remove(Filesystem* filesystem, absl::Status* result) {
    *result = co_await filesystem->Unlink(kRoot, "file", nullptr, Deadline::Never());
  }
  static Task<void> Rename(Filesystem* filesystem, std::string name, std::string target,
                           absl::Status* result) {
    *result =
        co_await filesystem->Rename(kRoot, name, kRoot, target, 0, nullptr, Deadline::Never());
  }
  static Task<void> Look(Filesystem* filesystem, state::NodeId node,
                         absl::StatusOr<AttributesReply>* result) {
    *result = co_await filesystem->GetAttributes(node, Deadline::Never());
  }
  static Task<void> Open(Filesystem* filesystem, state::NodeId node,
                         absl::StatusOr<OpenReply>* result) {
    *result = co_await filesystem->Open(node, O_RDWR, nullptr, Deadline::Never());
  }
  // Begun in this order, and run to their ends.
  void Both(Task<void> first, Task<void> second) {
    std::unique_ptr<runtime::TaskGroup> group;
    lab_.lab().agent().RunNow([&] {
      group = std::make_unique<runtime::TaskGroup>();
      group->Spawn(std::move(first));
      group->Spawn(std::move(second));
    });
    lab_.RunFor(absl::Minutes(1));
    lab_.lab().agent().RunNow([&] { group.reset(); });
    EXPECT_EQ(changed_, absl::OkStatus());
  }
  Task<void> Change(Kind kind) {
    if (kind == Kind::kRemove) return Remove(&lab_.filesystem(), &changed_);
    if (kind == Kind::kRename) return Rename(&lab_.filesystem(), "file", "moved", &changed_);
    return Rename(&lab_.filesystem(), "other", "file", &changed_);
  }
  void Lock(state::FileHandle fh) {
    ASSERT_EQ(lab_.Change([&](Deadline until) {
      return lab_.filesystem().SetLock(
          {.type = LockType::kExclusive, .owner = 7, .first = 0, .last = 3, .pid = 5, .fh = fh},
          /*wait=*/false, until);
    }),
              absl::OkStatus());
  }

  FilesystemLab lab_;
  state::NodeId node_ = 0;
  absl::Status changed_ = absl::UnknownError("it does not end");
};

// Which change, and whether it is sent first.
class BesideChangesTest : public SharedFilesTest,
                          public ::testing::WithParamInterface<std::pair<Kind, bool>> {
 protected:
  void Beside(Task<void> other) {
    Task<void> change = Change(GetParam().first);
    if (GetParam().second) {
      Both(std::move(change), std::move(other));
    } else {
      Both(std::move(other), std::move(change));
    }
  }
};

// fstat(2) says nothing of a file that has the name by then, or of none.
TEST_P(BesideChangesTest, ALookIsOfTheFileThatIsOpen) {
  ASSERT_TRUE(lab_.Open(node_, O_RDWR).ok());
  absl::StatusOr<AttributesReply> look = absl::UnknownError("it does not end");
  Beside(Look(&lab_.filesystem(), node_, &look));
  ASSERT_EQ(look.status(), absl::OkStatus());
  EXPECT_EQ(look->attributes.st_size, 10);
}

TEST_P(BesideChangesTest, AnOpenIsOfTheFileThatHadTheName) {
  ASSERT_TRUE(lab_.Open(node_, O_RDWR).ok());
  absl::StatusOr<OpenReply> open = absl::UnknownError("it does not end");
  Beside(Open(&lab_.filesystem(), node_, &open));
  ASSERT_EQ(open.status(), absl::OkStatus());
  EXPECT_EQ(*lab_.Read(open->fh, 0, 64), "0123456789");
  // Also once it is opened again.
  lab_.server("t1").CloseConnections(Closing::kReset);
  EXPECT_EQ(*lab_.Read(open->fh, 0, 64), "0123456789");
}

// Nobody else has it open: what is removed, or replaced, may be gone for who opens it; but the
// change is not refused, and the name's new file is not opened for it.
TEST_P(BesideChangesTest, AnOpenDoesNotRefuseTheChange) {
  absl::StatusOr<OpenReply> open = absl::UnknownError("it does not end");
  Beside(Open(&lab_.filesystem(), node_, &open));
  if (open.ok()) {
    EXPECT_EQ(*lab_.Read(open->fh, 0, 64), "0123456789");
  } else {
    EXPECT_NE(GetParam().first, Kind::kRename);
    EXPECT_EQ(ErrnoOf(open.status()), ESTALE);
  }
  if (GetParam().first == Kind::kReplace) EXPECT_EQ(lab_.ContentOf("t1", "file"), "abc");
}

INSTANTIATE_TEST_SUITE_P(
    Each, BesideChangesTest,
    ::testing::Values(std::pair(Kind::kRemove, true), std::pair(Kind::kRemove, false),
                      std::pair(Kind::kRename, true), std::pair(Kind::kRename, false),
                      std::pair(Kind::kReplace, true), std::pair(Kind::kReplace, false)),
    [](const auto& info) {
      return std::string(kNames[static_cast<int>(info.param.first)]) +
             (info.param.second ? "First" : "Then");
    });

// By a file that nobody has looked up here.
TEST_F(SharedFilesTest, WhatIsReplacedHasItsNameNoMore) {
  EXPECT_EQ(lab_.Rename(kRoot, "unseen", kRoot, "file"), absl::OkStatus());
  EXPECT_EQ(ErrnoOf(lab_.GetAttributes(node_).status()), ESTALE);
  EXPECT_EQ(ErrnoOf(lab_.Open(node_).status()), ESTALE);
  EXPECT_EQ(*lab_.Read(lab_.Open(lab_.Walk("file"))->fh, 0, 64), "vwxyz");
}

// What a server has refused to append is appended under a lock, also if it has refused another
// program's meanwhile.
TEST_F(SharedFilesTest, TwoProgramsAppendAtOnceToAServerThatDoesNotAppend) {
  lab_.server("t1").options().appends = false;
  const state::FileHandle one = lab_.Open(node_, O_RDWR | O_APPEND)->fh;
  const state::FileHandle two = lab_.Open(node_, O_RDWR | O_APPEND)->fh;
  absl::Status appended = absl::UnknownError("it does not end");
  const auto append = [](Filesystem* filesystem, state::FileHandle fh,
                         absl::Status* result) -> Task<void> {
    static const std::string text = "++";
    *result =
        co_await filesystem->Write(fh, 0, FilesystemLab::BytesOf(text), nullptr, Deadline::Never());
  };
  Both(append(&lab_.filesystem(), one, &changed_), append(&lab_.filesystem(), two, &appended));
  EXPECT_EQ(appended, absl::OkStatus());
  EXPECT_EQ(lab_.ContentOf("t1", "file"), "0123456789++++");
}

// A lock of one program is no matter of another's open(O_TRUNC), and truncate(2), on this machine.
TEST_F(SharedFilesTest, WhatALocalProgramHasLockedIsCutByOthers) {
  const state::FileHandle locking = lab_.Open(node_, O_RDWR)->fh;
  Lock(locking);
  const absl::StatusOr<OpenReply> cut = lab_.Open(node_, O_RDWR | O_TRUNC);
  ASSERT_EQ(cut.status(), absl::OkStatus());
  EXPECT_EQ(lab_.ContentOf("t1", "file"), "");
  EXPECT_EQ(lab_.Write(cut->fh, 0, "0123456789"), absl::OkStatus());
  // By its name: an appending handle cannot.
  const state::FileHandle appending = lab_.Open(node_, O_RDWR | O_APPEND)->fh;
  ASSERT_EQ(lab_.SetAttributes(node_, {.size_bytes = 2, .fh = appending}).status(),
            absl::OkStatus());
  EXPECT_EQ(lab_.ContentOf("t1", "file"), "01");
}

// What was written before the time was set does not replace it when its handle, which is not open
// on the server any more, is closed.
TEST_F(SharedFilesTest, ATimeThatWasSetStaysThoughWhatHasWrittenBeforeIsNotOpen) {
  const absl::Time first = absl::FromUnixSeconds(1'500'000'000);
  const absl::Time second = absl::FromUnixSeconds(1'600'000'000);
  const state::FileHandle fh = lab_.Open(node_, O_RDWR)->fh;
  EXPECT_EQ(lab_.Write(fh, 0, "x"), absl::OkStatus());
  EXPECT_TRUE(lab_.SetAttributes(node_, {.modified = first}).ok());
  EXPECT_EQ(lab_.Write(fh, 1, "y"), absl::OkStatus());
  lab_.server("t1").CloseConnections(Closing::kReset);
  EXPECT_TRUE(lab_.SetAttributes(node_, {.modified = second}).ok());
  EXPECT_EQ(lab_.Flush(fh), absl::OkStatus());
  lab_.lab().agent().RunNow([&] { lab_.filesystem().Release(fh); });
  lab_.RunFor(absl::Seconds(5));
  EXPECT_EQ(lab_.share("t1").Find("file")->last_write, second);
}

// Its share is missing for a moment while its last handle is closed: the next agent removes it.
TEST_F(SharedFilesTest, WhatWasRemovedWhileItWasOpenGoesThoughItsShareIsMissingWhenItIsClosed) {
  const state::FileHandle fh = lab_.Open(node_, O_RDWR)->fh;
  EXPECT_EQ(lab_.Unlink(kRoot, "file"), absl::OkStatus());
  EXPECT_EQ(lab_.share("t1").root()->children.size(), 3u);
  lab_.share("t1").connect_status = smb::wire::NtStatus::kBadNetworkName;
  lab_.server("t1").DisconnectTrees("share");
  lab_.lab().agent().RunNow([&] { lab_.filesystem().Release(fh); });
  lab_.RunFor(absl::Minutes(1));
  lab_.share("t1").connect_status = smb::wire::NtStatus::kSuccess;
  lab_.TakeOver();
  lab_.lab().agent().RunNow([&] { lab_.filesystem().ResumeInvalidations(); });
  lab_.RunFor(absl::Minutes(1));
  EXPECT_EQ(lab_.share("t1").root()->children.size(), 2u);
}

}  // namespace
}  // namespace dfscsi::vfs
