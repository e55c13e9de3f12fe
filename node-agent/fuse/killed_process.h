// Whether a process that waits for an answer is to die.
//
// The kernel says so by an INTERRUPT, which is read as any other request. A mount that is not read
// for a while (arena_room.h: WaitForFreed) must find out by itself, or nobody who waits there could
// be killed.

#ifndef NODE_AGENT_FUSE_KILLED_PROCESS_H_
#define NODE_AGENT_FUSE_KILLED_PROCESS_H_

#include <cstdint>
#include <string_view>

namespace dfscsi::fuse {

// `status`: the text of /proc/<thread>/status. True if it has SIGKILL pending: it goes as soon as
// it does not wait any more.
bool HasPendingKill(std::string_view status);

// `thread` is of this process's pid namespace. False if there is no such thread.
bool IsBeingKilled(uint32_t thread);

}  // namespace dfscsi::fuse

#endif  // NODE_AGENT_FUSE_KILLED_PROCESS_H_
