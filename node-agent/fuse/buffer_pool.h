// The memory that READ and READDIR replies are written from.
//
// A write(2) to /dev/fuse that meets a page which is not present, in a process that is being
// killed, ends the *application's* request with EIO, and nobody can run it again. So replies are
// never written from fresh memory: buffers come from private mappings that were populated when they
// were made (with huge pages, where the system has some), and go back to be used again. Data
// arrives from the network in the same bytes that the kernel then takes: nothing is copied in
// between.
//
// The pool holds up to `max_bytes`. A buffer beyond that is a mapping of its own that costs
// addresses only, until data arrives in it (which makes exactly those pages present): 8,000 READs
// parked for a dead server hold no memory and keep nobody else waiting.
//
// One loop.

#ifndef NODE_AGENT_FUSE_BUFFER_POOL_H_
#define NODE_AGENT_FUSE_BUFFER_POOL_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "absl/types/span.h"

namespace dfscsi::fuse {

class BufferPool {
  struct Chunk;

 public:
  // The largest buffer: one FUSE reply.
  static constexpr size_t kMaxBufferBytes = 1 << 20;

  // A buffer, until it dies. The pool must outlive it.
  class Buffer {
   public:
    Buffer() = default;
    Buffer(Buffer&& other) noexcept
        : pool_(std::exchange(other.pool_, nullptr)),
          chunk_(other.chunk_),
          bytes_(std::exchange(other.bytes_, {})) {}
    Buffer& operator=(Buffer&& other) noexcept {
      std::swap(pool_, other.pool_);
      std::swap(chunk_, other.chunk_);
      std::swap(bytes_, other.bytes_);
      return *this;
    }
    ~Buffer() {
      if (pool_ != nullptr) pool_->Return(chunk_, bytes_);
    }
    explicit operator bool() const { return pool_ != nullptr; }
    // As many bytes as were asked for. Before a reply is written from bytes that nobody filled (by
    // a store or by receiving into them), they must be filled.
    absl::Span<uint8_t> bytes() const { return bytes_; }

   private:
    friend class BufferPool;
    Buffer(BufferPool* pool, Chunk* chunk, absl::Span<uint8_t> bytes)
        : pool_(pool), chunk_(chunk), bytes_(bytes) {}
    BufferPool* pool_ = nullptr;
    Chunk* chunk_ = nullptr;  // Null: a mapping of its own.
    absl::Span<uint8_t> bytes_;
  };

  explicit BufferPool(size_t max_bytes) : max_bytes_(max_bytes) {}
  // REQUIRES: every buffer is back.
  ~BufferPool();

  // 0 < `bytes` <= kMaxBufferBytes. An empty Buffer: the system has no memory.
  Buffer Take(size_t bytes);

  // Gives back to the system what was not used since the last call. For a timer of some seconds.
  void Trim();

  size_t held_bytes() const { return chunks_.size() * kChunkBytes; }
  // Bytes of buffers in use; of those, in mappings of their own.
  size_t used_bytes() const { return used_bytes_; }
  size_t overflow_bytes() const { return overflow_bytes_; }

 private:
  static constexpr size_t kChunkBytes = 2 << 20;  // A huge page.
  static constexpr std::array<size_t, 3> kClassBytes = {16 << 10, 128 << 10, 1 << 20};

  // One mapping, cut into buffers of one class.
  struct Chunk {
    uint8_t* memory = nullptr;
    int size_class = 0;
    int used = 0;         // Buffers out.
    bool touched = true;  // Since the last Trim().
    std::vector<uint8_t*> free;
  };

  Chunk* MakeChunk(int size_class);
  void Return(Chunk* chunk, absl::Span<uint8_t> bytes);

  const size_t max_bytes_;
  std::vector<std::unique_ptr<Chunk>> chunks_;
  // By class: chunks with a free buffer. The one used last is last: it is in the processor's cache.
  std::array<std::vector<Chunk*>, kClassBytes.size()> with_free_;
  size_t used_bytes_ = 0;
  size_t overflow_bytes_ = 0;
};

}  // namespace dfscsi::fuse

#endif  // NODE_AGENT_FUSE_BUFFER_POOL_H_
