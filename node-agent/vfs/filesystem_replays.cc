// failover_writes=replay: what a lost server has not acknowledged is written to another copy.

#include <errno.h>

#include "node-agent/base/log.h"
#include "node-agent/vfs/errno.h"
#include "node-agent/vfs/filesystem_impl.h"

namespace dfscsi::vfs {

// The other copy is as the file was before anything was written here: that is what Rebind() checks.
// So nothing that was written before may be missing in it: neither through this handle, nor through
// another one of this mount, which would have been told that it is there.
bool Filesystem::Impl::MayReplay(state::FileHandle fh, OpenFile& file) {
  if (!options_.replay_writes || !file.may_be_replayed()) return false;
  if (!tables_.handles().Contains(fh) || LocksInTheWay(fh, /*writes=*/true) != nullptr) {
    return false;
  }
  const auto open = opens_.find(tables_.handles().Get(fh).node);
  if (open == opens_.end()) return false;
  for (const state::FileHandle other : open->second) {
    const auto found = files_.find(other);
    const state::HandleTable::Record& record = tables_.handles().Get(other);
    const uint64_t server_key =
        found != files_.end() ? found->second->server_key() : state::Load(record.server_key);
    const bool may = found != files_.end() ? found->second->may_be_replayed()
                                           : (state::Load(record.flags) & kHandleWritten) == 0;
    if (!may && server_key == file.server_key()) return false;
  }
  if (file.written()) {
    LogWarning("a server is lost; what it has not acknowledged goes to another copy of the file");
  }
  file.GiveUpSent();
  return true;
}

void Filesystem::Impl::BindOthers(state::NodeId node, const OpenFile& closed) {
  const auto open = opens_.find(node);
  if (open == opens_.end() || closed.may_be_replayed()) return;
  for (const state::FileHandle other : open->second) {
    const auto found = files_.find(other);
    if (found != files_.end() && found->second->server_key() == closed.server_key()) {
      found->second->NoteAcknowledged();
    }
  }
}

absl::Status Filesystem::Impl::OutcomeOfReplay(const absl::Status& status) {
  if (status.ok()) ++counters_.replayed_writes;
  if (ErrnoOf(status) != ESTALE) return status;
  ++counters_.unknown_changes;
  return ErrnoError(EIO, "its server is lost, and the other copy is another file");
}

}  // namespace dfscsi::vfs
