// Memory for secrets: locked (never on a swap device, where the limit allows it), left out of core
// files, wiped when it is given back. Nothing else lies in its pages, so whoever looks for a secret
// elsewhere in the process finds none (e2e/tests/test_secrets.py does).

#ifndef NODE_AGENT_BASE_SECRET_MEMORY_H_
#define NODE_AGENT_BASE_SECRET_MEMORY_H_

#include <string.h>
#include <sys/mman.h>

#include <array>
#include <bit>
#include <cstddef>
#include <new>

#include "node-agent/base/mutex.h"

namespace dfscsi {

// Thread-safe. Never returns memory to the system: a process has few secrets at a time.
class SecretMemory {
 public:
  // Zeroed. Aborts where memory has run out, as `new` does here.
  static char* Allocate(size_t bytes) {
    const size_t size_class = ClassOf(bytes);
    SecretMemory& memory = Get();
    const MutexLock lock(memory.mutex_);
    Block*& free = memory.free_[size_class];
    if (free == nullptr) memory.AddBlocks(size_class);
    char* const taken = reinterpret_cast<char*>(free);
    free = free->next;
    memset(taken, 0, sizeof(Block));
    return taken;
  }

  // `bytes`: as it was allocated.
  static void Free(char* block, size_t bytes) {
    const size_t size_class = ClassOf(bytes);
    explicit_bzero(block, SizeOf(size_class));
    SecretMemory& memory = Get();
    const MutexLock lock(memory.mutex_);
    memory.free_[size_class] = new (block) Block{memory.free_[size_class]};
  }

 private:
  struct Block {
    Block* next;
  };
  static constexpr size_t kSmallest = 32;
  static constexpr size_t kClasses = 40;
  static constexpr size_t kChunkBytes = 64 << 10;

  static SecretMemory& Get() {
    static SecretMemory* const memory = new SecretMemory();
    return *memory;
  }
  // Sizes are powers of two.
  static size_t ClassOf(size_t bytes) {
    return static_cast<size_t>(std::bit_width((bytes < kSmallest ? kSmallest : bytes) - 1) -
                               std::bit_width(kSmallest - 1));
  }
  static size_t SizeOf(size_t size_class) { return kSmallest << size_class; }

  void AddBlocks(size_t size_class) {
    const size_t block_bytes = SizeOf(size_class);
    const size_t chunk_bytes = block_bytes < kChunkBytes ? kChunkBytes : block_bytes;
    void* const chunk =
        mmap(nullptr, chunk_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (chunk == MAP_FAILED) __builtin_trap();
    madvise(chunk, chunk_bytes, MADV_DONTDUMP);
    (void)mlock(chunk, chunk_bytes);
    for (size_t at = 0; at < chunk_bytes; at += block_bytes) {
      free_[size_class] = new (static_cast<char*>(chunk) + at) Block{free_[size_class]};
    }
  }

  Mutex mutex_;
  std::array<Block*, kClasses> free_ = {};
};

}  // namespace dfscsi

#endif  // NODE_AGENT_BASE_SECRET_MEMORY_H_
