// The referral cache on disk: a node that boots while the namespace servers are down still finds
// its targets. Bytes only; who writes the file replaces it atomically.

#ifndef NODE_AGENT_DFS_REFERRAL_CACHE_FILE_H_
#define NODE_AGENT_DFS_REFERRAL_CACHE_FILE_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "node-agent/dfs/referral_cache.h"

namespace dfscsi::dfs {

// Of entries with targets. What is left of each TTL is saved against the time of day.
std::string EncodeCacheFile(const std::vector<const ReferralEntry*>& entries, absl::Time now,
                            absl::Time wall_now);

// Errors: kDataLoss for anything but a whole file of the version that this program writes.
absl::StatusOr<std::vector<ReferralEntry>> DecodeCacheFile(absl::string_view file, absl::Time now,
                                                           absl::Time wall_now);

}  // namespace dfscsi::dfs

#endif  // NODE_AGENT_DFS_REFERRAL_CACHE_FILE_H_
