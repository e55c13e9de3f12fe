#include "node-agent/vfs/sip_hash.h"

#include <string.h>

#include <bit>

namespace dfscsi::vfs {
namespace {

uint64_t LoadLittleEndian(const void* from, size_t bytes) {
  static_assert(std::endian::native == std::endian::little);
  uint64_t word = 0;
  memcpy(&word, from, bytes);
  return word;
}

struct State {
  uint64_t v0, v1, v2, v3;

  void Round() {
    v0 += v1;
    v2 += v3;
    v1 = std::rotl(v1, 13) ^ v0;
    v3 = std::rotl(v3, 16) ^ v2;
    v0 = std::rotl(v0, 32);
    v2 += v1;
    v0 += v3;
    v1 = std::rotl(v1, 17) ^ v2;
    v3 = std::rotl(v3, 21) ^ v0;
    v2 = std::rotl(v2, 32);
  }
  void Compress(uint64_t word) {
    v3 ^= word;
    Round();
    Round();
    v0 ^= word;
  }
};

}  // namespace

uint64_t SipHash(const SipKey& key, std::string_view bytes) {
  const uint64_t k0 = LoadLittleEndian(key.data(), 8);
  const uint64_t k1 = LoadLittleEndian(key.data() + 8, 8);
  State state{k0 ^ 0x736f6d6570736575, k1 ^ 0x646f72616e646f6d, k0 ^ 0x6c7967656e657261,
              k1 ^ 0x7465646279746573};
  size_t i = 0;
  for (; bytes.size() - i >= 8; i += 8) state.Compress(LoadLittleEndian(bytes.data() + i, 8));
  const uint64_t tail = LoadLittleEndian(bytes.data() + i, bytes.size() - i);
  state.Compress(tail | uint64_t{bytes.size() & 0xff} << 56);
  state.v2 ^= 0xff;
  for (int round = 0; round < 4; ++round) state.Round();
  return state.v0 ^ state.v1 ^ state.v2 ^ state.v3;
}

}  // namespace dfscsi::vfs
