// CREATE on a scripted server ([MS-SMB2] 3.3.5.9): what is made, who may open what beside whom,
// leases and durable handles.

#include <utility>

#include "absl/strings/str_replace.h"
#include "node-agent/smb/wire/error_response.h"
#include "node-agent/smb/wire/utf16.h"
#include "node-agent/testing/scripted_connection.h"

namespace dfscsi::testing {
namespace {

using smb::wire::Dialect;
using smb::wire::Disposition;
using smb::wire::NtStatus;

constexpr uint32_t kChanges = smb::wire::kAccessWriteData | smb::wire::kAccessAppendData |
                              smb::wire::kAccessWriteEa | smb::wire::kAccessWriteAttributes |
                              smb::wire::kAccessDelete;
constexpr uint32_t kSettable = smb::wire::kAttributeReadonly | smb::wire::kAttributeHidden |
                               smb::wire::kAttributeSystem | smb::wire::kAttributeTemporary;

bool Overwrites(Disposition disposition) {
  return disposition == Disposition::kSupersede || disposition == Disposition::kOverwrite ||
         disposition == Disposition::kOverwriteIf;
}

uint32_t AccessOf(uint32_t asked, bool writable) {
  uint32_t access = asked;
  if ((asked & (smb::wire::kAccessGenericAll | smb::wire::kAccessMaximumAllowed)) != 0) {
    access |= writable ? 0x001f01ff : 0x001200a9;
  }
  if ((asked & smb::wire::kAccessGenericRead) != 0) access |= 0x00120089;
  if ((asked & smb::wire::kAccessGenericWrite) != 0) access |= 0x00120116;
  return access;
}

}  // namespace

NtStatus ScriptedConnection::CheckCreate(Call& call, const smb::wire::CreateRequest& request,
                                         const ScriptedShare::Found& found) {
  const ScriptedShare& share = *call.tree->tree;
  const Disposition disposition = request.disposition;
  if (found.status == NtStatus::kObjectNameNotFound) {
    if (disposition == Disposition::kOpen || disposition == Disposition::kOverwrite) {
      return found.status;
    }
    return share.writable ? NtStatus::kSuccess : NtStatus::kMediaWriteProtected;
  }
  if (found.status != NtStatus::kSuccess) return found.status;
  const ScriptedFile& file = *found.file;
  if (disposition == Disposition::kCreate) return NtStatus::kObjectNameCollision;
  if (Overwrites(disposition) && !share.writable) return NtStatus::kMediaWriteProtected;
  if (file.denied) return NtStatus::kAccessDenied;
  if (file.delete_pending) return NtStatus::kDeletePending;
  if ((request.options & smb::wire::kOptionDirectory) != 0 && !file.is_directory()) {
    return NtStatus::kNotADirectory;
  }
  if ((request.options & smb::wire::kOptionNonDirectory) != 0 && file.is_directory()) {
    return NtStatus::kFileIsADirectory;
  }
  if (!share.writable) return NtStatus::kSuccess;
  const bool read_only = (file.extra_attributes & smb::wire::kAttributeReadonly) != 0;
  constexpr uint32_t kData = smb::wire::kAccessWriteData | smb::wire::kAccessAppendData;
  if (read_only && !file.is_directory() &&
      (Overwrites(disposition) || (request.desired_access & kData) != 0)) {
    return NtStatus::kAccessDenied;
  }
  if (read_only && (request.options & smb::wire::kOptionDeleteOnClose) != 0) {
    return NtStatus::kCannotDelete;
  }
  return NtStatus::kSuccess;
}

// Others' leases in the way of this open. True: it waits until they are given back.
bool ScriptedConnection::WaitsForLeases(Call& call, const smb::wire::CreateRequest& request,
                                        const ScriptedFile& file) {
  const uint32_t access = AccessOf(request.desired_access, call.tree->tree->writable);
  ScriptedOpen looks;
  looks.access = access;
  if (!looks.uses_data() && !Overwrites(request.disposition)) return false;
  uint32_t keep = smb::wire::kLeaseRead | smb::wire::kLeaseHandle;
  if (Overwrites(request.disposition)) keep = 0;
  if (server_.opens_->ViolatesSharing(file, access, request.share_access)) {
    keep &= ~uint32_t{smb::wire::kLeaseHandle};
  }
  std::optional<smb::wire::LeaseKey> own;
  if (request.lease.has_value()) own = request.lease->key;
  return server_.opens_->BreakOthers(file, client(), own, keep);
}

std::shared_ptr<ScriptedFile> ScriptedConnection::MakeOrOverwrite(
    Call& call, const smb::wire::CreateRequest& request, const ScriptedShare::Found& found,
    smb::wire::CreateAction& action) {
  ScriptedShare& share = *call.tree->tree;
  const absl::Time now = runtime::Loop::Current().Now();
  std::shared_ptr<ScriptedFile> file = found.file;
  if (found.status == NtStatus::kObjectNameNotFound) {
    const std::u16string_view name = request.name;
    const size_t slash = name.rfind(u'\\');
    std::shared_ptr<ScriptedFile> parent = share.root();
    if (slash != std::u16string_view::npos) {
      parent = share.Walk(name.substr(0, slash), /*follow_last_symlink=*/true).file;
    }
    const bool directory = (request.options & smb::wire::kOptionDirectory) != 0;
    file = share.Make(parent, slash == std::u16string_view::npos ? name : name.substr(slash + 1),
                      directory ? FileKind::kDirectory : FileKind::kFile, now);
    action = smb::wire::CreateAction::kCreated;
  } else if (Overwrites(request.disposition) && file->kind == FileKind::kFile) {
    file->Resize(0);
    file->last_write = now;
    action = request.disposition == Disposition::kSupersede ? smb::wire::CreateAction::kSuperseded
                                                            : smb::wire::CreateAction::kOverwritten;
  } else {
    return file;
  }
  file->extra_attributes = request.file_attributes & kSettable;
  for (const smb::wire::ExtendedAttribute& attribute : request.attributes) {
    file->extended[smb::wire::FoldCaseUtf8(attribute.name)] = attribute.value;
  }
  return file;
}

void ScriptedConnection::GrantContexts(const smb::wire::CreateRequest& request, ScriptedOpen& open,
                                       smb::wire::CreateResponse& response) {
  if (request.lease.has_value() && server_.options_.leases && !open.file->is_directory()) {
    const ScriptedLease& lease = server_.opens_->Grant(client(), *request.lease, open.file);
    open.lease_key = request.lease->key;
    response.oplock = smb::wire::OplockLevel::kLease;
    response.lease = *request.lease;
    response.lease->state = lease.state;
    response.lease->epoch = lease.epoch;
    response.lease->flags = (request.lease->flags & smb::wire::kLeaseParentKeySet) |
                            (lease.breaking ? uint32_t{smb::wire::kLeaseBreakInProgress} : 0);
  }
  const bool persistent = request.durable.has_value() && open.share->persistent_handles &&
                          (request.durable->flags & smb::wire::kDurablePersistent) != 0;
  const bool handle_lease =
      response.lease.has_value() && (response.lease->state & smb::wire::kLeaseHandle) != 0;
  if (!request.durable.has_value()) return;
  open.create_guid = request.durable->create_guid;
  if (server_.options_.durable_for <= absl::ZeroDuration() || (!handle_lease && !persistent)) {
    return;
  }
  open.persistent = persistent;
  open.durable_for = server_.options_.durable_for;
  response.durable = smb::wire::DurableResponse{
      .timeout_ms = static_cast<uint32_t>(absl::ToInt64Milliseconds(open.durable_for)),
      .flags = persistent ? uint32_t{smb::wire::kDurablePersistent} : 0};
}

void ScriptedConnection::ReplyOpened(Call& call, const smb::wire::CreateRequest& request,
                                     ScriptedOpen open, smb::wire::CreateResponse response) {
  const ScriptedFile& file = *open.file;
  response.attributes = file.Attributes();
  response.flags = file.ReparseTag() != 0 ? 1 : 0;
  response.file_id = open.id;
  if (request.query_on_disk_id) {
    response.on_disk_id = smb::wire::OnDiskId{.file = file.id, .volume = 1};
  }
  if (request.query_maximal_access) {
    response.maximal_access =
        smb::wire::MaximalAccess{.access = open.share->writable ? 0x001f01ffu : 0x001200a9u};
  }
  call.earlier_file_id = open.id;
  call.session->opens[open.id.volatile_id] = std::move(open);
  Reply(call, smb::wire::EncodeCreateResponse, response);
}

// The answer was lost, the request comes again: the same handle, and nothing is done twice.
bool ScriptedConnection::Replayed(Call& call, const smb::wire::CreateRequest& request) {
  if (!request.durable.has_value()) return false;
  for (auto& [id, open] : call.session->opens) {
    if (open.create_guid != request.durable->create_guid) continue;
    if (!call.header.Has(smb::wire::kFlagReplay)) {
      ReplyError(call, NtStatus::kDuplicateObjectId);
      return true;
    }
    ScriptedOpen again = open;
    smb::wire::CreateResponse response;
    response.action = smb::wire::CreateAction::kCreated;
    GrantContexts(request, again, response);
    ReplyOpened(call, request, std::move(again), response);
    return true;
  }
  return false;
}

// [MS-SMB2] 3.3.5.9.12.
void ScriptedConnection::Reconnect(Call& call, const smb::wire::CreateRequest& request) {
  std::optional<ScriptedOpen> open =
      server_.opens_->TakeDurable(*request.durable_reconnect, client(), request.lease);
  if (!open.has_value()) return ReplyError(call, NtStatus::kObjectNameNotFound);
  open->tree_id = call.header.tree_id;
  open->id.volatile_id = ++server_.last_file_id_;
  open->channel_sequence = call.header.channel_sequence;
  smb::wire::CreateResponse response;
  if (open->lease_key.has_value()) {
    const ScriptedLease* const lease = server_.opens_->FindLease(client(), *open->lease_key);
    response.oplock = smb::wire::OplockLevel::kLease;
    response.lease = *request.lease;
    response.lease->state = lease == nullptr ? 0 : lease->state;
    response.lease->epoch = lease == nullptr ? 0 : lease->epoch;
  }
  ReplyOpened(call, request, *std::move(open), response);
}

void ScriptedConnection::Create(Call& call) {
  const absl::StatusOr<smb::wire::CreateRequest> request =
      smb::wire::DecodeCreateRequest(call.body);
  if (!request.ok()) return ReplyError(call, NtStatus::kInvalidParameter);
  if (call.tree->tree == nullptr) return ReplyError(call, NtStatus::kObjectNameNotFound);
  if (request->durable_reconnect.has_value()) return Reconnect(call, *request);
  if (Replayed(call, *request)) return;
  ScriptedShare& share = *call.tree->tree;
  std::u16string_view name = request->name;
  if (call.header.Has(smb::wire::kFlagDfs)) {  // host\share\path
    for (int i = 0; i < 2; ++i) name.remove_prefix(std::min(name.find(u'\\'), name.size() - 1) + 1);
  }
  const bool follow = (request->options & smb::wire::kOptionOpenReparsePoint) == 0;
  const ScriptedShare::Found found = share.Walk(name, follow);
  if (found.status == NtStatus::kStoppedOnSymlink) {
    smb::wire::SymlinkError error{.unparsed_bytes = static_cast<uint16_t>(found.unparsed_units * 2),
                                  .relative = found.file->relative,
                                  .substitute_name = found.file->target,
                                  .print_name = found.file->target};
    std::vector<uint8_t> error_data;
    smb::wire::Writer writer(&error_data);
    smb::wire::EncodeSymlinkError(error, writer);
    return ReplyError(call, found.status, error_data, negotiate_response_.dialect == Dialect::k311);
  }
  if (const NtStatus status = CheckCreate(call, *request, found); status != NtStatus::kSuccess) {
    return ReplyError(call, status);
  }
  const uint32_t access = AccessOf(request->desired_access, share.writable);
  const bool exists = found.status == NtStatus::kSuccess;
  if (request->lease.has_value() && server_.options_.leases) {
    const ScriptedLease* const known = server_.opens_->FindLease(client(), request->lease->key);
    if (known != nullptr && known->file != found.file) {
      return ReplyError(call, NtStatus::kInvalidParameter);  // A key is one file's.
    }
  }
  if (exists) {
    server_.opens_->DropDurable(*found.file, access, request->share_access);
    if (WaitsForLeases(call, *request, *found.file)) {
      call.waits = true;
      call.waits_until = runtime::Loop::Current().Now() + absl::Seconds(36);
      return;
    }
    if (server_.opens_->ViolatesSharing(*found.file, access, request->share_access)) {
      return ReplyError(call, NtStatus::kSharingViolation);
    }
  }
  if (!share.writable && (access & kChanges & request->desired_access) != 0 &&
      (request->options & smb::wire::kOptionDeleteOnClose) != 0) {
    return ReplyError(call, NtStatus::kMediaWriteProtected);
  }
  smb::wire::CreateResponse response;
  ScriptedOpen open;
  open.file = MakeOrOverwrite(call, *request, found, response.action);
  open.tree_id = call.header.tree_id;
  open.share = &share;
  open.path = absl::StrReplaceAll(smb::wire::Utf16ToUtf8(name), {{"\\", "/"}});
  open.id.volatile_id = ++server_.last_file_id_;
  open.id.persistent_id = open.id.volatile_id ^ 0xf11e'0000'0000'0000;
  open.client = client();
  open.access = access;
  open.share_access = request->share_access;
  open.channel_sequence = call.header.channel_sequence;
  open.delete_on_close = (request->options & smb::wire::kOptionDeleteOnClose) != 0;
  if (response.action != smb::wire::CreateAction::kOpened) RecordMutation(call, open);
  GrantContexts(*request, open, response);
  ReplyOpened(call, *request, std::move(open), response);
}

}  // namespace dfscsi::testing
