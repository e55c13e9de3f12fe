// SipHash-2-4: a 64-bit hash that nobody without the key can make collide.
//
// Source: Aumasson and Bernstein, "SipHash: a fast short-input PRF", 2012.

#ifndef NODE_AGENT_VFS_SIP_HASH_H_
#define NODE_AGENT_VFS_SIP_HASH_H_

#include <array>
#include <cstdint>
#include <string_view>

namespace dfscsi::vfs {

using SipKey = std::array<uint8_t, 16>;

uint64_t SipHash(const SipKey& key, std::string_view bytes);

}  // namespace dfscsi::vfs

#endif  // NODE_AGENT_VFS_SIP_HASH_H_
