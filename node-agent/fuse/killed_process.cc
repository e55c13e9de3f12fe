#include "node-agent/fuse/killed_process.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <charconv>
#include <string>

#include "absl/strings/str_cat.h"
#include "node-agent/base/unique_fd.h"

namespace dfscsi::fuse {

bool HasPendingKill(std::string_view status) {
  // Of the thread, not those of its process that any thread may take: a SIGKILL is given to each.
  constexpr std::string_view kPending = "\nSigPnd:\t";
  const size_t at = status.find(kPending);
  if (at == std::string_view::npos) return false;
  const char* const begin = status.data() + at + kPending.size();
  uint64_t signals = 0;
  std::from_chars(begin, status.data() + status.size(), signals, 16);
  return (signals >> (SIGKILL - 1) & 1) != 0;
}

bool IsBeingKilled(uint32_t thread) {
  const UniqueFd fd(open(absl::StrCat("/proc/", thread, "/status").c_str(), O_RDONLY | O_CLOEXEC));
  char text[4096];
  const ssize_t n = fd ? read(fd.get(), text, sizeof(text)) : -1;
  return n > 0 && HasPendingKill({text, static_cast<size_t>(n)});
}

}  // namespace dfscsi::fuse
