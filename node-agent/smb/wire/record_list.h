// Lists of records that each begin with the distance to the next one (u32, 0 = last), as MS-FSCC
// likes them. For the decoders of this folder only.

#ifndef NODE_AGENT_SMB_WIRE_RECORD_LIST_H_
#define NODE_AGENT_SMB_WIRE_RECORD_LIST_H_

#include <cstdint>
#include <optional>
#include <string_view>

#include "absl/status/status.h"
#include "node-agent/smb/wire/reader.h"
#include "node-agent/smb/wire/writer.h"

namespace dfscsi::smb::wire {

class RecordListReader {
 public:
  // Records of `fixed_size` bytes at least. An empty buffer is an empty list.
  RecordListReader(Bytes buffer, size_t fixed_size, std::string_view what)
      : rest_(buffer), fixed_size_(fixed_size), what_(what) {}

  // The next record with its distance field, bounded by the next record's start; nullopt at the end
  // and after an error.
  std::optional<Bytes> Next() {
    if (rest_.empty()) return std::nullopt;
    const uint32_t distance = Reader(rest_).U32();
    if (rest_.size() < fixed_size_) return Fail("too short");
    if (distance == 0) {
      const Bytes last = rest_;
      rest_ = {};
      return last;
    }
    // The specification says 8; there are servers that align to 4.
    if (distance % 4 != 0) return Fail("next record not aligned");
    if (distance < fixed_size_ || distance >= rest_.size()) {
      return Fail("next record outside the buffer");
    }
    const Bytes record = rest_.first(distance);
    rest_.remove_prefix(distance);
    return record;
  }

  std::nullopt_t Fail(std::string_view why) {
    if (why_.empty()) why_ = why;
    rest_ = {};
    return std::nullopt;
  }

  absl::Status status() const {
    return why_.empty() ? absl::OkStatus() : MalformedError(what_, why_);
  }

 private:
  Bytes rest_;
  size_t fixed_size_;
  std::string_view what_;
  std::string_view why_;
};

class RecordListWriter {
 public:
  RecordListWriter(size_t alignment, Writer* writer)
      : writer_(*writer), start_(writer->size()), alignment_(alignment) {}

  // Pads what was written so far, links it here and writes the distance field (0 until the next).
  void Begin() {
    if (last_.has_value()) {
      writer_.AlignFrom(start_, alignment_);
      writer_.PatchU32(*last_, writer_.size() - *last_);
    }
    last_ = writer_.size();
    writer_.U32(0);
  }

 private:
  Writer& writer_;
  size_t start_;
  size_t alignment_;
  std::optional<size_t> last_;
};

}  // namespace dfscsi::smb::wire

#endif  // NODE_AGENT_SMB_WIRE_RECORD_LIST_H_
