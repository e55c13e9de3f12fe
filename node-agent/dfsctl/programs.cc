#include "node-agent/dfsctl/programs.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <optional>
#include <system_error>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "node-agent/agent/failure.h"
#include "node-agent/base/status_macros.h"
#include "node-agent/dfsctl/mounter_tool.h"

namespace dfscsi::dfsctl {
namespace {

constexpr absl::Duration kPoll = absl::Milliseconds(5);

absl::Status SystemError(int error, const std::string& what) {
  return agent::WithReason(absl::ErrnoToStatus(error, what), agent::v1::SYSTEM);
}

absl::Status MakeFolder(const std::string& path) {
  std::error_code error;
  std::filesystem::create_directories(std::filesystem::path(path).parent_path(), error);
  if (mkdir(path.c_str(), 0750) != 0 && errno != EEXIST) return SystemError(errno, path);
  return absl::OkStatus();
}

std::string ProgramPath(const std::string& name) {
  std::error_code error;
  return (std::filesystem::read_symlink("/proc/self/exe", error).parent_path() / name).string();
}

// Looking at who holds it takes nothing away from who wants it.
UniqueFd OpenKeeperLock(const std::string& socket_dir) {
  const std::string path = absl::StrCat(socket_dir, "/keeper.lock");
  return UniqueFd(open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
}

}  // namespace

absl::StatusOr<UniqueFd> Programs::Lock(absl::Time deadline) const {
  const std::string path = absl::StrCat(socket_dir_, "/dfsctl.lock");
  UniqueFd lock(open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!lock) return SystemError(errno, path);
  while (flock(lock.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK && errno != EINTR) return SystemError(errno, path);
    if (absl::Now() > deadline) {
      return agent::WithReason(
          absl::DeadlineExceededError(absl::StrCat(path, ": another dfsctl is starting programs")),
          agent::v1::SYSTEM);
    }
    absl::SleepFor(kPoll);
  }
  return lock;
}

UniqueFd Programs::TryLockKeeper(const std::string& socket_dir) {
  UniqueFd lock = OpenKeeperLock(socket_dir);
  flock64 whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
  if (lock && fcntl(lock.get(), F_OFD_SETLK, &whole) != 0) lock.reset();
  return lock;
}

bool Programs::KeeperRuns() const {
  const UniqueFd lock = OpenKeeperLock(socket_dir_);
  flock64 whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
  return lock && fcntl(lock.get(), F_OFD_GETLK, &whole) == 0 && whole.l_type != F_UNLCK;
}

// A daemon: a session of its own, nothing of ours open, its folder /.
absl::StatusOr<pid_t> Programs::Start(const std::string& name, const std::string& program,
                                      const std::vector<std::string>& arguments) {
  const std::string path = ProgramPath(program);
  const std::string log = absl::StrCat(socket_dir_, "/", name, ".log");
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  posix_spawn_file_actions_init(&actions);
  posix_spawnattr_init(&attributes);
  sigset_t none, all;
  sigemptyset(&none);
  sigfillset(&all);
  int error = posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  if (error == 0) {
    error = posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, log.c_str(),
                                             O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW, 0640);
  }
  if (error == 0) error = posix_spawn_file_actions_adddup2(&actions, STDOUT_FILENO, STDERR_FILENO);
  if (error == 0) error = posix_spawn_file_actions_addchdir_np(&actions, "/");
  if (error == 0) error = posix_spawn_file_actions_addclosefrom_np(&actions, STDERR_FILENO + 1);
  if (error == 0) error = posix_spawnattr_setsigmask(&attributes, &none);
  if (error == 0) error = posix_spawnattr_setsigdefault(&attributes, &all);
  if (error == 0) {
    error = posix_spawnattr_setflags(
        &attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSID);
  }
  std::vector<std::string> words = {program};
  words.insert(words.end(), arguments.begin(), arguments.end());
  std::vector<char*> argv;
  argv.reserve(words.size() + 1);
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  char path_variable[] = "PATH=/usr/sbin:/usr/bin:/sbin:/bin";
  std::vector<char*> environment = {path_variable};
#if __has_feature(address_sanitizer)
  for (char** variable = environ; *variable != nullptr; ++variable) {
    if (strstr(*variable, "SAN_") != nullptr) environment.push_back(*variable);
  }
#endif
  environment.push_back(nullptr);
  pid_t pid = -1;
  if (error == 0) {
    error = posix_spawn(&pid, path.c_str(), &actions, &attributes, argv.data(), environment.data());
  }
  posix_spawn_file_actions_destroy(&actions);
  posix_spawnattr_destroy(&attributes);
  if (error != 0) return SystemError(error, absl::StrCat("cannot start ", path));
  return pid;
}

absl::StatusOr<pid_t> Programs::StartAgent() {
  return Start("dfs-node-agent", "dfs-node-agent",
               {absl::StrCat("--socket_dir=", socket_dir_),
                absl::StrCat("--state_dir=", state_dir_), "--exit_when_idle"});
}

std::string Programs::LastLogLine(const std::string& name) const {
  const std::string path = absl::StrCat(socket_dir_, "/", name, ".log");
  const UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  char tail[1024];
  const off_t size = fd ? lseek(fd.get(), 0, SEEK_END) : -1;
  if (size <= 0) return "";
  const off_t from = size > static_cast<off_t>(sizeof(tail)) ? size - sizeof(tail) : 0;
  const ssize_t n = pread(fd.get(), tail, sizeof(tail), from);
  if (n <= 0) return "";
  std::string text(tail, static_cast<size_t>(n));
  absl::StripTrailingAsciiWhitespace(&text);
  const size_t newline = text.rfind('\n');
  return newline == std::string::npos ? text : text.substr(newline + 1);
}

absl::Status Programs::EnsureMounter(absl::Time deadline) {
  absl::StatusOr<MounterTool> mounter = MounterTool::Connect(socket_dir_);
  if (mounter.ok()) return absl::OkStatus();
  if (!absl::IsUnavailable(mounter.status())) {
    return agent::WithReason(mounter.status(), agent::v1::SYSTEM);
  }
  ASSIGN_OR_RETURN(const pid_t pid,
                   Start("dfs-mounter", "dfs-mounter",
                         {absl::StrCat("--socket-dir=", socket_dir_), "--exit-when-idle"}));
  started_.push_back({pid, "dfs-mounter"});
  while (true) {
    if (MounterTool::Connect(socket_dir_).ok()) return absl::OkStatus();
    if (waitpid(started_.back().pid, nullptr, WNOHANG) == started_.back().pid) {
      started_.pop_back();
      return agent::WithReason(absl::InternalError(absl::StrCat("dfs-mounter did not start: ",
                                                                LastLogLine("dfs-mounter"))),
                               agent::v1::SYSTEM);
    }
    if (absl::Now() > deadline) {
      return agent::WithReason(absl::DeadlineExceededError("dfs-mounter does not listen"),
                               agent::v1::SYSTEM);
    }
    absl::SleepFor(kPoll);
  }
}

absl::Status Programs::EnsureAgents(absl::Time deadline) {
  bool started = false;
  while (true) {
    absl::StatusOr<MounterTool> mounter = MounterTool::Connect(socket_dir_);
    if (mounter.ok()) {
      ASSIGN_OR_RETURN(const state::StatusReply status, mounter->GetStatus());
      if (!std::exchange(started, true)) {
        for (uint32_t i = status.agents; i < kAgents; ++i) {
          ASSIGN_OR_RETURN(const pid_t pid, StartAgent());
          started_.push_back({pid, "dfs-node-agent"});
        }
      }
      if (status.active_pid != 0) return absl::OkStatus();
    }
    for (size_t i = 0; i < started_.size(); ++i) {
      if (waitpid(started_[i].pid, nullptr, WNOHANG) == started_[i].pid) {
        const std::string name = started_[i].name;
        started_.erase(started_.begin() + static_cast<ptrdiff_t>(i));
        return agent::WithReason(
            absl::InternalError(absl::StrCat(name, " did not start: ", LastLogLine(name))),
            agent::v1::SYSTEM);
      }
    }
    if (absl::Now() > deadline) {
      return agent::WithReason(
          absl::DeadlineExceededError(
              absl::StrCat("no agent became active; see ", socket_dir_, "/dfs-node-agent.log")),
          agent::v1::SYSTEM);
    }
    absl::SleepFor(kPoll);
  }
}

absl::Status Programs::EnsureRunning(absl::Time deadline) {
  RETURN_IF_ERROR(MakeFolder(socket_dir_));
  if (!state_dir_.empty()) RETURN_IF_ERROR(MakeFolder(state_dir_));
  ASSIGN_OR_RETURN(const UniqueFd lock, Lock(deadline));
  RETURN_IF_ERROR(EnsureMounter(deadline));
  return EnsureAgents(deadline);
}

absl::Status Programs::EnsureKeeper(absl::Time deadline) {
  ASSIGN_OR_RETURN(const UniqueFd lock, Lock(deadline));
  // A keeper ends only under this lock, and not while something is mounted.
  if (KeeperRuns()) return absl::OkStatus();
  ASSIGN_OR_RETURN(const pid_t pid, Start("dfs-keeper", "dfsctl",
                                          {"keep", absl::StrCat("--socket-dir=", socket_dir_),
                                           absl::StrCat("--state-dir=", state_dir_)}));
  while (!KeeperRuns()) {
    if (waitpid(pid, nullptr, WNOHANG) == pid || absl::Now() > deadline) {
      return absl::InternalError(
          absl::StrCat("dfs-keeper did not start: ", LastLogLine("dfs-keeper")));
    }
    absl::SleepFor(kPoll);
  }
  return absl::OkStatus();
}

void Programs::StopIfUnused() {
  if (started_.empty()) return;
  const absl::Time deadline = absl::Now() + absl::Seconds(3);
  const absl::StatusOr<UniqueFd> lock = Lock(deadline);
  if (!lock.ok()) return;
  {
    absl::StatusOr<MounterTool> mounter = MounterTool::Connect(socket_dir_);
    if (mounter.ok()) {
      const absl::StatusOr<std::vector<state::MountEntry>> mounts = mounter->ListMounts();
      if (mounts.ok() && !mounts->empty()) return;  // Of somebody who came in between.
    }
  }
  // Agents first: a mounter without agents may go.
  for (auto it = started_.rbegin(); it != started_.rend(); ++it) {
    if (it->name != "dfs-mounter") kill(it->pid, SIGTERM);
  }
  for (auto it = started_.rbegin(); it != started_.rend(); ++it) {
    if (it->name == "dfs-mounter") kill(it->pid, SIGTERM);
    while (waitpid(it->pid, nullptr, WNOHANG) == 0 && absl::Now() < deadline) {
      absl::SleepFor(kPoll);
    }
  }
  started_.clear();
}

}  // namespace dfscsi::dfsctl
