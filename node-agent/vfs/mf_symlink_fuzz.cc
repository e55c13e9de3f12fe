// Content of files that may be symbolic links.

#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "node-agent/vfs/mf_symlink.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace dfscsi::vfs;  // NOLINT(google-build-using-namespace)
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  if (const auto target = ParseMfSymlink(text)) {
    if (target->empty() || target->size() > kMostMfTargetBytes) abort();
    if (ParseMfSymlink(MfSymlinkOf(*target)) != target) abort();
  }
  // The hash is not guessed: what a target becomes is read again.
  const bool is_target = size > 0 && size <= kMostMfTargetBytes;
  if (is_target && text.find('\0') == std::string_view::npos &&
      ParseMfSymlink(MfSymlinkOf(text)) != text) {
    abort();
  }
  return 0;
}
