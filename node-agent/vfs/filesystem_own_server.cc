// What only its own server has: what is open there, and was written, while its link has another
// target. The kernel has one inode for it and for the copy that has its name there: what it is told
// of that is the written file's, as long as that is open.

#include <errno.h>

#include <algorithm>
#include <utility>

#include "node-agent/base/status_macros.h"
#include "node-agent/vfs/errno.h"
#include "node-agent/vfs/filesystem_impl.h"

namespace dfscsi::vfs {

using runtime::Deadline;
using runtime::Task;
using state::Load;

namespace {

Task<absl::Status> StatOn(dfs::Binding binding, ServerAttributes* seen, uint64_t* epoch,
                          Deadline deadline) {
  CO_ASSIGN_OR_RETURN(const smb::FileStatus status,
                      co_await binding.tree->Stat(binding.path, deadline));
  *epoch = binding.epoch;
  *seen = {.file = status.attributes,
           .reparse_tag = status.reparse_tag,
           .file_id = status.file_id,
           .names = status.names};
  co_return absl::OkStatus();
}

}  // namespace

Task<absl::Status> Filesystem::Impl::RunOnServer(dfs::DfsPath path, uint64_t server_key, Call call,
                                                 dfs::RunOptions options, Deadline deadline) {
  return client_.RunOnTarget(
      std::move(path),
      [server_key](const dfs::DfsPath& target) { return ServerKeyOf(target) == server_key; },
      std::move(call), options, std::move(deadline));
}

absl::Status Filesystem::Impl::GiveUpServer(OpenFile& file) {
  if (file.GiveUpServer()) ++counters_.stale_handles;
  return ErrnoError(ESTALE, "its server did not come back in time");
}

std::optional<Filesystem::Impl::WrittenElsewhere> Filesystem::Impl::ElsewhereOf(
    state::NodeId node) const {
  const auto open = opens_.find(node);
  if (open == opens_.end()) return std::nullopt;
  std::optional<WrittenElsewhere> found;
  std::optional<uint64_t> here;
  for (const state::FileHandle fh : open->second) {
    const std::optional<WrittenElsewhere> bound = BoundAs(fh);
    if (!bound.has_value()) continue;
    if (!here.has_value()) {
      const absl::StatusOr<dfs::DfsPath> path = PathOf(node);
      if (!path.ok()) return std::nullopt;
      const std::optional<dfs::DfsPath> target = client_.GetTarget(*path);
      if (!target.has_value()) return std::nullopt;
      here = ServerKeyOf(*target);
    }
    if (bound->server_key == *here) continue;
    if (!found.has_value()) found = bound;
    found->size_bytes = std::max(found->size_bytes, bound->size_bytes);
    if (found->file == nullptr || !found->file->IsHealthy()) found->file = bound->file;
  }
  return found;
}

std::optional<Filesystem::Impl::WrittenElsewhere> Filesystem::Impl::BoundAs(
    state::FileHandle fh) const {
  if (const auto file = files_.find(fh); file != files_.end()) {
    if (!file->second->IsBoundToServer() || file->second->is_stale()) return std::nullopt;
    return WrittenElsewhere{.server_key = file->second->server_key(),
                            .size_bytes = file->second->known_size_bytes(),
                            .file = file->second};
  }
  // A dead agent's, and nobody has used it since.
  if (!tables_.handles().Contains(fh)) return std::nullopt;
  const state::HandleTable::Record& record = tables_.handles().Get(fh);
  const bool is_bound = (Load(record.flags) & (kHandleWritten | kHandleHasAnother)) != 0;
  if (!is_bound || Load(record.server_key) == 0) return std::nullopt;
  return WrittenElsewhere{.server_key = Load(record.server_key),
                          .size_bytes = record.identity.Get().size_bytes,
                          .file = nullptr};
}

Task<absl::StatusOr<AttributesReply>> Filesystem::Impl::GetAttributesElsewhere(
    state::NodeId node, dfs::DfsPath path, WrittenElsewhere elsewhere, Deadline deadline) {
  ServerAttributes seen;
  uint64_t epoch = 0;
  const uint64_t ino = tables_.inodes().Get(node).ino();
  const Call stat = [&](dfs::Binding binding) {
    return StatOn(std::move(binding), &seen, &epoch, deadline);
  };
  const bool is_there = elsewhere.file != nullptr && elsewhere.file->IsHealthy();
  if (is_there && (co_await RunOnServer(path, elsewhere.server_key, stat, {}, deadline)).ok()) {
    elsewhere.file->NoteSize(std::max(elsewhere.file->known_size_bytes(), seen.file.end_of_file));
    if (tables_.inodes().Contains(node)) NoteSeenAndTell(node, seen, epoch);
    co_return AttributesReply{.attributes = StatOfNode(node, ino, seen),
                              .timeout = options_.actimeo,
                              .born = BornOf(seen)};
  }
  if (deadline.cancelled()) co_return absl::CancelledError("cancelled");
  // It is away, and whoever uses the file waits for it: what was known last.
  if (elsewhere.file != nullptr && elsewhere.file->instance() != 0) {
    seen = elsewhere.file->seen();
  } else if (tables_.inodes().Contains(node)) {
    const state::NodeIdentity* const known = tables_.inodes().Get(node).identity();
    if (known != nullptr) {
      seen.file.last_write_time = known->last_write;
      seen.file.attributes = known->attributes;
    }
  }
  co_return AttributesReply{.attributes = StatOfNode(node, ino, seen),
                            .timeout = absl::ZeroDuration(),
                            .born = BornOf(seen)};
}

}  // namespace dfscsi::vfs
