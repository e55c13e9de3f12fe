// One open file of the kernel, and the SMB open behind it: on whichever target serves its path now.

#ifndef NODE_AGENT_VFS_OPEN_FILE_H_
#define NODE_AGENT_VFS_OPEN_FILE_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "node-agent/dfs/client.h"
#include "node-agent/runtime/task.h"
#include "node-agent/runtime/wait.h"
#include "node-agent/smb/tree.h"
#include "node-agent/state/inode_table.h"
#include "node-agent/vfs/attributes.h"
#include "node-agent/vfs/filesystem.h"

namespace dfscsi::vfs {

// Not thread-safe; one loop. Held by shared_ptr.
//
// The functions that end in On are operations of dfs::Client::Run: they run on one binding, may be
// run again on another, and return what another target could mend; the file's own outcome goes to
// `result`.
//
// What happens to it when its target is lost:
//   the same path elsewhere with the same size and last-write time   reads go on there
//   a different file there, or none                                  ESTALE, for ever
class OpenFile {
 public:
  static constexpr uint32_t kAccess =
      smb::wire::kAccessReadData | smb::wire::kAccessReadAttributes | smb::wire::kAccessReadEa;

  explicit OpenFile(dfs::DfsPath path) : path_(std::move(path)) {}
  OpenFile(const OpenFile&) = delete;
  // After a takeover: not open yet; to be taken for the same file if it is as `identity` says.
  OpenFile(dfs::DfsPath path, const state::NodeIdentity& identity)
      : path_(std::move(path)), identity_(identity) {}
  // A mount that goes with open files (umount -f) leaves none behind on a server whose session
  // another mount still uses.
  ~OpenFile() { CloseLater(); }

  const dfs::DfsPath& path() const { return path_; }
  const state::NodeIdentity& identity() const { return identity_; }
  // Of the binding under which it is open; 0: it is not open.
  uint64_t epoch() const { return tree_ == nullptr ? 0 : epoch_; }
  const ServerAttributes& seen() const { return seen_; }

  // The first open: its attributes become the file's identity.
  runtime::Task<absl::Status> OpenOn(dfs::Binding binding, runtime::Deadline deadline);

  runtime::Task<absl::Status> ReadOn(dfs::Binding binding, uint64_t offset,
                                     absl::Span<uint8_t> into, bool check_identity,
                                     absl::StatusOr<size_t>* result, Filesystem::Counters* counters,
                                     runtime::Deadline deadline);

  // SEEK_DATA or SEEK_HOLE. ENXIO beyond the end.
  runtime::Task<absl::Status> SeekOn(dfs::Binding binding, uint64_t offset, int whence,
                                     bool check_identity, absl::StatusOr<uint64_t>* result,
                                     Filesystem::Counters* counters, runtime::Deadline deadline);

  void CloseLater();

 private:
  // CREATE of the path on this binding. Never creates, truncates or deletes.
  runtime::Task<absl::Status> Create(dfs::Binding binding, runtime::Deadline deadline);
  runtime::Task<absl::StatusOr<std::optional<uint64_t>>> FindBoundary(uint64_t at, bool data,
                                                                      runtime::Deadline deadline);
  // Makes the open usable on this binding; at most one does it at a time.
  runtime::Task<absl::Status> Rebind(dfs::Binding binding, bool check_identity,
                                     Filesystem::Counters* counters, runtime::Deadline deadline);

  // The server has said that this open is closed.
  void Lose(const smb::Tree& tree, const smb::wire::FileId& file_id);

  const dfs::DfsPath path_;
  std::shared_ptr<smb::Tree> tree_;  // Null: not open anywhere.
  smb::wire::FileId file_id_;
  uint64_t epoch_ = 0;
  state::NodeIdentity identity_;
  ServerAttributes seen_;
  bool stale_ = false;
  runtime::Mutex rebinding_;
};

}  // namespace dfscsi::vfs

#endif  // NODE_AGENT_VFS_OPEN_FILE_H_
