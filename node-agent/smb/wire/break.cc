#include "node-agent/smb/wire/break.h"

#include "node-agent/smb/wire/body.h"

namespace dfscsi::smb::wire {
namespace {

constexpr uint16_t kOplockSize = 24;
constexpr uint16_t kLeaseNotificationSize = 44;
constexpr uint16_t kLeaseAckSize = 36;
constexpr uint32_t kAckRequired = 1;

}  // namespace

void EncodeOplockBreak(const OplockBreak& message, Writer& writer) {
  writer.U16(kOplockSize);
  writer.U8(static_cast<uint8_t>(message.level));
  writer.Zero(5);
  WriteFileId(message.file_id, writer);
}

void EncodeLeaseBreakNotification(const LeaseBreakNotification& message, Writer& writer) {
  writer.U16(kLeaseNotificationSize);
  writer.U16(message.new_epoch);
  writer.U32(message.ack_required ? kAckRequired : 0);
  writer.Array(message.key);
  writer.U32(message.current_state);
  writer.U32(message.new_state);
  writer.Zero(12);  // BreakReason, AccessMaskHint, ShareMaskHint
}

void EncodeLeaseBreakAck(const LeaseBreakAck& message, Writer& writer) {
  writer.U16(kLeaseAckSize);
  writer.U16(0);
  writer.U32(0);
  writer.Array(message.key);
  writer.U32(message.state);
  writer.U64(0);  // LeaseDuration
}

absl::StatusOr<Break> DecodeBreak(Bytes body) {
  const uint16_t size = Reader(body).U16();
  BodyReader reader(body, size, "OPLOCK_BREAK");
  Break message;
  if (size == kOplockSize) {
    OplockBreak& oplock = message.emplace<OplockBreak>();
    oplock.level = static_cast<OplockLevel>(reader.U8());
    reader.Skip(5);
    oplock.file_id = ReadFileId(reader);
  } else if (size == kLeaseNotificationSize) {
    LeaseBreakNotification& lease = message.emplace<LeaseBreakNotification>();
    lease.new_epoch = reader.U16();
    lease.ack_required = (reader.U32() & kAckRequired) != 0;
    lease.key = reader.Array<16>();
    lease.current_state = reader.U32();
    lease.new_state = reader.U32();
  } else if (size == kLeaseAckSize) {
    LeaseBreakAck& ack = message.emplace<LeaseBreakAck>();
    reader.Skip(6);
    ack.key = reader.Array<16>();
    ack.state = reader.U32();
  } else {
    reader.Reject("wrong StructureSize");
  }
  if (!reader.ok()) return reader.status();
  return message;
}

}  // namespace dfscsi::smb::wire
