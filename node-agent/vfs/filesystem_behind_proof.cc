// What was acknowledged under a lease that is gone: whether it may still be sent.
//
// A write that is acknowledged early lies behind the end that the file had then (MayWriteBehind):
// from there to its own end nobody has put anything but this write, if its file is as it should be.
// It may have been executed in part, its answer lost. So, by another open of the same file, with W
// anew (nobody else has it open now): the file is not shorter than before all that is pending, and
// between the old end and the write's own there are only zeros, or the write's bytes. What another
// machine has put there meanwhile shows; what it has put elsewhere this write does not touch.

#include <errno.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "node-agent/base/log.h"
#include "node-agent/base/status_macros.h"
#include "node-agent/vfs/errno.h"
#include "node-agent/vfs/filesystem_impl.h"

namespace dfscsi::vfs {

using runtime::Deadline;
using runtime::Task;

namespace {

// Servers wait 35 s for the acknowledgment, which comes behind it.
constexpr absl::Duration kDrainWithin = absl::Seconds(25);
constexpr size_t kPieceBytes = size_t{256} << 10;

}  // namespace

Task<absl::Status> Filesystem::Impl::CheckUnchanged(
    state::FileHandle fh, std::shared_ptr<OpenFile> file, std::shared_ptr<smb::Tree> tree,
    smb::wire::FileId file_id, WriteBehind::Range early, absl::Span<const uint8_t> bytes,
    Deadline deadline) {
  const bool is_this = file->TryIdOn(*tree) == file_id;
  if (is_this && early.instance != 0 && early.instance == file->instance() &&
      file->MaySendOf(early.instance)) {
    co_return absl::OkStatus();
  }
  absl::Status status = ErrnoError(EIO, "nobody knows how long its file was");
  if (early.base <= early.offset && tables_.handles().Contains(fh)) {
    const uint64_t least = behind_.LeastBaseOf(tables_.handles().Get(fh).node);
    status = co_await file->ProveOn(tree, file_id, least, deadline);
    if (status.ok()) {
      status = co_await CheckOwnBytes(file, tree, file_id, early, bytes, std::move(deadline));
    }
  }
  if (ErrnoOf(status) == EIO && !IsAnswerLost(status)) ++counters_.unproven_writes;
  co_return status;
}

Task<absl::Status> Filesystem::Impl::CheckOwnBytes(
    std::shared_ptr<OpenFile> file, std::shared_ptr<smb::Tree> tree, smb::wire::FileId file_id,
    WriteBehind::Range early, absl::Span<const uint8_t> bytes, Deadline deadline) {
  std::vector<uint8_t> piece(kPieceBytes);
  const uint64_t end = early.offset + bytes.size();
  for (uint64_t at = early.base; at < end;) {
    const auto wanted = static_cast<size_t>(std::min<uint64_t>(kPieceBytes, end - at));
    CO_ASSIGN_OR_RETURN(const size_t there,
                        co_await file->ReadUnderLease(
                            tree, file_id, at, absl::MakeSpan(piece).first(wanted), deadline));
    for (size_t i = 0; i < there; ++i) {
      const bool own = at + i >= early.offset && piece[i] == bytes[at + i - early.offset];
      if (piece[i] != 0 && !own) {
        co_return ErrnoError(EIO, "another machine has written there since it was acknowledged");
      }
    }
    if (there < wanted) break;
    at += there;
  }
  co_return absl::OkStatus();
}

Task<void> Filesystem::Impl::DrainForBreak(state::NodeId node) {
  const absl::Status drained =
      co_await behind_.AwaitEnd(BehindNode(node), Deadline::After(kDrainWithin));
  if (drained.ok()) co_return;
  // Another machine has it from now on. What is on its way may still be executed; nothing more is
  // sent under this lease.
  LogWarning("a lease is given back while something of its file is still pending");
  const auto open = opens_.find(node);
  if (open == opens_.end()) co_return;
  for (const state::FileHandle fh : open->second) {
    const auto found = files_.find(fh);
    if (found != files_.end()) found->second->NoteLapsed();
  }
}

}  // namespace dfscsi::vfs
