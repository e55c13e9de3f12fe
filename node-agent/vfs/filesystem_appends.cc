// WRITE through a handle that appends (O_APPEND).

#include <errno.h>
#include <fcntl.h>

#include <algorithm>
#include <utility>

#include "node-agent/base/status_macros.h"
#include "node-agent/smb/tree.h"
#include "node-agent/smb/wire/nt_status.h"
#include "node-agent/vfs/appends.h"
#include "node-agent/vfs/errno.h"
#include "node-agent/vfs/filesystem_impl.h"

namespace dfscsi::vfs {

using runtime::Deadline;
using runtime::Task;

namespace {

bool IsGivenUp(const absl::Status& status) {
  return absl::IsCancelled(status) || absl::IsDeadlineExceeded(status);
}

}  // namespace

Task<absl::Status> Filesystem::Impl::WriteAtEnd(state::FileHandle fh,
                                                absl::Span<const uint8_t> from,
                                                ChangeJournal* journal, Deadline deadline,
                                                size_t* written_bytes) {
  if (written_bytes != nullptr) *written_bytes = 0;
  CO_RETURN_IF_ERROR(MayChange());
  CO_ASSIGN_OR_RETURN(const std::shared_ptr<OpenFile> file, FileOf(fh));
  if (!file->writes()) co_return ErrnoError(EBADF, "not open for writing");
  SetHandleFlag(fh, kHandleWritten);
  file->NoteWritten();
  if (file->appends()) {
    co_return co_await Append(fh, file, from, journal, std::move(deadline), written_bytes);
  }
  // A server that appends does so only for handles that do nothing else.
  std::shared_ptr<OpenFile> appender = appenders_[fh];
  if (appender == nullptr) {
    appender = std::make_shared<OpenFile>(file->path(), O_WRONLY | O_APPEND, file->identity(),
                                          file->server_key(), /*written=*/true);
    appender->UseLease(file->lease());
    appenders_[fh] = appender;
  }
  appender->SetPath(file->path());
  const absl::Status status =
      co_await Append(fh, appender, from, journal, std::move(deadline), written_bytes);
  file->NoteSize(std::max(file->seen().file.end_of_file, appender->seen().file.end_of_file));
  if (tables_.handles().Contains(fh)) {
    const state::NodeId node = tables_.handles().Get(fh).node;
    SetPagesTrusted(node, false);
    invalidation_.DataChanged(node);
  }
  co_return status;
}

Task<absl::Status> Filesystem::Impl::Append(state::FileHandle fh, std::shared_ptr<OpenFile> file,
                                            absl::Span<const uint8_t> from, ChangeJournal* journal,
                                            Deadline deadline, size_t* written_bytes) {
  const bool sent_before = journal != nullptr && journal->sent_to() != 0;
  uint64_t at = sent_before ? journal->sent_offset() : kNoOffset;
  Appends::Turn turn = appends_.TurnOf(tables_.handles().Get(fh).node);
  // Before any other of this mount could write the same at the same place.
  if (sent_before) {
    CO_RETURN_IF_ERROR(co_await turn.Take(deadline));
    CO_ASSIGN_OR_RETURN(dfs::DfsPath path, NameOf(fh));
    file->SetPath(std::move(path));
  }
  OpenFile::Unsettled unsettled(*file);
  Change change{.attempt = {},
                .can_tell = at != kNoOffset,
                .in_pieces = true,
                .held_epoch = file->epoch(),
                .journal = journal};
  const auto sending = [&](uint64_t offset) {
    at = offset;
    change.can_tell = offset != kNoOffset;
    unsettled.Send();
    change.Sending(offset);
  };
  size_t written = 0;  // Of an append that has failed; 0 also if nobody knows.
  bool by_server = false;
  const auto append = [&](std::shared_ptr<smb::Tree> tree,
                          smb::wire::FileId file_id) -> Task<absl::Status> {
    // The holder of the file's locks is no handle that a server would append by.
    const bool is_own = file->TryIdOn(*tree) == file_id;
    by_server = is_own && !appends_.IsRefusedBy(file->server_key());
    if (!is_own || appends_.IsRefusedBy(file->server_key())) {
      CO_RETURN_IF_ERROR(co_await turn.Take(deadline));
      if (is_own) SetHandleFlag(fh, kHandleAppendsLocked);
      co_return (co_await tree->AppendLocked(file_id, {from.data(), from.size()}, sending, deadline,
                                             &written))
          .status();
    }
    sending(kNoOffset);
    written = 0;
    const absl::Status status = co_await tree->Write(
        file_id, smb::kAppend, {from.data(), from.size()}, deadline, {.written_bytes = &written});
    if (status.ok() || !smb::wire::NtStatusOf(status).has_value()) written = 0;
    if (written == 0 && smb::wire::NtStatusOf(status) == smb::wire::NtStatus::kInvalidParameter) {
      unsettled.Settle();
      change.NotSent();
    }
    co_return status;
  };
  bool given_up_on_its_way = false;
  const OpenFile::Act act = [&](std::shared_ptr<smb::Tree> tree,
                                smb::wire::FileId file_id) -> Task<absl::Status> {
    absl::Status status = co_await append(tree, file_id);
    // It may have refused another one meanwhile.
    if (written == 0 && by_server &&
        smb::wire::NtStatusOf(status) == smb::wire::NtStatus::kInvalidParameter) {
      appends_.NoteRefused(file->server_key());
      status = co_await append(tree, file_id);
    }
    if (IsAnswerLost(status)) written = 0;
    given_up_on_its_way = change.sent && IsGivenUp(status);
    if (absl::IsUnimplemented(status)) {
      co_return ErrnoError(EOPNOTSUPP, "the server neither appends nor locks");
    }
    co_return status;
  };
  change.attempt = [&](dfs::Binding binding) -> Task<absl::Status> {
    written = 0;
    const absl::Status status =
        co_await ActThrough(fh, file, std::move(binding), act, &change, deadline);
    if (!IsAnswerLost(status)) unsettled.Settle();
    co_return status;
  };
  change.probe = [&](dfs::Binding binding) {
    return ProbeAppended(std::move(binding), at, from, file->identity().file_id, deadline);
  };
  absl::Status status = co_await RunChangeThrough(fh, file, &change, deadline);
  // A signal: who is told EINTR asks again.
  if (IsGivenUp(status) && (given_up_on_its_way || change.sent)) {
    ++counters_.unknown_changes;
    status = ErrnoError(EIO, "an append was given up while it was on its way");
  }
  // A disk that got full in the middle: what fitted is appended, and would be there twice if who
  // asked were told of nothing. Of other errors nobody knows.
  if (status.ok()) {
    written = from.size();
  } else if (written_bytes != nullptr) {
    *written_bytes = written;
  }
  if (written > 0 && at != kNoOffset) {
    file->NoteSize(std::max(file->seen().file.end_of_file, at + written));
  }
  NoteServer(fh, *file);
  if (written > 0) NoteInRecord(*file);
  if (tables_.handles().Contains(fh)) NoteOwnChange(tables_.handles().Get(fh).node);
  co_return status;
}

}  // namespace dfscsi::vfs
