#include "node-agent/vfs/mf_symlink.h"

#include <openssl/evp.h>

#include <cstdlib>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace dfscsi::vfs {
namespace {

constexpr std::string_view kMagic = "XSym\n";
constexpr size_t kLengthDigits = 4;
constexpr size_t kHashDigits = 32;
constexpr size_t kHashAt = kMagic.size() + kLengthDigits + 1;
constexpr size_t kTargetAt = kHashAt + kHashDigits + 1;
static_assert(kTargetAt + kMostMfTargetBytes == kMfSymlinkBytes);

// The format's check of itself; nothing is kept secret or proven with it.
std::string HashOf(std::string_view target) {
  unsigned char hash[EVP_MAX_MD_SIZE];
  unsigned int bytes = 0;
  if (EVP_Digest(target.data(), target.size(), hash, &bytes, EVP_md5(), nullptr) != 1) abort();
  return absl::BytesToHexString(absl::string_view(reinterpret_cast<char*>(hash), bytes));
}

std::optional<size_t> LengthOf(std::string_view digits) {
  size_t length = 0;
  for (const char digit : digits) {
    if (digit < '0' || digit > '9') return std::nullopt;
    length = length * 10 + static_cast<size_t>(digit - '0');
  }
  if (length == 0 || length > kMostMfTargetBytes) return std::nullopt;
  return length;
}

}  // namespace

bool MayBeMfSymlink(const ServerAttributes& attributes) {
  return attributes.file.end_of_file == kMfSymlinkBytes &&
         !attributes.file.Has(smb::wire::kAttributeDirectory) &&
         !attributes.file.Has(smb::wire::kAttributeReparsePoint);
}

std::optional<std::string> ParseMfSymlink(std::string_view content) {
  if (content.size() != kMfSymlinkBytes || content.substr(0, kMagic.size()) != kMagic ||
      content[kHashAt - 1] != '\n' || content[kTargetAt - 1] != '\n') {
    return std::nullopt;
  }
  const std::optional<size_t> length = LengthOf(content.substr(kMagic.size(), kLengthDigits));
  if (!length.has_value()) return std::nullopt;
  const std::string_view target = content.substr(kTargetAt, *length);
  if (target.find('\0') != std::string_view::npos) return std::nullopt;
  if (content.substr(kHashAt, kHashDigits) != HashOf(target)) return std::nullopt;
  return std::string(target);
}

std::string MfSymlinkOf(std::string_view target) {
  std::string content =
      absl::StrCat(absl::string_view(kMagic.data(), kMagic.size()),
                   absl::StrFormat("%04u\n", static_cast<unsigned>(target.size())), HashOf(target),
                   "\n", absl::string_view(target.data(), target.size()));
  if (content.size() < kMfSymlinkBytes) content.push_back('\n');
  content.resize(kMfSymlinkBytes, ' ');
  return content;
}

}  // namespace dfscsi::vfs
