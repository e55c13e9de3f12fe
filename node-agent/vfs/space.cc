// FALLOCATE and COPY_FILE_RANGE: space of files, and bytes that do not leave the server.

#include <errno.h>
#include <linux/falloc.h>

#include <algorithm>
#include <utility>

#include "node-agent/base/status_macros.h"
#include "node-agent/smb/tree.h"
#include "node-agent/smb/wire/nt_status.h"
#include "node-agent/vfs/errno.h"
#include "node-agent/vfs/filesystem_impl.h"

namespace dfscsi::vfs {

using runtime::Deadline;
using runtime::Task;
using smb::wire::NtStatus;
using smb::wire::NtStatusOf;

namespace {

// One COPY_FILE_RANGE: the caller asks again for the rest.
constexpr uint64_t kMostCopiedBytes = uint64_t{16} << 20;

// What servers say to what they do not have.
bool IsNotThere(const absl::Status& status) {
  const std::optional<NtStatus> answer = NtStatusOf(status);
  return answer == NtStatus::kInvalidDeviceRequest || answer == NtStatus::kNotSupported ||
         answer == NtStatus::kNotImplemented || answer == NtStatus::kInvalidInfoClass;
}

struct Space {
  int mode = 0;
  uint64_t offset = 0;
  uint64_t end = 0;  // Behind the last byte.
  bool keeps_size() const { return (mode & FALLOC_FL_KEEP_SIZE) != 0; }
};

// Doing it again does no harm. `size`: what the file's size is then.
Task<absl::Status> AllocateOn(std::shared_ptr<smb::Tree> tree, smb::wire::FileId file_id,
                              Space space, uint64_t* size, Deadline deadline) {
  CO_ASSIGN_OR_RETURN(const smb::wire::StandardInformation now,
                      co_await tree->GetStandard(file_id, deadline));
  *size = now.end_of_file;
  if ((space.mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) != 0) {
    if ((space.mode & FALLOC_FL_PUNCH_HOLE) != 0) {
      CO_RETURN_IF_ERROR(co_await tree->SetSparse(file_id, true, deadline));
    }
    const uint64_t beyond = std::min(space.end, now.end_of_file);
    if (space.offset < beyond) {
      CO_RETURN_IF_ERROR(
          co_await tree->SetZero(file_id, {.offset = space.offset, .beyond = beyond}, deadline));
    }
  } else if (space.end > now.end_of_file && space.end > now.allocation_size) {
    // Only ever more: less than the size would cut the file.
    CO_RETURN_IF_ERROR(co_await tree->SetAllocation(file_id, space.end, deadline));
  }
  if (space.keeps_size() || space.end <= now.end_of_file) co_return absl::OkStatus();
  CO_RETURN_IF_ERROR(co_await tree->SetEndOfFile(file_id, space.end, deadline));
  *size = space.end;
  co_return absl::OkStatus();
}

}  // namespace

Task<absl::Status> Filesystem::Impl::Allocate(state::FileHandle fh, int mode, uint64_t offset,
                                              uint64_t length_bytes, ChangeJournal* journal,
                                              Deadline deadline) {
  CO_RETURN_IF_ERROR(MayChange());
  constexpr int kKeep = FALLOC_FL_KEEP_SIZE;
  if (mode != 0 && mode != kKeep && mode != (FALLOC_FL_PUNCH_HOLE | kKeep) &&
      (mode & ~kKeep) != FALLOC_FL_ZERO_RANGE) {
    co_return ErrnoError(EOPNOTSUPP, "a mode that SMB does not have");
  }
  if (length_bytes == 0) co_return ErrnoError(EINVAL, "a range of nothing");
  if (offset + length_bytes < offset) co_return ErrnoError(EFBIG, "beyond what a file can be");
  CO_ASSIGN_OR_RETURN(const std::shared_ptr<OpenFile> file, FileOf(fh));
  if (!file->writes()) co_return ErrnoError(EBADF, "not open for writing");
  if (file->appends()) co_return ErrnoError(EOPNOTSUPP, "by a handle that only appends");
  const Space space{.mode = mode, .offset = offset, .end = offset + length_bytes};
  if (!file->written()) SetHandleFlag(fh, kHandleWritten);
  uint64_t size = 0;
  OpenFile::Unsettled unsettled(*file);
  Change change{.attempt = {}, .in_pieces = true, .held_epoch = file->epoch(), .journal = journal};
  const OpenFile::Act allocate = [&](std::shared_ptr<smb::Tree> tree, smb::wire::FileId file_id) {
    unsettled.Send();
    change.Sending();
    return AllocateOn(std::move(tree), file_id, space, &size, deadline);
  };
  change.attempt = [&](dfs::Binding binding) -> Task<absl::Status> {
    const absl::Status status =
        co_await ActThrough(fh, file, std::move(binding), allocate, &change, deadline);
    if (!IsAnswerLost(status)) unsettled.Settle();
    co_return status;
  };
  absl::Status status = co_await RunChangeThrough(fh, file, &change, deadline);
  if (status.ok()) {
    file->NoteSize(size);
    NoteInRecord(*file);
  }
  NoteServer(fh, *file);
  if (IsNotThere(status)) status = ErrnoError(EOPNOTSUPP, "the server does not have it");
  if (tables_.handles().Contains(fh)) NoteOwnChange(tables_.handles().Get(fh).node);
  co_return status;
}

Task<absl::StatusOr<uint64_t>> Filesystem::Impl::CopyRange(
    state::FileHandle from, uint64_t from_offset, state::FileHandle to, uint64_t to_offset,
    uint64_t length_bytes, ChangeJournal* journal, Deadline deadline) {
  CO_RETURN_IF_ERROR(MayChange());
  CO_ASSIGN_OR_RETURN(const std::shared_ptr<OpenFile> source, FileOf(from));
  CO_ASSIGN_OR_RETURN(const std::shared_ptr<OpenFile> target, FileOf(to));
  if (!target->writes()) co_return ErrnoError(EBADF, "not open for writing");
  if (target->appends()) co_return ErrnoError(EOPNOTSUPP, "by a handle that only appends");
  if (!target->written()) SetHandleFlag(to, kHandleWritten);
  uint64_t copied = 0;
  OpenFile::Unsettled unsettled(*target);
  Change change{
      .attempt = {}, .in_pieces = true, .held_epoch = target->epoch(), .journal = journal};
  const auto copy = [&](std::shared_ptr<smb::Tree> tree,
                        smb::wire::FileId target_id) -> Task<absl::Status> {
    const std::optional<smb::wire::FileId> source_id = source->TryIdOn(*tree);
    if (!source_id.has_value()) co_return ErrnoError(EXDEV, "not on one server");
    // A range that ends behind the source's end would be refused as a whole.
    CO_ASSIGN_OR_RETURN(const smb::wire::StandardInformation now,
                        co_await tree->GetStandard(*source_id, deadline));
    copied = 0;
    if (from_offset >= now.end_of_file) co_return absl::OkStatus();
    const uint64_t length =
        std::min({length_bytes, kMostCopiedBytes, now.end_of_file - from_offset});
    unsettled.Send();
    change.Sending();
    CO_ASSIGN_OR_RETURN(copied, co_await tree->CopyRange(*source_id, from_offset, target_id,
                                                         to_offset, length, deadline));
    co_return absl::OkStatus();
  };
  change.attempt = [&](dfs::Binding binding) -> Task<absl::Status> {
    const absl::Status status =
        co_await ActThrough(to, target, std::move(binding), copy, &change, deadline);
    if (!IsAnswerLost(status)) unsettled.Settle();
    co_return status;
  };
  const absl::Status status = co_await RunChangeThrough(to, target, &change, deadline);
  NoteServer(to, *target);
  if (status.ok()) NoteInRecord(*target);
  if (tables_.handles().Contains(to)) NoteOwnChange(tables_.handles().Get(to).node);
  // The kernel then copies itself; also what is locked, which is read through another handle.
  if (IsNotThere(status) || IsLockRefused(status))
    co_return ErrnoError(EOPNOTSUPP, "the server does not copy");
  if (!status.ok()) co_return status;
  if (copied > 0) target->NoteSize(std::max(target->seen().file.end_of_file, to_offset + copied));
  co_return copied;
}

}  // namespace dfscsi::vfs
