// One open directory: entries from the server, in the order in which the kernel was given them.
//
// SMB has no position in a listing that outlives its handle, and copies list in different orders.
// So the offsets that the kernel sees are ordinals in this stream, the hashes of all names given
// out are kept in the handle table, and a listing that is begun anew (another target, another
// agent) leaves those names out.

#ifndef NODE_AGENT_VFS_DIRECTORY_STREAM_H_
#define NODE_AGENT_VFS_DIRECTORY_STREAM_H_

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "node-agent/dfs/client.h"
#include "node-agent/runtime/task.h"
#include "node-agent/runtime/wait.h"
#include "node-agent/smb/tree.h"
#include "node-agent/state/handle_table.h"
#include "node-agent/vfs/attribute_cache.h"
#include "node-agent/vfs/attributes.h"
#include "node-agent/vfs/sip_hash.h"

namespace dfscsi::vfs {

// Not thread-safe; one loop. Calls do not overlap: the kernel holds the directory's position lock,
// and Filesystem takes `turn` besides.
class DirectoryStream {
 public:
  struct Entry {
    std::string name;
    ServerAttributes attributes;
    AttributeCache::Times seen;  // Of the page that it stands on.
  };

  // `fh` 0: to be opened. It stands in the table only once there is something to answer OPENDIR
  // with (set_handle): an agent that dies before leaves no handle that nobody knows.
  DirectoryStream(dfs::DfsPath path, state::HandleTable& handles, state::FileHandle fh,
                  const SipKey& key)
      : path_(std::move(path)), handles_(handles), fh_(fh), key_(key) {}
  DirectoryStream(const DirectoryStream&) = delete;
  ~DirectoryStream() { CloseLater(); }  // As ~OpenFile.

  void set_handle(state::FileHandle fh) { fh_ = fh; }
  const dfs::DfsPath& path() const { return path_; }
  uint64_t epoch() const { return epoch_; }
  runtime::Mutex& turn() { return turn_; }

  // Makes the entry of ordinal `position` available (0: the first name; "." and ".." are not here),
  // on this binding. OK and At() null: the end. Errors: the server's, kept for the caller to fail
  // over.
  runtime::Task<absl::Status> Seek(uint64_t position, dfs::Binding binding,
                                   runtime::Deadline deadline);
  // Valid until the next Seek. Null: not fetched, or the end.
  const Entry* At(uint64_t position) const;
  bool at_end(uint64_t position) const { return complete_ && position >= base_ + window_.size(); }
  // The name of this ordinal goes to the kernel in the reply being made.
  absl::Status NoteGiven(uint64_t position);

  // The server has dropped the handle: the next Seek lists anew.
  void Lose() { tree_ = nullptr; }

  // Tells the server, later, that the handle is done with.
  void CloseLater();
  // The most entries that were in memory at once: some pages, whatever the directory's length and
  // however slowly it is read.
  size_t most_entries_held() const { return most_entries_held_; }
  int64_t relisted() const { return relisted_; }
  int64_t refused_names() const { return refused_names_; }

 private:
  // Entries behind the kernel's position that are kept: it re-reads what did not fit its caller's
  // buffer.
  static constexpr size_t kKeptBehind = 4096;

  runtime::Task<absl::Status> Restart(dfs::Binding binding, runtime::Deadline deadline);
  absl::Status Take(const smb::DirectoryPages& pages, absl::Time asked);
  void DropBehind(uint64_t position);
  // Names that were given to the kernel.
  uint64_t given() const { return fh_ == 0 ? 0 : handles_.StreamLength(fh_); }
  uint64_t HashOf(std::string_view name) const { return SipHash(key_, name); }

  const dfs::DfsPath path_;
  state::HandleTable& handles_;
  state::FileHandle fh_;
  const SipKey key_;
  runtime::Mutex turn_;

  std::shared_ptr<smb::Tree> tree_;  // Null: no listing under way.
  smb::wire::FileId file_id_;
  uint64_t epoch_ = 0;
  bool complete_ = false;
  uint64_t base_ = 0;  // Ordinal of window_.front().
  std::deque<Entry> window_;
  absl::flat_hash_set<uint64_t> skip_;  // Names given out by an earlier listing.
  int64_t relisted_ = 0;
  int64_t refused_names_ = 0;
  size_t most_entries_held_ = 0;
};

}  // namespace dfscsi::vfs

#endif  // NODE_AGENT_VFS_DIRECTORY_STREAM_H_
