// A handle that its server keeps, with its open, for a minute after the connection is lost: durable
// handle v2, persistent where the share is continuously available.
//
// It is taken up again on the same server only, by a connection of the same ClientGuid, and not
// while the session that had it lives there: what follows a lost session ends it first
// (PreviousSessionId), which leaves durable handles. What it needs:
// docs/adr/0011-durable-handles.md.
//
// Source: [MS-SMB2] 3.2.4.3.5, 3.2.4.4, 3.3.5.9.10, 3.3.5.9.12.

#ifndef NODE_AGENT_VFS_DURABLE_HANDLE_H_
#define NODE_AGENT_VFS_DURABLE_HANDLE_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "node-agent/runtime/deadline.h"
#include "node-agent/runtime/task.h"
#include "node-agent/smb/tree.h"
#include "node-agent/state/handle_table.h"

namespace dfscsi::vfs {

// A value: what the next connection, or the next agent, needs to take one up.
struct DurableHandle {
  uint64_t server_key = 0;  // ServerKeyOf() where it is.
  uint32_t access = 0;      // As asked for.
  smb::wire::Guid create_guid = {};
  smb::wire::LeaseKey lease_key = {};
  uint32_t lease_state = 0;  // As asked for.
  smb::wire::FileId file_id;

  // As it lies in a handle's record; none: all zero.
  state::HandleTable::ServerSide ToRecord() const;
  static std::optional<DurableHandle> FromRecord(const state::HandleTable::ServerSide& record,
                                                 uint64_t server_key, uint32_t access);
};

// For a CREATE that asks for one; of this client alone.
smb::wire::Guid DrawCreateGuid();

// Takes it up on this tree; `name`: where its file is now. nullopt: the server has let go of it, or
// never was asked by that name. Other errors: as of smb::Tree.
runtime::Task<absl::StatusOr<std::optional<smb::OpenedFile>>> TakeUp(
    std::shared_ptr<smb::Tree> tree, std::u16string name, DurableHandle handle,
    std::weak_ptr<smb::LeaseObserver> observer, runtime::Deadline deadline);

// Of one that nobody uses any more: takes it up, and closes it. What it does not find is closed.
runtime::Task<void> CloseDurable(std::shared_ptr<smb::Tree> tree, std::u16string name,
                                 DurableHandle handle, runtime::Deadline deadline);

}  // namespace dfscsi::vfs

#endif  // NODE_AGENT_VFS_DURABLE_HANDLE_H_
