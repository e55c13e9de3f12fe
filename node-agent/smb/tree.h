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
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "node-agent/runtime/deadline.h"
#include "node-agent/runtime/task.h"
#include "node-agent/smb/wire/create.h"
#include "node-agent/smb/wire/ioctl.h"
#include "node-agent/smb/wire/query.h"
#include "node-agent/smb/wire/session.h"

namespace dfscsi::smb {

class Session;
struct Request;
struct Response;

// What stat(2) wants to know of a path.
struct FileStatus {
  wire::FileAttributes attributes;
  uint32_t reparse_tag = 0;  // If attributes has kAttributeReparsePoint.
  uint64_t file_id = 0;      // 0: unknown. Detects change within one server; never an inode number.
};

struct OpenedFile {
  wire::FileId file_id;
  wire::CreateResponse response;
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
  bool is_disk() const { return response_.share_type == wire::kShareDisk; }
  // False once the server said that the tree is gone, or the connection is lost.
  bool usable() const;

  // One frame: CREATE, CLOSE. A reparse point is looked at, not followed; its tag costs a second
  // frame.
  runtime::Task<absl::StatusOr<FileStatus>> Stat(std::u16string path, runtime::Deadline deadline);

  // CREATE. The caller closes the handle (Close, or CloseLater).
  runtime::Task<absl::StatusOr<OpenedFile>> Create(wire::CreateRequest request,
                                                   runtime::Deadline deadline);
  runtime::Task<absl::Status> Close(wire::FileId file_id, runtime::Deadline deadline);
  // Sends CLOSE and does not wait: nothing is lost if it is not heard, the session's end closes
  // all.
  void CloseLater(wire::FileId file_id);

  // Fills `into` from `offset`; several READs in flight, each at most the server's maximum. Returns
  // the bytes read; fewer than asked only at the end of the file. `into` must live until this
  // returns or is destroyed.
  runtime::Task<absl::StatusOr<size_t>> Read(wire::FileId file_id, uint64_t offset,
                                             wire::MutableBytes into, runtime::Deadline deadline);

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
  runtime::Task<absl::StatusOr<std::vector<Response>>> Call(std::vector<Request> requests,
                                                            runtime::Deadline deadline);
  runtime::Task<absl::StatusOr<Response>> CallOne(Request request, runtime::Deadline deadline);
  runtime::Task<absl::StatusOr<Response>> OpenAct(std::u16string path, Request middle,
                                                  runtime::Deadline deadline);
  runtime::Task<absl::StatusOr<size_t>> ReadOnce(wire::FileId file_id, uint64_t offset,
                                                 wire::MutableBytes into,
                                                 runtime::Deadline deadline);
  static absl::StatusOr<std::vector<uint8_t>> IoctlOutput(const Response& response,
                                                          std::string_view what);

  const std::shared_ptr<Session> session_;
  const std::string share_;
  const uint32_t tree_id_;
  const wire::TreeConnectResponse response_;
  bool gone_ = false;  // The server said so.
};

}  // namespace dfscsi::smb

#endif  // NODE_AGENT_SMB_TREE_H_
