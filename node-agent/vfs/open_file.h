// One open file of the kernel, and the SMB open behind it: on whichever target serves its path now.

#ifndef NODE_AGENT_VFS_OPEN_FILE_H_
#define NODE_AGENT_VFS_OPEN_FILE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
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
#include "node-agent/vfs/change.h"
#include "node-agent/vfs/durable_handle.h"
#include "node-agent/vfs/file_lease.h"
#include "node-agent/vfs/filesystem.h"

namespace dfscsi::vfs {

// Not thread-safe; one loop. Held by shared_ptr.
//
// The functions that end in On are operations of dfs::Client::Run: they run on one binding, may be
// run again on another, and return what another target could mend; the file's own outcome goes to
// `result`.
//
// What happens to it when its target is lost:
//   the same server again, and the same file (its id)                it goes on there
//   elsewhere, or another id: the same size and last-write time as
//   last seen, and nothing was written through this handle           it goes on there
//   a different file, or none                                        ESTALE, for ever
//   elsewhere, and this mount has made another file of its name
//   on some server since it was opened: it is that one, most likely  ESTALE, for ever
// Opening it again never creates, truncates or deletes anything. While a WRITE is out whose answer
// has not come, the handle does not leave its server.
class OpenFile {
 public:
  // The SMB access that open(2) flags ask for.
  static uint32_t AccessOf(int flags);

  OpenFile(dfs::DfsPath path, int flags) : path_(std::move(path)), access_(AccessOf(flags)) {}
  // After a takeover: not open yet; to be taken for the same file if it is as said.
  OpenFile(dfs::DfsPath path, int flags, const state::NodeIdentity& identity, uint64_t server_key,
           bool written)
      : path_(std::move(path)),
        access_(AccessOf(flags)),
        server_key_(server_key),
        identity_(identity),
        written_(written),
        bound_(written) {}
  OpenFile(const OpenFile&) = delete;
  // A mount that goes with open files (umount -f) leaves none behind on a server whose session
  // another mount still uses.
  ~OpenFile() { CloseLater(); }

  // Asks for a lease whenever it is opened from now on; null: for none.
  void UseLease(std::shared_ptr<FileLease> lease) { lease_ = std::move(lease); }
  const std::shared_ptr<FileLease>& lease() const { return lease_; }
  // Asks for a durable handle that is kept for so long, if it writes and has a lease.
  void AskDurable(absl::Duration kept_for) { durable_for_ = kept_for; }
  // What the dead agent had; to be taken up where it is opened next.
  void ResumeDurable(const DurableHandle& handle) {
    durable_ = handle;
    if (lease_ != nullptr) lease_->UseKey(handle.lease_key);
  }
  // nullopt: what it is open as, or was, is not durable.
  const std::optional<DurableHandle>& durable() const { return durable_; }
  // Its server may keep it although its connection is gone.
  bool IsLeftBehind() const {
    return durable_.has_value() && (tree_ == nullptr || !tree_->usable());
  }
  // Not only its node does: what is open may be another file, which has the name now.
  bool HoldsWriteLease() const {
    return tenure_ != nullptr && (tenure_->state() & smb::wire::kLeaseWrite) != 0;
  }
  // Which open of a server this is. What was acknowledged early under one may be sent by it; by
  // another one once it is proven that nobody else has changed the file in between, which is so of
  // a durable handle that was taken up with its lease.
  uint64_t instance() const { return instance_; }
  bool MaySendOf(uint64_t instance) const {
    return lapsed_ != instance_ && (instance == instance_ || proven_ == instance_);
  }
  // The lease was given back, or it cannot be proven: for as long as it is open so.
  void NoteLapsed() { lapsed_ = instance_; }
  // REQUIRES: it is open on `tree` as `file_id`. OK: it is proven by the file's size, which is
  // `least_bytes` or more, and nobody else has it open. EIO: it is not.
  runtime::Task<absl::Status> ProveOn(std::shared_ptr<smb::Tree> tree, smb::wire::FileId file_id,
                                      uint64_t least_bytes, runtime::Deadline deadline);
  // Reads what is there of so many bytes, also by a handle that only writes. Under the same lease.
  runtime::Task<absl::StatusOr<size_t>> ReadUnderLease(std::shared_ptr<smb::Tree> tree,
                                                       smb::wire::FileId file_id, uint64_t offset,
                                                       absl::Span<uint8_t> into,
                                                       runtime::Deadline deadline);
  bool IsReadLeaseLost(absl::Time now) const {
    return tenure_ != nullptr && tenure_->IsReadLost(now);
  }

  const dfs::DfsPath& path() const { return path_; }
  // It was looked for by a name that was not its own any more. False: it is not stale.
  bool ForgetStale() { return std::exchange(stale_, false); }
  // It, or a directory above it, was renamed.
  void SetPath(dfs::DfsPath path) { path_ = std::move(path); }
  // Every WRITE goes to the end, wherever that is by then.
  bool appends() const {
    return (access_ & (smb::wire::kAccessWriteData | smb::wire::kAccessAppendData)) ==
           smb::wire::kAccessAppendData;
  }
  bool writes() const {
    return (access_ & (smb::wire::kAccessWriteData | smb::wire::kAccessAppendData)) != 0;
  }
  uint32_t access() const { return access_; }
  // `//host/share` that it is open on, or was before its connection was lost; empty: on none.
  std::string ShareOf() const;
  // Of the server that it was last open on.
  uint64_t server_key() const { return server_key_; }
  // Something was sent to be written: other copies are not this file any more.
  bool written() const { return written_; }
  // The same, where the change goes another way.
  void NoteWritten() {
    written_ = true;
    bound_ = true;
  }
  // This mount has made another file of its name on another server: two new files are alike, empty
  // and of the same second, and are not the same.
  void NoteAnotherMade() { has_another_ = true; }
  // The server says that its first open has made it.
  bool made() const { return made_; }
  // Its server has acknowledged a change of the file, through whichever handle.
  void NoteAcknowledged() { bound_ = true; }
  // False once a server has what was written, or may have what cannot be sent anew.
  bool may_be_replayed() const { return !bound_; }
  // Its server is lost with all that was sent there, and that will be sent anew: other copies are
  // the file, if they are as it was before. REQUIRES: may_be_replayed().
  void GiveUpSent() { written_ = false; }
  const state::NodeIdentity& identity() const { return identity_; }
  // Of the binding under which it is open; 0: it is not open.
  uint64_t epoch() const { return tree_ == nullptr ? 0 : epoch_; }
  const ServerAttributes& seen() const { return seen_; }
  // It is open, and its server answers.
  bool IsHealthy() const;
  // Of the server's clock, before ours; zero: it is not open.
  absl::Duration clock_ahead() const;
  // A server sets the last-write time when a handle that has written is closed, but for one that
  // has set it itself: NoteTimeSet(). What is written by it then is of late_write(), and nobody but
  // us tells the server. [MS-FSA] 2.1.5.14.2
  void NoteTimeSet() {
    sets_time_ = true;
    late_write_.reset();
  }
  void NoteWriteAt(absl::Time when) {
    if (sets_time_) late_write_ = when;
  }
  std::optional<absl::Time> late_write() const { return late_write_; }
  // What a change through this handle has made of its size.
  void NoteSize(uint64_t size_bytes) { seen_.file.end_of_file = size_bytes; }

  // The first open: its attributes become the file's identity. `disposition` alone may create.
  // `directory` (null: not wanted) must live until this returns or is destroyed: what the file's
  // directory is like after it, if that was to be had in the same frame.
  runtime::Task<absl::Status> OpenOn(
      dfs::Binding binding, runtime::Deadline deadline,
      smb::wire::Disposition disposition = smb::wire::Disposition::kOpen,
      std::optional<ServerAttributes>* directory = nullptr);

  // Counts in `Unsettled` what was sent and not answered.
  class Unsettled {
   public:
    explicit Unsettled(OpenFile& file) : file_(file) {}
    Unsettled(const Unsettled&) = delete;
    ~Unsettled() { Settle(); }
    // `again`: it can be sent anew, to whichever server the handle is open on by then.
    void Send(bool again = false);
    void Settle();

   private:
    OpenFile& file_;
    bool counted_ = false;
  };

  // What a WRITE, FLUSH or SET_INFO through the handle does, once it is open on the binding.
  using Act =
      std::function<runtime::Task<absl::Status>(std::shared_ptr<smb::Tree>, smb::wire::FileId)>;
  // Runs `act` on the handle, opened again here if need be. An NTSTATUS of `act` is returned as it
  // is; ESTALE: another file, or none, is here.
  runtime::Task<absl::Status> ActOn(dfs::Binding binding, Act act, bool check_identity,
                                    Filesystem::Counters* counters, runtime::Deadline deadline);

  runtime::Task<absl::Status> ReadOn(dfs::Binding binding, uint64_t offset,
                                     absl::Span<uint8_t> into, bool check_identity,
                                     absl::StatusOr<size_t>* result, Filesystem::Counters* counters,
                                     runtime::Deadline deadline);

  // Its handle, if it is open on this share of this session; the call does not open it.
  std::optional<smb::wire::FileId> TryIdOn(const smb::Tree& tree) const {
    return tree_.get() == &tree ? std::optional<smb::wire::FileId>(file_id_) : std::nullopt;
  }

  // The share and the session that it is open on, or was until that was lost; null: on none.
  const std::shared_ptr<smb::Tree>& tree() const { return tree_; }

  // SEEK_DATA or SEEK_HOLE. ENXIO beyond the end.
  runtime::Task<absl::Status> SeekOn(dfs::Binding binding, uint64_t offset, int whence,
                                     bool check_identity, absl::StatusOr<uint64_t>* result,
                                     Filesystem::Counters* counters, runtime::Deadline deadline);

  // Where the lease was broken: asks for R again, so that what is read then is told if it is
  // outdated. Of no avail if it is not open on this binding; OK always.
  runtime::Task<absl::Status> AskForReadAgainOn(dfs::Binding binding, runtime::Deadline deadline);

  void CloseLater();

 private:
  // CREATE of the path on this binding.
  runtime::Task<absl::Status> Create(dfs::Binding binding, smb::wire::Disposition disposition,
                                     std::optional<ServerAttributes>* directory,
                                     runtime::Deadline deadline);
  // The same, with a lease, and without one where the server refuses that. `*tenure` is the
  // lease's, null if none was granted.
  runtime::Task<absl::StatusOr<smb::OpenedFile>> CreateLeased(dfs::Binding binding,
                                                              smb::wire::CreateRequest create,
                                                              bool looks_at_directory,
                                                              std::shared_ptr<LeaseTenure>* tenure,
                                                              std::optional<DurableHandle>* durable,
                                                              runtime::Deadline deadline);
  bool IsOpenOn(const dfs::Binding& binding) const { return tree_ == binding.tree; }
  // Of Rebind(): true if the durable handle was taken up, and nothing else is to be done.
  runtime::Task<absl::StatusOr<bool>> TakeUpOn(dfs::Binding binding, runtime::Deadline deadline);
  // Whether what was just opened is still the file.
  bool IsSameFile(bool same_server, bool check_identity, const state::NodeIdentity& now) const;
  // `tree` must live until this returns or is destroyed.
  static runtime::Task<absl::StatusOr<std::optional<uint64_t>>> FindBoundary(
      smb::Tree& tree, smb::wire::FileId file_id, uint64_t at, uint64_t size, bool data,
      runtime::Deadline deadline);
  // Makes the open usable on this binding; at most one does it at a time.
  runtime::Task<absl::Status> Rebind(dfs::Binding binding, bool check_identity,
                                     Filesystem::Counters* counters, runtime::Deadline deadline);

  // The server has said that this open is closed.
  void Lose(const smb::Tree& tree, const smb::wire::FileId& file_id);

  dfs::DfsPath path_;
  const uint32_t access_;
  std::shared_ptr<smb::Tree> tree_;  // Null: not open anywhere.
  smb::wire::FileId file_id_;
  std::shared_ptr<FileLease> lease_;     // Null: it asks for none.
  std::shared_ptr<LeaseTenure> tenure_;  // Null: the open has none.
  absl::Duration durable_for_;           // Zero: it asks for no durable handle.
  std::optional<DurableHandle> durable_;
  uint64_t epoch_ = 0;
  uint64_t server_key_ = 0;  // 0: never open, or not known after a takeover.
  state::NodeIdentity identity_;
  ServerAttributes seen_;
  bool stale_ = false;
  bool written_ = false;
  bool bound_ = false;
  bool has_another_ = false;
  bool made_ = false;
  bool sets_time_ = false;
  std::optional<absl::Time> late_write_;
  std::u16string name_;    // On its share, when it was opened.
  uint64_t instance_ = 0;  // 0: it was not open yet.
  uint64_t proven_ = 0;
  uint64_t lapsed_ = ~uint64_t{0};
  bool has_same_id_ = false;  // As the file that was opened first.
  runtime::Mutex proving_;
  runtime::Mutex rebinding_;
  int unsettled_ = 0;
  runtime::Condition settled_;
};

}  // namespace dfscsi::vfs

#endif  // NODE_AGENT_VFS_OPEN_FILE_H_
