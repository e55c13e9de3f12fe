#include "node-agent/dfsctl/log_files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#include "node-agent/base/log.h"
#include "node-agent/base/unique_fd.h"

namespace dfscsi::dfsctl {

void BoundLog(const std::string& path, off_t most_bytes) {
  const UniqueFd log(open(path.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  struct stat there = {};
  if (!log || fstat(log.get(), &there) != 0 || !S_ISREG(there.st_mode)) return;
  if (there.st_size <= most_bytes) return;
  // Its writers keep the file: it is copied and emptied, and not renamed.
  const std::string old = path + ".1";
  const std::string temporary = path + ".new";
  {
    (void)unlink(temporary.c_str());
    const UniqueFd copy(open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0640));
    off_t at = 0;
    while (copy && at < there.st_size) {
      if (sendfile(copy.get(), log.get(), &at, static_cast<size_t>(there.st_size - at)) <= 0) break;
    }
    // A full disk: then nothing is kept of it.
    if (at < there.st_size || rename(temporary.c_str(), old.c_str()) != 0) {
      (void)unlink(temporary.c_str());
      (void)unlink(old.c_str());
    }
  }
  if (ftruncate(log.get(), 0) != 0) LogError(path, ": ", strerror(errno));
}

}  // namespace dfscsi::dfsctl
