// What has become of a mount whose maker was interrupted.

#ifndef NODE_AGENT_DFSCTL_INTERRUPTED_MOUNT_H_
#define NODE_AGENT_DFSCTL_INTERRUPTED_MOUNT_H_

#include <string>

namespace dfscsi::dfsctl {

// After the call that asked for a mount with this key was cancelled. An agent undoes what it makes
// once it has heard of that. True: it had made it just before, and nobody took its answer. Then it
// stays: whoever asked for the same meanwhile was told that it is there. Blocks for some seconds at
// most, while no agent serves; then false.
bool WasMounted(const std::string& socket_dir, const std::string& inode_key);

}  // namespace dfscsi::dfsctl

#endif  // NODE_AGENT_DFSCTL_INTERRUPTED_MOUNT_H_
