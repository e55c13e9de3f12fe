// The requests that change something.

#define FUSE_USE_VERSION 35
#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <sys/stat.h>

#include <string>
#include <utility>

#include "absl/time/clock.h"
#include "node-agent/fuse/operations_internal.h"
#include "node-agent/fuse/reply.h"
#include "node-agent/runtime/task.h"
#include "node-agent/vfs/errno.h"
#include "node-agent/vfs/filesystem.h"

namespace dfscsi::fuse {
namespace {

using runtime::Task;
using state::FileHandle;
using state::NodeId;

// ---- Content and attributes ----

// `at_end`: the handle appends, also if it was not opened so. `pages`: the kernel writes what
// mapped pages hold, and takes a short count of it for the whole.
Task<void> RunWrite(vfs::Filesystem* filesystem, WriteReply reply, FileHandle fh, uint64_t offset,
                    absl::Span<const uint8_t> from, bool at_end, bool pages) {
  size_t written = 0;
  absl::Status status;
  if (at_end) {
    status = co_await filesystem->WriteAtEnd(fh, from, reply.journal(), reply.deadline(), &written);
  } else {
    status =
        co_await filesystem->Write(fh, offset, from, reply.journal(), reply.deadline(), &written);
  }
  if (status.ok()) {
    reply.Send(from.size());
  } else if (written > 0 && !pages) {
    reply.Send(written);
  } else {
    reply.Send(status);
  }
}
void OnWrite(fuse_req_t request, fuse_ino_t, const char* bytes, size_t size, off_t offset,
             fuse_file_info* file) {
  Session& session = SessionOf(request);
  // They lie in the request's slot of the arena until it is answered.
  const absl::Span<const uint8_t> from(reinterpret_cast<const uint8_t*>(bytes), size);
  // Flags as they are now. What mapped pages hold has its place in the file.
  const bool pages = file->writepage != 0;
  const bool at_end = (file->flags & O_APPEND) != 0 && !pages;
  WriteReply reply(session, request);
  constexpr int kWaits = O_APPEND | O_DIRECT | O_DSYNC | O_SYNC;
  if (!pages && (file->flags & kWaits) == 0) reply.AllowEarly();
  if (pages) reply.SetOfPages();
  session.Spawn(RunWrite(&session.filesystem(), std::move(reply), file->fh,
                         static_cast<uint64_t>(offset), from, at_end, pages));
}

Task<void> RunCreate(vfs::Filesystem* filesystem, CreateReply reply, NodeId parent,
                     std::string name, int flags) {
  absl::StatusOr<vfs::CreateReply> created = co_await filesystem->Create(
      parent, std::move(name), flags, reply.journal(), reply.deadline());
  if (!created.ok()) {
    reply.Send(created.status());
  } else if (reply.Send(*created)) {
    filesystem->OpenDelivered(created->entry.node, created->open);
  } else {
    filesystem->Release(created->open.fh);
    filesystem->Forget(created->entry.node, 1);
  }
}
void OnCreate(fuse_req_t request, fuse_ino_t parent, const char* name, mode_t,
              fuse_file_info* file) {
  Session& session = SessionOf(request);
  session.Spawn(
      RunCreate(&session.filesystem(), CreateReply(session, request), parent, name, file->flags));
}

vfs::AttributesChange ChangeOf(const struct stat& wanted, int to_set, const fuse_file_info* file) {
  vfs::AttributesChange change;
  const absl::Time now = absl::Now();
  if ((to_set & FUSE_SET_ATTR_SIZE) != 0) change.size_bytes = static_cast<uint64_t>(wanted.st_size);
  if ((to_set & FUSE_SET_ATTR_MODE) != 0) change.mode = wanted.st_mode;
  if ((to_set & FUSE_SET_ATTR_ATIME) != 0) change.accessed = absl::TimeFromTimespec(wanted.st_atim);
  if ((to_set & FUSE_SET_ATTR_MTIME) != 0) change.modified = absl::TimeFromTimespec(wanted.st_mtim);
  if ((to_set & FUSE_SET_ATTR_ATIME_NOW) != 0) change.accessed = now;
  if ((to_set & FUSE_SET_ATTR_MTIME_NOW) != 0) change.modified = now;
  if (file != nullptr) change.fh = file->fh;
  return change;
}

Task<void> RunSetAttributes(vfs::Filesystem* filesystem, AttributesReply reply, NodeId node,
                            vfs::AttributesChange change) {
  absl::StatusOr<vfs::AttributesReply> attributes =
      co_await filesystem->SetAttributes(node, change, reply.journal(), reply.deadline());
  if (attributes.ok()) {
    reply.Send(*attributes);
  } else {
    reply.Send(attributes.status());
  }
}
void OnSetAttributes(fuse_req_t request, fuse_ino_t node, struct stat* wanted, int to_set,
                     fuse_file_info* file) {
  Session& session = SessionOf(request);
  session.Spawn(RunSetAttributes(&session.filesystem(), AttributesReply(session, request), node,
                                 ChangeOf(*wanted, to_set, file)));
}

// ---- Names ----

// The answer for what was made, whose lookup was counted.
void SendNewName(vfs::Filesystem* filesystem, EntryReply reply,
                 const absl::StatusOr<vfs::EntryReply>& made) {
  if (!made.ok()) {
    reply.Send(made.status());
  } else if (!reply.Send(*made)) {
    filesystem->Forget(made->node, 1);
  }
}

Task<void> RunMakeDirectory(vfs::Filesystem* filesystem, EntryReply reply, NodeId parent,
                            std::string name) {
  absl::StatusOr<vfs::EntryReply> made = co_await filesystem->MakeDirectory(
      parent, std::move(name), reply.journal(), reply.deadline());
  SendNewName(filesystem, std::move(reply), made);
}
void OnMakeDirectory(fuse_req_t request, fuse_ino_t parent, const char* name, mode_t) {
  Session& session = SessionOf(request);
  session.Spawn(
      RunMakeDirectory(&session.filesystem(), EntryReply(session, request), parent, name));
}

Task<void> RunUnlink(vfs::Filesystem* filesystem, StatusReply reply, NodeId parent,
                     std::string name) {
  const absl::Status status =
      co_await filesystem->Unlink(parent, std::move(name), reply.journal(), reply.deadline());
  reply.Send(status);
}
void OnUnlink(fuse_req_t request, fuse_ino_t parent, const char* name) {
  Session& session = SessionOf(request);
  session.Spawn(RunUnlink(&session.filesystem(), StatusReply(session, request), parent, name));
}

Task<void> RunRemoveDirectory(vfs::Filesystem* filesystem, StatusReply reply, NodeId parent,
                              std::string name) {
  const absl::Status status = co_await filesystem->RemoveDirectory(
      parent, std::move(name), reply.journal(), reply.deadline());
  reply.Send(status);
}
void OnRemoveDirectory(fuse_req_t request, fuse_ino_t parent, const char* name) {
  Session& session = SessionOf(request);
  session.Spawn(
      RunRemoveDirectory(&session.filesystem(), StatusReply(session, request), parent, name));
}

Task<void> RunRename(vfs::Filesystem* filesystem, StatusReply reply, NodeId parent,
                     std::string name, NodeId new_parent, std::string new_name, unsigned flags) {
  const absl::Status status =
      co_await filesystem->Rename(parent, std::move(name), new_parent, std::move(new_name), flags,
                                  reply.journal(), reply.deadline());
  reply.Send(status);
}
void OnRename(fuse_req_t request, fuse_ino_t parent, const char* name, fuse_ino_t new_parent,
              const char* new_name, unsigned flags) {
  Session& session = SessionOf(request);
  session.Spawn(RunRename(&session.filesystem(), StatusReply(session, request), parent, name,
                          new_parent, new_name, flags));
}

Task<void> RunMakeFile(vfs::Filesystem* filesystem, EntryReply reply, NodeId parent,
                       std::string name) {
  absl::StatusOr<vfs::EntryReply> made =
      co_await filesystem->MakeFile(parent, std::move(name), reply.journal(), reply.deadline());
  SendNewName(filesystem, std::move(reply), made);
}
void OnMakeNode(fuse_req_t request, fuse_ino_t parent, const char* name, mode_t mode, dev_t) {
  Session& session = SessionOf(request);
  if (!S_ISREG(mode)) {
    StatusReply(session, request).Send(session.filesystem().RefuseChange());
    return;
  }
  session.Spawn(RunMakeFile(&session.filesystem(), EntryReply(session, request), parent, name));
}

Task<void> RunLink(vfs::Filesystem* filesystem, EntryReply reply, NodeId node, NodeId new_parent,
                   std::string new_name) {
  absl::StatusOr<vfs::EntryReply> made = co_await filesystem->Link(
      node, new_parent, std::move(new_name), reply.journal(), reply.deadline());
  SendNewName(filesystem, std::move(reply), made);
}
void OnLink(fuse_req_t request, fuse_ino_t node, fuse_ino_t new_parent, const char* new_name) {
  Session& session = SessionOf(request);
  session.Spawn(
      RunLink(&session.filesystem(), EntryReply(session, request), node, new_parent, new_name));
}

}  // namespace

void AddChangeOperations(fuse_lowlevel_ops& ops) {
  ops.write = OnWrite;
  ops.create = OnCreate;
  ops.setattr = OnSetAttributes;
  ops.mkdir = OnMakeDirectory;
  ops.unlink = OnUnlink;
  ops.rmdir = OnRemoveDirectory;
  ops.rename = OnRename;
  ops.mknod = OnMakeNode;
  ops.link = OnLink;
}

}  // namespace dfscsi::fuse
