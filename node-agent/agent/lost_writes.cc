#include "node-agent/agent/lost_writes.h"

#include <linux/fuse.h>
#include <string.h>

#include "node-agent/base/log.h"

namespace dfscsi::agent {

void LostWrites::Add(state::RequestSlot slot) {
  if (slot.state() != state::SlotState::kAcknowledged) return;
  ++count;
  fuse_write_out answer = {};
  if (slot.reply().size() < sizeof(answer)) return;
  memcpy(&answer, slot.reply().data(), sizeof(answer));
  bytes += answer.size;
}

void LostWrites::Log(uint32_t mount_id) const {
  LogError("mount ", mount_id, ": unmounted, and ", count, " acknowledged writes of ", bytes,
           " bytes are lost: their agent died before a server had them");
}

}  // namespace dfscsi::agent
