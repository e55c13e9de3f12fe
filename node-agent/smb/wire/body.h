// What the bodies of all SMB2 commands have in common. For the decoders of this folder only.

#ifndef NODE_AGENT_SMB_WIRE_BODY_H_
#define NODE_AGENT_SMB_WIRE_BODY_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "node-agent/smb/wire/header.h"
#include "node-agent/smb/wire/reader.h"
#include "node-agent/smb/wire/utf16.h"
#include "node-agent/smb/wire/writer.h"

namespace dfscsi::smb::wire {

// A Reader over one body that starts with StructureSize. That field counts the fixed part, plus one
// where a variable buffer may follow ([MS-SMB2] 2.2). Offsets in a body count from the header.
class BodyReader : public Reader {
 public:
  BodyReader(Bytes body, uint16_t structure_size, std::string_view message)
      : Reader(body), message_(message), fixed_(structure_size & ~1) {
    if (body.size() < fixed_) {
      Reject("too short");
    } else if (U16() != structure_size) {
      Reject("wrong StructureSize");
    }
  }

  // The buffer at `offset` (from the header) of `length` bytes. It must lie behind the fixed part:
  // a smaller offset would alias the header or the fields just checked. An empty buffer's offset
  // means nothing and is not looked at.
  Bytes Buffer(uint64_t offset, uint64_t length) {
    if (!ok() || length == 0) return {};
    Bytes part;
    if (offset < kHeaderSize + fixed_ || !Slice(bytes(), offset - kHeaderSize, length, &part)) {
      Reject("buffer outside the message");
      return {};
    }
    return part;
  }

  std::u16string Utf16Buffer(uint64_t offset, uint64_t length) {
    if (length % 2 != 0) {
      Reject("string of odd length");
      return {};
    }
    return Utf16FromBytes(Buffer(offset, length));
  }

  // Fails the reader; the first reason stays.
  void Reject(std::string_view why) {
    if (why_.empty()) why_ = why;
    Fail();
  }

  absl::Status status() const {
    if (ok()) return absl::OkStatus();
    return MalformedError(message_, why_.empty() ? "too short" : why_);
  }

 private:
  std::string_view message_;
  std::string_view why_;
  size_t fixed_;
};

inline void WriteFileId(const FileId& id, Writer& writer) {
  writer.U64(id.persistent_id);
  writer.U64(id.volatile_id);
}

inline FileId ReadFileId(Reader& reader) {
  FileId id;
  id.persistent_id = reader.U64();
  id.volatile_id = reader.U64();
  return id;
}

}  // namespace dfscsi::smb::wire

#endif  // NODE_AGENT_SMB_WIRE_BODY_H_
