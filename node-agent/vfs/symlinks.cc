// Symbolic links: READLINK, and SYMLINK where files stand for them (mf_symlink.h).

#include "node-agent/vfs/symlinks.h"

#include <errno.h>

#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_format.h"
#include "node-agent/base/status_macros.h"
#include "node-agent/runtime/loop.h"
#include "node-agent/smb/session.h"
#include "node-agent/smb/tree.h"
#include "node-agent/smb/wire/filetime.h"
#include "node-agent/smb/wire/nt_status.h"
#include "node-agent/smb/wire/utf16.h"
#include "node-agent/vfs/change_probe.h"
#include "node-agent/vfs/errno.h"
#include "node-agent/vfs/filesystem_impl.h"
#include "node-agent/vfs/mf_symlink.h"
#include "node-agent/vfs/removal.h"
#include "node-agent/vfs/reparse_target.h"

namespace dfscsi::vfs {

using runtime::Deadline;
using runtime::Task;
using smb::wire::NtStatus;
using smb::wire::NtStatusOf;

namespace {

struct Written {
  std::string target;
  ServerAttributes attributes;
};

// nullopt: it is no link.
Task<absl::StatusOr<std::optional<Written>>> ReadMfSymlink(dfs::Binding binding,
                                                           Deadline deadline) {
  smb::wire::CreateRequest create;
  create.desired_access = smb::wire::kAccessReadData | smb::wire::kAccessReadAttributes;
  create.options = smb::wire::kOptionNonDirectory | smb::wire::kOptionOpenReparsePoint;
  create.name = binding.path;
  create.query_on_disk_id = true;
  const absl::StatusOr<smb::OpenedFile> opened =
      co_await binding.tree->Create(std::move(create), deadline);
  if (NtStatusOf(opened.status()) == NtStatus::kFileIsADirectory) co_return std::nullopt;
  CO_RETURN_IF_ERROR(opened.status());
  struct Closed {
    smb::Tree& tree;
    smb::wire::FileId id;
    ~Closed() { tree.CloseLater(id); }
  } closed{*binding.tree, opened->file_id};
  const auto& id = opened->response.on_disk_id;
  Written written{.target = {},
                  .attributes = {.file = opened->response.attributes,
                                 .file_id = id.has_value() ? id->file : 0}};
  if (!MayBeMfSymlink(written.attributes)) co_return std::nullopt;
  std::string content(kMfSymlinkBytes, '\0');
  const smb::wire::MutableBytes into(reinterpret_cast<uint8_t*>(content.data()), content.size());
  CO_ASSIGN_OR_RETURN(const size_t bytes,
                      co_await binding.tree->Read(opened->file_id, 0, into, deadline));
  std::optional<std::string> target =
      bytes == content.size() ? ParseMfSymlink(content) : std::nullopt;
  if (!target.has_value()) co_return std::nullopt;
  written.target = *std::move(target);
  written.attributes.mf_target_bytes = static_cast<uint32_t>(written.target.size());
  co_return written;
}

// `path` with another last component.
std::u16string Beside(const std::u16string& path, const std::u16string& name) {
  const size_t end = path.rfind(u'\\');
  return end == std::u16string::npos ? name : path.substr(0, end + 1) + name;
}

// Makes the file `path` with this content, whatever of ours was there before. `seen`: what it is.
Task<absl::Status> WriteFileOn(dfs::Binding binding, std::u16string path,
                               const std::string& content, ServerAttributes* seen,
                               Deadline deadline) {
  smb::wire::CreateRequest create;
  create.desired_access = smb::wire::kAccessWriteData | smb::wire::kAccessReadAttributes;
  create.disposition = smb::wire::Disposition::kOverwriteIf;
  create.options = smb::wire::kOptionNonDirectory;
  create.name = std::move(path);
  create.query_on_disk_id = true;
  CO_ASSIGN_OR_RETURN(const smb::OpenedFile opened,
                      co_await binding.tree->Create(std::move(create), deadline));
  const auto& id = opened.response.on_disk_id;
  *seen = {.file = opened.response.attributes,
           .reparse_tag = 0,
           .file_id = id.has_value() ? id->file : 0};
  seen->file.end_of_file = content.size();
  const smb::wire::Bytes bytes(reinterpret_cast<const uint8_t*>(content.data()), content.size());
  const absl::Status written = co_await binding.tree->Write(opened.file_id, 0, bytes, deadline);
  if (!written.ok()) {
    binding.tree->CloseLater(opened.file_id);
    co_return written;
  }
  // Quotas and full disks may come to light only here.
  co_return co_await binding.tree->Close(opened.file_id, deadline);
}

bool IsMissing(const absl::Status& status) {
  const std::optional<NtStatus> answer = NtStatusOf(status);
  return answer == NtStatus::kObjectNameNotFound || answer == NtStatus::kNoSuchFile ||
         answer == NtStatus::kDeletePending;
}

bool IsSince(uint64_t filetime, absl::Time earliest) {
  const std::optional<absl::Time> time = smb::wire::TimeOfFileTime(filetime);
  return time.has_value() && *time >= earliest;
}

// Of a link that was written as `hidden` and then renamed to the binding's path.
Task<absl::StatusOr<Verdict>> ProbeSymlink(dfs::Binding binding, std::u16string hidden,
                                           std::string target, absl::Duration age,
                                           ServerAttributes* seen, Deadline deadline) {
  const absl::Status not_renamed =
      (co_await binding.tree->Stat(std::move(hidden), deadline)).status();
  if (!IsMissing(not_renamed)) {
    // There: it is written again. Anything else is an answer.
    if (not_renamed.ok()) co_return Verdict::kNotDone;
    co_return not_renamed;
  }
  const absl::StatusOr<std::optional<Written>> found = co_await ReadMfSymlink(binding, deadline);
  if (IsMissing(found.status())) co_return Verdict::kNotDone;
  CO_RETURN_IF_ERROR(found.status());
  if (!found->has_value() || (*found)->target != target) {
    co_return ErrnoError(EEXIST, "something else is there");
  }
  *seen = (*found)->attributes;
  // The session is younger than the change; its server told its time when it began.
  const std::optional<absl::Time> server_now =
      smb::wire::TimeOfFileTime(binding.tree->session().connection().negotiated().system_time);
  if (!server_now.has_value()) co_return Verdict::kUnknown;
  constexpr absl::Duration kRounding = absl::Seconds(2);
  const absl::Time earliest = *server_now - age - kRounding;
  if (IsSince(seen->file.creation_time, earliest)) co_return Verdict::kDone;
  if (IsSince(seen->file.last_write_time, earliest)) co_return Verdict::kUnknown;
  co_return ErrnoError(EEXIST, "it was there before");
}

}  // namespace

Task<absl::Status> LookIntoFile(dfs::Binding binding, ServerAttributes* seen, Deadline deadline) {
  if (!MayBeMfSymlink(*seen)) co_return absl::OkStatus();
  const absl::StatusOr<std::optional<Written>> written =
      co_await ReadMfSymlink(std::move(binding), deadline);
  // An answer (of a file that may not be read, or has gone) leaves a plain file.
  if (!written.ok()) {
    co_return IsAnswerLost(written.status()) || !NtStatusOf(written.status()).has_value()
        ? written.status()
        : absl::OkStatus();
  }
  if (written->has_value()) seen->mf_target_bytes = (*written)->attributes.mf_target_bytes;
  co_return absl::OkStatus();
}

// --- READLINK

Task<absl::StatusOr<std::string>> Filesystem::Impl::ReadLink(state::NodeId node,
                                                             Deadline deadline) {
  CO_ASSIGN_OR_RETURN(const dfs::DfsPath path, PathOf(node));
  std::string target;
  const auto fetch = [&](dfs::Binding binding) -> Task<absl::Status> {
    if (options_.mf_symlinks) {
      CO_ASSIGN_OR_RETURN(std::optional<Written> written,
                          co_await ReadMfSymlink(binding, deadline));
      if (written.has_value()) {
        target = std::move(written->target);
        co_return absl::OkStatus();
      }
    }
    CO_ASSIGN_OR_RETURN(const std::vector<uint8_t> reparse,
                        co_await binding.tree->GetReparsePoint(binding.path, deadline));
    CO_ASSIGN_OR_RETURN(target, ReparseTarget(reparse));
    co_return absl::OkStatus();
  };
  CO_RETURN_IF_ERROR(co_await client_.Run(path, fetch, {}, deadline));
  co_return target;
}

// --- SYMLINK

std::string Filesystem::Impl::NameWhileMade(const dfs::DfsPath& path) const {
  // The same for every agent that serves the mount, and another for every other mount and path.
  const state::Guid& guid = tables_.client_guid();
  const std::string words = std::string(guid.begin(), guid.end()) + path.ToString();
  return absl::StrFormat(".dfscsi%016x", SipHash(options_.key, words));
}

Task<absl::StatusOr<EntryReply>> Filesystem::Impl::MakeSymlink(state::NodeId parent,
                                                               std::string name, std::string target,
                                                               ChangeJournal* journal,
                                                               Deadline deadline) {
  CO_RETURN_IF_ERROR(MayChange());
  if (!options_.mf_symlinks) co_return ErrnoError(EOPNOTSUPP, "without mfsymlinks");
  if (target.empty()) co_return ErrnoError(ENOENT, "a link to nothing");
  if (target.size() > kMostMfTargetBytes) co_return ErrnoError(ENAMETOOLONG, "a link's target");
  absl::StatusOr<dfs::DfsPath> allowed = ChangeablePath(parent, name);
  if (ErrnoOf(allowed.status()) == EBUSY) allowed = ErrnoError(EEXIST, "a DFS link");
  CO_ASSIGN_OR_RETURN(const dfs::DfsPath path, std::move(allowed));
  CO_ASSIGN_OR_RETURN(const dfs::DfsPath made_as,
                      path.Prefix(path.size() - 1).Join(NameWhileMade(path)));
  const std::u16string made_name = *smb::wire::Utf8ToUtf16(NameWhileMade(path));
  const std::string content = MfSymlinkOf(target);
  ServerAttributes seen;
  bool is_left = false;
  const absl::Time asked = runtime::Loop::Current().Now();
  // Nobody sees it before it is whole: it gets its name last.
  Change change{.attempt = {}, .of_names = true, .in_pieces = true, .journal = journal};
  change.attempt = [&](dfs::Binding binding) -> Task<absl::Status> {
    if (binding.link_components == path.size()) co_return ErrnoError(EEXIST, "a DFS link");
    const std::u16string hidden = Beside(binding.path, made_name);
    change.Sending();
    is_left = true;
    absl::Status status = co_await WriteFileOn(binding, hidden, content, &seen, deadline);
    if (status.ok()) {
      status = co_await binding.tree->RenamePath(hidden, {.replace = false, .target = binding.path},
                                                 deadline);
    }
    if (IsAnswerLost(status)) co_return status;
    if (!status.ok()) {
      is_left = !(co_await binding.tree->Remove(hidden, smb::FileType::kFile, deadline)).ok();
    }
    co_return status;
  };
  change.probe = [&](dfs::Binding binding) -> Task<absl::StatusOr<Verdict>> {
    std::u16string hidden = Beside(binding.path, made_name);
    co_return co_await ProbeSymlink(std::move(binding), std::move(hidden), target, change.Age(),
                                    &seen, deadline);
  };
  const absl::Status status = co_await RunChange(path, &change, deadline);
  if (!status.ok()) {
    // Nothing is left behind, where it can be reached.
    if (is_left) tasks_.Spawn(RemoveHidden(0, made_as));
    co_return status;
  }
  seen.mf_target_bytes = static_cast<uint32_t>(target.size());
  co_return NewEntry(parent, name, path, seen, change.where.epoch, asked);
}

}  // namespace dfscsi::vfs
