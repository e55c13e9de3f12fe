// The vault: the credentials of live mounts, so that a new agent can log on at once.
//
// Without it a new agent would wait up to a minute for kubelet to publish again. It is a memfd
// whose size is sealed, locked in memory by the mounter (never on a swap device), left out of core
// files; after a reboot nothing of it is left. Agents write and read it; the mounter only wipes
// what belonged to a mount that is gone. A secret is overwritten before its cell is used for
// anything else.
//
// A cell: mount id, length, bytes. Order of stores of Put: bytes, then `state = live` with a higher
// version, then the older cell of that mount is wiped. A death in between leaves two; Get() takes
// the newer one, and the next Put or Erase removes both. Thread-safe within a process; one writing
// process at a time.

#ifndef NODE_AGENT_STATE_VAULT_H_
#define NODE_AGENT_STATE_VAULT_H_

#include <atomic>
#include <cstdint>
#include <optional>
#include <string_view>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/types/span.h"
#include "node-agent/base/secret.h"
#include "node-agent/state/shared_memory.h"

namespace dfscsi::state {

class Vault {
 public:
  static constexpr uint64_t kBytes = 2 << 20;
  static constexpr uint32_t kMaxSecretBytes = 2032;

  // What the mounter does.
  static absl::StatusOr<UniqueFd> Create();
  // FailedPrecondition: not such memory, or another layout.
  static absl::StatusOr<Vault> Map(int fd);
  Vault(Vault&& other) noexcept : memory_(std::move(other.memory_)) {}

  // Keeps `secret` for this mount in place of an older one. What the bytes mean is the caller's
  // business. Errors: InvalidArgument (too long), ResourceExhausted (1,023 mounts have one).
  absl::Status Put(uint32_t mount_id, const Secret& secret);
  std::optional<Secret> Get(uint32_t mount_id) const;
  // Wipes it; no harm if there is none.
  void Erase(uint32_t mount_id);
  // Wipes what belongs to no mount of these (agent, at its start).
  void EraseAllBut(absl::Span<const uint32_t> mount_ids);

  char* data() const { return memory_.data(); }  // For mlock.

 private:
  struct Cell;
  explicit Vault(SharedMemory memory) : memory_(std::move(memory)) {}
  Cell* cells() const;
  static void Wipe(Cell* cell);

  SharedMemory memory_;
  mutable absl::Mutex mutex_;
};

}  // namespace dfscsi::state

#endif  // NODE_AGENT_STATE_VAULT_H_
