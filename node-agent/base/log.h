// One line on stderr per event: "2026-11-22T10:11:12.345Z W mount 7: ...".
//
//   LogWarning("mount ", id, ": ", status.message());
//
// Who handles an error logs it; who returns it does not. Never a Secret (it does not convert),
// never file contents. Text from a server is data: control characters are written as \xNN, so that
// it cannot forge a line. A line is dropped, and counted, when stderr would block: a stuck log
// reader must not stop the data path. Thread-safe.

#ifndef NODE_AGENT_BASE_LOG_H_
#define NODE_AGENT_BASE_LOG_H_

#include <poll.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace dfscsi {

enum class LogLevel : int { kError = 0, kWarning = 1, kInfo = 2, kDebug = 3 };

namespace internal {
inline std::atomic<int> log_level{static_cast<int>(LogLevel::kInfo)};
inline std::atomic<int64_t> dropped_log_lines{0};

inline void WriteLogLine(LogLevel level, std::string_view text) {
  constexpr size_t kMostBytes = 4096;  // One write of up to PIPE_BUF is not mixed with others'.
  std::string line = absl::FormatTime("%Y-%m-%dT%H:%M:%E3SZ ", absl::Now(), absl::UTCTimeZone());
  line += "EWID"[static_cast<int>(level)];
  line += ' ';
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x20 && byte != 0x7f) {
      line += c;
    } else {
      absl::StrAppend(&line, "\\x", absl::Hex(byte, absl::kZeroPad2));
    }
    if (line.size() > kMostBytes - 8) {
      line += "...";
      break;
    }
  }
  line += '\n';
  pollfd ready{STDERR_FILENO, POLLOUT, 0};
  if (poll(&ready, 1, 0) != 1 || (ready.revents & POLLOUT) == 0 ||
      write(STDERR_FILENO, line.data(), line.size()) < 0) {
    dropped_log_lines.fetch_add(1, std::memory_order_relaxed);
  }
}
}  // namespace internal

inline void SetLogLevel(LogLevel level) {
  internal::log_level.store(static_cast<int>(level), std::memory_order_relaxed);
}
// "error", "warning", "info", "debug".
inline std::optional<LogLevel> ParseLogLevel(std::string_view name) {
  if (name == "error") return LogLevel::kError;
  if (name == "warning") return LogLevel::kWarning;
  if (name == "info") return LogLevel::kInfo;
  if (name == "debug") return LogLevel::kDebug;
  return std::nullopt;
}
inline bool IsLogged(LogLevel level) {
  return static_cast<int>(level) <= internal::log_level.load(std::memory_order_relaxed);
}
inline int64_t DroppedLogLines() { return internal::dropped_log_lines.load(); }

template <class... Parts>
void Log(LogLevel level, const Parts&... parts) {
  if (IsLogged(level)) internal::WriteLogLine(level, absl::StrCat(parts...));
}
template <class... Parts>
void LogError(const Parts&... parts) {
  Log(LogLevel::kError, parts...);
}
template <class... Parts>
void LogWarning(const Parts&... parts) {
  Log(LogLevel::kWarning, parts...);
}
template <class... Parts>
void LogInfo(const Parts&... parts) {
  Log(LogLevel::kInfo, parts...);
}
template <class... Parts>
void LogDebug(const Parts&... parts) {
  Log(LogLevel::kDebug, parts...);
}

}  // namespace dfscsi

#endif  // NODE_AGENT_BASE_LOG_H_
