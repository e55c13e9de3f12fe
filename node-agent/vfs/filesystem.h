// One mount as POSIX sees it: names, attributes, open files, directory streams.
//
// Each call below is one request of the kernel. What it returns is what the FUSE reply carries; an
// error becomes the reply's errno by ErrnoOf(status) (errno.h), the only such place.
//
// Node ids and file handles are those of the mount's tables (state/), so they mean the same to the
// next agent: taking a mount over is making a Filesystem on tables that are already full. Then call
// ResumeInvalidations() once the observer can be used.
//
// Not thread-safe; one loop. Tasks must have ended, or been destroyed, before the Filesystem dies.
// A call may be cancelled (INTERRUPT) at any time by its deadline: kCancelled, EINTR. On a hard
// mount a call whose targets are all lost waits until then; so deadlines are Never() but for that.
//
// Errors of every call that reaches a server, besides its own:
//   an NTSTATUS            the server's answer (table: docs of errno.h)
//   kUnavailable           soft mounts, after op_timeout: EHOSTDOWN
//   kPermissionDenied      no target accepts the credential: EACCES
//   kDataLoss              a target broke the protocol: EIO
//   kCancelled             EINTR
//   ESTALE (ErrnoError)    the node, or the handle, names something that is gone. The kernel looks
//                          the path up again by itself.

#ifndef NODE_AGENT_VFS_FILESYSTEM_H_
#define NODE_AGENT_VFS_FILESYSTEM_H_

#include <sys/stat.h>
#include <sys/statvfs.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "node-agent/runtime/deadline.h"
#include "node-agent/runtime/task.h"
#include "node-agent/state/mount_tables.h"
#include "node-agent/vfs/change.h"
#include "node-agent/vfs/lock_model.h"
#include "node-agent/vfs/options.h"

namespace dfscsi::dfs {
class Client;
class DfsPath;
}  // namespace dfscsi::dfs

namespace dfscsi::vfs {

// What the kernel must be told. The fuse layer hands it to dfs-notifier; the calls do not wait.
class Invalidation {
 public:
  virtual ~Invalidation() = default;
  // The pages that the kernel may hold of this node are not the file's any more: INVAL_INODE over
  // all of it (offset 0, length 0). May come again for the same node; need not be confirmed, and
  // may be lost: until an Open() has told the kernel the same (OpenDelivered) and its handle is
  // used, none keeps pages.
  virtual void DataChanged(state::NodeId node) = 0;
  // The same, and returns once the kernel has dropped them. kUnavailable: it could not be told.
  virtual runtime::Task<absl::Status> DropPages(state::NodeId node, runtime::Deadline) {
    DataChanged(node);
    co_return absl::OkStatus();
  }
};

// LOOKUP. fuse_entry_out: nodeid = node, generation = 0.
struct EntryReply {
  state::NodeId node = 0;
  struct stat attributes = {};
  absl::Duration attributes_timeout;  // attr_valid. Of a link not seen of late: 0.
  absl::Duration name_timeout;        // entry_valid. actimeo, also for links.
};

// GETATTR. fuse_attr_out.
struct AttributesReply {
  struct stat attributes = {};
  absl::Duration timeout;               // attr_valid.
  std::optional<absl::Time> born = {};  // When it was made, if the server says so.
};

// OPEN. fuse_open_out.
struct OpenReply {
  state::FileHandle fh = 0;
  bool keep_cache = false;  // FOPEN_KEEP_CACHE: the pages of earlier opens are still the file's.
  bool direct_io = false;   // FOPEN_DIRECT_IO
  bool no_flush = false;    // FOPEN_NOFLUSH: nothing of this handle can be unacknowledged.
  // Not for the kernel. Once it has this answer and uses the handle, its pages are those of the
  // file: OpenDelivered().
  bool renews_pages = false;
};

// One entry of READDIR or READDIRPLUS.
struct DirectoryEntry {
  std::string_view name;     // Never empty, no '/' or NUL. "." and ".." come first.
  uint64_t next_offset = 0;  // `off` of fuse_dirent: where the next READDIR goes on.
  // READDIR uses st_ino and the type bits of st_mode (0: DT_UNKNOWN), READDIRPLUS all of it.
  struct stat attributes = {};
  // READDIRPLUS: as in EntryReply. node 0 tells the kernel to look the name up when it needs it
  // (".", "..", and entries whose attributes a listing does not have). For others one lookup has
  // been counted: if the reply cannot be delivered, Forget(node, 1).
  state::NodeId node = 0;
  absl::Duration attributes_timeout;
  absl::Duration name_timeout;
};

// CREATE. fuse_entry_out, fuse_open_out.
struct CreateReply {
  EntryReply entry;
  OpenReply open;
};

// SETATTR: what is set is changed. Owners are the mount's: never changed.
struct AttributesChange {
  std::optional<uint64_t> size_bytes = {};
  std::optional<mode_t> mode = {};  // Of a file: without write bits it becomes READONLY.
  std::optional<absl::Time> accessed = {};
  std::optional<absl::Time> modified = {};
  std::optional<state::FileHandle> fh = {};  // Through which the size is changed (ftruncate).
};

// Where ReadDirectory puts entries: the fuse layer's reply buffer.
class DirectorySink {
 public:
  virtual ~DirectorySink() = default;
  // Whether an entry with a name of `name_bytes` can still be added.
  virtual bool Fits(size_t name_bytes) const = 0;
  // REQUIRES: Fits(entry.name.size()). Copies.
  virtual void Add(const DirectoryEntry& entry) = 0;
};

class Filesystem {
 public:
  // `tables` may hold the nodes and handles of an agent that is dead (Recover() has been called).
  // `client`, `tables` and `invalidation` must outlive the Filesystem.
  Filesystem(dfs::Client& client, state::MountTables& tables, Invalidation& invalidation,
             Options options);
  ~Filesystem();

  // The inode number of the root of a mount of `source`: for MountTables::Format.
  static uint64_t RootInodeNumber(const SipKey& key, const dfs::DfsPath& source);

  // Once after a takeover: says DataChanged() again for nodes of which the dead agent may not have,
  // and takes the locks again that it held.
  void ResumeInvalidations();

  // LOOKUP. A link known to the referral cache is answered without I/O, any other name by the
  // server of its directory; what a link leads to is never asked. There is no negative entry: a
  // missing name is the error ENOENT, and the kernel asks again. The reply counts one lookup
  // (Forget(node, 1) if it could not be delivered).
  // Errors: ENOENT; ESTALE (parent); ENAMETOOLONG; EILSEQ (the name is not UTF-8).
  runtime::Task<absl::StatusOr<EntryReply>> Lookup(state::NodeId parent, std::string name,
                                                   runtime::Deadline deadline);

  // FORGET and each of BATCH_FORGET. No I/O, no reply.
  void Forget(state::NodeId node, uint64_t lookups);

  // GETATTR. The mount's root and links answer at once from what was last seen, within 1 s if that
  // is nothing; the asking goes on behind (link_sights.h). ENOENT: the name is gone, which of a
  // link its namespace decides.
  runtime::Task<absl::StatusOr<AttributesReply>> GetAttributes(state::NodeId node,
                                                               runtime::Deadline deadline);

  // READLINK. Of a server's own links relative targets only; of files that stand for links
  // (Options::mf_symlinks) whatever was written. Errors: EINVAL (not a symbolic link), ELOOP (it
  // leads out of the mount: to a drive, to a server, above the root), EIO (malformed), EOPNOTSUPP
  // (a kind of link that is not known).
  runtime::Task<absl::StatusOr<std::string>> ReadLink(state::NodeId node,
                                                      runtime::Deadline deadline);

  // OPEN, with the request's O_* flags. One CREATE, which never creates a file; O_TRUNC cuts it
  // then. While a handle is open on the node that reads another file (on a former target of its
  // link, or one that was replaced), nothing that is opened shares pages with it: direct_io. So for
  // O_APPEND: every WRITE goes where the end is on the server.
  // Errors: EISDIR; EROFS.
  runtime::Task<absl::StatusOr<OpenReply>> Open(state::NodeId node, int flags,
                                                ChangeJournal* journal, runtime::Deadline deadline);

  // The kernel has got the answer to OPEN. Until then, and until it uses the handle, the node's
  // pages are not trusted (nor after the death of the agent, by the next one).
  void OpenDelivered(state::NodeId node, const OpenReply& reply);

  // A handle of Open, Create or OpenDirectory is undelivered until the kernel has the answer that
  // names it. To be said behind the record of that answer and before it is forgotten: who dies
  // before leaves a handle that no answer names, or one that is recorded.
  void HandleDelivered(state::FileHandle fh);
  // Once after a takeover, before any request is run: `answered` are the handles in recorded
  // answers, which the kernel has or is about to get. Other undelivered ones, and the lookups that
  // Create has counted for them, are nobody's: their requests are run again. They are closed.
  void CloseUndelivered(const std::vector<state::FileHandle>& answered);

  // READ into `into`, which must live until the task has ended or been destroyed. Returns the bytes
  // read; fewer than asked only at the end of the file. Errors: ESTALE, for ever, once the handle's
  // target is lost and another has a different file by its path; EBADF.
  runtime::Task<absl::StatusOr<size_t>> Read(state::FileHandle fh, uint64_t offset,
                                             absl::Span<uint8_t> into, runtime::Deadline deadline);

  // LSEEK with SEEK_DATA or SEEK_HOLE (the kernel does the others itself). A server without sparse
  // files has one range of data. Errors: ENXIO (beyond the end), EINVAL (another whence).
  runtime::Task<absl::StatusOr<uint64_t>> Seek(state::FileHandle fh, uint64_t offset, int whence,
                                               runtime::Deadline deadline);

  // --- Changes. Each is applied once, or an error says that it is not known whether it was:
  //
  //   not sent to any server     it may go to another target, as reading does
  //   sent, and answered         the answer counts
  //   sent, its answer lost      it waits up to write_grace for that server, which is then asked
  //                              what was done, and does what was not; EIO if it does not come
  //                              back, or cannot tell
  //   sent by a dead agent       the same, by what `journal` says
  //
  // `journal` must live until the task has ended or been destroyed; null for none. Errors of all:
  // EROFS (the mount, or the server's medium, is read-only); EIO (above); EBUSY (a DFS link is no
  // thing of this file system); ENOSPC, EDQUOT.

  // WRITE: all of `from`, on the server when this returns; the journal may have acknowledged it
  // before. `from` must live as long as the journal.
  // Where the handle appends, `offset` is not looked at. EBADF: the handle does not write.
  // `written_bytes` (null: not wanted; as long-lived as `from`): after an error of the server's how
  // much of `from` is there all the same, from its beginning, and is to be told instead; else 0.
  runtime::Task<absl::Status> Write(state::FileHandle fh, uint64_t offset,
                                    absl::Span<const uint8_t> from, ChangeJournal* journal,
                                    runtime::Deadline deadline, size_t* written_bytes = nullptr);
  // WRITE of a handle that was set to append after it was opened (fcntl(F_SETFL)): as if it had
  // been opened so. The kernel has put the bytes where it thought the end to be, so that the node's
  // pages are dropped afterwards.
  runtime::Task<absl::Status> WriteAtEnd(state::FileHandle fh, absl::Span<const uint8_t> from,
                                         ChangeJournal* journal, runtime::Deadline deadline,
                                         size_t* written_bytes = nullptr);
  // FSYNC: what is acknowledged is on the server's disk.
  runtime::Task<absl::Status> Sync(state::FileHandle fh, runtime::Deadline deadline);
  // CREATE, with the request's O_* flags. Counts one lookup, as Lookup does. EEXIST (O_EXCL).
  runtime::Task<absl::StatusOr<CreateReply>> Create(state::NodeId parent, std::string name,
                                                    int flags, ChangeJournal* journal,
                                                    runtime::Deadline deadline);
  // SETATTR.
  runtime::Task<absl::StatusOr<AttributesReply>> SetAttributes(state::NodeId node,
                                                               AttributesChange change,
                                                               ChangeJournal* journal,
                                                               runtime::Deadline deadline);
  // MKDIR. Counts one lookup, as Lookup does. EEXIST.
  runtime::Task<absl::StatusOr<EntryReply>> MakeDirectory(state::NodeId parent, std::string name,
                                                          ChangeJournal* journal,
                                                          runtime::Deadline deadline);
  // UNLINK. A file that this mount has open gets another name until its last RELEASE.
  runtime::Task<absl::Status> Unlink(state::NodeId parent, std::string name, ChangeJournal* journal,
                                     runtime::Deadline deadline);
  // RMDIR. ENOTEMPTY.
  runtime::Task<absl::Status> RemoveDirectory(state::NodeId parent, std::string name,
                                              ChangeJournal* journal, runtime::Deadline deadline);
  // RENAME and RENAME2, with RENAME_NOREPLACE (EEXIST) or nothing in `flags` (else EINVAL). EXDEV:
  // the two names are not below the same link.
  runtime::Task<absl::Status> Rename(state::NodeId parent, std::string name,
                                     state::NodeId new_parent, std::string new_name, uint32_t flags,
                                     ChangeJournal* journal, runtime::Deadline deadline);

  // MKNOD of a regular file. Counts one lookup, as Lookup does. EEXIST.
  runtime::Task<absl::StatusOr<EntryReply>> MakeFile(state::NodeId parent, std::string name,
                                                     ChangeJournal* journal,
                                                     runtime::Deadline deadline);

  // LINK: a second name for the file. The reply is of `node` itself, and counts one lookup of it;
  // looked up by the new name it is a node of its own, of the same inode number. EEXIST; EXDEV: the
  // two are not below the same link; EOPNOTSUPP: the server makes none.
  runtime::Task<absl::StatusOr<EntryReply>> Link(state::NodeId node, state::NodeId new_parent,
                                                 std::string new_name, ChangeJournal* journal,
                                                 runtime::Deadline deadline);

  // FLUSH, by `owner`: its fcntl locks of the file are given back. Without locks, and with every
  // WRITE on its server, at once.
  runtime::Task<absl::Status> Flush(state::FileHandle fh, uint64_t owner,
                                    runtime::Deadline deadline);

  // RELEASE. At once; the server is told afterwards, also of the locks that were taken through it.
  // An fh that is not open does no harm (a request that is run again after a takeover).
  // REQUIRES: AwaitWritten() has ended, where HasUnwritten() says that there is something.
  void Release(state::FileHandle fh);

  // --- WRITEs that were acknowledged, by `journal`, before their server had them: where the file's
  // node has a write lease, nothing is locked, and the server answers. Every other call on the file
  // waits for them. An error of one is kept and is the error of the next Write, WriteAtEnd, Sync or
  // Flush by its handle: IsKeptError(). NoteErrorTold() says that the kernel has that (or will,
  // whoever dies); `error` as it was told.
  bool HasUnwritten(state::FileHandle fh) const;
  runtime::Task<absl::Status> AwaitWritten(state::FileHandle fh, runtime::Deadline deadline);
  // Of the node's file, for who gives a lease back.
  runtime::Task<absl::Status> AwaitNodeWritten(state::NodeId node, runtime::Deadline deadline);
  static bool IsKeptError(const absl::Status& status);
  void NoteErrorTold(state::FileHandle fh, int error);
  // The operation of an acknowledged WRITE by this handle was ended by an exception.
  void LoseWrite(state::FileHandle fh);
  // Which nodes have a write lease, instead of those that a server has given one.
  void SetWriteLeasesForTest(std::function<bool(state::NodeId)> holds);

  // --- Locks (filesystem_locks.cc). They are held on the server, where other machines see them.
  // Errors of both: EIO: the handle's locks were lost, another machine may have had them. ENOLCK.

  // SETLK, SETLKW (`wait`), with or without FUSE_LK_FLOCK. `wanted.fh` says the file. EAGAIN: it is
  // locked by others; EDEADLK: it would be waited for for ever, on this machine.
  runtime::Task<absl::Status> SetLock(FileLock wanted, bool wait, runtime::Deadline deadline);
  // GETLK: what is in the way of `wanted`, of type kNone if nothing is. Of another machine's lock
  // no more is known than its first byte in the range; its pid is 0.
  runtime::Task<absl::StatusOr<FileLock>> GetLock(FileLock wanted, runtime::Deadline deadline);

  // OPENDIR. One frame (CREATE, QUERY_DIRECTORY twice): small directories are then complete.
  // No FOPEN flags.
  runtime::Task<absl::StatusOr<state::FileHandle>> OpenDirectory(state::NodeId node,
                                                                 runtime::Deadline deadline);

  // READDIR, or READDIRPLUS if `plus`, from `offset` (0, or some entry's next_offset). Adds what
  // fits into `sink`, which must live until the task has ended or been destroyed; nothing added and
  // OK: the end. On an error the sink's content must not be used (lookups counted for it have been
  // taken back). Errors: EINVAL (the sink has no room for a single entry); EBADF.
  runtime::Task<absl::Status> ReadDirectory(state::FileHandle fh, uint64_t offset, bool plus,
                                            DirectorySink* sink, runtime::Deadline deadline);

  // RELEASEDIR. As Release.
  void ReleaseDirectory(state::FileHandle fh);

  // STATFS of the share that holds `node`. Within 1 s, from that share's last known values if need
  // be; no blocks before any were known.
  runtime::Task<absl::StatusOr<struct statvfs>> GetStatistics(state::NodeId node,
                                                              runtime::Deadline deadline);

  // ACCESS. The kernel checks modes itself (default_permissions); here only W_OK on a mount that is
  // read-only: EROFS.
  absl::Status Access(state::NodeId node, int mask) const;

  // GETXATTR and LISTXATTR: user.* are the extended attributes of the server. ENODATA: there is
  // none of the name. EOPNOTSUPP: the server has none at all; and for every other name. Without
  // Options::user_xattr: ENOSYS (the kernel then stops asking) for security.*, system.* and lists.
  runtime::Task<absl::StatusOr<std::string>> GetXattr(state::NodeId node, std::string name,
                                                      runtime::Deadline deadline);
  runtime::Task<absl::StatusOr<std::string>> ListXattrs(state::NodeId node,
                                                        runtime::Deadline deadline);

  // SETXATTR, with its XATTR_* flags (EEXIST, ENODATA), and REMOVEXATTR. E2BIG, ENOSPC: too long
  // for any server, for this one. An empty value cannot be kept: EOPNOTSUPP.
  runtime::Task<absl::Status> SetXattr(state::NodeId node, std::string name, std::string value,
                                       int flags, ChangeJournal* journal,
                                       runtime::Deadline deadline);
  runtime::Task<absl::Status> RemoveXattr(state::NodeId node, std::string name,
                                          ChangeJournal* journal, runtime::Deadline deadline);

  // FALLOCATE. EOPNOTSUPP: a mode that neither SMB nor this server has.
  runtime::Task<absl::Status> Allocate(state::FileHandle fh, int mode, uint64_t offset,
                                       uint64_t length_bytes, ChangeJournal* journal,
                                       runtime::Deadline deadline);
  // COPY_FILE_RANGE, on the server. Returns how much was copied; less than asked also before the
  // source's end. EXDEV, EOPNOTSUPP: the kernel copies, then.
  runtime::Task<absl::StatusOr<uint64_t>> CopyRange(state::FileHandle from, uint64_t from_offset,
                                                    state::FileHandle to, uint64_t to_offset,
                                                    uint64_t length_bytes, ChangeJournal* journal,
                                                    runtime::Deadline deadline);

  // SYMLINK, as a file that stands for it (Options::mf_symlinks; without: EOPNOTSUPP). It has its
  // name only when it is whole. Counts one lookup, as Lookup does. EEXIST; ENAMETOOLONG: a target
  // of more than 1024 bytes.
  runtime::Task<absl::StatusOr<EntryReply>> MakeSymlink(state::NodeId parent, std::string name,
                                                        std::string target, ChangeJournal* journal,
                                                        runtime::Deadline deadline);

  // What the changes are answered that SMB does not have (MKNOD of devices and such): EROFS on a
  // read-only mount, else EOPNOTSUPP.
  absl::Status RefuseChange() const;

  // Where a file is open: `//host/share`, also while that is lost. Empty: not since the agent
  // began.
  std::string ShareOf(state::FileHandle fh) const;

  // Of a handle's flags in the table: something was written through it.
  static bool IsWritten(uint32_t handle_flags);
  // The same: a lock was lost that was taken through it.
  static bool IsLockLost(uint32_t handle_flags);

  // For tests and metrics.
  struct Counters {
    int64_t attribute_hits = 0;  // Answered without I/O.
    int64_t attribute_misses = 0;
    int64_t data_changes = 0;   // DataChanged() calls.
    int64_t rebinds = 0;        // Handles opened again on another binding.
    int64_t stale_handles = 0;  // Handles lost to a different file.
    int64_t relisted_directories = 0;
    int64_t last_known_answers = 0;  // Answers from last known values, the target being silent.
    int64_t last_known_kept = 0;     // Now: links, and the root, of which such values are kept.
    int64_t refused_names = 0;       // Names from a server that must not reach the kernel.
    int64_t lost_answers = 0;        // Changes that were sent and not answered.
    int64_t unknown_changes = 0;     // Of them, those of which it never became known: EIO.
    int64_t replayed_writes = 0;     // Lost with their server, and sent to another copy.
    int64_t durable_reconnects = 0;  // Of `rebinds`, those whose server had kept the handle.
    int64_t older_copies = 0;        // Opened, though this mount had written elsewhere.
    int64_t hidden_files = 0;        // Open files that got another name when theirs was removed.
    int64_t retaken_locks = 0;       // Ranges, after a takeover, a failover or a server's restart.
    int64_t lost_locks = 0;          // Of them, those that another machine had by then.
    int64_t lease_breaks = 0;        // Leases that a server took down, in part or as a whole.
    int64_t early_writes = 0;        // Acknowledged before their server had them.
    int64_t early_failures = 0;      // Of those, and of a dead agent's: what failed later.
    int64_t unproven_writes = 0;     // Of them: another machine may have changed the file.
  };
  const Counters& counters() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace dfscsi::vfs

#endif  // NODE_AGENT_VFS_FILESYSTEM_H_
