// The node of a simulated engine: what outlives an agent (arena, tables, the kernel's side of each
// mount), and the agent that serves now, from fuse::Session down to smb::SessionPool.
//
// The kernel is the fake one of fake_fuse_kernel.h: requests pass through the request arena, so an
// agent may be killed at any time and the next one runs what lies there.

#ifndef NODE_AGENT_TESTING_ENGINE_SIMULATION_AGENT_H_
#define NODE_AGENT_TESTING_ENGINE_SIMULATION_AGENT_H_

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "node-agent/base/unique_fd.h"
#include "node-agent/dfs/client.h"
#include "node-agent/fuse/arena_room.h"
#include "node-agent/fuse/buffer_pool.h"
#include "node-agent/fuse/session.h"
#include "node-agent/runtime/sim_world.h"
#include "node-agent/smb/session_pool.h"
#include "node-agent/state/mount_tables.h"
#include "node-agent/state/request_arena.h"
#include "node-agent/testing/engine_simulation_oracle.h"
#include "node-agent/testing/fake_fuse_kernel.h"
#include "node-agent/testing/password_log_on.h"
#include "node-agent/vfs/filesystem.h"

namespace dfscsi::simulation {

class Node;

// The kernel's side of one mount, and the applications' way into it. It outlives agents.
class Mount {
 public:
  Mount(Node& node, uint32_t id, std::string source);
  ~Mount();

  struct Answer {
    int error = 0;  // Positive; ENOTCONN: the mount is gone.
    std::string body;
    // Of it, what an agent that ran had.
    absl::Duration waited;
  };
  // From a coroutine of the applications' process. `link`: whose servers must answer for it.
  // `interrupt_after`: a signal comes so much later, if there is no answer by then. `patience`: how
  // much longer than others it may wait.
  runtime::Task<Answer> Ask(uint32_t opcode, uint64_t node, std::string body, std::string link,
                            absl::Duration interrupt_after = absl::InfiniteDuration(),
                            absl::Duration patience = absl::ZeroDuration());
  void Forget(uint64_t node, uint64_t lookups);

  uint32_t id() const { return id_; }
  const std::string& source() const { return source_; }
  absl::Time made() const { return made_; }
  bool gone() const { return gone_; }
  void ForEachPending(const std::function<void(const RequestRecord&)>& visit) const {
    for (const auto& [unique, pending] : pending_) visit(pending->record);
  }

 private:
  friend class Node;
  struct Pending {
    RequestRecord record;
    runtime::Event answered;
    Answer answer;
    uint64_t handle = 0;  // Of what goes through one.
  };
  // A WRITE that an agent has answered, and of whose handle nobody was told since that all is done.
  struct Written {
    uint64_t handle = 0;
    uint32_t agent = 0;  // The last one that has answered.
  };

  // A second answer to it: by the next agent, to what its server may not have yet.
  bool MayAnswerAgain(uint64_t unique);
  void NoteAnswered(const Pending& pending, int error);

  void SendInterrupt(uint64_t unique);
  void Notify();
  // Fetches the agent's answers.
  void Pump();
  void Abort();

  Node& node_;
  const uint32_t id_;
  const std::string source_;
  const absl::Time made_;
  testing::FakeFuseKernel kernel_;
  UniqueFd tables_fd_;
  std::map<uint64_t, std::shared_ptr<Pending>> pending_;
  std::map<uint64_t, Written> written_;  // By unique.
  bool gone_ = false;
  // Notified, on the agent's loop, when there is something to read.
  std::weak_ptr<runtime::Condition> readable_;
};

struct NodeOptions {
  smb::Options smb = {};
  absl::Duration referral_ttl_min = absl::Seconds(5);
  bool write_behind = false;
  bool save_cache = false;  // The referral cache outlives an agent.
};

class Node {
 public:
  Node(runtime::SimWorld& world, runtime::SimHost& host, Oracle& oracle, NodeOptions options);
  ~Node();

  runtime::SimWorld& world() { return world_; }
  // WRITEs may be answered before their server has them.
  bool writes_behind() const { return options_.write_behind; }
  // The applications' process.
  runtime::SimLoop& applications() { return *applications_; }
  void SpawnApplication(runtime::Task<void> task);

  // A mount is made even while no agent runs; the next one takes it over.
  std::shared_ptr<Mount> AddMount(const std::string& source);
  // umount -f under load: what is outstanding ends with ENOTCONN.
  void Unmount(uint32_t id);
  const std::map<uint32_t, std::shared_ptr<Mount>>& mounts() const { return mounts_; }

  // The agent.
  void StartAgent();
  void KillAgent();  // As by SIGKILL.
  // The agent is replaced by another one, its requests answered as far as `patience` allows.
  void HandOver(absl::Duration patience, absl::Duration gap);
  bool agent_runs() const { return agent_ != nullptr; }
  // Our own machine stands still.
  void StallAgent(absl::Duration duration);
  // Since when the agent runs and has been well; infinite future: not.
  absl::Time agent_well_since() const;
  absl::Time stalled_until() const {
    return agent_ == nullptr ? absl::InfinitePast() : stalled_until_;
  }

  // After every step of the world: hands answers to applications.
  void Pump();
  // Whether the agent holds nothing of what applications gave back. For the end, when they have.
  void ExpectNothingHeld();

  // Over all agents that ran.
  dfs::ClientCounters counters() const;
  // Starts of agents, for the count of connections in a second.
  const std::vector<absl::Time>& agent_starts() const { return agent_starts_; }
  const std::vector<absl::Time>& agent_deaths() const { return agent_deaths_; }

 private:
  friend class Mount;
  class Agent;
  class Sessions;

  void WakeAgent(const std::weak_ptr<runtime::Condition>& readable);

  runtime::SimWorld& world_;
  runtime::SimHost& host_;
  Oracle& oracle_;
  const NodeOptions options_;
  std::unique_ptr<runtime::SimLoop> applications_;
  std::unique_ptr<runtime::TaskGroup> running_ = std::make_unique<runtime::TaskGroup>();
  std::unique_ptr<Sessions> sessions_;
  std::map<uint32_t, std::shared_ptr<Mount>> mounts_;
  std::string saved_cache_;
  dfs::ClientCounters dead_agents_;
  std::vector<absl::Time> agent_starts_;
  std::vector<absl::Time> agent_deaths_;
  absl::Time stalled_until_ = absl::InfinitePast();
  absl::Time agent_since_ = absl::InfiniteFuture();
  uint32_t last_mount_ = 0;
  uint32_t generation_ = 0;
  std::unique_ptr<Agent> agent_;
};

}  // namespace dfscsi::simulation

#endif  // NODE_AGENT_TESTING_ENGINE_SIMULATION_AGENT_H_
