// Server attributes as POSIX sees them.

#ifndef NODE_AGENT_VFS_ATTRIBUTES_H_
#define NODE_AGENT_VFS_ATTRIBUTES_H_

#include <sys/stat.h>

#include <cstdint>
#include <optional>

#include "absl/time/time.h"
#include "node-agent/smb/wire/file_attributes.h"
#include "node-agent/state/inode_table.h"
#include "node-agent/vfs/options.h"

namespace dfscsi::vfs {

// What a listing or a stat said of one object.
struct ServerAttributes {
  smb::wire::FileAttributes file;
  uint32_t reparse_tag = 0;
  uint64_t file_id = 0;
  uint32_t mf_target_bytes = 0;  // > 0: a file that stands for a link (mf_symlink.h), looked into.
  uint32_t names = 0;            // Of the file (hard links); 0: not known, as in listings.
};

// True for what readlink(2) can answer.
bool IsSymlink(const ServerAttributes& attributes);

// When it was made; nullopt: the server does not say.
std::optional<absl::Time> BornOf(const ServerAttributes& attributes);

// st_ino and the rest of struct stat. Times that a server does not know are those of the last
// write, or zero.
struct stat StatOf(const ServerAttributes& attributes, uint64_t ino, const Options& options);

// A directory of which nothing is known but that it is one: a link whose target was not asked.
struct stat SyntheticDirectory(uint64_t ino, const Options& options);

state::NodeIdentity IdentityOf(const ServerAttributes& attributes, uint64_t epoch);

// True if the data behind two sights of one path may differ: what the kernel's pages hold is to be
// dropped. File ids count only within one epoch.
bool DataDiffers(const state::NodeIdentity& before, const state::NodeIdentity& now);

// True if handles that were opened as these two may fill one set of pages: they read one file on
// one server, changed since or not, or copies that do not differ.
bool SharesPages(const state::NodeIdentity& one, const state::NodeIdentity& other);

// True if a copy on another target may stand for the one that was open: same size, last write
// within two seconds (copies by tools that round times).
bool IsSameCopy(const state::NodeIdentity& before, const state::NodeIdentity& now);

}  // namespace dfscsi::vfs

#endif  // NODE_AGENT_VFS_ATTRIBUTES_H_
