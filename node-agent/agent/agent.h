// The agent: connects to the mounter, stands by, becomes active, serves, drains.
//
//   starting --Welcome, mounts, ListEnd--> standby --Activate--> active --SIGTERM--> draining, gone
//
// A standby holds the fds of everything, has the arena populated and a dfs-auth child warm, and
// writes nothing. Active, it makes an Engine, a ServedMount for each mount, and then agent.sock.
// When the mounter dies the agent goes on serving; it gives the mounter's successor what it holds.
//
// Not thread-safe; one loop. The service's calls come in on the loop.

#ifndef NODE_AGENT_AGENT_AGENT_H_
#define NODE_AGENT_AGENT_AGENT_H_

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "node-agent/agent/credential_socket.h"
#include "node-agent/agent/engine.h"
#include "node-agent/agent/lost_writes.h"
#include "node-agent/agent/mounter_link.h"
#include "node-agent/agent/served_mount.h"
#include "node-agent/agent/service.h"
#include "node-agent/base/unique_fd.h"
#include "node-agent/runtime/real_loop.h"
#include "node-agent/smb/auth/gss_authenticator.h"
#include "node-agent/state/heartbeat.h"
#include "node-agent/state/logon_guard.h"
#include "node-agent/state/request_arena.h"
#include "node-agent/state/vault.h"
#include "proto/agent.pb.h"

namespace dfscsi::agent {

struct AgentFlags {
  std::string socket_dir;
  std::string state_dir;  // "": nothing is kept on disk.
  std::string auth_program;
  std::string notifier_program;
  bool exit_when_idle = false;
  uint64_t parked_max_bytes = state::ParkedSlots::kDefaultLimitBytes;
};

class Agent final : public MounterLink::Receiver, public Service::Handler {
 public:
  // A mount request takes no longer than this, whatever its caller's deadline.
  static constexpr absl::Duration kMountTime = absl::Seconds(18);
  // What is in flight when SIGTERM comes may take this long; the rest is the successor's.
  static constexpr absl::Duration kDrainTime = absl::Milliseconds(50);
  // Before that, while all else goes on: for writes that were acknowledged before their server had
  // them. A successor that is older than this program cannot take them over.
  static constexpr absl::Duration kWriteOutTime = absl::Seconds(5);
  // With exit_when_idle: how long without mounts.
  static constexpr absl::Duration kIdleTime = absl::Seconds(5);
  // A standby knows of no mount that is being made, and goes after the active one, whose place it
  // takes.
  static constexpr absl::Duration kStandbyIdleTime = absl::Seconds(60);
  // How long the mounter may take to answer.
  static constexpr absl::Duration kMounterTime = absl::Seconds(10);
  // How often it is looked whether what was acknowledged of a mount that is gone is written.
  static constexpr absl::Duration kLeavingPause = absl::Milliseconds(100);

  Agent(runtime::RealLoop& loop, AgentFlags flags);
  ~Agent() override;

  // Returns when there is nothing left to do: Drain() has ended, or it has been idle for long, or
  // the mounter refuses this agent (the error).
  runtime::Task<absl::Status> Run();

  // Hands over to the next agent; Run() returns within a second.
  void Drain();

  // ---- Service::Handler ----
  runtime::Task<absl::Status> Mount(v1::MountRequest request, v1::MountResponse* response,
                                    runtime::Deadline deadline) override;
  runtime::Task<absl::Status> Unmount(v1::UnmountRequest request, v1::UnmountResponse* response,
                                      runtime::Deadline deadline) override;
  runtime::Task<absl::Status> ListMounts(v1::ListMountsRequest request,
                                         v1::ListMountsResponse* response,
                                         runtime::Deadline deadline) override;
  runtime::Task<absl::Status> ListReferrals(v1::ListReferralsRequest request,
                                            v1::ListReferralsResponse* response,
                                            runtime::Deadline deadline) override;
  runtime::Task<absl::Status> ListTargets(v1::ListTargetsRequest request,
                                          v1::ListTargetsResponse* response,
                                          runtime::Deadline deadline) override;
  runtime::Task<absl::Status> FlushCache(v1::FlushCacheRequest request,
                                         v1::FlushCacheResponse* response,
                                         runtime::Deadline deadline) override;
  runtime::Task<absl::Status> GetMetrics(v1::GetMetricsRequest request,
                                         v1::GetMetricsResponse* response,
                                         runtime::Deadline deadline) override;
  runtime::Task<absl::Status> GetVersion(v1::GetVersionRequest request,
                                         v1::GetVersionResponse* response,
                                         runtime::Deadline deadline) override;
  runtime::Task<absl::Status> ListOpens(v1::ListOpensRequest request,
                                        v1::ListOpensResponse* response,
                                        runtime::Deadline deadline) override;
  runtime::Task<absl::Status> ListLocks(v1::ListLocksRequest request,
                                        v1::ListLocksResponse* response,
                                        runtime::Deadline deadline) override;
  runtime::Task<absl::Status> SetLogLevel(v1::SetLogLevelRequest request,
                                          v1::SetLogLevelResponse* response,
                                          runtime::Deadline deadline) override;

 private:
  // The node's memory, mapped.
  struct Memory {
    uint64_t state_id = 0;
    uint32_t heartbeat_line = 0;
    uint64_t granted_steps = 0;
    std::vector<UniqueFd> fds;  // arena, vault, guard, heartbeat: for the mounter's successor.
    std::unique_ptr<state::RequestArena> arena;
    std::unique_ptr<state::Vault> vault;
    std::unique_ptr<state::LogonGuard> guard;
    std::unique_ptr<state::Heartbeat> heartbeat;
  };
  struct KnownMount {
    state::MountEntry entry;
    UniqueFd fuse_fd;
    UniqueFd tables_fd;
    bool listed = false;                  // In the list that is being received.
    bool making = false;                  // Mount() is at work on it.
    std::unique_ptr<ServedMount> served;  // While active.
    LostWrites unserved;  // What was left of it, by an agent that could not serve it then.
  };

  // The one that is mounted there, or all if `wanted` is empty. NotFound: there is none.
  absl::Status ForMounts(
      const std::string& wanted,
      absl::FunctionRef<void(ServedMount&, const std::string& mount_point)> visit) const;

  // ---- MounterLink::Receiver ----
  state::Hello OnConnected() override;
  absl::Status OnMessage(state::Envelope& envelope) override;
  void OnLost() override;

  absl::Status TakeWelcome(const state::Welcome& welcome, std::vector<UniqueFd> fds);
  absl::Status TakeMount(state::MountEntry entry, std::vector<UniqueFd> fds);
  void EndOfList();
  void GiveEscrow();
  absl::Status BecomeActive(uint32_t generation);
  // `adopted`: what the predecessor left of this mount.
  absl::Status Serve(KnownMount& known, MountPlan plan, bool fresh,
                     const std::vector<state::RequestSlot>& adopted);
  void TakeOver(KnownMount& known, const std::vector<state::RequestSlot>& adopted);
  absl::Status TryTakeOver(KnownMount& known, const std::vector<state::RequestSlot>& adopted);
  runtime::Task<void> RemoveUnfinished(uint32_t mount_id);
  void Forget(uint32_t mount_id);
  void NoteLost(uint32_t mount_id, const LostWrites& lost);
  runtime::Task<void> WriteOut();
  // Ends what is left of a mount that is gone, once what it has acknowledged is written.
  runtime::Task<void> EndLeaving(uint32_t mount_id);
  void AskToGrow();
  runtime::Task<void> Grow();
  void TakeStep(const state::StepGranted& step);
  void AddStep(int step);

  runtime::Task<void> Beat();
  runtime::Task<void> KeepHouse();
  runtime::Task<void> StartService();
  runtime::Task<void> DrainAndStop();
  runtime::Task<void> WatchIdle();

  // Takes the password that its caller gave on credential.sock.
  absl::StatusOr<smb::Credential> CredentialOf(const v1::Credential& from);
  // The source can be reached with the plan's credential, and is a directory.
  runtime::Task<absl::Status> Reach(const MountPlan* plan, runtime::Deadline deadline);
  static runtime::Task<absl::Status> LookAt(dfs::Binding binding,
                                            std::shared_ptr<bool> is_directory);
  runtime::Task<absl::StatusOr<uint32_t>> MountAt(std::string mount_point, MountPlan plan,
                                                  runtime::Deadline deadline);
  KnownMount* FindByPath(const std::string& mount_point);
  // `status`, or, where a target is not tried because its server refused this credential a moment
  // ago, that.
  absl::Status ExplainDenial(const absl::Status& status, const smb::Credential& credential) const;
  // The mount whose source `path` lies below, or the one at `mount_point`.
  absl::StatusOr<KnownMount*> FindFor(const dfs::DfsPath& path, const std::string& mount_point);

  runtime::RealLoop& loop_;
  const AgentFlags flags_;
  MounterLink link_;
  std::unique_ptr<smb::auth::GssAuthenticatorFactory> authenticators_;
  std::optional<Memory> memory_;
  std::map<uint32_t, KnownMount> mounts_;
  bool list_complete_ = false;
  std::map<uint32_t, KnownMount> leaving_;  // Unmounted, with writes that no server has yet.

  // While active.
  uint32_t generation_ = 0;
  absl::Time active_since_;
  int64_t lost_early_writes_ = 0;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<CredentialSocket> credential_socket_;  // Listens before agent.sock does.
  std::shared_ptr<Service> service_;

  std::set<std::string> mounting_;  // Mount points at which Mount() is at work.
  bool ending_ = false;             // Of which draining is the last part.
  bool draining_ = false;
  int calls_in_progress_ = 0;
  bool trim_due_ = false;  // A mount has gone: its memory is given back.
  absl::Time busy_at_;     // exit_when_idle: the last time there was something to do.
  runtime::Event stopped_;
  absl::Status stop_status_;
  runtime::TaskGroup tasks_;
};

}  // namespace dfscsi::agent

#endif  // NODE_AGENT_AGENT_AGENT_H_
