// What is open while its name is changed: it is opened again, where that is needed, by the name
// that it has when the change is settled, and not by the one that it had when it was asked for.

#include <errno.h>

#include <utility>

#include "absl/strings/cord.h"
#include "node-agent/base/status_macros.h"
#include "node-agent/vfs/errno.h"
#include "node-agent/vfs/filesystem_impl.h"

namespace dfscsi::vfs {

using runtime::Deadline;
using runtime::Task;

namespace {

constexpr char kNameMovedUrl[] = "dfscsi/name-moved";

absl::Status NameMoved() {
  absl::Status status = ErrnoError(ESTALE, "its name is being changed");
  status.SetPayload(kNameMovedUrl, absl::Cord());
  return status;
}

}  // namespace

bool Filesystem::Impl::IsNameMoved(const absl::Status& status) {
  return status.GetPayload(kNameMovedUrl).has_value();
}

Task<absl::Status> Filesystem::Impl::ByName(std::shared_ptr<OpenFile> file, dfs::DfsPath path,
                                            uint64_t since, dfs::Binding binding,
                                            std::function<Task<absl::Status>(dfs::Binding)> call) {
  const bool is_open = file->TryIdOn(*binding.tree).has_value();
  if (!is_open && names_->Touched(path, since)) co_return NameMoved();
  absl::Status status = co_await call(std::move(binding));
  // It was looked for by a name that was changed meanwhile.
  if (ErrnoOf(status) == ESTALE && names_->Touched(path, since)) {
    if (file->ForgetStale()) --counters_.stale_handles;
    status = NameMoved();
  }
  co_return status;
}

absl::StatusOr<dfs::DfsPath> Filesystem::Impl::NameOf(state::FileHandle fh) {
  ASSIGN_OR_RETURN(const std::shared_ptr<OpenFile> file, FileOf(fh));
  return file->path();
}

Task<absl::Status> Filesystem::Impl::RunByName(
    std::shared_ptr<OpenFile> file, std::function<absl::StatusOr<dfs::DfsPath>()> name_of,
    std::function<Task<absl::Status>(dfs::Binding)> call, dfs::RunOptions options,
    Deadline deadline) {
  while (true) {
    CO_ASSIGN_OR_RETURN(const dfs::DfsPath path, name_of());
    const uint64_t since = names_->now();
    options.held_epoch = file->epoch();
    const absl::Status status = co_await client_.Run(
        path,
        [&](dfs::Binding binding) { return ByName(file, path, since, std::move(binding), call); },
        options, deadline);
    if (!IsNameMoved(status)) co_return status;
    CO_RETURN_IF_ERROR(co_await names_->AwaitSettled(path, deadline));
  }
}

Task<absl::Status> Filesystem::Impl::RunOnFile(state::FileHandle fh, std::shared_ptr<OpenFile> file,
                                               std::function<Task<absl::Status>(dfs::Binding)> call,
                                               dfs::RunOptions options, Deadline deadline) {
  return RunByName(
      std::move(file), [this, fh] { return NameOf(fh); }, std::move(call), options,
      std::move(deadline));
}

Task<absl::Status> Filesystem::Impl::RunChangeThrough(state::FileHandle fh,
                                                      std::shared_ptr<OpenFile> file,
                                                      Change* change, Deadline deadline) {
  change->file = std::move(file);
  while (true) {
    CO_ASSIGN_OR_RETURN(const dfs::DfsPath path, NameOf(fh));
    change->names_since = names_->now();
    change->held_epoch = change->file->epoch();
    const absl::Status status = co_await RunChange(path, change, deadline);
    if (!IsNameMoved(status)) co_return status;
    CO_RETURN_IF_ERROR(co_await names_->AwaitSettled(path, deadline));
  }
}

Task<absl::Status> Filesystem::Impl::AttemptByName(dfs::Binding binding, Change* change) {
  if (change->file == nullptr) return change->attempt(std::move(binding));
  return ByName(change->file, *change->path, change->names_since, std::move(binding),
                change->attempt);
}

}  // namespace dfscsi::vfs
