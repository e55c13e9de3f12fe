#include "node-agent/fuse/buffer_pool.h"

#include <sys/mman.h>

#include <algorithm>
#include <cassert>

namespace dfscsi::fuse {
namespace {

constexpr size_t kPageBytes = 4096;

// A child must not make pages copy-on-write; a core file has no business with file contents.
void KeepToOurselves(void* memory, size_t bytes) {
  (void)madvise(memory, bytes, MADV_DONTFORK);
  (void)madvise(memory, bytes, MADV_DONTDUMP);
}

// Addresses only. Null: no memory.
uint8_t* MapMemory(size_t bytes) {
  void* const memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) return nullptr;
  // The collapse to a huge page unmaps for a moment.
  (void)madvise(memory, bytes, MADV_NOHUGEPAGE);
  KeepToOurselves(memory, bytes);
  return static_cast<uint8_t*>(memory);
}

// Memory that is present, aligned to its size: one huge page where the system has one to give. The
// kernel looks every page of an answer up, which with small pages costs a tenth of the answer.
uint8_t* MapChunk(size_t bytes) {
  uint8_t* const reserved = MapMemory(2 * bytes);
  if (reserved == nullptr) return nullptr;
  const size_t before = (bytes - reinterpret_cast<uintptr_t>(reserved) % bytes) % bytes;
  uint8_t* const memory = reserved + before;
  if (before > 0) munmap(reserved, before);
  munmap(memory + bytes, bytes - before);
  (void)madvise(memory, bytes, MADV_HUGEPAGE);
  for (size_t at = 0; at < bytes; at += kPageBytes) {
    *const_cast<volatile uint8_t*>(memory + at) = 0;
  }
  // What became small pages stays so: no collapse.
  (void)madvise(memory, bytes, MADV_NOHUGEPAGE);
  return memory;
}

}  // namespace

BufferPool::~BufferPool() {
  assert(used_bytes_ == 0 && overflow_bytes_ == 0);
  for (const auto& chunk : chunks_) munmap(chunk->memory, kChunkBytes);
}

BufferPool::Chunk* BufferPool::MakeChunk(int size_class) {
  if (held_bytes() + kChunkBytes > max_bytes_) {
    // A chunk of another class that nobody uses makes room.
    const auto idle = std::find_if(chunks_.begin(), chunks_.end(),
                                   [](const auto& chunk) { return chunk->used == 0; });
    if (idle == chunks_.end()) return nullptr;
    std::erase(with_free_[(*idle)->size_class], idle->get());
    munmap((*idle)->memory, kChunkBytes);
    chunks_.erase(idle);
  }
  uint8_t* const memory = MapChunk(kChunkBytes);
  if (memory == nullptr) return nullptr;
  (void)mlock(memory, kChunkBytes);  // Where the limit allows it: against swap.
  auto chunk = std::make_unique<Chunk>();
  chunk->memory = memory;
  chunk->size_class = size_class;
  const size_t bytes = kClassBytes[size_class];
  for (size_t end = kChunkBytes; end > 0; end -= bytes) {
    chunk->free.push_back(memory + end - bytes);
  }
  with_free_[size_class].push_back(chunk.get());
  chunks_.push_back(std::move(chunk));
  return chunks_.back().get();
}

BufferPool::Buffer BufferPool::Take(size_t bytes) {
  assert(bytes > 0 && bytes <= kMaxBufferBytes);
  int size_class = 0;
  while (kClassBytes[size_class] < bytes) ++size_class;
  std::vector<Chunk*>& with_free = with_free_[size_class];
  Chunk* const chunk = with_free.empty() ? MakeChunk(size_class) : with_free.back();
  if (chunk == nullptr) {
    uint8_t* const memory = MapMemory(bytes);
    if (memory == nullptr) return Buffer();
    overflow_bytes_ += bytes;
    return Buffer(this, nullptr, absl::MakeSpan(memory, bytes));
  }
  uint8_t* const buffer = chunk->free.back();
  chunk->free.pop_back();
  if (chunk->free.empty()) std::erase(with_free, chunk);
  ++chunk->used;
  chunk->touched = true;
  used_bytes_ += kClassBytes[size_class];
  return Buffer(this, chunk, absl::MakeSpan(buffer, bytes));
}

void BufferPool::Return(Chunk* chunk, absl::Span<uint8_t> bytes) {
  if (chunk == nullptr) {
    overflow_bytes_ -= bytes.size();
    munmap(bytes.data(), bytes.size());
    return;
  }
  if (chunk->free.empty()) with_free_[chunk->size_class].push_back(chunk);
  chunk->free.push_back(bytes.data());
  --chunk->used;
  used_bytes_ -= kClassBytes[chunk->size_class];
}

void BufferPool::Trim() {
  std::erase_if(chunks_, [this](const std::unique_ptr<Chunk>& chunk) {
    if (chunk->used > 0) return false;
    if (std::exchange(chunk->touched, false)) return false;
    std::erase(with_free_[chunk->size_class], chunk.get());
    munmap(chunk->memory, kChunkBytes);
    return true;
  });
}

}  // namespace dfscsi::fuse
