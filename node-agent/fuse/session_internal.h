// What the parts of Session share. Not for others.

#ifndef NODE_AGENT_FUSE_SESSION_INTERNAL_H_
#define NODE_AGENT_FUSE_SESSION_INTERNAL_H_

#include <linux/fuse.h>
#include <string.h>

#include <cstdint>

#include "node-agent/state/request_arena.h"

namespace dfscsi::fuse {

inline const fuse_in_header& HeaderOf(state::RequestSlot slot) {
  return *reinterpret_cast<const fuse_in_header*>(slot.request().data());
}

// WRITE, FLUSH and FSYNC begin with it.
inline uint64_t HandleOf(state::RequestSlot slot) {
  uint64_t fh = 0;
  if (slot.request().size() >= sizeof(fuse_in_header) + sizeof(fh)) {
    memcpy(&fh, slot.request().data() + sizeof(fuse_in_header), sizeof(fh));
  }
  return fh;
}

}  // namespace dfscsi::fuse

#endif  // NODE_AGENT_FUSE_SESSION_INTERNAL_H_
