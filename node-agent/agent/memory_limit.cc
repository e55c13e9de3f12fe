#include "node-agent/agent/memory_limit.h"

#include <algorithm>
#include <fstream>
#include <limits>
#include <sstream>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

namespace dfscsi::agent {
namespace {

constexpr uint64_t kNoLimit = std::numeric_limits<uint64_t>::max();

// One number; "max" and a file that is not there: no limit.
uint64_t LimitIn(const std::string& file) {
  std::ifstream stream(file);
  std::string word;
  uint64_t bytes = 0;
  return stream >> word && absl::SimpleAtoi(word, &bytes) ? bytes : kNoLimit;
}

// Of the group and of each above it. In a container the path may be one that only the host has:
// the root is the container's own group then.
uint64_t LeastLimit(const std::string& root, std::string_view path, const char* file) {
  uint64_t least = kNoLimit;
  std::string group(path == "/" ? "" : path);
  while (true) {
    least = std::min(least, LimitIn(absl::StrCat(root, group, "/", file)));
    if (group.empty()) return least;
    group.resize(group.rfind('/') == std::string::npos ? 0 : group.rfind('/'));
  }
}

}  // namespace

uint64_t MemoryLimitBytes(std::string_view membership, const std::string& root) {
  uint64_t least = kNoLimit;
  for (const std::string& line :
       std::vector<std::string>(absl::StrSplit(std::string(membership), '\n', absl::SkipEmpty()))) {
    // hierarchy:controllers:path
    const std::vector<std::string> fields = absl::StrSplit(line, absl::MaxSplits(':', 2));
    if (fields.size() != 3) continue;
    const std::vector<std::string> controllers = absl::StrSplit(fields[1], ',');
    if (fields[0] == "0" && fields[1].empty()) {
      least = std::min(least, LeastLimit(root, fields[2], "memory.max"));
    } else if (std::find(controllers.begin(), controllers.end(), "memory") != controllers.end()) {
      least = std::min(
          least, LeastLimit(absl::StrCat(root, "/memory"), fields[2], "memory.limit_in_bytes"));
    }
  }
  return least;
}

uint64_t OwnMemoryLimitBytes() {
  std::ifstream file("/proc/self/cgroup");
  std::stringstream text;
  text << file.rdbuf();
  return MemoryLimitBytes(text.str(), "/sys/fs/cgroup");
}

}  // namespace dfscsi::agent
