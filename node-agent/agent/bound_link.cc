#include "node-agent/agent/bound_link.h"

#include <utility>

#include "absl/strings/str_split.h"

namespace dfscsi::agent {

dfs::Client::BoundLink LinkOf(const dfs::Client& client, const dfs::DfsPath& path) {
  dfs::Client::BoundLink longest;
  size_t components = 0;
  for (const dfs::Client::BoundLink& link : client.ListLinks()) {
    const absl::StatusOr<dfs::DfsPath> prefix = dfs::DfsPath::Parse(link.prefix);
    if (!prefix.ok() || prefix->size() <= components || !path.HasPrefix(*prefix)) continue;
    longest = link;
    components = prefix->size();
  }
  if (!longest.bound) longest.target.clear();
  return longest;
}

dfs::DfsPath PathBelow(dfs::DfsPath path, const std::string& below) {
  for (const absl::string_view name : absl::StrSplit(below, '/', absl::SkipEmpty())) {
    absl::StatusOr<dfs::DfsPath> joined = path.Join(name);
    if (!joined.ok()) break;
    path = *std::move(joined);
  }
  return path;
}

}  // namespace dfscsi::agent
