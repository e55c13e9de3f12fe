#include "node-agent/vfs/sip_hash.h"

#include <string>

#include "gtest/gtest.h"

namespace dfscsi::vfs {
namespace {

SipKey CountingKey() {
  SipKey key;
  for (size_t i = 0; i < key.size(); ++i) key[i] = static_cast<uint8_t>(i);
  return key;
}

std::string CountingBytes(size_t size) {
  std::string bytes;
  for (size_t i = 0; i < size; ++i) bytes.push_back(static_cast<char>(i));
  return bytes;
}

// The paper's appendix A (15 bytes), and its authors' published outputs for shorter inputs.
TEST(SipHashTest, PublishedVectors) {
  EXPECT_EQ(SipHash(CountingKey(), CountingBytes(15)), 0xa129ca6149be45e5u);
  EXPECT_EQ(SipHash(CountingKey(), CountingBytes(0)), 0x726fdb47dd0e0e31u);
  EXPECT_EQ(SipHash(CountingKey(), CountingBytes(1)), 0x74f839c593dc67fdu);
  EXPECT_EQ(SipHash(CountingKey(), CountingBytes(8)), 0x93f5f5799a932462u);
}

TEST(SipHashTest, KeyAndLengthMatter) {
  SipKey other = CountingKey();
  other[15] ^= 1;
  EXPECT_NE(SipHash(CountingKey(), "name"), SipHash(other, "name"));
  EXPECT_NE(SipHash(CountingKey(), std::string(1, '\0')), SipHash(CountingKey(), ""));
}

}  // namespace
}  // namespace dfscsi::vfs
