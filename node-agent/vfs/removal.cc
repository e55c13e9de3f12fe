#include "node-agent/vfs/removal.h"

#include <utility>

#include "node-agent/base/status_macros.h"
#include "node-agent/smb/wire/file_attributes.h"
#include "node-agent/smb/wire/nt_status.h"
#include "node-agent/vfs/change.h"

namespace dfscsi::vfs {

using runtime::Deadline;
using runtime::Task;
using smb::wire::NtStatus;
using smb::wire::NtStatusOf;

namespace {

// `refused`: the answer that it gave before.
Task<absl::Status> RemoveWithoutAttribute(dfs::Binding binding, Removal* removal,
                                          absl::Status refused, Deadline deadline) {
  CO_ASSIGN_OR_RETURN(const smb::FileStatus now,
                      co_await binding.tree->Stat(binding.path, deadline));
  if (!now.attributes.Has(smb::wire::kAttributeReadonly)) co_return refused;
  removal->in_pieces = true;
  removal->taken_attributes = now.attributes.attributes & smb::wire::kSettableAttributes;
  const uint32_t others = removal->taken_attributes & ~uint32_t{smb::wire::kAttributeReadonly};
  co_return co_await binding.tree->RemoveReadOnly(
      binding.path, others == 0 ? uint32_t{smb::wire::kAttributeNormal} : others, deadline);
}

}  // namespace

Task<absl::Status> RemoveOn(dfs::Binding binding, Removal* removal, Deadline deadline) {
  absl::Status status = co_await binding.tree->Remove(binding.path, removal->type, deadline);
  if (removal->type == smb::FileType::kFile && NtStatusOf(status) == NtStatus::kCannotDelete) {
    status = co_await RemoveWithoutAttribute(binding, removal, status, deadline);
  }
  if (status.ok() || IsAnswerLost(status) || removal->taken_attributes == 0) co_return status;
  const smb::wire::BasicInformation back{.attributes = std::exchange(removal->taken_attributes, 0)};
  const absl::Status restored = co_await binding.tree->SetBasicOfPath(binding.path, back, deadline);
  // Then that is what is not known.
  if (IsAnswerLost(restored)) {
    removal->taken_attributes = back.attributes;
    co_return restored;
  }
  co_return status;
}

}  // namespace dfscsi::vfs
