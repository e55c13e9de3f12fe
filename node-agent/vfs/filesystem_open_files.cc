// OPEN, READ, LSEEK, FLUSH, RELEASE: from handles of the kernel to OpenFile.

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "node-agent/base/status_macros.h"
#include "node-agent/vfs/errno.h"
#include "node-agent/vfs/filesystem_impl.h"

namespace dfscsi::vfs {

using runtime::Deadline;
using runtime::Task;
using state::Load;

Task<absl::StatusOr<OpenReply>> Filesystem::Impl::Open(state::NodeId node, int flags,
                                                       ChangeJournal* journal, Deadline deadline) {
  const bool writes = (flags & O_ACCMODE) != O_RDONLY;
  if (writes || (flags & O_TRUNC) != 0) CO_RETURN_IF_ERROR(MayChange());
  // Who truncates writes.
  if (!writes && (flags & O_TRUNC) != 0) flags = (flags & ~O_ACCMODE) | O_RDWR;
  while (true) {
    CO_ASSIGN_OR_RETURN(dfs::DfsPath path, PathOf(node));
    if (names_->IsInDoubt(path)) {
      CO_RETURN_IF_ERROR(co_await names_->AwaitSettled(path, deadline));
      continue;
    }
    const NameDoubts::Opening opening(names_, path);
    const uint64_t since = names_->now();
    absl::StatusOr<OpenReply> reply =
        co_await OpenByName(node, std::move(path), since, flags, journal, deadline);
    if (!IsNameMoved(reply.status())) co_return reply;
  }
}

Task<absl::StatusOr<OpenReply>> Filesystem::Impl::OpenByName(state::NodeId node, dfs::DfsPath path,
                                                             uint64_t names_since, int flags,
                                                             ChangeJournal* journal,
                                                             Deadline deadline) {
  const absl::Time asked = runtime::Loop::Current().Now();
  auto file = std::make_shared<OpenFile>(path, flags);
  file->UseLease(LeaseOf(node));
  if (options_.durable) file->AskDurable(options_.durable_for);
  const absl::Status opened = co_await client_.Run(
      path,
      [file, deadline](dfs::Binding binding) { return file->OpenOn(std::move(binding), deadline); },
      {}, deadline);
  CO_RETURN_IF_ERROR(CheckNotMoved(path, names_since, *file, opened));
  CO_RETURN_IF_ERROR(CheckNotOlder(*file));
  // Nothing stands in the tables before it can be answered: who dies in between leaves nothing.
  const bool cuts = (flags & O_TRUNC) != 0 && file->seen().file.end_of_file > 0;
  if (cuts) {
    const absl::Status cut = co_await CutWhileOpened(file, journal, deadline);
    if (!cut.ok()) co_return CheckNotMoved(path, names_since, *file, cut);
  }
  const bool told = co_await TellWhatOpenSaw(node, file, asked);
  CO_RETURN_IF_ERROR(CheckNotMoved(path, names_since, *file, absl::OkStatus()));
  CO_ASSIGN_OR_RETURN(const OpenReply reply,
                      MakeHandle(node, file, flags, kHandleUndelivered, told));
  if (cuts) NoteCut(node, reply.fh);
  co_return reply;
}

Task<bool> Filesystem::Impl::TellWhatOpenSaw(state::NodeId node, std::shared_ptr<OpenFile> file,
                                             absl::Time asked) {
  if (!tables_.inodes().Contains(node) || own_changes_.contains(node)) co_return false;
  const state::InodeTable::Node record = tables_.inodes().Get(node);
  const state::NodeIdentity* const before = record.identity();
  if (before == nullptr || !DataDiffers(*before, file->identity())) co_return false;
  const absl::Time now = runtime::Loop::Current().Now();
  attributes_.Put(record.parent(), record.name(), file->seen(), file->identity().epoch,
                  {asked, now}, now);
  const absl::Status dropped =
      co_await invalidation_.DropPages(node, Deadline::After(kDropWithinForLooks));
  co_return dropped.ok();
}

absl::StatusOr<OpenReply> Filesystem::Impl::MakeHandle(state::NodeId node,
                                                       std::shared_ptr<OpenFile> file, int flags,
                                                       uint32_t record_flags, bool told) {
  OpenReply reply{.no_flush = !file->writes() && !options_.locks};
  const state::NodeIdentity identity = file->identity();
  if (tables_.inodes().Contains(node)) {
    const state::InodeTable::Node record = tables_.inodes().Get(node);
    const state::NodeIdentity* const before = record.identity();
    const bool differs = before != nullptr && DataDiffers(*before, identity);
    const bool is_another = IsOpenAsAnother(node, identity);
    reply.keep_cache = before != nullptr && !differs && !is_another && ArePagesTrusted(node);
    reply.renews_pages = !reply.keep_cache && !is_another;
    // The kernel still believes the size that it was told last, and would cut this file to it; but
    // it asks for the size after a change of its own. And one node has one set of pages, which the
    // other file's handle goes on filling.
    reply.direct_io = (differs && !own_changes_.contains(node)) || is_another || file->appends() ||
                      hard_links_.Contains(node) || read_beside_locks_.contains(node) ||
                      !options_.pages;
    if (is_another) {
      SetPagesTrusted(node, false);
      if (!differs) invalidation_.DataChanged(node);  // Else it is told below.
    }
  }
  if (NoteSeen(node, file->seen(), identity.epoch) && !told) TellSoon(node);
  absl::StatusOr<state::FileHandle> fh = tables_.handles().Open({
      .node = node,
      .kind = state::HandleTable::Kind::kFile,
      .open_flags = static_cast<uint32_t>(flags),
      .access = file->access(),
      .flags = record_flags,
      .identity = identity,
      .server = file->durable().value_or(DurableHandle()).ToRecord(),
      .server_key = file->server_key(),
  });
  if (!fh.ok()) {
    file->CloseLater();
    return ErrnoError(absl::IsNotFound(fh.status()) ? ESTALE : ENFILE, "no handle");
  }
  reply.fh = *fh;
  NoteLeaseOf(node, file->lease());
  opens_[node].insert(*fh);
  files_[*fh] = std::move(file);
  return reply;
}

void Filesystem::Impl::OpenDelivered(state::NodeId node, const OpenReply& reply) {
  if (reply.renews_pages) renewing_[node] = reply.fh;
}

void Filesystem::Impl::NoteUse(state::FileHandle fh) {
  if (renewing_.empty() || !tables_.handles().Contains(fh)) return;
  const state::NodeId node = tables_.handles().Get(fh).node;
  const auto renewing = renewing_.find(node);
  if (renewing == renewing_.end() || renewing->second != fh) return;
  renewing_.erase(renewing);
  SetPagesTrusted(node, true);
}

bool Filesystem::Impl::MayFailBack(const dfs::DfsPath& link) const {
  for (const auto& [node, handles] : opens_) {
    const bool is_written = std::any_of(handles.begin(), handles.end(), [&](state::FileHandle fh) {
      return tables_.handles().Contains(fh) &&
             (Load(tables_.handles().Get(fh).flags) & kHandleWritten) != 0;
    });
    if (!is_written) continue;
    const absl::StatusOr<dfs::DfsPath> path = PathOf(node);
    if (!path.ok() || path->HasPrefix(link)) return false;
  }
  return true;
}

bool Filesystem::Impl::IsOpenAsAnother(state::NodeId node,
                                       const state::NodeIdentity& opened) const {
  const auto open = opens_.find(node);
  if (open == opens_.end()) return false;
  for (const state::FileHandle fh : open->second) {
    const auto file = files_.find(fh);
    if (!SharesPages(file != files_.end() ? file->second->identity()
                                          : tables_.handles().Get(fh).identity.Get(),
                     opened)) {
      return true;
    }
  }
  return false;
}

void Filesystem::Impl::NoteMade(state::NodeId node, uint64_t server_key) {
  const auto open = opens_.find(node);
  if (open == opens_.end()) return;
  for (const state::FileHandle fh : open->second) {
    const uint64_t on = Load(tables_.handles().Get(fh).server_key);
    if (on == 0 || on == server_key) continue;
    SetHandleFlag(fh, kHandleHasAnother);
    if (const auto file = files_.find(fh); file != files_.end()) file->second->NoteAnotherMade();
  }
}

absl::StatusOr<std::shared_ptr<OpenFile>> Filesystem::Impl::FileOf(state::FileHandle fh) {
  if (!tables_.handles().Contains(fh)) return ErrnoError(EBADF, "no such handle");
  const state::HandleTable::Record& record = tables_.handles().Get(fh);
  if (IsLockLost(fh)) return ErrnoError(EIO, "its locks were lost");
  const absl::StatusOr<dfs::DfsPath> path = PathOf(record.node);
  const auto found = files_.find(fh);
  if (found != files_.end()) {
    // It may have been renamed. Gone: what is open stays open where it is.
    if (path.ok()) found->second->SetPath(*path);
    return found->second;
  }
  RETURN_IF_ERROR(path.status());
  auto file = std::make_shared<OpenFile>(*path, static_cast<int>(record.open_flags),
                                         record.identity.Get(), Load(record.server_key),
                                         (Load(record.flags) & kHandleWritten) != 0);
  if ((Load(record.flags) & kHandleHasAnother) != 0) file->NoteAnotherMade();
  file->UseLease(LeaseOf(record.node));
  if (options_.durable) file->AskDurable(options_.durable_for);
  if (const std::optional<DurableHandle> durable = DurableOf(fh)) file->ResumeDurable(*durable);
  files_[fh] = file;
  return file;
}

void Filesystem::Impl::NoteServer(state::FileHandle fh, const OpenFile& file) {
  if (!tables_.handles().Contains(fh)) return;
  const state::HandleTable::Record& record = tables_.handles().Get(fh);
  const state::HandleTable::ServerSide now = file.durable().value_or(DurableHandle()).ToRecord();
  // A death behind this leaves a handle that the server of `server_key` may not know, and refuses.
  if (!(record.server.Get() == now)) tables_.handles().SetServerSide(fh, now);
  if (Load(record.server_key) == file.server_key()) return;
  // A death in between leaves a file of no server in particular: it is compared as on a new one.
  tables_.handles().SetServerKey(fh, 0);
  tables_.handles().SetIdentity(fh, file.identity());
  tables_.handles().SetServerKey(fh, file.server_key());
}

Task<absl::StatusOr<size_t>> Filesystem::Impl::Read(state::FileHandle fh, uint64_t offset,
                                                    absl::Span<uint8_t> into, Deadline deadline) {
  CO_ASSIGN_OR_RETURN(const std::shared_ptr<OpenFile> file, FileOf(fh));
  NoteUse(fh);
  if (std::shared_ptr<FileLocks> locks = LocksInTheWay(fh, /*writes=*/false)) {
    co_return co_await ReadLocked(fh, std::move(locks), offset, into, std::move(deadline));
  }
  absl::StatusOr<size_t> result = size_t{0};
  const absl::Status status = co_await RunOnFile(
      fh, file,
      [&](dfs::Binding binding) -> Task<absl::Status> {
        CO_RETURN_IF_ERROR(co_await file->ReadOn(std::move(binding), offset, into,
                                                 options_.check_identity, &result, &counters_,
                                                 deadline));
        co_return result.status();
      },
      {.movable = !file->written()}, deadline);
  if (IsLockRefused(status) && LocksInTheWay(fh, /*writes=*/false) != nullptr) {
    co_return co_await Read(fh, offset, into, std::move(deadline));  // Locked here meanwhile.
  }
  if (IsLockRefused(status)) NoteReadRefused(fh);
  CO_RETURN_IF_ERROR(status);
  NoteServer(fh, *file);
  co_return result;
}

Task<absl::StatusOr<uint64_t>> Filesystem::Impl::Seek(state::FileHandle fh, uint64_t offset,
                                                      int whence, Deadline deadline) {
  if (whence != SEEK_DATA && whence != SEEK_HOLE) co_return ErrnoError(EINVAL, "whence");
  CO_ASSIGN_OR_RETURN(const std::shared_ptr<OpenFile> file, FileOf(fh));
  absl::StatusOr<uint64_t> result = uint64_t{0};
  CO_RETURN_IF_ERROR(co_await RunOnFile(
      fh, file,
      [&](dfs::Binding binding) -> Task<absl::Status> {
        CO_RETURN_IF_ERROR(co_await file->SeekOn(std::move(binding), offset, whence,
                                                 options_.check_identity, &result, &counters_,
                                                 deadline));
        co_return result.status();
      },
      {}, deadline));
  co_return result;
}

void Filesystem::Impl::Release(state::FileHandle fh) {
  if (tables_.handles().Contains(fh)) {
    const state::NodeId node = tables_.handles().Get(fh).node;
    const auto before = opens_.find(node);
    ReleaseLocks(node, fh, before == opens_.end() || before->second.size() == 1);
    // The handle still keeps the node.
    std::optional<dfs::DfsPath> hidden = HiddenPathOf(node);
    LeaveBehind(fh);
    if (!tables_.handles().Close(fh)) return;  // Still shared.
    const auto open = opens_.find(node);
    if (const auto file = files_.find(fh); file != files_.end()) BindOthers(node, *file->second);
    if (open != opens_.end() && open->second.erase(fh) > 0 && open->second.empty()) {
      opens_.erase(open);
      renewing_.erase(node);
      last_writes_.erase(node);
      leases_.erase(node);
      if (!tables_.inodes().Contains(node)) own_changes_.erase(node);
      if (hidden.has_value()) tasks_.Spawn(RemoveHidden(node, *std::move(hidden)));
    }
  }
  appenders_.erase(fh);
  const auto found = files_.find(fh);
  if (found == files_.end()) return;
  found->second->CloseLater();
  files_.erase(found);
}

absl::Status Filesystem::Impl::RefuseChange() const {
  return options_.read_only ? ErrnoError(EROFS, "mounted read-only")
                            : ErrnoError(EOPNOTSUPP, "SMB has no such files");
}

}  // namespace dfscsi::vfs
