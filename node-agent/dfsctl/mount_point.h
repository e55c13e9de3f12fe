// Mount points as people write them, and what the kernel says of them. No server and no agent is
// asked: a mount may be one that does not answer.

#ifndef NODE_AGENT_DFSCTL_MOUNT_POINT_H_
#define NODE_AGENT_DFSCTL_MOUNT_POINT_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "proto/agent.pb.h"

namespace dfscsi::dfsctl {

// Errors of all have the reason BAD_MOUNT_POINT, but for a system call's that should not fail.

// To mount on: an existing directory, absolute and without symbolic links. Also an error: a dead
// mount is there.
absl::StatusOr<std::string> CheckMountPoint(const std::string& path);

// To unmount: absolute; a symbolic link is followed, as umount does.
absl::StatusOr<std::string> ResolveMountPoint(const std::string& path);

// Without a mounter: only this user's own rights are needed.
absl::Status UnmountAlone(const std::string& mount_point, bool force);

// Mounts that are ours by type, are not in `response`, and whose programs all died.
void AddDeadMounts(agent::v1::ListMountsResponse* response);

}  // namespace dfscsi::dfsctl

#endif  // NODE_AGENT_DFSCTL_MOUNT_POINT_H_
