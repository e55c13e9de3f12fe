// STATFS: a share's size and room, from its server or as last known.

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

}  // namespace

Task<absl::StatusOr<struct statvfs>> Filesystem::Impl::GetStatistics(state::NodeId node,
                                                                     Deadline deadline) {
  CO_ASSIGN_OR_RETURN(const dfs::DfsPath path, PathOf(node));
  const absl::Time now = runtime::Loop::Current().Now();
  // Nothing of the map is held over a wait: whoever inserts moves all of it.
  const auto known = statistics_.find(client_.GetEpoch(path));
  if (known != statistics_.end() && now < known->second.until) co_return known->second.values;
  struct Fetch {
    static Task<absl::Status> Run(dfs::Binding binding, smb::FileSystemSize* size, Deadline until) {
      CO_ASSIGN_OR_RETURN(*size, co_await binding.tree->StatFileSystem(binding.path, until));
      co_return absl::OkStatus();
    }
  };
  smb::FileSystemSize size;
  const absl::Status status = co_await client_.Run(
      path,
      [&size, deadline](dfs::Binding binding) {
        return Fetch::Run(std::move(binding), &size, deadline);
      },
      {}, deadline.Within(kLastKnownAfter));
  if (absl::IsCancelled(status)) co_return status;
  const uint64_t epoch = client_.GetEpoch(path);
  if (status.ok()) {
    if (statistics_.size() >= kMostStatistics) statistics_.clear();
    struct statvfs values = {};
    values.f_bsize = values.f_frsize = size.unit_bytes == 0 ? 4096 : size.unit_bytes;
    values.f_blocks = size.total_units;
    values.f_bfree = size.free_units;
    values.f_bavail = size.available_units;
    values.f_namemax = smb::wire::kMaxNameUnits;
    statistics_[epoch] = {.values = values, .until = now + kStatisticsFor};
    last_statistics_ = values;
    co_return values;
  }
  ++counters_.last_known_answers;
  const auto last = statistics_.find(epoch);
  if (last == statistics_.end()) co_return last_statistics_;
  co_return last->second.values;
}

}  // namespace dfscsi::vfs
