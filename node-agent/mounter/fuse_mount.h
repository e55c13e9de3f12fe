// mount(2), FUSE_INIT, umount(2): what needs CAP_SYS_ADMIN, without ever touching what is mounted.
//
// A stat, open or close on a FUSE mount is a request to the agent, and while none runs it waits for
// ever. So nothing here looks into a mount: its device number is read from mountinfo, paths are
// opened before the mount covers them, and no fd on a mount is held.

#ifndef NODE_AGENT_MOUNTER_FUSE_MOUNT_H_
#define NODE_AGENT_MOUNTER_FUSE_MOUNT_H_

#include <cstdint>
#include <optional>
#include <string>
#include <utility>

#include "node-agent/base/unique_fd.h"
#include "node-agent/state/mount_info.h"
#include "node-agent/state/mounter_protocol.h"

namespace dfscsi::mounter {

// The folder below which all mount points must lie.
class MountRoot {
 public:
  // `path`: absolute. Errors: it cannot be opened.
  static std::optional<MountRoot> Open(const std::string& path);

  struct Made {
    UniqueFd fuse_fd;  // O_NONBLOCK
    uint32_t dev_minor = 0;
    std::string init_in;
    std::string init_out;
  };
  // Mounts, answers FUSE_INIT, sets the read-ahead. On an error nothing is left mounted.
  std::optional<state::Error> Mount(const state::MountRequest& request, Made* made) const;

  // Takes the mount at this path out of the tree; only one of our file system type.
  // EINVAL: there is none there (somebody else was faster).
  std::optional<state::Error> Unmount(const std::string& mount_point, bool force) const;

 private:
  MountRoot(std::string path, UniqueFd fd) : path_(std::move(path)), fd_(std::move(fd)) {}
  // The path below the root, without its leading '/'.
  std::optional<state::Error> Relative(const std::string& mount_point, std::string* relative) const;
  UniqueFd OpenBeneath(const std::string& relative) const;

  std::string path_;  // Without a slash at its end; "" for "/".
  UniqueFd fd_;
};

// True: the connection is over (unmounted or aborted). Asks the device, not the mount.
bool IsGone(int fuse_fd);
// It is a /dev/fuse and not something else that an agent sent.
bool IsFuseDevice(int fd);

}  // namespace dfscsi::mounter

#endif  // NODE_AGENT_MOUNTER_FUSE_MOUNT_H_
