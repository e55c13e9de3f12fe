#include "node-agent/mounter/mounter.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "node-agent/base/log.h"
#include "node-agent/base/status_macros.h"
#include "node-agent/state/mount_info.h"
#include "node-agent/state/mount_tables.h"

namespace dfscsi::mounter {
namespace {

using state::Envelope;
using state::Message;
using state::Role;

constexpr size_t kMaxPeers = 60;
constexpr int kAcceptAgainMs = 20;

std::string BootId() { return state::ReadFile("/proc/sys/kernel/random/boot_id"); }

}  // namespace

// ---- start ----

Mounter::Mounter(Options options, MountRoot root)
    : options_(std::move(options)),
      root_(std::move(root)),
      started_at_(Now()),
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
  mounter->expects_escrow_ = state::ReadFile(dir + "/mounts.live") == BootId();
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
      if (number == 0) Accept();
      const auto found = peers_.find(number);
      if (found == peers_.end()) continue;
      if (events[i].events & EPOLLOUT) {
        found->second->socket.Flush().IgnoreError();  // A hang-up is seen by reading.
        PollFor(*found->second);
      }
      if (events[i].events & ~EPOLLOUT) ReadFrom(*found->second);
    }
    if (idle) ticked_at_ = Now();
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
  if (!accepted) {  // Without free descriptors the socket stays readable.
    poll(nullptr, 0, kAcceptAgainMs);
    return;
  }
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

void Mounter::Fail(Peer& peer, uint64_t request_id, const state::Error& error) {
  LogWarning("pid ", peer.pid, ": ", error.text);
  Send(peer, error, request_id);
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
    if (!peer->draining) MakeSureItIsDead(*peer);
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
  NoteUnmounted();
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
    peer.drain_since = Now();
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
    Fail(peer, id, {error, std::string(failed.message())});
  }
  return absl::OkStatus();
}

// ---- mounts ----

void Mounter::DoMount(Peer& peer, const state::MountRequest& request, uint64_t request_id) {
  if (request.config.size() > state::kMaxConfigBytes) {
    return Fail(peer, request_id, {EINVAL, "the mount's configuration is too long"});
  }
  if (escrow_) {  // What is given back takes the place of everything that was made meanwhile.
    return Fail(peer, request_id, {EAGAIN, "earlier mounts are being taken back: try again"});
  }
  absl::StatusOr<UniqueFd> tables = state::CreateSharedMemory("dfs-tables", state::kTablesBytes);
  if (!tables.ok()) return Fail(peer, request_id, {ENOMEM, std::string(tables.status().message())});
  MountRoot::Made made;
  const std::optional<state::Error> error = root_.Mount(request, &made);
  if (error) return Fail(peer, request_id, *error);
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
  if (error) return Fail(peer, request_id, *error);
  LogInfo("unmounted ", point);
  if (found != mounts_.end()) {
    SetDetached(id, found->second);
    // When the last of its fds is closed, here and in the agents, what still waits for it ends.
    if (request.force || IsGone(found->second.fuse_fd.get())) DropMount(id);
  }
  Send(peer, state::Done(), request_id);
}

void Mounter::SetDetached(uint32_t mount_id, Mount& mount) {
  if (std::exchange(mount.entry.detached, true)) return;
  LogInfo("mount ", mount_id, " on ", mount.entry.mount_point, " is detached");
  Broadcast(mount.entry, nullptr, 0, {mount.fuse_fd.get(), mount.tables.get()});
}

void Mounter::NoteUnmounted() {
  if (mounts_.empty()) return;
  const std::vector<state::MountInfo> now = state::ReadMountInfo();
  if (now.empty()) return;  // It could not be read.
  for (auto& [id, mount] : mounts_) {
    const state::MountEntry& entry = mount.entry;
    const bool there = std::any_of(now.begin(), now.end(), [&](const state::MountInfo& info) {
      return info.type == state::kFileSystemType && info.dev_minor == entry.dev_minor &&
             info.mount_point == entry.mount_point;
    });
    if (!there) SetDetached(id, mount);
  }
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

}  // namespace dfscsi::mounter
