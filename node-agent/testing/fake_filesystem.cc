#include "node-agent/testing/fake_filesystem.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <new>
#include <utility>

#include "absl/strings/cord.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "node-agent/base/status_macros.h"
#include "node-agent/vfs/errno.h"

namespace dfscsi::vfs {
namespace {

using runtime::Deadline;
using runtime::Task;
using state::FileHandle;
using state::NodeId;
using testing::FakeServer;

FakeServer* server = nullptr;

// Every operation passes here first.
Task<absl::Status> Enter(std::string operation, Deadline deadline) {
  ++server->calls[operation];
  if (server->throws) throw std::bad_alloc();
  if (!server->parked) co_return absl::OkStatus();
  struct Waiting {
    Waiting() { ++server->waiting; }
    ~Waiting() { --server->waiting; }
  } waiting;
  co_return co_await server->released.WaitUntilSet(deadline);
}

constexpr char kKeptUrl[] = "kept";
absl::Status Kept() {
  if (server->kept_error == 0) return absl::OkStatus();
  absl::Status status = ErrnoError(server->kept_error, "kept");
  status.SetPayload(kKeptUrl, absl::Cord());
  return status;
}

struct stat AttributesOf(NodeId node) {
  struct stat attributes = {};
  attributes.st_ino = node + 100;
  attributes.st_mode = node == 1 ? S_IFDIR | 0755 : S_IFREG | 0644;
  attributes.st_size = FakeServer::kFileBytes;
  attributes.st_mtim = {12345, 678};
  attributes.st_nlink = 1;
  return attributes;
}

}  // namespace

class Filesystem::Impl {
 public:
  Counters counters;
};

Filesystem::Filesystem(dfs::Client&, state::MountTables&, Invalidation&, Options)
    : impl_(std::make_unique<Impl>()) {}
Filesystem::~Filesystem() = default;

Task<absl::StatusOr<EntryReply>> Filesystem::Lookup(NodeId, std::string name, Deadline deadline) {
  CO_RETURN_IF_ERROR(co_await Enter("lookup", deadline));
  EntryReply entry;
  if (!absl::SimpleAtoi(name, &entry.node)) co_return ErrnoError(ENOENT, name);
  entry.attributes = AttributesOf(entry.node);
  entry.attributes_timeout = absl::Milliseconds(1500);
  entry.name_timeout = absl::Seconds(2);
  ++server->lookups[entry.node];
  co_return entry;
}

void Filesystem::Forget(NodeId node, uint64_t lookups) {
  ++server->calls["forget"];
  server->lookups[node] -= lookups;
}

Task<absl::StatusOr<AttributesReply>> Filesystem::GetAttributes(NodeId node, Deadline deadline) {
  CO_RETURN_IF_ERROR(co_await Enter("getattr", deadline));
  co_return AttributesReply{AttributesOf(node), absl::Seconds(1),
                            absl::FromUnixSeconds(FakeServer::kBornSeconds)};
}

Task<absl::StatusOr<std::string>> Filesystem::ReadLink(NodeId node, Deadline deadline) {
  CO_RETURN_IF_ERROR(co_await Enter("readlink", deadline));
  co_return absl::StrCat("to/", node);
}

Task<absl::StatusOr<OpenReply>> Filesystem::Open(NodeId, int flags, ChangeJournal*,
                                                 Deadline deadline) {
  CO_RETURN_IF_ERROR(co_await Enter("open", deadline));
  OpenReply opened;
  opened.fh = server->next_handle++;
  opened.keep_cache = true;
  opened.direct_io = (flags & O_DIRECT) != 0;
  server->open_handles.insert(opened.fh);
  server->undelivered[opened.fh] = 0;
  co_return opened;
}

Task<absl::StatusOr<size_t>> Filesystem::Read(FileHandle fh, uint64_t offset,
                                              absl::Span<uint8_t> into, Deadline deadline) {
  CO_RETURN_IF_ERROR(co_await Enter("read", deadline));
  const uint64_t end = std::min<uint64_t>(FakeServer::kFileBytes, offset + into.size());
  for (uint64_t i = offset; i < end; ++i) into[i - offset] = static_cast<uint8_t>(i * 31 + fh);
  co_return end > offset ? end - offset : 0;
}

Task<absl::StatusOr<uint64_t>> Filesystem::Seek(FileHandle, uint64_t offset, int whence,
                                                Deadline deadline) {
  CO_RETURN_IF_ERROR(co_await Enter("seek", deadline));
  if (offset >= FakeServer::kFileBytes) co_return ErrnoError(ENXIO, "beyond the end");
  co_return whence == SEEK_DATA ? offset : FakeServer::kFileBytes;
}

Task<absl::Status> Filesystem::Flush(FileHandle, uint64_t owner, Deadline deadline) {
  server->flushed_by = owner;
  CO_RETURN_IF_ERROR(Kept());
  co_return co_await Enter("flush", deadline);
}

Task<absl::Status> Filesystem::SetLock(FileLock wanted, bool wait, Deadline deadline) {
  server->locks.push_back({wanted, wait});
  co_return co_await Enter("setlock", deadline);
}
Task<absl::StatusOr<FileLock>> Filesystem::GetLock(FileLock wanted, Deadline deadline) {
  server->locks.push_back({wanted, false});
  CO_RETURN_IF_ERROR(co_await Enter("getlock", deadline));
  wanted.type = LockType::kShared;
  wanted.pid = 77;
  co_return wanted;
}

bool Filesystem::IsKeptError(const absl::Status& status) {
  return status.GetPayload(kKeptUrl).has_value();
}
void Filesystem::NoteErrorTold(FileHandle fh, int error) {
  server->told.emplace_back(fh, error);
  server->begun.emplace_back("told");
  if (server->on_told) server->on_told();
  if (error == server->kept_error) server->kept_error = 0;
}
void Filesystem::LoseWrite(FileHandle fh) { server->lost_writes.push_back(fh); }
bool Filesystem::HasUnwritten(FileHandle) const { return server->unwritten; }
Task<absl::Status> Filesystem::AwaitWritten(FileHandle, Deadline deadline) {
  co_return co_await Enter("await written", deadline);
}

void Filesystem::OpenDelivered(NodeId, const OpenReply&) {}
void Filesystem::HandleDelivered(FileHandle fh) { server->undelivered.erase(fh); }
void Filesystem::CloseUndelivered(const std::vector<FileHandle>& answered) {
  for (const auto& [fh, node] : std::exchange(server->undelivered, {})) {
    if (std::find(answered.begin(), answered.end(), fh) != answered.end()) continue;
    Release(fh);
    if (node != 0) Forget(node, 1);
  }
}
void Filesystem::Release(FileHandle fh) {
  ++server->calls["release"];
  server->open_handles.erase(fh);
  server->undelivered.erase(fh);
}

Task<absl::StatusOr<FileHandle>> Filesystem::OpenDirectory(NodeId, Deadline deadline) {
  CO_RETURN_IF_ERROR(co_await Enter("opendir", deadline));
  const FileHandle fh = server->next_handle++;
  server->open_handles.insert(fh);
  server->undelivered[fh] = 0;
  co_return fh;
}

Task<absl::Status> Filesystem::ReadDirectory(FileHandle, uint64_t offset, bool plus,
                                             DirectorySink* sink, Deadline deadline) {
  CO_RETURN_IF_ERROR(co_await Enter(plus ? "readdirplus" : "readdir", deadline));
  for (; offset < FakeServer::kEntries; ++offset) {
    const NodeId node = offset + 2;
    const std::string name = absl::StrCat(node);
    if (!sink->Fits(name.size())) break;
    DirectoryEntry entry;
    entry.name = name;
    entry.next_offset = offset + 1;
    entry.attributes = AttributesOf(node);
    entry.node = node;
    entry.attributes_timeout = absl::Milliseconds(2500);
    entry.name_timeout = absl::Seconds(3);
    sink->Add(entry);
    if (plus) ++server->lookups[node];
  }
  co_return absl::OkStatus();
}

void Filesystem::ReleaseDirectory(FileHandle fh) { Release(fh); }

Task<absl::StatusOr<struct statvfs>> Filesystem::GetStatistics(NodeId, Deadline deadline) {
  CO_RETURN_IF_ERROR(co_await Enter("statfs", deadline));
  struct statvfs statistics = {};
  statistics.f_bsize = 4096;
  statistics.f_blocks = 1000;
  co_return statistics;
}

absl::Status Filesystem::Access(NodeId, int mask) const {
  return (mask & 2) != 0 ? ErrnoError(EROFS, "read-only") : absl::OkStatus();
}

Task<absl::StatusOr<std::string>> Filesystem::GetXattr(NodeId, std::string name,
                                                       Deadline deadline) {
  CO_RETURN_IF_ERROR(co_await Enter("getxattr", deadline));
  if (name != "user.a") co_return ErrnoError(ENOSYS, name);
  co_return std::string("value");
}

Task<absl::StatusOr<std::string>> Filesystem::ListXattrs(NodeId, Deadline deadline) {
  CO_RETURN_IF_ERROR(co_await Enter("listxattr", deadline));
  co_return ErrnoError(ENOSYS, "lists");
}

// Every change passes here. Its journal is kept as the real one's would be.
Task<absl::Status> Change(std::string operation, ChangeJournal* journal, Deadline deadline) {
  server->sent_before = journal->sent_to();
  server->offset_before = journal->sent_offset();
  if (server->sends) journal->NoteSent(FakeServer::kServerKey, server->offset);
  co_return co_await Enter(std::move(operation), deadline);
}

Task<absl::Status> Filesystem::Write(FileHandle, uint64_t, absl::Span<const uint8_t> from,
                                     ChangeJournal* journal, Deadline deadline,
                                     size_t* written_bytes) {
  *written_bytes = 0;
  server->begun.emplace_back(from.begin(), from.end());
  const bool early = server->early && !journal->acknowledged() && journal->held_bytes() != 0;
  if (early) journal->Acknowledge();
  CO_RETURN_IF_ERROR(Kept());
  CO_RETURN_IF_ERROR(co_await Change("write", journal, deadline));
  const size_t fits = std::min(from.size(), server->room);
  server->written.assign(from.begin(), from.begin() + static_cast<ptrdiff_t>(fits));
  if (fits == from.size()) co_return absl::OkStatus();
  *written_bytes = fits;
  co_return ErrnoError(ENOSPC, "no room");
}

Task<absl::Status> Filesystem::Sync(FileHandle, Deadline deadline) {
  server->begun.emplace_back("fsync");
  CO_RETURN_IF_ERROR(Kept());
  co_return co_await Enter("fsync", deadline);
}

Task<absl::StatusOr<CreateReply>> Filesystem::Create(NodeId, std::string name, int flags,
                                                     ChangeJournal* journal, Deadline deadline) {
  CO_RETURN_IF_ERROR(co_await Change("create", journal, deadline));
  CreateReply created;
  if (!absl::SimpleAtoi(name, &created.entry.node)) co_return ErrnoError(EEXIST, name);
  created.entry.attributes = AttributesOf(created.entry.node);
  created.open.fh = server->next_handle++;
  created.open.direct_io = (flags & O_DIRECT) != 0;
  server->open_handles.insert(created.open.fh);
  server->undelivered[created.open.fh] = created.entry.node;
  ++server->lookups[created.entry.node];
  co_return created;
}

Task<absl::StatusOr<AttributesReply>> Filesystem::SetAttributes(NodeId node,
                                                                AttributesChange wanted,
                                                                ChangeJournal* journal,
                                                                Deadline deadline) {
  server->changed_through = wanted.fh;
  CO_RETURN_IF_ERROR(co_await Change("setattr", journal, deadline));
  co_return AttributesReply{AttributesOf(node), absl::Seconds(1)};
}

Task<absl::StatusOr<EntryReply>> Filesystem::MakeDirectory(NodeId, std::string name,
                                                           ChangeJournal* journal,
                                                           Deadline deadline) {
  CO_RETURN_IF_ERROR(co_await Change("mkdir", journal, deadline));
  EntryReply entry;
  if (!absl::SimpleAtoi(name, &entry.node)) co_return ErrnoError(EEXIST, name);
  entry.attributes = AttributesOf(entry.node);
  ++server->lookups[entry.node];
  co_return entry;
}

Task<absl::Status> Filesystem::Unlink(NodeId, std::string, ChangeJournal* journal,
                                      Deadline deadline) {
  co_return co_await Change("unlink", journal, deadline);
}

Task<absl::Status> Filesystem::RemoveDirectory(NodeId, std::string, ChangeJournal* journal,
                                               Deadline deadline) {
  co_return co_await Change("rmdir", journal, deadline);
}

Task<absl::Status> Filesystem::Rename(NodeId, std::string, NodeId, std::string, uint32_t,
                                      ChangeJournal* journal, Deadline deadline) {
  co_return co_await Change("rename", journal, deadline);
}

// What is refused as on a read-only mount.

Task<absl::Status> Filesystem::SetXattr(NodeId, std::string, std::string, int, ChangeJournal*,
                                        Deadline) {
  co_return RefuseChange();
}
Task<absl::Status> Filesystem::RemoveXattr(NodeId, std::string, ChangeJournal*, Deadline) {
  co_return RefuseChange();
}
Task<absl::Status> Filesystem::Allocate(FileHandle, int, uint64_t, uint64_t, ChangeJournal*,
                                        Deadline) {
  co_return RefuseChange();
}
Task<absl::StatusOr<uint64_t>> Filesystem::CopyRange(FileHandle, uint64_t, FileHandle, uint64_t,
                                                     uint64_t length_bytes, ChangeJournal* journal,
                                                     Deadline deadline) {
  if (length_bytes == 0) co_return RefuseChange();
  CO_RETURN_IF_ERROR(co_await Change("copy_file_range", journal, deadline));
  co_return length_bytes / 2;
}
Task<absl::StatusOr<EntryReply>> Filesystem::MakeSymlink(NodeId, std::string, std::string,
                                                         ChangeJournal*, Deadline) {
  co_return RefuseChange();
}

Task<absl::StatusOr<EntryReply>> Filesystem::MakeFile(NodeId, std::string, ChangeJournal*,
                                                      Deadline) {
  co_return RefuseChange();
}
Task<absl::StatusOr<EntryReply>> Filesystem::Link(NodeId, NodeId, std::string, ChangeJournal*,
                                                  Deadline) {
  co_return RefuseChange();
}
Task<absl::Status> Filesystem::WriteAtEnd(FileHandle fh, absl::Span<const uint8_t> from,
                                          ChangeJournal* journal, Deadline deadline,
                                          size_t* written_bytes) {
  co_return co_await Write(fh, 0, from, journal, std::move(deadline), written_bytes);
}

absl::Status Filesystem::RefuseChange() const { return ErrnoError(EROFS, "read-only"); }

void Filesystem::ResumeInvalidations() {}

const Filesystem::Counters& Filesystem::counters() const { return impl_->counters; }

}  // namespace dfscsi::vfs

namespace dfscsi::testing {

std::unique_ptr<vfs::Filesystem> MakeFakeFilesystem(FakeServer* server) {
  vfs::server = server;
  // The fake looks at none of them.
  struct NoInvalidation : vfs::Invalidation {
    void DataChanged(state::NodeId) override {}
  };
  static NoInvalidation invalidation;
  alignas(std::max_align_t) static char nothing[4096];
  return std::make_unique<vfs::Filesystem>(*reinterpret_cast<dfs::Client*>(nothing),
                                           *reinterpret_cast<state::MountTables*>(nothing),
                                           invalidation, vfs::Options());
}

}  // namespace dfscsi::testing
