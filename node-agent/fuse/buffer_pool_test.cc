#include "node-agent/fuse/buffer_pool.h"

#include <gtest/gtest.h>
#include <string.h>
#include <sys/mman.h>

#include <cstdint>
#include <vector>

namespace dfscsi::fuse {
namespace {

constexpr size_t kMiB = 1 << 20;

size_t ResidentPages(absl::Span<const uint8_t> bytes) {
  const uintptr_t first = reinterpret_cast<uintptr_t>(bytes.data()) & ~uintptr_t{4095};
  const size_t pages = (bytes.size() + 4095) / 4096;
  std::vector<unsigned char> present(pages);
  if (mincore(reinterpret_cast<void*>(first), bytes.size(), present.data()) != 0) return 0;
  size_t count = 0;
  for (const unsigned char page : present) count += page & 1;
  return count;
}

TEST(BufferPoolTest, BuffersArePresentBeforeTheyAreTouched) {
  BufferPool pool(4 * kMiB);
  for (const size_t bytes : {size_t{1}, size_t{4096}, size_t{16384}, size_t{16385}, kMiB}) {
    const BufferPool::Buffer buffer = pool.Take(bytes);
    ASSERT_TRUE(buffer);
    EXPECT_EQ(buffer.bytes().size(), bytes);
    EXPECT_EQ(ResidentPages(buffer.bytes()), (bytes + 4095) / 4096);
  }
}

TEST(BufferPoolTest, BuffersInUseDoNotOverlap) {
  BufferPool pool(6 * kMiB);
  std::vector<BufferPool::Buffer> taken;
  for (int i = 0; i < 200; ++i) {
    taken.push_back(pool.Take(i % 3 == 0 ? 16384 : i % 3 == 1 ? 131072 : kMiB));
    ASSERT_TRUE(taken.back());
    memset(taken.back().bytes().data(), i, taken.back().bytes().size());
    if (i % 2 == 1) taken.erase(taken.begin() + i % static_cast<int>(taken.size()));
  }
  for (const BufferPool::Buffer& buffer : taken) {
    const absl::Span<uint8_t> bytes = buffer.bytes();
    EXPECT_EQ(memcmp(bytes.data(), bytes.data() + 1, bytes.size() - 1), 0);
  }
}

TEST(BufferPoolTest, BeyondTheLimitABufferCostsNothingUntilItIsFilled) {
  BufferPool pool(2 * kMiB);
  const BufferPool::Buffer first = pool.Take(kMiB);
  const BufferPool::Buffer second = pool.Take(kMiB);
  BufferPool::Buffer third = pool.Take(kMiB);
  ASSERT_TRUE(third);
  EXPECT_EQ(pool.held_bytes(), 2 * kMiB);
  EXPECT_EQ(pool.overflow_bytes(), kMiB);
  EXPECT_EQ(ResidentPages(third.bytes()), 0u);
  third.bytes()[0] = 1;
  EXPECT_EQ(ResidentPages(third.bytes()), 1u);
  third = BufferPool::Buffer();
  EXPECT_EQ(pool.overflow_bytes(), 0u);
}

TEST(BufferPoolTest, AnIdleChunkOfAnotherClassMakesRoom) {
  BufferPool pool(2 * kMiB);
  pool.Take(16384);
  EXPECT_EQ(pool.held_bytes(), 2 * kMiB);
  const BufferPool::Buffer large = pool.Take(kMiB);
  EXPECT_EQ(pool.overflow_bytes(), 0u);
}

TEST(BufferPoolTest, TrimKeepsWhatIsUsedOrWasUsedLately) {
  BufferPool pool(8 * kMiB);
  BufferPool::Buffer kept = pool.Take(16384);
  pool.Take(kMiB);
  EXPECT_EQ(pool.held_bytes(), 4 * kMiB);
  pool.Trim();
  EXPECT_EQ(pool.held_bytes(), 4 * kMiB);
  pool.Trim();
  EXPECT_EQ(pool.held_bytes(), 2 * kMiB);
  kept = BufferPool::Buffer();
  pool.Trim();
  pool.Trim();
  EXPECT_EQ(pool.held_bytes(), 0u);
}

}  // namespace
}  // namespace dfscsi::fuse
