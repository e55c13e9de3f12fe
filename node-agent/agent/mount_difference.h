// What keeps a mount that is asked for from being the one that is there.

#ifndef NODE_AGENT_AGENT_MOUNT_DIFFERENCE_H_
#define NODE_AGENT_AGENT_MOUNT_DIFFERENCE_H_

#include <string>

#include "node-agent/agent/served_mount.h"

namespace dfscsi::agent {

// For a person, on one line: "with port 445, not 1445; with ro, not rw". Empty: they are the same,
// but perhaps for the credential, which is not looked at.
std::string DifferenceOf(const MountPlan& there, const MountPlan& asked);

}  // namespace dfscsi::agent

#endif  // NODE_AGENT_AGENT_MOUNT_DIFFERENCE_H_
