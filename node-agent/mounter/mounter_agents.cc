// Who may be an agent here, who is active, and who is dead: mounter.h.

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
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
#include "node-agent/mounter/mounter.h"
#include "node-agent/state/mount_info.h"
#include "node-agent/state/mount_tables.h"

namespace dfscsi::mounter {
namespace {

// How long an agent that has nothing waits for one that kept the mounts of an earlier mounter.
constexpr absl::Duration kEscrowWait = absl::Seconds(3);
// An agent that drains and has a successor is not waited for longer.
constexpr absl::Duration kDrainLimit = absl::Seconds(5);
// An agent that was active under an earlier mounter, lives, and does not come back.
constexpr absl::Duration kReconnectLimit = absl::Seconds(10);
// How long the mounter waits for the end of a process that hung up; and of one that it killed.
constexpr int kExitMs = 50;
constexpr int kKilledMs = 1'000;

// Field 22 of /proc/PID/stat; the name before it may hold spaces and brackets. 0: no such process.
uint64_t StartTime(pid_t pid) {
  const std::string stat = state::ReadFile(absl::StrCat("/proc/", pid, "/stat"));
  const size_t bracket = stat.rfind(')');
  if (bracket == std::string::npos) return 0;
  const std::vector<std::string> fields = absl::StrSplit(stat.substr(bracket + 2), ' ');
  return fields.size() > 19 ? strtoull(fields[19].c_str(), nullptr, 10) : 0;
}

}  // namespace

absl::Time Mounter::Now() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return absl::TimeFromTimespec(now);
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
      escrow_->since = Now();
      Send(*peer, state::EscrowWanted());
    } else if (memory_) {
      Welcome(*peer);
    } else if (!expects_escrow_ || Now() - started_at_ > kEscrowWait) {
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
  uint64_t used = 1;  // A set; line 0 is the mounter's own.
  for (const auto& [number, other] : peers_) {
    if (other->welcomed) used |= uint64_t{1} << other->line;
  }
  peer.line = static_cast<uint32_t>(__builtin_ctzll(~used));
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
absl::Status Mounter::HandleEscrow(state::Envelope envelope) {
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
  best->alive_at = Now();
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
    peer->alive_at = Now();
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

// A dead one has hung up because its last thread is gone. One that hangs up and lives (a message's
// fds did not fit into its limit, or it was refused) would serve on beside its successor.
void Mounter::MakeSureItIsDead(Peer& peer) {
  pollfd dead = {peer.pidfd.get(), POLLIN, 0};
  if (!peer.pidfd || poll(&dead, 1, kExitMs) == 1) return;
  Kill(peer.pidfd.get(), absl::StrCat("pid ", peer.pid, " hung up while it was active"));
  if (poll(&dead, 1, kKilledMs) != 1) earlier_active_ = std::move(peer.pidfd);
}

void Mounter::CheckHeartbeat(absl::Time now) {
  Peer* const peer = active();
  if (peer == nullptr || peer->killed) return;
  const uint64_t beats = memory_->heartbeat().Count(peer->line);
  if (beats != peer->beats) {
    peer->beats = beats;
    peer->alive_at = now;
  }
  const bool hangs = now - peer->alive_at > state::kHeartbeatTimeout;
  const bool in_the_way = peer->draining && now - peer->drain_since > kDrainLimit &&
                          std::any_of(peers_.begin(), peers_.end(), [](const auto& entry) {
                            return entry.second->welcomed && !entry.second->draining;
                          });
  if (!hangs && !in_the_way) return;
  peer->killed = true;
  Kill(peer->pidfd.get(),
       absl::StrCat("pid ", peer->pid,
                    hangs ? " has no heartbeat" : " drains, and another is ready"));
}

void Mounter::Tick() {
  const absl::Time now = Now();
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
