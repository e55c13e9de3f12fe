// What the files of Resolver share, and nobody else needs.

#ifndef NODE_AGENT_DFS_RESOLVER_PARTS_H_
#define NODE_AGENT_DFS_RESOLVER_PARTS_H_

#include <algorithm>
#include <cerrno>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "node-agent/dfs/resolver.h"
#include "node-agent/smb/wire/nt_status.h"

namespace dfscsi::dfs::resolver_parts {

inline ResolveStep Error(absl::Status status, FailureClass failure, int error_number) {
  ResolveStep step;
  step.kind = ResolveStep::Kind::kError;
  step.status = std::move(status);
  step.failure = failure;
  step.error_number = error_number;
  return step;
}

inline ResolveStep LoopError() {
  return Error(absl::FailedPreconditionError("too many levels of DFS links"),
               FailureClass::kSemantics, ELOOP);
}

inline bool Contains(const std::vector<std::u16string>& keys, const DfsPath& path) {
  return std::any_of(keys.begin(), keys.end(),
                     [&](const std::u16string& key) { return key == path.Key(); });
}

inline bool IsSysvol(const DfsPath& path) {
  return absl::EqualsIgnoreCase(path.share(), "SYSVOL") ||
         absl::EqualsIgnoreCase(path.share(), "NETLOGON");
}

// The server says that there is nothing at the path, rather than that it cannot tell.
inline bool SaysNothingThere(const absl::Status& status) {
  const std::optional<smb::wire::NtStatus> answer = smb::wire::NtStatusOf(status);
  return answer.has_value() && smb::wire::ErrnoOf(*answer) == ENOENT;
}

}  // namespace dfscsi::dfs::resolver_parts

#endif  // NODE_AGENT_DFS_RESOLVER_PARTS_H_
