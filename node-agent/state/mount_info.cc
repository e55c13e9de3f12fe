#include "node-agent/state/mount_info.h"

#include <fcntl.h>
#include <unistd.h>

#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "node-agent/base/unique_fd.h"

namespace dfscsi::state {

std::string ReadFile(const std::string& path) {
  UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  std::string text;
  char buffer[16 * 1024];
  ssize_t n;
  while (fd && (n = read(fd.get(), buffer, sizeof(buffer))) > 0) {
    text.append(buffer, static_cast<size_t>(n));
  }
  return text;
}

std::vector<MountInfo> ParseMountInfo(std::string_view text) {
  std::vector<MountInfo> mounts;
  for (absl::string_view line :
       absl::StrSplit(absl::string_view(text.data(), text.size()), '\n', absl::SkipEmpty())) {
    const std::vector<absl::string_view> halves = absl::StrSplit(line, absl::MaxSplits(" - ", 1));
    const std::vector<absl::string_view> fields = absl::StrSplit(halves[0], ' ');
    if (halves.size() != 2 || fields.size() < 6) continue;
    const std::pair<absl::string_view, absl::string_view> dev = absl::StrSplit(fields[2], ':');
    MountInfo mount;
    if (!absl::SimpleAtoi(dev.first, &mount.dev_major) ||
        !absl::SimpleAtoi(dev.second, &mount.dev_minor)) {
      continue;
    }
    // Space, tab, newline and backslash are written as \ooo.
    if (!absl::CUnescape(fields[4], &mount.mount_point)) continue;
    const std::vector<absl::string_view> of_type = absl::StrSplit(halves[1], ' ');
    mount.type = std::string(of_type[0]);
    if (of_type.size() < 2 || !absl::CUnescape(of_type[1], &mount.source)) continue;
    mounts.push_back(std::move(mount));
  }
  return mounts;
}

std::vector<MountInfo> ReadMountInfo() { return ParseMountInfo(ReadFile("/proc/self/mountinfo")); }

}  // namespace dfscsi::state
