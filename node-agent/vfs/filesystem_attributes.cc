// GETATTR, ACCESS: what is known of a node, and how it becomes known.

#include <errno.h>
#include <unistd.h>

#include <optional>
#include <utility>
#include <vector>

#include "node-agent/base/status_macros.h"
#include "node-agent/runtime/loop.h"
#include "node-agent/runtime/wait.h"
#include "node-agent/smb/tree.h"
#include "node-agent/smb/wire/nt_status.h"
#include "node-agent/smb/wire/reparse.h"
#include "node-agent/smb/wire/utf16.h"
#include "node-agent/vfs/errno.h"
#include "node-agent/vfs/filesystem_impl.h"
#include "node-agent/vfs/symlinks.h"

namespace dfscsi::vfs {

using runtime::Deadline;
using runtime::Task;
using smb::wire::NtStatus;

namespace {

ServerAttributes SeenOf(const smb::FileStatus& status) {
  return {.file = status.attributes,
          .reparse_tag = status.reparse_tag,
          .file_id = status.file_id,
          .names = status.names};
}

Task<absl::Status> StatOn(dfs::Binding binding, bool looks_into, ServerAttributes* seen,
                          dfs::Binding* where, Deadline deadline) {
  CO_ASSIGN_OR_RETURN(const smb::FileStatus status,
                      co_await binding.tree->Stat(binding.path, deadline));
  *seen = SeenOf(status);
  if (looks_into) CO_RETURN_IF_ERROR(co_await LookIntoFile(binding, seen, deadline));
  *where = std::move(binding);
  co_return absl::OkStatus();
}

bool IsNoSuchName(const absl::Status& status) {
  const std::optional<NtStatus> answer = smb::wire::NtStatusOf(status);
  return answer == NtStatus::kObjectNameNotFound || answer == NtStatus::kObjectPathNotFound ||
         answer == NtStatus::kNoSuchFile;
}

// On the binding of the directory, which is the first `components` of the user's path.
Task<absl::Status> StatNameOn(dfs::Binding directory, size_t components, std::u16string name,
                              bool looks_into, ServerAttributes* seen, uint64_t* epoch,
                              bool* is_link, Deadline deadline) {
  *epoch = directory.epoch;
  *is_link = false;  // It may have run on another target before.
  std::u16string path = directory.path;
  if (!path.empty()) path.push_back(u'\\');
  path += name;
  const absl::StatusOr<smb::FileStatus> status = co_await directory.tree->Stat(path, deadline);
  if (smb::wire::NtStatusOf(status.status()) == NtStatus::kPathNotCovered) {
    // The name is a link, if not the directory itself lies below one that is not known yet.
    if (directory.link_components < components) {
      CO_RETURN_IF_ERROR((co_await directory.tree->Stat(directory.path, deadline)).status());
    }
    *is_link = true;
    co_return absl::OkStatus();
  }
  CO_RETURN_IF_ERROR(status.status());
  *seen = SeenOf(*status);
  if (looks_into) {
    directory.path = std::move(path);
    CO_RETURN_IF_ERROR(co_await LookIntoFile(std::move(directory), seen, deadline));
  }
  co_return absl::OkStatus();
}

// In a turn of its own, behind the answer to whoever has listed or opened.
Task<void> TellChanged(Invalidation& invalidation, state::NodeId node) {
  const absl::Status turned = co_await runtime::Sleep(absl::Nanoseconds(1), Deadline::Never());
  if (turned.ok()) invalidation.DataChanged(node);
}

}  // namespace

Task<void> Filesystem::Impl::NoteLook(state::NodeId node, ServerAttributes seen, uint64_t epoch) {
  if (NoteSeen(node, seen, epoch)) {
    (void)co_await invalidation_.DropPages(node, Deadline::After(kDropWithinForLooks));
  }
}

void Filesystem::Impl::NoteSeenAndTell(state::NodeId node, const ServerAttributes& seen,
                                       uint64_t epoch) {
  if (NoteSeen(node, seen, epoch)) TellSoon(node);
}

void Filesystem::Impl::TellSoon(state::NodeId node) {
  tasks_.Spawn(TellChanged(invalidation_, node));
}

bool Filesystem::Impl::NoteSeen(state::NodeId node, const ServerAttributes& seen, uint64_t epoch) {
  if (!tables_.inodes().Contains(node)) return false;
  const state::InodeTable::Node record = tables_.inodes().Get(node);
  const state::NodeIdentity now = IdentityOf(seen, epoch);
  const state::NodeIdentity* const before = record.identity();
  const bool has_pages = !seen.file.Has(smb::wire::kAttributeDirectory);
  const bool changed = before != nullptr && has_pages && DataDiffers(*before, now);
  if (changed) {
    ++counters_.data_changes;
    // Before the identity: who dies in between has still left word.
    SetPagesTrusted(node, false);
  }
  if (before == nullptr || !(*before == now)) tables_.inodes().SetIdentity(node, now);
  own_changes_.erase(node);
  if (seen.names > 1 && has_pages) {
    hard_links_.Note(node, record.ino(), {epoch, seen.file_id});
  } else if (seen.names == 1) {
    hard_links_.Forget(node);
  }
  return changed;
}

absl::Duration Filesystem::Impl::BelievedFor(state::NodeId node, absl::Duration left) const {
  return hard_links_.Contains(node) ? absl::ZeroDuration() : left;
}

void Filesystem::Impl::NoteSight(state::NodeId node, const dfs::DfsPath& path,
                                 const ServerAttributes& seen, uint64_t epoch) {
  const absl::StatusOr<dfs::DfsPath> now_at = PathOf(node);
  if (!now_at.ok() || !(*now_at == path)) return;
  const state::InodeTable::Node record = tables_.inodes().Get(node);
  const absl::Time now = runtime::Loop::Current().Now();
  attributes_.Put(record.parent(), record.name(), seen, epoch, {now, now}, now);
  NoteSeenAndTell(node, seen, epoch);
}

void Filesystem::Impl::NoteWrite(state::NodeId node, absl::Time when) {
  if (IsOpen(node)) last_writes_[node] = when;
}

struct stat Filesystem::Impl::StatOfNode(state::NodeId node, uint64_t ino,
                                         const ServerAttributes& seen) const {
  struct stat st = StatOf(seen, ino, options_);
  // The name that it has until it is closed is none of its own.
  if (st.st_nlink > 0 && HiddenPathOf(node).has_value()) --st.st_nlink;
  const auto written = last_writes_.find(node);
  if (written == last_writes_.end()) return st;
  for (timespec* const time : {&st.st_mtim, &st.st_ctim}) {
    if (absl::TimeFromTimespec(*time) < written->second) *time = absl::ToTimespec(written->second);
  }
  return st;
}

bool Filesystem::Impl::ArePagesTrusted(state::NodeId node) const {
  return (tables_.inodes().Get(node).flags() & kPagesNotTrusted) == 0;
}

void Filesystem::Impl::SetPagesTrusted(state::NodeId node, bool trusted) {
  if (!trusted) renewing_.erase(node);
  SetNodeFlag(node, kPagesNotTrusted, !trusted);
}

void Filesystem::Impl::SetNodeFlag(state::NodeId node, uint32_t flag, bool set) {
  if (!tables_.inodes().Contains(node)) return;
  const uint32_t others = tables_.inodes().Get(node).flags() & state::kNodeUserFlags & ~flag;
  tables_.inodes().SetUserFlags(node, set ? others | flag : others);
}

Task<absl::StatusOr<Filesystem::Impl::Sight>> Filesystem::Impl::Look(dfs::DfsPath path,
                                                                     Deadline deadline) {
  ServerAttributes seen;
  dfs::Binding where;
  CO_RETURN_IF_ERROR(co_await client_.Run(
      path,
      [this, &seen, &where, deadline](dfs::Binding binding) {
        return StatOn(std::move(binding), options_.mf_symlinks, &seen, &where, deadline);
      },
      {}, deadline));
  const bool is_link = path.size() > 2 && where.link_components == path.size();
  co_return Sight{.attributes = seen, .epoch = where.epoch, .is_link = is_link || IsLinkTag(seen)};
}

Task<absl::StatusOr<Filesystem::Impl::Sight>> Filesystem::Impl::LookAtName(dfs::DfsPath path,
                                                                           Deadline deadline) {
  const dfs::DfsPath directory = path.Prefix(path.size() - 1);
  const absl::string_view last = path.Component(path.size() - 1);
  std::optional<std::u16string> name = smb::wire::Utf8ToUtf16({last.data(), last.size()});
  if (!name.has_value()) co_return ErrnoError(EILSEQ, "a name that is not UTF-8");
  Sight sight;
  CO_RETURN_IF_ERROR(co_await client_.Run(
      directory,
      [&, deadline](dfs::Binding binding) {
        return StatNameOn(std::move(binding), directory.size(), *name, options_.mf_symlinks,
                          &sight.attributes, &sight.epoch, &sight.is_link, deadline);
      },
      {}, deadline));
  sight.is_link = sight.is_link || IsLinkTag(sight.attributes);
  co_return sight;
}

bool Filesystem::Impl::IsLinkTag(const ServerAttributes& seen) {
  return seen.file.Has(smb::wire::kAttributeReparsePoint) && smb::wire::IsDfsTag(seen.reparse_tag);
}

Task<absl::StatusOr<AttributesReply>> Filesystem::Impl::GetAttributes(state::NodeId node,
                                                                      Deadline deadline) {
  while (true) {
    CO_ASSIGN_OR_RETURN(const dfs::DfsPath path, PathOf(node));
    const uint64_t since = names_->now();
    std::optional<absl::StatusOr<AttributesReply>> reply =
        co_await GetAttributesByName(node, path, since, deadline);
    if (reply.has_value()) co_return *std::move(reply);
    // Its name was changed meanwhile: what was seen may be another file's, or nothing.
    CO_RETURN_IF_ERROR(co_await names_->AwaitSettled(path, deadline));
  }
}

Task<std::optional<absl::StatusOr<AttributesReply>>> Filesystem::Impl::GetAttributesByName(
    state::NodeId node, dfs::DfsPath path, uint64_t names_since, Deadline deadline) {
  const state::InodeTable::Node record = tables_.inodes().Get(node);
  const uint64_t ino = record.ino();
  const state::NodeId parent = record.parent();
  const std::string name(record.name());
  const absl::Time now = runtime::Loop::Current().Now();
  const uint64_t epoch = client_.GetEpoch(path);
  // What is known of a locked file was seen under the lock.
  const absl::Duration believed = IsLocked(node) ? options_.actimeo : BelievedIn(parent);
  const AttributeCache::Seen* const seen_before =
      believed > absl::ZeroDuration() || options_.actimeo <= absl::ZeroDuration()
          ? attributes_.Get(parent, name, epoch, now)
          : nullptr;
  if (const AttributeCache::Seen* const seen = seen_before;
      seen != nullptr && !hard_links_.Contains(node)) {
    ++counters_.attribute_hits;
    NoteSeenAndTell(node, seen->attributes, seen->epoch);
    co_return AttributesReply{.attributes = StatOfNode(node, ino, seen->attributes),
                              .timeout = attributes_.Left(*seen, now),
                              .born = BornOf(seen->attributes)};
  }
  ++counters_.attribute_misses;
  const bool is_root = node == state::kRootNode;
  const bool was_link = !is_root && client_.IsKnownLink(path);
  if (is_root || was_link) {
    absl::StatusOr<AttributesReply> reply = co_await GetLinkAttributes(node, path, deadline);
    if (is_root || client_.IsKnownLink(path) || absl::IsCancelled(reply.status())) co_return reply;
    // The name is gone, or something else has taken the link's place.
  }
  co_await AskForReadAgain(node, deadline);
  const uint64_t leases_lost = ReadLeasesLost(node);
  const absl::Time asked = runtime::Loop::Current().Now();
  absl::StatusOr<Sight> sight = absl::UnknownError("");
  if (was_link) {
    sight = co_await LookAtName(path, deadline);
  } else {
    sight = co_await Look(path, deadline);
  }
  if (names_->Touched(path, names_since)) co_return std::nullopt;
  if (!sight.ok()) co_return sight.status();
  if (sight->is_link) {
    client_.NoteLink(path);
    co_return AttributesReply{.attributes = SyntheticDirectory(ino, options_),
                              .timeout = absl::ZeroDuration()};
  }
  const absl::Time looked = runtime::Loop::Current().Now();
  // Told to be outdated while it was on its way, or from before a change of our own: it is the
  // answer, and is not believed for a time.
  const bool is_news =
      ReadLeasesLost(node) == leases_lost &&
      attributes_.Put(parent, name, sight->attributes, sight->epoch, {asked, looked}, looked);
  co_await NoteLook(node, sight->attributes, sight->epoch);
  co_return AttributesReply{.attributes = StatOfNode(node, ino, sight->attributes),
                            .timeout = is_news ? BelievedFor(node, believed) : absl::ZeroDuration(),
                            .born = BornOf(sight->attributes)};
}

Task<absl::StatusOr<AttributesReply>> Filesystem::Impl::GetLinkAttributes(state::NodeId node,
                                                                          dfs::DfsPath path,
                                                                          Deadline deadline) {
  const uint64_t ino = tables_.inodes().Get(node).ino();
  const bool is_root = node == state::kRootNode;
  LinkSights::Look look = [this, path, is_root, ino](Deadline until) {
    return LookAtLink(path, is_root, ino, std::move(until));
  };
  const absl::StatusOr<LinkSights::Sight> sight =
      co_await sights_.Get(node, SyntheticDirectory(ino, options_), std::move(look), deadline);
  if (!tables_.inodes().Contains(node)) sights_.Forget(node);  // It went while this waited.
  counters_.last_known_kept = static_cast<int64_t>(sights_.size());
  if (!sight.ok()) co_return sight.status();
  if (sight->last_known && (is_root || client_.IsKnownLink(path))) ++counters_.last_known_answers;
  co_return AttributesReply{.attributes = sight->attributes, .timeout = sight->left};
}

Task<absl::StatusOr<struct stat>> Filesystem::Impl::LookAtLink(dfs::DfsPath path, bool is_root,
                                                               uint64_t ino, Deadline deadline) {
  absl::StatusOr<Sight> sight =
      co_await Look(path, is_root ? deadline : deadline.Within(kLastKnownAfter));
  if (!sight.ok() && !is_root) {
    // Dead, or not there any more: the server of the directory above knows.
    const absl::StatusOr<Sight> above = co_await LookAtName(path, deadline.Within(kLastKnownAfter));
    const bool is_gone = IsNoSuchName(above.status()) || (above.ok() && !above->is_link);
    if (is_gone) {
      client_.ForgetLink(path);
      co_return sight.status();
    }
    // Nobody waits for it any more. An attempt that is cut short would not be held against a
    // target.
    sight = co_await Look(path, deadline);
  }
  if (!sight.ok()) co_return sight.status();
  if (!is_root && !sight->is_link) {
    client_.ForgetLink(path);  // Something else has taken its place.
    co_return absl::NotFoundError("no link any more");
  }
  const struct stat seen = StatOf(sight->attributes, ino, options_);
  // Whatever stands at the target's root, to the mount a link is a directory.
  co_return S_ISDIR(seen.st_mode) ? seen : SyntheticDirectory(ino, options_);
}

absl::Status Filesystem::Impl::Access(int mask) const {
  if ((mask & W_OK) != 0 && options_.read_only) return ErrnoError(EROFS, "mounted read-only");
  return absl::OkStatus();
}

void Filesystem::Impl::ResumeInvalidations() {
  // The dead agent may have seen a change and not have told: pages of files that are held are
  // dropped once; they are read again.
  std::vector<state::NodeId> hidden;
  tables_.inodes().ForEach([this, &hidden](const state::InodeTable::Node& node) {
    const state::NodeIdentity* const known = node.identity();
    const bool has_pages =
        known != nullptr && (known->attributes & smb::wire::kAttributeDirectory) == 0;
    if (node.nlookup() > 0) {
      if (has_pages) invalidation_.DataChanged(node.id());
      // It died while it noted what it had seen.
      if (known == nullptr) SetPagesTrusted(node.id(), false);
    }
    // It was to go with its last handle.
    if ((node.flags() & kNodeHidden) != 0 && !IsOpen(node.id())) hidden.push_back(node.id());
  });
  for (const state::NodeId node : hidden) RemoveHiddenLater(node);
}

}  // namespace dfscsi::vfs
