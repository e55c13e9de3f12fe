// Handles between their record and the answer that tells the kernel of them.
//
// In the order of the stores:
//   Create alone  its lookup is counted. Who dies here leaves one count too many: a record of a
//                 node until the unmount.
//   open          the record of the handle is live, undelivered. Who dies here, or anywhere up to
//                 the next, leaves a handle that no answer names: it is closed, its lookup taken
//                 back, and the request, which is still in the arena, run again.
//   done          the answer is recorded (state/request_arena.h). Up to the last, the next agent
//                 finds the handle in it, and keeps it.
//   the kernel has the answer
//   delivered     HandleDelivered(). An answer that the kernel refused leaves it out: who dies
//                 before that handle is released leaves what is closed as above.
//   free          the answer is forgotten: from now on the record alone says that it is the
//                 kernel's.

#include <algorithm>
#include <utility>
#include <vector>

#include "node-agent/vfs/filesystem_impl.h"

namespace dfscsi::vfs {

using state::Load;

void Filesystem::Impl::HandleDelivered(state::FileHandle fh) {
  if (!tables_.handles().Contains(fh)) return;
  const uint32_t flags = Load(tables_.handles().Get(fh).flags);
  tables_.handles().SetFlags(fh, flags & ~(kHandleUndelivered | kHandleCreated));
}

void Filesystem::Impl::CloseUndelivered(const std::vector<state::FileHandle>& answered) {
  for (const state::FileHandle fh : std::exchange(undelivered_, {})) {
    if (!tables_.handles().Contains(fh)) continue;
    if (std::find(answered.begin(), answered.end(), fh) != answered.end()) {
      HandleDelivered(fh);
      continue;
    }
    const state::HandleTable::Record& record = tables_.handles().Get(fh);
    const bool created = (Load(record.flags) & kHandleCreated) != 0;
    const state::NodeId node = record.node;
    if (record.kind == static_cast<uint32_t>(state::HandleTable::Kind::kDirectory)) {
      ReleaseDirectory(fh);
    } else {
      Release(fh);
    }
    // Behind its flag, which is gone with the handle: a lookup that is taken back twice would be
    // the kernel's.
    if (created) Forget(node, 1);
  }
}

}  // namespace dfscsi::vfs
