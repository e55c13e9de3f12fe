#include "node-agent/dfsctl/output_file.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "node-agent/agent/failure.h"

namespace dfscsi::dfsctl {
namespace {

// Of the handler of signals: set and cleared with them blocked.
char* g_temporary = nullptr;

void RemoveAndEnd(int signal_number) {
  if (g_temporary != nullptr) unlink(g_temporary);
  signal(signal_number, SIG_DFL);
  raise(signal_number);  // Delivered when this returns.
}

constexpr int kEndingSignals[] = {SIGINT, SIGTERM, SIGHUP};

class SignalsBlocked {
 public:
  SignalsBlocked() {
    sigset_t ending;
    sigemptyset(&ending);
    for (const int number : kEndingSignals) sigaddset(&ending, number);
    sigprocmask(SIG_BLOCK, &ending, &before_);
  }
  SignalsBlocked(const SignalsBlocked&) = delete;
  SignalsBlocked& operator=(const SignalsBlocked&) = delete;
  ~SignalsBlocked() { sigprocmask(SIG_SETMASK, &before_, nullptr); }

 private:
  sigset_t before_;
};

void RemoveAtSignals() {
  for (const int number : kEndingSignals) {
    struct sigaction action = {};
    if (sigaction(number, nullptr, &action) != 0 || action.sa_handler == SIG_IGN) continue;
    action = {};
    action.sa_handler = RemoveAndEnd;
    sigaction(number, &action, nullptr);
  }
}

void ForgetTemporary() {
  free(g_temporary);
  g_temporary = nullptr;
}

absl::Status Failed(const std::string& path, const std::string& why) {
  return agent::WithReason(absl::UnknownError(absl::StrCat(path, ": ", why)), agent::v1::SYSTEM);
}

mode_t NewFileMode() {
  const mode_t mask = umask(0);
  umask(mask);
  return 0666 & ~mask;
}

}  // namespace

OutputFile::OutputFile(std::string path, std::string temporary, UniqueFd fd)
    : path_(std::move(path)), temporary_(std::move(temporary)), fd_(std::move(fd)) {}

OutputFile::OutputFile(OutputFile&& other) noexcept
    : path_(std::move(other.path_)),
      temporary_(std::exchange(other.temporary_, std::string())),
      fd_(std::move(other.fd_)) {}

OutputFile::~OutputFile() {
  if (temporary_.empty()) return;
  const SignalsBlocked blocked;
  unlink(temporary_.c_str());
  ForgetTemporary();
}

absl::StatusOr<OutputFile> OutputFile::Open(const std::string& path) {
  struct stat there = {};
  const bool exists = stat(path.c_str(), &there) == 0;
  if (!exists && errno != ENOENT) return Failed(path, strerror(errno));
  if (exists && S_ISDIR(there.st_mode)) return Failed(path, "is a folder; name the file in it");
  if (exists && !S_ISREG(there.st_mode)) {
    UniqueFd fd(open(path.c_str(), O_WRONLY | O_CLOEXEC | O_NOCTTY));
    if (!fd) return Failed(path, strerror(errno));
    return OutputFile(path, "", std::move(fd));
  }
  std::string real = path;
  if (exists) {
    if (access(path.c_str(), W_OK) != 0) return Failed(path, strerror(errno));
    char* const resolved = realpath(path.c_str(), nullptr);  // The link stays one.
    if (resolved == nullptr) return Failed(path, strerror(errno));
    real = resolved;
    free(resolved);
  }
  const size_t slash = real.rfind('/');
  std::string temporary =
      absl::StrCat(slash == std::string::npos ? "" : real.substr(0, slash + 1), ".dfsctl-XXXXXX");
  const SignalsBlocked blocked;
  UniqueFd fd(mkostemp(temporary.data(), O_CLOEXEC));
  if (!fd) return Failed(path, strerror(errno));
  g_temporary = strdup(temporary.c_str());
  RemoveAtSignals();
  OutputFile file(real, temporary, std::move(fd));
  // The owner first: it takes bits of the mode away. To whom it may not be given it is not given.
  if (exists && fchown(file.fd(), there.st_uid, there.st_gid) != 0 && errno != EPERM) {
    return Failed(path, strerror(errno));
  }
  if (fchmod(file.fd(), exists ? there.st_mode & 07777 : NewFileMode()) != 0) {
    return Failed(path, strerror(errno));
  }
  return file;
}

absl::Status OutputFile::Commit() {
  if (temporary_.empty()) return absl::OkStatus();
  const SignalsBlocked blocked;
  if (rename(temporary_.c_str(), path_.c_str()) != 0) return Failed(path_, strerror(errno));
  temporary_.clear();
  ForgetTemporary();
  return absl::OkStatus();
}

}  // namespace dfscsi::dfsctl
