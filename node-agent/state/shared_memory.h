// Memory that outlives its process: memfds, their mappings, and the way to store into them.
//
// Everything that must survive kill -9 of the agent lies in memfds that the mounter created and
// every agent maps. There is no msync, no log and no checkpoint: a store that a process executed is
// in the page, and the page stays. So the only question after a death is *between which two stores*
// the process died. A thread that is killed has executed a prefix of its program: not one store
// more, none of the prefix missing. All that is needed is that the compiler keeps the order, which
// a release store does, and that each structure here says in its header which store makes a record
// valid. The store hook below lets a test die after every single one of them.

#ifndef NODE_AGENT_STATE_SHARED_MEMORY_H_
#define NODE_AGENT_STATE_SHARED_MEMORY_H_

#include <string.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "node-agent/base/unique_fd.h"

namespace dfscsi::state {

// Creates a memfd of `bytes` (sparse: untouched pages cost nothing) whose size nobody can change
// any more, so that no process that maps it can be given SIGBUS by another. Errors: what
// memfd_create or ftruncate said.
absl::StatusOr<UniqueFd> CreateSharedMemory(const char* name, uint64_t bytes);

// A shared, writable mapping of one memfd. Children of the process do not inherit it
// (MADV_DONTFORK), core files do not hold it (MADV_DONTDUMP).
class SharedMemory {
 public:
  SharedMemory() = default;
  // FailedPrecondition: `fd` is not a memfd of exactly `bytes` with a sealed size; it was made by
  // something else, and the caller must refuse whoever sent it. The fd is not kept.
  static absl::StatusOr<SharedMemory> Map(int fd, uint64_t bytes);

  SharedMemory(SharedMemory&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  SharedMemory& operator=(SharedMemory&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~SharedMemory();

  char* data() const { return data_; }
  uint64_t size() const { return size_; }
  explicit operator bool() const { return data_ != nullptr; }

  // Makes [offset, offset + bytes) present in this process's page tables, writable. A kernel copy
  // that meets a page which is not present fails when its thread is being killed; one that finds it
  // present does not. Errors: ResourceExhausted (no memory, cgroup limit), Unimplemented (kernel
  // before 5.14).
  absl::Status Populate(uint64_t offset, uint64_t bytes) const;

 private:
  SharedMemory(char* data, uint64_t size) : data_(data), size_(size) {}

  char* data_ = nullptr;
  uint64_t size_ = 0;
};

// Called after each store into shared memory; only tests set it (to throw: that is the death of the
// agent).
inline void (*store_hook)() = nullptr;

inline void StoreDone() {
  if (store_hook != nullptr) [[unlikely]]
    store_hook();
}

// One store that becomes visible after all stores before it.
template <typename T>
void Store(std::atomic<T>& where, std::type_identity_t<T> value) {
  static_assert(std::atomic<T>::is_always_lock_free);
  where.store(value, std::memory_order_release);
  StoreDone();
}

// A plain field, or a plain record, that no one reads before a later Store() publishes it. Not
// atomic: a death may leave it half written, so nothing may depend on it until then.
template <typename T>
void Fill(T& where, const std::type_identity_t<T>& value) {
  static_assert(std::is_trivially_copyable_v<T>);
  where = value;
  StoreDone();
}
inline void FillBytes(void* where, const void* from, size_t bytes) {
  if (bytes == 0) return;
  if (store_hook != nullptr) [[unlikely]] {  // A death in the middle of a copy.
    memcpy(where, from, bytes / 2);
    StoreDone();
  }
  memcpy(where, from, bytes);
  StoreDone();
}

template <typename T>
T Load(const std::atomic<T>& where) {
  return where.load(std::memory_order_acquire);
}

// A record in shared memory that changes while it is valid: a death in the middle of a change
// leaves the old value. Shared layout.
template <typename T>
struct TwoCopies {
  T copies[2];
  std::atomic<uint32_t> current;
  uint32_t reserved;

  const T& Get() const { return copies[Load(current) & 1]; }
  void Set(const T& value) {
    const uint32_t other = (Load(current) & 1) ^ 1;
    Fill(copies[other], value);
    Store(current, other);
  }
};

}  // namespace dfscsi::state

#endif  // NODE_AGENT_STATE_SHARED_MEMORY_H_
