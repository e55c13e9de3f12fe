// Leases: what is dropped, and what is said to the server, when it takes one back (file_lease.h).

#include <memory>
#include <utility>

#include "node-agent/runtime/loop.h"
#include "node-agent/smb/session.h"
#include "node-agent/vfs/filesystem_impl.h"

namespace dfscsi::vfs {

using runtime::Deadline;
using runtime::Task;
namespace wire = smb::wire;

namespace {

// Servers wait 35 s for an acknowledgment, behind what is pending; then the lease is gone, and so
// may be the handle.
constexpr absl::Duration kAnswerWithin = absl::Seconds(5);

}  // namespace

std::shared_ptr<FileLease> Filesystem::Impl::LeaseOf(state::NodeId node) {
  if (!options_.leases || !options_.pages) return nullptr;
  if (std::shared_ptr<FileLease> known = FindLease(node)) return known;
  auto lease = std::make_shared<FileLease>(
      node,
      [this](FileLease& broken, std::shared_ptr<LeaseTenure> tenure, const smb::LeaseBreak& to) {
        OnLeaseBroken(broken, std::move(tenure), to);
      },
      [this](state::NodeId of) { return behind_.IsPending(of); }, options_.write_behind);
  // Of files whose opening failed.
  if (leases_.size() > 2 * opens_.size() + 64) {
    absl::erase_if(leases_, [](const auto& entry) { return entry.second.expired(); });
  }
  if (node != 0) leases_[node] = lease;
  return lease;
}

std::shared_ptr<FileLease> Filesystem::Impl::FindLease(state::NodeId node) const {
  const auto found = leases_.find(node);
  return found == leases_.end() ? nullptr : found->second.lock();
}

void Filesystem::Impl::NoteLeaseOf(state::NodeId node, const std::shared_ptr<FileLease>& lease) {
  if (lease == nullptr) return;
  lease->SetNode(node);
  if (FindLease(node) == nullptr) leases_[node] = lease;
}

bool Filesystem::Impl::HoldsWriteLease(state::NodeId node) const {
  const std::shared_ptr<FileLease> lease = FindLease(node);
  return lease != nullptr && (lease->state() & wire::kLeaseWrite) != 0;
}

uint64_t Filesystem::Impl::ReadLeasesLost(state::NodeId node) const {
  const std::shared_ptr<FileLease> lease = FindLease(node);
  return lease == nullptr ? 0 : lease->reads_lost();
}

void Filesystem::Impl::OnLeaseBroken(const FileLease& lease, std::shared_ptr<LeaseTenure> tenure,
                                     const smb::LeaseBreak& broken) {
  ++counters_.lease_breaks;
  const state::NodeId node = lease.node();
  if ((broken.to & wire::kLeaseRead) == 0) DropWhatWasLeased(node);
  if (!broken.must_acknowledge) return;
  tenure->BeginAnswer();
  tasks_.Spawn(AnswerBreak(node, std::move(tenure), broken));
}

void Filesystem::Impl::DropWhatWasLeased(state::NodeId node) {
  if (!tables_.inodes().Contains(node)) return;
  const state::InodeTable::Node record = tables_.inodes().Get(node);
  ForgetName(record.parent(), record.name());
  ++counters_.data_changes;
  SetPagesTrusted(node, false);
  invalidation_.DataChanged(node);
}

Task<void> Filesystem::Impl::AnswerBreak(state::NodeId node, std::shared_ptr<LeaseTenure> tenure,
                                         smb::LeaseBreak broken) {
  const uint32_t lost = broken.from & ~broken.to;
  if (node != 0 && (lost & wire::kLeaseWrite) != 0) co_await DrainForBreak(node);
  // On the session that asked, or not at all: what is lost with it is not broken, and one that is
  // of no use any more is ended by this. The kernel is not waited for: a page that it is reading
  // holds it up, and who reads may wait for this answer.
  (void)co_await tenure->tree().session().AcknowledgeLease(broken.key, broken.to,
                                                           Deadline::After(kAnswerWithin));
  tenure->EndAnswer();
  // What was read since then was under no lease, for it could not be asked for.
  if ((broken.to & wire::kLeaseRead) == 0) DropWhatWasLeased(node);
}

Task<void> Filesystem::Impl::AskForReadAgain(state::NodeId node, Deadline deadline) {
  const auto open = opens_.find(node);
  if (open == opens_.end()) co_return;
  const absl::Time now = runtime::Loop::Current().Now();
  std::shared_ptr<OpenFile> file;
  for (const state::FileHandle fh : open->second) {
    const auto found = files_.find(fh);
    if (found != files_.end() && found->second->IsReadLeaseLost(now)) file = found->second;
  }
  if (file == nullptr) co_return;
  (void)co_await client_.Run(
      file->path(),
      [file, deadline](dfs::Binding binding) {
        return file->AskForReadAgainOn(std::move(binding), deadline);
      },
      {.held_epoch = file->epoch()}, deadline);
}

}  // namespace dfscsi::vfs
