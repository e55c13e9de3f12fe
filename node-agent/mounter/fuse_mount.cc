#include "node-agent/mounter/fuse_mount.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <linux/openat2.h>
#include <poll.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "node-agent/base/log.h"

namespace dfscsi::mounter {
namespace {

using state::Error;
using state::kFileSystemType;
using state::MountInfo;

// Debian 12's <linux/fuse.h> is 7.38; what is used of it has not changed up to here.
constexpr uint32_t kFuseMinor = 45;
constexpr uint32_t kPageBytes = 4096;

Error Failure(int error, const std::string& text) {
  return Error{error, absl::StrCat(text, ": ", strerror(error))};
}

// The deepest mount that holds `path`; the latest where several cover each other.
const MountInfo* Covering(const std::vector<MountInfo>& mounts, const std::string& path) {
  const MountInfo* best = nullptr;
  for (const MountInfo& mount : mounts) {
    const std::string& point = mount.mount_point;
    const bool holds = point == "/" || path == point || absl::StartsWith(path, point + "/");
    if (holds && (best == nullptr || point.size() >= best->mount_point.size())) best = &mount;
  }
  return best;
}

std::optional<Error> AnswerInit(int fuse_fd, const state::MountRequest& request,
                                MountRoot::Made* made) {
  pollfd readable = {fuse_fd, POLLIN, 0};
  std::string message(request.max_write + 8192, '\0');
  ssize_t n = -1;
  if (poll(&readable, 1, /*ms=*/1'000) == 1) n = read(fuse_fd, message.data(), message.size());
  fuse_in_header header;
  fuse_init_in offer = {};
  // Kernels before 5.17 send no flags2.
  constexpr size_t kLeast = sizeof(header) + offsetof(fuse_init_in, flags2);
  if (n < static_cast<ssize_t>(kLeast)) return Error{EPROTO, "the kernel sent no FUSE_INIT"};
  message.resize(static_cast<size_t>(n));
  memcpy(&header, message.data(), sizeof(header));
  memcpy(&offer, message.data() + sizeof(header),
         std::min(message.size() - sizeof(header), sizeof(offer)));
  if (header.opcode != FUSE_INIT || offer.major != FUSE_KERNEL_VERSION) {
    return Error{EPROTO, absl::StrCat("the kernel speaks FUSE ", offer.major, ".", offer.minor)};
  }
  uint64_t offered = offer.flags;
  if (offered & FUSE_INIT_EXT) offered |= static_cast<uint64_t>(offer.flags2) << 32;
  uint64_t wanted = request.init_flags;
  if (wanted >> 32 != 0) wanted |= FUSE_INIT_EXT;
  const uint64_t flags = wanted & offered;

  fuse_init_out answer = {};
  answer.major = FUSE_KERNEL_VERSION;
  answer.minor = std::min(offer.minor, kFuseMinor);
  answer.max_readahead = std::min(request.max_readahead, offer.max_readahead);
  answer.flags = static_cast<uint32_t>(flags);
  answer.flags2 = static_cast<uint32_t>(flags >> 32);
  answer.max_background = request.max_background;
  answer.congestion_threshold = static_cast<uint16_t>(request.max_background / 4 * 3);
  answer.max_write = request.max_write;
  answer.max_pages = static_cast<uint16_t>(request.max_write / kPageBytes);
  answer.time_gran = request.time_gran;
  fuse_out_header out = {sizeof(out) + sizeof(answer), 0, header.unique};
  const iovec parts[] = {{&out, sizeof(out)}, {&answer, sizeof(answer)}};
  if (writev(fuse_fd, parts, 2) != static_cast<ssize_t>(out.len)) {
    return Failure(errno, "answer to FUSE_INIT");
  }
  made->init_in = std::move(message);
  made->init_out.assign(reinterpret_cast<const char*>(&answer), sizeof(answer));
  return std::nullopt;
}

// On the mount's own backing device: INIT cannot ask for more than 128 KiB.
void SetReadAhead(uint32_t dev_minor, uint32_t kib) {
  const std::string path = absl::StrCat("/sys/class/bdi/0:", dev_minor, "/read_ahead_kb");
  UniqueFd fd(open(path.c_str(), O_WRONLY | O_CLOEXEC));
  const std::string text = absl::StrCat(kib);
  if (!fd || write(fd.get(), text.data(), text.size()) < 0) {
    LogWarning(path, ": ", strerror(errno), "; reads stay at the kernel's read-ahead");
  }
}

}  // namespace

std::optional<MountRoot> MountRoot::Open(const std::string& path) {
  UniqueFd fd(open(path.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!fd || path.empty() || path[0] != '/') return std::nullopt;
  std::string prefix = path;
  while (!prefix.empty() && prefix.back() == '/') prefix.pop_back();
  return MountRoot(std::move(prefix), std::move(fd));
}

std::optional<Error> MountRoot::Relative(const std::string& mount_point,
                                         std::string* relative) const {
  if (!absl::StartsWith(mount_point, path_ + "/")) {
    return Error{EPERM, absl::StrCat(mount_point, ": mount points must lie below ", path_, "/")};
  }
  *relative = mount_point.substr(path_.size() + 1);
  // One spelling of each path, so that it can be compared with mountinfo's.
  for (absl::string_view part : absl::StrSplit(*relative, '/')) {
    if (part.empty() || part == "." || part == ".." || part.find('\0') != part.npos) {
      return Error{EINVAL, absl::StrCat(mount_point, ": not a plain absolute path")};
    }
  }
  return std::nullopt;
}

UniqueFd MountRoot::OpenBeneath(const std::string& relative) const {
  open_how how = {};
  how.flags = O_PATH | O_DIRECTORY | O_CLOEXEC;
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS;
  return UniqueFd(static_cast<int>(syscall(
      SYS_openat2, fd_.get(), relative.empty() ? "." : relative.c_str(), &how, sizeof(how))));
}

std::optional<Error> MountRoot::Mount(const state::MountRequest& request, Made* made) const {
  const std::string& point = request.mount_point;
  std::string relative;
  if (auto error = Relative(point, &relative)) return error;
  if (request.max_write < kPageBytes || request.max_write > 1 << 20) {
    return Error{EINVAL, absl::StrCat("max_write ", request.max_write, " is out of range")};
  }
  const std::vector<MountInfo> mounts = state::ReadMountInfo();
  if (const MountInfo* on = Covering(mounts, point)) {
    if (on->mount_point == point) {
      return Error{EBUSY, absl::StrCat(point, ": is a mount point already (", on->type, ")")};
    }
    // To open it would be a request to an agent, perhaps to the one that waits for our answer.
    if (on->type == kFileSystemType) {
      return Error{EINVAL, absl::StrCat(point, ": lies within the mount ", on->mount_point)};
    }
  }
  const UniqueFd folder = OpenBeneath(relative);
  if (!folder) {
    if (errno == ELOOP) return Failure(ELOOP, point + ": has a symbolic link in it");
    return Failure(errno, point);
  }
  made->fuse_fd.reset(open("/dev/fuse", O_RDWR | O_NONBLOCK | O_CLOEXEC));
  if (!made->fuse_fd) return Failure(errno, "/dev/fuse");
  const std::string options =
      absl::StrCat("fd=", made->fuse_fd.get(), ",rootmode=40755,user_id=0,group_id=0,allow_other,",
                   "default_permissions,max_read=", request.max_write);
  const unsigned long flags = MS_NOSUID | MS_NODEV | (request.read_only ? MS_RDONLY : 0);
  const std::string target = absl::StrCat("/proc/self/fd/", folder.get());
  if (mount(request.source.c_str(), target.c_str(), std::string(kFileSystemType).c_str(), flags,
            options.c_str()) != 0) {
    return Failure(errno, absl::StrCat("mount of ", request.source, " on ", point));
  }
  std::optional<Error> error = AnswerInit(made->fuse_fd.get(), request, made);
  if (!error) {
    const std::vector<MountInfo> now = state::ReadMountInfo();
    const MountInfo* const mounted = Covering(now, point);
    if (mounted == nullptr || mounted->mount_point != point || mounted->type != kFileSystemType) {
      error = Error{EIO, absl::StrCat(point, ": the new mount is not in mountinfo")};
    } else {
      made->dev_minor = mounted->dev_minor;
      if (request.read_ahead_kb != 0) SetReadAhead(made->dev_minor, request.read_ahead_kb);
    }
  }
  if (error) Unmount(point, /*force=*/true);
  return error;
}

std::optional<Error> MountRoot::Unmount(const std::string& mount_point, bool force) const {
  std::string relative;
  if (auto error = Relative(mount_point, &relative)) return error;
  const std::vector<MountInfo> mounts = state::ReadMountInfo();
  const MountInfo* const top = Covering(mounts, mount_point);
  if (top == nullptr || top->mount_point != mount_point) {
    return Error{EINVAL, absl::StrCat(mount_point, ": is not a mount point")};
  }
  if (top->type != kFileSystemType) {
    return Error{EPERM, absl::StrCat(mount_point, ": is a mount of type ", top->type)};
  }
  // By its parent: to open the mount point itself would hold the mount.
  const size_t slash = relative.rfind('/');
  const std::string parent = slash == std::string::npos ? "" : relative.substr(0, slash);
  const std::string name = slash == std::string::npos ? relative : relative.substr(slash + 1);
  const UniqueFd folder = OpenBeneath(parent);
  if (!folder) return Failure(errno, mount_point);
  const std::string target = absl::StrCat("/proc/self/fd/", folder.get(), "/", name);
  if (umount2(target.c_str(), MNT_DETACH | UMOUNT_NOFOLLOW | (force ? MNT_FORCE : 0)) != 0) {
    return Failure(errno, absl::StrCat("umount of ", mount_point));
  }
  return std::nullopt;
}

bool IsGone(int fuse_fd) {
  pollfd state = {fuse_fd, 0, 0};
  return poll(&state, 1, /*ms=*/0) == 1 && (state.revents & POLLERR) != 0;
}

bool IsFuseDevice(int fd) {
  struct stat st;
  return fstat(fd, &st) == 0 && S_ISCHR(st.st_mode) && st.st_rdev == makedev(10, 229);
}

}  // namespace dfscsi::mounter
