// STATFS: a share's size and room, from its server or as last known.

#include <string>
#include <utility>

#include "node-agent/base/status_macros.h"
#include "node-agent/runtime/loop.h"
#include "node-agent/smb/tree.h"
#include "node-agent/smb/wire/file_name.h"
#include "node-agent/vfs/filesystem_impl.h"

namespace dfscsi::vfs {

using runtime::Deadline;
using runtime::Task;

namespace {

// How long a server's figures about its disk are believed.
constexpr absl::Duration kStatisticsFor = absl::Seconds(5);
// How many shares are remembered.
constexpr size_t kMostStatistics = 1024;

// Of a share of which nothing is known.
struct statvfs ZeroStatistics() {
  struct statvfs values = {};
  values.f_bsize = values.f_frsize = 4096;
  values.f_namemax = smb::wire::kMaxNameUnits;
  return values;
}

}  // namespace

const Filesystem::Impl::Statistics* Filesystem::Impl::FindStatistics(
    const dfs::DfsPath& path) const {
  for (size_t components = path.size(); components >= 2; --components) {
    const auto found = statistics_.find(std::u16string(path.KeyPrefix(components)));
    if (found != statistics_.end()) return &found->second;
    // What lies above a link is another share.
    if (components > 2 && client_.IsKnownLink(path.Prefix(components))) return nullptr;
  }
  return nullptr;
}

Task<absl::StatusOr<struct statvfs>> Filesystem::Impl::GetStatistics(state::NodeId node,
                                                                     Deadline deadline) {
  CO_ASSIGN_OR_RETURN(const dfs::DfsPath path, PathOf(node));
  const absl::Time now = runtime::Loop::Current().Now();
  // Nothing of the map is held over a wait: whoever inserts moves all of it.
  if (const Statistics* const known = FindStatistics(path);
      known != nullptr && now < known->until && known->epoch == client_.GetEpoch(path)) {
    co_return known->values;
  }
  struct Fetch {
    static Task<absl::Status> Run(dfs::Binding binding, smb::FileSystemSize* size,
                                  dfs::Binding* where, Deadline until) {
      CO_ASSIGN_OR_RETURN(*size, co_await binding.tree->StatFileSystem(binding.path, until));
      *where = std::move(binding);
      co_return absl::OkStatus();
    }
  };
  smb::FileSystemSize size;
  dfs::Binding where;
  const absl::Status status = co_await client_.Run(
      path,
      [&size, &where, deadline](dfs::Binding binding) {
        return Fetch::Run(std::move(binding), &size, &where, deadline);
      },
      {}, deadline.Within(kLastKnownAfter));
  if (absl::IsCancelled(status)) co_return status;
  if (!status.ok()) {
    ++counters_.last_known_answers;
    const Statistics* const last = FindStatistics(path);
    co_return last == nullptr ? ZeroStatistics() : last->values;
  }
  struct statvfs values = ZeroStatistics();
  values.f_blocks = size.total_units;
  values.f_bfree = size.free_units;
  values.f_bavail = size.available_units;
  if (size.unit_bytes != 0) values.f_bsize = values.f_frsize = size.unit_bytes;
  if (statistics_.size() >= kMostStatistics) statistics_.clear();
  statistics_[std::u16string(path.KeyPrefix(where.link_components))] = {
      .values = values, .epoch = where.epoch, .until = now + kStatisticsFor};
  co_return values;
}

}  // namespace dfscsi::vfs
