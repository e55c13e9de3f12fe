// The heartbeat: how the mounter tells a hung agent from a busy one.
//
// A dead agent shows itself: its connection hangs up. A hung one (an endless loop, a D state,
// SIGSTOP) keeps its connection and would keep every mount of the node waiting. So each agent has
// one cache line in a page of shared memory, and its loop adds one to it at least every second,
// from the thread that serves requests. When the active agent's line has not changed for
// kHeartbeatTimeout, the mounter kills it.
//
// The page is an array of lines; WELCOME says which line is the agent's own. The mounter clears a
// line before it gives it out. Line 0 is the mounter's note for the mounter that comes after it:
// two agents must never be active at once, also when the mounter restarts and a standby is the
// first to connect.

#ifndef NODE_AGENT_STATE_HEARTBEAT_H_
#define NODE_AGENT_STATE_HEARTBEAT_H_

#include <atomic>
#include <cstdint>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "node-agent/state/shared_memory.h"

namespace dfscsi::state {

inline constexpr absl::Duration kHeartbeatPeriod = absl::Seconds(1);
inline constexpr absl::Duration kHeartbeatTimeout = absl::Seconds(5);

class Heartbeat {
 public:
  static constexpr uint64_t kBytes = 4096;
  static constexpr uint32_t kLines = kBytes / 64;

  // The active agent's process, by pid and start time (a pid alone may come back as another
  // process), and the numbers that must not be given out twice.
  struct MounterNote {
    int32_t pid = 0;  // 0: none is active.
    uint32_t last_generation = 0;
    uint64_t start_time = 0;
    uint32_t last_mount_id = 0;
    uint32_t reserved = 0;
  };

  static absl::StatusOr<UniqueFd> Create();
  // FailedPrecondition: not such memory.
  static absl::StatusOr<Heartbeat> Map(int fd);

  // Agent: every kHeartbeatPeriod or more often. Any thread, no system call.
  void Beat(uint32_t line);
  // Mounter.
  uint64_t Count(uint32_t line) const;
  void Clear(uint32_t line);
  void SetNote(const MounterNote& note);
  MounterNote GetNote() const;

 private:
  explicit Heartbeat(SharedMemory memory) : memory_(std::move(memory)) {}
  std::atomic<uint64_t>& Line(uint32_t line) const;

  SharedMemory memory_;
};

}  // namespace dfscsi::state

#endif  // NODE_AGENT_STATE_HEARTBEAT_H_
