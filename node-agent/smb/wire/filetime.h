// FILETIME: 100 ns since 1601-01-01 UTC ([MS-DTYP] 2.3.3).

#ifndef NODE_AGENT_SMB_WIRE_FILETIME_H_
#define NODE_AGENT_SMB_WIRE_FILETIME_H_

#include <algorithm>
#include <cstdint>
#include <limits>
#include <optional>

#include "absl/time/time.h"

namespace dfscsi::smb::wire {

inline constexpr int64_t kFileTimeOfUnixEpoch = 116444736000000000;

// nullopt: the server does not know (0), or sent nonsense (negative).
inline std::optional<absl::Time> TimeOfFileTime(uint64_t filetime) {
  const int64_t ticks = static_cast<int64_t>(filetime);
  if (ticks <= 0) return std::nullopt;
  return absl::UnixEpoch() + (ticks - kFileTimeOfUnixEpoch) * absl::Nanoseconds(100);
}

// Rounds down to 100 ns. Times that FILETIME cannot express become the nearest one that it can, and
// never 0 or negative: in SET_INFO those do not mean a time.
inline uint64_t FileTimeOf(absl::Time time) {
  constexpr int64_t kMax = std::numeric_limits<int64_t>::max();
  // From 1601 on nothing is negative, so dividing rounds down; it saturates at the far end.
  const absl::Time start = absl::UnixEpoch() - kFileTimeOfUnixEpoch * absl::Nanoseconds(100);
  if (time <= start) return 1;
  absl::Duration rest;
  const int64_t ticks = absl::IDivDuration(time - start, absl::Nanoseconds(100), &rest);
  return static_cast<uint64_t>(std::clamp<int64_t>(ticks, 1, kMax));
}

}  // namespace dfscsi::smb::wire

#endif  // NODE_AGENT_SMB_WIRE_FILETIME_H_
