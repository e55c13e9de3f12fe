#include "node-agent/smb/wire/header.h"

#include <string.h>

#include "node-agent/base/status_macros.h"

namespace dfscsi::smb::wire {
namespace {

constexpr uint32_t kProtocolPlain = 0x424D53FE;       // FE 'S' 'M' 'B'
constexpr uint32_t kProtocolEncrypted = 0x424D53FD;   // FD 'S' 'M' 'B'
constexpr uint32_t kProtocolCompressed = 0x424D53FC;  // FC 'S' 'M' 'B'
constexpr uint16_t kTransformEncrypted = 1;
constexpr size_t kNextCommandOffset = 20;
// Every body begins with StructureSize; SET_INFO's response is nothing else.
constexpr size_t kSmallestBody = 2;

constexpr std::string_view kCommandNames[] = {
    "NEGOTIATE",     "SESSION_SETUP", "LOGOFF",   "TREE_CONNECT", "TREE_DISCONNECT",
    "CREATE",        "CLOSE",         "FLUSH",    "READ",         "WRITE",
    "LOCK",          "IOCTL",         "CANCEL",   "ECHO",         "QUERY_DIRECTORY",
    "CHANGE_NOTIFY", "QUERY_INFO",    "SET_INFO", "OPLOCK_BREAK"};

bool AssignsSession(Command command) { return command == Command::kSessionSetup; }

bool AssignsTree(Command command) { return command == Command::kTreeConnect; }

}  // namespace

std::string_view CommandName(Command command) {
  const size_t index = static_cast<size_t>(command);
  return index < std::size(kCommandNames) ? kCommandNames[index] : "unknown command";
}

void EncodeHeader(const Header& header, Writer& writer) {
  writer.MarkHeader();
  std::array<uint8_t, kHeaderSize> bytes;
  EncodeHeader(header, absl::MakeSpan(bytes));
  writer.Array(bytes);
}

void EncodeHeader(const Header& header, MutableBytes out) {
  uint8_t* at = out.first(kHeaderSize).data();
  const auto put = [&at](auto value) {
    memcpy(at, &value, sizeof(value));
    at += sizeof(value);
  };
  put(kProtocolPlain);
  put(static_cast<uint16_t>(kHeaderSize));
  put(header.credit_charge);
  put(header.Has(kFlagResponse) ? static_cast<uint32_t>(header.status)
                                : uint32_t{header.channel_sequence});
  put(static_cast<uint16_t>(header.command));
  put(header.credits);
  put(header.flags);
  put(header.next_command);
  put(header.message_id);
  if (header.Has(kFlagAsync)) {
    put(header.async_id);
  } else {
    put(uint32_t{0xFEFF});  // Once the process id; servers ignore it.
    put(header.tree_id);
  }
  put(header.session_id);
  memcpy(at, header.signature.data(), header.signature.size());
}

absl::StatusOr<Header> DecodeHeader(Bytes message) {
  Reader reader(message);
  Header header;
  const uint32_t protocol = reader.U32();
  const uint16_t structure_size = reader.U16();
  header.credit_charge = reader.U16();
  const uint32_t status = reader.U32();
  header.command = static_cast<Command>(reader.U16());
  header.credits = reader.U16();
  header.flags = reader.U32();
  header.next_command = reader.U32();
  header.message_id = reader.U64();
  const uint64_t async_or_tree = reader.U64();
  header.session_id = reader.U64();
  header.signature = reader.Array<16>();
  if (!reader.ok()) return MalformedError("SMB2 header", "too short");
  if (protocol != kProtocolPlain) return MalformedError("SMB2 header", "wrong ProtocolId");
  if (structure_size != kHeaderSize) return MalformedError("SMB2 header", "wrong StructureSize");
  if (header.Has(kFlagResponse)) {
    header.status = static_cast<NtStatus>(status);
  } else {
    header.channel_sequence = static_cast<uint16_t>(status);
  }
  if (header.Has(kFlagAsync)) {
    header.async_id = async_or_tree;
  } else {
    header.tree_id = static_cast<uint32_t>(async_or_tree >> 32);
  }
  return header;
}

void PatchNextCommand(MutableBytes message, uint32_t next_command) {
  memcpy(message.subspan(kNextCommandOffset).data(), &next_command, sizeof(next_command));
}

void PatchSignature(MutableBytes message, const Signature& signature) {
  memcpy(message.subspan(kSignatureOffset).data(), signature.data(), signature.size());
}

absl::StatusOr<Part> PartReader::Next() {
  const bool was_done = done_;
  done_ = true;  // Until a whole part with a successor was seen.
  if (was_done) return MalformedError("frame", "no part left");
  Part part;
  ASSIGN_OR_RETURN(part.header, DecodeHeader(rest_));
  const uint32_t next = part.header.next_command;
  if (next == 0) {
    part.message = rest_;
  } else {
    if (next % 8 != 0) return MalformedError("frame", "NextCommand not 8-aligned");
    if (next < kHeaderSize + kSmallestBody || next >= rest_.size()) {
      return MalformedError("frame", "NextCommand outside the frame");
    }
    part.message = rest_.first(next);
    rest_.remove_prefix(next);
    done_ = false;
  }
  part.body = part.message.subspan(kHeaderSize);
  if (part.body.size() < kSmallestBody) {
    done_ = true;
    return MalformedError("frame", "part without a body");
  }
  return part;
}

absl::Status CheckResponse(const Header& response, const SentRequest& request) {
  const std::string_view name = CommandName(request.command);
  if (!response.Has(kFlagResponse)) return MalformedError(name, "not a response");
  if (response.message_id != request.message_id) return MalformedError(name, "wrong MessageId");
  if (response.command != request.command) return MalformedError(name, "wrong Command");
  if (!AssignsSession(request.command) && response.session_id != request.session_id) {
    return MalformedError(name, "wrong SessionId");
  }
  if (response.Has(kFlagAsync)) {
    if (request.async_id.has_value() && response.async_id != *request.async_id) {
      return MalformedError(name, "wrong AsyncId");
    }
    if (!request.async_id.has_value() && response.async_id == 0) {
      return MalformedError(name, "AsyncId 0");
    }
  } else if (response.status == NtStatus::kPending) {
    return MalformedError(name, "STATUS_PENDING without an AsyncId");
  } else if (!AssignsTree(request.command) && response.tree_id != request.tree_id) {
    return MalformedError(name, "wrong TreeId");
  }
  return absl::OkStatus();
}

bool IsInterim(const Header& response) {
  return response.status == NtStatus::kPending && response.Has(kFlagAsync);
}

bool HasOwnBody(const Header& response, Bytes body) {
  if (IsSuccess(response.status)) return true;
  switch (response.command) {
    case Command::kSessionSetup:
      return response.status == NtStatus::kMoreProcessingRequired;
    case Command::kQueryInfo:
    case Command::kRead:
      return response.status == NtStatus::kBufferOverflow;
    case Command::kIoctl: {
      // COPYCHUNK says INVALID_PARAMETER together with its limits; only the size tells.
      const bool may = response.status == NtStatus::kBufferOverflow ||
                       response.status == NtStatus::kInvalidParameter;
      return may && Reader(body).U16() == 49;
    }
    default:
      return false;
  }
}

std::array<uint8_t, kFramePrefixSize> FramePrefix(uint32_t frame_size) {
  return {0, static_cast<uint8_t>(frame_size >> 16), static_cast<uint8_t>(frame_size >> 8),
          static_cast<uint8_t>(frame_size)};
}

absl::StatusOr<uint32_t> DecodeFramePrefix(Bytes prefix, uint32_t limit) {
  if (prefix.size() < kFramePrefixSize) return MalformedError("frame length", "too short");
  if (prefix[0] != 0) return MalformedError("frame length", "not an SMB2 session message");
  const uint32_t size = uint32_t{prefix[1]} << 16 | uint32_t{prefix[2]} << 8 | uint32_t{prefix[3]};
  if (size > limit) return MalformedError("frame length", "larger than negotiated");
  return size;
}

FrameKind KindOfFrame(Bytes frame) {
  switch (Reader(frame).U32()) {
    case kProtocolPlain:
      return FrameKind::kPlain;
    case kProtocolEncrypted:
      return FrameKind::kEncrypted;
    case kProtocolCompressed:
      return FrameKind::kCompressed;
    default:
      return FrameKind::kUnknown;
  }
}

void EncodeTransformHeader(const TransformHeader& header, MutableBytes out) {
  const uint16_t reserved_and_flags[2] = {header.reserved, kTransformEncrypted};
  uint8_t* at = out.first(kTransformHeaderSize).data();
  memcpy(at, &kProtocolEncrypted, 4);
  memcpy(at + 4, header.signature.data(), 16);
  memcpy(at + 20, header.nonce.data(), 16);
  memcpy(at + 36, &header.original_size, 4);
  memcpy(at + 40, reserved_and_flags, 4);
  memcpy(at + 44, &header.session_id, 8);
}

absl::StatusOr<TransformHeader> DecodeTransformHeader(Bytes frame) {
  if (frame.size() > kMaxFrameSize) return MalformedError("transform header", "frame too large");
  return DecodeTransformHeader(frame, static_cast<uint32_t>(frame.size()));
}

absl::StatusOr<TransformHeader> DecodeTransformHeader(Bytes bytes, uint32_t frame_size) {
  Reader reader(bytes);
  TransformHeader header;
  const uint32_t protocol = reader.U32();
  header.signature = reader.Array<16>();
  header.nonce = reader.Array<16>();
  header.original_size = reader.U32();
  header.reserved = reader.U16();
  const uint16_t flags = reader.U16();
  header.session_id = reader.U64();
  if (!reader.ok()) return MalformedError("transform header", "too short");
  if (protocol != kProtocolEncrypted) {
    return MalformedError("transform header", "wrong ProtocolId");
  }
  if (flags != kTransformEncrypted) return MalformedError("transform header", "wrong Flags");
  if (frame_size < kTransformHeaderSize ||
      header.original_size != frame_size - kTransformHeaderSize) {
    return MalformedError("transform header", "OriginalMessageSize is not the frame's");
  }
  if (header.original_size < kHeaderSize) {
    return MalformedError("transform header", "no SMB2 message inside");
  }
  return header;
}

}  // namespace dfscsi::smb::wire
