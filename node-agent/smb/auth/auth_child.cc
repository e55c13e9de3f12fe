#include "node-agent/smb/auth/auth_child.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "node-agent/smb/auth/auth_protocol.h"

namespace dfscsi::smb::auth {
namespace {

// Debian 12's libc has both calls, but not their P_PIDFD and pidfd headers for C++.
constexpr idtype_t kPidfd = static_cast<idtype_t>(3);  // P_PIDFD

// The C library overwrites what is freed (its per-thread cache does not: off). GSSAPI mechanisms
// leave passwords behind, gss-ntlmssp as UTF-16.
constexpr char kWipeFreedMemory[] =
    "GLIBC_TUNABLES=glibc.malloc.tcache_count=0:glibc.malloc.perturb=165";

int OpenPidfd(pid_t pid) { return static_cast<int>(syscall(SYS_pidfd_open, pid, 0)); }

absl::Status SystemError(int error, absl::string_view what) {
  if (error == EAGAIN || error == ENOMEM || error == EMFILE || error == ENFILE) {
    return absl::ResourceExhaustedError(absl::StrCat(what, ": ", strerror(error)));
  }
  return absl::ErrnoToStatus(error, what);
}

// posix_spawn's two parameter blocks.
struct SpawnParameters {
  SpawnParameters() {
    posix_spawn_file_actions_init(&actions);
    posix_spawnattr_init(&attributes);
  }
  SpawnParameters(const SpawnParameters&) = delete;
  ~SpawnParameters() {
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
  }
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
};

// Descriptors: 0 and 1 /dev/null, 2 ours, 3 the socket, nothing else. Signals: as after boot.
int Spawn(const std::string& path, int socket_fd, pid_t* pid) {
  SpawnParameters spawn;
  sigset_t none;
  sigset_t all;
  sigemptyset(&none);
  sigfillset(&all);
  // A dup2 onto itself clears the close-on-exec flag here, so socket_fd may be 3 already. What is
  // open at 3 otherwise is not ours to lose: it is closed in the child only.
  int error = posix_spawn_file_actions_adddup2(&spawn.actions, socket_fd, kAuthSocketFd);
  for (const int fd : {STDIN_FILENO, STDOUT_FILENO}) {
    if (error == 0) {
      error = posix_spawn_file_actions_addopen(&spawn.actions, fd, "/dev/null", O_RDWR, 0);
    }
  }
  if (error == 0) {
    error = posix_spawn_file_actions_addclosefrom_np(&spawn.actions, kAuthSocketFd + 1);
  }
  if (error == 0) error = posix_spawnattr_setsigmask(&spawn.attributes, &none);
  if (error == 0) error = posix_spawnattr_setsigdefault(&spawn.attributes, &all);
  if (error == 0) {
    error =
        posix_spawnattr_setflags(&spawn.attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  }
  if (error != 0) return error;
  char* const argv[] = {const_cast<char*>("dfs-auth"), nullptr};
  char* const environment[] = {const_cast<char*>(kWipeFreedMemory), nullptr};
  return posix_spawn(pid, path.c_str(), &spawn.actions, &spawn.attributes, argv, environment);
}

}  // namespace

AuthChild& AuthChild::operator=(AuthChild&& other) noexcept {
  if (this == &other) return *this;
  KillAndReap();
  socket = std::move(other.socket);
  pidfd = std::move(other.pidfd);
  pid_ = other.pid_;
  return *this;
}

AuthChild::~AuthChild() { KillAndReap(); }

void AuthChild::Kill() {
  if (pidfd) syscall(SYS_pidfd_send_signal, pidfd.get(), SIGKILL, nullptr, 0);
}

bool AuthChild::TryReap() {
  if (!pidfd) return true;
  siginfo_t info = {};
  if (waitid(kPidfd, static_cast<id_t>(pidfd.get()), &info, WEXITED | WNOHANG) == 0 &&
      info.si_pid == 0) {
    return false;
  }
  pidfd.reset();
  return true;
}

void AuthChild::KillAndReap() {
  socket.reset();
  if (!pidfd) return;
  Kill();
  siginfo_t info = {};
  while (waitid(kPidfd, static_cast<id_t>(pidfd.get()), &info, WEXITED) != 0 && errno == EINTR) {
  }
  pidfd.reset();
}

absl::StatusOr<AuthChild> StartAuthChild(const std::string& path) {
  int pair[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) {
    return SystemError(errno, "socketpair for dfs-auth");
  }
  UniqueFd ours(pair[0]);
  UniqueFd theirs(pair[1]);
  if (fcntl(ours.get(), F_SETFL, O_NONBLOCK) != 0) return SystemError(errno, "fcntl");
  pid_t pid = -1;
  if (const int error = Spawn(path, theirs.get(), &pid); error != 0) {
    return SystemError(error, absl::StrCat("cannot run ", path));
  }
  // The child stays a zombie until it is reaped, so the number is still its own.
  UniqueFd pidfd(OpenPidfd(pid));
  if (!pidfd) {
    const int error = errno;
    kill(pid, SIGKILL);
    waitpid(pid, nullptr, 0);
    return SystemError(error, "pidfd of dfs-auth");
  }
  return AuthChild(std::move(ours), std::move(pidfd), pid);
}

}  // namespace dfscsi::smb::auth
