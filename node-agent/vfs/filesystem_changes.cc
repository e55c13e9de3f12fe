// What every change does so that it is applied once; MKDIR, UNLINK, RMDIR, RENAME.

#include <errno.h>
#include <linux/fs.h>

#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_format.h"
#include "node-agent/base/death_points.h"
#include "node-agent/base/log.h"
#include "node-agent/base/status_macros.h"
#include "node-agent/runtime/loop.h"
#include "node-agent/smb/tree.h"
#include "node-agent/smb/wire/nt_status.h"
#include "node-agent/smb/wire/utf16.h"
#include "node-agent/vfs/change_probe.h"
#include "node-agent/vfs/errno.h"
#include "node-agent/vfs/filesystem_impl.h"
#include "node-agent/vfs/removal.h"
#include "node-agent/vfs/share_path.h"

namespace dfscsi::vfs {

using runtime::Deadline;
using runtime::Task;
using smb::wire::NtStatus;
using smb::wire::NtStatusOf;

namespace {

constexpr char kDeadAgents[] = "sent by a dead agent, and its server does not say what was done";

// `path` with another last component.
std::u16string Sibling(const std::u16string& path, const std::u16string& name) {
  const size_t end = path.rfind(u'\\');
  return end == std::u16string::npos ? name : path.substr(0, end + 1) + name;
}

std::optional<std::u16string> Utf16(absl::string_view text) {
  return smb::wire::Utf8ToUtf16({text.data(), text.size()});
}
}  // namespace

// --- Once, and only once

absl::Status Filesystem::Impl::MayChange() const {
  if (options_.read_only) return ErrnoError(EROFS, "mounted read-only");
  return absl::OkStatus();
}

Task<absl::Status> Filesystem::Impl::RunChange(dfs::DfsPath path, Change* change,
                                               Deadline deadline) {
  change->began = runtime::Loop::Current().Now();
  change->path = &path;
  if (change->journal != nullptr) change->sent_before = change->journal->sent_to();
  absl::Status status;
  bool replayed = false;
  do {
    replayed = replayed || absl::IsAborted(status);
    const Call attempt = [this, change](dfs::Binding binding) {
      return Attempt(std::move(binding), change);
    };
    const dfs::RunOptions options{
        .held_epoch = change->held_epoch, .movable = false, .repeatable = false};
    status = co_await client_.Run(path, attempt, options, deadline);
    if (IsElsewhere(status)) {
      status = co_await RunOnServer(path, change->sent_before, attempt, options, deadline);
      if (!change->sent && dfs::IsLost(status)) co_return UnknownChange(path, kDeadAgents);
    }
    if (!change->sent || !absl::IsAborted(status)) {
      co_return replayed && !IsNameMoved(status) ? OutcomeOfReplay(status) : status;
    }
    ++counters_.lost_answers;
    if (change->can_tell && !dfs::IsLost(status)) {
      status = co_await client_.RunOnOwn(
          path, change->where,
          [this, change](dfs::Binding binding) { return Settle(std::move(binding), change); },
          deadline);
    }
    // Not that server's business, then: it has done nothing.
  } while (NtStatusOf(status) == NtStatus::kPathNotCovered ||
           (absl::IsAborted(status) && change->replays != nullptr && change->replays()));
  if (!absl::IsAborted(status)) co_return status;
  co_return UnknownChange(path, "its answer was lost, and its server does not say what was done");
}

Task<absl::Status> Filesystem::Impl::RunOnServer(dfs::DfsPath path, uint64_t server_key, Call call,
                                                 dfs::RunOptions options, Deadline deadline) {
  return client_.RunOnTarget(
      std::move(path),
      [server_key](const dfs::DfsPath& target) { return ServerKeyOf(target) == server_key; },
      std::move(call), options, std::move(deadline));
}

absl::Status Filesystem::Impl::UnknownChange(const dfs::DfsPath& path, const char* why) {
  ++counters_.unknown_changes;
  LogWarning(InLog(path),
             "nobody knows whether a change was made, which is answered with EIO: ", why);
  return ErrnoError(EIO, why);
}

Task<absl::Status> Filesystem::Impl::Attempt(dfs::Binding binding, Change* change) {
  change->sent = false;
  if (change->sent_before != 0) {
    if (!change->can_tell || ServerKeyOf(binding) != change->sent_before) {
      // Until a namespace server has said that the path is not its own, it is bound there.
      const absl::Status here =
          (co_await binding.tree->Stat(binding.path, Deadline::Never())).status();
      if (NtStatusOf(here) == NtStatus::kPathNotCovered) co_return here;
      if (IsAnswerLost(here)) co_return absl::UnavailableError(here.message());
      if (change->can_tell && change->may_settle_elsewhere) co_return Elsewhere();
      co_return UnknownChange(*change->path, kDeadAgents);
    }
    ++counters_.lost_answers;
    const absl::Status status = co_await Settle(std::move(binding), change);
    // Asking may be repeated; what was sent meanwhile is in change->sent.
    if (absl::IsAborted(status) && !change->sent) co_return absl::UnavailableError("no answer");
    co_return status;
  }
  change->where = binding;
  if (change->of_names) {
    co_await client_.EndFormerSessions(binding, Deadline::Never());
    if (!left_behind_.empty()) co_await CloseLeftBehind(binding, *change->path);
  }
  const absl::Status status = co_await AttemptByName(std::move(binding), change);
  // Our own word for it; a server's (an NTSTATUS) may be about the last part of a compound.
  const bool never_sent =
      absl::IsUnavailable(status) && !NtStatusOf(status).has_value() && !change->in_pieces;
  if (!IsAnswerLost(status) || never_sent) {
    change->sent = false;
    co_return status;
  }
  if (change->sent) co_return absl::AbortedError(status.message());
  // What came before the change itself was not answered: it may be asked again anywhere.
  co_return absl::IsAborted(status) ? absl::UnavailableError(status.message()) : status;
}

// On the server that it was sent to.
Task<absl::Status> Filesystem::Impl::Settle(dfs::Binding binding, Change* change) {
  change->where = binding;
  Pass(DeathPoint::kProbeBegun);
  if (change->probe != nullptr) {
    const absl::StatusOr<Verdict> verdict = co_await change->probe(binding);
    if (!verdict.ok()) {
      if (IsAnswerLost(verdict.status())) co_return absl::AbortedError("the probe was lost, too");
      if (NtStatusOf(verdict.status()) == NtStatus::kPathNotCovered) change->sent_before = 0;
      co_return verdict.status();
    }
    if (*verdict == Verdict::kUnknown) {
      co_return UnknownChange(*change->path,
                              "its answer was lost, and the server does not show what was done");
    }
    if (*verdict == Verdict::kDone) {
      change->sent = false;
      co_return absl::OkStatus();
    }
  }
  Pass(DeathPoint::kProbeEnded);
  change->sent_before = 0;
  change->sent = false;
  const absl::Status status = co_await AttemptByName(std::move(binding), change);
  if (IsAnswerLost(status)) co_return absl::AbortedError(status.message());
  change->sent = false;
  co_return status;
}

// --- What the changes of names share

absl::StatusOr<dfs::DfsPath> Filesystem::Impl::ChangeablePath(state::NodeId parent,
                                                              std::string_view name) const {
  RETURN_IF_ERROR(MayChange());
  ASSIGN_OR_RETURN(const dfs::DfsPath directory, PathOf(parent));
  ASSIGN_OR_RETURN(const std::string wire_name, WireName(name));
  ASSIGN_OR_RETURN(dfs::DfsPath path, directory.Join(wire_name));
  if (client_.IsKnownLink(path)) return ErrnoError(EBUSY, "a DFS link");
  return path;
}

void Filesystem::Impl::NoteOwnChange(state::NodeId node) {
  own_changes_.insert(node);
  const state::InodeTable::Node record = tables_.inodes().Get(node);
  ForgetName(record.parent(), record.name());
  // By its other names it may be open since before there were several.
  for (const state::NodeId other : hard_links_.Others(node)) {
    SetPagesTrusted(other, false);
    invalidation_.DataChanged(other);
  }
}

absl::Status Filesystem::Impl::CheckNoLinkBetween(const dfs::DfsPath& from,
                                                  const dfs::DfsPath& to) const {
  for (size_t size = 3; size < to.size(); ++size) {
    const dfs::DfsPath prefix = to.Prefix(size);
    const bool both = from.size() > size && from.KeyPrefix(size) == prefix.Key();
    if (!both && client_.IsKnownLink(prefix)) return ErrnoError(EXDEV, "below another DFS link");
  }
  return absl::OkStatus();
}

void Filesystem::Impl::NoteChangeIn(state::NodeId directory) {
  sights_.NoteChange(directory);
  if (directory == state::kRootNode || !tables_.inodes().Contains(directory)) return;
  const state::InodeTable::Node record = tables_.inodes().Get(directory);
  ForgetName(record.parent(), record.name());
}

void Filesystem::Impl::ForgetName(state::NodeId parent, std::string_view name) {
  attributes_.NoteChange(parent, name, runtime::Loop::Current().Now());
}

absl::StatusOr<EntryReply> Filesystem::Impl::NewEntry(state::NodeId parent, std::string_view name,
                                                      const dfs::DfsPath& path,
                                                      const ServerAttributes& seen, uint64_t epoch,
                                                      absl::Time asked) {
  ASSIGN_OR_RETURN(const state::NodeId node, NodeFor(parent, name, path));
  tables_.inodes().AddLookup(node);
  const absl::Time now = runtime::Loop::Current().Now();
  attributes_.Put(parent, name, seen, epoch, {asked, now}, now);
  NoteSeenAndTell(node, seen, epoch);
  NoteChangeIn(parent);
  return EntryReply{.node = node,
                    .attributes = StatOf(seen, tables_.inodes().Get(node).ino(), options_),
                    .attributes_timeout = BelievedIn(parent),
                    .name_timeout = BelievedIn(parent)};
}

uint64_t Filesystem::Impl::LastIdOf(state::NodeId node) const {
  if (node == 0 || !tables_.inodes().Contains(node)) return 0;
  const state::NodeIdentity* const known = tables_.inodes().Get(node).identity();
  return known == nullptr ? 0 : known->file_id;
}

uint64_t Filesystem::Impl::IdBefore(state::NodeId parent, std::string_view name,
                                    const ChangeJournal* journal) const {
  // A dead agent may have seen what it had made itself.
  if (journal != nullptr && journal->sent_to() != 0) return 0;
  return LastIdOf(tables_.inodes().Find(parent, name));
}

Task<absl::StatusOr<uint64_t>> Filesystem::Impl::IdOn(dfs::Binding binding, state::NodeId node) {
  if (node != 0 && tables_.inodes().Contains(node)) {
    const state::NodeIdentity* const known = tables_.inodes().Get(node).identity();
    if (known != nullptr && known->file_id != 0 &&
        known->epoch == static_cast<uint32_t>(binding.epoch)) {
      co_return known->file_id;
    }
  }
  CO_ASSIGN_OR_RETURN(const smb::FileStatus status,
                      co_await binding.tree->Stat(binding.path, Deadline::Never()));
  // The next agent looks there.
  if (node != 0) {
    NoteSeenAndTell(
        node,
        {.file = status.attributes, .reparse_tag = status.reparse_tag, .file_id = status.file_id},
        binding.epoch);
  }
  co_return status.file_id;
}

// --- MKDIR, MKNOD

Task<absl::StatusOr<EntryReply>> Filesystem::Impl::Make(state::NodeId parent, std::string name,
                                                        smb::FileType type, ChangeJournal* journal,
                                                        Deadline deadline) {
  absl::StatusOr<dfs::DfsPath> allowed = ChangeablePath(parent, name);
  if (ErrnoOf(allowed.status()) == EBUSY) allowed = ErrnoError(EEXIST, "a DFS link");
  CO_ASSIGN_OR_RETURN(const dfs::DfsPath path, std::move(allowed));
  ServerAttributes seen;
  const uint64_t known_id = IdBefore(parent, name, journal);
  const absl::Time asked = runtime::Loop::Current().Now();
  Change change{.attempt = {}, .of_names = true, .journal = journal};
  change.attempt = [&](dfs::Binding binding) -> Task<absl::Status> {
    if (binding.link_components == path.size()) co_return ErrnoError(EEXIST, "a DFS link");
    change.Sending();
    absl::StatusOr<smb::FileStatus> made = absl::UnknownError("not run");
    if (type == smb::FileType::kDirectory) {
      made = co_await binding.tree->MakeDirectory(binding.path, deadline);
    } else {
      made = co_await binding.tree->MakeFile(binding.path, deadline);
    }
    if (!made.ok()) co_return made.status();
    seen = {.file = made->attributes, .reparse_tag = 0, .file_id = made->file_id};
    co_return absl::OkStatus();
  };
  change.probe = [&](dfs::Binding binding) -> Task<absl::StatusOr<Verdict>> {
    co_return co_await ProbeCreated(std::move(binding), change, known_id, type, &seen, deadline);
  };
  CO_RETURN_IF_ERROR(co_await RunChange(path, &change, deadline));
  absl::StatusOr<EntryReply> entry = NewEntry(parent, name, path, seen, change.where.epoch, asked);
  if (entry.ok()) NoteMade(entry->node, ServerKeyOf(change.where));
  co_return entry;
}

// --- UNLINK, RMDIR

std::string Filesystem::Impl::HiddenName(state::NodeId node) const {
  // The same for every agent that serves the mount, and another for every other mount.
  const state::Guid& guid = tables_.client_guid();
  std::string words(guid.begin(), guid.end());
  words.append(reinterpret_cast<const char*>(&node), sizeof(node));
  return absl::StrFormat(".dfscsi%016x", SipHash(options_.key, words));
}

Task<absl::Status> Filesystem::Impl::Remove(state::NodeId parent, std::string name,
                                            smb::FileType type, ChangeJournal* journal,
                                            Deadline deadline) {
  CO_ASSIGN_OR_RETURN(const dfs::DfsPath path, ChangeablePath(parent, name));
  const state::NodeId node = tables_.inodes().Find(parent, name);
  // SMB cannot remove the name of an open file and leave the file.
  const bool may_hide = type == smb::FileType::kFile && node != 0;
  bool hides = may_hide && IsOpen(node);
  const std::string hidden = may_hide ? HiddenName(node) : "";
  uint64_t id = LastIdOf(node);
  Removal removal{.type = type};
  NameDoubts::Doubt doubt(names_, {path});
  if (journal != nullptr && journal->sent_to() != 0) doubt.Begin();
  Change change{
      .attempt = {}, .of_names = true, .may_settle_elsewhere = !hides, .journal = journal};
  change.attempt = [&](dfs::Binding binding) -> Task<absl::Status> {
    if (binding.link_components == path.size()) co_return ErrnoError(EBUSY, "a DFS link");
    CO_ASSIGN_OR_RETURN(id, co_await IdOn(binding, node));
    doubt.Begin();
    change.Sending();
    // Opened since it was asked for; from now on nobody does.
    hides = hides || (may_hide && IsOpen(node));
    if (hides) {
      smb::wire::RenameInformation rename{.replace = false,
                                          .target = Sibling(binding.path, *Utf16(hidden))};
      co_return co_await binding.tree->RenamePath(binding.path, std::move(rename), deadline);
    }
    const absl::Status status = co_await RemoveOn(std::move(binding), &removal, deadline);
    change.in_pieces = removal.in_pieces;
    co_return status;
  };
  change.probe = [&](dfs::Binding binding) -> Task<absl::StatusOr<Verdict>> {
    co_return co_await ProbeRemoved(std::move(binding), id, deadline);
  };
  const absl::Status status = co_await RunChange(path, &change, deadline);
  ForgetName(parent, name);
  NoteChangeIn(parent);
  if (!status.ok()) co_return status;
  written_.NoteRemoved(path.Key());
  if (node == 0 || !tables_.inodes().Contains(node)) co_return absl::OkStatus();
  if (!hides) {
    tables_.inodes().Unlink(node);
    co_return absl::OkStatus();
  }
  Pass(DeathPoint::kUnlinkHidden);
  co_return NoteHidden(node, parent, hidden);
}

absl::Status Filesystem::Impl::NoteHidden(state::NodeId node, state::NodeId parent,
                                          std::string_view hidden) {
  ++counters_.hidden_files;
  if (!tables_.inodes().Contains(node)) return absl::OkStatus();
  // The name comes last: until then the next agent, which runs the request again, finds the node by
  // the old one; and by the hidden one alone nobody would know that it has to go. Who dies in
  // between leaves a record too many, until the unmount.
  const bool is_kept = (tables_.inodes().Get(node).flags() & kNodeKept) != 0;
  if (!is_kept) {
    tables_.inodes().AddLookup(node);
    SetNodeFlag(node, kNodeKept, true);
  }
  SetNodeFlag(node, kNodeHidden, true);
  if (!tables_.inodes().Rename(node, parent, hidden).ok()) {
    if (!is_kept) {
      SetNodeFlag(node, kNodeHidden, false);
      SetNodeFlag(node, kNodeKept, false);
      Forget(node, 1);
    }
    return ErrnoError(ENFILE, "the inode table is full");
  }
  // Its last handle may have gone meanwhile.
  if (!IsOpen(node)) RemoveHiddenLater(node);
  return absl::OkStatus();
}

std::optional<dfs::DfsPath> Filesystem::Impl::HiddenPathOf(state::NodeId node) const {
  if (!tables_.inodes().Contains(node)) return std::nullopt;
  const state::InodeTable::Node record = tables_.inodes().Get(node);
  // Only what has the name that we gave: whatever took the place of a name that was not changed
  // stays.
  if ((record.flags() & kNodeHidden) == 0 || record.name() != HiddenName(node)) return std::nullopt;
  const absl::StatusOr<dfs::DfsPath> path = PathOf(node);
  return path.ok() ? std::optional<dfs::DfsPath>(*path) : std::nullopt;
}

void Filesystem::Impl::RemoveHiddenLater(state::NodeId node) {
  if (const std::optional<dfs::DfsPath> path = HiddenPathOf(node))
    tasks_.Spawn(RemoveHidden(node, *path));
}

Task<void> Filesystem::Impl::RemoveHidden(state::NodeId node, dfs::DfsPath path) {
  const Deadline deadline = Deadline::After(absl::Minutes(5));
  Removal removal;
  Change change{.attempt = {}, .of_names = true, .in_pieces = true};
  change.attempt = [&](dfs::Binding binding) -> Task<absl::Status> {
    change.Sending();
    Pass(DeathPoint::kHiddenLeft);
    co_return co_await RemoveOn(std::move(binding), &removal, deadline);
  };
  // The name is nobody else's: removing it again does no harm. If it fails, the file stays, and the
  // next agent tries.
  const absl::Status status = co_await RunChange(path, &change, deadline);
  // Not there; it is, perhaps, where it is the whole share that is missing.
  const std::optional<NtStatus> answer = NtStatusOf(status);
  const bool is_gone =
      answer == NtStatus::kObjectNameNotFound || answer == NtStatus::kObjectPathNotFound;
  if (!status.ok() && !is_gone) co_return;
  if (!tables_.inodes().Contains(node)) co_return;
  if ((tables_.inodes().Get(node).flags() & kNodeKept) == 0) co_return;
  SetNodeFlag(node, kNodeHidden, false);
  SetNodeFlag(node, kNodeKept, false);
  Forget(node, 1);
}

// --- RENAME

Task<absl::Status> Filesystem::Impl::Rename(state::NodeId parent, std::string name,
                                            state::NodeId new_parent, std::string new_name,
                                            uint32_t flags, ChangeJournal* journal,
                                            Deadline deadline) {
  if ((flags & ~uint32_t{RENAME_NOREPLACE}) != 0) {
    co_return ErrnoError(EINVAL, "a rename that SMB does not have");
  }
  CO_ASSIGN_OR_RETURN(const dfs::DfsPath path, ChangeablePath(parent, name));
  CO_ASSIGN_OR_RETURN(const dfs::DfsPath target, ChangeablePath(new_parent, new_name));
  CO_RETURN_IF_ERROR(CheckNoLinkBetween(path, target));
  const bool replace = (flags & RENAME_NOREPLACE) == 0;
  const bool same_name = path == target;  // But for case.
  const state::NodeId node = tables_.inodes().Find(parent, name);
  const state::NodeId replaced = same_name ? 0 : tables_.inodes().Find(new_parent, new_name);
  // Two names of one file: nothing is to be done, and both stay.
  if (replace && hard_links_.AreSame(node, replaced)) co_return absl::OkStatus();
  const bool sent = journal != nullptr && journal->sent_to() != 0;
  // A dead agent may have gone as far as the tables: then what has the new name is what was moved.
  const bool may_be_stored = sent && node == 0 && replaced != 0;
  const bool replaces_node = replace && replaced != 0 && !may_be_stored;
  bool hides = replaces_node && IsOpen(replaced);
  const std::string hidden = replaces_node ? HiddenName(replaced) : "";
  uint64_t id = LastIdOf(may_be_stored ? replaced : node);
  NameDoubts::Doubt doubt(names_, {path, target});
  if (sent) doubt.Begin();
  Change change{.attempt = {},
                .of_names = true,
                .may_settle_elsewhere = !hides,
                .in_pieces = hides,
                .journal = journal};
  change.attempt = [&](dfs::Binding binding) -> Task<absl::Status> {
    if (binding.link_components == path.size()) co_return ErrnoError(EBUSY, "a DFS link");
    if (!IsBelowSameLink(binding, path, target)) {
      co_return ErrnoError(EXDEV, "below another DFS link");
    }
    std::optional<std::u16string> wire_target = PathInShare(binding, path, target);
    if (!wire_target.has_value()) co_return ErrnoError(EILSEQ, "a name that is not UTF-8");
    CO_ASSIGN_OR_RETURN(id, co_await IdOn(binding, node));
    doubt.Begin();
    change.Sending();
    absl::Status status;
    // Somebody may just be opening what is to be replaced, for which a server refuses that; it is
    // closed again, for its name is in doubt, but its CLOSE may be sent behind the next attempt.
    int more = 0;
    bool again = false;
    do {
      hides = hides || (replaces_node && IsOpen(replaced));
      if (hides) {
        change.in_pieces = true;
        const absl::Status hid = co_await binding.tree->RenamePath(
            *wire_target, {.replace = false, .target = Sibling(*wire_target, *Utf16(hidden))},
            deadline);
        // Not there: an attempt before this one has hidden it.
        if (!hid.ok() && ErrnoOf(hid) != ENOENT) co_return hid;
        Pass(DeathPoint::kRenameHid);
      }
      if (replaces_node && names_->IsBeingOpened(target)) more = 2;
      status = co_await binding.tree->RenamePath(
          binding.path, {.replace = replace && !same_name, .target = *wire_target}, deadline);
      again = ErrnoOf(status) == EACCES && more-- > 0;
      if (again) CO_RETURN_IF_ERROR(co_await names_->AwaitOpened(target, deadline));
    } while (again);
    if (NtStatusOf(status) != NtStatus::kPathNotCovered) co_return status;
    // One of the two lies below a link that is not known yet; which?
    CO_RETURN_IF_ERROR((co_await binding.tree->Stat(binding.path, deadline)).status());
    co_return ErrnoError(EXDEV, "below another DFS link");
  };
  change.probe = [&](dfs::Binding binding) -> Task<absl::StatusOr<Verdict>> {
    if (same_name) co_return Verdict::kNotDone;  // The server's names have no case.
    const std::optional<std::u16string> wire_target = PathInShare(binding, path, target);
    if (!wire_target.has_value()) co_return Verdict::kNotDone;
    co_return co_await ProbeRenamed(std::move(binding), *wire_target, id, may_be_stored, deadline);
  };
  const absl::Status status = co_await RunChange(path, &change, deadline);
  ForgetName(parent, name);
  ForgetName(new_parent, new_name);
  NoteChangeIn(parent);
  NoteChangeIn(new_parent);
  if (!status.ok()) co_return status;
  if (!same_name) written_.NoteRenamed(path.Key(), target.Key());
  if (hides) CO_RETURN_IF_ERROR(NoteHidden(replaced, new_parent, hidden));
  if (node == 0 || !tables_.inodes().Contains(node)) {
    if (replaces_node && !hides) tables_.inodes().Unlink(replaced);  // The name is another's now.
    co_return absl::OkStatus();
  }
  if (!tables_.inodes().Rename(node, new_parent, new_name).ok()) {
    tables_.inodes().Unlink(node);  // Looked up again by its new name.
  }
  co_return absl::OkStatus();
}

}  // namespace dfscsi::vfs
