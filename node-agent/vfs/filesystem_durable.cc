// Durable handles that this mount's programs have closed while their servers were away.

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "node-agent/runtime/loop.h"
#include "node-agent/vfs/durable_handle.h"
#include "node-agent/vfs/filesystem_impl.h"
#include "node-agent/vfs/share_path.h"

namespace dfscsi::vfs {

using runtime::Deadline;
using runtime::Task;

namespace {

// By then every server has let go of it.
constexpr absl::Duration kKeptFor = absl::Minutes(2);
constexpr size_t kMostLeftBehind = 256;
// A server that hangs is not waited for by every change.
constexpr absl::Duration kCloseWithin = absl::Seconds(5);

}  // namespace

std::optional<DurableHandle> Filesystem::Impl::DurableOf(state::FileHandle fh) const {
  const state::HandleTable::Record& record = tables_.handles().Get(fh);
  return DurableHandle::FromRecord(record.server.Get(), state::Load(record.server_key),
                                   record.access);
}

void Filesystem::Impl::LeaveBehind(state::FileHandle fh) {
  const auto file = files_.find(fh);
  const bool is_left = file == files_.end() || file->second->IsLeftBehind();
  const std::optional<DurableHandle> handle =
      file != files_.end() ? file->second->durable() : DurableOf(fh);
  const absl::StatusOr<dfs::DfsPath> path = PathOf(tables_.handles().Get(fh).node);
  if (!is_left || !handle.has_value() || !path.ok()) return;
  if (left_behind_.size() >= kMostLeftBehind) left_behind_.erase(left_behind_.begin());
  left_behind_.push_back(
      {.path = *path, .handle = *handle, .until = runtime::Loop::Current().Now() + kKeptFor});
}

Task<void> Filesystem::Impl::CloseLeftBehind(dfs::Binding binding, dfs::DfsPath path) {
  const uint64_t server_key = ServerKeyOf(binding);
  const absl::Time now = runtime::Loop::Current().Now();
  std::vector<LeftBehind> here;
  std::erase_if(left_behind_, [&](const LeftBehind& left) {
    if (left.until <= now) return true;
    if (left.handle.server_key != server_key || !IsBelowSameLink(binding, path, left.path)) {
      return false;
    }
    here.push_back(left);
    return true;
  });
  const Deadline deadline = Deadline::After(kCloseWithin);
  for (const LeftBehind& left : here) {
    const std::optional<std::u16string> name = PathInShare(binding, path, left.path);
    if (name.has_value()) co_await CloseDurable(binding.tree, *name, left.handle, deadline);
  }
}

}  // namespace dfscsi::vfs
