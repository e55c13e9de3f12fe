// WRITEs that were acknowledged before their server had them, and whose mount is gone before it
// has: what is said of them.

#ifndef NODE_AGENT_AGENT_LOST_WRITES_H_
#define NODE_AGENT_AGENT_LOST_WRITES_H_

#include <cstdint>

#include "node-agent/state/request_arena.h"

namespace dfscsi::agent {

struct LostWrites {
  int64_t count = 0;
  uint64_t bytes = 0;

  // What a dead agent left. Who waits for an answer has lost nothing: nothing is added for it.
  void Add(state::RequestSlot slot);
  // One line.
  void Log(uint32_t mount_id) const;
};

}  // namespace dfscsi::agent

#endif  // NODE_AGENT_AGENT_LOST_WRITES_H_
