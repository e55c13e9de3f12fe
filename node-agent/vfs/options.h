// What a mount's options say about its files.

#ifndef NODE_AGENT_VFS_OPTIONS_H_
#define NODE_AGENT_VFS_OPTIONS_H_

#include <sys/types.h>

#include <string>

#include "absl/time/time.h"
#include "node-agent/vfs/sip_hash.h"

namespace dfscsi::vfs {

// Constant for the life of a Filesystem.
struct Options {
  uid_t uid = 0;
  gid_t gid = 0;
  mode_t file_mode = 0755;  // Permission bits; a READONLY file loses its write bits.
  mode_t dir_mode = 0755;
  bool read_only = false;
  bool user_xattr = true;  // user_xattr: user.* are the server's extended attributes.
  bool locks = true;       // Off (nobrl): the kernel keeps them to itself.
  bool pages = true;       // cache=none: false, every read and write goes to the server.
  bool leases = true;      // Off (nolease): none is asked for. Without pages neither.
  // write_behind: where a server lets this machine alone have a file, a WRITE is answered before
  // the server has it. Needs leases.
  bool write_behind = false;
  bool mf_symlinks = false;  // mfsymlinks: files that stand for symbolic links are links.
  // How long attributes and names are believed, by us and by the kernel.
  absl::Duration actimeo = absl::Seconds(1);
  // failover_identity: an open file is taken up on another target only if size and last-write time
  // there are as last seen. Off: whatever has the file's path is taken.
  bool check_identity = true;
  // failover_identity=strict: nor is a file newly opened there that is older than what this mount
  // has written elsewhere.
  bool refuse_older = false;
  // failover_writes=replay: data that no server has acknowledged is sent to another target once its
  // own is lost, if the file there is as it was before this handle wrote.
  bool replay_writes = false;
  // durable: what is open for writing outlives its connection on the server.
  bool durable = false;
  // For so long: while it is kept, who opens the file may have to wait
  // (docs/adr/0011-durable-handles.md). At most 2 minutes.
  absl::Duration durable_for = absl::Seconds(30);
  // Inode numbers and directory streams are hashed with it. The same for the life of a volume:
  // inode numbers then survive an unmount, and every agent that takes the mount over must use it.
  SipKey key = {};
  std::string name_in_log = "a mount";  // "mount 7 (/mnt/dfs)".
};

}  // namespace dfscsi::vfs

#endif  // NODE_AGENT_VFS_OPTIONS_H_
