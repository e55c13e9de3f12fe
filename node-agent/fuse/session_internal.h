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

inline bool MayTellKeptError(uint32_t opcode) {
  return opcode == FUSE_WRITE || opcode == FUSE_FLUSH || opcode == FUSE_FSYNC;
}

// Of one of them: whether the answer that is recorded of it, or is about to be, tells the
// kept error of its handle. One of its own may be the same errno, and tells nobody of that. It
// stands beside where an append is to be written (GuidOf()), in what is the slot's to store before
// `done`, and zero in every request that was just read.
inline constexpr uint64_t kTellsKeptError = 0x746f6c64;

inline bool TellsKeptError(state::RequestSlot slot) {
  uint64_t mark = 0;
  memcpy(&mark, slot.create_guid().data() + sizeof(mark), sizeof(mark));
  return mark == kTellsKeptError;
}

// Before MarkDone(). Who dies in between leaves a request that is run again, and an error that is
// still kept.
inline void MarkTellsKeptError(state::RequestArena& arena, state::RequestSlot slot, bool tells) {
  if (TellsKeptError(slot) == tells) return;
  state::Guid guid = slot.create_guid();
  const uint64_t mark = tells ? kTellsKeptError : 0;
  memcpy(guid.data() + sizeof(mark), &mark, sizeof(mark));
  // A slot that is only filled was sent to no server, whatever stands there.
  const bool started = slot.state() == state::SlotState::kStarted;
  arena.MarkStarted(slot, guid, started ? slot.server() : 0);
}

}  // namespace dfscsi::fuse

#endif  // NODE_AGENT_FUSE_SESSION_INTERNAL_H_
