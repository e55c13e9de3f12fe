// Looks at files of which something is pending: LOOKUP, GETATTR.

#include <algorithm>
#include <utility>

#include "absl/time/time.h"
#include "node-agent/base/status_macros.h"
#include "node-agent/runtime/loop.h"
#include "node-agent/vfs/filesystem_impl.h"

namespace dfscsi::vfs {

using runtime::Deadline;
using runtime::Task;

namespace {

// For what a server that answers has soon, so that its times and its blocks are true; the size is
// known here. Whether it still answers is looked at that often.
constexpr absl::Duration kWrittenSoon = absl::Seconds(1);
constexpr absl::Duration kLookAgain = absl::Milliseconds(100);

}  // namespace

bool Filesystem::Impl::IsWrittenNow(state::NodeId node) const {
  const auto open = opens_.find(node);
  if (open == opens_.end()) return false;
  for (const state::FileHandle fh : open->second) {
    const auto found = files_.find(fh);
    if (found == files_.end()) return false;  // Of a dead agent: it is not open yet.
    const OpenFile& file = *found->second;
    if (!file.writes()) continue;
    if (!file.IsHealthy() || client_.GetEpoch(file.path()) != file.epoch()) return false;
  }
  return true;
}

Task<absl::Status> Filesystem::Impl::AwaitSoon(std::vector<state::NodeId> nodes,
                                               Deadline deadline) {
  const uint64_t before = behind_.next_number();
  const Deadline end = deadline.Within(kWrittenSoon);
  while (runtime::Loop::Current().Now() < end.when()) {
    // What is elsewhere, or with who is silent, stops nobody who only looks.
    std::erase_if(nodes, [this](state::NodeId node) {
      return !behind_.IsPending(node) || !IsWrittenNow(node);
    });
    if (nodes.empty()) break;
    const absl::Status ended = co_await behind_.AwaitEndOf(nodes, before, end.Within(kLookAgain));
    if (ended.ok() || absl::IsCancelled(ended)) co_return ended;
  }
  co_return absl::OkStatus();
}

uint64_t Filesystem::Impl::PendingEnd(const std::vector<state::NodeId>& nodes) const {
  uint64_t end = 0;
  for (const state::NodeId node : nodes) end = std::max(end, behind_.EndOf(node));
  return end;
}

uint64_t Filesystem::Impl::PendingEndOfFile(state::NodeId node) const {
  uint64_t end = PendingEnd(BehindNode(node));
  if (behind_.empty() || !tables_.inodes().Contains(node)) return end;
  const state::NodeIdentity* const known = tables_.inodes().Get(node).identity();
  if (known == nullptr || known->file_id == 0) return end;
  for (const state::NodeId pending : behind_.Nodes()) {
    if (!tables_.inodes().Contains(pending)) continue;
    const state::NodeIdentity* const other = tables_.inodes().Get(pending).identity();
    const bool is_same =
        other != nullptr && other->file_id == known->file_id && other->epoch == known->epoch;
    if (is_same) end = std::max(end, behind_.EndOf(pending));
  }
  return end;
}

bool Filesystem::Impl::AddPending(state::NodeId node, uint64_t before, struct stat* seen) {
  // The kernel was told that these bytes are there. What is acknowledged while it waits for this
  // answer it knows to be newer.
  const uint64_t end = std::max(before, PendingEndOfFile(node));
  if (end == 0 || !S_ISREG(seen->st_mode)) return false;
  seen->st_size = std::max(seen->st_size, static_cast<off_t>(end));
  if (!tables_.inodes().Contains(node)) return true;
  const state::InodeTable::Node record = tables_.inodes().Get(node);
  ForgetName(record.parent(), record.name());
  return true;
}

Task<absl::StatusOr<EntryReply>> Filesystem::Impl::LookupBeside(state::NodeId parent,
                                                                std::string name,
                                                                Deadline deadline) {
  CO_RETURN_IF_ERROR(co_await AwaitSoon(BehindName(parent, name), deadline));
  uint64_t before = PendingEnd(BehindName(parent, name));
  if (const state::NodeId known = tables_.inodes().Find(parent, name); known != 0) {
    before = std::max(before, PendingEndOfFile(known));
  }
  absl::StatusOr<EntryReply> reply = co_await Lookup(parent, std::move(name), deadline);
  if (reply.ok() && AddPending(reply->node, before, &reply->attributes)) {
    reply->attributes_timeout = absl::ZeroDuration();
  }
  co_return reply;
}

Task<absl::StatusOr<AttributesReply>> Filesystem::Impl::GetAttributesBeside(state::NodeId node,
                                                                            Deadline deadline) {
  CO_RETURN_IF_ERROR(co_await AwaitSoon(BehindNode(node), deadline));
  const uint64_t before = PendingEndOfFile(node);
  absl::StatusOr<AttributesReply> reply = co_await GetAttributes(node, deadline);
  if (reply.ok() && AddPending(node, before, &reply->attributes)) {
    reply->timeout = absl::ZeroDuration();
  }
  co_return reply;
}

}  // namespace dfscsi::vfs
