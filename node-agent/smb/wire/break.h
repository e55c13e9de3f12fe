// Oplock and lease breaks ([MS-SMB2] 2.2.23–2.2.25): notification, acknowledgment, its response.

#ifndef NODE_AGENT_SMB_WIRE_BREAK_H_
#define NODE_AGENT_SMB_WIRE_BREAK_H_

#include <cstdint>
#include <variant>

#include "absl/status/statusor.h"
#include "node-agent/smb/wire/create.h"
#include "node-agent/smb/wire/header.h"
#include "node-agent/smb/wire/reader.h"
#include "node-agent/smb/wire/writer.h"

namespace dfscsi::smb::wire {

// Notification, acknowledgment and response have the one layout.
struct OplockBreak {
  OplockLevel level = OplockLevel::kNone;
  FileId file_id;
};
void EncodeOplockBreak(const OplockBreak& message, Writer& writer);

struct LeaseBreakNotification {
  uint16_t new_epoch = 0;
  bool ack_required = false;
  LeaseKey key = {};
  uint32_t current_state = 0;
  uint32_t new_state = 0;
};
void EncodeLeaseBreakNotification(const LeaseBreakNotification& message, Writer& writer);

// Acknowledgment, and the response to it.
struct LeaseBreakAck {
  LeaseKey key = {};
  uint32_t state = 0;
};
void EncodeLeaseBreakAck(const LeaseBreakAck& message, Writer& writer);

// The StructureSize tells the three apart. The client gets OplockBreak (as notification or
// response) and LeaseBreakNotification under kUnsolicitedMessageId, LeaseBreakAck as a response;
// the server gets OplockBreak or LeaseBreakAck as acknowledgment.
using Break = std::variant<OplockBreak, LeaseBreakNotification, LeaseBreakAck>;
absl::StatusOr<Break> DecodeBreak(Bytes body);

}  // namespace dfscsi::smb::wire

#endif  // NODE_AGENT_SMB_WIRE_BREAK_H_
