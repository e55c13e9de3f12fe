// Reparse points: what GET_REPARSE_POINT returns and SET_REPARSE_POINT takes ([MS-FSCC] 2.1.2).

#ifndef NODE_AGENT_SMB_WIRE_REPARSE_H_
#define NODE_AGENT_SMB_WIRE_REPARSE_H_

#include <cstdint>
#include <string>
#include <variant>

#include "absl/status/statusor.h"
#include "node-agent/smb/wire/reader.h"
#include "node-agent/smb/wire/writer.h"

namespace dfscsi::smb::wire {

enum ReparseTag : uint32_t {
  kTagMountPoint = 0xA0000003,
  kTagSymlink = 0xA000000C,
  kTagDfs = 0x8000000A,
  kTagDfsr = 0x80000012,
  kTagDedup = 0x80000013,
  kTagNfs = 0x80000014,
  kTagWci = 0x80000018,
  kTagCloud = 0x9000001A,  // And 0x9000x01A.
  kTagLxSymlink = 0xA000001D,
  kTagAfUnix = 0x80000023,
  kTagLxFifo = 0x80000024,
  kTagLxCharacterDevice = 0x80000025,
  kTagLxBlockDevice = 0x80000026,
};

// A link to another part of the namespace: a directory to us.
inline bool IsDfsTag(uint32_t tag) { return tag == kTagDfs || tag == kTagDfsr; }

struct SymlinkReparse {
  bool relative = false;
  std::u16string substitute_name;
  std::u16string print_name;
};

struct MountPointReparse {
  std::u16string substitute_name;
  std::u16string print_name;
};

enum class NfsType : uint64_t {
  kLink = 0x00000000014B4E4C,
  kFifo = 0x000000004F464946,
  kCharacterDevice = 0x0000000000524843,
  kBlockDevice = 0x00000000004B4C42,
  kSocket = 0x000000004B434F53,
};
struct NfsReparse {
  NfsType type = NfsType::kLink;
  std::u16string target;  // kLink
  uint32_t major = 0;     // Devices
  uint32_t minor = 0;
};

struct LxSymlinkReparse {
  std::string target;  // UTF-8, as it was given to symlink(2).
};

// Every other tag.
struct OtherReparse {
  uint32_t tag = 0;
  Bytes content;  // Points into the decoded buffer.
};

using ReparseData =
    std::variant<SymlinkReparse, MountPointReparse, NfsReparse, LxSymlinkReparse, OtherReparse>;

void EncodeReparseData(const ReparseData& reparse, Writer& writer);
// kDataLoss if malformed. Targets are not judged: they may be absolute, contain anything but NUL,
// and lead anywhere.
absl::StatusOr<ReparseData> DecodeReparseData(Bytes buffer);

}  // namespace dfscsi::smb::wire

#endif  // NODE_AGENT_SMB_WIRE_REPARSE_H_
