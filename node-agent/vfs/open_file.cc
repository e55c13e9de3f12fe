#include "node-agent/vfs/open_file.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <optional>

#include "absl/strings/str_cat.h"
#include "node-agent/base/status_macros.h"
#include "node-agent/runtime/loop.h"
#include "node-agent/smb/session.h"
#include "node-agent/smb/wire/nt_status.h"
#include "node-agent/vfs/errno.h"

namespace dfscsi::vfs {

namespace wire = smb::wire;
using runtime::Deadline;
using runtime::Task;

namespace {

// What a path that led to a file no longer says: another file took its place, or none.
bool IsGone(const absl::Status& status) {
  const std::optional<wire::NtStatus> answer = wire::NtStatusOf(status);
  if (!answer.has_value()) return false;
  switch (*answer) {
    case wire::NtStatus::kObjectNameNotFound:
    case wire::NtStatus::kObjectPathNotFound:
    case wire::NtStatus::kNoSuchFile:
    case wire::NtStatus::kFileIsADirectory:
    case wire::NtStatus::kDeletePending:
      return true;
    default:
      return false;
  }
}

bool HasNoSparseFiles(const absl::Status& status) {
  const std::optional<wire::NtStatus> answer = wire::NtStatusOf(status);
  return answer == wire::NtStatus::kInvalidDeviceRequest ||
         answer == wire::NtStatus::kNotSupported || answer == wire::NtStatus::kInvalidParameter;
}

bool IsHandleLost(const absl::Status& status) {
  return wire::NtStatusOf(status) == wire::NtStatus::kFileClosed;
}

}  // namespace

uint32_t OpenFile::AccessOf(int flags) {
  uint32_t access = wire::kAccessReadAttributes;
  const int mode = flags & O_ACCMODE;
  if (mode != O_WRONLY) access |= wire::kAccessReadData | wire::kAccessReadEa;
  if (mode == O_RDONLY) return access;
  access |= wire::kAccessAppendData | wire::kAccessWriteAttributes;
  // The server appends only through handles that cannot do else.
  if ((flags & O_APPEND) == 0) access |= wire::kAccessWriteData;
  return access;
}

void OpenFile::Unsettled::Send(bool again) {
  file_.written_ = true;
  file_.bound_ = file_.bound_ || !again;
  if (!counted_) ++file_.unsettled_;
  counted_ = true;
}

void OpenFile::Unsettled::Settle() {
  if (!counted_) return;
  counted_ = false;
  if (--file_.unsettled_ == 0) file_.settled_.NotifyAll();
}

Task<absl::StatusOr<smb::OpenedFile>> OpenFile::CreateLeased(dfs::Binding binding,
                                                             wire::CreateRequest create,
                                                             bool looks_at_directory,
                                                             std::shared_ptr<LeaseTenure>* tenure,
                                                             std::optional<DurableHandle>* durable,
                                                             Deadline deadline) {
  if (lease_ != nullptr) *tenure = lease_->On(binding.tree);
  if (*tenure != nullptr) {
    wire::CreateRequest leased = create;
    leased.lease = (*tenure)->ToAsk(access_);
    if (durable_for_ > absl::ZeroDuration() && writes()) {
      leased.lease->state |= wire::kLeaseHandle;
      leased.durable = wire::DurableRequest{
          .timeout_ms = static_cast<uint32_t>(absl::ToInt64Milliseconds(durable_for_)),
          .create_guid = DrawCreateGuid()};
    }
    const DurableHandle asked{
        .server_key = ServerKeyOf(binding),
        .access = access_,
        .create_guid = leased.durable.value_or(wire::DurableRequest()).create_guid,
        .lease_key = leased.lease->key,
        .lease_state = leased.lease->state,
        .file_id = {}};
    const uint64_t breaks = (*tenure)->breaks();
    absl::StatusOr<smb::OpenedFile> opened = co_await binding.tree->Create(
        std::move(leased), deadline,
        {.observer = *tenure, .looks_at_directory = looks_at_directory});
    if (opened.ok()) {
      const std::optional<wire::Lease>& granted = opened->response.lease;
      if (granted.has_value() && (granted->state & wire::kLeaseRead) != 0) {
        (*tenure)->NoteAnswer(granted->state, breaks, runtime::Loop::Current().Now());
      }
      if (opened->response.durable.has_value()) {
        *durable = asked;
        (*durable)->file_id = opened->file_id;
      }
      co_return opened;
    }
    if (!IsLeaseRefused(opened.status())) co_return opened.status();
    *tenure = nullptr;
  }
  co_return co_await binding.tree->Create(std::move(create), deadline,
                                          {.looks_at_directory = looks_at_directory});
}

Task<absl::Status> OpenFile::AskForReadAgainOn(dfs::Binding binding, Deadline deadline) {
  const std::shared_ptr<LeaseTenure> tenure = tenure_;
  if (tenure == nullptr || &tenure->tree() != binding.tree.get()) co_return absl::OkStatus();
  const absl::StatusOr<runtime::Mutex::Guard> guard = co_await tenure->asking().Lock(deadline);
  if (!guard.ok() || !tenure->IsReadLost(runtime::Loop::Current().Now())) {
    co_return absl::OkStatus();
  }
  // One more handle of the same key: what is granted is all of theirs.
  wire::CreateRequest create;
  create.desired_access = access_;
  create.options = wire::kOptionNonDirectory;
  create.name = binding.path;
  create.lease = tenure->ToAsk(access_);
  // Samba gives nothing at all to a key whose lease was broken if it cannot give W.
  create.lease->state &= ~uint32_t{wire::kLeaseWrite};
  const uint64_t breaks = tenure->breaks();
  const absl::StatusOr<smb::OpenedFile> opened =
      co_await binding.tree->Create(std::move(create), deadline, {.observer = tenure});
  uint32_t granted = 0;
  if (opened.ok()) {
    if (opened->response.lease.has_value()) granted = opened->response.lease->state;
    binding.tree->CloseLater(opened->file_id);
  }
  tenure->NoteAnswer(granted, breaks, runtime::Loop::Current().Now());
  co_return absl::OkStatus();
}

Task<absl::Status> OpenFile::Create(dfs::Binding binding, wire::Disposition disposition,
                                    std::optional<ServerAttributes>* directory, Deadline deadline) {
  wire::CreateRequest create;
  create.desired_access = access_;
  create.disposition = disposition;
  create.options = wire::kOptionNonDirectory;
  create.name = binding.path;
  create.query_on_disk_id = true;
  std::u16string name = binding.path;
  std::shared_ptr<LeaseTenure> tenure;
  std::optional<DurableHandle> durable;
  CO_ASSIGN_OR_RETURN(const smb::OpenedFile opened,
                      co_await CreateLeased(binding, std::move(create), directory != nullptr,
                                            &tenure, &durable, deadline));
  CloseLater();
  tenure_ = std::move(tenure);
  durable_ = std::move(durable);
  if (durable_.has_value()) lease_->UseKey(durable_->lease_key);
  server_key_ = ServerKeyOf(binding);
  tree_ = std::move(binding.tree);
  file_id_ = opened.file_id;
  name_ = std::move(name);
  ++instance_;
  has_same_id_ = false;
  epoch_ = binding.epoch;
  made_ = opened.response.action == wire::CreateAction::kCreated;
  sets_time_ = false;
  late_write_.reset();
  seen_ = {
      .file = opened.response.attributes,
      .reparse_tag = 0,
      .file_id = opened.response.on_disk_id.has_value() ? opened.response.on_disk_id->file : 0};
  if (directory != nullptr && opened.directory.has_value()) {
    *directory = {.file = opened.directory->attributes,
                  .reparse_tag = 0,
                  .file_id = opened.directory->file_id};
  }
  co_return absl::OkStatus();
}

Task<absl::Status> OpenFile::OpenOn(dfs::Binding binding, Deadline deadline,
                                    wire::Disposition disposition,
                                    std::optional<ServerAttributes>* directory) {
  CO_RETURN_IF_ERROR(co_await Create(std::move(binding), disposition, directory, deadline));
  identity_ = IdentityOf(seen_, epoch_);
  co_return absl::OkStatus();
}

bool OpenFile::IsSameFile(bool same_server, bool check_identity,
                          const state::NodeIdentity& now) const {
  // Its id tells, whatever others have written to it meanwhile. Another id may be another host's,
  // to which the server's name leads by now.
  if (same_server && identity_.file_id != 0 && now.file_id != 0 &&
      (identity_.file_id == now.file_id || !check_identity)) {
    return true;
  }
  // What was written is on the server that has acknowledged it, and on no other.
  if (written_ || has_another_) return false;
  return !check_identity || IsSameCopy(identity_, now);
}

Task<absl::Status> OpenFile::Rebind(dfs::Binding binding, bool check_identity,
                                    Filesystem::Counters* counters, Deadline deadline) {
  const uint64_t server_key = ServerKeyOf(binding);
  while (unsettled_ > 0 && server_key != server_key_) {
    CO_RETURN_IF_ERROR(co_await settled_.WaitForNotify(deadline));
  }
  CO_ASSIGN_OR_RETURN(const runtime::Mutex::Guard guard, co_await rebinding_.Lock(deadline));
  if (stale_ || IsOpenOn(binding)) co_return absl::OkStatus();
  const bool same_server = server_key == server_key_;
  if (same_server && durable_.has_value()) {
    CO_ASSIGN_OR_RETURN(const bool taken_up, co_await TakeUpOn(binding, deadline));
    if (taken_up) {
      ++counters->rebinds;
      ++counters->durable_reconnects;
      co_return absl::OkStatus();
    }
  }
  const state::NodeIdentity before = identity_;
  const absl::Status status =
      co_await Create(std::move(binding), wire::Disposition::kOpen, nullptr, deadline);
  if (!status.ok()) {
    if (!IsGone(status)) co_return status;
    stale_ = true;
    ++counters->stale_handles;
    co_return absl::OkStatus();
  }
  ++counters->rebinds;
  const state::NodeIdentity now = IdentityOf(seen_, epoch_);
  if (!IsSameFile(same_server, check_identity, now)) {
    stale_ = true;
    ++counters->stale_handles;
    CloseLater();
    co_return absl::OkStatus();
  }
  has_same_id_ = before.file_id != 0 && before.file_id == now.file_id;
  identity_ = before;
  identity_.epoch = now.epoch;
  identity_.file_id = now.file_id;
  co_return absl::OkStatus();
}

// It is the very handle, and so the very file, whatever others have made of its name and content.
Task<absl::StatusOr<bool>> OpenFile::TakeUpOn(dfs::Binding binding, Deadline deadline) {
  const DurableHandle handle = *durable_;
  std::shared_ptr<LeaseTenure> tenure;
  if (lease_ != nullptr) tenure = lease_->On(binding.tree);
  // Another handle of the file has begun a lease there.
  if (tenure == nullptr || tenure->key() != handle.lease_key) co_return false;
  const uint64_t breaks = tenure->breaks();
  CO_ASSIGN_OR_RETURN(const std::optional<smb::OpenedFile> opened,
                      co_await TakeUp(binding.tree, binding.path, handle, tenure, deadline));
  if (!opened.has_value()) {
    durable_.reset();
    co_return false;
  }
  const std::optional<wire::Lease>& granted = opened->response.lease;
  tenure->NoteAnswer(granted.has_value() ? granted->state : 0, breaks,
                     runtime::Loop::Current().Now());
  tenure_ = std::move(tenure);
  name_ = binding.path;
  // With W nobody else has had it open in between: it is as if nothing had been lost.
  const bool was_kept = granted.has_value() && (granted->state & wire::kLeaseWrite) != 0;
  if (instance_ == 0 || !was_kept) ++instance_;
  if (was_kept) proven_ = instance_;
  has_same_id_ = true;
  durable_ = handle;
  durable_->file_id = opened->file_id;
  tree_ = std::move(binding.tree);
  file_id_ = opened->file_id;
  epoch_ = binding.epoch;
  seen_.file = opened->response.attributes;
  if (seen_.file_id == 0) seen_.file_id = identity_.file_id;
  identity_.epoch = static_cast<uint32_t>(epoch_);
  co_return true;
}

Task<absl::Status> OpenFile::ProveOn(std::shared_ptr<smb::Tree> tree, wire::FileId file_id,
                                     uint64_t least_bytes, Deadline deadline) {
  CO_ASSIGN_OR_RETURN(const runtime::Mutex::Guard guard, co_await proving_.Lock(deadline));
  const uint64_t instance = instance_;
  const bool is_this = tree_ == tree && file_id_ == file_id;
  if (is_this && proven_ == instance && lapsed_ != instance) co_return absl::OkStatus();
  if (is_this && lapsed_ != instance && has_same_id_ && HoldsWriteLease()) {
    CO_ASSIGN_OR_RETURN(const wire::StandardInformation now,
                        co_await tree->GetStandard(file_id, deadline));
    if (instance == instance_ && lapsed_ != instance && now.end_of_file >= least_bytes) {
      proven_ = instance;
      co_return absl::OkStatus();
    }
  }
  if (instance == instance_) NoteLapsed();
  co_return ErrnoError(EIO, "another machine may have changed the file since it was acknowledged");
}

Task<absl::StatusOr<size_t>> OpenFile::ReadUnderLease(std::shared_ptr<smb::Tree> tree,
                                                      wire::FileId file_id, uint64_t offset,
                                                      absl::Span<uint8_t> into, Deadline deadline) {
  const std::shared_ptr<LeaseTenure> tenure = tenure_;
  wire::FileId reader = file_id;
  const bool reads = (access_ & wire::kAccessReadData) != 0;
  if (!reads) {
    if (tenure == nullptr || tree_ != tree) co_return ErrnoError(EIO, "its lease is gone");
    wire::CreateRequest create;
    create.desired_access = wire::kAccessReadData | wire::kAccessReadAttributes;
    create.options = wire::kOptionNonDirectory;
    create.name = name_;
    create.lease = tenure->ToAsk(access_);
    CO_ASSIGN_OR_RETURN(const smb::OpenedFile opened,
                        co_await tree->Create(std::move(create), deadline, {.observer = tenure}));
    reader = opened.file_id;
  }
  size_t filled = 0;
  absl::Status status;
  while (filled < into.size()) {
    const absl::StatusOr<size_t> n = co_await tree->Read(
        reader, offset + filled, into.subspan(filled), deadline, offset + into.size());
    status = n.status();
    if (!n.ok() || *n == 0) break;
    filled += *n;
  }
  if (!reads) tree->CloseLater(reader);
  if (!status.ok()) co_return status;
  co_return filled;
}

Task<absl::Status> OpenFile::ActOn(dfs::Binding binding, Act act, bool check_identity,
                                   Filesystem::Counters* counters, Deadline deadline) {
  for (int attempt = 0;; ++attempt) {
    if (!IsOpenOn(binding)) {
      CO_RETURN_IF_ERROR(co_await Rebind(binding, check_identity, counters, deadline));
    }
    if (stale_) co_return ErrnoError(ESTALE, "another file has taken this one's place");
    const std::shared_ptr<smb::Tree> tree = tree_;
    const wire::FileId file_id = file_id_;
    absl::Status status = co_await act(tree, file_id);
    if (!IsHandleLost(status) || attempt > 0) co_return status;
    Lose(*tree, file_id);
  }
}

Task<absl::Status> OpenFile::ReadOn(dfs::Binding binding, uint64_t offset, absl::Span<uint8_t> into,
                                    bool check_identity, absl::StatusOr<size_t>* result,
                                    Filesystem::Counters* counters, Deadline deadline) {
  for (int attempt = 0;; ++attempt) {
    if (!IsOpenOn(binding)) {
      CO_RETURN_IF_ERROR(co_await Rebind(binding, check_identity, counters, deadline));
    }
    if (stale_) {
      *result = ErrnoError(ESTALE, "another file has taken this one's place");
      co_return absl::OkStatus();
    }
    if (IsReadLeaseLost(runtime::Loop::Current().Now())) {
      (void)co_await AskForReadAgainOn(binding, deadline);
      if (!IsOpenOn(binding)) continue;
    }
    const std::shared_ptr<smb::Tree> tree = tree_;
    const wire::FileId used = file_id_;
    absl::StatusOr<size_t> n =
        co_await tree->Read(used, offset, into, deadline, seen_.file.end_of_file);
    if (n.ok()) {
      *result = *n;
      co_return absl::OkStatus();
    }
    if (!IsHandleLost(n.status()) || attempt > 0) co_return n.status();
    Lose(*tree, used);  // The server has dropped the handle; the path may still be there.
  }
}

Task<absl::Status> OpenFile::SeekOn(dfs::Binding binding, uint64_t offset, int whence,
                                    bool check_identity, absl::StatusOr<uint64_t>* result,
                                    Filesystem::Counters* counters, Deadline deadline) {
  for (int attempt = 0;; ++attempt) {
    if (!IsOpenOn(binding)) {
      CO_RETURN_IF_ERROR(co_await Rebind(binding, check_identity, counters, deadline));
    }
    if (stale_) {
      *result = ErrnoError(ESTALE, "another file has taken this one's place");
      co_return absl::OkStatus();
    }
    const std::shared_ptr<smb::Tree> tree = tree_;
    const wire::FileId used = file_id_;
    // Others may have written, also through other handles of this mount.
    const absl::StatusOr<wire::StandardInformation> now =
        co_await tree->GetStandard(used, deadline);
    if (now.ok() && offset >= now->end_of_file) {
      *result = ErrnoError(ENXIO, "beyond the end");
      co_return absl::OkStatus();
    }
    absl::StatusOr<std::optional<uint64_t>> found = std::optional<uint64_t>();
    if (!now.ok()) {
      found = now.status();
    } else {
      const bool data = whence == SEEK_DATA;
      found = co_await FindBoundary(*tree, used, offset, now->end_of_file, data, deadline);
    }
    if (found.ok()) {
      if (found->has_value()) {
        *result = **found;
      } else {
        *result = ErrnoError(ENXIO, "no data from here on");
      }
      co_return absl::OkStatus();
    }
    if (!IsHandleLost(found.status()) || attempt > 0) co_return found.status();
    Lose(*tree, used);
  }
}

// The first byte at or behind `at` that is data (or, if not `data`, in a hole: there is always one
// at the end). nullopt: no data is left.
Task<absl::StatusOr<std::optional<uint64_t>>> OpenFile::FindBoundary(smb::Tree& tree,
                                                                     wire::FileId file_id,
                                                                     uint64_t at, uint64_t size,
                                                                     bool data, Deadline deadline) {
  // However finely a file is broken up, so much of it is told in one answer.
  constexpr uint64_t kLeastAsked = uint64_t{1} << 20;
  uint64_t most = size;
  while (at < size) {
    const wire::FileRange asked{.offset = at, .length_bytes = std::min(most, size - at)};
    absl::StatusOr<smb::Tree::Ranges> told =
        co_await tree.AllocatedRanges(file_id, asked, deadline);
    if (wire::NtStatusOf(told.status()) == wire::NtStatus::kBufferTooSmall && most > kLeastAsked) {
      most = std::max(asked.length_bytes / 8, kLeastAsked);
      continue;
    }
    if (!told.ok() && HasNoSparseFiles(told.status())) told = smb::Tree::Ranges{.ranges = {asked}};
    if (!told.ok()) co_return told.status();
    for (const wire::FileRange& range : told->ranges) {
      const uint64_t end = range.offset + range.length_bytes;
      if (end <= at) continue;
      if (data && range.offset < size) co_return std::max(at, range.offset);
      if (range.offset > at) co_return at;  // A hole begins here.
      at = end;
    }
    const uint64_t told_until = told->complete
                                    ? asked.offset + asked.length_bytes
                                    : told->ranges.back().offset + told->ranges.back().length_bytes;
    if (!data && at < told_until) co_return at;
    if (told_until <= asked.offset) {
      co_return absl::DataLossError("allocated ranges that lie before what was asked");
    }
    at = std::max(at, told_until);
  }
  if (data) co_return std::nullopt;
  co_return std::min(at, size);
}

bool OpenFile::IsHealthy() const {
  return tree_ != nullptr && !stale_ && tree_->usable() && !tree_->session().connection().suspect();
}

std::string OpenFile::ShareOf() const {
  if (tree_ == nullptr) return "";
  return absl::StrCat("//", tree_->session().connection().host(), "/", tree_->share());
}

absl::Duration OpenFile::clock_ahead() const {
  if (tree_ == nullptr) return absl::ZeroDuration();
  return tree_->session().connection().clock_ahead().value_or(absl::ZeroDuration());
}

void OpenFile::Lose(const smb::Tree& tree, const wire::FileId& file_id) {
  // Another call may have opened it anew since.
  if (tree_.get() != &tree || file_id_ != file_id) return;
  durable_.reset();
  tree_ = nullptr;
  tenure_ = nullptr;
}

void OpenFile::CloseLater() {
  if (tree_ != nullptr) tree_->CloseLater(file_id_);
  durable_.reset();
  tree_ = nullptr;
  tenure_ = nullptr;
}

}  // namespace dfscsi::vfs
