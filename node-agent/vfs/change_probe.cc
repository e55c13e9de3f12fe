#include "node-agent/vfs/change_probe.h"

#include <errno.h>

#include <optional>
#include <utility>

#include "node-agent/base/status_macros.h"
#include "node-agent/smb/session.h"
#include "node-agent/smb/wire/filetime.h"
#include "node-agent/smb/wire/nt_status.h"
#include "node-agent/vfs/errno.h"

namespace dfscsi::vfs {
namespace {

using runtime::Deadline;
using runtime::Task;
using smb::wire::NtStatus;

// Servers round times, by up to 2 s.
constexpr absl::Duration kRounding = absl::Seconds(2);

// nullopt: there is nothing of this name.
Task<absl::StatusOr<std::optional<smb::FileStatus>>> LookFor(std::shared_ptr<smb::Tree> tree,
                                                             std::u16string path,
                                                             Deadline deadline) {
  const absl::StatusOr<smb::FileStatus> status =
      co_await tree->Stat(std::move(path), std::move(deadline));
  const std::optional<NtStatus> answer = smb::wire::NtStatusOf(status.status());
  if (answer == NtStatus::kObjectNameNotFound || answer == NtStatus::kObjectPathNotFound ||
      answer == NtStatus::kNoSuchFile || answer == NtStatus::kDeletePending) {
    co_return std::optional<smb::FileStatus>();
  }
  CO_RETURN_IF_ERROR(status.status());
  co_return std::optional<smb::FileStatus>(*status);
}

bool IsSince(uint64_t filetime, absl::Time earliest) {
  const std::optional<absl::Time> time = smb::wire::TimeOfFileTime(filetime);
  return time.has_value() && *time >= earliest;
}

}  // namespace

Task<absl::StatusOr<Verdict>> ProbeCreated(dfs::Binding binding, absl::Duration age,
                                           smb::FileType type, ServerAttributes* seen,
                                           Deadline deadline) {
  CO_ASSIGN_OR_RETURN(const std::optional<smb::FileStatus> found,
                      co_await LookFor(binding.tree, binding.path, deadline));
  if (!found.has_value()) co_return Verdict::kNotDone;
  const smb::wire::FileAttributes& file = found->attributes;
  const bool is_directory = file.Has(smb::wire::kAttributeDirectory);
  if (is_directory != (type == smb::FileType::kDirectory)) {
    co_return ErrnoError(EEXIST, "something else is there");
  }
  // The session is younger than the change; its server told its time when it began.
  const std::optional<absl::Time> server_now =
      smb::wire::TimeOfFileTime(binding.tree->session().connection().negotiated().system_time);
  if (!server_now.has_value() || file.creation_time == 0) co_return Verdict::kUnknown;
  const absl::Time earliest = *server_now - age - kRounding;
  if (!IsSince(file.creation_time, earliest)) {
    if (IsSince(file.last_write_time, earliest) || IsSince(file.change_time, earliest)) {
      co_return Verdict::kUnknown;
    }
    co_return ErrnoError(EEXIST, "it was there before");
  }
  // Nobody could have written to what we have not yet opened, but for somebody else's file.
  if (!is_directory && file.end_of_file != 0) co_return Verdict::kUnknown;
  *seen = {.file = file, .reparse_tag = found->reparse_tag, .file_id = found->file_id};
  co_return Verdict::kDone;
}

Task<absl::StatusOr<Verdict>> ProbeRemoved(dfs::Binding binding, uint64_t id, Deadline deadline) {
  CO_ASSIGN_OR_RETURN(const std::optional<smb::FileStatus> found,
                      co_await LookFor(binding.tree, binding.path, deadline));
  if (!found.has_value()) co_return Verdict::kDone;
  if (id == 0 || found->file_id == 0) co_return Verdict::kUnknown;
  // Another one has the name by now.
  co_return found->file_id == id ? Verdict::kNotDone : Verdict::kDone;
}

Task<absl::StatusOr<Verdict>> ProbeRenamed(dfs::Binding binding, std::u16string target, uint64_t id,
                                           Deadline deadline) {
  if (id == 0) co_return Verdict::kUnknown;
  CO_ASSIGN_OR_RETURN(const std::optional<smb::FileStatus> at_target,
                      co_await LookFor(binding.tree, std::move(target), deadline));
  if (at_target.has_value() && at_target->file_id == id) co_return Verdict::kDone;
  CO_ASSIGN_OR_RETURN(const std::optional<smb::FileStatus> at_source,
                      co_await LookFor(binding.tree, binding.path, deadline));
  if (at_source.has_value() && at_source->file_id == id) co_return Verdict::kNotDone;
  co_return Verdict::kUnknown;
}

Task<absl::StatusOr<Verdict>> ProbeLinked(dfs::Binding binding, uint64_t id, Deadline deadline) {
  CO_ASSIGN_OR_RETURN(const std::optional<smb::FileStatus> found,
                      co_await LookFor(binding.tree, binding.path, deadline));
  if (!found.has_value()) co_return Verdict::kNotDone;
  if (id == 0 || found->file_id == 0) co_return Verdict::kUnknown;
  if (found->file_id != id) co_return ErrnoError(EEXIST, "another file has the name");
  co_return Verdict::kDone;
}

}  // namespace dfscsi::vfs
