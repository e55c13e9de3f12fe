// Little-endian reading that cannot leave its buffer, whatever the buffer holds.

#ifndef NODE_AGENT_SMB_WIRE_READER_H_
#define NODE_AGENT_SMB_WIRE_READER_H_

#include <string.h>

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/types/span.h"

namespace dfscsi::smb::wire {

static_assert(std::endian::native == std::endian::little, "SMB2 is little-endian, and so are we");

using Bytes = absl::Span<const uint8_t>;
using MutableBytes = absl::Span<uint8_t>;

// The one error of every decoder here: kDataLoss, "malformed <what>: <why>". No NTSTATUS becomes
// kDataLoss (nt_status.h), so a caller can tell a broken peer from a refusing one. The caller drops
// the connection ([MS-SMB2] 3.2.5.1), or answers EIO where only one reply's payload is broken.
inline absl::Status MalformedError(std::string_view what, std::string_view why) {
  // Debian's absl::string_view is not std::string_view; std::string is what both take.
  std::string message = "malformed ";
  message.append(what).append(": ").append(why);
  return absl::DataLossError(message);
}

// The part [offset, offset + length) of `data`; false if it is not wholly inside.
inline bool Slice(Bytes data, uint64_t offset, uint64_t length, Bytes* part) {
  if (offset > data.size() || length > data.size() - offset) return false;
  *part = data.subspan(offset, length);
  return true;
}

// Reads forward. The first read beyond the end fails the reader for good: it and all that follow
// give zeros and empty spans. So a decoder reads all its fields and asks ok() once.
class Reader {
 public:
  explicit Reader(Bytes bytes) : bytes_(bytes) {}

  uint8_t U8() { return Number<uint8_t>(); }
  uint16_t U16() { return Number<uint16_t>(); }
  uint32_t U32() { return Number<uint32_t>(); }
  uint64_t U64() { return Number<uint64_t>(); }

  template <size_t kSize>
  std::array<uint8_t, kSize> Array() {
    std::array<uint8_t, kSize> value{};
    const Bytes part = Take(kSize);
    if (part.size() == kSize) memcpy(value.data(), part.data(), kSize);
    return value;
  }

  Bytes Take(uint64_t length) {
    Bytes part;
    if (!ok_ || !Slice(bytes_, offset_, length, &part)) {
      ok_ = false;
      return {};
    }
    offset_ += length;
    return part;
  }
  void Skip(uint64_t length) { Take(length); }

  bool ok() const { return ok_; }
  void Fail() { ok_ = false; }
  size_t offset() const { return offset_; }
  size_t remaining() const { return ok_ ? bytes_.size() - offset_ : 0; }
  Bytes bytes() const { return bytes_; }

 private:
  template <typename T>
  T Number() {
    T value = 0;
    const Bytes part = Take(sizeof(T));
    if (part.size() == sizeof(T)) memcpy(&value, part.data(), sizeof(T));
    return value;
  }

  Bytes bytes_;
  size_t offset_ = 0;
  bool ok_ = true;
};

}  // namespace dfscsi::smb::wire

#endif  // NODE_AGENT_SMB_WIRE_READER_H_
