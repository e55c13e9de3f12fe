// What tests of writes behind their acknowledgment share: FilesystemLab, and WRITEs of its kernel.

#ifndef NODE_AGENT_VFS_WRITE_BEHIND_TEST_LAB_H_
#define NODE_AGENT_VFS_WRITE_BEHIND_TEST_LAB_H_

#include <fcntl.h>
#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "node-agent/state/request_arena.h"
#include "node-agent/vfs/filesystem_test_lab.h"

namespace dfscsi::vfs {

inline constexpr uint64_t kBig = state::kBigPayloadBytes;

// One WRITE of the kernel, as long as it may live.
struct EarlyWrite : TestJournal {
  bool is_of_pages() const override { return of_pages; }
  uint64_t held_bytes() const override { return held; }
  void Acknowledge() override {
    EXPECT_FALSE(answered);
    answered = true;
  }
  bool acknowledged() const override { return answered; }

  std::string text;
  uint64_t held = kBig;
  bool answered = false;
  bool of_pages = false;
  std::optional<absl::Status> ended = {};
  runtime::CancelSource cancel;
};

struct WriteBehindTest : public ::testing::Test {
  WriteBehindTest() {
    lab.OnBoth([](testing::ScriptedShare& share) {
      share.writable = true;
      share.AddText("file", std::string(64, '.'));
      share.AddText("other", "other");
      share.AddDirectory("dir");
      share.AddText("dir/inner", std::string(64, '.'));
    });
  }
  ~WriteBehindTest() override {
    lab.lab().agent().RunNow([this] { calls.reset(); });
  }
  void Mount(const std::string& source, Options options = {}, dfs::ClientOptions client = {}) {
    lab.Mount(source, options, std::move(client));
    Lease();
  }
  void Lease() {
    lab.filesystem().SetWriteLeasesForTest([this](state::NodeId) { return leased; });
  }
  void TakeOver() {
    lab.lab().agent().RunNow([this] { calls = std::make_unique<runtime::TaskGroup>(); });
    lab.TakeOver();
    Lease();
  }
  state::FileHandle MustOpen(const std::string& path, int flags = O_RDWR) {
    const absl::StatusOr<OpenReply> open = lab.Open(lab.Walk(path), flags);
    EXPECT_TRUE(open.ok()) << path << ": " << open.status();
    return open.ok() ? open->fh : 0;
  }
  static runtime::Task<void> RunWrite(Filesystem* filesystem, state::FileHandle fh, uint64_t offset,
                                      std::shared_ptr<EarlyWrite> write) {
    size_t written = 0;
    write->ended = co_await filesystem->Write(fh, offset, FilesystemLab::BytesOf(write->text),
                                              write.get(), write->cancel.deadline(), &written);
  }
  // As far as it comes without an answer.
  void Start(state::FileHandle fh, uint64_t offset, std::shared_ptr<EarlyWrite> write) {
    lab.lab().agent().RunNow(
        [&] { calls->Spawn(RunWrite(&lab.filesystem(), fh, offset, std::move(write))); });
    lab.RunFor(absl::Milliseconds(2));
  }
  std::shared_ptr<EarlyWrite> Write(state::FileHandle fh, uint64_t offset, std::string text,
                                    uint64_t held = kBig) {
    auto write = std::make_shared<EarlyWrite>();
    write->text = std::move(text);
    write->held = held;
    Start(fh, offset, write);
    return write;
  }
  // WRITEs reach the server after that.
  void Hold(absl::Duration delay, std::optional<smb::wire::NtStatus> status = std::nullopt) {
    lab.server("t1").AddRule(
        {.command = smb::wire::Command::kWrite, .action = {.delay = delay, .status = status}});
  }
  int writes_begun() {
    int count = 0;
    for (const testing::ScriptedRequest& request : lab.server("t1").log()) {
      count += request.header.command == smb::wire::Command::kWrite ? 1 : 0;
    }
    return count;
  }

  FilesystemLab lab;
  bool leased = true;
  state::FileHandle opened = 0;
  std::unique_ptr<runtime::TaskGroup> calls = std::make_unique<runtime::TaskGroup>();
};

}  // namespace dfscsi::vfs

#endif  // NODE_AGENT_VFS_WRITE_BEHIND_TEST_LAB_H_
