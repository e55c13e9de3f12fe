// What a server shows of a change whose answer was lost. Each looks at the server that the change
// was sent to, over a session that began after the lost one had ended.

#ifndef NODE_AGENT_VFS_CHANGE_PROBE_H_
#define NODE_AGENT_VFS_CHANGE_PROBE_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "node-agent/dfs/client.h"
#include "node-agent/runtime/deadline.h"
#include "node-agent/runtime/task.h"
#include "node-agent/smb/tree.h"
#include "node-agent/vfs/attributes.h"
#include "node-agent/vfs/change.h"

namespace dfscsi::vfs {

// Of a CREATE that must find nothing, sent at `earliest` (by our clock) or later. kDone: what is
// there came to be since then, by the server's clock; it goes to `seen`. EEXIST: it was there
// before. kUnknown: the server does not say when; or just before, which its clock may be wrong by;
// or before and it was changed since (a server may give a new file the birthday of one that had its
// name a moment ago); or it has the id that the name had when it was last seen (`known_id`; 0: not
// known), if that was on this server.
runtime::Task<absl::StatusOr<Verdict>> ProbeCreated(dfs::Binding binding, const Change& change,
                                                    uint64_t known_id, smb::FileType type,
                                                    ServerAttributes* seen,
                                                    runtime::Deadline deadline);

// `id`: the file's; 0: not known.
runtime::Task<absl::StatusOr<Verdict>> ProbeRemoved(dfs::Binding binding, uint64_t id,
                                                    runtime::Deadline deadline);

// kDone: the file is at `target`. kNotDone: it is where it was. `only_if_moved`: `id` may be that
// of what was at `target` before; then kDone only if nothing has the former name.
runtime::Task<absl::StatusOr<Verdict>> ProbeRenamed(dfs::Binding binding, std::u16string target,
                                                    uint64_t id, bool only_if_moved,
                                                    runtime::Deadline deadline);

// Of a second name, the binding's path, for the file `id` (0: not known).
runtime::Task<absl::StatusOr<Verdict>> ProbeLinked(dfs::Binding binding, uint64_t id,
                                                   runtime::Deadline deadline);

}  // namespace dfscsi::vfs

#endif  // NODE_AGENT_VFS_CHANGE_PROBE_H_
