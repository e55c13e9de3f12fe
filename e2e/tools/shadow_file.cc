#include "e2e/tools/shadow_file.h"

#include <string.h>

#include <algorithm>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace dfscsi::exercise {
namespace {

constexpr uint64_t kWordBytes = 8;
// No written word is a row of zeros.
constexpr uint64_t kMask = 0xa5c3d2e19687b4f1;
constexpr uint64_t kShownBytes = 16;

// Content and place, in eight bytes.
uint64_t WordOf(uint32_t content, uint64_t offset) {
  return ((uint64_t{content} << 32) | ((offset / kWordBytes) & 0xffffffff)) ^ kMask;
}

std::string Hex(absl::Span<const uint8_t> bytes) {
  return absl::BytesToHexString(
      absl::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
}

// Which write the word around `offset` came from; `bytes` begin at `begin`.
std::string OriginOf(absl::Span<const uint8_t> bytes, uint64_t begin, uint64_t offset) {
  const uint64_t place = offset / kWordBytes * kWordBytes;
  if (place < begin || place + kWordBytes > begin + bytes.size()) return "cut off";
  uint64_t word = 0;
  memcpy(&word, bytes.data() + (place - begin), kWordBytes);
  if (word == 0) return "zeros";
  const uint64_t plain = word ^ kMask;
  const uint64_t written_for = (plain & 0xffffffff) * kWordBytes;
  return absl::StrFormat("write %d for offset 0x%x%s", plain >> 32, written_for,
                         written_for == place ? "" : " (elsewhere, or parts of two)");
}

}  // namespace

void FillContent(uint32_t content, uint64_t offset, absl::Span<uint8_t> into) {
  for (size_t i = 0; i < into.size(); ++i) {
    const uint64_t place = offset + i;
    into[i] = static_cast<uint8_t>(WordOf(content, place) >> (place % kWordBytes * 8));
  }
}

absl::Span<const uint8_t> ShadowFile::Part(uint64_t offset, uint64_t size) const {
  if (offset >= size_) return {};
  return absl::Span<const uint8_t>(bytes_).subspan(offset, std::min(size, size_ - offset));
}

void ShadowFile::Resize(uint64_t size) {
  if (size < size_) memset(bytes_.data() + size, 0, size_ - size);
  size_ = size;
}

void ShadowFile::Write(uint64_t offset, absl::Span<const uint8_t> bytes) {
  if (bytes.empty()) return;
  memcpy(bytes_.data() + offset, bytes.data(), bytes.size());
  size_ = std::max(size_, offset + bytes.size());
}

void ShadowFile::Clear(uint64_t offset, uint64_t size) {
  const uint64_t bytes = Part(offset, size).size();
  if (bytes > 0) memset(bytes_.data() + offset, 0, bytes);
}

absl::Status ShadowFile::Compare(uint64_t offset, absl::Span<const uint8_t> found) const {
  const absl::Span<const uint8_t> expected = Part(offset, found.size());
  if (expected.size() == found.size() &&
      (found.empty() || memcmp(expected.data(), found.data(), found.size()) == 0)) {
    return absl::OkStatus();
  }
  if (expected.size() < found.size()) {
    return absl::InternalError(absl::StrFormat("%d bytes at 0x%x, where the file has %d",
                                               found.size(), offset, expected.size()));
  }
  const uint64_t first = static_cast<uint64_t>(
      std::mismatch(expected.begin(), expected.end(), found.begin()).first - expected.begin());
  uint64_t wrong = 0;
  for (size_t i = 0; i < found.size(); ++i) wrong += found[i] != expected[i] ? 1 : 0;
  const uint64_t at = offset + first;
  return absl::InternalError(absl::StrFormat(
      "wrong bytes: %d of %d, the first at 0x%x: %s (%s), where there must be %s (%s)", wrong,
      found.size(), at, Hex(found.subspan(first, kShownBytes)), OriginOf(found, offset, at),
      Hex(expected.subspan(first, kShownBytes)), OriginOf(expected, offset, at)));
}

}  // namespace dfscsi::exercise
