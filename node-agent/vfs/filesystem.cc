#include "node-agent/vfs/filesystem.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/match.h"
#include "node-agent/base/status_macros.h"
#include "node-agent/dfs/client.h"
#include "node-agent/runtime/loop.h"
#include "node-agent/runtime/wait.h"
#include "node-agent/smb/tree.h"
#include "node-agent/smb/wire/file_name.h"
#include "node-agent/smb/wire/nt_status.h"
#include "node-agent/smb/wire/reparse.h"
#include "node-agent/smb/wire/utf16.h"
#include "node-agent/vfs/attribute_cache.h"
#include "node-agent/vfs/attributes.h"
#include "node-agent/vfs/directory_stream.h"
#include "node-agent/vfs/errno.h"
#include "node-agent/vfs/open_file.h"
#include "node-agent/vfs/reparse_target.h"

namespace dfscsi::vfs {

using runtime::Deadline;
using runtime::Task;

namespace {

// STATFS, and GETATTR of the root and of links, do not wait longer: kubelet, node-exporter and df
// touch every mount.
constexpr absl::Duration kLastKnownAfter = absl::Milliseconds(900);
// How long a server's figures about its disk are believed.
constexpr absl::Duration kStatisticsFor = absl::Seconds(5);

// "." and ".." come before the names of a stream.
constexpr uint64_t kDots = 2;

// The path's own error: nothing that another target or another try could mend.
bool IsWriteFlags(int flags) {
  return (flags & O_ACCMODE) != O_RDONLY || (flags & (O_TRUNC | O_CREAT | O_APPEND)) != 0;
}

Task<absl::Status> StatOn(dfs::Binding binding, ServerAttributes* seen, dfs::Binding* where,
                          Deadline deadline) {
  CO_ASSIGN_OR_RETURN(const smb::FileStatus status,
                      co_await binding.tree->Stat(binding.path, deadline));
  *seen = {.file = status.attributes, .reparse_tag = status.reparse_tag, .file_id = status.file_id};
  *where = std::move(binding);
  co_return absl::OkStatus();
}

}  // namespace

class Filesystem::Impl {
 public:
  Impl(dfs::Client& client, state::MountTables& tables, Invalidation& invalidation, Options options)
      : client_(client),
        tables_(tables),
        invalidation_(invalidation),
        options_(std::move(options)),
        attributes_(options_.actimeo) {}

  // --- Names -----------------------------------------------------------------------------------

  // A Linux name as the server has it, in the UTF-8 of DfsPath.
  static absl::StatusOr<std::string> WireName(std::string_view name) {
    std::u16string wire;
    RETURN_IF_ERROR(smb::wire::AppendWireName(name, &wire));
    return smb::wire::Utf16ToUtf8(wire);
  }

  absl::StatusOr<dfs::DfsPath> PathOf(state::NodeId node) const {
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

  uint64_t InodeNumber(const dfs::DfsPath& path) const { return NumberOf(options_.key, path); }
  static uint64_t NumberOf(const SipKey& key, const dfs::DfsPath& path) {
    const std::u16string_view folded = path.Key();
    const uint64_t number =
        SipHash(key, {reinterpret_cast<const char*>(folded.data()), folded.size() * 2});
    return number <= 1 ? number + 2 : number;  // 0 is no file, 1 is for nobody.
  }

  absl::StatusOr<state::NodeId> NodeFor(state::NodeId parent, std::string_view name,
                                        const dfs::DfsPath& path) {
    absl::StatusOr<state::NodeId> node =
        tables_.inodes().FindOrInsert(parent, name, {.ino = InodeNumber(path)});
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

  // --- Attributes ------------------------------------------------------------------------------

  // Remembers what was seen; tells the kernel if its pages are not the file's any more.
  void NoteSeen(state::NodeId node, const ServerAttributes& seen, uint64_t epoch) {
    if (!tables_.inodes().Contains(node)) return;
    const state::InodeTable::Node record = tables_.inodes().Get(node);
    const state::NodeIdentity now = IdentityOf(seen, epoch);
    if (seen.file.Has(smb::wire::kAttributeDirectory)) return;
    const state::NodeIdentity* const before = record.identity();
    if (before != nullptr && DataDiffers(*before, now)) {
      ++counters_.data_changes;
      invalidation_.DataChanged(node);
    }
    if (before == nullptr || !(*before == now)) tables_.inodes().SetIdentity(node, now);
  }

  struct Sight {
    ServerAttributes attributes;
    uint64_t epoch = 0;
    bool is_link = false;
  };

  // One look at the server.
  Task<absl::StatusOr<Sight>> Look(dfs::DfsPath path, Deadline deadline) {
    ServerAttributes seen;
    dfs::Binding where;
    CO_RETURN_IF_ERROR(co_await client_.Run(
        path,
        [&seen, &where, deadline](dfs::Binding binding) {
          return StatOn(std::move(binding), &seen, &where, deadline);
        },
        {}, deadline));
    const bool is_link = path.size() > 2 && where.link_components == path.size();
    if (is_link) client_.NoteLink(path);
    co_return Sight{.attributes = seen, .epoch = where.epoch, .is_link = is_link};
  }

  bool IsLinkTag(const ServerAttributes& seen) const {
    return seen.file.Has(smb::wire::kAttributeReparsePoint) &&
           smb::wire::IsDfsTag(seen.reparse_tag);
  }

  EntryReply LinkEntry(state::NodeId node) const {
    // Revalidated each time, and never by I/O.
    return {.node = node,
            .attributes = SyntheticDirectory(tables_.inodes().Get(node).ino(), options_),
            .attributes_timeout = absl::ZeroDuration(),
            .name_timeout = absl::ZeroDuration()};
  }

  Task<absl::StatusOr<EntryReply>> Lookup(state::NodeId parent, std::string name,
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
    if (const AttributeCache::Seen* seen = attributes_.Get(parent, name, now)) {
      ++counters_.attribute_hits;
      const AttributeCache::Seen copy = *seen;
      CO_ASSIGN_OR_RETURN(const state::NodeId node, NodeFor(parent, name, path));
      NoteSeen(node, copy.attributes, copy.epoch);
      tables_.inodes().AddLookup(node);
      const absl::Duration left = attributes_.Left(copy, now);
      co_return EntryReply{
          .node = node,
          .attributes = StatOf(copy.attributes, tables_.inodes().Get(node).ino(), options_),
          .attributes_timeout = left,
          .name_timeout = left};
    }
    ++counters_.attribute_misses;
    CO_ASSIGN_OR_RETURN(const Sight sight, co_await Look(path, deadline));
    CO_ASSIGN_OR_RETURN(const state::NodeId node, NodeFor(parent, name, path));
    tables_.inodes().AddLookup(node);
    if (sight.is_link || IsLinkTag(sight.attributes)) {
      client_.NoteLink(path);
      co_return LinkEntry(node);
    }
    attributes_.Put(parent, name, sight.attributes, sight.epoch, runtime::Loop::Current().Now());
    NoteSeen(node, sight.attributes, sight.epoch);
    co_return EntryReply{
        .node = node,
        .attributes = StatOf(sight.attributes, tables_.inodes().Get(node).ino(), options_),
        .attributes_timeout = options_.actimeo,
        .name_timeout = options_.actimeo};
  }

  void Forget(state::NodeId node, uint64_t lookups) { tables_.inodes().Forget(node, lookups); }

  Task<absl::StatusOr<AttributesReply>> GetAttributes(state::NodeId node, Deadline deadline) {
    CO_ASSIGN_OR_RETURN(const dfs::DfsPath path, PathOf(node));
    const state::InodeTable::Node record = tables_.inodes().Get(node);
    const uint64_t ino = record.ino();
    const state::NodeId parent = record.parent();
    const std::string name(record.name());
    const absl::Time now = runtime::Loop::Current().Now();
    if (const AttributeCache::Seen* seen = attributes_.Get(parent, name, now)) {
      ++counters_.attribute_hits;
      NoteSeen(node, seen->attributes, seen->epoch);
      co_return AttributesReply{.attributes = StatOf(seen->attributes, ino, options_),
                                .timeout = attributes_.Left(*seen, now)};
    }
    ++counters_.attribute_misses;
    const bool is_link = node == state::kRootNode || client_.IsKnownLink(path);
    const Deadline until = is_link ? deadline.Within(kLastKnownAfter) : deadline;
    const absl::StatusOr<Sight> sight = co_await Look(path, until);
    if (!sight.ok()) {
      // A dead link must not stop who walks the tree above it.
      const bool may_guess = is_link && !absl::IsCancelled(sight.status());
      if (!may_guess) co_return sight.status();
      ++counters_.last_known_answers;
      const auto known = last_known_.find(node);
      co_return AttributesReply{.attributes = known != last_known_.end()
                                                  ? known->second
                                                  : SyntheticDirectory(ino, options_),
                                .timeout = absl::ZeroDuration()};
    }
    AttributesReply reply{.attributes = StatOf(sight->attributes, ino, options_),
                          .timeout = is_link ? absl::ZeroDuration() : options_.actimeo};
    if (is_link) {
      // Whatever stands at the target's root, to the mount a link is a directory.
      if (!S_ISDIR(reply.attributes.st_mode)) reply.attributes = SyntheticDirectory(ino, options_);
      last_known_[node] = reply.attributes;
    } else {
      attributes_.Put(parent, name, sight->attributes, sight->epoch,
                      runtime::Loop::Current().Now());
      NoteSeen(node, sight->attributes, sight->epoch);
    }
    co_return reply;
  }

  Task<absl::StatusOr<std::string>> ReadLink(state::NodeId node, Deadline deadline) {
    CO_ASSIGN_OR_RETURN(const dfs::DfsPath path, PathOf(node));
    std::vector<uint8_t> reparse;
    struct Fetch {
      static Task<absl::Status> Run(dfs::Binding binding, std::vector<uint8_t>* into,
                                    Deadline until) {
        CO_ASSIGN_OR_RETURN(*into, co_await binding.tree->GetReparsePoint(binding.path, until));
        co_return absl::OkStatus();
      }
    };
    CO_RETURN_IF_ERROR(co_await client_.Run(
        path,
        [&reparse, deadline](dfs::Binding binding) {
          return Fetch::Run(std::move(binding), &reparse, deadline);
        },
        {}, deadline));
    co_return ReparseTarget(reparse);
  }

  // --- Files -----------------------------------------------------------------------------------

  Task<absl::StatusOr<OpenReply>> Open(state::NodeId node, int flags, Deadline deadline) {
    if (IsWriteFlags(flags)) co_return RefuseChange();
    CO_ASSIGN_OR_RETURN(const dfs::DfsPath path, PathOf(node));
    auto file = std::make_shared<OpenFile>(path);
    CO_RETURN_IF_ERROR(co_await client_.Run(
        path,
        [file, deadline](dfs::Binding binding) {
          return file->OpenOn(std::move(binding), deadline);
        },
        {}, deadline));
    OpenReply reply{.no_flush = true};
    const state::NodeIdentity identity = file->identity();
    {
      const state::InodeTable::Node record = tables_.inodes().Get(node);
      const state::NodeIdentity* const before = record.identity();
      reply.keep_cache = before != nullptr && !DataDiffers(*before, identity);
    }
    NoteSeen(node, file->seen(), identity.epoch);
    absl::StatusOr<state::FileHandle> fh = tables_.handles().Open({
        .node = node,
        .kind = state::HandleTable::Kind::kFile,
        .open_flags = static_cast<uint32_t>(flags),
        .access = OpenFile::kAccess,
        .identity = identity,
    });
    if (!fh.ok()) {
      file->CloseLater();
      co_return ErrnoError(absl::IsNotFound(fh.status()) ? ESTALE : ENFILE, "no handle");
    }
    reply.fh = *fh;
    files_[*fh] = std::move(file);
    co_return reply;
  }

  // The open file of a handle; made from its record after a takeover.
  absl::StatusOr<std::shared_ptr<OpenFile>> FileOf(state::FileHandle fh) {
    const auto found = files_.find(fh);
    if (found != files_.end()) return found->second;
    if (!tables_.handles().Contains(fh)) return ErrnoError(EBADF, "no such handle");
    const state::HandleTable::Record& record = tables_.handles().Get(fh);
    ASSIGN_OR_RETURN(dfs::DfsPath path, PathOf(record.node));
    auto file = std::make_shared<OpenFile>(std::move(path), record.identity.Get());
    files_[fh] = file;
    return file;
  }

  Task<absl::StatusOr<size_t>> Read(state::FileHandle fh, uint64_t offset, absl::Span<uint8_t> into,
                                    Deadline deadline) {
    CO_ASSIGN_OR_RETURN(const std::shared_ptr<OpenFile> file, FileOf(fh));
    absl::StatusOr<size_t> result = size_t{0};
    CO_RETURN_IF_ERROR(co_await client_.Run(
        file->path(),
        [this, file, offset, into, deadline, &result](dfs::Binding binding) {
          return file->ReadOn(std::move(binding), offset, into, options_.check_identity, &result,
                              &counters_, deadline);
        },
        {}, deadline));
    co_return result;
  }

  Task<absl::StatusOr<uint64_t>> Seek(state::FileHandle fh, uint64_t offset, int whence,
                                      Deadline deadline) {
    if (whence != SEEK_DATA && whence != SEEK_HOLE) co_return ErrnoError(EINVAL, "whence");
    CO_ASSIGN_OR_RETURN(const std::shared_ptr<OpenFile> file, FileOf(fh));
    absl::StatusOr<uint64_t> result = uint64_t{0};
    CO_RETURN_IF_ERROR(co_await client_.Run(
        file->path(),
        [this, file, offset, whence, deadline, &result](dfs::Binding binding) {
          return file->SeekOn(std::move(binding), offset, whence, options_.check_identity, &result,
                              &counters_, deadline);
        },
        {}, deadline));
    co_return result;
  }

  Task<absl::Status> Flush(state::FileHandle fh) {
    if (!tables_.handles().Contains(fh)) co_return ErrnoError(EBADF, "no such handle");
    co_return absl::OkStatus();
  }

  void Release(state::FileHandle fh) {
    if (tables_.handles().Contains(fh) && !tables_.handles().Close(fh)) return;  // Still shared.
    const auto found = files_.find(fh);
    if (found == files_.end()) return;
    found->second->CloseLater();
    files_.erase(found);
  }

  // --- Directories -----------------------------------------------------------------------------

  Task<absl::StatusOr<state::FileHandle>> OpenDirectory(state::NodeId node, Deadline deadline) {
    CO_ASSIGN_OR_RETURN(const dfs::DfsPath path, PathOf(node));
    absl::StatusOr<state::FileHandle> fh = tables_.handles().Open(
        {.node = node, .kind = state::HandleTable::Kind::kDirectory, .open_flags = O_DIRECTORY});
    if (!fh.ok()) {
      co_return ErrnoError(absl::IsNotFound(fh.status()) ? ESTALE : ENFILE, "no handle");
    }
    auto stream = std::make_shared<DirectoryStream>(path, tables_.handles(), *fh, options_.key);
    const absl::Status status = co_await SeekStream(stream, 0, deadline);
    if (!status.ok()) {
      tables_.handles().Close(*fh);
      co_return status;
    }
    streams_[*fh] = std::move(stream);
    co_return *fh;
  }

  absl::StatusOr<std::shared_ptr<DirectoryStream>> StreamOf(state::FileHandle fh) {
    const auto found = streams_.find(fh);
    if (found != streams_.end()) return found->second;
    if (!tables_.handles().Contains(fh)) return ErrnoError(EBADF, "no such handle");
    ASSIGN_OR_RETURN(dfs::DfsPath path, PathOf(tables_.handles().Get(fh).node));
    auto stream =
        std::make_shared<DirectoryStream>(std::move(path), tables_.handles(), fh, options_.key);
    streams_[fh] = stream;
    return stream;
  }

  static Task<absl::Status> SeekOn(dfs::Binding binding, std::shared_ptr<DirectoryStream> stream,
                                   uint64_t position, Deadline deadline) {
    absl::Status status = co_await stream->Seek(position, binding, deadline);
    if (smb::wire::NtStatusOf(status) == smb::wire::NtStatus::kFileClosed) {
      // The server has dropped the handle, not the directory.
      stream->Lose();
      status = co_await stream->Seek(position, std::move(binding), deadline);
    }
    co_return status;
  }

  Task<absl::Status> SeekStream(std::shared_ptr<DirectoryStream> stream, uint64_t position,
                                Deadline deadline) {
    co_return co_await client_.Run(
        stream->path(),
        [stream, position, deadline](dfs::Binding binding) {
          return SeekOn(std::move(binding), stream, position, deadline);
        },
        {}, deadline);
  }

  Task<absl::Status> ReadDirectory(state::FileHandle fh, uint64_t offset, bool plus,
                                   DirectorySink* sink, Deadline deadline) {
    CO_ASSIGN_OR_RETURN(const std::shared_ptr<DirectoryStream> stream, StreamOf(fh));
    CO_ASSIGN_OR_RETURN(const runtime::Mutex::Guard turn, co_await stream->turn().Lock(deadline));
    if (!tables_.handles().Contains(fh)) co_return ErrnoError(EBADF, "no such handle");
    const state::NodeId node = tables_.handles().Get(fh).node;
    // Lookups that the reply was to bring to the kernel are taken back unless it is complete.
    struct Given {
      Impl& impl;
      std::vector<state::NodeId> nodes;
      bool keep = false;
      ~Given() {
        if (keep) return;
        for (const state::NodeId given : nodes) impl.Forget(given, 1);
      }
    } given{*this, {}};
    bool added = false;
    uint64_t next = offset;
    for (; next < kDots; ++next) {
      const std::string_view name = next == 0 ? "." : "..";
      if (!sink->Fits(name.size())) break;
      const uint64_t ino = tables_.inodes().Get(node).ino();
      sink->Add({.name = name,
                 .next_offset = next + 1,
                 .attributes = SyntheticDirectory(ino, options_),
                 .attributes_timeout = absl::ZeroDuration(),
                 .name_timeout = absl::ZeroDuration()});
      added = true;
    }
    while (next >= kDots) {
      const uint64_t position = next - kDots;
      const DirectoryStream::Entry* entry = stream->At(position);
      if (entry == nullptr) {
        if (stream->at_end(position)) break;
        // What is there goes out first: the next page is fetched when the kernel asks for it.
        if (added) break;
        CO_RETURN_IF_ERROR(co_await SeekStream(stream, position, deadline));
        entry = stream->At(position);
        if (entry == nullptr) break;
      }
      if (!sink->Fits(entry->name.size())) {
        if (!added) co_return ErrnoError(EINVAL, "no room for one entry");
        break;
      }
      CO_RETURN_IF_ERROR(AddEntry(node, *stream, position, plus, sink, &given.nodes));
      added = true;
      ++next;
    }
    given.keep = true;
    counters_.relisted_directories = std::max(counters_.relisted_directories, stream->relisted());
    co_return absl::OkStatus();
  }

  absl::Status AddEntry(state::NodeId directory, DirectoryStream& stream, uint64_t position,
                        bool plus, DirectorySink* sink, std::vector<state::NodeId>* given) {
    const DirectoryStream::Entry& listed = *stream.At(position);
    DirectoryEntry entry{.name = listed.name,
                         .next_offset = position + kDots + 1,
                         .attributes_timeout = absl::ZeroDuration(),
                         .name_timeout = absl::ZeroDuration()};
    absl::StatusOr<std::string> wire_name = WireName(listed.name);
    absl::StatusOr<dfs::DfsPath> path =
        wire_name.ok() ? stream.path().Join(*wire_name) : wire_name.status();
    if (!path.ok()) {
      // A name that no path can hold: listed, so that it is seen, and not to be opened.
      entry.attributes = SyntheticDirectory(2, options_);
      entry.attributes.st_mode = 0;
      RETURN_IF_ERROR(stream.NoteGiven(position));
      sink->Add(entry);
      return absl::OkStatus();
    }
    const bool is_link = IsLinkTag(listed.attributes);
    if (is_link) client_.NoteLink(*path);
    const uint64_t ino = InodeNumber(*path);
    entry.attributes =
        is_link ? SyntheticDirectory(ino, options_) : StatOf(listed.attributes, ino, options_);
    const absl::Time now = runtime::Loop::Current().Now();
    if (!is_link) attributes_.Put(directory, listed.name, listed.attributes, stream.epoch(), now);
    RETURN_IF_ERROR(stream.NoteGiven(position));
    if (plus) {
      ASSIGN_OR_RETURN(entry.node, NodeFor(directory, listed.name, *path));
      tables_.inodes().AddLookup(entry.node);
      given->push_back(entry.node);
      entry.attributes.st_ino = tables_.inodes().Get(entry.node).ino();
      if (!is_link) {
        NoteSeen(entry.node, listed.attributes, stream.epoch());
        entry.attributes_timeout = entry.name_timeout = options_.actimeo;
      }
    }
    sink->Add(entry);
    return absl::OkStatus();
  }

  void ReleaseDirectory(state::FileHandle fh) {
    tables_.handles().Close(fh);
    const auto found = streams_.find(fh);
    if (found == streams_.end()) return;
    counters_.refused_names += found->second->refused_names();
    found->second->CloseLater();
    streams_.erase(found);
  }

  // --- The rest --------------------------------------------------------------------------------

  Task<absl::StatusOr<struct statvfs>> GetStatistics(state::NodeId node, Deadline deadline) {
    CO_ASSIGN_OR_RETURN(const dfs::DfsPath path, PathOf(node));
    const absl::Time now = runtime::Loop::Current().Now();
    // Nothing of the map is held over a wait: whoever inserts moves all of it.
    const auto known = statistics_.find(client_.GetEpoch(path));
    if (known != statistics_.end() && now < known->second.until) co_return known->second.values;
    struct Fetch {
      static Task<absl::Status> Run(dfs::Binding binding, smb::FileSystemSize* size,
                                    Deadline until) {
        CO_ASSIGN_OR_RETURN(*size, co_await binding.tree->StatFileSystem(binding.path, until));
        co_return absl::OkStatus();
      }
    };
    smb::FileSystemSize size;
    const absl::Status status = co_await client_.Run(
        path,
        [&size, deadline](dfs::Binding binding) {
          return Fetch::Run(std::move(binding), &size, deadline);
        },
        {}, deadline.Within(kLastKnownAfter));
    if (absl::IsCancelled(status)) co_return status;
    const uint64_t epoch = client_.GetEpoch(path);
    if (status.ok()) {
      if (statistics_.size() >= kMostStatistics) statistics_.clear();
      struct statvfs values = {};
      values.f_bsize = values.f_frsize = size.unit_bytes == 0 ? 4096 : size.unit_bytes;
      values.f_blocks = size.total_units;
      values.f_bfree = size.free_units;
      values.f_bavail = size.available_units;
      values.f_namemax = smb::wire::kMaxNameUnits;
      statistics_[epoch] = {.values = values, .until = now + kStatisticsFor};
      last_statistics_ = values;
      co_return values;
    }
    ++counters_.last_known_answers;
    const auto last = statistics_.find(epoch);
    if (last == statistics_.end()) co_return last_statistics_;
    co_return last->second.values;
  }

  absl::Status Access(int mask) const {
    if ((mask & W_OK) != 0 && options_.read_only) return ErrnoError(EROFS, "mounted read-only");
    return absl::OkStatus();
  }

  static absl::Status NoXattr(std::string_view name) {
    const bool never = absl::StartsWith({name.data(), name.size()}, "security.") ||
                       absl::StartsWith({name.data(), name.size()}, "system.");
    return never ? ErrnoError(ENOSYS, "no such attributes")
                 : ErrnoError(EOPNOTSUPP, "no extended attributes");
  }

  absl::Status RefuseChange() const {
    return options_.read_only ? ErrnoError(EROFS, "mounted read-only")
                              : ErrnoError(EOPNOTSUPP, "writing is not implemented");
  }

  void ResumeInvalidations() {
    // The dead agent may have seen a change and not have told: pages of files that are held are
    // dropped once; they are read again.
    tables_.inodes().ForEach([this](const state::InodeTable::Node& node) {
      if (node.nlookup() > 0 && node.identity() != nullptr) invalidation_.DataChanged(node.id());
    });
  }

  const Counters& counters() const { return counters_; }

 private:
  static constexpr size_t kMostStatistics = 1024;
  struct Statistics {
    struct statvfs values = {};
    absl::Time until = absl::InfinitePast();
  };

  dfs::Client& client_;
  state::MountTables& tables_;
  Invalidation& invalidation_;
  const Options options_;
  AttributeCache attributes_;
  absl::flat_hash_map<state::FileHandle, std::shared_ptr<OpenFile>> files_;
  absl::flat_hash_map<state::FileHandle, std::shared_ptr<DirectoryStream>> streams_;
  absl::flat_hash_map<state::NodeId, struct stat> last_known_;  // Of the root and of links.
  absl::flat_hash_map<uint64_t, Statistics> statistics_;        // By link epoch.
  struct statvfs last_statistics_ = {};
  Counters counters_;
};

Filesystem::Filesystem(dfs::Client& client, state::MountTables& tables, Invalidation& invalidation,
                       Options options)
    : impl_(std::make_unique<Impl>(client, tables, invalidation, std::move(options))) {}
Filesystem::~Filesystem() = default;

uint64_t Filesystem::RootInodeNumber(const SipKey& key, const dfs::DfsPath& source) {
  return Impl::NumberOf(key, source);
}
void Filesystem::ResumeInvalidations() { impl_->ResumeInvalidations(); }
Task<absl::StatusOr<EntryReply>> Filesystem::Lookup(state::NodeId parent, std::string name,
                                                    Deadline deadline) {
  return impl_->Lookup(parent, std::move(name), std::move(deadline));
}
void Filesystem::Forget(state::NodeId node, uint64_t lookups) { impl_->Forget(node, lookups); }
Task<absl::StatusOr<AttributesReply>> Filesystem::GetAttributes(state::NodeId node,
                                                                Deadline deadline) {
  return impl_->GetAttributes(node, std::move(deadline));
}
Task<absl::StatusOr<std::string>> Filesystem::ReadLink(state::NodeId node, Deadline deadline) {
  return impl_->ReadLink(node, std::move(deadline));
}
Task<absl::StatusOr<OpenReply>> Filesystem::Open(state::NodeId node, int flags, Deadline deadline) {
  return impl_->Open(node, flags, std::move(deadline));
}
Task<absl::StatusOr<size_t>> Filesystem::Read(state::FileHandle fh, uint64_t offset,
                                              absl::Span<uint8_t> into, Deadline deadline) {
  return impl_->Read(fh, offset, into, std::move(deadline));
}
Task<absl::StatusOr<uint64_t>> Filesystem::Seek(state::FileHandle fh, uint64_t offset, int whence,
                                                Deadline deadline) {
  return impl_->Seek(fh, offset, whence, std::move(deadline));
}
Task<absl::Status> Filesystem::Flush(state::FileHandle fh, Deadline deadline) {
  return impl_->Flush(fh);
}
void Filesystem::Release(state::FileHandle fh) { impl_->Release(fh); }
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
  co_return Impl::NoXattr(name);
}
Task<absl::StatusOr<std::string>> Filesystem::ListXattrs(state::NodeId node, Deadline deadline) {
  co_return ErrnoError(ENOSYS, "no extended attributes");
}
absl::Status Filesystem::RefuseChange() const { return impl_->RefuseChange(); }
const Filesystem::Counters& Filesystem::counters() const { return impl_->counters(); }

}  // namespace dfscsi::vfs
