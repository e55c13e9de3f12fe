// OPENDIR, READDIR, READDIRPLUS, RELEASEDIR: from handles of the kernel to DirectoryStream.

#include <errno.h>
#include <fcntl.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "node-agent/base/status_macros.h"
#include "node-agent/runtime/loop.h"
#include "node-agent/smb/wire/nt_status.h"
#include "node-agent/vfs/errno.h"
#include "node-agent/vfs/filesystem_impl.h"
#include "node-agent/vfs/mf_symlink.h"

namespace dfscsi::vfs {

using runtime::Deadline;
using runtime::Task;

namespace {

// "." and ".." come before the names of a stream.
constexpr uint64_t kDots = 2;

}  // namespace

Task<absl::StatusOr<state::FileHandle>> Filesystem::Impl::OpenDirectory(state::NodeId node,
                                                                        Deadline deadline) {
  CO_ASSIGN_OR_RETURN(const dfs::DfsPath path, PathOf(node));
  auto stream = std::make_shared<DirectoryStream>(path, tables_.handles(), /*fh=*/0, options_.key);
  CO_RETURN_IF_ERROR(co_await SeekStream(stream, 0, deadline));
  absl::StatusOr<state::FileHandle> fh =
      tables_.handles().Open({.node = node,
                              .kind = state::HandleTable::Kind::kDirectory,
                              .open_flags = O_DIRECTORY,
                              .flags = kHandleUndelivered});
  if (!fh.ok()) {
    co_return ErrnoError(absl::IsNotFound(fh.status()) ? ESTALE : ENFILE, "no handle");
  }
  stream->set_handle(*fh);
  streams_[*fh] = std::move(stream);
  co_return *fh;
}

absl::StatusOr<std::shared_ptr<DirectoryStream>> Filesystem::Impl::StreamOf(state::FileHandle fh) {
  const auto found = streams_.find(fh);
  if (found != streams_.end()) return found->second;
  if (!tables_.handles().Contains(fh)) return ErrnoError(EBADF, "no such handle");
  ASSIGN_OR_RETURN(dfs::DfsPath path, PathOf(tables_.handles().Get(fh).node));
  auto stream =
      std::make_shared<DirectoryStream>(std::move(path), tables_.handles(), fh, options_.key);
  streams_[fh] = stream;
  return stream;
}

Task<absl::Status> Filesystem::Impl::SeekOn(dfs::Binding binding,
                                            std::shared_ptr<DirectoryStream> stream,
                                            uint64_t position, Deadline deadline) {
  absl::Status status = co_await stream->Seek(position, binding, deadline);
  if (smb::wire::NtStatusOf(status) == smb::wire::NtStatus::kFileClosed) {
    // The server has dropped the handle, not the directory.
    stream->Lose();
    status = co_await stream->Seek(position, std::move(binding), deadline);
  }
  co_return status;
}

Task<absl::Status> Filesystem::Impl::SeekStream(std::shared_ptr<DirectoryStream> stream,
                                                uint64_t position, Deadline deadline) {
  co_return co_await client_.Run(
      stream->path(),
      [stream, position, deadline](dfs::Binding binding) {
        return SeekOn(std::move(binding), stream, position, deadline);
      },
      {.held_epoch = stream->epoch()}, deadline);
}

Task<absl::Status> Filesystem::Impl::ReadDirectory(state::FileHandle fh, uint64_t offset, bool plus,
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

absl::Status Filesystem::Impl::AddEntry(state::NodeId directory, DirectoryStream& stream,
                                        uint64_t position, bool plus, DirectorySink* sink,
                                        std::vector<state::NodeId>* given) {
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
  const std::optional<uint64_t> first_names =
      hard_links_.InodeNumberOf({stream.epoch(), listed.attributes.file_id});
  const bool may_be_symlink = options_.mf_symlinks && MayBeMfSymlink(listed.attributes);
  if (may_be_symlink || first_names.has_value()) {
    // What it is only its content says, or how many names it has: the kernel looks the name up when
    // it needs it.
    if (may_be_symlink) entry.attributes.st_mode = 0;
    entry.attributes.st_ino = first_names.value_or(ino);
    RETURN_IF_ERROR(stream.NoteGiven(position));
    sink->Add(entry);
    return absl::OkStatus();
  }
  // A page may have been fetched long before the kernel comes to its end: what it says of a file is
  // then no news. The kernel looks such a name up when it needs it.
  // Nor is it of one of which something is pending.
  const bool is_news =
      is_link || (!IsBehindAt(*path) && attributes_.Put(directory, listed.name, listed.attributes,
                                                        stream.epoch(), listed.seen, now));
  RETURN_IF_ERROR(stream.NoteGiven(position));
  if (plus && is_news) {
    ASSIGN_OR_RETURN(entry.node, NodeFor(directory, listed.name, *path));
    tables_.inodes().AddLookup(entry.node);
    given->push_back(entry.node);
    const uint64_t node_ino = tables_.inodes().Get(entry.node).ino();
    entry.attributes = StatOfNode(entry.node, node_ino, listed.attributes);
    entry.name_timeout = options_.actimeo;
    if (is_link) {
      const EntryReply link = LinkEntry(entry.node);
      entry.attributes = link.attributes;
      entry.attributes_timeout = link.attributes_timeout;
    } else {
      NoteSeenAndTell(entry.node, listed.attributes, stream.epoch());
      entry.attributes_timeout =
          std::max(listed.seen.answered + BelievedIn(directory) - now, absl::ZeroDuration());
      entry.name_timeout = entry.attributes_timeout;
    }
  }
  sink->Add(entry);
  return absl::OkStatus();
}

void Filesystem::Impl::ReleaseDirectory(state::FileHandle fh) {
  tables_.handles().Close(fh);
  const auto found = streams_.find(fh);
  if (found == streams_.end()) return;
  counters_.refused_names += found->second->refused_names();
  found->second->CloseLater();
  streams_.erase(found);
}

}  // namespace dfscsi::vfs
