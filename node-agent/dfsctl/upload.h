// A file on a server that takes its name only when it is whole.

#ifndef NODE_AGENT_DFSCTL_UPLOAD_H_
#define NODE_AGENT_DFSCTL_UPLOAD_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "node-agent/dfs/client.h"
#include "node-agent/dfs/path.h"
#include "node-agent/runtime/task.h"
#include "node-agent/smb/tree.h"

namespace dfscsi::dfsctl {

// Until Commit() it is a file `.dfsctl-…` in the folder of its name, and marked to be removed with
// its handle: the server removes it as this process, or the connection, ends. One server; whoever
// wants another begins anew.
//
// Errors of all: those of smb::Tree. Not thread-safe.
class Upload {
 public:
  Upload() = default;
  Upload(const Upload&) = delete;
  ~Upload();

  // On whichever target serves `target`, which is below a share. Refuses what is there and is no
  // file that may be written: STATUS_FILE_IS_A_DIRECTORY, STATUS_ACCESS_DENIED and such.
  runtime::Task<absl::Status> Begin(dfs::Client* client, dfs::DfsPath target);

  // `from` must live until this returns or is destroyed.
  runtime::Task<absl::Status> Write(uint64_t offset, absl::Span<const uint8_t> from);
  // A copy on the server. `source` is a handle of tree(). Returns the bytes copied.
  runtime::Task<absl::StatusOr<uint64_t>> CopyFrom(smb::wire::FileId source, uint64_t offset,
                                                   uint64_t length_bytes);
  // On the server's disk, and then in its place. A new file: with the rights that new files have
  // there. kUnknown: the answer was lost, and nobody knows whether it is there.
  runtime::Task<absl::Status> Commit();

  smb::Tree& tree() { return *tree_; }

 private:
  runtime::Task<absl::Status> BeginOn(dfs::Binding binding, bool is_link);

  std::shared_ptr<smb::Tree> tree_;
  smb::wire::FileId file_id_;
  std::u16string path_;
};

}  // namespace dfscsi::dfsctl

#endif  // NODE_AGENT_DFSCTL_UPLOAD_H_
