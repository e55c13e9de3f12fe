#include "node-agent/mounter/mounter.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "node-agent/base/log.h"
#include "node-agent/base/status_macros.h"
#include "node-agent/state/mount_tables.h"

namespace dfscsi::mounter {
namespace {

using state::Envelope;
using state::Message;
using state::Role;

constexpr absl::Duration kTick = absl::Milliseconds(500);
// How long an agent that has nothing waits for one that kept the mounts of an earlier mounter.
constexpr absl::Duration kEscrowWait = absl::Seconds(3);
// An agent that drains and has a successor is not waited for longer.
constexpr absl::Duration kDrainLimit = absl::Seconds(5);
// An agent that was active under an earlier mounter, lives, and does not come back.
constexpr absl::Duration kReconnectLimit = absl::Seconds(10);
constexpr size_t kMaxPeers = 60;
constexpr char kBuildId[] = DFSCSI_BUILD_ID;

absl::Time MonotonicNow() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return absl::TimeFromTimespec(now);
}

std::string BootId() { return ReadFile("/proc/sys/kernel/random/boot_id"); }

// Field 22 of /proc/PID/stat; the name before it may hold spaces and brackets. 0: no such process.
uint64_t StartTime(pid_t pid) {
  const std::string stat = ReadFile(absl::StrCat("/proc/", pid, "/stat"));
  const size_t bracket = stat.rfind(')');
  if (bracket == std::string::npos) return 0;
  const std::vector<std::string> fields = absl::StrSplit(stat.substr(bracket + 2), ' ');
  return fields.size() > 19 ? strtoull(fields[19].c_str(), nullptr, 10) : 0;
}

}  // namespace

// ---- start ----

Mounter::Mounter(Options options, MountRoot root)
    : options_(std::move(options)),
      root_(std::move(root)),
      started_at_(MonotonicNow()),
      ticked_at_(started_at_) {}

absl::StatusOr<std::unique_ptr<Mounter>> Mounter::Start(const Options& options) {
  const std::string& dir = options.socket_dir;
  std::optional<MountRoot> root = MountRoot::Open(options.mount_root);
  if (!root) return absl::InvalidArgumentError(options.mount_root + ": not a folder");
  std::unique_ptr<Mounter> mounter(new Mounter(options, *std::move(root)));
  if (mkdir(dir.c_str(), 0750) != 0 && errno != EEXIST) return absl::ErrnoToStatus(errno, dir);
  const std::string lock = dir + "/mounter.lock";
  mounter->lock_.reset(open(lock.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!mounter->lock_) return absl::ErrnoToStatus(errno, lock);
  if (flock(mounter->lock_.get(), LOCK_EX | LOCK_NB) != 0) {
    return absl::AlreadyExistsError(dir + ": another dfs-mounter runs there");
  }
  ASSIGN_OR_RETURN(mounter->listener_, state::MessageListener::Listen(dir, options.group));
  mounter->epoll_.reset(epoll_create1(EPOLL_CLOEXEC));
  epoll_event event = {.events = EPOLLIN, .data = {.u64 = 0}};
  if (epoll_ctl(mounter->epoll_.get(), EPOLL_CTL_ADD, mounter->listener_.fd(), &event) != 0) {
    return absl::ErrnoToStatus(errno, "epoll");
  }
  mounter->expects_escrow_ = ReadFile(dir + "/mounts.live") == BootId();
  return mounter;
}

// So that the mounter after this one knows whether to wait for agents that hold mounts.
void Mounter::NoteLiveMounts() {
  const std::string path = options_.socket_dir + "/mounts.live";
  if (mounts_.empty()) {
    unlink(path.c_str());
    return;
  }
  const UniqueFd fd(
      open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600));
  const std::string id = BootId();
  if (!fd || write(fd.get(), id.data(), id.size()) < 0) LogWarning(path, ": ", strerror(errno));
}

absl::Status Mounter::Run(int stop_fd) {
  constexpr uint64_t kStop = ~uint64_t{0};
  epoll_event stop = {.events = EPOLLIN, .data = {.u64 = kStop}};
  if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, stop_fd, &stop) != 0) {
    return absl::ErrnoToStatus(errno, "epoll");
  }
  for (;;) {
    const bool idle = peers_.empty() && mounts_.empty();
    if (idle && memory_ && options_.exit_when_idle) return absl::OkStatus();
    epoll_event events[64];
    const int n = epoll_wait(epoll_.get(), events, 64,
                             idle ? -1 : static_cast<int>(absl::ToInt64Milliseconds(kTick)));
    if (n < 0 && errno != EINTR) return absl::ErrnoToStatus(errno, "epoll_wait");
    for (int i = 0; i < n; ++i) {
      const uint64_t number = events[i].data.u64;
      if (number == kStop) return absl::OkStatus();
      if (number == 0) {
        Accept();
        continue;
      }
      const auto found = peers_.find(number);
      if (found == peers_.end()) continue;
      if (events[i].events & EPOLLOUT) {
        found->second->socket.Flush().IgnoreError();  // A hang-up is seen by reading.
        PollFor(*found->second);
      }
      if (events[i].events & ~EPOLLOUT) ReadFrom(*found->second);
    }
    if (idle) ticked_at_ = MonotonicNow();
    Tick();
  }
}

// ---- connections ----

bool Mounter::MayBe(uid_t uid, Role role) const {
  const std::pair<uid_t, Role> wanted(uid, role);
  return std::find(options_.allow.begin(), options_.allow.end(), wanted) != options_.allow.end();
}

void Mounter::Accept() {
  std::optional<state::MessageListener::Accepted> accepted = listener_.Accept();
  if (!accepted) return;
  const bool known = MayBe(accepted->uid, Role::kAgent) || MayBe(accepted->uid, Role::kTool);
  if (!known || peers_.size() >= kMaxPeers) {
    LogWarning("refused pid ", accepted->pid, " of uid ", accepted->uid,
               known ? ": too many connections" : ": not in --allow");
    return;
  }
  auto peer = std::make_unique<Peer>();
  static_cast<state::MessageListener::Accepted&>(*peer) = *std::move(accepted);
  peer->number = ++last_peer_;
  epoll_event event = {.events = EPOLLIN, .data = {.u64 = peer->number}};
  if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, peer->socket.fd(), &event) != 0) return;
  peers_[peer->number] = std::move(peer);
}

void Mounter::ReadFrom(Peer& peer) {
  const uint64_t number = peer.number;
  // Not for ever: others wait, too.
  for (int i = 0; i < 64; ++i) {
    absl::StatusOr<std::optional<Envelope>> received = peer.socket.Receive();
    if (absl::IsUnavailable(received.status())) return Close(number);
    absl::Status status = received.status();
    if (status.ok()) {
      if (!received->has_value()) return;
      if (!peer.closing) status = Handle(peer, **std::move(received));
      if (peers_.count(number) == 0) return;
    }
    if (!status.ok()) return Refuse(peer, EPROTO, std::string(status.message()));
  }
}

void Mounter::Send(Peer& peer, const Message& message, uint64_t request_id,
                   const std::vector<int>& fds) {
  if (peer.closing) return;
  const absl::Status sent = peer.socket.Send(message, request_id, fds);
  if (!sent.ok() && !absl::IsUnavailable(sent)) {  // A hang-up is seen by reading.
    LogWarning("pid ", peer.pid, ": ", sent.message());
    shutdown(peer.socket.fd(), SHUT_RDWR);
  }
  PollFor(peer);
}

void Mounter::PollFor(Peer& peer) {
  if (peer.socket.wants_write() == peer.polls_write) return;
  peer.polls_write = !peer.polls_write;
  epoll_event event = {.events = EPOLLIN | (peer.polls_write ? EPOLLOUT : 0u),
                       .data = {.u64 = peer.number}};
  epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, peer.socket.fd(), &event);
}

// To every agent; the one that asked finds its request id on it.
void Mounter::Broadcast(const Message& message, const Peer* asker, uint64_t request_id,
                        const std::vector<int>& fds) {
  for (auto& [number, peer] : peers_) {
    if (peer->welcomed) Send(*peer, message, peer.get() == asker ? request_id : 0, fds);
  }
}

void Mounter::Refuse(Peer& peer, int error, const std::string& text) {
  LogWarning("refused pid ", peer.pid, ": ", text);
  Send(peer, state::Error{error, text});
  peer.closing = true;
  if (escrow_ && escrow_->giver == peer.number) escrow_.reset();
  shutdown(peer.socket.fd(), SHUT_WR);  // It reads the reason, then the end; then it hangs up.
}

void Mounter::Close(uint64_t number) {
  const auto found = peers_.find(number);
  if (found == peers_.end()) return;
  const std::unique_ptr<Peer> peer = std::move(found->second);
  peers_.erase(found);
  if (escrow_ && escrow_->giver == number) escrow_.reset();
  if (peer->IsAgent()) {
    LogInfo("agent pid ", peer->pid, " hung up", number == active_ ? "; it was active" : "");
  }
  if (number == active_) {
    active_ = 0;
    ChooseActive();
  }
  Admit();
}

// ---- messages ----

absl::Status Mounter::Handle(Peer& peer, Envelope envelope) {
  if (const auto* hello = std::get_if<state::Hello>(&envelope.message)) {
    return HandleHello(peer, *hello);
  }
  if (!peer.hello) return absl::InvalidArgumentError("a message before Hello");
  if (const auto* unmount = std::get_if<state::UnmountRequest>(&envelope.message)) {
    DoUnmount(peer, *unmount, envelope.request_id);
  } else if (std::holds_alternative<state::ListRequest>(envelope.message)) {
    for (const auto& [id, mount] : mounts_) Send(peer, mount.entry, envelope.request_id);
    Send(peer, state::ListEnd{static_cast<uint32_t>(mounts_.size())}, envelope.request_id);
  } else if (std::holds_alternative<state::StatusRequest>(envelope.message)) {
    SendStatus(peer, envelope.request_id);
  } else if (!peer.IsAgent()) {
    return absl::InvalidArgumentError("a tool may not ask for this");
  } else if (escrow_ && escrow_->giver == peer.number) {
    return HandleEscrow(std::move(envelope));
  } else {
    return HandleAgent(peer, envelope);
  }
  return absl::OkStatus();
}

void Mounter::SendStatus(Peer& peer, uint64_t request_id) {
  state::StatusReply reply;
  reply.mounts = static_cast<uint32_t>(mounts_.size());
  for (const auto& [number, other] : peers_) reply.agents += other->welcomed;
  if (const Peer* now = active()) {
    reply.active_pid = static_cast<uint32_t>(now->pid);
    reply.active_build_id = now->hello->build_id;
  }
  if (memory_) {
    reply.generation = memory_->heartbeat().GetNote().last_generation;
    reply.granted_steps = memory_->granted_steps();
  }
  reply.build_id = kBuildId;
  Send(peer, reply, request_id);
}

absl::Status Mounter::HandleHello(Peer& peer, const state::Hello& hello) {
  if (peer.hello) return absl::InvalidArgumentError("a second Hello");
  if (!MayBe(peer.uid, hello.role)) {
    return absl::InvalidArgumentError("this user may not have this role");
  }
  peer.hello = hello;
  if (peer.IsAgent()) {
    LogInfo("agent pid ", peer.pid, " (", hello.build_id, ") connected");
    Admit();
  }
  return absl::OkStatus();
}

absl::Status Mounter::HandleAgent(Peer& peer, const Envelope& envelope) {
  const uint64_t id = envelope.request_id;
  absl::Status failed;
  if (std::holds_alternative<state::Draining>(envelope.message)) {
    LogInfo("agent pid ", peer.pid, " drains");
    peer.draining = true;
    peer.drain_since = MonotonicNow();
  } else if (const auto* gone = std::get_if<state::ReportGone>(&envelope.message)) {
    // Looked at here: an agent's word is not enough to give up a mount.
    const auto found = mounts_.find(gone->mount_id);
    if (found != mounts_.end() && IsGone(found->second.fuse_fd.get())) DropMount(gone->mount_id);
  } else if (peer.number != active_) {
    Send(peer, state::Error{EAGAIN, "only the active agent may ask for this"}, id);
  } else if (const auto* mount = std::get_if<state::MountRequest>(&envelope.message)) {
    DoMount(peer, *mount, id);
  } else if (std::holds_alternative<state::GrowArena>(envelope.message)) {
    const absl::StatusOr<int> grown = memory_->Grow();
    failed = grown.status();
    const uint32_t step = static_cast<uint32_t>(grown.value_or(0));
    if (failed.ok()) Broadcast(state::StepGranted{step, memory_->granted_steps()}, &peer, id);
  } else if (const auto* back = std::get_if<state::ReturnStep>(&envelope.message)) {
    failed = memory_->Return(back->step);
    if (failed.ok()) Broadcast(state::StepRevoked{back->step, memory_->granted_steps()}, &peer, id);
  } else {
    return absl::InvalidArgumentError(std::string(state::MessageName(envelope.message)) +
                                      ": not expected now");
  }
  if (!failed.ok()) {
    const int error = absl::IsResourceExhausted(failed) ? ENOSPC : EINVAL;
    Send(peer, state::Error{error, std::string(failed.message())}, id);
  }
  return absl::OkStatus();
}

// ---- admission and escrow ----

std::string Mounter::WhyUnreadable(const state::Hello& hello) const {
  if (hello.arena_layout != memory_->arena_layout()) {
    return absl::StrCat("the request arena has layout ", memory_->arena_layout(),
                        ", this agent uses ", hello.arena_layout);
  }
  for (const auto& [id, mount] : mounts_) {
    const uint32_t layout = mount.entry.tables_layout;
    if (layout > hello.tables_layout || layout < hello.tables_oldest_readable) {
      return absl::StrCat("the tables of mount ", id, " have layout ", layout,
                          ", this agent reads ", hello.tables_oldest_readable, " to ",
                          hello.tables_layout);
    }
  }
  return "";
}

// Decides, for each agent that said Hello, whether it is welcomed, gives back what it holds, or
// waits.
void Mounter::Admit() {
  for (auto& [number, peer] : peers_) {
    if (!peer->IsAgent() || peer->welcomed || peer->closing || escrow_) continue;
    const state::Hello& hello = *peer->hello;
    const bool foreign = memory_ && hello.state_id != 0 && hello.state_id != memory_->state_id();
    if (foreign && hello.escrow_mounts != 0 && !mounts_.empty()) {
      Refuse(*peer, EEXIST, "it holds mounts of another life of the mounter");
    } else if (hello.state_id != 0 && (!memory_ || (foreign && hello.escrow_mounts != 0))) {
      escrow_ = Escrow();
      escrow_->giver = number;
      escrow_->since = MonotonicNow();
      Send(*peer, state::EscrowWanted());
    } else if (memory_) {
      Welcome(*peer);
    } else if (!expects_escrow_ || MonotonicNow() - started_at_ > kEscrowWait) {
      absl::StatusOr<state::NodeMemory> memory = state::NodeMemory::Create(hello.arena_layout);
      if (!memory.ok()) {
        Refuse(*peer, ENOMEM, std::string(memory.status().message()));
        continue;
      }
      memory_ = std::make_unique<state::NodeMemory>(*std::move(memory));
      Welcome(*peer);
    }
  }
  ChooseActive();
}

void Mounter::Welcome(Peer& peer) {
  if (const std::string why = WhyUnreadable(*peer.hello); !why.empty()) {
    return Refuse(peer, EPROTO, why);
  }
  for (peer.line = 1; peer.line < state::Heartbeat::kLines; ++peer.line) {
    if (std::none_of(peers_.begin(), peers_.end(), [&](const auto& other) {
          return other.second->welcomed && other.second->line == peer.line;
        })) {
      break;
    }
  }
  memory_->heartbeat().Clear(peer.line);
  state::Welcome welcome;
  welcome.state_id = memory_->state_id();
  welcome.heartbeat_line = peer.line;
  welcome.granted_steps = memory_->granted_steps();
  welcome.build_id = kBuildId;
  Send(peer, welcome, 0, memory_->fds());
  for (const auto& [id, mount] : mounts_) {
    Send(peer, mount.entry, 0, {mount.fuse_fd.get(), mount.tables.get()});
  }
  Send(peer, state::ListEnd{static_cast<uint32_t>(mounts_.size())});
  peer.welcomed = true;
}

// EscrowNode, MountEntry…, EscrowEnd: nothing counts before the end.
absl::Status Mounter::HandleEscrow(Envelope envelope) {
  if (const auto* node = std::get_if<state::EscrowNode>(&envelope.message)) {
    ASSIGN_OR_RETURN(state::NodeMemory memory,
                     state::NodeMemory::Adopt(*node, std::move(envelope.fds)));
    escrow_->memory = std::make_unique<state::NodeMemory>(std::move(memory));
  } else if (auto* entry = std::get_if<state::MountEntry>(&envelope.message)) {
    if (envelope.fds.size() != 2 || !IsFuseDevice(envelope.fds[0].get()) ||
        !state::SharedMemory::Map(envelope.fds[1].get(), state::kTablesBytes).ok()) {
      return absl::InvalidArgumentError("escrow: not the fds of a mount");
    }
    Mount& mount = escrow_->mounts[entry->mount_id];
    mount = {std::move(*entry), std::move(envelope.fds[0]), std::move(envelope.fds[1])};
  } else if (std::holds_alternative<state::EscrowEnd>(envelope.message) && escrow_->memory) {
    TakeEscrow();
  } else {
    return absl::InvalidArgumentError("escrow: another message in between");
  }
  return absl::OkStatus();
}

void Mounter::TakeEscrow() {
  Escrow escrow = *std::exchange(escrow_, std::nullopt);
  // Agents of an empty state that was made meanwhile start again with this one.
  for (auto& [number, peer] : peers_) {
    if (peer->welcomed) shutdown(peer->socket.fd(), SHUT_RDWR);
    peer->closing = peer->closing || peer->welcomed;
    peer->welcomed = false;
  }
  active_ = 0;
  memory_ = std::move(escrow.memory);
  mounts_ = std::move(escrow.mounts);
  const state::Heartbeat::MounterNote note = memory_->heartbeat().GetNote();
  if (note.pid != 0 && StartTime(note.pid) == note.start_time) {
    earlier_active_.reset(static_cast<int>(syscall(SYS_pidfd_open, note.pid, 0)));
  }
  NoteLiveMounts();
  LogInfo("took back ", mounts_.size(), " mounts");
  Admit();
}

// ---- mounts ----

void Mounter::DoMount(Peer& peer, const state::MountRequest& request, uint64_t request_id) {
  absl::StatusOr<UniqueFd> tables = state::CreateSharedMemory("dfs-tables", state::kTablesBytes);
  MountRoot::Made made;
  std::optional<state::Error> error;
  if (request.config.size() > state::kMaxConfigBytes) {
    error = state::Error{EINVAL, "the mount's configuration is too long"};
  } else if (!tables.ok()) {
    error = state::Error{ENOMEM, std::string(tables.status().message())};
  } else {
    error = root_.Mount(request, &made);
  }
  if (error) {
    LogWarning("mount: ", error->text);
    Send(peer, *error, request_id);
    return;
  }
  state::Heartbeat::MounterNote note = memory_->heartbeat().GetNote();
  Mount& mount = mounts_[++note.last_mount_id];
  memory_->heartbeat().SetNote(note);
  mount.entry.mount_id = note.last_mount_id;
  mount.entry.dev_minor = made.dev_minor;
  mount.entry.tables_layout = request.tables_layout;
  mount.entry.mount_point = request.mount_point;
  mount.entry.source = request.source;
  mount.entry.read_only = request.read_only;
  mount.entry.init_in = std::move(made.init_in);
  mount.entry.init_out = std::move(made.init_out);
  mount.entry.config = request.config;
  mount.fuse_fd = std::move(made.fuse_fd);
  mount.tables = *std::move(tables);
  NoteLiveMounts();
  LogInfo("mount ", mount.entry.mount_id, ": ", request.source, " on ", request.mount_point);
  Broadcast(mount.entry, &peer, request_id, {mount.fuse_fd.get(), mount.tables.get()});
}

void Mounter::DoUnmount(Peer& peer, const state::UnmountRequest& request, uint64_t request_id) {
  uint32_t id = request.mount_id;
  std::string point = request.mount_point;
  for (const auto& [mount_id, mount] : mounts_) {
    if (id == 0 && mount.entry.mount_point == point && !mount.entry.detached) id = mount_id;
  }
  const auto found = mounts_.find(id);
  if (found != mounts_.end()) point = found->second.entry.mount_point;
  std::optional<state::Error> error;
  if (point.empty()) {
    error = state::Error{ENOENT, absl::StrCat("there is no mount ", id)};
  } else if (found == mounts_.end() || !found->second.entry.detached) {
    // Also one that no agent serves any more, whose mounter and agents all died.
    error = root_.Unmount(point, request.force);
  }
  if (error) {
    LogWarning("unmount: ", error->text);
    Send(peer, *error, request_id);
    return;
  }
  LogInfo("unmounted ", point);
  if (found != mounts_.end()) {
    found->second.entry.detached = true;
    // When the last of its fds is closed, here and in the agents, what still waits for it ends.
    if (request.force || IsGone(found->second.fuse_fd.get())) DropMount(id);
  }
  Send(peer, state::Done(), request_id);
}

// Nobody uses the file system any more.
void Mounter::DropMount(uint32_t mount_id) {
  const auto found = mounts_.find(mount_id);
  if (found == mounts_.end()) return;
  const std::string point = found->second.entry.mount_point;
  mounts_.erase(found);
  memory_->vault().Erase(mount_id);
  if (mounts_.empty()) memory_->vault().EraseAllBut({});
  NoteLiveMounts();
  LogInfo("mount ", mount_id, " on ", point, " is gone");
  Broadcast(state::MountGone{mount_id, point});
}

// ---- who is active ----

Mounter::Peer* Mounter::active() {
  const auto found = peers_.find(active_);
  return found == peers_.end() ? nullptr : found->second.get();
}

void Mounter::ChooseActive() {
  if (active_ != 0 || memory_ == nullptr || EarlierActiveLives()) return;
  state::Heartbeat::MounterNote note = memory_->heartbeat().GetNote();
  Peer* best = nullptr;
  for (auto& [number, peer] : peers_) {  // The latest: an upgrade comes after what it replaces.
    if (peer->welcomed && !peer->draining && !peer->closing) best = peer.get();
  }
  if (best == nullptr && note.pid == 0) return;
  note.pid = 0;
  if (best == nullptr) {
    LogWarning("no agent: ", mounts_.size(), " mounts wait for one");
    return memory_->heartbeat().SetNote(note);
  }
  ++note.last_generation;
  note.pid = best->pid;
  note.start_time = StartTime(best->pid);
  memory_->heartbeat().SetNote(note);
  active_ = best->number;
  best->alive_at = MonotonicNow();
  Send(*best, state::Activate{note.last_generation});
  LogInfo("agent pid ", best->pid, " is active, generation ", note.last_generation);
}

// After a restart of the mounter: the agent that was active before, and may still be writing to the
// arena, must be back, or dead, before another one is activated.
bool Mounter::EarlierActiveLives() {
  if (!earlier_active_) return false;
  const state::Heartbeat::MounterNote note = memory_->heartbeat().GetNote();
  for (auto& [number, peer] : peers_) {
    if (!peer->welcomed || peer->pid != note.pid ||
        peer->hello->active_generation != note.last_generation) {
      continue;
    }
    earlier_active_.reset();
    active_ = number;
    peer->alive_at = MonotonicNow();
    Send(*peer, state::Activate{note.last_generation});
    LogInfo("agent pid ", peer->pid, " goes on, generation ", note.last_generation);
    return true;
  }
  pollfd dead = {earlier_active_.get(), POLLIN, 0};
  if (poll(&dead, 1, /*ms=*/0) != 1) return true;
  earlier_active_.reset();
  return false;
}

void Mounter::Kill(int pidfd, const std::string& why) {
  const bool sent = syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, nullptr, 0) == 0;
  LogError("agent killed: ", why,
           sent ? "" : "; it cannot be killed: ", sent ? "" : strerror(errno));
}

void Mounter::CheckHeartbeat(absl::Time now) {
  Peer* const peer = active();
  if (peer == nullptr || peer->killed) return;
  const uint64_t beats = memory_->heartbeat().Count(peer->line);
  if (beats != peer->beats) {
    peer->beats = beats;
    peer->alive_at = now;
  }
  if (now - peer->alive_at > state::kHeartbeatTimeout) {
    peer->killed = true;
    Kill(peer->pidfd.get(), absl::StrCat("pid ", peer->pid, " has no heartbeat"));
  } else if (peer->draining && now - peer->drain_since > kDrainLimit &&
             std::any_of(peers_.begin(), peers_.end(), [&](const auto& entry) {
               return entry.second->welcomed && !entry.second->draining;
             })) {
    peer->killed = true;
    Kill(peer->pidfd.get(), absl::StrCat("pid ", peer->pid, " drains, and another is ready"));
  }
}

void Mounter::Tick() {
  const absl::Time now = MonotonicNow();
  if (now - ticked_at_ > 3 * kTick) {
    // This process slept (stopped, no CPU): others may have slept, too.
    if (Peer* peer = active()) peer->alive_at = now;
  }
  if (now - ticked_at_ < kTick) return;
  ticked_at_ = now;
  CheckHeartbeat(now);
  // Unmounted by others. Not by epoll on the fds: each request to an agent would wake this process.
  std::vector<uint32_t> gone;
  for (const auto& [id, mount] : mounts_) {
    if (IsGone(mount.fuse_fd.get())) gone.push_back(id);
  }
  for (const uint32_t id : gone) DropMount(id);
  if (escrow_ && now - escrow_->since > kReconnectLimit) {
    Refuse(*peers_.at(escrow_->giver), ETIMEDOUT, "it does not give back what it holds");
  }
  if (earlier_active_ && now - started_at_ > kReconnectLimit) {
    Kill(earlier_active_.get(), "it was active and does not reconnect");
  }
  Admit();
  ChooseActive();
}

}  // namespace dfscsi::mounter
