#include "node-agent/dfs/bound_link.h"

#include <utility>

#include "absl/strings/str_split.h"

namespace dfscsi::dfs {

Client::BoundLink LinkOf(const Client& client, const DfsPath& path) {
  Client::BoundLink longest;
  size_t components = 0;
  for (const Client::BoundLink& link : client.ListLinks()) {
    const absl::StatusOr<DfsPath> prefix = DfsPath::Parse(link.prefix);
    if (!prefix.ok() || prefix->size() <= components || !path.HasPrefix(*prefix)) continue;
    longest = link;
    components = prefix->size();
  }
  if (!longest.bound) longest.target.clear();
  return longest;
}

DfsPath PathBelow(DfsPath path, const std::string& below) {
  for (const absl::string_view name : absl::StrSplit(below, '/', absl::SkipEmpty())) {
    absl::StatusOr<DfsPath> joined = path.Join(name);
    if (!joined.ok()) break;
    path = *std::move(joined);
  }
  return path;
}

}  // namespace dfscsi::dfs
