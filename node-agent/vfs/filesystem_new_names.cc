// LINK and MKNOD: a second name for a file, and a file without opening it.

#include <errno.h>

#include <optional>
#include <string>
#include <utility>

#include "node-agent/base/status_macros.h"
#include "node-agent/smb/tree.h"
#include "node-agent/smb/wire/nt_status.h"
#include "node-agent/vfs/change_probe.h"
#include "node-agent/vfs/errno.h"
#include "node-agent/vfs/filesystem_impl.h"
#include "node-agent/vfs/share_path.h"

namespace dfscsi::vfs {

using runtime::Deadline;
using runtime::Task;
using smb::wire::NtStatus;
using smb::wire::NtStatusOf;

Task<absl::StatusOr<EntryReply>> Filesystem::Impl::LinkReply(state::NodeId node, dfs::DfsPath path,
                                                             uint64_t epoch, Deadline deadline) {
  absl::StatusOr<Sight> sight = co_await Look(path, deadline);
  if (!tables_.inodes().Contains(node)) co_return ErrnoError(ESTALE, "a node that is gone");
  const state::InodeTable::Node record = tables_.inodes().Get(node);
  if (!sight.ok()) {
    // The name was made, whatever became of this look.
    const state::NodeIdentity known =
        record.identity() == nullptr ? state::NodeIdentity{} : *record.identity();
    sight = Sight{.attributes = {.file = {.last_write_time = known.last_write,
                                          .end_of_file = known.size_bytes,
                                          .attributes = known.attributes},
                                 .file_id = known.file_id,
                                 .names = 2},
                  .epoch = epoch};
  }
  NoteSeenAndTell(node, sight->attributes, sight->epoch);
  tables_.inodes().AddLookup(node);
  co_return EntryReply{.node = node,
                       .attributes = StatOfNode(node, record.ino(), sight->attributes),
                       .attributes_timeout = absl::ZeroDuration(),
                       .name_timeout = absl::ZeroDuration()};
}

Task<absl::StatusOr<EntryReply>> Filesystem::Impl::Link(state::NodeId node,
                                                        state::NodeId new_parent,
                                                        std::string new_name,
                                                        ChangeJournal* journal, Deadline deadline) {
  CO_RETURN_IF_ERROR(MayChange());
  CO_ASSIGN_OR_RETURN(const dfs::DfsPath path, PathOf(node));
  absl::StatusOr<dfs::DfsPath> allowed = ChangeablePath(new_parent, new_name);
  if (ErrnoOf(allowed.status()) == EBUSY) allowed = ErrnoError(EEXIST, "a DFS link");
  CO_ASSIGN_OR_RETURN(const dfs::DfsPath target, std::move(allowed));
  CO_RETURN_IF_ERROR(CheckNoLinkBetween(path, target));
  uint64_t id = 0;
  Change change{.attempt = {}, .of_names = true, .journal = journal};
  change.attempt = [&](dfs::Binding binding) -> Task<absl::Status> {
    if (binding.link_components == path.size()) co_return ErrnoError(EPERM, "a DFS link");
    if (!IsBelowSameLink(binding, path, target)) co_return ErrnoError(EXDEV, "below another link");
    std::optional<std::u16string> wire_target = PathInShare(binding, path, target);
    if (!wire_target.has_value()) co_return ErrnoError(EILSEQ, "a name that is not UTF-8");
    CO_ASSIGN_OR_RETURN(id, co_await IdOn(binding, node));
    change.Sending();
    const absl::Status status = co_await binding.tree->LinkPath(
        binding.path, {.replace = false, .target = *wire_target}, deadline);
    const std::optional<NtStatus> answer = NtStatusOf(status);
    if (answer == NtStatus::kInvalidInfoClass || answer == NtStatus::kInvalidDeviceRequest) {
      co_return ErrnoError(EOPNOTSUPP, "the server makes no hard links");
    }
    if (answer != NtStatus::kPathNotCovered) co_return status;
    // One of the two lies below a link that is not known yet; which?
    CO_RETURN_IF_ERROR((co_await binding.tree->Stat(binding.path, deadline)).status());
    co_return ErrnoError(EXDEV, "below another DFS link");
  };
  change.probe = [&](dfs::Binding binding) -> Task<absl::StatusOr<Verdict>> {
    const std::optional<std::u16string> wire_target = PathInShare(binding, path, target);
    if (!wire_target.has_value()) co_return Verdict::kNotDone;
    // A dead agent may have sent it.
    if (id == 0) {
      CO_ASSIGN_OR_RETURN(id, co_await IdOn(binding, node));
    }
    binding.path = *wire_target;
    co_return co_await ProbeLinked(std::move(binding), id, deadline);
  };
  CO_RETURN_IF_ERROR(co_await RunChange(path, &change, deadline));
  ForgetName(new_parent, new_name);
  NoteChangeIn(new_parent);
  NoteOwnChange(node);
  // The same node: who holds the first name sees at once that there are two. The new name is looked
  // up when it is used, and is a node of its own then.
  co_return co_await LinkReply(node, path, change.where.epoch, deadline);
}

}  // namespace dfscsi::vfs
