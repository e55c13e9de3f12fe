#include "node-agent/vfs/attributes.h"

#include <algorithm>
#include <limits>

#include "node-agent/smb/wire/filetime.h"
#include "node-agent/smb/wire/reparse.h"

namespace dfscsi::vfs {
namespace {

constexpr mode_t kWriteBits = 0222;

timespec TimeOf(uint64_t filetime, uint64_t otherwise) {
  std::optional<absl::Time> time = smb::wire::TimeOfFileTime(filetime);
  if (!time.has_value()) time = smb::wire::TimeOfFileTime(otherwise);
  return time.has_value() ? absl::ToTimespec(*time) : timespec{};
}

off_t SizeOf(uint64_t size) {
  return static_cast<off_t>(
      std::min<uint64_t>(size, static_cast<uint64_t>(std::numeric_limits<off_t>::max())));
}

}  // namespace

bool IsSymlink(const ServerAttributes& attributes) {
  if (attributes.mf_target_bytes > 0) return true;
  return attributes.file.Has(smb::wire::kAttributeReparsePoint) &&
         (attributes.reparse_tag == smb::wire::kTagSymlink ||
          attributes.reparse_tag == smb::wire::kTagLxSymlink ||
          attributes.reparse_tag == smb::wire::kTagMountPoint);
}

std::optional<absl::Time> BornOf(const ServerAttributes& attributes) {
  return smb::wire::TimeOfFileTime(attributes.file.creation_time);
}

struct stat StatOf(const ServerAttributes& attributes, uint64_t ino, const Options& options) {
  const smb::wire::FileAttributes& file = attributes.file;
  struct stat st = {};
  st.st_ino = ino;
  st.st_nlink = 1;
  st.st_uid = options.uid;
  st.st_gid = options.gid;
  if (IsSymlink(attributes)) {
    st.st_mode = S_IFLNK | 0777;
  } else if (file.Has(smb::wire::kAttributeDirectory)) {
    st.st_mode = S_IFDIR | options.dir_mode;
    st.st_nlink = 2;
  } else {
    st.st_nlink = std::max<nlink_t>(1, attributes.names);
    mode_t mode = options.file_mode;
    if (file.Has(smb::wire::kAttributeReadonly)) mode &= ~kWriteBits;
    st.st_mode = S_IFREG | mode;
  }
  st.st_size = S_ISDIR(st.st_mode) ? 0 : SizeOf(file.end_of_file);
  if (attributes.mf_target_bytes > 0) st.st_size = attributes.mf_target_bytes;
  // The server's allocation may be a multiple of what is there (roundup of preallocation): never
  // more blocks than the size needs and a cluster.
  const uint64_t most = file.end_of_file > std::numeric_limits<uint64_t>::max() - 65535
                            ? file.end_of_file
                            : file.end_of_file + 65535;
  st.st_blocks = SizeOf(std::min(file.allocation_size, most)) / 512;
  st.st_blksize = 1 << 20;
  st.st_mtim = TimeOf(file.last_write_time, 0);
  st.st_atim = TimeOf(file.last_access_time, file.last_write_time);
  st.st_ctim = TimeOf(file.change_time, file.last_write_time);
  return st;
}

struct stat SyntheticDirectory(uint64_t ino, const Options& options) {
  struct stat st = {};
  st.st_ino = ino;
  st.st_nlink = 2;
  st.st_uid = options.uid;
  st.st_gid = options.gid;
  st.st_mode = S_IFDIR | options.dir_mode;
  st.st_blksize = 1 << 20;
  return st;
}

state::NodeIdentity IdentityOf(const ServerAttributes& attributes, uint64_t epoch) {
  return {.size_bytes = attributes.file.end_of_file,
          .last_write = attributes.file.last_write_time,
          .file_id = attributes.file_id,
          .attributes = attributes.file.attributes,
          .epoch = static_cast<uint32_t>(epoch)};
}

bool DataDiffers(const state::NodeIdentity& before, const state::NodeIdentity& now) {
  if (before.size_bytes != now.size_bytes || before.last_write != now.last_write) return true;
  return before.epoch == now.epoch && before.file_id != 0 && now.file_id != 0 &&
         before.file_id != now.file_id;
}

bool SharesPages(const state::NodeIdentity& one, const state::NodeIdentity& other) {
  if (one.epoch == other.epoch && one.file_id != 0 && other.file_id != 0) {
    return one.file_id == other.file_id;
  }
  return one.size_bytes == other.size_bytes && one.last_write == other.last_write;
}

bool IsSameCopy(const state::NodeIdentity& before, const state::NodeIdentity& now) {
  constexpr uint64_t kTwoSeconds = 20'000'000;  // FILETIME ticks of 100 ns.
  const uint64_t apart = before.last_write > now.last_write ? before.last_write - now.last_write
                                                            : now.last_write - before.last_write;
  return before.size_bytes == now.size_bytes && apart <= kTwoSeconds;
}

}  // namespace dfscsi::vfs
