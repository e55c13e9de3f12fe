// The front of the mount: each call goes to the part that does it (filesystem_impl.h).

#include "node-agent/vfs/filesystem.h"

#include <errno.h>

#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "node-agent/base/status_macros.h"
#include "node-agent/vfs/errno.h"
#include "node-agent/vfs/filesystem_impl.h"
#include "node-agent/vfs/long_name.h"

namespace dfscsi::vfs {

using runtime::Deadline;
using runtime::Task;

namespace {

// By a dead agent. What was written early since then may need to know what became of it.
bool WasSent(const ChangeJournal* journal) { return journal != nullptr && journal->sent_to() != 0; }

}  // namespace

Filesystem::Impl::~Impl() {
  // What is still open is closed in an order that does not depend on addresses: a simulation's seed
  // must replay.
  const std::map<state::FileHandle, std::shared_ptr<OpenFile>> files(files_.begin(), files_.end());
  const std::map<state::FileHandle, std::shared_ptr<DirectoryStream>> streams(streams_.begin(),
                                                                              streams_.end());
  files_.clear();
  streams_.clear();
}

Filesystem::Impl::Impl(dfs::Client& client, state::MountTables& tables, Invalidation& invalidation,
                       Options options)
    : client_(client),
      tables_(tables),
      invalidation_(invalidation),
      options_(std::move(options)),
      attributes_(options_.actimeo),
      sights_(options_.actimeo) {
  tables_.handles().ForEach([this](state::FileHandle fh, const state::HandleTable::Record& record) {
    if ((state::Load(record.flags) & kHandleUndelivered) != 0) undelivered_.push_back(fh);
    if (record.kind == static_cast<uint32_t>(state::HandleTable::Kind::kFile)) {
      opens_[record.node].insert(fh);
      if ((state::Load(record.flags) & kHandleAppendsLocked) != 0) {
        appends_.NoteRefused(state::Load(record.server_key));
      }
    }
  });
  RestoreLocks();
  holds_write_lease_ = [this](state::NodeId node) { return HoldsWriteLease(node); };
  // Either of the two may die first.
  client_.SetMayFailBack([this, alive = std::weak_ptr<bool>(alive_)](const dfs::DfsPath& link) {
    return alive.expired() || MayFailBack(link);
  });
}

Filesystem::Filesystem(dfs::Client& client, state::MountTables& tables, Invalidation& invalidation,
                       Options options)
    : impl_(std::make_unique<Impl>(client, tables, invalidation, std::move(options))) {}
Filesystem::~Filesystem() = default;

uint64_t Filesystem::RootInodeNumber(const SipKey& key, const dfs::DfsPath& source) {
  return Impl::NumberOf(key, source);
}
void Filesystem::ResumeInvalidations() {
  impl_->ResumeInvalidations();
  impl_->ResumeLocks();
}
Task<absl::StatusOr<EntryReply>> Filesystem::Lookup(state::NodeId parent, std::string name,
                                                    Deadline deadline) {
  if (impl_->behind().empty()) {
    return impl_->Lookup(parent, std::move(name), std::move(deadline));
  }
  return impl_->LookupBeside(parent, std::move(name), std::move(deadline));
}
void Filesystem::Forget(state::NodeId node, uint64_t lookups) { impl_->Forget(node, lookups); }
Task<absl::StatusOr<AttributesReply>> Filesystem::GetAttributes(state::NodeId node,
                                                                Deadline deadline) {
  if (impl_->behind().empty()) return impl_->GetAttributes(node, std::move(deadline));
  return impl_->GetAttributesBeside(node, std::move(deadline));
}
Task<absl::StatusOr<std::string>> Filesystem::ReadLink(state::NodeId node, Deadline deadline) {
  return impl_->ReadLink(node, std::move(deadline));
}
Task<absl::StatusOr<OpenReply>> Filesystem::Open(state::NodeId node, int flags,
                                                 ChangeJournal* journal, Deadline deadline) {
  return impl_->After(impl_->BehindNode(node), impl_->Open(node, flags, journal, deadline),
                      deadline);
}
Task<absl::Status> Filesystem::Write(state::FileHandle fh, uint64_t offset,
                                     absl::Span<const uint8_t> from, ChangeJournal* journal,
                                     Deadline deadline, size_t* written_bytes) {
  return impl_->WriteOrBehind(fh, offset, from, journal, std::move(deadline), written_bytes);
}
Task<absl::Status> Filesystem::Sync(state::FileHandle fh, Deadline deadline) {
  return impl_->TellingKept(fh, impl_->Sync(fh, deadline), deadline);
}
Task<absl::StatusOr<CreateReply>> Filesystem::Create(state::NodeId parent, std::string name,
                                                     int flags, ChangeJournal* journal,
                                                     Deadline deadline) {
  std::vector<state::NodeId> nodes = impl_->BehindName(parent, name);
  return Naming(
      name, impl_->After(std::move(nodes), impl_->Create(parent, name, flags, journal, deadline),
                         deadline));
}
Task<absl::StatusOr<AttributesReply>> Filesystem::SetAttributes(state::NodeId node,
                                                                AttributesChange change,
                                                                ChangeJournal* journal,
                                                                Deadline deadline) {
  return impl_->After(impl_->BehindNode(node),
                      impl_->SetAttributes(node, std::move(change), journal, deadline), deadline);
}
Task<absl::StatusOr<EntryReply>> Filesystem::MakeDirectory(state::NodeId parent, std::string name,
                                                           ChangeJournal* journal,
                                                           Deadline deadline) {
  return Naming(name,
                impl_->Make(parent, name, smb::FileType::kDirectory, journal, std::move(deadline)));
}
Task<absl::Status> Filesystem::Unlink(state::NodeId parent, std::string name,
                                      ChangeJournal* journal, Deadline deadline) {
  std::vector<state::NodeId> nodes = impl_->BehindName(parent, name);
  if (WasSent(journal)) nodes.clear();
  return impl_->After(
      std::move(nodes),
      impl_->Remove(parent, std::move(name), smb::FileType::kFile, journal, deadline), deadline);
}
Task<absl::Status> Filesystem::RemoveDirectory(state::NodeId parent, std::string name,
                                               ChangeJournal* journal, Deadline deadline) {
  return impl_->Remove(parent, std::move(name), smb::FileType::kDirectory, journal,
                       std::move(deadline));
}
Task<absl::Status> Filesystem::Rename(state::NodeId parent, std::string name,
                                      state::NodeId new_parent, std::string new_name,
                                      uint32_t flags, ChangeJournal* journal, Deadline deadline) {
  std::vector<state::NodeId> nodes = impl_->BehindRename(parent, name, new_parent, new_name);
  if (WasSent(journal)) nodes.clear();
  return Naming(new_name, impl_->After(std::move(nodes),
                                       impl_->Rename(parent, std::move(name), new_parent, new_name,
                                                     flags, journal, deadline),
                                       deadline));
}
void Filesystem::OpenDelivered(state::NodeId node, const OpenReply& reply) {
  impl_->OpenDelivered(node, reply);
}
void Filesystem::HandleDelivered(state::FileHandle fh) { impl_->HandleDelivered(fh); }
void Filesystem::CloseUndelivered(const std::vector<state::FileHandle>& answered) {
  impl_->CloseUndelivered(answered);
}
Task<absl::StatusOr<size_t>> Filesystem::Read(state::FileHandle fh, uint64_t offset,
                                              absl::Span<uint8_t> into, Deadline deadline) {
  return impl_->After(impl_->BehindHandle(fh), impl_->Read(fh, offset, into, deadline), deadline);
}
Task<absl::StatusOr<uint64_t>> Filesystem::Seek(state::FileHandle fh, uint64_t offset, int whence,
                                                Deadline deadline) {
  return impl_->After(impl_->BehindHandle(fh), impl_->Seek(fh, offset, whence, deadline), deadline);
}
Task<absl::Status> Filesystem::Flush(state::FileHandle fh, uint64_t owner, Deadline deadline) {
  return impl_->FlushTellingKept(fh, owner, std::move(deadline));
}
Task<absl::Status> Filesystem::SetLock(FileLock wanted, bool wait, Deadline deadline) {
  return impl_->After(impl_->BehindHandle(wanted.fh), impl_->SetLock(wanted, wait, deadline),
                      deadline);
}
Task<absl::StatusOr<FileLock>> Filesystem::GetLock(FileLock wanted, Deadline deadline) {
  return impl_->After(impl_->BehindHandle(wanted.fh), impl_->GetLock(wanted, deadline), deadline);
}
void Filesystem::Release(state::FileHandle fh) { impl_->Release(fh); }
bool Filesystem::HasUnwritten(state::FileHandle fh) const {
  return !impl_->BehindHandle(fh).empty();
}
Task<absl::Status> Filesystem::AwaitWritten(state::FileHandle fh, Deadline deadline) {
  return impl_->behind().AwaitEnd(impl_->BehindHandle(fh), std::move(deadline));
}
Task<absl::Status> Filesystem::AwaitNodeWritten(state::NodeId node, Deadline deadline) {
  return impl_->behind().AwaitEnd(impl_->BehindNode(node), std::move(deadline));
}
void Filesystem::NoteErrorTold(state::FileHandle fh, int error) { impl_->NoteErrorTold(fh, error); }
void Filesystem::LoseWrite(state::FileHandle fh) { impl_->LoseWrite(fh); }
void Filesystem::SetWriteLeasesForTest(std::function<bool(state::NodeId)> holds) {
  impl_->SetWriteLeases(std::move(holds));
}
Task<absl::StatusOr<state::FileHandle>> Filesystem::OpenDirectory(state::NodeId node,
                                                                  Deadline deadline) {
  return impl_->OpenDirectory(node, std::move(deadline));
}
Task<absl::Status> Filesystem::ReadDirectory(state::FileHandle fh, uint64_t offset, bool plus,
                                             DirectorySink* sink, Deadline deadline) {
  return impl_->ReadDirectory(fh, offset, plus, sink, std::move(deadline));
}
void Filesystem::ReleaseDirectory(state::FileHandle fh) { impl_->ReleaseDirectory(fh); }
Task<absl::StatusOr<struct statvfs>> Filesystem::GetStatistics(state::NodeId node,
                                                               Deadline deadline) {
  return impl_->GetStatistics(node, std::move(deadline));
}
absl::Status Filesystem::Access(state::NodeId node, int mask) const { return impl_->Access(mask); }
Task<absl::StatusOr<std::string>> Filesystem::GetXattr(state::NodeId node, std::string name,
                                                       Deadline deadline) {
  return impl_->After(impl_->BehindNode(node), impl_->GetXattr(node, std::move(name), deadline),
                      deadline);
}
Task<absl::StatusOr<std::string>> Filesystem::ListXattrs(state::NodeId node, Deadline deadline) {
  return impl_->After(impl_->BehindNode(node), impl_->ListXattrs(node, deadline), deadline);
}
Task<absl::Status> Filesystem::SetXattr(state::NodeId node, std::string name, std::string value,
                                        int flags, ChangeJournal* journal, Deadline deadline) {
  CO_RETURN_IF_ERROR(impl_->MayChange());
  if (value.empty()) co_return ErrnoError(EOPNOTSUPP, "an empty value");
  co_return co_await impl_->After(
      impl_->BehindNode(node),
      impl_->ChangeXattr(node, std::move(name), std::move(value), flags, journal, deadline),
      deadline);
}
Task<absl::Status> Filesystem::RemoveXattr(state::NodeId node, std::string name,
                                           ChangeJournal* journal, Deadline deadline) {
  return impl_->After(impl_->BehindNode(node),
                      impl_->ChangeXattr(node, std::move(name), "", 0, journal, deadline),
                      deadline);
}
Task<absl::Status> Filesystem::Allocate(state::FileHandle fh, int mode, uint64_t offset,
                                        uint64_t length_bytes, ChangeJournal* journal,
                                        Deadline deadline) {
  return impl_->After(impl_->BehindHandle(fh),
                      impl_->Allocate(fh, mode, offset, length_bytes, journal, deadline), deadline);
}
Task<absl::StatusOr<uint64_t>> Filesystem::CopyRange(state::FileHandle from, uint64_t from_offset,
                                                     state::FileHandle to, uint64_t to_offset,
                                                     uint64_t length_bytes, ChangeJournal* journal,
                                                     Deadline deadline) {
  return impl_->After(
      impl_->BehindHandles(from, to),
      impl_->CopyRange(from, from_offset, to, to_offset, length_bytes, journal, deadline),
      deadline);
}
Task<absl::StatusOr<EntryReply>> Filesystem::MakeSymlink(state::NodeId parent, std::string name,
                                                         std::string target, ChangeJournal* journal,
                                                         Deadline deadline) {
  std::vector<state::NodeId> nodes = impl_->BehindName(parent, name);
  return Naming(name,
                impl_->After(std::move(nodes),
                             impl_->MakeSymlink(parent, name, std::move(target), journal, deadline),
                             deadline));
}
Task<absl::Status> Filesystem::WriteAtEnd(state::FileHandle fh, absl::Span<const uint8_t> from,
                                          ChangeJournal* journal, Deadline deadline,
                                          size_t* written_bytes) {
  if (written_bytes != nullptr) *written_bytes = 0;
  CO_RETURN_IF_ERROR(impl_->KeptError(fh));
  co_return co_await impl_->After(impl_->BehindHandle(fh),
                                  impl_->WriteAtEnd(fh, from, journal, deadline, written_bytes),
                                  deadline);
}
Task<absl::StatusOr<EntryReply>> Filesystem::MakeFile(state::NodeId parent, std::string name,
                                                      ChangeJournal* journal, Deadline deadline) {
  std::vector<state::NodeId> nodes = impl_->BehindName(parent, name);
  return Naming(
      name,
      impl_->After(std::move(nodes),
                   impl_->Make(parent, name, smb::FileType::kFile, journal, deadline), deadline));
}
Task<absl::StatusOr<EntryReply>> Filesystem::Link(state::NodeId node, state::NodeId new_parent,
                                                  std::string new_name, ChangeJournal* journal,
                                                  Deadline deadline) {
  return Naming(new_name,
                impl_->After(impl_->BehindNode(node),
                             impl_->Link(node, new_parent, new_name, journal, deadline), deadline));
}
absl::Status Filesystem::RefuseChange() const { return impl_->RefuseChange(); }
std::string Filesystem::ShareOf(state::FileHandle fh) const { return impl_->ShareOf(fh); }
bool Filesystem::IsWritten(uint32_t handle_flags) {
  return (handle_flags & Impl::kHandleWritten) != 0;
}
bool Filesystem::IsLockLost(uint32_t handle_flags) {
  return (handle_flags & Impl::kHandleLockLost) != 0;
}
const Filesystem::Counters& Filesystem::counters() const { return impl_->counters(); }

}  // namespace dfscsi::vfs
