// Locks of a file of which something is pending that was acknowledged before its server had it.

#include <fcntl.h>
#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <utility>

#include "node-agent/vfs/write_behind_test_lab.h"

namespace dfscsi::vfs {
namespace {

using runtime::CancelSource;
using runtime::Deadline;
using runtime::Task;
using smb::wire::Command;

TEST_F(WriteBehindTest, ACloseThatIsInterruptedWhileItWaitsGivesTheLocksOfItsProcessBack) {
  Mount("//t1/share");
  const state::FileHandle fh = MustOpen("file");
  const auto spawn = [this](Task<absl::Status> call) {
    auto ended = std::make_shared<std::optional<absl::Status>>();
    const auto run = [](Task<absl::Status> called,
                        std::shared_ptr<std::optional<absl::Status>> into) -> Task<void> {
      *into = co_await std::move(called);
    };
    calls->Spawn(run(std::move(call), ended));
    return ended;
  };
  const auto lock_of = [fh](uint64_t owner) {
    return FileLock{.type = LockType::kExclusive, .owner = owner, .first = 0, .last = 9, .fh = fh};
  };
  lab.server("t1").AddRule(
      {.command = Command::kWrite, .times = 1, .action = {.delay = absl::Seconds(1)}});
  Hold(absl::Seconds(10));
  const auto first = Write(fh, 64, "text");
  std::shared_ptr<std::optional<absl::Status>> locked;
  lab.lab().agent().RunNow([&] {
    locked = spawn(lab.filesystem().SetLock(lock_of(1), /*wait=*/false, Deadline::Never()));
  });
  // Acknowledged while the lock is waited for, and pending when it is held.
  const auto second = Write(fh, 68, "more");
  EXPECT_TRUE(first->answered && second->answered);
  lab.RunFor(absl::Seconds(4));
  ASSERT_EQ(*locked, absl::OkStatus());
  ASSERT_FALSE(second->ended.has_value());
  CancelSource killed;
  std::shared_ptr<std::optional<absl::Status>> closed;
  lab.lab().agent().RunNow(
      [&] { closed = spawn(lab.filesystem().Flush(fh, 1, killed.deadline())); });
  lab.RunFor(absl::Seconds(1));
  EXPECT_FALSE(closed->has_value());
  lab.lab().agent().RunNow([&] { killed.Cancel(); });
  lab.RunFor(absl::Seconds(1));
  EXPECT_TRUE(closed->has_value() && absl::IsCancelled(**closed));
  // Another machine does not get it before what was written under it is there.
  ASSERT_FALSE(second->ended.has_value());
  EXPECT_EQ(lab.share("t1").Find("file")->locks.size(), 1u);
  lab.RunFor(absl::Seconds(10));
  EXPECT_EQ(second->ended, absl::OkStatus());
  EXPECT_TRUE(lab.share("t1").Find("file")->locks.empty());
  EXPECT_EQ(lab.Change([&](Deadline until) {
    return lab.filesystem().SetLock(lock_of(2), /*wait=*/false, until);
  }),
            absl::OkStatus());
}

}  // namespace
}  // namespace dfscsi::vfs
