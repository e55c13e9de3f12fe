// What tests of vfs::Filesystem share: a mount in a simulated machine room. Its servers:
//   root1   share "dfs", a namespace with one link, "two", to t1 and t2
//   t1, t2  share "share", the same on both unless a test says otherwise
// The agent that has mounted may die and be followed by another one on the same tables.

#ifndef NODE_AGENT_VFS_FILESYSTEM_TEST_LAB_H_
#define NODE_AGENT_VFS_FILESYSTEM_TEST_LAB_H_

#include <fcntl.h>
#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_split.h"
#include "node-agent/base/unique_fd.h"
#include "node-agent/dfs/client.h"
#include "node-agent/runtime/loop.h"
#include "node-agent/runtime/sim_world.h"
#include "node-agent/smb/session_pool.h"
#include "node-agent/state/mount_tables.h"
#include "node-agent/state/shared_memory.h"
#include "node-agent/testing/scripted_lab.h"
#include "node-agent/vfs/errno.h"
#include "node-agent/vfs/filesystem.h"

namespace dfscsi::vfs {

class RecordedInvalidation : public Invalidation {
 public:
  void DataChanged(state::NodeId node) override { ++changed[node]; }
  runtime::Task<absl::Status> DropPages(state::NodeId node, runtime::Deadline deadline) override {
    DataChanged(node);
    if (may_drop == nullptr) co_return absl::OkStatus();
    co_return co_await may_drop->WaitUntilSet(std::move(deadline));
  }
  // The kernel drops no page until it is set, as while a read of that page is under way. Null: it
  // does at once.
  std::shared_ptr<runtime::Event> may_drop;
  std::map<state::NodeId, int> changed;
};

// Keeps what ReadDirectory adds: at most `room` entries.
class EntryList : public DirectorySink {
 public:
  struct Entry {
    std::string name;
    uint64_t next_offset;
    struct stat attributes;
    state::NodeId node;
    absl::Duration attributes_timeout;
    absl::Duration name_timeout;
  };
  explicit EntryList(size_t room) : room_(room) {}
  bool Fits(size_t) const override { return entries.size() < room_; }
  void Add(const DirectoryEntry& entry) override {
    entries.push_back({std::string(entry.name), entry.next_offset, entry.attributes, entry.node,
                       entry.attributes_timeout, entry.name_timeout});
  }
  std::vector<Entry> entries;

 private:
  const size_t room_;
};

// What outlives an agent of one change.
class TestJournal : public ChangeJournal {
 public:
  void NoteSent(uint64_t server_key, uint64_t offset) override {
    if (server_key != 0) ++sends;
    last = server_key;
    last_offset = offset;
  }
  uint64_t sent_to() const override { return before; }
  uint64_t sent_offset() const override { return offset_before; }
  absl::Duration age() const override { return asked_ago; }
  // The agent died: what it noted is what the next one reads.
  void Die() {
    before = last;
    offset_before = last_offset;
  }

  int sends = 0;
  uint64_t last = 0;
  uint64_t last_offset = kNoOffset;
  uint64_t before = 0;
  uint64_t offset_before = kNoOffset;
  absl::Duration asked_ago = absl::ZeroDuration();
};

class FilesystemLab {
 public:
  FilesystemLab() : lab_(1) {
    testing::ScriptedShare& dfs = lab_.AddServer("root1").AddShare("dfs");
    dfs.dfs_root = true;
    dfs.root_referral.targets = {"root1/dfs"};
    dfs.AddLink("two", {.targets = {"t1/share", "t2/share"}});
    for (const char* name : {"t1", "t2"}) lab_.AddServer(name).AddShare("share");
  }
  ~FilesystemLab() {
    EXPECT_TRUE(lab_.Violations().empty()) << lab_.Violations().front();
    KillAgent();
  }

  testing::ScriptedLab& lab() { return lab_; }
  testing::ScriptedServer& server(const std::string& name) { return lab_.server(name); }
  testing::ScriptedShare& namespace_share() { return *server("root1").FindShare("dfs"); }
  testing::ScriptedShare& share(const std::string& name) {
    return *server(name).FindShare("share");
  }
  // Makes the same in the share of t1 and of t2.
  void OnBoth(const std::function<void(testing::ScriptedShare&)>& make) {
    for (const char* name : {"t1", "t2"}) make(share(name));
  }

  // Of mounts that are made from now on.
  bool write_behind = true;
  void Mount(const std::string& source, Options options = {}, dfs::ClientOptions client = {}) {
    source_ = *dfs::DfsPath::Parse(source);
    options_ = std::move(options);
    options_.write_behind = write_behind;
    client_options_ = std::move(client);
    tables_fd_ = *state::CreateSharedMemory("tables", state::kTablesBytes);
    tables_ = *state::MountTables::Format(tables_fd_.get(),
                                          Filesystem::RootInodeNumber(options_.key, source_));
    StartAgent();
  }
  // kill -9, and the next agent with the same tables.
  void TakeOver() {
    KillAgent();
    lab_.RestartAgent();
    tables_ = *state::MountTables::Map(tables_fd_.get());
    EXPECT_TRUE(tables_->Recover().ok());
    StartAgent();
  }

  Filesystem& filesystem() { return *filesystem_; }
  dfs::Client& client() { return *client_; }
  state::MountTables& tables() { return *tables_; }
  RecordedInvalidation& invalidation() { return invalidation_; }
  const Filesystem::Counters& counters() { return filesystem_->counters(); }
  void RunFor(absl::Duration duration) { lab_.world().RunFor(duration); }
  absl::Time now() { return lab_.world().now(); }

  // Frames that all servers have received; a compound counts once.
  int64_t frames() {
    int64_t frames = 0;
    for (const char* name : {"root1", "t1", "t2"}) frames += server(name).frames();
    return frames;
  }

  // Runs one call in the agent. nullopt: it has not ended within `limit` of virtual time.
  template <class T>
  std::optional<T> Await(std::function<runtime::Task<T>()> call,
                         absl::Duration limit = absl::Minutes(2)) {
    auto result = std::make_shared<std::optional<T>>();
    struct Calling {
      static runtime::Task<void> Run(std::function<runtime::Task<T>()> make,
                                     std::shared_ptr<std::optional<T>> into) {
        into->emplace(co_await make());
      }
    };
    if (!lab_.Run(Calling::Run(std::move(call), result), limit)) return std::nullopt;
    return *std::move(result);
  }
  // The calls of Filesystem, each waited for.
  absl::StatusOr<EntryReply> Lookup(state::NodeId parent, const std::string& name) {
    return Get<EntryReply>(
        [=, this](runtime::Deadline until) { return filesystem_->Lookup(parent, name, until); });
  }
  absl::StatusOr<AttributesReply> GetAttributes(state::NodeId node) {
    return Get<AttributesReply>(
        [=, this](runtime::Deadline until) { return filesystem_->GetAttributes(node, until); });
  }
  absl::StatusOr<OpenReply> Open(state::NodeId node, int flags = O_RDONLY) {
    absl::StatusOr<OpenReply> reply = OpenUndelivered(node, flags);
    if (reply.ok()) filesystem_->OpenDelivered(node, *reply);
    return reply;
  }
  absl::StatusOr<OpenReply> OpenUndelivered(state::NodeId node, int flags = O_RDONLY) {
    return Get<OpenReply>([=, this](runtime::Deadline until) {
      return filesystem_->Open(node, flags, nullptr, until);
    });
  }
  absl::StatusOr<std::string> Read(state::FileHandle fh, uint64_t offset, size_t size) {
    std::vector<uint8_t> bytes(size);
    const absl::StatusOr<size_t> n = Get<size_t>([&, this](runtime::Deadline until) {
      return filesystem_->Read(fh, offset, absl::MakeSpan(bytes), until);
    });
    if (!n.ok()) return n.status();
    return std::string(bytes.begin(), bytes.begin() + static_cast<ptrdiff_t>(*n));
  }
  absl::StatusOr<uint64_t> Seek(state::FileHandle fh, uint64_t offset, int whence) {
    return Get<uint64_t>([=, this](runtime::Deadline until) {
      return filesystem_->Seek(fh, offset, whence, until);
    });
  }
  // Changes. nullopt of Try…: it has not ended within `limit`.
  std::optional<absl::Status> TryChange(
      std::function<runtime::Task<absl::Status>(runtime::Deadline)> call,
      absl::Duration limit = absl::Minutes(2)) {
    return Await<absl::Status>([&call] { return call(runtime::Deadline::Never()); }, limit);
  }
  absl::Status Change(std::function<runtime::Task<absl::Status>(runtime::Deadline)> call) {
    return TryChange(std::move(call)).value_or(absl::DeadlineExceededError("it does not end"));
  }
  absl::Status Write(state::FileHandle fh, uint64_t offset, const std::string& text,
                     ChangeJournal* journal = nullptr) {
    return Change([=, &text, this](runtime::Deadline until) {
      return filesystem_->Write(fh, offset, BytesOf(text), journal, until);
    });
  }
  absl::Status Flush(state::FileHandle fh, uint64_t owner = 1) {
    return Change(
        [=, this](runtime::Deadline until) { return filesystem_->Flush(fh, owner, until); });
  }
  absl::Status Sync(state::FileHandle fh) {
    return Change([=, this](runtime::Deadline until) { return filesystem_->Sync(fh, until); });
  }
  absl::StatusOr<CreateReply> Create(state::NodeId parent, const std::string& name,
                                     int flags = O_RDWR, ChangeJournal* journal = nullptr) {
    return Get<CreateReply>([=, this](runtime::Deadline until) {
      return filesystem_->Create(parent, name, flags, journal, until);
    });
  }
  absl::StatusOr<AttributesReply> SetAttributes(state::NodeId node, AttributesChange change,
                                                ChangeJournal* journal = nullptr) {
    return Get<AttributesReply>([=, this](runtime::Deadline until) {
      return filesystem_->SetAttributes(node, change, journal, until);
    });
  }
  absl::StatusOr<EntryReply> MakeDirectory(state::NodeId parent, const std::string& name,
                                           ChangeJournal* journal = nullptr) {
    return Get<EntryReply>([=, this](runtime::Deadline until) {
      return filesystem_->MakeDirectory(parent, name, journal, until);
    });
  }
  absl::Status Unlink(state::NodeId parent, const std::string& name,
                      ChangeJournal* journal = nullptr) {
    return Change([=, this](runtime::Deadline until) {
      return filesystem_->Unlink(parent, name, journal, until);
    });
  }
  absl::Status RemoveDirectory(state::NodeId parent, const std::string& name,
                               ChangeJournal* journal = nullptr) {
    return Change([=, this](runtime::Deadline until) {
      return filesystem_->RemoveDirectory(parent, name, journal, until);
    });
  }
  absl::Status Rename(state::NodeId parent, const std::string& name, state::NodeId new_parent,
                      const std::string& new_name, uint32_t flags = 0,
                      ChangeJournal* journal = nullptr) {
    return Change([=, this](runtime::Deadline until) {
      return filesystem_->Rename(parent, name, new_parent, new_name, flags, journal, until);
    });
  }
  absl::StatusOr<EntryReply> Link(state::NodeId node, state::NodeId new_parent,
                                  const std::string& new_name, ChangeJournal* journal = nullptr) {
    return Get<EntryReply>([=, this](runtime::Deadline until) {
      return filesystem_->Link(node, new_parent, new_name, journal, until);
    });
  }
  absl::StatusOr<EntryReply> MakeFile(state::NodeId parent, const std::string& name) {
    return Get<EntryReply>([=, this](runtime::Deadline until) {
      return filesystem_->MakeFile(parent, name, nullptr, until);
    });
  }
  // By a handle that was set to append after it was opened.
  absl::Status WriteAtEnd(state::FileHandle fh, const std::string& text) {
    return Change([=, &text, this](runtime::Deadline until) {
      return filesystem_->WriteAtEnd(fh, BytesOf(text), nullptr, until);
    });
  }
  static absl::Span<const uint8_t> BytesOf(const std::string& text) {
    return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
  }
  // What the server's file holds; "(none)" if there is none.
  std::string ContentOf(const std::string& server_name, const std::string& path) {
    const testing::ScriptedFile* const file = share(server_name).Find(path);
    return file == nullptr ? "(none)" : file->Content();
  }
  // Executed on the server, however often asked.
  int CountMutations(const std::string& server_name, smb::wire::Command command) {
    int count = 0;
    for (const testing::ScriptedMutation& mutation : server(server_name).mutations()) {
      count += mutation.command == command ? 1 : 0;
    }
    return count;
  }
  absl::StatusOr<std::string> ReadLink(state::NodeId node) {
    return Get<std::string>(
        [=, this](runtime::Deadline until) { return filesystem_->ReadLink(node, until); });
  }
  absl::StatusOr<state::FileHandle> OpenDirectory(state::NodeId node) {
    return Get<state::FileHandle>(
        [=, this](runtime::Deadline until) { return filesystem_->OpenDirectory(node, until); });
  }
  absl::StatusOr<struct statvfs> GetStatistics(state::NodeId node) {
    return Get<struct statvfs>(
        [=, this](runtime::Deadline until) { return filesystem_->GetStatistics(node, until); });
  }
  // One READDIR or READDIRPLUS.
  absl::StatusOr<std::vector<EntryList::Entry>> ReadDirectory(state::FileHandle fh, uint64_t offset,
                                                              size_t room, bool plus = true) {
    EntryList list(room);
    const std::optional<absl::Status> status = Await<absl::Status>([&, this] {
      return filesystem_->ReadDirectory(fh, offset, plus, &list, runtime::Deadline::Never());
    });
    if (!status.has_value()) return absl::DeadlineExceededError("it does not end");
    if (!status->ok()) return *status;
    return list.entries;
  }
  // All from `offset` on, `room` at a time; without "." and "..".
  absl::StatusOr<std::vector<std::string>> ListFrom(state::FileHandle fh, uint64_t offset,
                                                    size_t room) {
    std::vector<std::string> names;
    while (true) {
      const auto some = ReadDirectory(fh, offset, room);
      if (!some.ok()) return some.status();
      if (some->empty()) return names;
      for (const EntryList::Entry& entry : *some) {
        if (entry.node != 0) filesystem_->Forget(entry.node, 1);
        if (entry.name != "." && entry.name != "..") names.push_back(entry.name);
      }
      offset = some->back().next_offset;
    }
  }
  // Looks up "a/b/c"; fails the test and returns 0 where that fails. The lookups stay counted.
  state::NodeId Walk(const std::string& path) {
    state::NodeId at = state::kRootNode;
    for (const absl::string_view name : absl::StrSplit(path, '/', absl::SkipEmpty())) {
      const absl::StatusOr<EntryReply> entry = Lookup(at, std::string(name));
      EXPECT_TRUE(entry.ok()) << path << ": " << entry.status();
      if (!entry.ok()) return 0;
      at = entry->node;
    }
    return at;
  }
  // An open file; fails the test and returns 0 where that fails.
  state::FileHandle OpenPath(const std::string& path) {
    const absl::StatusOr<OpenReply> open = Open(Walk(path));
    EXPECT_TRUE(open.ok()) << path << ": " << open.status();
    return open.ok() ? open->fh : 0;
  }

 private:
  template <class T>
  absl::StatusOr<T> Get(std::function<runtime::Task<absl::StatusOr<T>>(runtime::Deadline)> call) {
    const std::optional<absl::StatusOr<T>> result =
        Await<absl::StatusOr<T>>([&call] { return call(runtime::Deadline::Never()); });
    if (!result.has_value()) return absl::DeadlineExceededError("it does not end");
    return *result;
  }

  void StartAgent() {
    lab_.agent().RunNow([this] {
      pool_ = std::make_unique<smb::SessionPool>(smb::Options{}, lab_.authenticators(), nullptr);
      cache_ = std::make_unique<dfs::ReferralCache>();
      domains_ = std::make_unique<dfs::DomainCache>();
      health_ = std::make_unique<dfs::TargetHealthTable>();
      dfs::ClientOptions options = client_options_;
      options.next_epoch = [tables = tables_.get()] { return tables->NextEpoch(); };
      client_ = std::make_unique<dfs::Client>(source_, lab_.credential(), options, *pool_, *cache_,
                                              *domains_, *health_);
      filesystem_ = std::make_unique<Filesystem>(*client_, *tables_, invalidation_, options_);
    });
  }
  void KillAgent() {
    lab_.agent().RunNow([this] {
      filesystem_.reset();
      client_.reset();
      pool_.reset();
    });
    tables_.reset();
  }

  testing::ScriptedLab lab_;
  dfs::DfsPath source_ = *dfs::DfsPath::Parse("//t1/share");
  Options options_;
  dfs::ClientOptions client_options_;
  UniqueFd tables_fd_;
  RecordedInvalidation invalidation_;
  std::unique_ptr<state::MountTables> tables_;
  std::unique_ptr<dfs::ReferralCache> cache_;
  std::unique_ptr<dfs::DomainCache> domains_;
  std::unique_ptr<dfs::TargetHealthTable> health_;
  std::unique_ptr<smb::SessionPool> pool_;
  std::unique_ptr<dfs::Client> client_;
  std::unique_ptr<Filesystem> filesystem_;
};

}  // namespace dfscsi::vfs

#endif  // NODE_AGENT_VFS_FILESYSTEM_TEST_LAB_H_
