// What changes files on a scripted server: WRITE, FLUSH, SET_INFO ([MS-SMB2] 3.3.5.11, 3.3.5.13,
// 3.3.5.21).

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "node-agent/smb/wire/file_information.h"
#include "node-agent/smb/wire/filetime.h"
#include "node-agent/smb/wire/io.h"
#include "node-agent/smb/wire/utf16.h"
#include "node-agent/testing/scripted_connection.h"

namespace dfscsi::testing {
namespace {

using smb::wire::Command;
using smb::wire::FileInfoClass;
using smb::wire::NtStatus;

constexpr uint64_t kAppend = ~uint64_t{0};
constexpr uint32_t kSettable = smb::wire::kAttributeReadonly | smb::wire::kAttributeHidden |
                               smb::wire::kAttributeSystem | smb::wire::kAttributeTemporary;
// Which lease of others a change of the file's data leaves them.
constexpr uint32_t kKeepNothing = 0;

absl::Time Now() { return runtime::Loop::Current().Now(); }

}  // namespace

ScriptedMutation& ScriptedConnection::RecordMutation(const Call& call, const ScriptedOpen& open) {
  ScriptedMutation& mutation = server_.mutations_.emplace_back();
  mutation.when = Now();
  mutation.client = client();
  mutation.session_id = call.header.session_id;
  mutation.connection = number_;
  mutation.message_id = call.header.message_id;
  mutation.replay = call.header.Has(smb::wire::kFlagReplay);
  mutation.command = call.header.command;
  if (call.tree != nullptr) mutation.share = call.tree->share;
  mutation.path = open.path;
  return mutation;
}

ScriptedOpen* ScriptedConnection::FindToChange(Call& call, smb::wire::FileId id, uint32_t access) {
  ScriptedOpen* const open = FindOpen(call, id);
  if (open == nullptr) return nullptr;
  if (!open->share->writable) {
    ReplyError(call, NtStatus::kMediaWriteProtected);
    return nullptr;
  }
  if ((open->access & access) == 0) {
    ReplyError(call, NtStatus::kAccessDenied);
    return nullptr;
  }
  // [MS-SMB2] 3.3.5.2.10: what comes late, from before a reconnect, is not executed any more.
  const auto behind = static_cast<int16_t>(call.header.channel_sequence - open->channel_sequence);
  if (behind < 0) {
    ReplyError(call, NtStatus::kFileNotAvailable);
    return nullptr;
  }
  open->channel_sequence = call.header.channel_sequence;
  return open;
}

NtStatus ScriptedConnection::ReserveGrowth(ScriptedShare& share, uint64_t old_size,
                                           uint64_t new_size) {
  const uint64_t growth = new_size > old_size ? new_size - old_size : 0;
  if (share.quota_bytes.has_value() && growth > *share.quota_bytes) return NtStatus::kQuotaExceeded;
  if (share.free_bytes.has_value() && growth > *share.free_bytes) return NtStatus::kDiskFull;
  if (share.quota_bytes.has_value()) *share.quota_bytes -= growth;
  if (share.free_bytes.has_value()) *share.free_bytes -= growth;
  return NtStatus::kSuccess;
}

void ScriptedConnection::Write(Call& call) {
  const absl::StatusOr<smb::wire::WriteRequest> request = smb::wire::DecodeWriteRequest(call.body);
  if (!request.ok()) return ReplyError(call, NtStatus::kInvalidParameter);
  ScriptedOpen* const open = FindToChange(
      call, request->file_id, smb::wire::kAccessWriteData | smb::wire::kAccessAppendData);
  if (open == nullptr) return;
  CheckCharge(call, request->length_bytes);
  if (request->length_bytes > negotiate_response_.max_write_bytes || request->length_bytes == 0) {
    server_.Violation(number_, absl::StrCat("a WRITE of ", request->length_bytes, " bytes"));
    return ReplyError(call, NtStatus::kInvalidParameter);
  }
  ScriptedFile& file = *open->file;
  if (file.kind != FileKind::kFile) return ReplyError(call, NtStatus::kInvalidDeviceRequest);
  if (request->offset == kAppend && !server_.options_.appends) {
    return ReplyError(call, NtStatus::kInvalidParameter);
  }
  smb::wire::Bytes payload = request->payload;
  if (const uint32_t most = server_.options_.most_written_bytes; most > 0) {
    payload = payload.subspan(0, most);
  }
  const uint64_t offset = request->offset == kAppend ? file.size : request->offset;
  // As Samba of what no file of its disk can be; and all of it is in memory here.
  constexpr uint64_t kMostFileBytes = uint64_t{1} << 32;
  const uint64_t end = offset + payload.size();
  if (end < offset || end > kMostFileBytes) return ReplyError(call, NtStatus::kInvalidParameter);
  if (ScriptedOpens::IsLocked(file, open->id.persistent_id, offset, payload.size(),
                              /*to_write=*/true)) {
    return ReplyError(call, NtStatus::kFileLockConflict);
  }
  if (const NtStatus status = ReserveGrowth(*open->share, file.size, end);
      status != NtStatus::kSuccess) {
    return ReplyError(call, status);
  }
  server_.opens_->BreakOthers(file, client(), open->lease_key, kKeepNothing);
  file.Write(offset, payload);
  open->has_written = true;
  if (!open->sets_time) file.last_write = Now();
  ScriptedMutation& mutation = RecordMutation(call, *open);
  mutation.offset = offset;
  mutation.length_bytes = payload.size();
  mutation.content_hash = ContentHash(payload);
  Reply(call, smb::wire::EncodeWriteResponse,
        smb::wire::WriteResponse{static_cast<uint32_t>(payload.size())});
}

void ScriptedConnection::Flush(Call& call) {
  const absl::StatusOr<smb::wire::FlushRequest> request = smb::wire::DecodeFlushRequest(call.body);
  if (!request.ok()) return ReplyError(call, NtStatus::kInvalidParameter);
  if (FindOpen(call, request->file_id) == nullptr) return;
  ReplyEmpty(call);
}

// --- SET_INFO

void ScriptedConnection::SetInfo(Call& call) {
  const absl::StatusOr<smb::wire::SetInfoRequest> request =
      smb::wire::DecodeSetInfoRequest(call.body);
  if (!request.ok()) return ReplyError(call, NtStatus::kInvalidParameter);
  if (request->type != smb::wire::InfoType::kFile) {
    return ReplyError(call, NtStatus::kNotSupported);
  }
  uint32_t access = ~uint32_t{0};
  switch (static_cast<FileInfoClass>(request->info_class)) {
    case FileInfoClass::kBasic:
      access = smb::wire::kAccessWriteAttributes;
      break;
    case FileInfoClass::kEndOfFile:
    case FileInfoClass::kAllocation:
      access = smb::wire::kAccessWriteData;
      break;
    case FileInfoClass::kDisposition:
    case FileInfoClass::kDispositionEx:
    case FileInfoClass::kRename:
    case FileInfoClass::kRenameEx:
      access = smb::wire::kAccessDelete;
      break;
    case FileInfoClass::kFullEa:
      access = smb::wire::kAccessWriteEa;
      break;
    default:
      break;
  }
  ScriptedOpen* const open = FindToChange(call, request->file_id, access);
  if (open == nullptr) return;
  const NtStatus status = SetFileInformation(call, *open, *request);
  if (status != NtStatus::kSuccess) return ReplyError(call, status);
  call.reply.assign(smb::wire::kHeaderSize, 0);
  smb::wire::Writer writer(&call.reply, 0);
  smb::wire::EncodeSetInfoResponse(writer);
}

NtStatus ScriptedConnection::SetFileInformation(Call& call, ScriptedOpen& open,
                                                const smb::wire::SetInfoRequest& request) {
  const auto info_class = static_cast<FileInfoClass>(request.info_class);
  NtStatus status = NtStatus::kInvalidInfoClass;
  ScriptedMutation details;
  switch (info_class) {
    case FileInfoClass::kBasic:
      status = SetBasic(open, request.input);
      break;
    case FileInfoClass::kEndOfFile: {
      const auto size = smb::wire::DecodeSizeInformation(request.input);
      if (!size.ok()) return NtStatus::kInfoLengthMismatch;
      details.offset = *size;
      status = SetSize(open, *size);
      break;
    }
    case FileInfoClass::kAllocation: {
      const auto size = smb::wire::DecodeSizeInformation(request.input);
      if (!size.ok()) return NtStatus::kInfoLengthMismatch;
      details.offset = *size;
      status = *size < open.file->size ? SetSize(open, *size) : NtStatus::kSuccess;
      break;
    }
    case FileInfoClass::kDisposition: {
      const auto remove = smb::wire::DecodeDispositionInformation(request.input);
      if (!remove.ok()) return NtStatus::kInfoLengthMismatch;
      status = SetDisposition(call, open, *remove);
      break;
    }
    case FileInfoClass::kDispositionEx: {
      const auto flags = smb::wire::DecodeDispositionExInformation(request.input);
      if (!open.share->posix_unlink) return NtStatus::kInvalidInfoClass;
      if (!flags.ok()) return NtStatus::kInfoLengthMismatch;
      status = SetDisposition(call, open, (*flags & smb::wire::kDispositionDelete) != 0);
      open.posix_delete = (*flags & smb::wire::kDispositionPosix) != 0;
      break;
    }
    case FileInfoClass::kRename: {
      const auto rename = smb::wire::DecodeRenameInformation(request.input);
      if (!rename.ok()) return NtStatus::kInfoLengthMismatch;
      details.target = absl::StrReplaceAll(smb::wire::Utf16ToUtf8(rename->target), {{"\\", "/"}});
      status = Rename(call, open, rename->target, rename->replace, /*posix=*/false);
      break;
    }
    case FileInfoClass::kRenameEx: {
      const auto rename = smb::wire::DecodeRenameExInformation(request.input);
      if (!open.share->posix_unlink) return NtStatus::kInvalidInfoClass;
      if (!rename.ok()) return NtStatus::kInfoLengthMismatch;
      details.target = absl::StrReplaceAll(smb::wire::Utf16ToUtf8(rename->target), {{"\\", "/"}});
      status = Rename(call, open, rename->target, (rename->flags & smb::wire::kRenameReplace) != 0,
                      (rename->flags & smb::wire::kRenamePosix) != 0);
      break;
    }
    case FileInfoClass::kFullEa:
      status = SetExtended(open, request.input);
      break;
    case FileInfoClass::kLink: {
      const auto link = smb::wire::DecodeRenameInformation(request.input);
      if (!open.share->hard_links) return NtStatus::kNotSupported;
      if (!link.ok()) return NtStatus::kInfoLengthMismatch;
      status = Link(open, link->target);
      break;
    }
    default:
      return NtStatus::kInvalidInfoClass;
  }
  if (status != NtStatus::kSuccess) return status;
  ScriptedMutation& mutation = RecordMutation(call, open);
  mutation.info_class = info_class;
  mutation.offset = details.offset;
  mutation.target = std::move(details.target);
  // A rename is known by where it began.
  if (!mutation.target.empty()) open.path = mutation.target;
  return status;
}

NtStatus ScriptedConnection::SetBasic(ScriptedOpen& open, smb::wire::Bytes input) {
  const auto basic = smb::wire::DecodeBasicInformation(input);
  if (!basic.ok()) return NtStatus::kInfoLengthMismatch;
  const auto set = [](uint64_t time, std::optional<absl::Time>& to) {
    if (time == smb::wire::kTimeKeep || time >= smb::wire::kTimeThaw) return;
    if (const auto at = smb::wire::TimeOfFileTime(time)) to = *at;
  };
  ScriptedFile& file = *open.file;
  std::optional<absl::Time> written;
  set(basic->creation_time, file.created);
  set(basic->last_access_time, file.accessed);
  set(basic->last_write_time, written);
  set(basic->change_time, file.changed);
  if (written.has_value()) {
    file.last_write = *written;
    open.sets_time = true;
  }
  if (basic->attributes != 0) file.extra_attributes = basic->attributes & kSettable;
  return NtStatus::kSuccess;
}

NtStatus ScriptedConnection::SetSize(ScriptedOpen& open, uint64_t size_bytes) {
  ScriptedFile& file = *open.file;
  if (file.kind != FileKind::kFile) return NtStatus::kInvalidParameter;
  const uint64_t low = std::min(file.size, size_bytes);
  const uint64_t high = std::max(file.size, size_bytes);
  if (ScriptedOpens::IsLocked(file, open.id.persistent_id, low, high - low, /*to_write=*/true)) {
    return NtStatus::kFileLockConflict;
  }
  if (const NtStatus status = ReserveGrowth(*open.share, file.size, size_bytes);
      status != NtStatus::kSuccess) {
    return status;
  }
  server_.opens_->BreakOthers(file, client(), open.lease_key, kKeepNothing);
  file.Resize(size_bytes);
  file.last_write = Now();
  return NtStatus::kSuccess;
}

NtStatus ScriptedConnection::SetDisposition(Call& call, ScriptedOpen& open, bool remove) {
  ScriptedFile& file = *open.file;
  if (&file == open.share->root().get()) return NtStatus::kCannotDelete;
  // What is behind a junction is not in it.
  if (remove && !file.children.empty() && file.ReparseTag() == 0) {
    return NtStatus::kDirectoryNotEmpty;
  }
  if (remove && (file.extra_attributes & smb::wire::kAttributeReadonly) != 0) {
    return NtStatus::kCannotDelete;
  }
  if (remove) {
    server_.opens_->BreakOthers(file, client(), open.lease_key, smb::wire::kLeaseRead);
  }
  file.delete_pending = remove;
  return NtStatus::kSuccess;
}

NtStatus ScriptedConnection::Rename(Call& call, ScriptedOpen& open, std::u16string_view target,
                                    bool replace, bool posix) {
  ScriptedShare& share = *open.share;
  const size_t slash = target.rfind(u'\\');
  ScriptedShare::Found parent{.file = share.root()};
  if (slash != std::u16string_view::npos) parent = share.Walk(target.substr(0, slash), true);
  if (parent.status == NtStatus::kObjectNameNotFound) return NtStatus::kObjectPathNotFound;
  if (parent.status != NtStatus::kSuccess) return parent.status;
  if (parent.file->kind != FileKind::kDirectory) return NtStatus::kObjectPathNotFound;
  for (std::shared_ptr<ScriptedFile> at = parent.file; at != nullptr; at = at->parent.lock()) {
    if (at == open.file) return NtStatus::kInvalidParameter;  // Below itself.
  }
  const std::u16string_view name =
      slash == std::u16string_view::npos ? target : target.substr(slash + 1);
  if (name.empty()) return NtStatus::kObjectNameInvalid;
  if (open.file->is_directory() && server_.opens_->HasOpensBelow(*open.file)) {
    return NtStatus::kAccessDenied;
  }
  const auto there = parent.file->children.find(smb::wire::FoldCase(std::u16string(name)));
  if (there != parent.file->children.end() && there->second != open.file) {
    const std::shared_ptr<ScriptedFile> old = there->second;
    if (old->kind == FileKind::kLink) return NtStatus::kPathNotCovered;
    if (!replace) return NtStatus::kObjectNameCollision;
    if (old->is_directory() || (old->extra_attributes & smb::wire::kAttributeReadonly) != 0) {
      return NtStatus::kAccessDenied;
    }
    bool in_use = false;
    server_.opens_->ForEach(*old, [&](const ScriptedOpen&) { in_use = true; });
    if (in_use && !posix) return NtStatus::kAccessDenied;
    server_.opens_->BreakOthers(*old, client(), std::nullopt, kKeepNothing);
    ScriptedShare::Unlink(old);
  }
  server_.opens_->BreakOthers(*open.file, client(), open.lease_key,
                              smb::wire::kLeaseRead | smb::wire::kLeaseWrite);
  ScriptedShare::Move(open.file, parent.file, name);
  return NtStatus::kSuccess;
}

NtStatus ScriptedConnection::Link(ScriptedOpen& open, std::u16string_view target) {
  ScriptedShare& share = *open.share;
  const size_t slash = target.rfind(u'\\');
  ScriptedShare::Found parent{.file = share.root()};
  if (slash != std::u16string_view::npos) parent = share.Walk(target.substr(0, slash), true);
  if (parent.status != NtStatus::kSuccess) return parent.status;
  const std::u16string_view name =
      slash == std::u16string_view::npos ? target : target.substr(slash + 1);
  if (parent.file->children.contains(smb::wire::FoldCase(std::u16string(name)))) {
    return NtStatus::kObjectNameCollision;
  }
  ScriptedShare::Link(open.file, parent.file, name);
  return NtStatus::kSuccess;
}

NtStatus ScriptedConnection::SetExtended(ScriptedOpen& open, smb::wire::Bytes input) {
  const auto attributes = smb::wire::DecodeExtendedAttributes(input);
  if (!attributes.ok()) return NtStatus::kEaListInconsistent;
  for (const smb::wire::ExtendedAttribute& attribute : *attributes) {
    const std::string name = smb::wire::FoldCaseUtf8(attribute.name);
    if (attribute.value.empty()) {
      open.file->extended.erase(name);
    } else {
      open.file->extended[name] = attribute.value;
    }
  }
  return NtStatus::kSuccess;
}

}  // namespace dfscsi::testing
