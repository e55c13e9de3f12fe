// The mounter's side of all this: the memory of a node, made and locked here, given to every agent.
//
// For the mounter alone: mlock of up to 128 MiB needs CAP_IPC_LOCK, and the memory is charged to
// its cgroup.

#ifndef NODE_AGENT_STATE_NODE_MEMORY_H_
#define NODE_AGENT_STATE_NODE_MEMORY_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "node-agent/base/unique_fd.h"
#include "node-agent/state/heartbeat.h"
#include "node-agent/state/mounter_protocol.h"
#include "node-agent/state/vault.h"

namespace dfscsi::state {

class NodeMemory {
 public:
  // With the arena's first step.
  static absl::StatusOr<NodeMemory> Create(uint32_t arena_layout);
  // Takes what an agent kept; the locks of the previous mounter died with it and are taken again.
  static absl::StatusOr<NodeMemory> Adopt(const EscrowNode& node, std::vector<UniqueFd> fds);

  uint64_t state_id() const { return state_id_; }
  uint32_t arena_layout() const { return arena_layout_; }
  uint64_t granted_steps() const { return granted_steps_; }
  std::vector<int> fds() const;  // As Welcome has them.

  // ResourceExhausted: all steps are granted, or they cannot be locked.
  absl::StatusOr<int> Grow();
  // Gives a step's memory back to the system. InvalidArgument: not granted, or step 0.
  absl::Status Return(uint32_t step);

  Heartbeat& heartbeat() { return heartbeat_; }
  Vault& vault() { return vault_; }

 private:
  NodeMemory(SharedMemory arena, Vault vault, Heartbeat heartbeat)
      : arena_(std::move(arena)), vault_(std::move(vault)), heartbeat_(std::move(heartbeat)) {}
  static absl::StatusOr<NodeMemory> Map(std::vector<UniqueFd> fds);
  absl::Status Lock(uint64_t offset, uint64_t bytes) const;

  uint64_t state_id_ = 0;
  uint32_t arena_layout_ = 0;
  uint64_t granted_steps_ = 0;
  std::vector<UniqueFd> fds_;
  SharedMemory arena_;
  Vault vault_;
  Heartbeat heartbeat_;
};

}  // namespace dfscsi::state

#endif  // NODE_AGENT_STATE_NODE_MEMORY_H_
