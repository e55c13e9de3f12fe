// In which order the targets of one link are tried.
//
// The server's order is a preference (site, cost, priority): sets are never mixed ([MS-DFSC]
// 3.1.5.2, TargetSetBoundary). TargetHint, the one that worked last, goes first: moving back and
// forth costs open files. Going back to a better target (failback) is for new opens, where the
// server (T bit) or the mount asks for it, and only to a target that has been up for a while.

#ifndef NODE_AGENT_DFS_TARGET_ORDER_H_
#define NODE_AGENT_DFS_TARGET_ORDER_H_

#include <cstddef>
#include <cstdint>

#include "absl/container/inlined_vector.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "node-agent/dfs/referral_cache.h"
#include "node-agent/dfs/target_health.h"

namespace dfscsi::dfs {

enum class TargetPolicy {
  kServerOrder,
  kLatency,  // Inside a set the fastest first; those not measured yet after them.
};

struct OrderOptions {
  TargetPolicy policy = TargetPolicy::kServerOrder;
  bool failback = false;                     // To any target before the hint.
  bool obey_referral = true;                 // The T bit: to any set before the hint's.
  absl::Duration dwell = absl::Seconds(10);  // How long a target must have been up to go back to.
};

struct OrderedTarget {
  uint16_t index = 0;                            // Into the entry's targets.
  absl::Time not_before = absl::InfinitePast();  // It is not to be tried before.
};
using TargetOrder = absl::InlinedVector<OrderedTarget, 16>;

// Orders `candidates` (indices into entry.targets, as of ResolveStep). `health` has the status of
// each candidate, in the same order. What may not be tried yet comes last, the soonest first, and
// so does what was down and may be tried again: before those, after all that are up or unknown.
// `new_open`: nothing is open on the hint's target for this caller, so it may fail back.
TargetOrder OrderTargets(const ReferralEntry& entry, absl::Span<const uint16_t> candidates,
                         absl::Span<const TargetStatus> health, const OrderOptions& options,
                         bool new_open, absl::Time now);

// True if the namespace or the mount wants target `index` rather than target `serving`: one would
// fail back to it.
bool IsBetter(const ReferralEntry& entry, size_t index, size_t serving,
              const OrderOptions& options);

}  // namespace dfscsi::dfs

#endif  // NODE_AGENT_DFS_TARGET_ORDER_H_
