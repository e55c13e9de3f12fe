// LOOKUP and FORGET: names, nodes, and the paths that nodes stand for.

#include <errno.h>

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "node-agent/base/status_macros.h"
#include "node-agent/dfs/bound_link.h"
#include "node-agent/runtime/loop.h"
#include "node-agent/smb/wire/file_name.h"
#include "node-agent/smb/wire/utf16.h"
#include "node-agent/vfs/errno.h"
#include "node-agent/vfs/filesystem_impl.h"

namespace dfscsi::vfs {

using runtime::Deadline;
using runtime::Task;

absl::StatusOr<std::string> Filesystem::Impl::WireName(std::string_view name) {
  std::u16string wire;
  const absl::Status status = smb::wire::AppendWireName(name, &wire);
  if (absl::IsInvalidArgument(status)) return ErrnoError(EILSEQ, "a name that is not UTF-8");
  RETURN_IF_ERROR(status);
  return smb::wire::Utf16ToUtf8(wire);
}

std::string Filesystem::Impl::InLog(const dfs::DfsPath& path) const {
  const std::string link = dfs::LinkOf(client_, path).prefix;
  return absl::StrCat(options_.name_in_log, ": ", link.empty() ? client_.source().ToString() : link,
                      ": ");
}

absl::StatusOr<dfs::DfsPath> Filesystem::Impl::PathOf(state::NodeId node) const {
  std::vector<state::NodeId> chain;
  for (state::NodeId at = node; at != state::kRootNode;) {
    if (!tables_.inodes().Contains(at)) return ErrnoError(ESTALE, "a node that is gone");
    const state::InodeTable::Node record = tables_.inodes().Get(at);
    if (record.unlinked()) return ErrnoError(ESTALE, "a file that is gone");
    chain.push_back(at);
    at = record.parent();
  }
  dfs::DfsPath path = client_.source();
  for (auto at = chain.rbegin(); at != chain.rend(); ++at) {
    ASSIGN_OR_RETURN(const std::string name, WireName(tables_.inodes().Get(*at).name()));
    ASSIGN_OR_RETURN(path, path.Join(name));
  }
  return path;
}

uint64_t Filesystem::Impl::InodeNumber(const dfs::DfsPath& path) const {
  return NumberOf(options_.key, path);
}

uint64_t Filesystem::Impl::NumberOf(const SipKey& key, const dfs::DfsPath& path) {
  const std::u16string_view folded = path.Key();
  const uint64_t number =
      SipHash(key, {reinterpret_cast<const char*>(folded.data()), folded.size() * 2});
  return number <= 1 ? number + 2 : number;  // 0 is no file, 1 is for nobody.
}

absl::StatusOr<state::NodeId> Filesystem::Impl::NodeFor(state::NodeId parent, std::string_view name,
                                                        const dfs::DfsPath& path,
                                                        std::optional<uint64_t> ino) {
  absl::StatusOr<state::NodeId> node =
      tables_.inodes().FindOrInsert(parent, name, {.ino = ino.value_or(InodeNumber(path))});
  if (node.ok()) return node;
  switch (node.status().code()) {
    case absl::StatusCode::kNotFound:
      return ErrnoError(ESTALE, "the directory is gone");
    case absl::StatusCode::kInvalidArgument:
      return ErrnoError(ENAMETOOLONG, "a name that is too long");
    default:
      return ErrnoError(ENFILE, "the inode table is full");
  }
}

EntryReply Filesystem::Impl::LinkEntry(state::NodeId node) const {
  const struct stat unknown = SyntheticDirectory(tables_.inodes().Get(node).ino(), options_);
  // What is not believed any more the kernel asks for by GETATTR when it needs it.
  const LinkSights::Sight sight =
      sights_.TryGet(node).value_or(LinkSights::Sight{.attributes = unknown});
  return {.node = node,
          .attributes = sight.attributes,
          .attributes_timeout = sight.left,
          .name_timeout = options_.actimeo};
}

Task<absl::StatusOr<EntryReply>> Filesystem::Impl::Lookup(state::NodeId parent, std::string name,
                                                          Deadline deadline) {
  CO_ASSIGN_OR_RETURN(const dfs::DfsPath directory, PathOf(parent));
  CO_ASSIGN_OR_RETURN(const std::string wire_name, WireName(name));
  CO_ASSIGN_OR_RETURN(const dfs::DfsPath path, directory.Join(wire_name));
  if (client_.IsKnownLink(path)) {
    CO_ASSIGN_OR_RETURN(const state::NodeId node, NodeFor(parent, name, path));
    tables_.inodes().AddLookup(node);
    co_return LinkEntry(node);
  }
  const absl::Time now = runtime::Loop::Current().Now();
  const uint64_t epoch = client_.GetEpoch(path);
  const absl::Duration believed = BelievedIn(parent);
  const AttributeCache::Seen* const seen_before =
      believed > absl::ZeroDuration() || options_.actimeo <= absl::ZeroDuration()
          ? attributes_.Get(parent, name, epoch, now)
          : nullptr;
  if (seen_before != nullptr && seen_before->attributes.names < 2) {
    ++counters_.attribute_hits;
    const AttributeCache::Seen copy = *seen_before;
    CO_ASSIGN_OR_RETURN(const state::NodeId node, NodeFor(parent, name, path));
    NoteSeenAndTell(node, copy.attributes, copy.epoch);
    tables_.inodes().AddLookup(node);
    const absl::Duration left = attributes_.Left(copy, now);
    co_return EntryReply{
        .node = node,
        .attributes = StatOfNode(node, tables_.inodes().Get(node).ino(), copy.attributes),
        .attributes_timeout = left,
        .name_timeout = left};
  }
  ++counters_.attribute_misses;
  // As of `now`: what is changed meanwhile is not in the answer.
  CO_ASSIGN_OR_RETURN(const Sight sight, co_await LookAtName(path, deadline));
  const std::optional<uint64_t> first_names =
      hard_links_.InodeNumberOf({sight.epoch, sight.attributes.file_id});
  CO_ASSIGN_OR_RETURN(const state::NodeId node, NodeFor(parent, name, path, first_names));
  tables_.inodes().AddLookup(node);
  if (sight.is_link) {
    client_.NoteLink(path);
    co_return LinkEntry(node);
  }
  const absl::Time seen = runtime::Loop::Current().Now();
  attributes_.Put(parent, name, sight.attributes, sight.epoch, {now, seen}, seen);
  co_await NoteLook(node, sight.attributes, sight.epoch);
  co_return EntryReply{
      .node = node,
      .attributes = StatOfNode(node, tables_.inodes().Get(node).ino(), sight.attributes),
      .attributes_timeout = BelievedFor(node, believed),
      .name_timeout = believed};
}

void Filesystem::Impl::Forget(state::NodeId node, uint64_t lookups) {
  if (!tables_.inodes().Forget(node, lookups)) return;
  sights_.Forget(node);
  own_changes_.erase(node);
  hard_links_.Forget(node);
  read_beside_locks_.erase(node);
  counters_.last_known_kept = static_cast<int64_t>(sights_.size());
}

}  // namespace dfscsi::vfs
