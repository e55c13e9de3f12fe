// A file on two servers, the programs of one mount that lock it, and another machine that does.

#ifndef NODE_AGENT_VFS_FILESYSTEM_LOCKS_TEST_LAB_H_
#define NODE_AGENT_VFS_FILESYSTEM_LOCKS_TEST_LAB_H_

#include <fcntl.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "node-agent/vfs/filesystem_test_lab.h"

namespace dfscsi::vfs {

inline constexpr LockType kR = LockType::kShared, kW = LockType::kExclusive, kU = LockType::kNone;
inline constexpr uint64_t kOther = 999;  // Another machine's open.
inline constexpr uint64_t kEnd = INT64_MAX;

struct LocksTest : public ::testing::Test {
  explicit LocksTest(const Options& options = {}, const dfs::ClientOptions& client = {}) {
    lab.OnBoth([](testing::ScriptedShare& share) {
      share.writable = true;
      share.AddText("file", "0123456789");
      share.AddText("beside", "beside");
    });
    for (const char* name : {"t1", "t2"}) lab.server(name).options().appends = false;
    lab.Mount("//root1/dfs", options, client);
    fh = OpenIt();
  }
  state::FileHandle OpenIt(int flags = O_RDWR, const char* path = "two/file") {
    const absl::StatusOr<OpenReply> open = lab.Open(lab.Walk(path), flags);
    EXPECT_TRUE(open.ok()) << open.status();
    return open.ok() ? open->fh : 0;
  }
  FileLock Lock(uint64_t owner, LockType type, uint64_t first, uint64_t last) const {
    return {.type = type, .owner = owner, .first = first, .last = last, .pid = 5, .fh = fh};
  }
  absl::Status Set(FileLock wanted, bool wait = false) {
    return lab.Change([=, this](runtime::Deadline until) {
      return lab.filesystem().SetLock(wanted, wait, until);
    });
  }
  int Try(uint64_t owner, LockType type, uint64_t first, uint64_t last) {
    return ErrnoOf(Set(Lock(owner, type, first, last)));
  }
  FileLock Get(FileLock wanted) {
    const auto found = lab.Await<absl::StatusOr<FileLock>>(
        [&] { return lab.filesystem().GetLock(wanted, runtime::Deadline::Never()); });
    EXPECT_TRUE(found.has_value() && found->ok());
    return found.has_value() && found->ok() ? **found : FileLock();
  }
  void Release(state::FileHandle of) {
    lab.lab().agent().RunNow([&] { lab.filesystem().Release(of); });
    lab.RunFor(absl::Seconds(1));
  }
  testing::ScriptedFile& File(const char* server = "t1") { return *lab.share(server).Find("file"); }
  void LockAsOther(uint64_t first, uint64_t last, bool exclusive, const char* server = "t1") {
    File(server).locks.push_back({.owner = kOther,
                                  .offset = first,
                                  .length_bytes = last - first + 1,
                                  .exclusive = exclusive});
  }
  void UnlockAsOther() {
    std::erase_if(File().locks,
                  [](const testing::ScriptedLock& lock) { return lock.owner == kOther; });
  }
  // What the server holds for this machine: "w0-9 r10-19".
  std::string Held(const char* server = "t1") {
    std::vector<std::pair<uint64_t, std::string>> held;
    for (const testing::ScriptedLock& lock : File(server).locks) {
      if (lock.owner == kOther) continue;
      const uint64_t last = lock.offset + lock.length_bytes - 1;
      held.emplace_back(lock.offset, absl::StrCat(lock.exclusive ? "w" : "r", lock.offset, "-",
                                                  last == kEnd ? "end" : absl::StrCat(last)));
    }
    std::sort(held.begin(), held.end());
    std::vector<std::string> texts;
    for (const auto& [at, text] : held) texts.push_back(text);
    return absl::StrJoin(texts, " ");
  }
  // kill -9, and the next agent.
  void TakeOver() {
    lab.TakeOver();
    lab.lab().agent().RunNow([&] { lab.filesystem().ResumeInvalidations(); });
    lab.RunFor(absl::Seconds(10));
  }
  // A call that goes on beside the test.
  std::shared_ptr<std::optional<absl::Status>> Begin(FileLock wanted, runtime::Deadline until) {
    auto result = std::make_shared<std::optional<absl::Status>>();
    struct Waiting {
      static runtime::Task<void> Run(Filesystem* filesystem, FileLock wanted,
                                     runtime::Deadline until,
                                     std::shared_ptr<std::optional<absl::Status>> into) {
        into->emplace(co_await filesystem->SetLock(wanted, /*wait=*/true, until));
      }
    };
    lab.lab().agent().RunNow([&] {
      runtime::Loop::Current().Spawn(Waiting::Run(&lab.filesystem(), wanted, until, result));
    });
    lab.RunFor(absl::Seconds(2));
    return result;
  }

  FilesystemLab lab;
  state::FileHandle fh = 0;
};

}  // namespace dfscsi::vfs

#endif  // NODE_AGENT_VFS_FILESYSTEM_LOCKS_TEST_LAB_H_
