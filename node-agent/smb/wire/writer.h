// Little-endian writing of SMB2 messages into a growing buffer.

#ifndef NODE_AGENT_SMB_WIRE_WRITER_H_
#define NODE_AGENT_SMB_WIRE_WRITER_H_

#include <string.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string_view>
#include <vector>

#include "node-agent/smb/wire/reader.h"

namespace dfscsi::smb::wire {

// Appends to a vector that the caller owns and may reuse for frame after frame (clear() keeps its
// memory, so a connection allocates nothing per request once warm).
//
// Offsets inside SMB2 messages count from their own header; EncodeHeader calls MarkHeader, and
// everything after it takes HeaderOffset(). A length that does not fit its field fails the writer;
// the caller checks ok() once before it sends and must not send the buffer if false.
class Writer {
 public:
  explicit Writer(std::vector<uint8_t>* out) : Writer(out, out->size()) {}
  // The header begins, or will be, at `header_start` bytes of `out`.
  Writer(std::vector<uint8_t>* out, size_t header_start) : out_(*out), header_(header_start) {}

  void U8(uint8_t value) { Number(value); }
  void U16(uint16_t value) { Number(value); }
  void U32(uint32_t value) { Number(value); }
  void U64(uint64_t value) { Number(value); }
  void Append(Bytes bytes) { out_.insert(out_.end(), bytes.begin(), bytes.end()); }
  template <size_t kSize>
  void Array(const std::array<uint8_t, kSize>& value) {
    Append(value);
  }
  void Zero(size_t count) { out_.resize(out_.size() + count); }
  void Utf16(std::u16string_view text) {
    const size_t at = out_.size();
    out_.resize(at + text.size() * 2);
    if (!text.empty()) memcpy(out_.data() + at, text.data(), text.size() * 2);
  }

  // For lengths and offsets: the value must fit.
  void Length8(uint64_t value) { Checked<uint8_t>(value); }
  void Length16(uint64_t value) { Checked<uint16_t>(value); }
  void Length32(uint64_t value) { Checked<uint32_t>(value); }

  void MarkHeader() { header_ = out_.size(); }
  size_t HeaderOffset() const { return out_.size() - header_; }
  // Zeros up to the next multiple of `alignment` from the header.
  void AlignFromHeader(size_t alignment) { Zero(Padding(HeaderOffset(), alignment)); }
  // Zeros up to the next multiple of `alignment` from `start`, a former size().
  void AlignFrom(size_t start, size_t alignment) { Zero(Padding(out_.size() - start, alignment)); }

  // Overwrite what was written at `position`, a former size().
  void PatchU16(size_t position, uint64_t value) { Patch<uint16_t>(position, value); }
  void PatchU32(size_t position, uint64_t value) { Patch<uint32_t>(position, value); }

  size_t size() const { return out_.size(); }
  bool ok() const { return ok_; }
  void Fail() { ok_ = false; }

 private:
  static size_t Padding(size_t offset, size_t alignment) {
    return (alignment - offset % alignment) % alignment;
  }
  template <typename T>
  void Number(T value) {
    const size_t at = out_.size();
    out_.resize(at + sizeof(T));
    memcpy(out_.data() + at, &value, sizeof(T));
  }
  template <typename T>
  void Checked(uint64_t value) {
    if (value > std::numeric_limits<T>::max()) ok_ = false;
    Number(static_cast<T>(value));
  }
  template <typename T>
  void Patch(size_t position, uint64_t value) {
    if (value > std::numeric_limits<T>::max()) ok_ = false;
    const T narrow = static_cast<T>(value);
    memcpy(out_.data() + position, &narrow, sizeof(T));
  }

  std::vector<uint8_t>& out_;
  size_t header_;
  bool ok_ = true;
};

}  // namespace dfscsi::smb::wire

#endif  // NODE_AGENT_SMB_WIRE_WRITER_H_
