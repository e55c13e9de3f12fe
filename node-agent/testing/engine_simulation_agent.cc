#include "node-agent/testing/engine_simulation_agent.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <poll.h>
#include <string.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "node-agent/dfs/path.h"
#include "node-agent/state/shared_memory.h"

namespace dfscsi::simulation {

using runtime::Deadline;
using runtime::SimLoop;
using runtime::Task;
using testing::FakeFuseKernel;

namespace {

constexpr size_t kBufferBytes = 4 << 20;

// One arena for all seeds: making its pages present costs more than a seed does.
int ArenaFd() {
  static const UniqueFd* const fd =
      new UniqueFd(*state::CreateSharedMemory("arena", state::kArenaBytes));
  return fd->get();
}

class NoInvalidation final : public vfs::Invalidation {
 public:
  void DataChanged(state::NodeId node) override {}
};

// Readability of the fake device on a simulated loop.
class DeviceWatch final : public runtime::FdWatch {
 public:
  DeviceWatch(int fd, std::shared_ptr<runtime::Condition> readable)
      : fd_(fd), readable_(std::move(readable)) {}

  Task<absl::Status> WaitReadable(Deadline deadline) override {
    while (true) {
      pollfd device = {.fd = fd_, .events = POLLIN, .revents = 0};
      if (poll(&device, 1, 0) > 0) co_return absl::OkStatus();
      const absl::Status status = co_await readable_->WaitForNotify(deadline);
      if (!status.ok()) co_return status;
    }
  }
  Task<absl::Status> WaitWritable(Deadline deadline) override { co_return absl::OkStatus(); }

 private:
  const int fd_;
  const std::shared_ptr<runtime::Condition> readable_;
};

}  // namespace

// --- The kernel's side

Mount::Mount(Node& node, uint32_t id, std::string source)
    : node_(node),
      id_(id),
      source_(std::move(source)),
      made_(node.world().now()),
      tables_fd_(*state::CreateSharedMemory("tables", state::kTablesBytes)) {
  // The pid of nobody: requests of the test process itself would be refused.
  kernel_.set_pid(0);
  (void)*state::MountTables::Format(
      tables_fd_.get(),
      vfs::Filesystem::RootInodeNumber(vfs::Options().key, *dfs::DfsPath::Parse(source_)));
}

Mount::~Mount() = default;

Task<Mount::Answer> Mount::Ask(uint32_t opcode, uint64_t node, std::string body, std::string link,
                               absl::Duration interrupt_after, absl::Duration patience) {
  if (gone_) co_return Answer{.error = ENOTCONN, .body = {}, .waited = {}};
  auto pending = std::make_shared<Pending>();
  const uint64_t unique = kernel_.Send(opcode, node, body);
  pending->record = {.unique = unique,
                     .opcode = opcode,
                     .link = std::move(link),
                     .asked = node_.world().now(),
                     .patience = patience};
  // The handle stands first in all of these.
  if (opcode == FUSE_WRITE || opcode == FUSE_FSYNC || opcode == FUSE_FLUSH ||
      opcode == FUSE_RELEASE) {
    memcpy(&pending->handle, body.data(), sizeof(pending->handle));
  }
  pending_[unique] = pending;
  Notify();
  if (interrupt_after != absl::InfiniteDuration()) {
    (void)co_await pending->answered.WaitUntilSet(Deadline::After(interrupt_after));
    if (pending_.contains(unique)) {
      pending->record.interrupted = node_.world().now();
      SendInterrupt(unique);
    }
  }
  // Somebody looks at how long that takes: Oracle::CheckProgress.
  (void)co_await pending->answered.WaitUntilSet(Deadline::Never());
  co_return std::move(pending->answer);
}

void Mount::SendInterrupt(uint64_t unique) {
  kernel_.SendInterrupt(unique);
  Notify();
}

void Mount::Forget(uint64_t node, uint64_t lookups) {
  if (gone_) return;
  kernel_.SendForget(node, lookups);
  Notify();
}

void Mount::Notify() { node_.WakeAgent(readable_); }

void Mount::Pump() {
  while (std::optional<FakeFuseKernel::Answer> answer = kernel_.TryReceive()) {
    if ((answer->unique & FakeFuseKernel::kInterruptBit) != 0) {
      // The kernel says it again if what it interrupts is still there.
      const uint64_t unique = answer->unique & ~FakeFuseKernel::kInterruptBit;
      if (answer->error != EAGAIN) {
        node_.oracle_.Violation(absl::StrCat("INTERRUPT answered with ", answer->error));
      }
      if (pending_.contains(unique)) SendInterrupt(unique);
      continue;
    }
    const auto found = pending_.find(answer->unique);
    if (found == pending_.end()) {
      if (MayAnswerAgain(answer->unique)) continue;  // A kernel says ENOENT.
      node_.oracle_.Violation(
          absl::StrCat("unique ", answer->unique, " answered twice, or never asked"));
      continue;
    }
    std::shared_ptr<Pending> pending = std::move(found->second);
    pending_.erase(found);
    NoteAnswered(*pending, answer->error);
    pending->answer = {
        .error = answer->error,
        .body = std::move(answer->body),
        .waited = node_.world().now() - std::max(pending->record.asked, node_.agent_well_since())};
    node_.oracle_.NoteAnswer(pending->record, node_.agent_well_since());
    node_.applications().Post([pending] { pending->answered.Set(); });
  }
}

bool Mount::MayAnswerAgain(uint64_t unique) {
  const auto written = written_.find(unique);
  if (written == written_.end() || written->second.agent >= node_.generation_) return false;
  written->second.agent = node_.generation_;
  return true;
}

void Mount::NoteAnswered(const Pending& pending, int error) {
  const uint32_t opcode = pending.record.opcode;
  if (opcode == FUSE_WRITE && error == 0 && node_.writes_behind()) {
    written_[pending.record.unique] = {.handle = pending.handle, .agent = node_.generation_};
  }
  // Its server has it now.
  const bool ends = (opcode == FUSE_FSYNC || opcode == FUSE_FLUSH) && error == 0;
  if (!ends && opcode != FUSE_RELEASE) return;
  std::erase_if(written_,
                [&](const auto& written) { return written.second.handle == pending.handle; });
}

void Mount::Abort() {
  gone_ = true;
  for (const auto& [unique, pending] : pending_) {
    pending->answer = {.error = ENOTCONN, .body = {}, .waited = {}};
    node_.applications().Post([pending] { pending->answered.Set(); });
  }
  pending_.clear();
}

// --- The agent

// What the log-on guard is to real agents.
class Node::Sessions final : public smb::SessionMemory {
 public:
  explicit Sessions(Oracle& oracle) : oracle_(oracle) {}
  uint64_t PreviousSessionId(const std::string& host, const std::string& identity) override {
    const auto known = dead_.find({host, identity});
    return known == dead_.end() ? 0 : known->second;
  }
  void RememberSessionId(const std::string& host, const std::string& identity,
                         uint64_t session_id) override {
    own_[{host, identity}] = session_id;
  }
  absl::Duration RefusedFor(const std::string& host, const std::string& identity) override {
    return absl::ZeroDuration();
  }
  void RememberRefusal(const std::string& host, const smb::Credential& credential,
                       const absl::Status& refused) override {
    oracle_.Violation(absl::StrCat(host, ": a log-on was refused"));
  }
  // The agent is dead: its sessions are the previous ones of the next.
  void NextAgent() {
    for (const auto& [key, id] : own_) dead_[key] = id;
    own_.clear();
  }

 private:
  Oracle& oracle_;
  std::map<std::pair<std::string, std::string>, uint64_t> own_;
  std::map<std::pair<std::string, std::string>, uint64_t> dead_;
};

class Node::Agent {
 public:
  Agent(Node& node, uint32_t generation)
      : node_(node), process_(node.world_, node.host_, absl::StrCat("agent", generation)) {
    process_.RunNow([&] {
      arena_ = *state::RequestArena::Map(ArenaFd());
      std::vector<state::RequestSlot> adopted = *arena_->Adopt(generation, /*granted=*/1);
      room_ = std::make_unique<fuse::ArenaRoom>(*arena_, [] {});
      pool_ = std::make_unique<smb::SessionPool>(node.options_.smb, authenticators_,
                                                 node.sessions_.get());
      if (node.options_.save_cache && !node.saved_cache_.empty()) {
        (void)cache_.Load(node.saved_cache_, process_.Now(), process_.Now());
      }
      std::map<uint32_t, std::vector<state::RequestSlot>> by_mount;
      for (const state::RequestSlot slot : adopted) {
        // The first agent finds what another seed has left.
        if (generation > 1 && node.mounts_.contains(slot.mount_id())) {
          by_mount[slot.mount_id()].push_back(slot);
        } else {
          arena_->Free(slot);
        }
      }
      for (const auto& [id, mount] : node.mounts_) Serve(*mount, by_mount[id]);
    });
  }
  ~Agent() {
    // As a process that is killed: nothing is answered, nobody is told.
    process_.RunNow([this] {
      served_.clear();
      pool_.reset();
    });
  }

  SimLoop& process() { return process_; }

  void Serve(Mount& mount, const std::vector<state::RequestSlot>& adopted) {
    Served& served = served_[mount.id()];
    served.mount = &mount;
    served.tables = *state::MountTables::Map(mount.tables_fd_.get());
    if (!served.tables->Recover().ok()) node_.oracle_.Violation("tables cannot be recovered");
    smb::Credential credential;
    credential.user = "user";
    credential.password = Secret("secret");
    const dfs::ClientOptions options{
        .referral_ttl_min = node_.options_.referral_ttl_min,
        .next_epoch = [tables = served.tables.get()] { return tables->NextEpoch(); }};
    served.client =
        std::make_unique<dfs::Client>(*dfs::DfsPath::Parse(mount.source()), std::move(credential),
                                      options, *pool_, cache_, domains_, health_);
    vfs::Options vfs_options;
    vfs_options.write_behind = node_.options_.write_behind;
    served.filesystem = std::make_unique<vfs::Filesystem>(*served.client, *served.tables,
                                                          invalidation_, vfs_options);
    auto readable = std::make_shared<runtime::Condition>();
    mount.readable_ = readable;
    UniqueFd fd = mount.kernel_.OpenDevice();
    auto watch = std::make_unique<DeviceWatch>(fd.get(), std::move(readable));
    fuse::Session::Config config;
    config.mount_id = mount.id();
    config.fuse_fd = std::move(fd);
    config.init_in = FakeFuseKernel::InitIn();
    config.check_own_requests = false;
    served.session = *fuse::Session::Make(std::move(config), std::move(watch), *served.filesystem,
                                          *room_, buffers_, [] {});
    served.session->Adopt(adopted);
    served.session->Start();
    served.filesystem->ResumeInvalidations();
  }
  void Remove(uint32_t id) {
    process_.RunNow([&] {
      served_.erase(id);
      arena_->FreeMount(id);
    });
  }
  void StopReading() {
    process_.RunNow([this] {
      for (auto& [id, served] : served_) served.session->StopReading();
    });
  }

  // Whether anything was written since the last call.
  bool Wrote() {
    int64_t written = 0;
    for (const auto& [id, served] : served_) {
      const fuse::SessionCounters& counters = served.session->counters();
      written += counters.answers + counters.adopted_answers + counters.early_interrupts +
                 counters.own_requests + counters.write_failures;
    }
    return std::exchange(written_, written) != written;
  }
  void AddCounters(dfs::ClientCounters* sum) const {
    for (const auto& [id, served] : served_) {
      const dfs::ClientCounters counters = served.client->counters();
      sum->suspicions += counters.suspicions;
      sum->failovers += counters.failovers;
      sum->lost_targets += counters.lost_targets;
      sum->moved_operations += counters.moved_operations;
      sum->referral_requests += counters.referral_requests;
    }
  }
  std::string SaveCache() { return cache_.Save(process_.Now(), process_.Now()); }

  void ExpectNothingHeld() {
    for (const auto& [id, served] : served_) {
      if (served.session->in_flight() != 0) node_.oracle_.Violation("a request is in flight");
      served.tables->inodes().ForEach([&](const state::InodeTable::Node& node) {
        if (node.id() == state::kRootNode) return;
        node_.oracle_.Violation(absl::StrCat("inode left over: ", std::string(node.name()), ", ",
                                             node.nlookup(), " lookups"));
      });
    }
    const state::RequestArena::Usage usage = arena_->GetUsage();
    if (usage.big_free != usage.big_total || usage.small_free != usage.small_total) {
      node_.oracle_.Violation("slots of the arena are left over");
    }
    if (buffers_.used_bytes() != 0) node_.oracle_.Violation("reply buffers are left over");
  }

 private:
  struct Served {
    Mount* mount = nullptr;
    std::unique_ptr<state::MountTables> tables;
    std::unique_ptr<dfs::Client> client;
    std::unique_ptr<vfs::Filesystem> filesystem;
    std::unique_ptr<fuse::Session> session;
  };

  Node& node_;
  SimLoop process_;
  testing::PasswordAuthenticators authenticators_;
  NoInvalidation invalidation_;
  dfs::ReferralCache cache_;
  dfs::DomainCache domains_;
  dfs::TargetHealthTable health_;
  fuse::BufferPool buffers_{kBufferBytes};
  std::unique_ptr<state::RequestArena> arena_;
  std::unique_ptr<fuse::ArenaRoom> room_;
  std::unique_ptr<smb::SessionPool> pool_;
  std::map<uint32_t, Served> served_;
  int64_t written_ = 0;
};

// --- The node

Node::Node(runtime::SimWorld& world, runtime::SimHost& host, Oracle& oracle, NodeOptions options)
    : world_(world),
      host_(host),
      oracle_(oracle),
      options_(std::move(options)),
      applications_(std::make_unique<SimLoop>(world, host, "applications")),
      sessions_(std::make_unique<Sessions>(oracle)) {}

Node::~Node() {
  applications_->RunNow([this] { running_.reset(); });
  applications_.reset();
  agent_.reset();
}

void Node::SpawnApplication(Task<void> task) {
  applications_->RunNow([&] { running_->Spawn(std::move(task)); });
}

std::shared_ptr<Mount> Node::AddMount(const std::string& source) {
  auto mount = std::make_shared<Mount>(*this, ++last_mount_, source);
  mounts_[mount->id()] = mount;
  if (agent_ != nullptr) agent_->process().RunNow([&] { agent_->Serve(*mount, {}); });
  return mount;
}

void Node::Unmount(uint32_t id) {
  const auto found = mounts_.find(id);
  if (found == mounts_.end()) return;
  const std::shared_ptr<Mount> mount = std::move(found->second);
  mounts_.erase(found);
  mount->Pump();
  mount->Abort();
  if (agent_ == nullptr) return;  // The next one frees what it finds of a mount it does not know.
  agent_->AddCounters(&dead_agents_);
  agent_->Remove(id);
  dfs::ClientCounters rest;
  agent_->AddCounters(&rest);
  dead_agents_.suspicions -= rest.suspicions;
  dead_agents_.failovers -= rest.failovers;
  dead_agents_.lost_targets -= rest.lost_targets;
  dead_agents_.moved_operations -= rest.moved_operations;
  dead_agents_.referral_requests -= rest.referral_requests;
}

void Node::StartAgent() {
  if (agent_ != nullptr) return;
  world_.Log("agent: started");
  agent_starts_.push_back(world_.now());
  agent_since_ = world_.now();
  agent_ = std::make_unique<Agent>(*this, ++generation_);
}

void Node::KillAgent() {
  if (agent_ == nullptr) return;
  Pump();
  agent_->AddCounters(&dead_agents_);
  if (options_.save_cache) saved_cache_ = agent_->SaveCache();
  agent_.reset();
  agent_deaths_.push_back(world_.now());
  sessions_->NextAgent();
  agent_since_ = absl::InfiniteFuture();
  stalled_until_ = absl::InfinitePast();
}

void Node::HandOver(absl::Duration patience, absl::Duration gap) {
  if (agent_ == nullptr) return;
  if (world_.now() < stalled_until_) {  // It hears nothing: its successor does not wait for it.
    KillAgent();
    world_.After(gap, [this] { StartAgent(); });
    return;
  }
  agent_->StopReading();
  agent_since_ = absl::InfiniteFuture();
  world_.After(patience, [this, gap, generation = generation_] {
    if (generation != generation_) return;  // It was killed meanwhile.
    KillAgent();
    world_.After(gap, [this] { StartAgent(); });
  });
}

void Node::StallAgent(absl::Duration duration) {
  if (agent_ == nullptr) return;
  agent_->process().Stall(duration);
  stalled_until_ = std::max(stalled_until_, world_.now() + duration);
}

absl::Time Node::agent_well_since() const { return std::max(agent_since_, stalled_until_); }

void Node::WakeAgent(const std::weak_ptr<runtime::Condition>& readable) {
  if (agent_ == nullptr) return;
  agent_->process().Post([readable] {
    if (const std::shared_ptr<runtime::Condition> waiting = readable.lock()) waiting->NotifyAll();
  });
}

void Node::Pump() {
  if (agent_ == nullptr || !agent_->Wrote()) return;
  for (const auto& [id, mount] : mounts_) mount->Pump();
}

void Node::ExpectNothingHeld() {
  if (agent_ != nullptr) agent_->ExpectNothingHeld();
}

dfs::ClientCounters Node::counters() const {
  dfs::ClientCounters sum = dead_agents_;
  if (agent_ != nullptr) agent_->AddCounters(&sum);
  return sum;
}

}  // namespace dfscsi::simulation
