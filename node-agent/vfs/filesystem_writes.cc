// WRITE, FSYNC, CREATE, SETATTR.

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "node-agent/base/death_points.h"
#include "node-agent/base/status_macros.h"
#include "node-agent/runtime/loop.h"
#include "node-agent/smb/tree.h"
#include "node-agent/smb/wire/filetime.h"
#include "node-agent/smb/wire/nt_status.h"
#include "node-agent/vfs/change_probe.h"
#include "node-agent/vfs/errno.h"
#include "node-agent/vfs/filesystem_impl.h"

namespace dfscsi::vfs {

using runtime::Deadline;
using runtime::Task;
using smb::wire::Disposition;

namespace {

constexpr mode_t kWriteBits = 0222;

uint64_t FileTimeOr(const std::optional<absl::Time>& time, uint64_t keep) {
  return time.has_value() ? smb::wire::FileTimeOf(*time) : keep;
}

}  // namespace

// --- WRITE, FSYNC

Task<absl::Status> Filesystem::Impl::Write(state::FileHandle fh, uint64_t offset,
                                           absl::Span<const uint8_t> from, ChangeJournal* journal,
                                           Deadline deadline, size_t* written_bytes,
                                           WriteBehind::Range early) {
  if (written_bytes != nullptr) *written_bytes = 0;
  CO_RETURN_IF_ERROR(MayChange());
  CO_ASSIGN_OR_RETURN(const std::shared_ptr<OpenFile> file, FileOf(fh));
  if (!file->writes()) co_return ErrnoError(EBADF, "not open for writing");
  // Before anything is sent: the next agent must not take an older copy for this file.
  SetHandleFlag(fh, kHandleWritten);
  if (file->appends()) {
    co_return co_await Append(fh, file, from, journal, std::move(deadline), written_bytes);
  }
  OpenFile::Unsettled unsettled(*file);
  // Offsets make a WRITE harmless on its own server.
  Change change{.attempt = {}, .in_pieces = true, .held_epoch = file->epoch(), .journal = journal};
  std::optional<absl::Duration> clock_ahead;
  size_t written = 0;
  const bool acknowledged = journal != nullptr && journal->acknowledged();
  const OpenFile::Act write = [&](std::shared_ptr<smb::Tree> tree,
                                  smb::wire::FileId file_id) -> Task<absl::Status> {
    if (acknowledged) {
      CO_RETURN_IF_ERROR(co_await CheckUnchanged(fh, file, tree, file_id, early, from, deadline));
    }
    NoteServer(fh, *file);  // Whoever takes over looks for it there.
    unsettled.Send(/*again=*/true);
    change.Sending(acknowledged ? early.base : kNoOffset);
    clock_ahead = tree->session().connection().clock_ahead();
    written = 0;
    co_return co_await tree->Write(file_id, offset, {from.data(), from.size()}, deadline,
                                   {.written_bytes = &written});
  };
  change.attempt = [&](dfs::Binding binding) -> Task<absl::Status> {
    // Its own server is waited for also where nothing was sent: nobody else is to write it.
    if (acknowledged) change.sent = true;
    const absl::Status status =
        co_await ActThrough(fh, file, std::move(binding), write, &change, deadline);
    if (!IsAnswerLost(status)) unsettled.Settle();
    co_return status;
  };
  change.replays = [&] {
    unsettled.Settle();
    return MayReplay(fh, *file);
  };
  const absl::Status status = co_await RunChangeThrough(fh, file, &change, deadline);
  if (status.ok() || written > 0) file->NoteWritten();
  // A disk that got full in the middle: what fitted is written. Of other errors nobody knows.
  if (!status.ok() && !smb::wire::NtStatusOf(status).has_value()) written = 0;
  if (written > 0) {
    file->NoteSize(std::max(file->seen().file.end_of_file, offset + written));
    NoteInRecord(*file);
    if (written_bytes != nullptr && !status.ok()) *written_bytes = written;
  }
  NoteServer(fh, *file);
  if (tables_.handles().Contains(fh)) {
    const state::NodeId node = tables_.handles().Get(fh).node;
    // Only what is written early asks where the file ends.
    if (written > 0 && options_.write_behind) {
      NoteSizeOfAll(node, std::max(KnownEndOf(node), offset + written));
    }
    NoteOwnChange(node);
    if (written > 0 && clock_ahead.has_value()) {
      const absl::Time when = runtime::Loop::Current().Now() + *clock_ahead;
      NoteWrite(node, when);
      file->NoteWriteAt(when);
    }
  }
  co_return status;
}

Task<absl::Status> Filesystem::Impl::Sync(state::FileHandle fh, Deadline deadline) {
  CO_ASSIGN_OR_RETURN(const std::shared_ptr<OpenFile> file, FileOf(fh));
  if (!file->writes()) co_return absl::OkStatus();
  const OpenFile::Act flush = [&](std::shared_ptr<smb::Tree> tree, smb::wire::FileId file_id) {
    return tree->Flush(file_id, deadline);
  };
  // What was written is on its own server.
  const bool movable = !file->written();
  const absl::Status status = co_await RunOnFile(
      fh, file,
      [&](dfs::Binding binding) {
        return file->ActOn(std::move(binding), flush, options_.check_identity, &counters_,
                           deadline);
      },
      {.movable = movable, .repeatable = true}, deadline);
  NoteServer(fh, *file);
  co_return status;
}

// --- CREATE

Task<absl::StatusOr<CreateReply>> Filesystem::Impl::Create(state::NodeId parent, std::string name,
                                                           int flags, ChangeJournal* journal,
                                                           Deadline deadline) {
  const bool exclusive = (flags & O_EXCL) != 0;
  absl::StatusOr<dfs::DfsPath> allowed = ChangeablePath(parent, name);
  if (ErrnoOf(allowed.status()) == EBUSY) {
    allowed = ErrnoError(exclusive ? EEXIST : EISDIR, "a DFS link");
  }
  CO_ASSIGN_OR_RETURN(const dfs::DfsPath path, std::move(allowed));
  const auto file = std::make_shared<OpenFile>(path, flags);
  const absl::Time asked = runtime::Loop::Current().Now();
  file->UseLease(LeaseOf(tables_.inodes().Find(parent, name)));
  if (options_.durable) file->AskDurable(options_.durable_for);
  const uint64_t known_id = IdBefore(parent, name, journal);
  Disposition disposition = exclusive ? Disposition::kCreate : Disposition::kOpenIf;
  // Whoever is asked again says "opened" of what he has made the first time.
  int times_sent = journal != nullptr && journal->sent_to() != 0 ? 1 : 0;
  // The kernel asks for it as soon as it walks there again.
  std::optional<ServerAttributes> directory;
  Change change{.attempt = {}, .of_names = true, .journal = journal};
  change.attempt = [&](dfs::Binding binding) -> Task<absl::Status> {
    if (binding.link_components == path.size()) {
      co_return ErrnoError(exclusive ? EEXIST : EISDIR, "a DFS link");
    }
    directory.reset();
    // What is seen of a link, or of the root, is link_sights.h's.
    const bool looks = binding.link_components + 1 < path.size();
    change.Sending();
    ++times_sent;
    co_return co_await file->OpenOn(std::move(binding), deadline, disposition,
                                    looks ? &directory : nullptr);
  };
  if (exclusive) {
    change.probe = [&](dfs::Binding binding) -> Task<absl::StatusOr<Verdict>> {
      // Known to be ours since an earlier look; it was to be opened then.
      if (disposition == Disposition::kOpen) co_return Verdict::kNotDone;
      ServerAttributes seen;
      CO_ASSIGN_OR_RETURN(const Verdict verdict,
                          co_await ProbeCreated(std::move(binding), change, known_id,
                                                smb::FileType::kFile, &seen, deadline));
      if (verdict == Verdict::kUnknown) co_return verdict;
      // It is ours, and is opened now, or it is made now.
      disposition = verdict == Verdict::kDone ? Disposition::kOpen : Disposition::kCreate;
      co_return Verdict::kNotDone;
    };
  }
  CO_RETURN_IF_ERROR(co_await RunChange(path, &change, deadline));
  CO_RETURN_IF_ERROR(CheckNotOlder(*file));
  // As in Open().
  const bool cuts = (flags & O_TRUNC) != 0 && file->seen().file.end_of_file > 0;
  if (cuts) CO_RETURN_IF_ERROR(co_await CutWhileOpened(file, journal, deadline));
  absl::StatusOr<EntryReply> entry =
      NewEntry(parent, name, path, file->seen(), file->identity().epoch, asked);
  if (!entry.ok()) {
    file->CloseLater();
    co_return entry.status();
  }
  // A probe that finds it ours has it opened, and not made.
  const bool may_be_made = times_sent > 1 && file->seen().file.end_of_file == 0;
  if (exclusive || file->made() || may_be_made) NoteMade(entry->node, file->server_key());
  if (directory.has_value()) {
    NoteSight(parent, path.Prefix(path.size() - 1), *directory, file->identity().epoch);
  }
  const absl::StatusOr<OpenReply> open = MakeHandle(entry->node, file, flags & ~(O_CREAT | O_EXCL),
                                                    kHandleUndelivered | kHandleCreated);
  if (!open.ok()) {
    Forget(entry->node, 1);
    co_return open.status();
  }
  if (cuts) {
    NoteCut(entry->node, open->fh);
    entry->attributes_timeout = absl::ZeroDuration();
  }
  Pass(DeathPoint::kCreateRecorded);
  co_return CreateReply{.entry = *entry, .open = *open};
}

// --- SETATTR

Task<absl::Status> Filesystem::Impl::Truncate(std::shared_ptr<OpenFile> file, state::FileHandle fh,
                                              uint64_t size_bytes, ChangeJournal* journal,
                                              Deadline deadline) {
  if (fh != kNoHandle) SetHandleFlag(fh, kHandleWritten);
  OpenFile::Unsettled unsettled(*file);
  Change change{.attempt = {}, .held_epoch = file->epoch(), .journal = journal};
  const OpenFile::Act truncate = [&](std::shared_ptr<smb::Tree> tree, smb::wire::FileId file_id) {
    unsettled.Send();
    change.Sending();
    return tree->SetEndOfFile(file_id, size_bytes, deadline);
  };
  change.attempt = [&](dfs::Binding binding) -> Task<absl::Status> {
    absl::Status status = co_await ActThrough(fh, file, binding, truncate, &change, deadline);
    if (fh == kNoHandle && IsLockRefused(status)) {
      status = co_await CutBesideLocks(file->path(), std::move(binding), size_bytes, &change,
                                       status, deadline);
    }
    if (!IsAnswerLost(status)) unsettled.Settle();
    co_return status;
  };
  absl::Status status;
  if (fh == kNoHandle) {  // It is just being opened: who opens it asks for its name again.
    change.file = file;
    change.names_since = names_->now();
    status = co_await RunChange(file->path(), &change, deadline);
  } else {
    status = co_await RunChangeThrough(fh, file, &change, deadline);
  }
  if (status.ok()) {
    file->NoteSize(size_bytes);
    NoteInRecord(*file);
  }
  if (fh != kNoHandle && tables_.handles().Contains(fh)) {
    const state::NodeId node = tables_.handles().Get(fh).node;
    if (status.ok()) NoteSizeOfAll(node, size_bytes);
    NoteServer(fh, *file);
    NoteOwnChange(node);
  }
  co_return status;
}

Task<absl::Status> Filesystem::Impl::CutBesideLocks(dfs::DfsPath path, dfs::Binding binding,
                                                    uint64_t size_bytes, Change* change,
                                                    absl::Status refused, Deadline deadline) {
  for (const auto& [id, of_node] : locks_) {
    const state::NodeId node = id;
    const std::shared_ptr<FileLocks> locks = of_node;
    const absl::StatusOr<dfs::DfsPath> name = PathOf(node);
    if (!name.ok() || *name != path) continue;
    if (!locks->IsHeldAnywhere() || !locks->holder->writes()) break;
    const OpenFile::Act cut = [&](std::shared_ptr<smb::Tree> tree, smb::wire::FileId file_id) {
      locks->holder->NoteWritten();
      change->where = HeldOn(node, *locks);
      change->Sending();
      return tree->SetEndOfFile(file_id, size_bytes, deadline);
    };
    co_return co_await ActHeld(node, locks, std::move(binding), cut, deadline);
  }
  co_return refused;
}

Task<absl::Status> Filesystem::Impl::CutWhileOpened(std::shared_ptr<OpenFile> file,
                                                    ChangeJournal* journal, Deadline deadline) {
  const absl::Status status = co_await Truncate(file, kNoHandle, 0, journal, std::move(deadline));
  if (!status.ok()) file->CloseLater();
  co_return status;
}

void Filesystem::Impl::NoteCut(state::NodeId node, state::FileHandle fh) {
  SetHandleFlag(fh, kHandleWritten);
  NoteSizeOfAll(node, 0);
  NoteOwnChange(node);
}

std::optional<state::FileHandle> Filesystem::Impl::HandleToCut(state::NodeId node) {
  std::optional<state::FileHandle> chosen;
  const auto open = opens_.find(node);
  if (open == opens_.end()) return chosen;
  for (const state::FileHandle fh : open->second) {
    const absl::StatusOr<std::shared_ptr<OpenFile>> file = FileOf(fh);
    if (!file.ok() || !(*file)->writes()) continue;
    if (!chosen.has_value() && !(*file)->appends() && !(*file)->written()) {
      chosen = fh;
    } else if (!(*file)->written()) {
      SetHandleFlag(fh, kHandleWritten);
      (*file)->NoteWritten();
    }
  }
  return chosen;
}

Task<absl::StatusOr<AttributesReply>> Filesystem::Impl::SetAttributes(state::NodeId node,
                                                                      AttributesChange wanted,
                                                                      ChangeJournal* journal,
                                                                      Deadline deadline) {
  CO_RETURN_IF_ERROR(MayChange());
  CO_ASSIGN_OR_RETURN(const dfs::DfsPath path, PathOf(node));
  std::shared_ptr<OpenFile> file;
  if (wanted.size_bytes.has_value() && !wanted.fh.has_value()) wanted.fh = HandleToCut(node);
  if (wanted.size_bytes.has_value() && wanted.fh.has_value()) {
    CO_ASSIGN_OR_RETURN(file, FileOf(*wanted.fh));
    // An appending handle cannot: by its name, then.
    if (!file->writes() || file->appends()) file = nullptr;
  }
  if (file != nullptr) {
    CO_RETURN_IF_ERROR(co_await Truncate(file, *wanted.fh, *wanted.size_bytes, journal, deadline));
  }
  // What a lost session of ours closes late would set another time.
  Change change{.attempt = {},
                .of_names = wanted.modified.has_value(),
                .in_pieces = true,
                .journal = journal};
  change.attempt = [&](dfs::Binding binding) -> Task<absl::Status> {
    if (binding.link_components == path.size()) co_return absl::OkStatus();
    if (file == nullptr && wanted.size_bytes.has_value()) {
      change.Sending();
      absl::Status status =
          co_await binding.tree->Truncate(binding.path, *wanted.size_bytes, deadline);
      if (IsLockRefused(status)) {
        status =
            co_await CutBesideLocks(path, binding, *wanted.size_bytes, &change, status, deadline);
      }
      CO_RETURN_IF_ERROR(status);
      NoteInRecord(
          path, ServerKeyOf(binding), *wanted.size_bytes,
          binding.tree->session().connection().clock_ahead().value_or(absl::ZeroDuration()));
    }
    smb::wire::BasicInformation basic;
    if (wanted.mode.has_value()) {
      CO_ASSIGN_OR_RETURN(const smb::FileStatus now,
                          co_await binding.tree->Stat(binding.path, deadline));
      uint32_t attributes = now.attributes.attributes & smb::wire::kSettableAttributes;
      const bool readonly = (*wanted.mode & kWriteBits) == 0;
      if (readonly) attributes |= smb::wire::kAttributeReadonly;
      if (!readonly) attributes &= ~uint32_t{smb::wire::kAttributeReadonly};
      const bool is_directory = now.attributes.Has(smb::wire::kAttributeDirectory);
      if (attributes == 0) attributes = smb::wire::kAttributeNormal;
      if (!is_directory && readonly != now.attributes.Has(smb::wire::kAttributeReadonly)) {
        basic.attributes = attributes;
      }
    }
    basic.last_access_time = FileTimeOr(wanted.accessed, smb::wire::kTimeKeep);
    basic.last_write_time = FileTimeOr(wanted.modified, smb::wire::kTimeKeep);
    if (basic.attributes == 0 && basic.last_access_time == smb::wire::kTimeKeep &&
        basic.last_write_time == smb::wire::kTimeKeep) {
      co_return absl::OkStatus();
    }
    change.Sending();
    if (wanted.modified.has_value()) {
      co_await SetTimeOnFormerSessions(node, binding, *wanted.modified, deadline);
    }
    CO_RETURN_IF_ERROR(co_await binding.tree->SetBasicOfPath(binding.path, basic, deadline));
    if (!wanted.modified.has_value()) co_return absl::OkStatus();
    written_.NoteTimeSet(path.Key(), ServerKeyOf(binding), *wanted.modified);
    co_return co_await SetTimeOfWriters(node, binding.tree, *wanted.modified, deadline);
  };
  if (node != state::kRootNode) CO_RETURN_IF_ERROR(co_await RunChange(path, &change, deadline));
  if (wanted.modified.has_value()) last_writes_.erase(node);
  const state::InodeTable::Node record = tables_.inodes().Get(node);
  ForgetName(record.parent(), record.name());
  absl::StatusOr<AttributesReply> now = co_await GetAttributes(node, deadline);
  // It is done, whatever the look behind it says: the link may have moved to a copy without the
  // file, or a signal has come.
  if (!now.ok()) now = KnownAfter(node, wanted);
  co_return now;
}

absl::StatusOr<AttributesReply> Filesystem::Impl::KnownAfter(state::NodeId node,
                                                             const AttributesChange& done) const {
  if (!tables_.inodes().Contains(node)) return ErrnoError(ESTALE, "no such node");
  const state::InodeTable::Node record = tables_.inodes().Get(node);
  const state::NodeIdentity* const known = record.identity();
  if (known == nullptr) return ErrnoError(ESTALE, "nothing is known of the node");
  std::optional<uint64_t> size = done.size_bytes;
  if (!size.has_value() && !own_changes_.contains(node)) size = known->size_bytes;
  if (!size.has_value()) return ErrnoError(EIO, "done, and its server is not asked any more");
  ServerAttributes seen;
  seen.file.attributes = known->attributes;
  seen.file.end_of_file = *size;
  seen.file.last_write_time = FileTimeOr(done.modified, known->last_write);
  seen.file.last_access_time = FileTimeOr(done.accessed, known->last_write);
  return AttributesReply{.attributes = StatOfNode(node, record.ino(), seen),
                         .timeout = absl::ZeroDuration()};
}

}  // namespace dfscsi::vfs
