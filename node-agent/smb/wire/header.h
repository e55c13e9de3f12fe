// The SMB2 header, frames and their parts, and the encryption envelope ([MS-SMB2] 2.1, 2.2.1,
// 2.2.41).

#ifndef NODE_AGENT_SMB_WIRE_HEADER_H_
#define NODE_AGENT_SMB_WIRE_HEADER_H_

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "node-agent/smb/wire/nt_status.h"
#include "node-agent/smb/wire/reader.h"
#include "node-agent/smb/wire/writer.h"

namespace dfscsi::smb::wire {

inline constexpr size_t kHeaderSize = 64;
inline constexpr size_t kSignatureOffset = 48;  // In the header.
inline constexpr size_t kTransformHeaderSize = 52;
inline constexpr size_t kFramePrefixSize = 4;
inline constexpr uint32_t kMaxFrameSize = 0xFFFFFF;  // 24 bits.

enum class Command : uint16_t {
  kNegotiate = 0x0,
  kSessionSetup = 0x1,
  kLogoff = 0x2,
  kTreeConnect = 0x3,
  kTreeDisconnect = 0x4,
  kCreate = 0x5,
  kClose = 0x6,
  kFlush = 0x7,
  kRead = 0x8,
  kWrite = 0x9,
  kLock = 0xA,
  kIoctl = 0xB,
  kCancel = 0xC,
  kEcho = 0xD,
  kQueryDirectory = 0xE,
  kChangeNotify = 0xF,
  kQueryInfo = 0x10,
  kSetInfo = 0x11,
  kOplockBreak = 0x12,
};
std::string_view CommandName(Command command);  // "CREATE"; "unknown command" beyond the table.

enum Flags : uint32_t {
  kFlagResponse = 0x1,  // SERVER_TO_REDIR
  kFlagAsync = 0x2,
  kFlagRelated = 0x4,
  kFlagSigned = 0x8,
  kFlagDfs = 0x10000000,
  kFlagReplay = 0x20000000,
};

using Signature = std::array<uint8_t, 16>;
using Guid = std::array<uint8_t, 16>;  // As on the wire.

inline constexpr uint64_t kUnsolicitedMessageId = ~uint64_t{0};  // Oplock and lease breaks.
inline constexpr uint64_t kRelatedSessionId = ~uint64_t{0};      // In a related part: as before.
inline constexpr uint32_t kRelatedTreeId = ~uint32_t{0};

// A handle as the server names it. After a durable reconnect only the persistent half is the same.
struct FileId {
  uint64_t persistent_id = 0;
  uint64_t volatile_id = 0;

  friend bool operator==(const FileId&, const FileId&) = default;
};
// In a related part: the handle that the CREATE before it opened. In FSCTLs without a handle: none.
inline constexpr FileId kNoFileId = {~uint64_t{0}, ~uint64_t{0}};

struct Header {
  uint16_t credit_charge = 0;
  // Responses. In requests of 3.x the same four bytes hold channel_sequence.
  NtStatus status = NtStatus::kSuccess;
  uint16_t channel_sequence = 0;
  Command command = Command::kNegotiate;
  uint16_t credits = 0;  // Requested, or granted.
  uint32_t flags = 0;
  uint32_t next_command = 0;  // Bytes to the next part's header; 0 = last.
  uint64_t message_id = 0;
  uint64_t async_id = 0;  // If kFlagAsync; then there is no tree_id.
  uint32_t tree_id = 0;   // If not kFlagAsync.
  uint64_t session_id = 0;
  Signature signature = {};

  bool Has(Flags flag) const { return (flags & flag) != 0; }
};

// Writes 64 bytes and makes them the base of the offsets that follow (Writer::MarkHeader).
void EncodeHeader(const Header& header, Writer& writer);
// The same into 64 bytes that were left free before a body.
void EncodeHeader(const Header& header, MutableBytes out);

// The first 64 bytes of `message`. Checks ProtocolId and StructureSize alone; NextCommand and the
// rest are checked by PartReader and CheckResponse.
absl::StatusOr<Header> DecodeHeader(Bytes message);

// Patches one already encoded header: the sender learns next_command when the next part begins,
// and the signature last.
void PatchNextCommand(MutableBytes message, uint32_t next_command);
void PatchSignature(MutableBytes message, const Signature& signature);

// One command of a frame.
struct Part {
  Header header;
  Bytes message;  // Header, body and padding: what this part's signature covers.
  Bytes body;     // message without the header.
};

// Walks the parts of one decrypted frame, a lone message or a compound.
class PartReader {
 public:
  explicit PartReader(Bytes frame) : rest_(frame) {}

  // True after the last part was read. A frame has at least one part, so an empty one fails.
  bool done() const { return done_; }
  // The next part, kDataLoss if it is malformed (and done() from then on). Not to be called when
  // done().
  absl::StatusOr<Part> Next();

 private:
  Bytes rest_;
  bool done_ = false;
};

// What a request was sent with; its response must agree ([MS-SMB2] 3.2.5.1).
struct SentRequest {
  Command command = Command::kNegotiate;
  uint64_t message_id = 0;
  uint64_t session_id = 0;
  uint32_t tree_id = 0;
  std::optional<uint64_t> async_id;  // Known once STATUS_PENDING came.
};

// OK if `response` may answer `request`. kDataLoss: the peer is broken or not the one we spoke to;
// drop the connection. The ids that a command assigns (SESSION_SETUP's session, TREE_CONNECT's
// tree) are not compared.
absl::Status CheckResponse(const Header& response, const SentRequest& request);

// An interim response: STATUS_PENDING, async, unsigned, never a result. It carries credits.
bool IsInterim(const Header& response);

// Which body follows a response's header: the command's own, or an error (error_response.h).
// A few commands answer with their own body beside a status that is not a success (2.2.2).
bool HasOwnBody(const Header& response, Bytes body);

// The four bytes before each frame on TCP: big-endian, the top byte zero.
std::array<uint8_t, kFramePrefixSize> FramePrefix(uint32_t frame_size);
// Bytes in the frame. kDataLoss if the top byte is not zero or the frame is larger than `limit`.
absl::StatusOr<uint32_t> DecodeFramePrefix(Bytes prefix, uint32_t limit = kMaxFrameSize);

// What a frame is, by its first four bytes.
enum class FrameKind { kPlain, kEncrypted, kCompressed, kUnknown };
FrameKind KindOfFrame(Bytes frame);

struct TransformHeader {
  Signature signature = {};            // The AEAD tag.
  std::array<uint8_t, 16> nonce = {};  // 11 (CCM) or 12 (GCM) bytes, then zeros.
  uint32_t original_size = 0;
  uint16_t reserved = 0;  // Authenticated, so kept as it came.
  uint64_t session_id = 0;
};
// Exactly 52 bytes.
void EncodeTransformHeader(const TransformHeader& header, MutableBytes out);
// `frame` is the whole frame: original_size must equal what follows the header (2.2.41).
absl::StatusOr<TransformHeader> DecodeTransformHeader(Bytes frame);
// The same for a receiver that has only the header so far; `frame_size` is the whole frame's.
absl::StatusOr<TransformHeader> DecodeTransformHeader(Bytes header, uint32_t frame_size);

}  // namespace dfscsi::smb::wire

#endif  // NODE_AGENT_SMB_WIRE_HEADER_H_
