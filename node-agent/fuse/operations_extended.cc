// The requests that not every server can do: links, extended attributes, space, server-side copies.

#define FUSE_USE_VERSION 35
#include <fuse_lowlevel.h>

#include <string>
#include <utility>

#include "node-agent/fuse/operations_internal.h"
#include "node-agent/fuse/reply.h"
#include "node-agent/runtime/task.h"
#include "node-agent/vfs/filesystem.h"

namespace dfscsi::fuse {
namespace {

using runtime::Task;
using state::FileHandle;
using state::NodeId;

Task<void> RunSymlink(vfs::Filesystem* filesystem, EntryReply reply, NodeId parent,
                      std::string name, std::string target) {
  absl::StatusOr<vfs::EntryReply> made = co_await filesystem->MakeSymlink(
      parent, std::move(name), std::move(target), reply.journal(), reply.deadline());
  if (!made.ok()) {
    reply.Send(made.status());
  } else if (!reply.Send(*made)) {
    filesystem->Forget(made->node, 1);
  }
}
void OnSymlink(fuse_req_t request, const char* target, fuse_ino_t parent, const char* name) {
  Session& session = SessionOf(request);
  session.Spawn(
      RunSymlink(&session.filesystem(), EntryReply(session, request), parent, name, target));
}

Task<void> RunSetXattr(vfs::Filesystem* filesystem, StatusReply reply, NodeId node,
                       std::string name, std::string value, int flags) {
  const absl::Status status = co_await filesystem->SetXattr(
      node, std::move(name), std::move(value), flags, reply.journal(), reply.deadline());
  reply.Send(status);
}
void OnSetXattr(fuse_req_t request, fuse_ino_t node, const char* name, const char* value,
                size_t size, int flags) {
  Session& session = SessionOf(request);
  session.Spawn(RunSetXattr(&session.filesystem(), StatusReply(session, request), node, name,
                            std::string(value, size), flags));
}

Task<void> RunRemoveXattr(vfs::Filesystem* filesystem, StatusReply reply, NodeId node,
                          std::string name) {
  const absl::Status status =
      co_await filesystem->RemoveXattr(node, std::move(name), reply.journal(), reply.deadline());
  reply.Send(status);
}
void OnRemoveXattr(fuse_req_t request, fuse_ino_t node, const char* name) {
  Session& session = SessionOf(request);
  session.Spawn(RunRemoveXattr(&session.filesystem(), StatusReply(session, request), node, name));
}

Task<void> RunAllocate(vfs::Filesystem* filesystem, StatusReply reply, FileHandle fh, int mode,
                       uint64_t offset, uint64_t length_bytes) {
  const absl::Status status = co_await filesystem->Allocate(fh, mode, offset, length_bytes,
                                                            reply.journal(), reply.deadline());
  reply.Send(status);
}
void OnAllocate(fuse_req_t request, fuse_ino_t, int mode, off_t offset, off_t length_bytes,
                fuse_file_info* file) {
  Session& session = SessionOf(request);
  session.Spawn(RunAllocate(&session.filesystem(), StatusReply(session, request), file->fh, mode,
                            static_cast<uint64_t>(offset), static_cast<uint64_t>(length_bytes)));
}

Task<void> RunCopyRange(vfs::Filesystem* filesystem, WriteReply reply, FileHandle from,
                        uint64_t from_offset, FileHandle to, uint64_t to_offset,
                        uint64_t length_bytes) {
  absl::StatusOr<uint64_t> copied = co_await filesystem->CopyRange(
      from, from_offset, to, to_offset, length_bytes, reply.journal(), reply.deadline());
  if (copied.ok()) {
    reply.Send(*copied);
  } else {
    reply.Send(copied.status());
  }
}
void OnCopyRange(fuse_req_t request, fuse_ino_t, off_t from_offset, fuse_file_info* from,
                 fuse_ino_t, off_t to_offset, fuse_file_info* to, size_t length_bytes, int) {
  Session& session = SessionOf(request);
  session.Spawn(RunCopyRange(&session.filesystem(), WriteReply(session, request), from->fh,
                             static_cast<uint64_t>(from_offset), to->fh,
                             static_cast<uint64_t>(to_offset), length_bytes));
}

}  // namespace

void AddExtendedOperations(fuse_lowlevel_ops& ops) {
  ops.symlink = OnSymlink;
  ops.setxattr = OnSetXattr;
  ops.removexattr = OnRemoveXattr;
  ops.fallocate = OnAllocate;
  ops.copy_file_range = OnCopyRange;
}

}  // namespace dfscsi::fuse
