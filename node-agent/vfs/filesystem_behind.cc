// WRITEs that are acknowledged before their server has them: which may be, what waits for them, and
// how an error of one is told.

#include <errno.h>

#include <algorithm>
#include <utility>

#include "absl/strings/cord.h"
#include "node-agent/base/log.h"
#include "node-agent/base/status_macros.h"
#include "node-agent/vfs/errno.h"
#include "node-agent/vfs/filesystem_impl.h"

namespace dfscsi::vfs {

using runtime::Deadline;
using runtime::Task;
using state::Load;

namespace {

// A server refuses what it cannot hold, and who writes far behind the end learns of it by that
// write.
constexpr uint64_t kMostBeyondEnd = uint64_t{1} << 20;

constexpr char kKeptErrorUrl[] = "dfscsi/kept-write-error";

// What is kept of a write that failed after its acknowledgment. That its handle is stale, or that
// somebody gave up, is no word for lost data.
int KeptErrnoOf(const absl::Status& status) {
  const int error = ErrnoOf(status);
  const bool tells = error == ENOSPC || error == EDQUOT || error == EFBIG || error == EACCES ||
                     error == EROFS || error == EHOSTDOWN;
  return tells ? error : EIO;
}

}  // namespace

bool Filesystem::IsKeptError(const absl::Status& status) {
  return status.GetPayload(kKeptErrorUrl).has_value();
}

// --- What waits for them

std::vector<state::NodeId> Filesystem::Impl::BehindPath(const absl::StatusOr<dfs::DfsPath>& path,
                                                        size_t least_below,
                                                        size_t most_below) const {
  std::vector<state::NodeId> nodes;
  if (!path.ok()) return nodes;
  for (const state::NodeId node : behind_.Nodes()) {
    // Not its node alone: another spelling of the name is another node of the same file.
    const absl::StatusOr<dfs::DfsPath> pending = PathOf(node);
    if (!pending.ok() || !pending->HasPrefix(*path)) continue;
    const size_t below = pending->size() - path->size();
    if (below >= least_below && below <= most_below) nodes.push_back(node);
  }
  return nodes;
}

std::vector<state::NodeId> Filesystem::Impl::BehindNode(state::NodeId node) const {
  if (behind_.empty()) return {};
  std::vector<state::NodeId> nodes = BehindPath(PathOf(node), 0, 0);
  const bool listed = std::find(nodes.begin(), nodes.end(), node) != nodes.end();
  if (behind_.IsPending(node) && !listed) nodes.push_back(node);  // Its name is gone.
  return nodes;
}

std::vector<state::NodeId> Filesystem::Impl::BehindHandle(state::FileHandle fh) const {
  if (behind_.empty() || !tables_.handles().Contains(fh)) return {};
  return BehindNode(tables_.handles().Get(fh).node);
}

std::vector<state::NodeId> Filesystem::Impl::BehindHandles(state::FileHandle one,
                                                           state::FileHandle other) const {
  std::vector<state::NodeId> nodes = BehindHandle(one);
  for (const state::NodeId node : BehindHandle(other)) nodes.push_back(node);
  return nodes;
}

absl::StatusOr<dfs::DfsPath> Filesystem::Impl::PathOfName(state::NodeId parent,
                                                          std::string_view name) const {
  ASSIGN_OR_RETURN(const dfs::DfsPath directory, PathOf(parent));
  ASSIGN_OR_RETURN(const std::string wire_name, WireName(name));
  return directory.Join(wire_name);
}

std::vector<state::NodeId> Filesystem::Impl::BehindName(state::NodeId parent,
                                                        std::string_view name) const {
  if (behind_.empty()) return {};
  return BehindPath(PathOfName(parent, name), 0, 0);
}

std::vector<state::NodeId> Filesystem::Impl::BehindRename(state::NodeId parent,
                                                          std::string_view name,
                                                          state::NodeId new_parent,
                                                          std::string_view new_name) const {
  if (behind_.empty()) return {};
  std::vector<state::NodeId> nodes = BehindPath(PathOfName(parent, name), 0, SIZE_MAX);
  for (const state::NodeId node : BehindName(new_parent, new_name)) nodes.push_back(node);
  return nodes;
}

// --- WRITE

uint64_t Filesystem::Impl::KnownEndOf(state::NodeId node) const {
  uint64_t end = behind_.EndOf(node);
  const auto open = opens_.find(node);
  if (open == opens_.end()) return end;
  for (const state::FileHandle fh : open->second) {
    const auto found = files_.find(fh);
    if (found != files_.end()) end = std::max(end, found->second->seen().file.end_of_file);
  }
  return end;
}

void Filesystem::Impl::NoteSizeOfAll(state::NodeId node, uint64_t size_bytes) {
  const auto open = opens_.find(node);
  if (open == opens_.end()) return;
  for (const state::FileHandle fh : open->second) {
    const auto found = files_.find(fh);
    if (found != files_.end()) found->second->NoteSize(size_bytes);
  }
}

bool Filesystem::Impl::MayWriteBehind(state::NodeId node, const OpenFile& file,
                                      const WriteBehind::Range& range, const ChangeJournal* journal,
                                      const Deadline& deadline) const {
  if (journal == nullptr || journal->held_bytes() == 0 || journal->acknowledged()) return false;
  // One that a dead agent has sent has its own rules; one that was given up is not begun with.
  if (journal->sent_to() != 0 || deadline.cancelled()) return false;
  if (!options_.pages || file.appends() || !file.writes()) return false;
  // Nothing may be anybody's but its server's that this mount may yet send to another.
  if (options_.replay_writes) return false;
  // Behind the end alone: of what replaces other bytes nobody could tell, once the lease is gone,
  // whether another machine has written them.
  const uint64_t end = KnownEndOf(node);
  if (range.offset < end || range.offset - end > kMostBeyondEnd) return false;
  if (!holds_write_lease_ || !holds_write_lease_(node) || !file.HoldsWriteLease()) return false;
  // After a lease that lapsed with something pending this open proves nothing any more.
  if (!file.MaySendOf(file.instance())) return false;
  if (locks_.contains(node) || hard_links_.Contains(node)) return false;
  // If it were lost, it would be looked for by a name that may be another's by then.
  if (names_->Touched(PathOf(node).value_or(file.path()), names_->now())) return false;
  // While its server is silent nobody should believe that it has what is written.
  return file.IsHealthy() && client_.GetEpoch(file.path()) == file.epoch();
}

Task<absl::Status> Filesystem::Impl::WriteOrBehind(state::FileHandle fh, uint64_t offset,
                                                   absl::Span<const uint8_t> from,
                                                   ChangeJournal* journal, Deadline deadline,
                                                   size_t* written_bytes) {
  if (written_bytes != nullptr) *written_bytes = 0;
  WriteBehind::Pending pending;
  WriteBehind::Range range{.offset = offset, .size_bytes = from.size()};
  const bool known = tables_.handles().Contains(fh);
  const state::NodeId node = known ? tables_.handles().Get(fh).node : 0;
  if (journal != nullptr) range.held_bytes = journal->held_bytes();
  if (journal != nullptr && journal->acknowledged()) {
    range.base = journal->sent_offset();
    pending = behind_.Begin(node, range);  // Before any other request of the mount is run.
  } else {
    if (journal == nullptr || !journal->is_of_pages()) CO_RETURN_IF_ERROR(KeptError(fh));
    const auto found = files_.find(fh);
    const std::shared_ptr<OpenFile> open = found == files_.end() ? nullptr : found->second;
    if (open != nullptr && MayWriteBehind(node, *open, range, journal, deadline)) {
      CO_RETURN_IF_ERROR(co_await behind_.AwaitTurn(node, range, deadline));
      // The lease may have gone meanwhile, and the handle.
      if (tables_.handles().Contains(fh) && behind_.HasRoom(range.held_bytes) &&
          MayWriteBehind(node, *open, range, journal, deadline)) {
        // Before the answer: no other copy is this file any more, whoever dies.
        SetHandleFlag(fh, kHandleWritten);
        open->NoteWritten();
        NoteServer(fh, *open);
        range.base = KnownEndOf(node);
        range.instance = open->instance();
        journal->NoteSent(0, range.base);
        pending = behind_.Begin(node, range);
        NoteOwnChange(node);
        ++counters_.early_writes;
        journal->Acknowledge();
      }
    }
    if (journal == nullptr || !journal->acknowledged()) {
      CO_RETURN_IF_ERROR(co_await behind_.AwaitEnd(BehindHandle(fh), deadline));
    }
  }
  const absl::Status status =
      co_await Write(fh, offset, from, journal, std::move(deadline), written_bytes, range);
  // Before its slot is free: the next agent either knows of it, or writes it again.
  if (!status.ok() && journal != nullptr && journal->acknowledged()) KeepError(fh, status);
  co_return status;
}

// --- Errors

void Filesystem::Impl::KeepError(state::FileHandle fh, const absl::Status& status) {
  ++counters_.early_failures;
  const bool known = tables_.handles().Contains(fh);
  const auto open = files_.find(fh);
  absl::StatusOr<dfs::DfsPath> path =
      known ? PathOf(tables_.handles().Get(fh).node) : absl::NotFoundError("no such handle");
  if (!path.ok() && open != files_.end()) path = open->second->path();  // Its name was removed.
  LogError(InLog(path.ok() ? *path : client_.source()),
           "a write that was acknowledged has failed: ", status.message());
  if (!known) return;
  const uint32_t flags = Load(tables_.handles().Get(fh).flags);
  if ((flags & kHandleErrorMask) != 0) return;  // One is told; of several the first.
  const auto error = static_cast<uint32_t>(KeptErrnoOf(status));
  tables_.handles().SetFlags(fh, flags | error << kHandleErrorShift);
}

void Filesystem::Impl::LoseWrite(state::FileHandle fh) {
  KeepError(fh, ErrnoError(EIO, "its operation was ended"));
}

absl::Status Filesystem::Impl::KeptError(state::FileHandle fh) const {
  if (!tables_.handles().Contains(fh)) return absl::OkStatus();
  const uint32_t flags = Load(tables_.handles().Get(fh).flags);
  const int error = static_cast<int>((flags & kHandleErrorMask) >> kHandleErrorShift);
  if (error == 0) return absl::OkStatus();
  absl::Status status = ErrnoError(error, "of a write that was acknowledged");
  status.SetPayload(kKeptErrorUrl, absl::Cord());
  return status;
}

// Between KeptError() and this nothing else runs, in this agent; the next one calls it before
// anything. So the error is the one that was told, and not one that is kept since.
void Filesystem::Impl::NoteErrorTold(state::FileHandle fh, int error) {
  if (!tables_.handles().Contains(fh)) return;
  const uint32_t flags = Load(tables_.handles().Get(fh).flags);
  if ((flags & kHandleErrorMask) >> kHandleErrorShift != static_cast<uint32_t>(error)) return;
  tables_.handles().SetFlags(fh, flags & ~kHandleErrorMask);
}

Task<absl::Status> Filesystem::Impl::TellingKept(state::FileHandle fh, Task<absl::Status> call,
                                                 Deadline deadline) {
  CO_RETURN_IF_ERROR(co_await behind_.AwaitEnd(BehindHandle(fh), deadline));
  const absl::Status status = co_await std::move(call);
  const absl::Status kept = KeptError(fh);
  co_return kept.ok() ? status : kept;
}

Task<absl::Status> Filesystem::Impl::FlushTellingKept(state::FileHandle fh, uint64_t owner,
                                                      Deadline deadline) {
  const absl::Status written = co_await behind_.AwaitEnd(BehindHandle(fh), deadline);
  if (!written.ok()) {
    DropRangesOfKilled(fh, owner);
    co_return written;
  }
  const absl::Status status = co_await Flush(fh, owner, std::move(deadline));
  const absl::Status kept = KeptError(fh);
  co_return kept.ok() ? status : kept;
}

}  // namespace dfscsi::vfs
