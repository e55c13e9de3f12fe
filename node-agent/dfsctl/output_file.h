// Where `dfsctl get` writes. A file that is there already stays as it is until the whole copy can
// take its place.

#ifndef NODE_AGENT_DFSCTL_OUTPUT_FILE_H_
#define NODE_AGENT_DFSCTL_OUTPUT_FILE_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "node-agent/base/unique_fd.h"

namespace dfscsi::dfsctl {

// At most one in a process: SIGINT, SIGTERM and SIGHUP remove its temporary file.
class OutputFile {
 public:
  // A temporary file in the folder of `path`. What is there and no regular file (a device, a pipe)
  // is opened itself, and never removed. Errors have the reason SYSTEM: a folder is there, `path`
  // may not be written, and open()'s.
  static absl::StatusOr<OutputFile> Open(const std::string& path);

  OutputFile(OutputFile&& other) noexcept;
  OutputFile& operator=(OutputFile&&) = delete;
  ~OutputFile();  // Without Commit(): nothing is left of it.

  int fd() const { return fd_.get(); }
  // The temporary file takes its place. Reason SYSTEM where it cannot.
  absl::Status Commit();

 private:
  OutputFile(std::string path, std::string temporary, UniqueFd fd);

  std::string path_;
  std::string temporary_;  // Empty: none, or no more.
  UniqueFd fd_;
};

}  // namespace dfscsi::dfsctl

#endif  // NODE_AGENT_DFSCTL_OUTPUT_FILE_H_
