// What each FUSE request asks of vfs::Filesystem. Private to fuse/.

#ifndef NODE_AGENT_FUSE_OPERATIONS_H_
#define NODE_AGENT_FUSE_OPERATIONS_H_

struct fuse_lowlevel_ops;

namespace dfscsi::fuse {

// Callbacks for a fuse_session whose user data is a Session. Every request that this engine does
// not have is answered with a proper error: ENOSYS would be remembered by the kernel for the life
// of the mount, which may be longer than ours.
const fuse_lowlevel_ops& Operations();

}  // namespace dfscsi::fuse

#endif  // NODE_AGENT_FUSE_OPERATIONS_H_
