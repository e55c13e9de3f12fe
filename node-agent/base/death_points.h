// Named instants at which an agent can be made to die, as if by SIGKILL from outside: for tests of
// what its successor finds (e2e/tests/death/).
//
//   dfs-node-agent --die_at=NAME[:N]    dies when it comes by NAME for the Nth time (default: 1)
//   dfs-node-agent --die_at=list        prints all names
//
// This table is the only one: the tests walk it, and one that an agent never comes by fails them.
// Off, an instant costs a comparison of one byte with a constant. Any layer may have some; all are
// passed on the agent's loop.

#ifndef NODE_AGENT_STATE_DEATH_POINTS_H_
#define NODE_AGENT_STATE_DEATH_POINTS_H_

#include <signal.h>
#include <string.h>
#include <unistd.h>

#include <cstdint>
#include <string_view>

#include "absl/status/status.h"

namespace dfscsi {

// X(enumerator, name, what has happened, and what has not)
// clang-format off
#define DFSCSI_DEATH_POINTS(X)                                                                  \
  /* The request arena: fuse/session.h, request_arena.h. */                                     \
  X(kRequestDelivered, "request_delivered", "read(2) has returned; the slot still says reading") \
  X(kRequestMoved, "request_moved", "the small copy is published; the big one is not freed")    \
  X(kRequestFilled, "request_filled", "the request is read; nothing is begun")                  \
  X(kForgetStarted, "forget_started", "a FORGET is marked started; nothing is counted")         \
  X(kForgetApplied, "forget_applied", "it is counted; its slot is not freed")                   \
  X(kAnswerKnown, "answer_known", "an answer that is journaled is known, and is not marked done") \
  X(kAnswerRecorded, "answer_recorded", "it is marked done; the kernel has it not")             \
  X(kAnswerWritten, "answer_written", "the kernel has it; the slot is not freed")               \
  X(kEarlyRecorded, "early_recorded", "a WRITE is acknowledged; the kernel has not the answer") \
  X(kEarlyAnswered, "early_answered", "the kernel has it; the WRITE is not sent")               \
  X(kEarlyEnded, "early_ended", "the server has what was acknowledged; the slot is not freed")  \
  /* A change: vfs/change.h. */                                                                 \
  X(kChangeUnmarked, "change_unmarked", "it is about to be marked started")                     \
  X(kChangeMarked, "change_marked", "it is marked started; nothing is sent")                    \
  X(kCreateSent, "create_sent", "a CREATE that may make something was given to TCP")            \
  X(kCreateAnswered, "create_answered", "its answer has come; nobody has looked at it")         \
  X(kWriteSent, "write_sent", "a WRITE was given to TCP")                                       \
  X(kWriteAnswered, "write_answered", "its answer has come")                                    \
  X(kSetInfoSent, "set_info_sent", "rename, removal, size or times: given to TCP")              \
  X(kSetInfoAnswered, "set_info_answered", "its answer has come")                               \
  X(kFlushSent, "flush_sent", "a FLUSH (fsync) was given to TCP")                               \
  X(kFlushAnswered, "flush_answered", "its answer has come")                                    \
  X(kCreateRecorded, "create_recorded", "CREATE is done, node and handle are in the tables")    \
  X(kUnlinkHidden, "unlink_hidden", "an open file is hidden on its server; no table says so")   \
  X(kRenameHid, "rename_hid", "what is replaced is hidden; the other has not its name yet")     \
  X(kHiddenLeft, "hidden_left", "the last handle of a hidden file is closed; it is still there") \
  /* Locks: vfs/file_locks.h. */                                                                \
  X(kLockSent, "lock_sent", "a LOCK was given to TCP")                                          \
  X(kLockAnswered, "lock_answered", "its answer has come")                                      \
  X(kLockGranted, "lock_granted", "the server holds it for us; it is not stored")               \
  X(kLockStored, "lock_stored", "it is stored; its owner is not told")                          \
  X(kUnlockStored, "unlock_stored", "it is given back here, and not on the server")             \
  /* The successor, while it takes over. */                                                     \
  X(kAdoptionBegun, "adoption_begun", "the arena is adopted; nothing is run again")             \
  X(kAdoptedAnswerSent, "adopted_answer_sent", "a dead agent's answer is sent; its slot is not freed") \
  X(kAdoptedRequestRun, "adopted_request_run", "the first of its requests is begun again")      \
  X(kProbeBegun, "probe_begun", "a change that it had sent is about to be looked for")          \
  X(kProbeEnded, "probe_ended", "what became of it is known; nothing is done about it")         \
  X(kLocksRetaken, "locks_retaken", "the successor holds a file's locks again")
// clang-format on

enum class DeathPoint : uint8_t {
  kNone = 0,
#define DFSCSI_ENUMERATOR(enumerator, name, what) enumerator,
  DFSCSI_DEATH_POINTS(DFSCSI_ENUMERATOR)
#undef DFSCSI_ENUMERATOR
};

inline constexpr std::string_view kDeathPointNames[] = {"",
#define DFSCSI_NAME(enumerator, name, what) name,
                                                        DFSCSI_DEATH_POINTS(DFSCSI_NAME)
#undef DFSCSI_NAME
};

// What ArmDeath() has set. Constant once the loop runs, but for the count.
struct ArmedDeath {
  DeathPoint point = DeathPoint::kNone;
  uint64_t passings_left = 0;
};
inline ArmedDeath armed_death;

inline bool IsDeathArmed() { return armed_death.point != DeathPoint::kNone; }

// Out of line, so that the callers stay small.
[[gnu::noinline, gnu::cold]] inline void PassArmed() {
  if (--armed_death.passings_left != 0) return;
  char line[128] = "dfs-node-agent: dies at ";
  const std::string_view name = kDeathPointNames[static_cast<size_t>(armed_death.point)];
  strncat(line, name.data(), name.size());
  strncat(line, "\n", 1);
  (void)!write(STDERR_FILENO, line, strlen(line));
  kill(getpid(), SIGKILL);
  while (true) pause();
}

// The loop comes by here.
inline void Pass(DeathPoint point) {
  if (armed_death.point == point) [[unlikely]]
    PassArmed();
}

// "NAME[:N]"; "": none. InvalidArgument: no such name, or no count. Before the loop runs.
absl::Status ArmDeath(std::string_view word);

}  // namespace dfscsi

#endif  // NODE_AGENT_STATE_DEATH_POINTS_H_
