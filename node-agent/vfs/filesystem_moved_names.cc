// What is open while its name is changed: it is opened again, where that is needed, by the name
// that it has when the change is settled, and not by the one that it had when it was asked for.

#include <errno.h>

#include <utility>

#include "absl/strings/cord.h"
#include "node-agent/base/status_macros.h"
#include "node-agent/vfs/errno.h"
#include "node-agent/vfs/filesystem_impl.h"
#include "node-agent/vfs/share_path.h"

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

absl::Status Filesystem::Impl::CheckNotMoved(const dfs::DfsPath& path, uint64_t names_since,
                                             OpenFile& file, const absl::Status& opened) const {
  if (!names_->Touched(path, names_since)) return opened;
  if (opened.ok()) file.CloseLater();
  return NameMoved();
}

Task<absl::Status> Filesystem::Impl::ByName(std::shared_ptr<OpenFile> file,
                                            const dfs::DfsPath* path, uint64_t since,
                                            dfs::Binding binding, const Call* call) {
  const bool is_open = file->TryIdOn(*binding.tree).has_value();
  if (!is_open && names_->Touched(*path, since)) co_return NameMoved();
  absl::Status status = co_await (*call)(std::move(binding));
  // It was looked for by a name that was changed meanwhile.
  if (ErrnoOf(status) == ESTALE && names_->Touched(*path, since)) {
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
    std::shared_ptr<OpenFile> file, dfs::DfsPath path,
    std::function<absl::StatusOr<dfs::DfsPath>()> name_of, Call call, dfs::RunOptions options,
    Deadline deadline) {
  while (true) {
    const uint64_t since = names_->now();
    options.held_epoch = file->epoch();
    const absl::Status status = co_await client_.Run(
        path,
        [&](dfs::Binding binding) { return ByName(file, &path, since, std::move(binding), &call); },
        options, deadline);
    if (!IsNameMoved(status)) co_return status;
    CO_RETURN_IF_ERROR(co_await names_->AwaitSettled(path, deadline));
    CO_ASSIGN_OR_RETURN(path, name_of());
  }
}

Task<absl::Status> Filesystem::Impl::RunOnFile(state::FileHandle fh, std::shared_ptr<OpenFile> file,
                                               Call call, dfs::RunOptions options,
                                               Deadline deadline) {
  dfs::DfsPath path = file->path();
  return RunByName(
      std::move(file), std::move(path), [this, fh] { return NameOf(fh); }, std::move(call), options,
      std::move(deadline));
}

Task<absl::Status> Filesystem::Impl::RunChangeThrough(state::FileHandle fh,
                                                      std::shared_ptr<OpenFile> file,
                                                      Change* change, Deadline deadline) {
  dfs::DfsPath path = file->path();
  change->file = std::move(file);
  while (true) {
    change->names_since = names_->now();
    change->held_epoch = change->file->epoch();
    const absl::Status status = co_await RunChange(path, change, deadline);
    if (!IsNameMoved(status)) co_return status;
    CO_RETURN_IF_ERROR(co_await names_->AwaitSettled(path, deadline));
    CO_ASSIGN_OR_RETURN(path, NameOf(fh));
  }
}

Task<absl::Status> Filesystem::Impl::AttemptByName(dfs::Binding binding, Change* change) {
  if (change->file == nullptr) return change->attempt(std::move(binding));
  return ByName(change->file, change->path, change->names_since, std::move(binding),
                &change->attempt);
}

void Filesystem::Impl::NoteHeldOn(state::NodeId node, dfs::Binding binding, FileLocks* locks) {
  locks->binding = std::move(binding);
  locks->bound_as = PathOf(node).value_or(locks->holder->path());
}

dfs::Binding Filesystem::Impl::HeldOn(state::NodeId node, const FileLocks& locks) const {
  dfs::Binding binding = locks.binding;
  const dfs::DfsPath path = PathOf(node).value_or(locks.holder->path());
  if (locks.bound_as.has_value() && IsBelowSameLink(binding, *locks.bound_as, path)) {
    binding.path = PathInShare(binding, *locks.bound_as, path).value_or(binding.path);
  }
  return binding;
}

}  // namespace dfscsi::vfs
