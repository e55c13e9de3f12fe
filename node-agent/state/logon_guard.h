// The log-on guard of a node: when this (target, credential) may next be tried, and the session it
// last had.
//
// A wrong password locks an account after a few attempts. An agent that forgets at its death that
// the server said "wrong password" tries again at each start; 500 restarts would be 500 attempts.
// So "not before" lives in shared memory, as does the SessionId by which a server is asked to drop
// the session of a dead agent
// ([MS-SMB2] 2.2.5 PreviousSessionId). Nothing here identifies a user: keys are hashes under a
// secret of the node that lies in the same memory.
//
// 1,024 records; when all are taken, the one that has been idle longest is used again. Order of
// stores: the fields, then the key (one 64-bit store; 0 = free). Thread-safe within a process; one
// process at a time.

#ifndef NODE_AGENT_STATE_LOGON_GUARD_H_
#define NODE_AGENT_STATE_LOGON_GUARD_H_

#include <array>
#include <atomic>
#include <cstdint>
#include <string_view>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "node-agent/state/shared_memory.h"

namespace dfscsi::state {

using Guid = std::array<uint8_t, 16>;

class LogonGuard {
 public:
  static constexpr uint64_t kBytes = 128 * 1024;
  static constexpr int kRecords = 1024;

  // What the mounter does: creates the memory with a fresh secret and ClientGuid.
  static absl::StatusOr<UniqueFd> Create();
  // FailedPrecondition: not such memory, or another layout.
  static absl::StatusOr<LogonGuard> Map(int fd);
  LogonGuard(LogonGuard&& other) noexcept : memory_(std::move(other.memory_)) {}

  // Names one credential at one target. `target` as it is connected to (case-folded by the caller),
  // `credential` anything that changes when the credential changes (user, realm, a hash of the
  // password).
  uint64_t Key(std::string_view target, std::string_view credential) const;

  // Nobody may try to log on before this time on CLOCK_BOOTTIME; zero: at once.
  absl::Duration NotBefore(uint64_t key) const;
  // The server refused the credential (or throttled). `not_before`: time since boot, as
  // BoottimeNow().
  void Refuse(uint64_t key, absl::Duration not_before);
  // Somebody has mended an account: all may be tried at once.
  void ForgiveAll();
  // It was accepted; `session_id` 0: no session (logged off in order).
  void Accept(uint64_t key, uint64_t session_id);
  // The session that a dead agent may have left; 0: none.
  uint64_t PreviousSessionId(uint64_t key) const;

  // [MS-SMB2] 2.2.3: one per node for the connections that mounts share, kept over agents' deaths.
  const Guid& client_guid() const;

 private:
  struct Header;
  struct Record;
  explicit LogonGuard(SharedMemory memory) : memory_(std::move(memory)) {}
  Header* header() const;
  Record* records() const;
  Record* Find(uint64_t key) const;
  Record* FindOrTake(uint64_t key) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  SharedMemory memory_;
  mutable absl::Mutex mutex_;
};

// CLOCK_BOOTTIME as a duration since boot.
absl::Duration BoottimeNow();

}  // namespace dfscsi::state

#endif  // NODE_AGENT_STATE_LOGON_GUARD_H_
