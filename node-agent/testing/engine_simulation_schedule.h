// What happens in one seed: the scenario and its faults, all drawn from the seed before the world
// begins, so that a schedule can be printed, one line per event, and is the same on every machine.

#ifndef NODE_AGENT_TESTING_ENGINE_SIMULATION_SCHEDULE_H_
#define NODE_AGENT_TESTING_ENGINE_SIMULATION_SCHEDULE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "node-agent/smb/options.h"

namespace dfscsi::simulation {

enum class Fault {
  // What a client must bear: no target is left because of it.
  kSlow,       // Latency, in addition: up to 250 ms each way.
  kLoss,       // 5 % of the segments.
  kStall,      // Our own process stands still.
  kExpire,     // NETWORK_SESSION_EXPIRED until the session authenticates again.
  kOneCredit,  // A client may hold one.
  kPending,    // STATUS_PENDING, the answer some seconds later.
  kKillAgent,  // SIGKILL; the next one begins after `lasts`.
  kHandOver,   // Planned.
  kUnmount,    // umount -f under load; mounted again after `lasts`.
  // What may end a connection, or the server.
  kKill,
  kReset,
  kFreeze,
  kSilent,  // TCP is well, nothing is answered.
  kCut,
  kHalfOpen,   // One direction is cut.
  kHeavyLoss,  // 20 %
  kPowerOff,
  kFlap,  // Killed and started again and again.
  kDeleteSessions,
  kDisconnectTree,  // NETWORK_NAME_DELETED once.
  kUnshare,         // … and BAD_NETWORK_NAME for `lasts`.
  kSmallReads,      // MaxReadSize is 64 KiB; the connections are reset.
  kPendingForEver,
  kThrottle,    // INSUFF_SERVER_RESOURCES
  kAllRoots,    // Both namespace servers are killed.
  kAllTargets,  // All targets are killed.
  kNameServer,  // Silent, or fails.
  // The administrator.
  kRetarget,
  kNest,        // The link leads to another link.
  kInterlink,   // … of another namespace.
  kRemoveLink,  // Created again after `lasts`.
  // Only where there are writers.
  kLoseAnswer,  // A change is executed, its answer never sent, and the connection is reset.
  kHang,        // The processes of a server that has one for each connection: those that are there.
  kBreakLeases,  // As another machine's opens and writes do it, again and again for `lasts`.
};
inline constexpr Fault kLastMildFault = Fault::kUnmount;
inline constexpr int kFaults = static_cast<int>(Fault::kRemoveLink) + 1;
inline constexpr int kFaultsOfWriters = static_cast<int>(Fault::kBreakLeases) + 1;

struct Event {
  absl::Duration at;  // Since the world began.
  Fault fault;
  int server = 0;
  absl::Duration lasts;
  uint64_t detail = 0;  // What else the fault draws.

  std::string ToString() const;
};

struct Schedule {
  static Schedule Draw(uint64_t seed);
  // The same with writers: another world for the same seed.
  static Schedule DrawWithWriters(uint64_t seed);
  // With writers that share their files with other threads: worlds of their own, in half of which
  // nothing can move, for each link has one target.
  static Schedule DrawWithSharers(uint64_t seed);
  // That world with owners of locks in the writers' place.
  static Schedule DrawWithLockers(uint64_t seed);

  uint64_t seed = 0;
  // Nothing but what a client must bear: then nothing may fail over.
  bool mild = false;
  uint32_t ttl_seconds = 0;
  smb::Options smb;
  bool encrypt = false;
  bool save_cache = false;
  int mounts = 1;
  int applications = 0;         // Of each mount.
  int writers = 0;              // Of each mount; 0: nothing can be changed.
  int sharers = 0;              // Of each writer; 0: it is alone with its files.
  int lockers = 0;              // Of each mount; 0: nobody locks.
  bool single_targets = false;  // Each link has one.
  // WRITEs may be answered before their server has them: in half of the worlds.
  bool write_behind = false;
  bool server_appends = true;    // Else appending is done under a lock.
  absl::Duration longest_pause;  // Of an application between two visits.
  double fragmentation = 0;
  std::vector<Event> events;  // In order.

  // Every answer is there within a second of its request, however long we ourselves stand still.
  bool AllAnswersInTime() const;
  // Whoever binds a link gets its first target: nothing is slower than the wait for another one.
  bool FirstTargetsServe() const;
  absl::Duration end() const;  // Of the last event, healed.
  // One line for the scenario, one for each event.
  std::string ToString() const;
};

}  // namespace dfscsi::simulation

#endif  // NODE_AGENT_TESTING_ENGINE_SIMULATION_SCHEDULE_H_
