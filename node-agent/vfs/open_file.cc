#include "node-agent/vfs/open_file.h"

#include <errno.h>
#include <unistd.h>

#include <algorithm>

#include "node-agent/base/status_macros.h"
#include "node-agent/smb/wire/nt_status.h"
#include "node-agent/vfs/errno.h"

namespace dfscsi::vfs {

using runtime::Deadline;
using runtime::Task;

namespace {

// What a path that led to a file no longer says: another file took its place, or none.
bool IsGone(const absl::Status& status) {
  const std::optional<smb::wire::NtStatus> answer = smb::wire::NtStatusOf(status);
  if (!answer.has_value()) return false;
  switch (*answer) {
    case smb::wire::NtStatus::kObjectNameNotFound:
    case smb::wire::NtStatus::kObjectPathNotFound:
    case smb::wire::NtStatus::kNoSuchFile:
    case smb::wire::NtStatus::kFileIsADirectory:
    case smb::wire::NtStatus::kDeletePending:
      return true;
    default:
      return false;
  }
}

bool IsHandleLost(const absl::Status& status) {
  return smb::wire::NtStatusOf(status) == smb::wire::NtStatus::kFileClosed;
}

}  // namespace

Task<absl::Status> OpenFile::Create(dfs::Binding binding, Deadline deadline) {
  smb::wire::CreateRequest create;
  create.desired_access = kAccess;
  create.options = smb::wire::kOptionNonDirectory;
  create.name = binding.path;
  create.query_on_disk_id = true;
  CO_ASSIGN_OR_RETURN(const smb::OpenedFile opened,
                      co_await binding.tree->Create(std::move(create), deadline));
  CloseLater();
  tree_ = std::move(binding.tree);
  file_id_ = opened.file_id;
  epoch_ = binding.epoch;
  seen_ = {
      .file = opened.response.attributes,
      .reparse_tag = 0,
      .file_id = opened.response.on_disk_id.has_value() ? opened.response.on_disk_id->file : 0};
  co_return absl::OkStatus();
}

Task<absl::Status> OpenFile::OpenOn(dfs::Binding binding, Deadline deadline) {
  CO_RETURN_IF_ERROR(co_await Create(std::move(binding), deadline));
  identity_ = IdentityOf(seen_, epoch_);
  co_return absl::OkStatus();
}

Task<absl::Status> OpenFile::Rebind(dfs::Binding binding, bool check_identity,
                                    Filesystem::Counters* counters, Deadline deadline) {
  CO_ASSIGN_OR_RETURN(const runtime::Mutex::Guard guard, co_await rebinding_.Lock(deadline));
  if (stale_ || (tree_ != nullptr && epoch_ == binding.epoch)) co_return absl::OkStatus();
  const absl::Status status = co_await Create(std::move(binding), deadline);
  if (!status.ok()) {
    if (!IsGone(status)) co_return status;
    stale_ = true;
    ++counters->stale_handles;
    co_return absl::OkStatus();
  }
  ++counters->rebinds;
  const state::NodeIdentity now = IdentityOf(seen_, epoch_);
  if (check_identity && !IsSameCopy(identity_, now)) {
    stale_ = true;
    ++counters->stale_handles;
    CloseLater();
    co_return absl::OkStatus();
  }
  identity_.epoch = now.epoch;
  identity_.file_id = now.file_id;
  co_return absl::OkStatus();
}

Task<absl::Status> OpenFile::ReadOn(dfs::Binding binding, uint64_t offset, absl::Span<uint8_t> into,
                                    bool check_identity, absl::StatusOr<size_t>* result,
                                    Filesystem::Counters* counters, Deadline deadline) {
  for (int attempt = 0;; ++attempt) {
    if (tree_ == nullptr || epoch_ != binding.epoch) {
      CO_RETURN_IF_ERROR(co_await Rebind(binding, check_identity, counters, deadline));
    }
    if (stale_) {
      *result = ErrnoError(ESTALE, "another file has taken this one's place");
      co_return absl::OkStatus();
    }
    absl::StatusOr<size_t> n = co_await tree_->Read(file_id_, offset, into, deadline);
    if (n.ok()) {
      *result = *n;
      co_return absl::OkStatus();
    }
    if (!IsHandleLost(n.status()) || attempt > 0) co_return n.status();
    tree_ = nullptr;  // The server has dropped the handle; the path may still be there.
  }
}

Task<absl::Status> OpenFile::SeekOn(dfs::Binding binding, uint64_t offset, int whence,
                                    bool check_identity, absl::StatusOr<uint64_t>* result,
                                    Filesystem::Counters* counters, Deadline deadline) {
  if (tree_ == nullptr || epoch_ != binding.epoch) {
    CO_RETURN_IF_ERROR(co_await Rebind(binding, check_identity, counters, deadline));
  }
  if (stale_) {
    *result = ErrnoError(ESTALE, "another file has taken this one's place");
    co_return absl::OkStatus();
  }
  const uint64_t size = seen_.file.end_of_file;
  if (offset >= size) {
    *result = ErrnoError(ENXIO, "beyond the end");
    co_return absl::OkStatus();
  }
  absl::StatusOr<std::vector<smb::wire::FileRange>> ranges = co_await tree_->AllocatedRanges(
      file_id_, {.offset = offset, .length_bytes = size - offset}, deadline);
  if (!ranges.ok()) {
    const std::optional<smb::wire::NtStatus> answer = smb::wire::NtStatusOf(ranges.status());
    const bool no_sparse_files = answer == smb::wire::NtStatus::kInvalidDeviceRequest ||
                                 answer == smb::wire::NtStatus::kNotSupported ||
                                 answer == smb::wire::NtStatus::kInvalidParameter;
    if (!no_sparse_files) co_return ranges.status();
    ranges = std::vector<smb::wire::FileRange>{{.offset = offset, .length_bytes = size - offset}};
  }
  uint64_t at = offset;
  bool found = false;
  for (const smb::wire::FileRange& range : *ranges) {
    const uint64_t end = range.offset + range.length_bytes;
    if (end <= at) continue;
    if (whence == SEEK_DATA) {
      at = std::max(at, range.offset);
      found = true;
      break;
    }
    if (range.offset > at) break;  // A hole begins here.
    at = end;
  }
  if (whence == SEEK_HOLE) {
    *result = std::min(at, size);  // There is always one at the end.
  } else if (found && at < size) {
    *result = at;
  } else {
    *result = ErrnoError(ENXIO, "no data from here on");
  }
  co_return absl::OkStatus();
}

void OpenFile::CloseLater() {
  if (tree_ != nullptr) tree_->CloseLater(file_id_);
  tree_ = nullptr;
}

}  // namespace dfscsi::vfs
