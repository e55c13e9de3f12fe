// What the filesystem_*.cc files share: the state of one mount and the calls of filesystem.h on it.
//
// filesystem.h says what each call means; here it says only where the call is written, and what the
// parts may ask of each other. One part, one file; nothing outside filesystem*.cc includes this.

#ifndef NODE_AGENT_VFS_FILESYSTEM_IMPL_H_
#define NODE_AGENT_VFS_FILESYSTEM_IMPL_H_

#include <sys/stat.h>
#include <sys/statvfs.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/container/btree_set.h"
#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "node-agent/dfs/client.h"
#include "node-agent/runtime/deadline.h"
#include "node-agent/runtime/loop.h"
#include "node-agent/runtime/task.h"
#include "node-agent/runtime/wait.h"
#include "node-agent/state/mount_tables.h"
#include "node-agent/vfs/appends.h"
#include "node-agent/vfs/attribute_cache.h"
#include "node-agent/vfs/attributes.h"
#include "node-agent/vfs/change.h"
#include "node-agent/vfs/directory_stream.h"
#include "node-agent/vfs/file_lease.h"
#include "node-agent/vfs/file_locks.h"
#include "node-agent/vfs/filesystem.h"
#include "node-agent/vfs/hard_links.h"
#include "node-agent/vfs/link_sights.h"
#include "node-agent/vfs/name_doubts.h"
#include "node-agent/vfs/open_file.h"
#include "node-agent/vfs/options.h"
#include "node-agent/vfs/write_behind.h"
#include "node-agent/vfs/written_record.h"

namespace dfscsi::vfs {

class Filesystem::Impl {
 public:
  Impl(dfs::Client& client, state::MountTables& tables, Invalidation& invalidation,
       Options options);
  ~Impl();

  const Counters& counters() const { return counters_; }

  // --- Names and nodes: filesystem_names.cc

  static uint64_t NumberOf(const SipKey& key, const dfs::DfsPath& path);
  runtime::Task<absl::StatusOr<EntryReply>> Lookup(state::NodeId parent, std::string name,
                                                   runtime::Deadline deadline);
  void Forget(state::NodeId node, uint64_t lookups);

  // --- Attributes: filesystem_attributes.cc

  runtime::Task<absl::StatusOr<AttributesReply>> GetAttributes(state::NodeId node,
                                                               runtime::Deadline deadline);
  // Of the node whose path that was at `names_since` (NameDoubts::now()). Nothing: its name has
  // been changed since, or is being changed.
  runtime::Task<std::optional<absl::StatusOr<AttributesReply>>> GetAttributesByName(
      state::NodeId node, dfs::DfsPath path, uint64_t names_since, runtime::Deadline deadline);
  absl::Status Access(int mask) const;
  void ResumeInvalidations();

  // --- Open files: filesystem_open_files.cc

  runtime::Task<absl::StatusOr<OpenReply>> Open(state::NodeId node, int flags,
                                                ChangeJournal* journal, runtime::Deadline deadline);
  // IsNameMoved(): as CheckNotMoved().
  runtime::Task<absl::StatusOr<OpenReply>> OpenByName(state::NodeId node, dfs::DfsPath path,
                                                      uint64_t names_since, int flags,
                                                      ChangeJournal* journal,
                                                      runtime::Deadline deadline);
  void OpenDelivered(state::NodeId node, const OpenReply& reply);
  std::string ShareOf(state::FileHandle fh) const {
    const auto file = files_.find(fh);
    return file == files_.end() ? "" : file->second->ShareOf();
  }
  // filesystem_undelivered.cc
  void HandleDelivered(state::FileHandle fh);
  void CloseUndelivered(const std::vector<state::FileHandle>& answered);
  // A request came by the handle. The kernel drops a node's pages in open(2) itself, some time
  // after it has the answer: not before a handle is used are they those of its file, and may be
  // kept.
  void NoteUse(state::FileHandle fh);
  runtime::Task<absl::StatusOr<size_t>> Read(state::FileHandle fh, uint64_t offset,
                                             absl::Span<uint8_t> into, runtime::Deadline deadline);
  runtime::Task<absl::StatusOr<uint64_t>> Seek(state::FileHandle fh, uint64_t offset, int whence,
                                               runtime::Deadline deadline);
  void Release(state::FileHandle fh);
  absl::Status RefuseChange() const;
  // EROFS where nothing may be changed.
  absl::Status MayChange() const;

  // --- Changes of content and attributes: filesystem_writes.cc

  runtime::Task<absl::Status> Write(state::FileHandle fh, uint64_t offset,
                                    absl::Span<const uint8_t> from, ChangeJournal* journal,
                                    runtime::Deadline deadline, size_t* written_bytes,
                                    WriteBehind::Range early = {});
  runtime::Task<absl::Status> Sync(state::FileHandle fh, runtime::Deadline deadline);
  runtime::Task<absl::StatusOr<CreateReply>> Create(state::NodeId parent, std::string name,
                                                    int flags, ChangeJournal* journal,
                                                    runtime::Deadline deadline);
  runtime::Task<absl::StatusOr<AttributesReply>> SetAttributes(state::NodeId node,
                                                               AttributesChange change,
                                                               ChangeJournal* journal,
                                                               runtime::Deadline deadline);
  // What was last seen of the node, with what SETATTR has done to it since.
  absl::StatusOr<AttributesReply> KnownAfter(state::NodeId node,
                                             const AttributesChange& done) const;

  // Of Write: a handle that appends. filesystem_appends.cc
  runtime::Task<absl::Status> WriteAtEnd(state::FileHandle fh, absl::Span<const uint8_t> from,
                                         ChangeJournal* journal, runtime::Deadline deadline,
                                         size_t* written_bytes);
  runtime::Task<absl::Status> Append(state::FileHandle fh, std::shared_ptr<OpenFile> file,
                                     absl::Span<const uint8_t> from, ChangeJournal* journal,
                                     runtime::Deadline deadline, size_t* written_bytes);

  // --- Locks: filesystem_locks.cc

  runtime::Task<absl::Status> SetLock(FileLock wanted, bool wait, runtime::Deadline deadline);
  runtime::Task<absl::StatusOr<FileLock>> GetLock(FileLock wanted, runtime::Deadline deadline);
  runtime::Task<absl::Status> Flush(state::FileHandle fh, uint64_t owner,
                                    runtime::Deadline deadline);
  // Those that the dead agent held are taken again.
  void ResumeLocks();

  // --- Space of files: space.cc

  runtime::Task<absl::Status> Allocate(state::FileHandle fh, int mode, uint64_t offset,
                                       uint64_t length_bytes, ChangeJournal* journal,
                                       runtime::Deadline deadline);
  runtime::Task<absl::StatusOr<uint64_t>> CopyRange(state::FileHandle from, uint64_t from_offset,
                                                    state::FileHandle to, uint64_t to_offset,
                                                    uint64_t length_bytes, ChangeJournal* journal,
                                                    runtime::Deadline deadline);

  // --- Extended attributes: extended_attributes.cc

  runtime::Task<absl::StatusOr<std::string>> GetXattr(state::NodeId node, std::string name,
                                                      runtime::Deadline deadline);
  runtime::Task<absl::StatusOr<std::string>> ListXattrs(state::NodeId node,
                                                        runtime::Deadline deadline);
  // An empty value removes.
  runtime::Task<absl::Status> ChangeXattr(state::NodeId node, std::string name, std::string value,
                                          int flags, ChangeJournal* journal,
                                          runtime::Deadline deadline);

  // --- Symbolic links: symlinks.cc

  runtime::Task<absl::StatusOr<std::string>> ReadLink(state::NodeId node,
                                                      runtime::Deadline deadline);
  runtime::Task<absl::StatusOr<EntryReply>> MakeSymlink(state::NodeId parent, std::string name,
                                                        std::string target, ChangeJournal* journal,
                                                        runtime::Deadline deadline);

  // --- Changes of names: filesystem_changes.cc

  // A folder, or an empty file.
  runtime::Task<absl::StatusOr<EntryReply>> Make(state::NodeId parent, std::string name,
                                                 smb::FileType type, ChangeJournal* journal,
                                                 runtime::Deadline deadline);
  runtime::Task<absl::Status> Remove(state::NodeId parent, std::string name, smb::FileType type,
                                     ChangeJournal* journal, runtime::Deadline deadline);
  runtime::Task<absl::Status> Rename(state::NodeId parent, std::string name,
                                     state::NodeId new_parent, std::string new_name, uint32_t flags,
                                     ChangeJournal* journal, runtime::Deadline deadline);

  // --- New names: filesystem_new_names.cc

  runtime::Task<absl::StatusOr<EntryReply>> Link(state::NodeId node, state::NodeId new_parent,
                                                 std::string new_name, ChangeJournal* journal,
                                                 runtime::Deadline deadline);

  // --- Directories: filesystem_directories.cc

  runtime::Task<absl::StatusOr<state::FileHandle>> OpenDirectory(state::NodeId node,
                                                                 runtime::Deadline deadline);
  runtime::Task<absl::Status> ReadDirectory(state::FileHandle fh, uint64_t offset, bool plus,
                                            DirectorySink* sink, runtime::Deadline deadline);
  void ReleaseDirectory(state::FileHandle fh);

  // --- Statistics: filesystem_statistics.cc

  runtime::Task<absl::StatusOr<struct statvfs>> GetStatistics(state::NodeId node,
                                                              runtime::Deadline deadline);

  // --- Writes behind their acknowledgment: filesystem_behind.cc

  // Write(), acknowledged early where that is allowed.
  runtime::Task<absl::Status> WriteOrBehind(state::FileHandle fh, uint64_t offset,
                                            absl::Span<const uint8_t> from, ChangeJournal* journal,
                                            runtime::Deadline deadline, size_t* written_bytes);
  // Nodes of which something is pending: the file of a node, of one or two handles, of a name; of
  // what a rename moves or replaces.
  std::vector<state::NodeId> BehindNode(state::NodeId node) const;
  std::vector<state::NodeId> BehindHandle(state::FileHandle fh) const;
  std::vector<state::NodeId> BehindHandles(state::FileHandle one, state::FileHandle other) const;
  std::vector<state::NodeId> BehindName(state::NodeId parent, std::string_view name) const;
  std::vector<state::NodeId> BehindRename(state::NodeId parent, std::string_view name,
                                          state::NodeId new_parent,
                                          std::string_view new_name) const;
  // `call`, once nothing of these nodes is pending.
  template <class T>
  runtime::Task<T> After(std::vector<state::NodeId> nodes, runtime::Task<T> call,
                         runtime::Deadline deadline) {
    if (nodes.empty()) return call;
    return AfterEnd(std::move(nodes), std::move(call), std::move(deadline));
  }
  // Lookup() and GetAttributes(), beside writes that are pending: filesystem_behind_looks.cc
  runtime::Task<absl::StatusOr<EntryReply>> LookupBeside(state::NodeId parent, std::string name,
                                                         runtime::Deadline deadline);
  runtime::Task<absl::StatusOr<AttributesReply>> GetAttributesBeside(state::NodeId node,
                                                                     runtime::Deadline deadline);
  // A call that tells an error of an earlier write of its handle, if there is one.
  runtime::Task<absl::Status> TellingKept(state::FileHandle fh, runtime::Task<absl::Status> call,
                                          runtime::Deadline deadline);
  // FLUSH: the same, and the owner's locks go also where it is given up while it waits.
  runtime::Task<absl::Status> FlushTellingKept(state::FileHandle fh, uint64_t owner,
                                               runtime::Deadline deadline);
  // OK: there is none.
  absl::Status KeptError(state::FileHandle fh) const;
  void NoteErrorTold(state::FileHandle fh, int error);
  void LoseWrite(state::FileHandle fh);
  void SetWriteLeases(std::function<bool(state::NodeId)> holds) {
    holds_write_lease_ = std::move(holds);
  }
  WriteBehind& behind() { return behind_; }

  // Of a handle's record.
  static constexpr uint32_t kHandleWritten = 1;
  static constexpr uint32_t kHandleLockLost = 4;  // EIO, for ever.

 private:
  // Of a node's flags in the shared table. Set: see ArePagesTrusted().
  static constexpr uint32_t kPagesNotTrusted = uint32_t{1} << 16;
  // Its name was removed while it was open; it goes with its last handle.
  static constexpr uint32_t kNodeHidden = uint32_t{1} << 17;
  // One of its lookups is ours: until the hidden file is removed, the next agent must find it.
  static constexpr uint32_t kNodeKept = uint32_t{1} << 18;
  static_assert(((kPagesNotTrusted | kNodeHidden | kNodeKept) & ~state::kNodeUserFlags) == 0);
  static_assert((kPagesNotTrusted ^ kNodeHidden ^ kNodeKept) ==
                (kPagesNotTrusted | kNodeHidden | kNodeKept));

  // STATFS does not wait longer: kubelet, node-exporter and df touch every mount. Nor does one look
  // at a link for its target.
  static constexpr absl::Duration kLastKnownAfter = absl::Milliseconds(900);

  // --- Names and nodes

  // A Linux name as the server has it, in the UTF-8 of DfsPath. EILSEQ, ENAMETOOLONG.
  static absl::StatusOr<std::string> WireName(std::string_view name);
  // The path of the user's words that leads to a node. ESTALE: the node is gone.
  absl::StatusOr<dfs::DfsPath> PathOf(state::NodeId node) const;
  // How a line of the log begins that is about this path: its mount and its link, not its name.
  std::string InLog(const dfs::DfsPath& path) const;
  uint64_t InodeNumber(const dfs::DfsPath& path) const;
  // The node of `name`, made if it is new. Counts no lookup. ESTALE, ENAMETOOLONG, ENFILE.
  // `ino`: that of a new node, if it is not to be the path's.
  absl::StatusOr<state::NodeId> NodeFor(state::NodeId parent, std::string_view name,
                                        const dfs::DfsPath& path,
                                        std::optional<uint64_t> ino = std::nullopt);
  // What LOOKUP says of a link, never by I/O.
  EntryReply LinkEntry(state::NodeId node) const;

  // --- Attributes

  struct Sight {
    ServerAttributes attributes;  // Not of links that LookAtName saw: those are in their targets.
    uint64_t epoch = 0;
    bool is_link = false;
  };
  // One look at the path; a link's is one at its target.
  runtime::Task<absl::StatusOr<Sight>> Look(dfs::DfsPath path, runtime::Deadline deadline);
  // One look at the path's name by the server of the directory above: what a link leads to, dead or
  // not, is not touched. An NTSTATUS that IsNoSuchName: there is no such name.
  runtime::Task<absl::StatusOr<Sight>> LookAtName(dfs::DfsPath path, runtime::Deadline deadline);
  // GETATTR of the root or a link: a dead one must not stop who walks the tree above it. An error
  // other than kCancelled: the name is no link any more.
  runtime::Task<absl::StatusOr<AttributesReply>> GetLinkAttributes(state::NodeId node,
                                                                   dfs::DfsPath path,
                                                                   runtime::Deadline deadline);
  // One look at a link or the root. Forgets the link if its name is gone or something else's.
  runtime::Task<absl::StatusOr<struct stat>> LookAtLink(dfs::DfsPath path, bool is_root,
                                                        uint64_t ino, runtime::Deadline deadline);
  // Remembers what was seen. True: the kernel's pages are not the file's any more, and it is to be
  // told, which is the caller's to do.
  [[nodiscard]] bool NoteSeen(state::NodeId node, const ServerAttributes& seen, uint64_t epoch);
  // The same, and the kernel is told, but after whoever looked has gone on.
  void NoteSeenAndTell(state::NodeId node, const ServerAttributes& seen, uint64_t epoch);
  void TellSoon(state::NodeId node);
  // How long the kernel may take to drop pages. (One that is being read holds it up.) Who has seen
  // another size reads at the new end: the last page of before, with zeros behind the former end,
  // should be gone by then, but he is answered all the same. Who locks reads what is under the
  // lock, and gets none (ENOLCK) while pages of before are there.
  static constexpr absl::Duration kDropWithinForLooks = absl::Milliseconds(100);
  static constexpr absl::Duration kDropWithinForLocks = absl::Seconds(5);
  // NoteSeen(), and before whoever looked is answered the pages are gone, if they can be.
  runtime::Task<void> NoteLook(state::NodeId node, ServerAttributes seen, uint64_t epoch);
  // NoteSeenAndTell() of what is neither the root nor a link and was seen right now, at `path`; it
  // answers the next GETATTR. Nothing of what has been renamed since.
  void NoteSight(state::NodeId node, const dfs::DfsPath& path, const ServerAttributes& seen,
                 uint64_t epoch);
  // How long the kernel may believe what was seen of the node: a file of several names changes
  // under the others, too.
  absl::Duration BelievedFor(state::NodeId node, absl::Duration left) const;
  // The kernel may hold pages that are not the file's. In the shared table: the next agent knows.
  bool ArePagesTrusted(state::NodeId node) const;
  void SetPagesTrusted(state::NodeId node, bool trusted);
  // Of the flags that are ours, `flag` alone.
  void SetNodeFlag(state::NodeId node, uint32_t flag, bool set);
  static bool IsLinkTag(const ServerAttributes& seen);

  // --- Open files

  // Of a handle's record, too.
  static constexpr uint32_t kHandleAppendsLocked = 2;  // Its server does not append by itself.
  static constexpr uint32_t kHandleUndelivered = 8;    // filesystem_undelivered.cc
  static constexpr uint32_t kHandleCreated = 16;     // While undelivered: with a lookup, of Create.
  static constexpr uint32_t kHandleHasAnother = 32;  // OpenFile::NoteAnotherMade()
  // The errno of an acknowledged write that failed, until it is told.
  static constexpr uint32_t kHandleErrorShift = 24;
  static constexpr uint32_t kHandleErrorMask = uint32_t{0xff} << kHandleErrorShift;

  void SetHandleFlag(state::FileHandle fh, uint32_t flag) {
    if (!tables_.handles().Contains(fh)) return;
    const uint32_t flags = state::Load(tables_.handles().Get(fh).flags);
    if ((flags & flag) == 0) tables_.handles().SetFlags(fh, flags | flag);
  }

  // False while what is open below the link has written: the kernel has one inode, and one size,
  // for that file and for its copy on the better target.
  bool MayFailBack(const dfs::DfsPath& link) const;
  // This mount has just made the node's file on the server of `server_key`: what is open of that
  // name on another one is another file, and does not move to a copy.
  void NoteMade(state::NodeId node, uint64_t server_key);
  using Call = std::function<runtime::Task<absl::Status>(dfs::Binding)>;
  // Client::Run() on the file of `fh`, whose path is up to date (filesystem_moved_names.cc): begun
  // again by its new name, if that was changed while it was looked for by the former one.
  // options.held_epoch is its own.
  runtime::Task<absl::Status> RunOnFile(state::FileHandle fh, std::shared_ptr<OpenFile> file,
                                        Call call, dfs::RunOptions options,
                                        runtime::Deadline deadline);
  // `call`, which opens the file by `path` if it is not open; both must live until this returns or
  // is destroyed. IsNameMoved(): that name was, or may have been, changed since; nothing was done.
  runtime::Task<absl::Status> ByName(std::shared_ptr<OpenFile> file, const dfs::DfsPath* path,
                                     uint64_t since, dfs::Binding binding, const Call* call);
  static bool IsNameMoved(const absl::Status& status);
  // `opened`: how opening it by that name ended. IsNameMoved(): the name is being changed, or was
  // since that instant, so it may be another file, which is closed.
  absl::Status CheckNotMoved(const dfs::DfsPath& path, uint64_t names_since, OpenFile& file,
                             const absl::Status& opened) const;
  // RunOnFile() where `path` is its name, and `name_of` says what that is later.
  runtime::Task<absl::Status> RunByName(std::shared_ptr<OpenFile> file, dfs::DfsPath path,
                                        std::function<absl::StatusOr<dfs::DfsPath>()> name_of,
                                        Call call, dfs::RunOptions options,
                                        runtime::Deadline deadline);
  absl::StatusOr<dfs::DfsPath> NameOf(state::FileHandle fh);
  // What is Elsewhere(): Client::RunOnTarget() for the server of this key.
  runtime::Task<absl::Status> RunOnServer(dfs::DfsPath path, uint64_t server_key, Call call,
                                          dfs::RunOptions options, runtime::Deadline deadline);
  // The open file of a handle; made from its record after a takeover. EBADF, ESTALE.
  absl::StatusOr<std::shared_ptr<OpenFile>> FileOf(state::FileHandle fh);
  // True if a handle that is open on the node may read other bytes than `opened` says.
  bool IsOpenAsAnother(state::NodeId node, const state::NodeIdentity& opened) const;
  // Who opens a file asks the kernel for its size, and reads that much (close-to-open): what the
  // open has seen is told before it is answered. False: there was nothing, or it is still to tell.
  runtime::Task<bool> TellWhatOpenSaw(state::NodeId node, std::shared_ptr<OpenFile> file,
                                      absl::Time asked);
  // The handle of a file that was opened for a node. Its record is there when this returns, with
  // `record_flags`: kHandleUndelivered, and kHandleCreated where a lookup was counted before.
  // `told`: the kernel knows of what it has seen.
  absl::StatusOr<OpenReply> MakeHandle(state::NodeId node, std::shared_ptr<OpenFile> file,
                                       int flags, uint32_t record_flags, bool told = false);
  // What its record says of the server's side; nullopt: it is not durable.
  std::optional<DurableHandle> DurableOf(state::FileHandle fh) const;
  // Of a handle that is about to be closed, while its connection is gone: its server keeps it for
  // a minute, and with it a removed name. Closed before the next change of names there, one of
  // `path`: filesystem_durable.cc
  void LeaveBehind(state::FileHandle fh);
  runtime::Task<void> CloseLeftBehind(dfs::Binding binding, dfs::DfsPath path);
  // The record follows the file to the server that it is open on now.
  void NoteServer(state::FileHandle fh, const OpenFile& file);
  // ftruncate, and O_TRUNC (kNoHandle: it has none yet).
  static constexpr state::FileHandle kNoHandle = 0;
  runtime::Task<absl::Status> Truncate(std::shared_ptr<OpenFile> file, state::FileHandle fh,
                                       uint64_t size_bytes, ChangeJournal* journal,
                                       runtime::Deadline deadline);
  // A cut by a name, or by a handle that is just being opened, was refused, for the file is locked:
  // if it is programs of this mount that have locked it, it is cut through the holder of the locks.
  runtime::Task<absl::Status> CutBesideLocks(dfs::DfsPath path, dfs::Binding binding,
                                             uint64_t size_bytes, Change* change,
                                             absl::Status refused, runtime::Deadline deadline);
  // O_TRUNC of a file that is open and has no handle yet; it is closed if that fails. And once it
  // has one.
  runtime::Task<absl::Status> CutWhileOpened(std::shared_ptr<OpenFile> file, ChangeJournal* journal,
                                             runtime::Deadline deadline);
  void NoteCut(state::NodeId node, state::FileHandle fh);
  // The handle by which to cut a file that is to be cut by its name, as after an open with O_TRUNC:
  // one that has not written may still be opened again elsewhere. The others that write are
  // bound to this copy from now on. nullopt: by its name.
  std::optional<state::FileHandle> HandleToCut(state::NodeId node);

  // --- Leases: filesystem_leases.cc

  // The lease that all handles of a node share, made if there is none; of node 0: a new one. Null:
  // this mount asks for none.
  std::shared_ptr<FileLease> LeaseOf(state::NodeId node);
  // Null: the node has none.
  std::shared_ptr<FileLease> FindLease(state::NodeId node) const;
  // What was opened with it is a handle of this node.
  void NoteLeaseOf(state::NodeId node, const std::shared_ptr<FileLease>& lease);
  // Nobody else has the file open, and its server would ask us first: what is written may wait.
  // False from the moment on at which the server wants the lease back, or its session is of no use.
  bool HoldsWriteLease(state::NodeId node) const;
  // How often the node's R lease was lost: what was asked before the last time is no news.
  uint64_t ReadLeasesLost(state::NodeId node) const;
  void OnLeaseBroken(const FileLease& lease, std::shared_ptr<LeaseTenure> tenure,
                     const smb::LeaseBreak& broken);
  // The node's pages and attributes are not known to be true any more.
  void DropWhatWasLeased(state::NodeId node);
  runtime::Task<void> AnswerBreak(state::NodeId node, std::shared_ptr<LeaseTenure> tenure,
                                  smb::LeaseBreak broken);
  // Before what is seen of an open file, whose lease was broken, is believed for a time.
  runtime::Task<void> AskForReadAgain(state::NodeId node, runtime::Deadline deadline);

  // --- Locks: filesystem_locks.cc

  struct LockCall;
  // Something done through the holder of a file's locks; `*again`: it was not, for the holder was
  // opened anew.
  using LockAct = std::function<runtime::Task<absl::Status>(std::shared_ptr<smb::Tree>,
                                                            smb::wire::FileId, bool* again)>;

  std::shared_ptr<FileLocks> MakeLocks(state::NodeId node, const OpenFile& file);
  void RestoreLocks();
  // Shared memory follows the model; then who waits may look again.
  void StoreLocks(state::NodeId node, FileLocks& locks, const std::vector<uint32_t>& gone);
  void NoteLocksLost(state::NodeId node, LockRange range);
  bool IsLockLost(state::FileHandle fh) const {
    return tables_.handles().Contains(fh) &&
           (state::Load(tables_.handles().Get(fh).flags) & kHandleLockLost) != 0;
  }
  bool IsLocked(state::NodeId node) const {
    const auto found = locks_.find(node);
    return found != locks_.end() && found->second->IsHeldAnywhere();
  }
  // How long a name of this directory is believed, and what was seen of it: not at all beside a
  // file that is locked, for there programs of other machines take turns (SQLite's journal).
  absl::Duration BelievedIn(state::NodeId directory) const {
    return locked_in_.contains(directory) ? absl::ZeroDuration() : options_.actimeo;
  }
  // The handle is about to be closed; `is_last`: of the file.
  void ReleaseLocks(state::NodeId node, state::FileHandle fh, bool is_last);

  // After the connection's end, or a takeover: all are taken again, once.
  void StartHolding(state::NodeId node, std::shared_ptr<FileLocks> locks);
  runtime::Task<void> HoldAgain(state::NodeId node, std::shared_ptr<FileLocks> locks);
  runtime::Task<absl::Status> AwaitHold(state::NodeId node, std::shared_ptr<FileLocks> locks,
                                        runtime::Deadline deadline);
  void StartWatching(state::NodeId node, const std::shared_ptr<FileLocks>& locks);
  runtime::Task<void> WatchHold(state::NodeId node, std::shared_ptr<FileLocks> locks);
  // The node's locks are held on this binding, by the name that it has now.
  void NoteHeldOn(state::NodeId node, dfs::Binding binding, FileLocks* locks);
  // The same binding, for the name that the node has by now.
  dfs::Binding HeldOn(state::NodeId node, const FileLocks& locks) const;
  // OpenFile::ActOn of the holder, with all locks held, where they are held.
  runtime::Task<absl::Status> ActHeld(state::NodeId node, std::shared_ptr<FileLocks> locks,
                                      dfs::Binding binding, OpenFile::Act act,
                                      runtime::Deadline deadline);
  runtime::Task<absl::Status> OnHolder(state::NodeId node, std::shared_ptr<FileLocks> locks,
                                       LockAct act, runtime::Deadline deadline);

  // The locks through whose holder the handle's reads (or writes) must go; null: there are none.
  std::shared_ptr<FileLocks> LocksInTheWay(state::FileHandle fh, bool writes) const;
  runtime::Task<absl::StatusOr<size_t>> ReadLocked(state::FileHandle fh,
                                                   std::shared_ptr<FileLocks> locks,
                                                   uint64_t offset, absl::Span<uint8_t> into,
                                                   runtime::Deadline deadline);
  // Opens the handle on the server of `binding`, as a lost one is opened again. ESTALE: it was
  // written on another, or the file there is not the same.
  runtime::Task<absl::Status> MoveTo(dfs::Binding binding, state::FileHandle fh,
                                     std::shared_ptr<OpenFile> file, runtime::Deadline deadline);
  // OpenFile::ActOn of `file`, or of the holder, for a change through `fh`; change->where is where,
  // before `act` runs.
  runtime::Task<absl::Status> ActThrough(state::FileHandle fh, std::shared_ptr<OpenFile> file,
                                         dfs::Binding binding, OpenFile::Act act, Change* change,
                                         runtime::Deadline deadline);

  // Another machine has locked a part of what was read, which may be more than a program asked for:
  // the kernel reads whole pages. Who opens the file from now on reads what he asks for.
  void NoteReadRefused(state::FileHandle fh) {
    if (tables_.handles().Contains(fh)) read_beside_locks_.insert(tables_.handles().Get(fh).node);
  }
  bool WouldWaitForEver(const LockCall& call) const;
  // Until no program of this mount is in the way.
  runtime::Task<absl::Status> AwaitTurn(std::shared_ptr<LockCall> call);
  runtime::Task<absl::Status> DropPages(state::NodeId node);
  runtime::Task<absl::Status> TryLock(std::shared_ptr<LockCall> call);
  runtime::Task<void> RunLock(std::shared_ptr<LockCall> call);
  // What the model does not need is given back. REQUIRES: `changing`.
  runtime::Task<absl::Status> Trim(state::NodeId node, std::shared_ptr<FileLocks> locks);
  runtime::Task<void> TrimLater(state::NodeId node, std::shared_ptr<FileLocks> locks,
                                std::shared_ptr<runtime::Event> done);
  runtime::Task<absl::Status> TrimSoon(state::NodeId node, std::shared_ptr<FileLocks> locks,
                                       runtime::Deadline deadline);
  // Those that fcntl(2) took for `owner`; null: there are none.
  std::shared_ptr<FileLocks> DropRanges(state::NodeId node, uint64_t owner);
  // The owner's FLUSH will not come back: at once for this mount's programs, who may be given the
  // same owner anew; for other machines once what is pending now is written.
  void DropRangesOfKilled(state::FileHandle fh, uint64_t owner);
  runtime::Task<void> TrimOnceWritten(state::NodeId node, std::shared_ptr<FileLocks> locks,
                                      std::vector<state::NodeId> nodes);

  // --- Writes behind their acknowledgment

  // So many names below the path.
  std::vector<state::NodeId> BehindPath(const absl::StatusOr<dfs::DfsPath>& path,
                                        size_t least_below, size_t most_below) const;
  absl::StatusOr<dfs::DfsPath> PathOfName(state::NodeId parent, std::string_view name) const;
  // Something is pending of this path.
  bool IsBehindAt(const dfs::DfsPath& path) const {
    return !behind_.empty() && !BehindPath(path, 0, 0).empty();
  }
  // What is pending of the node is where its path leads to, on a server that answers.
  bool IsWrittenNow(state::NodeId node) const;
  runtime::Task<absl::Status> AwaitSoon(std::vector<state::NodeId> nodes,
                                        runtime::Deadline deadline);
  // How long these are, at least, once all is written that is pending; 0: nothing is.
  uint64_t PendingEnd(const std::vector<state::NodeId>& nodes) const;
  // The same of what is the node's file, by whichever name.
  uint64_t PendingEndOfFile(state::NodeId node) const;
  // `seen_bytes` at least, with what was pending before a look and is now; true if something is.
  bool AddPending(state::NodeId node, uint64_t before, struct stat* seen);
  bool MayWriteBehind(state::NodeId node, const OpenFile& file, const WriteBehind::Range& range,
                      const ChangeJournal* journal, const runtime::Deadline& deadline) const;
  // How long the node's file is on its server, with what is pending.
  uint64_t KnownEndOf(state::NodeId node) const;
  void NoteSizeOfAll(state::NodeId node, uint64_t size_bytes);
  // Before what was acknowledged is sent by another open than the one that had the lease then:
  // filesystem_behind_proof.cc. EIO: another machine may have changed the file meanwhile.
  runtime::Task<absl::Status> CheckUnchanged(state::FileHandle fh, std::shared_ptr<OpenFile> file,
                                             std::shared_ptr<smb::Tree> tree,
                                             smb::wire::FileId file_id, WriteBehind::Range early,
                                             absl::Span<const uint8_t> bytes,
                                             runtime::Deadline deadline);
  runtime::Task<absl::Status> CheckOwnBytes(std::shared_ptr<OpenFile> file,
                                            std::shared_ptr<smb::Tree> tree,
                                            smb::wire::FileId file_id, WriteBehind::Range early,
                                            absl::Span<const uint8_t> bytes,
                                            runtime::Deadline deadline);
  // Of a lease that is taken back, before that is acknowledged.
  runtime::Task<void> DrainForBreak(state::NodeId node);
  void KeepError(state::FileHandle fh, const absl::Status& status);
  template <class T>
  runtime::Task<T> AfterEnd(std::vector<state::NodeId> nodes, runtime::Task<T> call,
                            runtime::Deadline deadline) {
    const absl::Status ended = co_await behind_.AwaitEnd(std::move(nodes), std::move(deadline));
    if (!ended.ok()) co_return ended;
    co_return co_await std::move(call);
  }

  // --- Changes

  // Runs a change until it is applied, once, or an error says why not, or that nobody knows.
  // `change` must live until this returns or is destroyed.
  runtime::Task<absl::Status> RunChange(dfs::DfsPath path, Change* change,
                                        runtime::Deadline deadline);
  // The same for one that is made through `fh`, whose file this is: by the name that it has when
  // it is asked for, should that change meanwhile.
  runtime::Task<absl::Status> RunChangeThrough(state::FileHandle fh, std::shared_ptr<OpenFile> file,
                                               Change* change, runtime::Deadline deadline);
  // change->attempt(), of what is made through a handle.
  runtime::Task<absl::Status> AttemptByName(dfs::Binding binding, Change* change);
  // EIO; counted, and said in the log.
  absl::Status UnknownChange(const dfs::DfsPath& path, const char* why);
  runtime::Task<absl::Status> Attempt(dfs::Binding binding, Change* change);
  runtime::Task<absl::Status> Settle(dfs::Binding binding, Change* change);
  // failover_writes=replay: whether what `fh` has under way may go to another server, now that its
  // own is lost; if so, the file is ready for that. And what became of it: EIO if the file there is
  // another.
  bool MayReplay(state::FileHandle fh, OpenFile& file);
  // What was written through a handle that is closed is missing in other copies, too.
  void BindOthers(state::NodeId node, const OpenFile& closed);
  absl::Status OutcomeOfReplay(const absl::Status& status);
  // What was written is to be found by who opens the file elsewhere: filesystem_written_record.cc
  void NoteInRecord(const OpenFile& file);
  void NoteInRecord(const dfs::DfsPath& path, uint64_t server_key, uint64_t size_bytes,
                    absl::Duration clock_ahead);
  // Of what was just opened. ESTALE: it is older than that, and the mount is strict.
  absl::Status CheckNotOlder(OpenFile& file);
  // The path of a name, which is to be changed. EBUSY: it is a link.
  absl::StatusOr<dfs::DfsPath> ChangeablePath(state::NodeId parent, std::string_view name) const;
  // EXDEV: `to` is below a known link that `from` is not below.
  absl::Status CheckNoLinkBetween(const dfs::DfsPath& from, const dfs::DfsPath& to) const;
  // LINK's answer: what the node is now.
  runtime::Task<absl::StatusOr<EntryReply>> LinkReply(state::NodeId node, dfs::DfsPath path,
                                                      uint64_t epoch, runtime::Deadline deadline);
  // A WRITE was acknowledged at `when` of the server's clock. Servers set the last-write time when
  // a file is closed, or seconds later: until then the mount shows this one.
  void NoteWrite(state::NodeId node, absl::Time when);
  // StatOf(), with what NoteWrite() knows. For the kernel only: what a file is known by are the
  // server's times.
  struct stat StatOfNode(state::NodeId node, uint64_t ino, const ServerAttributes& seen) const;
  // The last-write time was set by the file's name: the closing of what has written to it must not
  // set another one.
  runtime::Task<absl::Status> SetTimeOfWriters(state::NodeId node, std::shared_ptr<smb::Tree> tree,
                                               absl::Time modified, runtime::Deadline deadline);
  // The same, and before it, for what is open on other sessions of ours with that server: those
  // that were left while it was silent, and live. One that does not answer is ended.
  runtime::Task<void> SetTimeOnFormerSessions(state::NodeId node, dfs::Binding binding,
                                              absl::Time modified, runtime::Deadline deadline);
  // The node's handles that have written, and are open.
  std::vector<std::shared_ptr<OpenFile>> WritersOf(state::NodeId node) const;
  // What was written by a handle after the time was set through it. Waits a second at most.
  runtime::Task<void> SetTimeOfLateWrite(std::shared_ptr<OpenFile> file);
  // The content was changed through a handle of ours: what was seen of the node before is not true
  // any more, but of the change the kernel knows.
  void NoteOwnChange(state::NodeId node);
  // What is known of the name is not true any more.
  void ForgetName(state::NodeId parent, std::string_view name);
  // Names came to a directory, or went: what was seen of itself before is not true any more.
  void NoteChangeIn(state::NodeId directory);
  // LOOKUP's answer for what was just made.
  absl::StatusOr<EntryReply> NewEntry(state::NodeId parent, std::string_view name,
                                      const dfs::DfsPath& path, const ServerAttributes& seen,
                                      uint64_t epoch, absl::Time asked);
  // The id of what the path leads to on this binding, for a probe to know it again: as last seen
  // of `node` there, or else looked at. 0: the server has none.
  runtime::Task<absl::StatusOr<uint64_t>> IdOn(dfs::Binding binding, state::NodeId node);
  uint64_t LastIdOf(state::NodeId node) const;
  // That of what had a name before a change of it; 0: not known.
  uint64_t IdBefore(state::NodeId parent, std::string_view name,
                    const ChangeJournal* journal) const;
  // What is said of attributes that a server does not have.
  absl::Status NoXattr(std::string_view name) const;
  bool IsUserXattr(std::string_view name) const;
  runtime::Task<absl::StatusOr<std::vector<smb::wire::ExtendedAttribute>>> AllAttributes(
      dfs::DfsPath path, runtime::Deadline deadline);
  // The name of a link until it is whole.
  std::string NameWhileMade(const dfs::DfsPath& path) const;
  // The name of an open file whose own is removed.
  std::string HiddenName(state::NodeId node) const;
  bool IsOpen(state::NodeId node) const { return opens_.contains(node); }
  absl::Status NoteHidden(state::NodeId node, state::NodeId parent, std::string_view hidden);
  // Where a hidden file is; nullopt: the node is none.
  std::optional<dfs::DfsPath> HiddenPathOf(state::NodeId node) const;
  void RemoveHiddenLater(state::NodeId node);
  // `node`: whose name it is, or 0.
  runtime::Task<void> RemoveHidden(state::NodeId node, dfs::DfsPath path);

  // --- Directories

  // The stream of a handle; made from its record after a takeover. EBADF, ESTALE.
  absl::StatusOr<std::shared_ptr<DirectoryStream>> StreamOf(state::FileHandle fh);
  // Makes the entry of ordinal `position` available, on whichever target serves the directory.
  runtime::Task<absl::Status> SeekStream(std::shared_ptr<DirectoryStream> stream, uint64_t position,
                                         runtime::Deadline deadline);
  static runtime::Task<absl::Status> SeekOn(dfs::Binding binding,
                                            std::shared_ptr<DirectoryStream> stream,
                                            uint64_t position, runtime::Deadline deadline);
  // Adds the entry of ordinal `position`; the node for which a lookup was counted goes to `given`.
  absl::Status AddEntry(state::NodeId directory, DirectoryStream& stream, uint64_t position,
                        bool plus, DirectorySink* sink, std::vector<state::NodeId>* given);

  // --- Statistics

  struct Statistics {
    struct statvfs values = {};
    uint64_t epoch = 0;
    absl::Time until = absl::InfinitePast();
  };
  // What was last known of the share that holds `path`; null: nothing.
  const Statistics* FindStatistics(const dfs::DfsPath& path) const;

  // --- State

  dfs::Client& client_;
  state::MountTables& tables_;
  Invalidation& invalidation_;
  const Options options_;
  AttributeCache attributes_;
  HardLinks hard_links_;
  Appends appends_;
  absl::flat_hash_map<state::FileHandle, std::shared_ptr<OpenFile>> files_;
  // Beside handles that were set to append after they were opened: the same file, to append.
  absl::flat_hash_map<state::FileHandle, std::shared_ptr<OpenFile>> appenders_;
  absl::flat_hash_map<state::NodeId, absl::btree_set<state::FileHandle>> opens_;  // Of files.
  absl::flat_hash_map<state::NodeId, std::weak_ptr<FileLease>> leases_;           // Of open files.
  absl::btree_map<state::NodeId, std::shared_ptr<FileLocks>> locks_;              // Of open files.
  absl::flat_hash_map<state::NodeId, int> locked_in_;     // Directories: how many of locks_.
  absl::flat_hash_set<state::NodeId> read_beside_locks_;  // Of nodes that the kernel holds.
  absl::flat_hash_set<const LockCall*> waiting_locks_;    // For this mount's own programs.
  std::vector<state::FileHandle> undelivered_;            // By a dead agent.
  // Opened with renews_pages, and not used yet.
  absl::flat_hash_map<state::NodeId, state::FileHandle> renewing_;
  WrittenRecord written_;
  struct LeftBehind {
    dfs::DfsPath path;
    DurableHandle handle;
    absl::Time until;
  };
  std::vector<LeftBehind> left_behind_;
  absl::flat_hash_set<state::NodeId> own_changes_;  // Made since the node was last seen.
  absl::flat_hash_map<state::NodeId, absl::Time> last_writes_;  // Of nodes that are open.
  absl::flat_hash_map<state::FileHandle, std::shared_ptr<DirectoryStream>> streams_;
  // By what of a path is bound as one: the keys of links, roots and shares.
  absl::flat_hash_map<std::u16string, Statistics> statistics_;
  Counters counters_;
  const std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
  std::function<bool(state::NodeId)> holds_write_lease_;
  std::shared_ptr<NameDoubts> names_ = std::make_shared<NameDoubts>();
  WriteBehind behind_;
  // Of the root and of links that the kernel holds. Its looks use all of the above.
  LinkSights sights_;
  runtime::TaskGroup tasks_;  // Dies first: its tasks use all of the above.
};

}  // namespace dfscsi::vfs

#endif  // NODE_AGENT_VFS_FILESYSTEM_IMPL_H_
