// SETLK, SETLKW, GETLK, flock(2).

#define FUSE_USE_VERSION 35
#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <string.h>
#include <sys/file.h>

#include <utility>

#include "node-agent/fuse/operations_internal.h"
#include "node-agent/fuse/reply.h"
#include "node-agent/runtime/task.h"
#include "node-agent/vfs/errno.h"
#include "node-agent/vfs/filesystem.h"

namespace dfscsi::fuse {
namespace {

using runtime::Task;
using vfs::FileLock;
using vfs::LockKind;
using vfs::LockType;

// Of a range that has no end. [fcntl(2)]
constexpr uint64_t kLastByte = INT64_MAX;

FileLock LockOf(const struct flock& lock, const fuse_file_info& file) {
  const auto first = static_cast<uint64_t>(lock.l_start);
  const auto length = static_cast<uint64_t>(lock.l_len);
  return {.kind = LockKind::kRange,
          .type = lock.l_type == F_WRLCK   ? LockType::kExclusive
                  : lock.l_type == F_RDLCK ? LockType::kShared
                                           : LockType::kNone,
          .owner = file.lock_owner,
          .first = first,
          .last = length == 0 ? kLastByte : first + length - 1,
          .pid = static_cast<uint32_t>(lock.l_pid),
          .fh = file.fh};
}

Task<void> RunSetLock(vfs::Filesystem* filesystem, StatusReply reply, FileLock wanted, bool wait) {
  const absl::Status status = co_await filesystem->SetLock(wanted, wait, reply.deadline());
  reply.Send(status);
}
void OnSetLock(fuse_req_t request, fuse_ino_t, fuse_file_info* file, struct flock* lock, int wait) {
  Session& session = SessionOf(request);
  session.Spawn(RunSetLock(&session.filesystem(), StatusReply(session, request),
                           LockOf(*lock, *file), wait != 0));
}

void OnFlock(fuse_req_t request, fuse_ino_t, fuse_file_info* file, int operation) {
  Session& session = SessionOf(request);
  const int kind = operation & ~LOCK_NB;
  const FileLock wanted = {.kind = LockKind::kWhole,
                           .type = kind == LOCK_EX   ? LockType::kExclusive
                                   : kind == LOCK_SH ? LockType::kShared
                                                     : LockType::kNone,
                           .owner = file->lock_owner,
                           .first = 0,
                           .last = kLastByte,
                           .fh = file->fh};
  session.Spawn(RunSetLock(&session.filesystem(), StatusReply(session, request), wanted,
                           (operation & LOCK_NB) == 0));
}

Task<void> RunGetLock(vfs::Filesystem* filesystem, LockReply reply, FileLock wanted) {
  const absl::StatusOr<FileLock> found = co_await filesystem->GetLock(wanted, reply.deadline());
  if (found.ok()) {
    reply.Send(*found);
  } else {
    reply.Send(found.status());
  }
}
void OnGetLock(fuse_req_t request, fuse_ino_t, fuse_file_info* file, struct flock* lock) {
  Session& session = SessionOf(request);
  session.Spawn(
      RunGetLock(&session.filesystem(), LockReply(session, request), LockOf(*lock, *file)));
}

}  // namespace

void AddLockOperations(fuse_lowlevel_ops& ops) {
  ops.getlk = OnGetLock;
  ops.setlk = OnSetLock;
  ops.flock = OnFlock;
}

}  // namespace dfscsi::fuse
