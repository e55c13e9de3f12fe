#include "node-agent/fuse/operations.h"

#define FUSE_USE_VERSION 35
#include <errno.h>
#include <fuse_lowlevel.h>
#include <linux/fuse.h>
#include <string.h>

#include <string>
#include <utility>
#include <vector>

#include "node-agent/fuse/operations_internal.h"
#include "node-agent/fuse/reply.h"
#include "node-agent/fuse/session.h"
#include "node-agent/runtime/task.h"
#include "node-agent/vfs/errno.h"
#include "node-agent/vfs/filesystem.h"

namespace dfscsi::fuse {
namespace {

using runtime::Task;
using state::FileHandle;
using state::NodeId;

void OnInit(void*, fuse_conn_info* connection) {
  // The kernel had its answer long ago; these would only make libfuse try what custom_io lacks.
  connection->want &=
      ~static_cast<unsigned>(FUSE_CAP_SPLICE_READ | FUSE_CAP_SPLICE_WRITE | FUSE_CAP_SPLICE_MOVE);
}

// ---- Names and attributes ----

Task<void> RunLookup(vfs::Filesystem* filesystem, EntryReply reply, NodeId parent,
                     std::string name) {
  absl::StatusOr<vfs::EntryReply> entry =
      co_await filesystem->Lookup(parent, std::move(name), reply.deadline());
  if (!entry.ok()) {
    reply.Send(entry.status());
  } else if (!reply.Send(*entry)) {
    filesystem->Forget(entry->node, 1);
  }
}
void OnLookup(fuse_req_t request, fuse_ino_t parent, const char* name) {
  Session& session = SessionOf(request);
  session.Spawn(RunLookup(&session.filesystem(), EntryReply(session, request), parent, name));
}

void OnForget(fuse_req_t request, fuse_ino_t node, uint64_t lookups) {
  Session& session = SessionOf(request);
  session.RunForget(request, [&] { session.filesystem().Forget(node, lookups); });
}

void OnForgetMulti(fuse_req_t request, size_t count, fuse_forget_data* forgets) {
  Session& session = SessionOf(request);
  session.RunForget(request, [&] {
    for (size_t i = 0; i < count; ++i) {
      session.filesystem().Forget(forgets[i].ino, forgets[i].nlookup);
    }
  });
}

Task<void> RunGetAttributes(vfs::Filesystem* filesystem, AttributesReply reply, NodeId node) {
  absl::StatusOr<vfs::AttributesReply> attributes =
      co_await filesystem->GetAttributes(node, reply.deadline());
  if (attributes.ok()) {
    reply.Send(*attributes);
  } else {
    reply.Send(attributes.status());
  }
}
void OnGetAttributes(fuse_req_t request, fuse_ino_t node, fuse_file_info*) {
  Session& session = SessionOf(request);
  session.Spawn(RunGetAttributes(&session.filesystem(), AttributesReply(session, request), node));
}

Task<void> RunReadLink(vfs::Filesystem* filesystem, LinkReply reply, NodeId node) {
  absl::StatusOr<std::string> target = co_await filesystem->ReadLink(node, reply.deadline());
  if (target.ok()) {
    reply.Send(*target);
  } else {
    reply.Send(target.status());
  }
}
void OnReadLink(fuse_req_t request, fuse_ino_t node) {
  Session& session = SessionOf(request);
  session.Spawn(RunReadLink(&session.filesystem(), LinkReply(session, request), node));
}

void OnAccess(fuse_req_t request, fuse_ino_t node, int mask) {
  Session& session = SessionOf(request);
  StatusReply(session, request).Send(session.filesystem().Access(node, mask));
}

Task<void> RunStatistics(vfs::Filesystem* filesystem, StatisticsReply reply, NodeId node) {
  absl::StatusOr<struct statvfs> statistics =
      co_await filesystem->GetStatistics(node, reply.deadline());
  if (statistics.ok()) {
    reply.Send(*statistics);
  } else {
    reply.Send(statistics.status());
  }
}
void OnStatistics(fuse_req_t request, fuse_ino_t node) {
  Session& session = SessionOf(request);
  session.Spawn(RunStatistics(&session.filesystem(), StatisticsReply(session, request), node));
}

Task<void> RunGetXattr(vfs::Filesystem* filesystem, XattrReply reply, NodeId node, std::string name,
                       size_t size) {
  absl::StatusOr<std::string> value =
      co_await filesystem->GetXattr(node, std::move(name), reply.deadline());
  if (value.ok()) {
    reply.Send(*value, size);
  } else {
    reply.Send(value.status());
  }
}
void OnGetXattr(fuse_req_t request, fuse_ino_t node, const char* name, size_t size) {
  Session& session = SessionOf(request);
  session.Spawn(RunGetXattr(&session.filesystem(), XattrReply(session, request), node, name, size));
}

Task<void> RunListXattrs(vfs::Filesystem* filesystem, XattrReply reply, NodeId node, size_t size) {
  absl::StatusOr<std::string> names = co_await filesystem->ListXattrs(node, reply.deadline());
  if (names.ok()) {
    reply.Send(*names, size);
  } else {
    reply.Send(names.status());
  }
}
void OnListXattrs(fuse_req_t request, fuse_ino_t node, size_t size) {
  Session& session = SessionOf(request);
  session.Spawn(RunListXattrs(&session.filesystem(), XattrReply(session, request), node, size));
}

// ---- Open files ----

Task<void> RunOpen(vfs::Filesystem* filesystem, OpenReply reply, NodeId node, int flags) {
  absl::StatusOr<vfs::OpenReply> opened =
      co_await filesystem->Open(node, flags, reply.journal(), reply.deadline());
  if (!opened.ok()) {
    reply.Send(opened.status());
  } else if (reply.Send(*opened)) {
    filesystem->OpenDelivered(node, *opened);
  } else {
    filesystem->Release(opened->fh);
  }
}
void OnOpen(fuse_req_t request, fuse_ino_t node, fuse_file_info* file) {
  Session& session = SessionOf(request);
  session.Spawn(RunOpen(&session.filesystem(), OpenReply(session, request), node, file->flags));
}

Task<void> RunRead(Session* session, DataReply reply, FileHandle fh, uint64_t offset, size_t size) {
  BufferPool::Buffer buffer = session->buffers().Take(size);
  if (!buffer) {
    reply.Send(vfs::ErrnoError(ENOMEM, "no memory for a reply"));
    co_return;
  }
  absl::StatusOr<size_t> bytes =
      co_await session->filesystem().Read(fh, offset, buffer.bytes(), reply.deadline());
  if (bytes.ok()) {
    reply.Send(buffer.bytes().first(*bytes));
  } else {
    reply.Send(bytes.status());
  }
}
void OnRead(fuse_req_t request, fuse_ino_t, size_t size, off_t offset, fuse_file_info* file) {
  Session& session = SessionOf(request);
  DataReply reply(session, request);
  if (size == 0) {
    reply.Send(absl::Span<const uint8_t>());
  } else if (size > BufferPool::kMaxBufferBytes) {  // More than INIT agreed on.
    reply.Send(vfs::ErrnoError(EIO, "a READ of more than max_pages"));
  } else {
    session.Spawn(
        RunRead(&session, std::move(reply), file->fh, static_cast<uint64_t>(offset), size));
  }
}

Task<void> RunSeek(vfs::Filesystem* filesystem, OffsetReply reply, FileHandle fh, uint64_t offset,
                   int whence) {
  absl::StatusOr<uint64_t> found = co_await filesystem->Seek(fh, offset, whence, reply.deadline());
  if (found.ok()) {
    reply.Send(*found);
  } else {
    reply.Send(found.status());
  }
}
void OnSeek(fuse_req_t request, fuse_ino_t, off_t offset, int whence, fuse_file_info* file) {
  Session& session = SessionOf(request);
  session.Spawn(RunSeek(&session.filesystem(), OffsetReply(session, request), file->fh,
                        static_cast<uint64_t>(offset), whence));
}

Task<void> RunFlush(vfs::Filesystem* filesystem, StatusReply reply, FileHandle fh, uint64_t owner) {
  const absl::Status status = co_await filesystem->Flush(fh, owner, reply.deadline());
  reply.Send(status);
}
void OnFlush(fuse_req_t request, fuse_ino_t, fuse_file_info* file) {
  Session& session = SessionOf(request);
  session.Spawn(
      RunFlush(&session.filesystem(), StatusReply(session, request), file->fh, file->lock_owner));
}
Task<void> RunSync(vfs::Filesystem* filesystem, StatusReply reply, FileHandle fh) {
  const absl::Status status = co_await filesystem->Sync(fh, reply.deadline());
  reply.Send(status);
}
void OnFsync(fuse_req_t request, fuse_ino_t, int, fuse_file_info* file) {
  Session& session = SessionOf(request);
  session.Spawn(RunSync(&session.filesystem(), StatusReply(session, request), file->fh));
}

Task<void> RunRelease(vfs::Filesystem* filesystem, StatusReply reply, FileHandle fh) {
  // Nobody waits for the answer; who dies before it releases again.
  const absl::Status written = co_await filesystem->AwaitWritten(fh, reply.deadline());
  filesystem->Release(fh);
  reply.Send(absl::OkStatus());
}
void OnRelease(fuse_req_t request, fuse_ino_t, fuse_file_info* file) {
  Session& session = SessionOf(request);
  if (session.filesystem().HasUnwritten(file->fh)) {
    session.Spawn(RunRelease(&session.filesystem(), StatusReply(session, request), file->fh));
    return;
  }
  session.filesystem().Release(file->fh);
  StatusReply(session, request).Send(absl::OkStatus());
}

// ---- Directories ----

Task<void> RunOpenDirectory(vfs::Filesystem* filesystem, OpenReply reply, NodeId node) {
  absl::StatusOr<FileHandle> fh = co_await filesystem->OpenDirectory(node, reply.deadline());
  if (!fh.ok()) {
    reply.Send(fh.status());
    co_return;
  }
  vfs::OpenReply opened;
  opened.fh = *fh;
  if (!reply.Send(opened)) filesystem->ReleaseDirectory(*fh);
}
void OnOpenDirectory(fuse_req_t request, fuse_ino_t node, fuse_file_info*) {
  Session& session = SessionOf(request);
  session.Spawn(RunOpenDirectory(&session.filesystem(), OpenReply(session, request), node));
}

void OnReleaseDirectory(fuse_req_t request, fuse_ino_t, fuse_file_info* file) {
  Session& session = SessionOf(request);
  session.filesystem().ReleaseDirectory(file->fh);
  StatusReply(session, request).Send(absl::OkStatus());
}

void OnFsyncDirectory(fuse_req_t request, fuse_ino_t, int, fuse_file_info*) {
  StatusReply(SessionOf(request), request).Send(absl::OkStatus());
}

// The body of a READDIR or READDIRPLUS reply.
class EntryWriter final : public vfs::DirectorySink {
 public:
  EntryWriter(absl::Span<uint8_t> into, bool plus) : into_(into), plus_(plus) {}

  bool Fits(size_t name_bytes) const override {
    const size_t fixed =
        plus_ ? offsetof(fuse_direntplus, dirent) + FUSE_NAME_OFFSET : FUSE_NAME_OFFSET;
    return used_ + FUSE_DIRENT_ALIGN(fixed + name_bytes) <= into_.size();
  }

  void Add(const vfs::DirectoryEntry& entry) override {
    char* at = reinterpret_cast<char*>(into_.data()) + used_;
    if (plus_) {
      fuse_entry_out out = {};
      out.nodeid = entry.node;
      out.entry_valid = static_cast<uint64_t>(absl::ToInt64Seconds(entry.name_timeout));
      out.entry_valid_nsec = Nanoseconds(entry.name_timeout);
      out.attr_valid = static_cast<uint64_t>(absl::ToInt64Seconds(entry.attributes_timeout));
      out.attr_valid_nsec = Nanoseconds(entry.attributes_timeout);
      FillAttributes(entry.attributes, &out.attr);
      memcpy(at, &out, sizeof(out));
      at += sizeof(out);
      used_ += sizeof(out);
      if (entry.node != 0) nodes_.push_back(entry.node);
    }
    fuse_dirent dirent = {};
    dirent.ino = entry.attributes.st_ino;
    dirent.off = entry.next_offset;
    dirent.namelen = static_cast<uint32_t>(entry.name.size());
    dirent.type = (entry.attributes.st_mode & S_IFMT) >> 12;
    const size_t bytes = FUSE_DIRENT_ALIGN(FUSE_NAME_OFFSET + entry.name.size());
    memset(at, 0, bytes);  // The padding goes to the kernel, too.
    memcpy(at, &dirent, FUSE_NAME_OFFSET);
    memcpy(at + FUSE_NAME_OFFSET, entry.name.data(), entry.name.size());
    used_ += bytes;
  }

  size_t used() const { return used_; }
  // Whose lookups were counted.
  const std::vector<NodeId>& nodes() const { return nodes_; }

 private:
  static uint32_t Nanoseconds(absl::Duration duration) {
    return static_cast<uint32_t>(absl::ToTimespec(duration).tv_nsec);
  }
  static void FillAttributes(const struct stat& from, fuse_attr* to) {
    to->ino = from.st_ino;
    to->size = static_cast<uint64_t>(from.st_size);
    to->blocks = static_cast<uint64_t>(from.st_blocks);
    to->atime = static_cast<uint64_t>(from.st_atim.tv_sec);
    to->mtime = static_cast<uint64_t>(from.st_mtim.tv_sec);
    to->ctime = static_cast<uint64_t>(from.st_ctim.tv_sec);
    to->atimensec = static_cast<uint32_t>(from.st_atim.tv_nsec);
    to->mtimensec = static_cast<uint32_t>(from.st_mtim.tv_nsec);
    to->ctimensec = static_cast<uint32_t>(from.st_ctim.tv_nsec);
    to->mode = from.st_mode;
    to->nlink = static_cast<uint32_t>(from.st_nlink);
    to->uid = from.st_uid;
    to->gid = from.st_gid;
    to->rdev = static_cast<uint32_t>(from.st_rdev);
    to->blksize = static_cast<uint32_t>(from.st_blksize);
  }

  const absl::Span<uint8_t> into_;
  const bool plus_;
  size_t used_ = 0;
  std::vector<NodeId> nodes_;
};

Task<void> RunReadDirectory(Session* session, DataReply reply, FileHandle fh, uint64_t offset,
                            size_t size, bool plus) {
  BufferPool::Buffer buffer = session->buffers().Take(size);
  if (!buffer) {
    reply.Send(vfs::ErrnoError(ENOMEM, "no memory for a reply"));
    co_return;
  }
  EntryWriter writer(buffer.bytes(), plus);
  const absl::Status status =
      co_await session->filesystem().ReadDirectory(fh, offset, plus, &writer, reply.deadline());
  if (!status.ok()) {
    reply.Send(status);
    co_return;
  }
  if (!reply.Send(buffer.bytes().first(writer.used()))) {
    for (const NodeId node : writer.nodes()) session->filesystem().Forget(node, 1);
  }
}
void StartReadDirectory(fuse_req_t request, size_t size, off_t offset, fuse_file_info* file,
                        bool plus) {
  Session& session = SessionOf(request);
  DataReply reply(session, request);
  if (size == 0) {
    reply.Send(vfs::ErrnoError(EINVAL, "a READDIR without room"));
    return;
  }
  session.Spawn(RunReadDirectory(&session, std::move(reply), file->fh,
                                 static_cast<uint64_t>(offset),
                                 std::min(size, BufferPool::kMaxBufferBytes), plus));
}
void OnReadDirectory(fuse_req_t request, fuse_ino_t, size_t size, off_t offset,
                     fuse_file_info* file) {
  StartReadDirectory(request, size, offset, file, /*plus=*/false);
}
void OnReadDirectoryPlus(fuse_req_t request, fuse_ino_t, size_t size, off_t offset,
                         fuse_file_info* file) {
  StartReadDirectory(request, size, offset, file, /*plus=*/true);
}

void OnIoctl(fuse_req_t request, fuse_ino_t, unsigned, void*, fuse_file_info*, unsigned,
             const void*, size_t, size_t) {
  StatusReply(SessionOf(request), request).Send(vfs::ErrnoError(ENOTTY, "ioctl"));
}

fuse_lowlevel_ops MakeOperations() {
  fuse_lowlevel_ops ops = {};
  ops.init = OnInit;
  ops.lookup = OnLookup;
  ops.forget = OnForget;
  ops.forget_multi = OnForgetMulti;
  ops.getattr = OnGetAttributes;
  ops.readlink = OnReadLink;
  ops.access = OnAccess;
  ops.statfs = OnStatistics;
  ops.getxattr = OnGetXattr;
  ops.listxattr = OnListXattrs;
  ops.open = OnOpen;
  ops.read = OnRead;
  ops.lseek = OnSeek;
  ops.flush = OnFlush;
  ops.fsync = OnFsync;
  ops.release = OnRelease;
  ops.opendir = OnOpenDirectory;
  ops.readdir = OnReadDirectory;
  ops.readdirplus = OnReadDirectoryPlus;
  ops.releasedir = OnReleaseDirectory;
  ops.fsyncdir = OnFsyncDirectory;
  AddChangeOperations(ops);
  AddExtendedOperations(ops);
  AddLockOperations(ops);
  ops.ioctl = OnIoctl;
  return ops;
}

}  // namespace

const fuse_lowlevel_ops& Operations() {
  static const fuse_lowlevel_ops operations = MakeOperations();
  return operations;
}

}  // namespace dfscsi::fuse
