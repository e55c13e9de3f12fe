#include "node-agent/state/node_memory.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/mempolicy.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "node-agent/base/status_macros.h"
#include "node-agent/state/logon_guard.h"
#include "node-agent/state/request_arena.h"

namespace dfscsi::state {

absl::StatusOr<NodeMemory> NodeMemory::Map(std::vector<UniqueFd> fds) {
  if (fds.size() != 4)
    return absl::InvalidArgumentError("arena, vault, guard and heartbeat wanted");
  ASSIGN_OR_RETURN(SharedMemory arena, SharedMemory::Map(fds[0].get(), kArenaBytes));
  ASSIGN_OR_RETURN(Vault vault, Vault::Map(fds[1].get()));
  RETURN_IF_ERROR(LogonGuard::Map(fds[2].get()).status());
  ASSIGN_OR_RETURN(Heartbeat heartbeat, Heartbeat::Map(fds[3].get()));
  NodeMemory memory(std::move(arena), std::move(vault), std::move(heartbeat));
  memory.fds_ = std::move(fds);
  // NUMA balancing makes pages not present for a moment, to see who uses them; with a policy of its
  // own a mapping is left alone. For a memfd the policy belongs to the file, so it holds for the
  // agents, too.
  syscall(SYS_mbind, memory.arena_.data(), kArenaBytes, MPOL_LOCAL, nullptr, 0, 0);
  if (mlock(memory.vault_.data(), Vault::kBytes) != 0) {
    return absl::ErrnoToStatus(errno, "mlock of the vault");
  }
  RETURN_IF_ERROR(memory.Lock(0, kArenaHeaderBytes));
  return memory;
}

absl::StatusOr<NodeMemory> NodeMemory::Create(uint32_t arena_layout) {
  std::vector<UniqueFd> fds(4);
  ASSIGN_OR_RETURN(fds[0], CreateSharedMemory("dfs-arena", kArenaBytes));
  ASSIGN_OR_RETURN(fds[1], Vault::Create());
  ASSIGN_OR_RETURN(fds[2], LogonGuard::Create());
  ASSIGN_OR_RETURN(fds[3], Heartbeat::Create());
  ASSIGN_OR_RETURN(NodeMemory memory, Map(std::move(fds)));
  memory.arena_layout_ = arena_layout;
  while (memory.state_id_ == 0) {
    if (getrandom(&memory.state_id_, sizeof(memory.state_id_), 0) < 0 && errno != EINTR) {
      return absl::ErrnoToStatus(errno, "getrandom");
    }
  }
  RETURN_IF_ERROR(memory.Grow().status());
  return memory;
}

absl::StatusOr<NodeMemory> NodeMemory::Adopt(const EscrowNode& node, std::vector<UniqueFd> fds) {
  if (node.state_id == 0) return absl::InvalidArgumentError("state of no mounter");
  ASSIGN_OR_RETURN(NodeMemory memory, Map(std::move(fds)));
  memory.state_id_ = node.state_id;
  memory.arena_layout_ = node.arena_layout;
  for (int step = 0; step < kArenaSteps; ++step) {
    if ((node.granted_steps >> step & 1) == 0) continue;
    RETURN_IF_ERROR(memory.Lock(ArenaStepOffset(step), kArenaStepBytes));
    memory.granted_steps_ |= uint64_t{1} << step;
  }
  return memory;
}

std::vector<int> NodeMemory::fds() const {
  std::vector<int> fds;
  fds.reserve(fds_.size());
  for (const UniqueFd& fd : fds_) fds.push_back(fd.get());
  return fds;
}

absl::Status NodeMemory::Lock(uint64_t offset, uint64_t bytes) const {
  RETURN_IF_ERROR(arena_.Populate(offset, bytes));
  if (mlock(arena_.data() + offset, bytes) != 0) {
    return absl::ResourceExhaustedError("the arena cannot be locked in memory: CAP_IPC_LOCK?");
  }
  return absl::OkStatus();
}

absl::StatusOr<int> NodeMemory::Grow() {
  for (int step = 0; step < kArenaSteps; ++step) {
    if (granted_steps_ >> step & 1) continue;
    RETURN_IF_ERROR(Lock(ArenaStepOffset(step), kArenaStepBytes));
    granted_steps_ |= uint64_t{1} << step;
    return step;
  }
  return absl::ResourceExhaustedError("the request arena has its full size");
}

absl::Status NodeMemory::Return(uint32_t step) {
  if (step == 0 || step >= uint32_t{kArenaSteps} || (granted_steps_ >> step & 1) == 0) {
    return absl::InvalidArgumentError("no such step of the arena is granted");
  }
  const uint64_t offset = ArenaStepOffset(static_cast<int>(step));
  munlock(arena_.data() + offset, kArenaStepBytes);
  if (fallocate(fds_[0].get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                static_cast<off_t>(offset), static_cast<off_t>(kArenaStepBytes)) != 0) {
    return absl::ErrnoToStatus(errno, "punching a step of the arena");
  }
  granted_steps_ &= ~(uint64_t{1} << step);
  return absl::OkStatus();
}

}  // namespace dfscsi::state
