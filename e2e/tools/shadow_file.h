// What a file must hold: bytes in memory, each of which tells which write it came from.

#ifndef DFSCSI_E2E_TOOLS_SHADOW_FILE_H_
#define DFSCSI_E2E_TOOLS_SHADOW_FILE_H_

#include <stdint.h>

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace dfscsi::exercise {

// The bytes of write `content` (not 0) where it covers the file from `offset` on. Eight of them, at
// a multiple of eight, name the write and the place that they were written for.
void FillContent(uint32_t content, uint64_t offset, absl::Span<uint8_t> into);

class ShadowFile {
 public:
  explicit ShadowFile(uint64_t size_max_bytes) : bytes_(size_max_bytes, 0) {}

  uint64_t size() const { return size_; }
  uint64_t size_max() const { return bytes_.size(); }
  absl::Span<const uint8_t> bytes() const { return {bytes_.data(), size_}; }
  // The part of OFFSET, SIZE that lies before the file's end.
  absl::Span<const uint8_t> Part(uint64_t offset, uint64_t size) const;

  // Grows with zeros. Offsets and sizes up to size_max().
  void Resize(uint64_t size);
  void Write(uint64_t offset, absl::Span<const uint8_t> bytes);
  // Only inside the file.
  void Clear(uint64_t offset, uint64_t size);
  // Makes one byte wrong. The file must not be empty.
  void Flip(uint64_t offset) { bytes_[offset] ^= 0x5a; }

  // Errors: `found` is not what stands at `offset`; the first wrong byte, and where what is there
  // may have come from.
  absl::Status Compare(uint64_t offset, absl::Span<const uint8_t> found) const;

 private:
  std::vector<uint8_t> bytes_;  // Beyond size_ all zero.
  uint64_t size_ = 0;
};

}  // namespace dfscsi::exercise

#endif  // DFSCSI_E2E_TOOLS_SHADOW_FILE_H_
