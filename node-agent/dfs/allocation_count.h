// For tests and benchmarks that promise not to allocate: replaces the global operator new of the
// program that includes this (in one file only) and counts.

#ifndef NODE_AGENT_DFS_ALLOCATION_COUNT_H_
#define NODE_AGENT_DFS_ALLOCATION_COUNT_H_

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>

namespace dfscsi::dfs {

// Allocations of this thread so far.
inline thread_local int64_t allocation_count = 0;

// ThreadSanitizer brings an operator new that cannot be replaced.
#if __has_feature(thread_sanitizer)
inline constexpr bool kAllocationsAreCounted = false;
#else
inline constexpr bool kAllocationsAreCounted = true;
#endif

}  // namespace dfscsi::dfs

#if !__has_feature(thread_sanitizer)
void* operator new(std::size_t size) {
  ++dfscsi::dfs::allocation_count;
  if (void* memory = std::malloc(size == 0 ? 1 : size)) return memory;
  throw std::bad_alloc();
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
#endif

#endif  // NODE_AGENT_DFS_ALLOCATION_COUNT_H_
