// A share of one server, and what can be asked of it. Nothing here fails over or retries elsewhere.
//
// Paths are relative to the share, UTF-16, '\' between components, no leading or trailing '\'; ""
// is the share's root.
//
// Errors of every call below, besides its own:
//   an NTSTATUS (wire::NtStatusOf)  the server answered with it
//   kUnavailable  nothing was executed: the connection is gone, or was gone before
//   kAborted      the connection was lost with the request on its way: it may have been executed
//   kDataLoss     the server broke the protocol; the connection is closed
//   kDeadlineExceeded, kCancelled
// What another target can do about it is dfs/failure_class.h's to say.

#ifndef NODE_AGENT_SMB_TREE_H_
#define NODE_AGENT_SMB_TREE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "node-agent/runtime/deadline.h"
#include "node-agent/runtime/task.h"
#include "node-agent/smb/lease_table.h"
#include "node-agent/smb/wire/create.h"
#include "node-agent/smb/wire/file_information.h"
#include "node-agent/smb/wire/io.h"
#include "node-agent/smb/wire/ioctl.h"
#include "node-agent/smb/wire/query.h"
#include "node-agent/smb/wire/reparse.h"
#include "node-agent/smb/wire/session.h"

namespace dfscsi::smb {

class Session;
struct Request;
struct Response;

// What stat(2) wants to know of a path.
struct FileStatus {
  wire::FileAttributes attributes;
  uint32_t reparse_tag = 0;  // If attributes has kAttributeReparsePoint.
  uint32_t names = 0;        // How many the file has (hard links); 0: unknown.
  uint64_t file_id = 0;      // 0: unknown. Detects change within one server; never an inode number.
};

struct OpenedFile {
  wire::FileId file_id;
  wire::CreateResponse response;
  std::optional<FileStatus> directory = {};  // See CreateOptions::looks_at_directory.
};

// Raw pages of a directory, in order: entries of FileIdBothDirectoryInformation, to be walked with
// wire::DirectoryReader. The end is reached when `complete`.
struct DirectoryPages {
  std::vector<std::vector<uint8_t>> pages;
  bool complete = false;
};

struct FileSystemSize {
  uint64_t total_units = 0;
  uint64_t available_units = 0;  // To this user.
  uint64_t free_units = 0;
  uint64_t unit_bytes = 0;
};

// What only some CREATEs need.
struct CreateOptions {
  // Of a request with a lease: who is told when the server takes it down.
  std::weak_ptr<LeaseObserver> observer = {};
  // The same request, with the same CreateGuid, was sent before and its answer was lost: the server
  // gives the handle that it made then, if it made one, and does nothing twice.
  bool replay = false;
  // Asks in the same frame, after it, what the directory of the name is like by then: who makes a
  // file is asked for that next. Nothing is said of it where it cannot be had, or is the share's
  // root.
  bool looks_at_directory = false;
};

struct WriteOptions {
  bool through = false;  // Answered when it is on the server's disk.
  // The same WRITE was sent before and its answer was lost ([MS-SMB2] 3.2.4.1.10).
  bool replay = false;
  // To here is added how many bytes, counted from the first, the server has acknowledged without a
  // gap: also after an NTSTATUS, when what lies behind them may have been written or not. Not after
  // other errors. As long-lived as what is written.
  size_t* written_bytes = nullptr;
};

// To Write: at the end of the file, wherever that is by then. Only for handles that may append and
// not write; at most one piece of Connection::max_write_bytes() is one piece in the file.
inline constexpr uint64_t kAppend = ~uint64_t{0};

enum class FileType { kFile, kDirectory };

// Not thread-safe; one loop. Held by shared_ptr. It lives as long as somebody holds it; the
// server's tree connect ends with the session.
class Tree : public std::enable_shared_from_this<Tree> {
 public:
  Tree(std::shared_ptr<Session> session, std::string share, uint32_t tree_id,
       wire::TreeConnectResponse response);
  ~Tree();

  const std::string& share() const { return share_; }
  Session& session() { return *session_; }
  // The share is in a DFS tree: a path below it may not be covered ([MS-SMB2] 2.2.10).
  bool in_dfs() const { return (response_.capabilities & wire::kShareCapDfs) != 0; }
  // Its handles may outlive the server's node: durable ones are made persistent ([MS-SMB2] 2.2.10).
  bool continuously_available() const {
    return (response_.capabilities & wire::kShareCapContinuousAvailability) != 0;
  }
  uint32_t id() const { return tree_id_; }
  bool is_disk() const { return response_.share_type == wire::kShareDisk; }
  // False once the server said that the tree is gone, or the connection is lost.
  bool usable() const;

  // One frame: CREATE, QUERY_INFO, CLOSE. A reparse point is looked at, not followed; its tag costs
  // a second frame.
  runtime::Task<absl::StatusOr<FileStatus>> Stat(std::u16string path, runtime::Deadline deadline);

  // CREATE (tree_open.cc). The caller closes the handle (Close, or CloseLater); if it goes before
  // the answer comes, the handle is closed then. Leases and durable handles that the dialect or the
  // server does not know are left out of the request; what was granted is in the response, of a
  // lease the state in force.
  runtime::Task<absl::StatusOr<OpenedFile>> Create(wire::CreateRequest request,
                                                   runtime::Deadline deadline,
                                                   CreateOptions options = {});
  // Takes up, over a new session, the durable handle `old` that `request` (its CreateGuid, lease
  // and name as they were) made before the connection was lost. nullopt: the server has let go of
  // it, and of its locks.
  runtime::Task<absl::StatusOr<std::optional<OpenedFile>>> Reconnect(wire::CreateRequest request,
                                                                     wire::FileId old,
                                                                     runtime::Deadline deadline,
                                                                     CreateOptions options = {});
  runtime::Task<absl::Status> Close(wire::FileId file_id, runtime::Deadline deadline);
  // Sends CLOSE and does not wait: nothing is lost if it is not heard, the session's end closes
  // all.
  void CloseLater(wire::FileId file_id);

  // Fills `into` from `offset`; several READs in flight, each at most the server's maximum. Returns
  // the bytes read; fewer than asked only at the end of the file: where a server gives less, it is
  // asked again. Not for what lies behind `known_end`, if a short answer ends there. `into` must
  // live until this returns or is destroyed.
  runtime::Task<absl::StatusOr<size_t>> Read(wire::FileId file_id, uint64_t offset,
                                             wire::MutableBytes into, runtime::Deadline deadline,
                                             uint64_t known_end = UINT64_MAX);

  // --- Changes through a handle (tree_write.cc)

  // Writes all of `from`: several WRITEs in flight, each at most Connection::max_write_bytes(), so
  // that the server works on one while others are on their way. OK only if the server has counted
  // every byte. After an error any part may have been written; none is on its way, unless nobody
  // waited any longer (kCancelled, kDeadlineExceeded).
  // `from` must live until this returns or is destroyed; what is on its way then is still sent.
  runtime::Task<absl::Status> Write(wire::FileId file_id, uint64_t offset, wire::Bytes from,
                                    runtime::Deadline deadline, WriteOptions options = {});
  // Appends all of `from`, in one piece, where the server does not append by itself: under a lock
  // that all who append so take (tree_append.cc, docs/adr/0006-appending-under-a-lock.md). Waits
  // for others at the server until `deadline`. `sending` is called with the offset right before the
  // first WRITE leaves: before it, nothing was written. Returns that offset. Errors of its own:
  //   kUnimplemented  the server gives no such lock; nothing was written
  //   kUnknown        a part was written, and the rest will not be
  // `written_bytes` (null: not wanted; as long-lived as `from`): after kUnknown, or an NTSTATUS,
  // how much of `from` is there, from its beginning; else 0.
  runtime::Task<absl::StatusOr<uint64_t>> AppendLocked(wire::FileId file_id, wire::Bytes from,
                                                       std::function<void(uint64_t)> sending,
                                                       runtime::Deadline deadline,
                                                       size_t* written_bytes = nullptr);
  runtime::Task<absl::Status> Flush(wire::FileId file_id, runtime::Deadline deadline);
  runtime::Task<absl::Status> SetEndOfFile(wire::FileId file_id, uint64_t size_bytes,
                                           runtime::Deadline deadline);
  runtime::Task<absl::Status> SetAllocation(wire::FileId file_id, uint64_t size_bytes,
                                            runtime::Deadline deadline);
  runtime::Task<absl::Status> SetBasic(wire::FileId file_id, wire::BasicInformation basic,
                                       runtime::Deadline deadline);
  // The file is removed when its last handle is closed (or is not, again).
  runtime::Task<absl::Status> SetDisposition(wire::FileId file_id, bool remove,
                                             runtime::Deadline deadline);
  runtime::Task<absl::Status> Rename(wire::FileId file_id, wire::RenameInformation rename,
                                     runtime::Deadline deadline);
  // A second name for the file.
  runtime::Task<absl::Status> Link(wire::FileId file_id, wire::RenameInformation link,
                                   runtime::Deadline deadline);

  // Byte ranges, mandatory for other handles. Flags: kLockShared or kLockExclusive; with
  // kLockFailImmediately the answer is LOCK_NOT_GRANTED where it would wait. A lock without it
  // comes alone, and waits at the server until `deadline`. A lock that is granted when nobody waits
  // for it any more is given back. `sequence`: wire::LockSequence, or 0.
  runtime::Task<absl::Status> Lock(wire::FileId file_id, std::vector<wire::LockElement> locks,
                                   uint32_t sequence, runtime::Deadline deadline);
  runtime::Task<absl::Status> Unlock(wire::FileId file_id, std::vector<wire::FileRange> ranges,
                                     uint32_t sequence, runtime::Deadline deadline);

  // --- Changes by path, each in one frame: CREATE, SET_INFO, CLOSE (tree_change.cc). Reparse
  // points are changed themselves, not what they lead to.

  // The name is gone when this returns, also while others have the file open, where the server can
  // do that ([MS-FSCC] 2.4.12); elsewhere when the last of them closes it (DELETE_PENDING till
  // then).
  runtime::Task<absl::Status> Remove(std::u16string path, FileType type,
                                     runtime::Deadline deadline);
  runtime::Task<absl::Status> RenamePath(std::u16string path, wire::RenameInformation rename,
                                         runtime::Deadline deadline);
  runtime::Task<absl::Status> LinkPath(std::u16string path, wire::RenameInformation link,
                                       runtime::Deadline deadline);
  runtime::Task<absl::Status> SetBasicOfPath(std::u16string path, wire::BasicInformation basic,
                                             runtime::Deadline deadline);
  runtime::Task<absl::Status> Truncate(std::u16string path, uint64_t size_bytes,
                                       runtime::Deadline deadline);
  // The same for a file that is read-only, in one frame: `attributes` are given to it first,
  // without READONLY. Where that is done and the removal is not, they stay.
  runtime::Task<absl::Status> RemoveReadOnly(std::u16string path, uint32_t attributes,
                                             runtime::Deadline deadline);
  // CREATE, CLOSE. STATUS_OBJECT_NAME_COLLISION if there is something of that name.
  runtime::Task<absl::StatusOr<FileStatus>> MakeDirectory(std::u16string path,
                                                          runtime::Deadline deadline);
  runtime::Task<absl::StatusOr<FileStatus>> MakeFile(std::u16string path,
                                                     runtime::Deadline deadline);

  // --- Copies, holes, attributes, reparse points (tree_copy.cc)

  // Copies on the server, between two handles of this session: as many FSCTL_SRV_COPYCHUNK_WRITE as
  // it takes within the server's limits. Returns the bytes copied; fewer than asked if the source
  // ended there. INVALID_VIEW_SIZE: it ends within the first chunks. INVALID_DEVICE_REQUEST and
  // such: the server cannot.
  runtime::Task<absl::StatusOr<uint64_t>> CopyRange(wire::FileId source, uint64_t source_offset,
                                                    wire::FileId target, uint64_t target_offset,
                                                    uint64_t length_bytes,
                                                    runtime::Deadline deadline);
  runtime::Task<absl::Status> DuplicateExtents(wire::FileId target, wire::DuplicateExtents extents,
                                               runtime::Deadline deadline);
  runtime::Task<absl::Status> SetSparse(wire::FileId file_id, bool sparse,
                                        runtime::Deadline deadline);
  runtime::Task<absl::Status> SetZero(wire::FileId file_id, wire::ZeroRange range,
                                      runtime::Deadline deadline);
  // Size, number of names, and whether it is removed with its last handle.
  runtime::Task<absl::StatusOr<wire::StandardInformation>> GetStandard(wire::FileId file_id,
                                                                       runtime::Deadline deadline);
  // All of them if `names` is empty. A name that the file does not have comes with an empty value.
  runtime::Task<absl::StatusOr<std::vector<wire::ExtendedAttribute>>> GetExtendedAttributes(
      wire::FileId file_id, std::vector<std::string> names, runtime::Deadline deadline);
  // An empty value removes.
  runtime::Task<absl::Status> SetExtendedAttributes(wire::FileId file_id,
                                                    std::vector<wire::ExtendedAttribute> attributes,
                                                    runtime::Deadline deadline);
  runtime::Task<absl::Status> SetReparsePoint(wire::FileId file_id, wire::ReparseData reparse,
                                              runtime::Deadline deadline);

  // --- Reading, again

  // Opens a directory and returns its first pages in the same frame: CREATE, QUERY_DIRECTORY twice.
  // A small directory is then complete.
  struct OpenedDirectory {
    wire::FileId file_id;
    wire::FileAttributes attributes;
    DirectoryPages pages;
  };
  runtime::Task<absl::StatusOr<OpenedDirectory>> OpenDirectory(std::u16string path,
                                                               runtime::Deadline deadline);
  // The next page; none, and `complete`, at the end.
  runtime::Task<absl::StatusOr<DirectoryPages>> ReadDirectory(wire::FileId file_id,
                                                              runtime::Deadline deadline);

  // One frame: CREATE, QUERY_INFO (FileFsFullSizeInformation), CLOSE.
  runtime::Task<absl::StatusOr<FileSystemSize>> StatFileSystem(std::u16string path,
                                                               runtime::Deadline deadline);

  // One frame: CREATE, IOCTL, CLOSE. The reparse data, for wire::DecodeReparseData.
  // STATUS_NOT_A_REPARSE_POINT if it is none.
  runtime::Task<absl::StatusOr<std::vector<uint8_t>>> GetReparsePoint(std::u16string path,
                                                                      runtime::Deadline deadline);

  // The first ranges of [offset, offset + length) that hold data. STATUS_INVALID_DEVICE_REQUEST and
  // such from servers without sparse files; STATUS_BUFFER_TOO_SMALL from servers that answer all or
  // nothing: ask for less.
  struct Ranges {
    std::vector<wire::FileRange> ranges;
    bool complete = true;  // False: there may be more behind the last one.
  };
  runtime::Task<absl::StatusOr<Ranges>> AllocatedRanges(wire::FileId file_id,
                                                        wire::FileRange within,
                                                        runtime::Deadline deadline);

  // One FSCTL. STATUS_BUFFER_OVERFLOW is an error here: a cut-off answer is never parsed.
  runtime::Task<absl::StatusOr<std::vector<uint8_t>>> Ioctl(wire::Fsctl code, wire::FileId file_id,
                                                            std::vector<uint8_t> input,
                                                            uint32_t max_output_bytes,
                                                            runtime::Deadline deadline);

 private:
  runtime::Task<absl::StatusOr<FileStatus>> Make(std::u16string path, FileType type,
                                                 runtime::Deadline deadline);
  runtime::Task<absl::StatusOr<std::vector<Response>>> Call(std::vector<Request> requests,
                                                            runtime::Deadline deadline);
  runtime::Task<absl::StatusOr<Response>> CallOne(Request request, runtime::Deadline deadline);
  // The same for a request that can be had in smaller pieces; kResourceExhausted: it must be.
  runtime::Task<absl::StatusOr<Response>> CallSized(Request request, runtime::Deadline deadline);
  runtime::Task<absl::StatusOr<Response>> OpenAct(std::u16string path, Request middle,
                                                  runtime::Deadline deadline);
  runtime::Task<absl::StatusOr<size_t>> ReadOnce(wire::FileId file_id, uint64_t offset,
                                                 wire::MutableBytes into,
                                                 runtime::Deadline deadline);
  // A CREATE whose handle is closed if its answer comes too late for the caller.
  Request MakeCreate(const wire::CreateRequest& create);
  std::optional<wire::Lease> LeaseToCarry(const wire::CreateRequest& create) const;
  runtime::Task<absl::Status> DoRenamePath(std::u16string path, wire::RenameInformation rename,
                                           runtime::Deadline deadline);
  // True: the server has refused the CREATE, for the lease that it carried is of another file; it
  // is to be sent again, and will carry none.
  bool ForgetLeaseCarried(const wire::CreateRequest& create, wire::NtStatus status);
  // What the dialect and the server know of leases and durable handles.
  void FitToServer(wire::CreateRequest& request) const;
  // One look at the path: CREATE, CLOSE; and what the answer to the first says (of a reparse point
  // not its tag).
  std::vector<Request> MakeLook(std::u16string path);
  static absl::StatusOr<FileStatus> SeenBy(const Response& look);
  runtime::Task<absl::StatusOr<OpenedFile>> DoCreate(wire::CreateRequest request,
                                                     runtime::Deadline deadline,
                                                     CreateOptions options);
  runtime::Task<absl::Status> WriteOnce(wire::FileId file_id, uint64_t offset, wire::Bytes from,
                                        runtime::Deadline deadline, WriteOptions options);
  runtime::Task<absl::Status> SetInformation(wire::FileId file_id, wire::FileInfoClass info_class,
                                             std::vector<uint8_t> input,
                                             runtime::Deadline deadline);
  // CREATE, SET_INFO, CLOSE.
  runtime::Task<absl::Status> OpenSet(wire::CreateRequest create, wire::FileInfoClass info_class,
                                      std::vector<uint8_t> input, runtime::Deadline deadline);
  // The same with a POSIX class first, and `plain` on servers that do not know it.
  runtime::Task<absl::Status> OpenSetPosix(wire::CreateRequest create,
                                           wire::FileInfoClass posix_class,
                                           std::vector<uint8_t> posix_input,
                                           wire::FileInfoClass plain_class,
                                           std::vector<uint8_t> plain_input,
                                           runtime::Deadline deadline);
  // LOCK, and QUERY_INFO in the same frame. Returns where the file ends.
  runtime::Task<absl::StatusOr<uint64_t>> LockEnd(wire::FileId file_id, runtime::Deadline deadline);
  // As WriteOnce, and the lock of LockEnd is given back. Returns how much was written.
  runtime::Task<absl::StatusOr<size_t>> WriteAndUnlock(wire::FileId file_id, uint64_t offset,
                                                       wire::Bytes from,
                                                       runtime::Deadline deadline);
  runtime::Task<void> UnlockEnd(wire::FileId file_id, runtime::Deadline deadline);
  Request MakeLock(wire::FileId file_id, std::vector<wire::LockElement> locks, uint32_t sequence);
  void UnlockLater(wire::FileId file_id, std::vector<wire::FileRange> ranges);
  // The server counted more than it was given, or nothing at all.
  absl::Status Broken(std::string_view what);

  static absl::StatusOr<std::vector<uint8_t>> IoctlOutput(const Response& response,
                                                          std::string_view what);

  const std::shared_ptr<Session> session_;
  const std::string share_;
  const uint32_t tree_id_;
  const wire::TreeConnectResponse response_;
  bool gone_ = false;          // The server said so.
  bool posix_classes_ = true;  // Until the server says that it knows none.
  wire::CopyChunkResponse copy_limits_ = {
      .chunks = 16, .chunk_bytes = 1 << 20, .total_bytes = 16 << 20};
};

}  // namespace dfscsi::smb

#endif  // NODE_AGENT_SMB_TREE_H_
