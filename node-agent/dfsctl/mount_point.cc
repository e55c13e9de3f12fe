#include "node-agent/dfsctl/mount_point.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "node-agent/agent/failure.h"
#include "node-agent/base/status_macros.h"
#include "node-agent/state/mount_info.h"

namespace dfscsi::dfsctl {
namespace {

using agent::WithReason;
namespace v1 = agent::v1;

absl::Status BadMountPoint(const std::string& path, const std::string& why) {
  return WithReason(absl::FailedPreconditionError(absl::StrCat(path, ": ", why)),
                    v1::BAD_MOUNT_POINT);
}

// Absolute, without symbolic links but perhaps the last component, which is not asked anything.
absl::StatusOr<std::string> CanonicalMountPoint(const std::string& path) {
  std::string trimmed = path;
  while (trimmed.size() > 1 && trimmed.back() == '/') trimmed.pop_back();
  const size_t slash = trimmed.rfind('/');
  const std::string name = slash == std::string::npos ? trimmed : trimmed.substr(slash + 1);
  std::string parent =
      slash == std::string::npos ? "." : trimmed.substr(0, std::max<size_t>(slash, 1));
  if (name.empty() || name == "." || name == "..") {
    parent = trimmed;  // Of these the last component is no name.
  }
  char* const resolved = realpath(parent.c_str(), nullptr);
  if (resolved == nullptr) return BadMountPoint(path, strerror(errno));
  std::string canonical = resolved;
  free(resolved);
  if (parent == trimmed) return canonical;
  if (canonical != "/") canonical += '/';
  return canonical + name;
}

// "": it is none.
std::string TargetOfLink(const std::string& path) {
  char target[4096];
  const ssize_t n = readlink(path.c_str(), target, sizeof(target));
  if (n <= 0 || n == sizeof(target)) return "";
  const std::string text(target, static_cast<size_t>(n));
  return text[0] == '/' ? text : absl::StrCat(path.substr(0, path.rfind('/') + 1), text);
}

// The last line of a path is what lies on top there.
bool IsOurs(const std::vector<state::MountInfo>& mounts, const std::string& mount_point) {
  const auto top = std::find_if(mounts.rbegin(), mounts.rend(), [&](const auto& mount) {
    return mount.mount_point == mount_point;
  });
  return top != mounts.rend() && top->type == state::kFileSystemType;
}

bool IsMounted(const std::vector<state::MountInfo>& mounts, const std::string& mount_point) {
  return std::any_of(mounts.begin(), mounts.end(),
                     [&](const auto& mount) { return mount.mount_point == mount_point; });
}

// A mount of ours whose /dev/fuse nobody holds. The question is put by a child: of a mount that
// lives and waits for a server the answer may not come.
bool IsDead(const std::string& mount_point) {
  constexpr absl::Duration kAnswerTime = absl::Seconds(1);
  const pid_t child = fork();
  if (child == 0) {
    struct statfs status;
    const bool dead =
        statfs(mount_point.c_str(), &status) != 0 && (errno == ENOTCONN || errno == ECONNABORTED);
    _exit(dead ? 0 : 1);
  }
  if (child < 0) return false;
  int status = 0;
  const absl::Time give_up = absl::Now() + kAnswerTime;
  while (waitpid(child, &status, WNOHANG) == 0) {
    if (absl::Now() > give_up) {
      kill(child, SIGKILL);
      waitpid(child, &status, 0);
      return false;
    }
    absl::SleepFor(absl::Milliseconds(2));
  }
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

}  // namespace

absl::StatusOr<std::string> CheckMountPoint(const std::string& path) {
  ASSIGN_OR_RETURN(std::string canonical, ResolveMountPoint(path));
  if (IsOurs(state::ReadMountInfo(), canonical) && IsDead(canonical)) {
    return BadMountPoint(
        path, absl::StrCat("a dead mount of dfs-csi is there: run dfsctl unmount ", canonical));
  }
  struct statx status;
  // Without asking a server: something may be mounted there already.
  if (statx(AT_FDCWD, canonical.c_str(), AT_STATX_DONT_SYNC | AT_SYMLINK_NOFOLLOW, STATX_TYPE,
            &status) != 0) {
    return BadMountPoint(path, strerror(errno));
  }
  if (!S_ISDIR(status.stx_mode)) return BadMountPoint(path, "not a directory");
  return canonical;
}

absl::StatusOr<std::string> ResolveMountPoint(const std::string& path) {
  constexpr int kMostLinks = 40;  // As the kernel.
  const std::vector<state::MountInfo> mounts = state::ReadMountInfo();
  std::string at = path;
  for (int links = 0; links < kMostLinks; ++links) {
    ASSIGN_OR_RETURN(std::string canonical, CanonicalMountPoint(at));
    if (IsMounted(mounts, canonical)) return canonical;
    at = TargetOfLink(canonical);
    if (at.empty()) return canonical;
  }
  return BadMountPoint(path, strerror(ELOOP));
}

absl::Status UnmountAlone(const std::string& mount_point, bool force) {
  if (!IsOurs(state::ReadMountInfo(), mount_point)) {
    return BadMountPoint(mount_point, "nothing of ours is mounted there");
  }
  if (umount2(mount_point.c_str(), MNT_DETACH | UMOUNT_NOFOLLOW | (force ? MNT_FORCE : 0)) != 0) {
    return WithReason(absl::ErrnoToStatus(errno, mount_point), v1::SYSTEM);
  }
  return absl::OkStatus();
}

void AddDeadMounts(v1::ListMountsResponse* response) {
  for (const state::MountInfo& mount : state::ReadMountInfo()) {
    const bool listed = std::any_of(
        response->mounts().begin(), response->mounts().end(), [&](const v1::Mount& known) {
          return known.mount_point() == mount.mount_point && !known.detached();
        });
    if (mount.type != state::kFileSystemType || listed || !IsDead(mount.mount_point)) continue;
    v1::Mount* const dead = response->add_mounts();
    dead->set_source(mount.source);
    dead->set_mount_point(mount.mount_point);
    dead->set_dead(true);
  }
}

}  // namespace dfscsi::dfsctl
