// What the files of Binder and ReferralSource share, and nobody else needs.

#ifndef NODE_AGENT_DFS_BINDER_PARTS_H_
#define NODE_AGENT_DFS_BINDER_PARTS_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/strings/cord.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "node-agent/dfs/failure_class.h"
#include "node-agent/smb/session_pool.h"

namespace dfscsi::dfs::binder_parts {

// One target: name, TCP, NEGOTIATE, SESSION_SETUP, TREE_CONNECT and the open of its root, in all.
inline constexpr absl::Duration kTargetTime = absl::Seconds(5);
// One referral, from whichever namespace server.
inline constexpr absl::Duration kFetchTime = absl::Seconds(5);

// After a connection that one wanted to share was given up by whoever made it: the right to make
// one is free a moment later.
inline constexpr absl::Duration kConnectGivenUp = absl::Milliseconds(5);

inline AttemptPhase PhaseOf(smb::ConnectPhase phase) { return static_cast<AttemptPhase>(phase); }
static_assert(static_cast<int>(AttemptPhase::kTreeConnect) ==
              static_cast<int>(smb::ConnectPhase::kTreeConnect));

// A random number of the loop as one in [0, 1).
inline double Fraction(uint64_t random) { return static_cast<double>(random >> 11) * 0x1.0p-53; }

// The same status, payloads and all, with another text.
inline absl::Status WithText(const absl::Status& status, absl::string_view text) {
  absl::Status other(status.code(), text);
  status.ForEachPayload(
      [&](absl::string_view url, const absl::Cord& payload) { other.SetPayload(url, payload); });
  return other;
}

}  // namespace dfscsi::dfs::binder_parts

#endif  // NODE_AGENT_DFS_BINDER_PARTS_H_
