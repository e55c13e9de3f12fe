// The last-write time of a file that is open: who sets it, the server or we.

#include <memory>
#include <utility>
#include <vector>

#include "node-agent/base/status_macros.h"
#include "node-agent/smb/wire/file_information.h"
#include "node-agent/smb/wire/filetime.h"
#include "node-agent/vfs/change.h"
#include "node-agent/vfs/filesystem_impl.h"
#include "node-agent/vfs/open_file.h"

namespace dfscsi::vfs {

using runtime::Deadline;
using runtime::Task;

namespace {

constexpr absl::Duration kLateWriteTime = absl::Seconds(1);
// Until a session that was left in silence is given up.
constexpr absl::Duration kFormerSessionTime = absl::Seconds(1);

smb::wire::BasicInformation LastWrite(absl::Time when) {
  smb::wire::BasicInformation basic;
  basic.last_write_time = smb::wire::FileTimeOf(when);
  return basic;
}

}  // namespace

std::vector<std::shared_ptr<OpenFile>> Filesystem::Impl::WritersOf(state::NodeId node) const {
  std::vector<std::shared_ptr<OpenFile>> writers;
  if (const auto open = opens_.find(node); open != opens_.end()) {
    for (const state::FileHandle fh : open->second) {
      const auto file = files_.find(fh);
      if (file != files_.end() && file->second->written()) writers.push_back(file->second);
      const auto appender = appenders_.find(fh);
      if (appender != appenders_.end()) writers.push_back(appender->second);
    }
  }
  // What a locked file's handles write goes through one that is theirs.
  if (const auto locks = locks_.find(node); locks != locks_.end()) {
    writers.push_back(locks->second->holder);
  }
  return writers;
}

Task<absl::Status> Filesystem::Impl::SetTimeOfWriters(state::NodeId node,
                                                      std::shared_ptr<smb::Tree> tree,
                                                      absl::Time modified, Deadline deadline) {
  const std::vector<std::shared_ptr<OpenFile>> writers = WritersOf(node);
  for (const std::shared_ptr<OpenFile>& file : writers) {
    const std::optional<smb::wire::FileId> id = file->TryIdOn(*tree);
    file->NoteTimeSet();
    // Not open, or on a former session: SetTimeOnFormerSessions().
    if (!id.has_value()) continue;
    const absl::Status status = co_await tree->SetBasic(*id, LastWrite(modified), deadline);
    // Closed meanwhile: the time was set by name after it, or with it, and is what it is.
    if (smb::wire::NtStatusOf(status) == smb::wire::NtStatus::kFileClosed) continue;
    CO_RETURN_IF_ERROR(status);
  }
  co_return absl::OkStatus();
}

Task<void> Filesystem::Impl::SetTimeOnFormerSessions(state::NodeId node, dfs::Binding binding,
                                                     absl::Time modified, Deadline deadline) {
  const std::vector<std::shared_ptr<OpenFile>> writers = WritersOf(node);
  const uint64_t server_key = ServerKeyOf(binding);
  bool lost = false;
  for (const std::shared_ptr<OpenFile>& file : writers) {
    const std::shared_ptr<smb::Tree> tree = file->tree();
    if (tree == nullptr || tree == binding.tree || file->server_key() != server_key) continue;
    if (!tree->usable()) continue;  // Change::of_names has ended it.
    file->NoteTimeSet();
    const absl::Status status = co_await tree->SetBasic(*file->TryIdOn(*tree), LastWrite(modified),
                                                        deadline.Within(kFormerSessionTime));
    if (deadline.cancelled()) co_return;
    if (status.ok() || smb::wire::NtStatusOf(status).has_value()) continue;
    tree->session().connection().Close(absl::AbortedError("a former session does not answer"));
    lost = true;
  }
  if (lost) co_await client_.EndFormerSessions(std::move(binding), std::move(deadline));
}

Task<void> Filesystem::Impl::SetTimeOfLateWrite(std::shared_ptr<OpenFile> file) {
  const absl::Time when = *file->late_write();
  const OpenFile::Act set = [when](std::shared_ptr<smb::Tree> tree, smb::wire::FileId file_id) {
    return tree->SetBasic(file_id, LastWrite(when), Deadline::After(kLateWriteTime));
  };
  // A time is not worth more: close(2) of what was written does not wait for a server.
  const absl::Status status = co_await client_.Run(
      file->path(),
      [&](dfs::Binding binding) {
        return file->ActOn(std::move(binding), set, options_.check_identity, &counters_,
                           Deadline::After(kLateWriteTime));
      },
      {.held_epoch = file->epoch(), .movable = false}, Deadline::After(kLateWriteTime));
  // Somebody may have written meanwhile: that is for the next one who closes it.
  if (status.ok() && file->late_write() == when) file->NoteTimeSet();
}

}  // namespace dfscsi::vfs
