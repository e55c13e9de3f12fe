#include "node-agent/agent/agent.h"

#include <string.h>
#include <unistd.h>

#include <algorithm>
#include <functional>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "node-agent/base/death_points.h"
#include "node-agent/base/log.h"
#include "node-agent/base/status_macros.h"
#include "node-agent/runtime/blocking.h"
#include "node-agent/smb/credential.h"
#include "node-agent/state/mount_tables.h"

namespace dfscsi::agent {

using runtime::Deadline;
using runtime::Task;
using state::RequestArena;
using state::RequestSlot;

namespace {

constexpr char kBuildId[] = DFSCSI_BUILD_ID;
// How long writes that were acknowledged may outlive their mount.
constexpr absl::Duration kLeavingTime = absl::Seconds(60);

// The same for every agent of this node, and nowhere else.
std::array<uint8_t, 32> IdentityKeyOf(const state::LogonGuard& guard) {
  std::array<uint8_t, 32> key;
  for (size_t i = 0; i < key.size() / sizeof(uint64_t); ++i) {
    const uint64_t part = guard.Key("credential identity", absl::StrCat(i));
    memcpy(key.data() + i * sizeof(part), &part, sizeof(part));
  }
  return key;
}

}  // namespace

Agent::Agent(runtime::RealLoop& loop, AgentFlags flags)
    : loop_(loop),
      flags_(std::move(flags)),
      link_(loop, flags_.socket_dir, *this),
      authenticators_(
          std::make_unique<smb::auth::GssAuthenticatorFactory>(loop, flags_.auth_program)) {}

Agent::~Agent() = default;

Task<absl::Status> Agent::Run() {
  busy_at_ = loop_.Now();
  tasks_.Spawn(link_.Run());
  tasks_.Spawn(Beat());
  tasks_.Spawn(KeepHouse());
  if (flags_.exit_when_idle) tasks_.Spawn(WatchIdle());
  // The end of this is Drain(), idleness or a refusal.
  (void)co_await stopped_.WaitUntilSet(Deadline::Never());
  co_return stop_status_;
}

// ---- The mounter's messages ----

state::Hello Agent::OnConnected() {
  state::Hello hello;
  hello.role = state::Role::kAgent;
  hello.arena_layout = state::kArenaLayoutVersion;
  hello.tables_layout = state::kTablesLayoutVersion;
  hello.tables_oldest_readable = state::kTablesOldestReadable;
  hello.build_id = kBuildId;
  hello.state_id = memory_.has_value() ? memory_->state_id : 0;
  hello.escrow_mounts = static_cast<uint32_t>(mounts_.size());
  hello.active_generation = generation_;
  return hello;
}

void Agent::OnLost() {
  list_complete_ = false;
  if (engine_ != nullptr) engine_->room.NoteGrown();  // Nobody answers; who waits asks again.
}

absl::Status Agent::OnMessage(state::Envelope& envelope) {
  if (auto* welcome = std::get_if<state::Welcome>(&envelope.message)) {
    const absl::Status taken = TakeWelcome(*welcome, std::move(envelope.fds));
    if (absl::IsFailedPrecondition(taken)) {  // It would be the same each time.
      stop_status_ = taken;
      stopped_.Set();
    }
    return taken;
  }
  if (auto* error = std::get_if<state::Error>(&envelope.message)) {
    if (envelope.request_id != 0) return absl::OkStatus();  // Who asked hears it.
    if (generation_ == 0) {
      // This mounter cannot use this program (layouts), and that does not change.
      stop_status_ = absl::FailedPreconditionError(absl::StrCat("the mounter says: ", error->text));
      stopped_.Set();
    }
    return absl::UnavailableError(error->text);
  }
  if (std::holds_alternative<state::EscrowWanted>(envelope.message)) {
    GiveEscrow();
    return absl::OkStatus();
  }
  if (!memory_.has_value()) return absl::InvalidArgumentError("a message before Welcome");
  if (auto* entry = std::get_if<state::MountEntry>(&envelope.message)) {
    RETURN_IF_ERROR(TakeMount(*entry, std::move(envelope.fds)));
    if (envelope.request_id == 0) return absl::OkStatus();
    if (link_.IsAwaited(envelope.request_id)) {
      mounts_[entry->mount_id].making = true;
    } else {  // Whoever asked has given up.
      tasks_.Spawn(RemoveUnfinished(entry->mount_id));
    }
  } else if (std::holds_alternative<state::ListEnd>(envelope.message)) {
    EndOfList();
  } else if (auto* activate = std::get_if<state::Activate>(&envelope.message)) {
    if (draining_ || activate->generation == generation_) return absl::OkStatus();
    // What this one serves cannot be taken over by itself: a successor does.
    const absl::Status status = generation_ != 0 ? absl::FailedPreconditionError("activated twice")
                                                 : BecomeActive(activate->generation);
    if (!status.ok()) {
      stop_status_ = status;
      stopped_.Set();
    }
  } else if (auto* gone = std::get_if<state::MountGone>(&envelope.message)) {
    LogInfo("mount ", gone->mount_id, " on ", gone->mount_point, " is gone");
    Forget(gone->mount_id);
  } else if (auto* granted = std::get_if<state::StepGranted>(&envelope.message)) {
    TakeStep(*granted);
  } else if (auto* revoked = std::get_if<state::StepRevoked>(&envelope.message)) {
    memory_->granted_steps = revoked->granted_steps;
    if (generation_ != 0) memory_->arena->SetRevoked(static_cast<int>(revoked->step));
  }
  return absl::OkStatus();
}

absl::Status Agent::TakeWelcome(const state::Welcome& welcome, std::vector<UniqueFd> fds) {
  list_complete_ = false;
  for (auto& [id, known] : mounts_) known.listed = false;
  if (memory_.has_value() && memory_->state_id == welcome.state_id) {
    memory_->heartbeat_line = welcome.heartbeat_line;
    memory_->granted_steps = welcome.granted_steps;
    if (generation_ != 0) memory_->arena->SetGranted(memory_->granted_steps);
    memory_->heartbeat->Beat(memory_->heartbeat_line);
    return absl::OkStatus();
  }
  if (generation_ != 0) {
    // What we serve is not what this mounter keeps: its agents would take over from nobody.
    return absl::FailedPreconditionError("the mounter serves another life of this node");
  }
  if (fds.size() != 4) return absl::InvalidArgumentError("Welcome without the node's memory");
  Memory memory;
  memory.state_id = welcome.state_id;
  memory.heartbeat_line = welcome.heartbeat_line;
  memory.granted_steps = welcome.granted_steps;
  memory.fds = std::move(fds);
  ASSIGN_OR_RETURN(memory.arena, RequestArena::Map(memory.fds[0].get()));
  ASSIGN_OR_RETURN(state::Vault vault, state::Vault::Map(memory.fds[1].get()));
  ASSIGN_OR_RETURN(state::LogonGuard guard, state::LogonGuard::Map(memory.fds[2].get()));
  ASSIGN_OR_RETURN(state::Heartbeat heartbeat, state::Heartbeat::Map(memory.fds[3].get()));
  memory.vault = std::make_unique<state::Vault>(std::move(vault));
  memory.guard = std::make_unique<state::LogonGuard>(std::move(guard));
  memory.heartbeat = std::make_unique<state::Heartbeat>(std::move(heartbeat));
  RETURN_IF_ERROR(memory.arena->Prepare(memory.granted_steps));
  memory.arena->SetParkedLimit(flags_.parked_max_bytes);
  smb::SetIdentityKey(IdentityKeyOf(*memory.guard));
  mounts_.clear();
  memory_ = std::move(memory);
  memory_->heartbeat->Beat(memory_->heartbeat_line);
  return absl::OkStatus();
}

absl::Status Agent::TakeMount(state::MountEntry entry, std::vector<UniqueFd> fds) {
  KnownMount& known = mounts_[entry.mount_id];
  known.listed = true;
  if (known.fuse_fd) {
    known.entry.detached = entry.detached;
    return absl::OkStatus();
  }
  if (fds.size() != 2) {
    mounts_.erase(entry.mount_id);
    return absl::InvalidArgumentError("a mount without its fds");
  }
  known.entry = std::move(entry);
  known.fuse_fd = std::move(fds[0]);
  known.tables_fd = std::move(fds[1]);
  busy_at_ = loop_.Now();
  return absl::OkStatus();
}

void Agent::EndOfList() {
  std::vector<uint32_t> unlisted;
  std::vector<uint32_t> unserved;
  for (const auto& [id, known] : mounts_) {
    if (!known.listed) {
      unlisted.push_back(id);
    } else if (known.served == nullptr && !known.making) {
      unserved.push_back(id);
    }
  }
  for (const uint32_t id : unlisted) Forget(id);
  list_complete_ = true;
  if (generation_ == 0) {
    LogInfo("standby: ", mounts_.size(), " mounts");
    if (const absl::Status warm = authenticators_->Warm(); !warm.ok()) {
      LogWarning("dfs-auth: ", warm.message());
    }
    return;
  }
  // Made for us by a mounter that died before it could say so.
  for (const uint32_t id : unserved) TakeOver(mounts_[id], {});
}

void Agent::GiveEscrow() {
  if (!memory_.has_value()) return;
  state::EscrowNode node;
  node.state_id = memory_->state_id;
  node.granted_steps = memory_->granted_steps;
  node.arena_layout = state::kArenaLayoutVersion;
  std::vector<int> fds;
  for (const UniqueFd& fd : memory_->fds) fds.push_back(fd.get());
  link_.Send(node, fds);
  for (const auto& [id, known] : mounts_) {
    link_.Send(known.entry, {known.fuse_fd.get(), known.tables_fd.get()});
  }
  link_.Send(state::EscrowEnd());
  LogInfo("gave ", mounts_.size(), " mounts back to the mounter");
}

// ---- Active ----

absl::Status Agent::BecomeActive(uint32_t generation) {
  const absl::Time began = absl::Now();
  ASSIGN_OR_RETURN(const std::vector<RequestSlot> left,
                   memory_->arena->Adopt(generation, memory_->granted_steps));
  Pass(DeathPoint::kAdoptionBegun);
  generation_ = generation;
  active_since_ = loop_.Now();
  engine_ = std::make_unique<Engine>(Engine::Outside{
      .loop = loop_,
      .authenticators = *authenticators_,
      .arena = *memory_->arena,
      .guard = *memory_->guard,
      .notifier_program = flags_.notifier_program,
      .cache_file =
          flags_.state_dir.empty() ? "" : absl::StrCat(flags_.state_dir, "/referrals.cache"),
      .grow_arena = [this] { AskToGrow(); },
      .check_own_requests = link_.mounter_pid() != 0});
  engine_->LoadCache();
  std::map<uint32_t, std::vector<RequestSlot>> by_mount;
  // Of mounts that went while no agent was active.
  std::map<uint32_t, LostWrites> lost;
  for (const RequestSlot slot : left) {
    if (mounts_.count(slot.mount_id()) != 0) {
      by_mount[slot.mount_id()].push_back(slot);
    } else {
      lost[slot.mount_id()].Add(slot);
      memory_->arena->Free(slot);
    }
  }
  for (const auto& [id, writes] : lost) NoteLost(id, writes);
  std::vector<uint32_t> ids;
  for (auto& [id, known] : mounts_) {
    ids.push_back(id);
    TakeOver(known, by_mount[id]);
  }
  memory_->vault->EraseAllBut(ids);
  LogInfo("active, generation ", generation, ": ", ids.size(), " mounts, ", left.size(),
          " requests taken over in ", absl::FormatDuration(absl::Now() - began));
  tasks_.Spawn(StartService());
  return absl::OkStatus();
}

void Agent::TakeOver(KnownMount& known, const std::vector<RequestSlot>& adopted) {
  const uint32_t id = known.entry.mount_id;
  const absl::Status status = TryTakeOver(known, adopted);
  if (status.ok()) return;
  LogError("mount ", id, " on ", known.entry.mount_point, ": ", status.message());
  if (!absl::IsNotFound(status)) {  // Perhaps another agent can; its requests wait.
    for (const RequestSlot slot : adopted) known.unserved.Add(slot);
    return;
  }
  memory_->arena->FreeMount(id);
  tasks_.Spawn(RemoveUnfinished(id));
}

absl::Status Agent::TryTakeOver(KnownMount& known, const std::vector<RequestSlot>& adopted) {
  v1::StoredMount stored;
  if (!stored.ParseFromString(known.entry.config)) {
    return absl::FailedPreconditionError("its configuration cannot be read");
  }
  const std::optional<Secret> secret = memory_->vault->Get(known.entry.mount_id);
  // The secret is stored first: without it the mount was never finished.
  if (!secret.has_value()) return absl::NotFoundError("its mounting was not finished");
  ASSIGN_OR_RETURN(smb::Credential credential, DecodeCredential(*secret));
  ASSIGN_OR_RETURN(MountPlan plan, MakePlan(std::move(stored), std::move(credential)));
  return Serve(known, std::move(plan), /*fresh=*/false, adopted);
}

absl::Status Agent::Serve(KnownMount& known, MountPlan plan, bool fresh,
                          const std::vector<RequestSlot>& adopted) {
  const uint32_t id = known.entry.mount_id;
  ASSIGN_OR_RETURN(known.served,
                   ServedMount::Make(*engine_, std::move(plan), known.entry, known.fuse_fd.get(),
                                     known.tables_fd.get(), fresh,
                                     // The mounter looks for itself, and tells all agents.
                                     [this, id] { link_.Send(state::ReportGone{id}); }));
  known.served->Start(adopted);
  return absl::OkStatus();
}

// A mount that nobody can have used yet.
Task<void> Agent::RemoveUnfinished(uint32_t mount_id) {
  state::UnmountRequest request;
  request.mount_id = mount_id;
  request.force = true;
  const absl::StatusOr<state::Message> answer =
      co_await link_.Request(std::move(request), Deadline::After(kMounterTime));
  if (!answer.ok()) LogError("mount ", mount_id, ": ", answer.status().message());
}

void Agent::Forget(uint32_t mount_id) {
  // Drain() walks the mounts and waits for their requests; it gives up all of them.
  if (draining_) return;
  auto gone = mounts_.extract(mount_id);
  if (gone.empty()) return;
  NoteLost(mount_id, gone.mapped().unserved);
  if (gone.mapped().served != nullptr && gone.mapped().served->session().acknowledged() > 0) {
    leaving_.insert(std::move(gone));
    tasks_.Spawn(EndLeaving(mount_id));
    return;
  }
  gone.mapped().served.reset();
  if (generation_ != 0) memory_->arena->FreeMount(mount_id);
  busy_at_ = loop_.Now();
  trim_due_ = true;
}

void Agent::NoteLost(uint32_t mount_id, const LostWrites& lost) {
  if (lost.count == 0) return;
  lost.Log(mount_id);
  lost_early_writes_ += lost.count;
}

Task<void> Agent::EndLeaving(uint32_t mount_id) {
  const absl::Time end = loop_.Now() + kLeavingTime;
  while (true) {
    (void)co_await runtime::Sleep(kLeavingPause, Deadline::Never());
    const auto found = leaving_.find(mount_id);
    if (found == leaving_.end()) co_return;  // Drained.
    const size_t left = found->second.served->session().acknowledged();
    if (left > 0 && loop_.Now() < end) continue;
    if (left > 0) LogError("mount ", mount_id, ": unmounted, and ", left, " writes are lost");
    lost_early_writes_ += static_cast<int64_t>(left);
    leaving_.erase(found);
    memory_->arena->FreeMount(mount_id);
    busy_at_ = loop_.Now();
    trim_due_ = true;
    co_return;
  }
}

Task<void> Agent::StartService() {
  while (!draining_) {
    if (credential_socket_ == nullptr) {
      auto listening = CredentialSocket::Listen(loop_, flags_.socket_dir);
      if (!listening.ok()) {
        LogError("credential.sock: ", listening.status().message());
        (void)co_await runtime::Sleep(absl::Seconds(1), Deadline::Never());
        continue;
      }
      credential_socket_ = *std::move(listening);
    }
    using Started = std::shared_ptr<Service>;
    std::function<absl::StatusOr<Started>()> start =
        [this, dir = flags_.socket_dir]() -> absl::StatusOr<Started> {
      ASSIGN_OR_RETURN(std::unique_ptr<Service> service, Service::Start(loop_, *this, dir));
      return Started(std::move(service));
    };
    // Not idle until it is known whether agent.sock was made: who ends takes it away.
    ++calls_in_progress_;
    absl::StatusOr<Started> started =
        co_await runtime::Blocking<Started>(std::move(start), Deadline::After(absl::Seconds(30)));
    --calls_in_progress_;
    if (started.ok()) {
      service_ = *std::move(started);
      co_return;
    }
    LogError("agent.sock: ", started.status().message());
    (void)co_await runtime::Sleep(absl::Seconds(1), Deadline::Never());
  }
}

}  // namespace dfscsi::agent
