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

// Some servers round times, by up to 2 s: to whole seconds, then.
constexpr absl::Duration kRounding = absl::Seconds(2);
// What a birthday of others may be early by: the ticks of file systems, and what we do not know of
// the server's clock.
constexpr absl::Duration kTick = absl::Milliseconds(100);

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

bool IsWholeSeconds(uint64_t filetime) { return filetime % 10'000'000 == 0; }

bool IsSince(uint64_t filetime, absl::Time earliest) {
  const std::optional<absl::Time> time = smb::wire::TimeOfFileTime(filetime);
  return time.has_value() && *time >= earliest;
}

}  // namespace

Task<absl::StatusOr<Verdict>> ProbeCreated(dfs::Binding binding, const Change& change,
                                           uint64_t known_id, smb::FileType type,
                                           ServerAttributes* seen, Deadline deadline) {
  CO_ASSIGN_OR_RETURN(const std::optional<smb::FileStatus> found,
                      co_await LookFor(binding.tree, binding.path, deadline));
  if (!found.has_value()) co_return Verdict::kNotDone;
  const smb::wire::FileAttributes& file = found->attributes;
  const bool is_directory = file.Has(smb::wire::kAttributeDirectory);
  if (is_directory != (type == smb::FileType::kDirectory)) {
    co_return ErrnoError(EEXIST, "something else is there");
  }
  // The session is younger than the change; its server told its time when it began.
  const std::optional<absl::Duration> ahead = binding.tree->session().connection().clock_ahead();
  if (!ahead.has_value() || file.creation_time == 0) co_return Verdict::kUnknown;
  // Where this machine stood still, or its clock was set, between the two connections they differ:
  // what lies between is nobody's for sure.
  const absl::Duration then = change.ahead_when_sent.value_or(*ahead);
  const absl::Time sent = change.Earliest() + std::max(*ahead, then);
  const absl::Time doubtful = change.Earliest() + std::min(*ahead, then) - kRounding;
  if (!IsSince(file.creation_time, doubtful)) {
    if (IsSince(file.last_write_time, doubtful) || IsSince(file.change_time, doubtful)) {
      co_return Verdict::kUnknown;
    }
    co_return ErrnoError(EEXIST, "it was there before");
  }
  const bool since =
      IsWholeSeconds(file.creation_time) || IsSince(file.creation_time, sent - kTick);
  if (!since || (known_id != 0 && found->file_id == known_id)) co_return Verdict::kUnknown;
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
                                           bool only_if_moved, Deadline deadline) {
  if (id == 0) co_return Verdict::kUnknown;
  const auto is_it = [id](const std::optional<smb::FileStatus>& found) {
    return found.has_value() && found->file_id == id;
  };
  CO_ASSIGN_OR_RETURN(const std::optional<smb::FileStatus> at_target,
                      co_await LookFor(binding.tree, target, deadline));
  if (is_it(at_target) && !only_if_moved) co_return Verdict::kDone;
  CO_ASSIGN_OR_RETURN(const std::optional<smb::FileStatus> at_source,
                      co_await LookFor(binding.tree, binding.path, deadline));
  if (only_if_moved) {
    co_return is_it(at_target) && !at_source.has_value() ? Verdict::kDone : Verdict::kUnknown;
  }
  if (is_it(at_source)) co_return Verdict::kNotDone;
  // It may have been executed between the two looks.
  CO_ASSIGN_OR_RETURN(const std::optional<smb::FileStatus> by_now,
                      co_await LookFor(binding.tree, std::move(target), deadline));
  co_return is_it(by_now) ? Verdict::kDone : Verdict::kUnknown;
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
