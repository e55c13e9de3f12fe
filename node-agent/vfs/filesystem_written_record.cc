// Read-your-writes across targets: written_record.h.

#include <errno.h>

#include "node-agent/base/log.h"
#include "node-agent/runtime/loop.h"
#include "node-agent/smb/wire/filetime.h"
#include "node-agent/vfs/errno.h"
#include "node-agent/vfs/filesystem_impl.h"

namespace dfscsi::vfs {

void Filesystem::Impl::NoteInRecord(const OpenFile& file) {
  NoteInRecord(file.path(), file.server_key(), file.seen().file.end_of_file, file.clock_ahead());
}

void Filesystem::Impl::NoteInRecord(const dfs::DfsPath& path, uint64_t server_key,
                                    uint64_t size_bytes, absl::Duration clock_ahead) {
  const absl::Duration ttl = client_.GetTtl(path);
  if (ttl <= absl::ZeroDuration() || server_key == 0) return;
  const absl::Time now = runtime::Loop::Current().Now();
  written_.NoteWritten(
      path.Key(), {.server_key = server_key, .size_bytes = size_bytes, .when = now + clock_ahead},
      now + ttl);
}

absl::Status Filesystem::Impl::CheckNotOlder(OpenFile& file) {
  if (written_.size() == 0) return absl::OkStatus();
  const smb::wire::FileAttributes& seen = file.seen().file;
  const WrittenRecord::Verdict verdict = written_.Judge(
      file.path().Key(),
      {.server_key = file.server_key(),
       .size_bytes = seen.end_of_file,
       .last_write =
           smb::wire::TimeOfFileTime(seen.last_write_time).value_or(absl::InfinitePast())},
      runtime::Loop::Current().Now());
  if (verdict != WrittenRecord::Verdict::kOlder && verdict != WrittenRecord::Verdict::kOlderAgain) {
    return absl::OkStatus();
  }
  ++counters_.older_copies;
  if (verdict == WrittenRecord::Verdict::kOlder) {
    LogWarning(options_.refuse_older ? "refused" : "opened",
               ": a copy that is older than what this mount has written on another target");
  }
  if (!options_.refuse_older) return absl::OkStatus();
  file.CloseLater();
  return ErrnoError(ESTALE, "older than what was written on another target");
}

}  // namespace dfscsi::vfs
