// What each command does on a scripted server ([MS-SMB2] 3.3.5).

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "node-agent/smb/wire/error_response.h"
#include "node-agent/smb/wire/filetime.h"
#include "node-agent/smb/wire/io.h"
#include "node-agent/smb/wire/reparse.h"
#include "node-agent/smb/wire/utf16.h"
#include "node-agent/testing/scripted_connection.h"

namespace dfscsi::testing {
namespace {

using smb::wire::Command;
using smb::wire::Dialect;
using smb::wire::NtStatus;

// First of `ours` that is also in `theirs`.
template <class T>
std::optional<T> FirstCommon(const std::vector<T>& ours, const std::vector<T>& theirs) {
  for (const T one : ours) {
    if (std::find(theirs.begin(), theirs.end(), one) != theirs.end()) return one;
  }
  return std::nullopt;
}

smb::wire::Guid GuidOf(const std::string& name) {
  smb::wire::Guid guid;
  const uint64_t seed = ContentSeed(name, 1);
  FillContent(seed, 0, absl::MakeSpan(guid));
  return guid;
}

// The allocated parts of what was asked about.
std::vector<smb::wire::FileRange> RangesWithin(const ScriptedFile& file,
                                               const smb::wire::FileRange& asked) {
  const std::vector<smb::wire::FileRange> all = file.allocated.value_or(
      std::vector<smb::wire::FileRange>{{.offset = 0, .length_bytes = file.size}});
  const uint64_t asked_end = std::min(file.size, asked.offset + asked.length_bytes);
  std::vector<smb::wire::FileRange> within;
  for (const smb::wire::FileRange& range : all) {
    const uint64_t begin = std::max(range.offset, asked.offset);
    const uint64_t end = std::min(range.offset + range.length_bytes, asked_end);
    if (begin < end) within.push_back({.offset = begin, .length_bytes = end - begin});
  }
  return within;
}

}  // namespace

void ScriptedConnection::Execute(Call& call) {
  switch (call.header.command) {
    case Command::kNegotiate:
      return Negotiate(call);
    case Command::kSessionSetup:
      return SessionSetup(call);
    case Command::kLogoff:
      call.sign_reply = call.sign_reply && call.session->signer.has_value();
      server_.EndSession(call.session->id, /*keep_durable=*/false);
      own_sessions_.erase(call.session->id);
      return ReplyEmpty(call);
    case Command::kTreeConnect:
      return TreeConnect(call);
    case Command::kTreeDisconnect:
      for (auto at = call.session->opens.begin(); at != call.session->opens.end();) {
        if (at->second.tree_id != call.header.tree_id) {
          ++at;
          continue;
        }
        ScriptedOpen open = std::move(at->second);
        at = call.session->opens.erase(at);
        server_.opens_->End(std::move(open));
      }
      call.session->trees.erase(call.header.tree_id);
      call.tree = nullptr;
      return ReplyEmpty(call);
    case Command::kCreate:
      return Create(call);
    case Command::kClose:
      return CloseOpen(call);
    case Command::kRead:
      return Read(call);
    case Command::kEcho:
      return ReplyEmpty(call);
    case Command::kIoctl:
      return Ioctl(call);
    case Command::kQueryDirectory:
      return QueryDirectory(call);
    case Command::kQueryInfo:
      return QueryInfo(call);
    case Command::kChangeNotify:
      // Nothing ever changes by itself: it waits until it is cancelled.
      call.action.pending = true;
      call.action.delay = absl::InfiniteDuration();
      return;
    case Command::kWrite:
      return Write(call);
    case Command::kFlush:
      return Flush(call);
    case Command::kSetInfo:
      return SetInfo(call);
    case Command::kLock:
      return Lock(call);
    case Command::kOplockBreak:
      return AcknowledgeBreak(call);
    default:
      return ReplyError(call, NtStatus::kNotSupported);
  }
}

// --- Connection and session

void ScriptedConnection::Negotiate(Call& call) {
  absl::StatusOr<smb::wire::NegotiateRequest> request =
      smb::wire::DecodeNegotiateRequest(call.body);
  if (!request.ok() || negotiated_) {
    server_.Violation(number_, negotiated_ ? "NEGOTIATE twice" : "a malformed NEGOTIATE");
    return Close(Closing::kClose);
  }
  const ServerOptions& options = server_.options_;
  std::optional<Dialect> chosen;
  for (const Dialect offered : request->dialects) {
    if (offered < options.lowest_dialect || offered > options.highest_dialect) continue;
    if (!chosen.has_value() || offered > *chosen) chosen = offered;
  }
  if (!chosen.has_value()) return ReplyError(call, NtStatus::kNotSupported);

  smb::wire::NegotiateResponse& response = negotiate_response_;
  response.security_mode = smb::wire::kSigningEnabled;
  if (options.signing_required) response.security_mode |= smb::wire::kSigningRequired;
  response.dialect = *chosen;
  response.server_guid = GuidOf(server_.name_);
  response.capabilities = 0;
  if (options.dfs) response.capabilities |= smb::wire::kCapDfs;
  if (options.large_mtu) response.capabilities |= smb::wire::kCapLargeMtu;
  if (options.leases) response.capabilities |= smb::wire::kCapLeasing;
  if (*chosen >= Dialect::k300) {
    response.capabilities |= request->capabilities & smb::wire::kCapPersistentHandles;
  }
  response.max_transact_bytes = options.max_transact_bytes;
  response.max_read_bytes = options.max_read_bytes;
  response.max_write_bytes = options.max_write_bytes;
  response.system_time = smb::wire::FileTimeOf(runtime::Loop::Current().Now());
  signing_id_ = smb::wire::DefaultSigning(*chosen);
  if (*chosen == Dialect::k311) {
    ChooseContexts(*request, response);
  } else if (*chosen >= Dialect::k300 && !options.ciphers.empty() &&
             (request->capabilities & smb::wire::kCapEncryption) != 0) {
    response.capabilities |= smb::wire::kCapEncryption;
    cipher_id_ = smb::wire::CipherId::kAes128Ccm;
  }
  preauth_.Update(call.message);
  negotiate_request_ = *std::move(request);
  negotiated_ = true;
  Reply(call, smb::wire::EncodeNegotiateResponse, response);
}

void ScriptedConnection::ChooseContexts(const smb::wire::NegotiateRequest& request,
                                        smb::wire::NegotiateResponse& response) {
  const ServerOptions& options = server_.options_;
  response.contexts.hashes = {smb::wire::kSha512};
  response.contexts.salt.resize(32);
  for (uint8_t& byte : response.contexts.salt) {
    byte = static_cast<uint8_t>(runtime::Loop::Current().Random());
  }
  if (!request.contexts.ciphers.empty()) {
    cipher_id_ =
        FirstCommon(options.ciphers, request.contexts.ciphers).value_or(smb::wire::CipherId::kNone);
    response.contexts.ciphers = {cipher_id_};
  }
  if (const auto signing = FirstCommon(options.signing_algorithms, request.contexts.signings)) {
    signing_id_ = *signing;
    response.contexts.signings = {signing_id_};
  }
}

void ScriptedConnection::SessionSetup(Call& call) {
  const absl::StatusOr<smb::wire::SessionSetupRequest> request =
      smb::wire::DecodeSessionSetupRequest(call.body);
  if (!request.ok()) return ReplyError(call, NtStatus::kInvalidParameter);
  if ((request->flags & smb::wire::kSessionSetupBinding) != 0) {
    return ReplyError(call, NtStatus::kRequestNotAccepted);
  }
  if (call.header.session_id == 0) {
    auto session = std::make_shared<ScriptedSession>();
    session->id = ++server_.last_session_id_ + 0x5e55'0000'0000;
    session->connection = this;
    server_.sessions_[session->id] = session;
    own_sessions_.insert(session->id);
    call.session = session;
  } else if (call.session == nullptr) {
    return ReplyError(call, NtStatus::kUserSessionDeleted);
  }
  ScriptedSession& session = *call.session;
  call.reply_session_id = session.id;
  if (session.log_on == nullptr) {
    session.log_on = server_.log_on().Begin();
    session.preauth = preauth_;
  }
  session.preauth.Update(call.message);
  const auto token =
      std::string_view(reinterpret_cast<const char*>(request->security_buffer.data()),
                       request->security_buffer.size());
  absl::StatusOr<LogOnReply> reply = session.log_on->Accept(token);
  if (!reply.ok() && server_.options_.guests) reply = LogOnReply{.complete = true};
  if (!reply.ok()) {
    session.log_on.reset();
    if (!session.valid) {
      own_sessions_.erase(session.id);
      server_.sessions_.erase(session.id);
    }
    return ReplyError(call, absl::IsUnauthenticated(reply.status()) ? NtStatus::kLogonFailure
                                                                    : NtStatus::kInvalidParameter);
  }
  if (reply->complete) return FinishLogOn(call, session, *reply, request->previous_session_id);
  smb::wire::SessionSetupResponse response;
  response.security_buffer = {reinterpret_cast<const uint8_t*>(reply->token.data()),
                              reply->token.size()};
  Reply(call, smb::wire::EncodeSessionSetupResponse, response);
  call.status = NtStatus::kMoreProcessingRequired;
  // Only one that is signed with an existing key, of authenticating again, is answered so.
  call.sign_reply = call.sign_reply && session.valid;
}

void ScriptedConnection::FinishLogOn(Call& call, ScriptedSession& session, const LogOnReply& reply,
                                     uint64_t previous_session_id) {
  const ServerOptions& options = server_.options_;
  smb::wire::SessionSetupResponse response;
  response.security_buffer = {reinterpret_cast<const uint8_t*>(reply.token.data()),
                              reply.token.size()};
  session.log_on.reset();
  session.expired = false;
  if (options.guests) {
    response.session_flags = smb::wire::kSessionGuest;
  } else if (!session.valid) {
    const std::string_view key = reply.session_key.Expose();
    const Dialect dialect = negotiate_response_.dialect;
    const smb::wire::SessionKeys keys = smb::wire::DeriveSessionKeys(
        dialect, cipher_id_, {reinterpret_cast<const uint8_t*>(key.data()), key.size()},
        session.preauth);
    session.signer.emplace(signing_id_, keys.signing, smb::wire::Peer::kServer);
    if (cipher_id_ != smb::wire::CipherId::kNone) {
      session.to_client.emplace(cipher_id_, keys.server_to_client);
      session.from_client.emplace(cipher_id_, keys.client_to_server);
    }
    session.signing_required =
        ((negotiate_request_.security_mode | negotiate_response_.security_mode) &
         smb::wire::kSigningRequired) != 0;
    session.encrypts = options.encrypt_sessions && session.to_client.has_value();
  }
  if (session.encrypts) response.session_flags |= smb::wire::kSessionEncryptData;
  session.valid = true;
  call.sign_reply = session.signer.has_value();
  if (const auto previous = server_.sessions_.find(previous_session_id);
      previous != server_.sessions_.end() && previous->second.get() != &session) {
    previous->second->connection->ForgetSession(previous_session_id);
    server_.EndSession(previous_session_id, /*keep_durable=*/true);
  }
  Reply(call, smb::wire::EncodeSessionSetupResponse, response);
}

void ScriptedConnection::TreeConnect(Call& call) {
  const absl::StatusOr<smb::wire::TreeConnectRequest> request =
      smb::wire::DecodeTreeConnectRequest(call.body);
  if (!request.ok()) return ReplyError(call, NtStatus::kInvalidParameter);
  if (negotiate_response_.dialect == Dialect::k311 && !call.encrypted &&
      !call.header.Has(smb::wire::kFlagSigned) && call.session->signer.has_value()) {
    server_.Violation(number_, "an unsigned TREE_CONNECT in 3.1.1");
    return ReplyError(call, NtStatus::kAccessDenied);
  }
  const std::u16string_view path = request->path;
  const size_t slash = path.rfind(u'\\');
  if (!path.starts_with(u"\\\\") || slash < 3) {
    return ReplyError(call, NtStatus::kBadNetworkName);
  }
  ScriptedTree tree{.share = smb::wire::Utf16ToUtf8(path.substr(slash + 1))};
  smb::wire::TreeConnectResponse response;
  response.maximal_access = 0x001200a9;
  if (smb::wire::EqualsIgnoreCase(path.substr(slash + 1), u"IPC$")) {
    response.share_type = smb::wire::kSharePipe;
  } else {
    tree.tree = server_.FindShare(tree.share);
    if (tree.tree == nullptr) return ReplyError(call, NtStatus::kBadNetworkName);
    if (tree.tree->connect_status != NtStatus::kSuccess) {
      return ReplyError(call, tree.tree->connect_status);
    }
    response.share_type = tree.tree->type;
    if (tree.tree->writable) response.maximal_access = 0x001f01ff;
    if (tree.tree->persistent_handles) {
      response.capabilities |= smb::wire::kShareCapContinuousAvailability;
    }
    if (tree.tree->encrypt) response.share_flags |= smb::wire::kShareFlagEncryptData;
    if (tree.tree->dfs_root && server_.options_.dfs) {
      response.share_flags |= smb::wire::kShareFlagDfs | smb::wire::kShareFlagDfsRoot;
      response.capabilities |= smb::wire::kShareCapDfs;
    }
  }
  call.reply_tree_id = ++server_.last_tree_id_;
  call.session->trees[call.reply_tree_id] = std::move(tree);
  Reply(call, smb::wire::EncodeTreeConnectResponse, response);
}

// --- Files

ScriptedOpen* ScriptedConnection::FindOpen(Call& call, smb::wire::FileId id) {
  if (id == smb::wire::kNoFileId) id = call.earlier_file_id;
  const auto open = call.session->opens.find(id.volatile_id);
  if (open == call.session->opens.end() || open->second.tree_id != call.header.tree_id) {
    ReplyError(call, NtStatus::kFileClosed);
    return nullptr;
  }
  call.earlier_file_id = id;  // For what is related to it ([MS-SMB2] 3.3.5.2.7.2).
  return &open->second;
}

void ScriptedConnection::CheckCharge(Call& call, uint64_t payload_bytes) {
  if ((negotiate_response_.capabilities & smb::wire::kCapLargeMtu) == 0) return;
  const uint64_t charge = payload_bytes == 0 ? 1 : (payload_bytes - 1) / 65536 + 1;
  if (call.header.credit_charge >= charge) return;
  server_.Violation(number_,
                    absl::StrCat(std::string(smb::wire::CommandName(call.header.command)), " of ",
                                 payload_bytes, " bytes charged with ", call.header.credit_charge));
}

void ScriptedConnection::CloseOpen(Call& call) {
  const absl::StatusOr<smb::wire::CloseRequest> request = smb::wire::DecodeCloseRequest(call.body);
  if (!request.ok()) return ReplyError(call, NtStatus::kInvalidParameter);
  const ScriptedOpen* const open = FindOpen(call, request->file_id);
  if (open == nullptr) return;
  smb::wire::CloseResponse response;
  if (request->query_attributes) {
    response.has_attributes = true;
    response.attributes = open->file->Attributes();
  }
  const smb::wire::FileId id =
      request->file_id == smb::wire::kNoFileId ? call.earlier_file_id : request->file_id;
  const auto found = call.session->opens.find(id.volatile_id);
  ScriptedOpen closed = std::move(found->second);
  call.session->opens.erase(found);
  const std::shared_ptr<ScriptedFile> file = closed.file;
  const bool was_there = !file->parent.expired();
  ScriptedMutation removed;
  if (was_there) removed = RecordMutation(call, closed);
  if (was_there) server_.mutations_.pop_back();
  server_.opens_->End(std::move(closed));
  if (was_there && file->parent.expired()) server_.mutations_.push_back(std::move(removed));
  Reply(call, smb::wire::EncodeCloseResponse, response);
}

void ScriptedConnection::Read(Call& call) {
  const absl::StatusOr<smb::wire::ReadRequest> request = smb::wire::DecodeReadRequest(call.body);
  if (!request.ok()) return ReplyError(call, NtStatus::kInvalidParameter);
  const ScriptedOpen* const open = FindOpen(call, request->file_id);
  if (open == nullptr) return;
  CheckCharge(call, request->length_bytes);
  if (request->length_bytes > negotiate_response_.max_read_bytes) {
    server_.Violation(number_, "a READ larger than the maximum");
    return ReplyError(call, NtStatus::kInvalidParameter);
  }
  const ScriptedFile& file = *open->file;
  if (file.kind != FileKind::kFile) return ReplyError(call, NtStatus::kInvalidDeviceRequest);
  if (ScriptedOpens::IsLocked(file, open->id.persistent_id, request->offset, request->length_bytes,
                              /*to_write=*/false)) {
    return ReplyError(call, NtStatus::kFileLockConflict);
  }
  const uint64_t n = request->offset >= file.size
                         ? 0
                         : std::min<uint64_t>(request->length_bytes, file.size - request->offset);
  if (n < std::max<uint64_t>(request->minimum_bytes, request->length_bytes > 0 ? 1 : 0)) {
    return ReplyError(call, NtStatus::kEndOfFile);
  }
  smb::wire::ReadResponse response;
  response.data_length = static_cast<uint32_t>(n);
  Reply(call, smb::wire::EncodeReadResponse, response);
  const size_t at = call.reply.size();
  call.reply.resize(at + n);
  file.Read(request->offset, absl::MakeSpan(call.reply).subspan(at));
}

// --- IOCTL

void ScriptedConnection::Ioctl(Call& call) {
  const absl::StatusOr<smb::wire::IoctlRequest> request = smb::wire::DecodeIoctlRequest(call.body);
  if (!request.ok()) return ReplyError(call, NtStatus::kInvalidParameter);
  CheckCharge(call, std::max<uint64_t>(request->input.size(), uint64_t{request->max_input_bytes} +
                                                                  request->max_output_bytes));
  if (ChangingIoctl(call, *request)) return;
  switch (request->code) {
    case smb::wire::Fsctl::kDfsGetReferrals:
      return Referral(call, *request);
    case smb::wire::Fsctl::kDfsGetReferralsEx:
      if (!server_.options_.referrals_ex) return ReplyError(call, NtStatus::kFsDriverRequired);
      return Referral(call, *request);
    case smb::wire::Fsctl::kValidateNegotiate:
      return ValidateNegotiate(call, *request);
    case smb::wire::Fsctl::kGetReparsePoint:
    case smb::wire::Fsctl::kQueryAllocatedRanges:
      return FileIoctl(call, *request);
    default:
      return ReplyError(call, NtStatus::kInvalidDeviceRequest);
  }
}

void ScriptedConnection::Referral(Call& call, const smb::wire::IoctlRequest& request) {
  smb::wire::Reader reader(request.input);
  const uint16_t level = reader.U16();
  smb::wire::Bytes name;
  if (request.code == smb::wire::Fsctl::kDfsGetReferralsEx) {
    reader.Skip(6);  // RequestFlags, RequestDataLength
    name = reader.Take(reader.U16());
  } else {
    name = reader.Take(reader.remaining());
  }
  if (!reader.ok() || request.file_id != smb::wire::kNoFileId) {
    return ReplyError(call, NtStatus::kInvalidParameter);
  }
  std::u16string path = smb::wire::Utf16FromBytes(name);
  if (const size_t end = path.find(u'\0'); end != std::u16string::npos) path.resize(end);
  ScriptedServer::ReferralAnswer answer = server_.AnswerReferral(path, level);
  if (answer.status != NtStatus::kSuccess) return ReplyError(call, answer.status);
  smb::wire::IoctlResponse response{.code = request.code, .output = answer.bytes};
  if (answer.bytes.size() > request.max_output_bytes) {
    // As Samba: a reply that is cut off in the middle.
    response.output = smb::wire::Bytes(answer.bytes).first(request.max_output_bytes);
    call.status = NtStatus::kBufferOverflow;
  }
  Reply(call, smb::wire::EncodeIoctlResponse, response);
}

void ScriptedConnection::ValidateNegotiate(Call& call, const smb::wire::IoctlRequest& request) {
  const absl::StatusOr<smb::wire::ValidateNegotiateRequest> said =
      smb::wire::DecodeValidateNegotiateRequest(request.input);
  // Who says something else than what arrived has met an attacker ([MS-SMB2] 3.3.5.15.12).
  if (!said.ok() || said->guid != negotiate_request_.client_guid ||
      said->security_mode != negotiate_request_.security_mode ||
      said->capabilities != negotiate_request_.capabilities ||
      said->dialects != negotiate_request_.dialects) {
    return Close(Closing::kClose);
  }
  smb::wire::ValidateNegotiateResponse validated;
  validated.capabilities = negotiate_response_.capabilities;
  validated.guid = negotiate_response_.server_guid;
  validated.security_mode = negotiate_response_.security_mode;
  validated.dialect = negotiate_response_.dialect;
  std::vector<uint8_t> output;
  smb::wire::Writer writer(&output);
  smb::wire::EncodeValidateNegotiateResponse(validated, writer);
  Reply(call, smb::wire::EncodeIoctlResponse,
        smb::wire::IoctlResponse{.code = request.code, .output = output});
}

void ScriptedConnection::FileIoctl(Call& call, const smb::wire::IoctlRequest& request) {
  const ScriptedOpen* const open = FindOpen(call, request.file_id);
  if (open == nullptr) return;
  const ScriptedFile& file = *open->file;
  std::vector<uint8_t> output;
  smb::wire::Writer writer(&output);
  if (request.code == smb::wire::Fsctl::kGetReparsePoint) {
    if (file.kind == FileKind::kSymlink) {
      smb::wire::EncodeReparseData(
          smb::wire::SymlinkReparse{
              .relative = file.relative, .substitute_name = file.target, .print_name = file.target},
          writer);
    } else if (file.ReparseTag() == smb::wire::kTagMountPoint) {
      smb::wire::EncodeReparseData(
          smb::wire::MountPointReparse{.substitute_name = uR"(\??\C:\elsewhere)",
                                       .print_name = uR"(C:\elsewhere)"},
          writer);
    } else {
      return ReplyError(call, NtStatus::kNotAReparsePoint);
    }
  } else {
    const auto asked = smb::wire::DecodeFileRanges(request.input);
    if (!asked.ok() || asked->size() != 1) return ReplyError(call, NtStatus::kInvalidParameter);
    smb::wire::EncodeFileRanges(RangesWithin(file, asked->front()), writer);
  }
  if (output.size() > request.max_output_bytes) {
    if (request.code == smb::wire::Fsctl::kQueryAllocatedRanges && server_.options_.cuts_ranges) {
      output.resize(request.max_output_bytes);
      call.status = NtStatus::kBufferOverflow;
      return Reply(call, smb::wire::EncodeIoctlResponse,
                   smb::wire::IoctlResponse{
                       .code = request.code, .file_id = request.file_id, .output = output});
    }
    return ReplyError(call, NtStatus::kBufferTooSmall);
  }
  Reply(
      call, smb::wire::EncodeIoctlResponse,
      smb::wire::IoctlResponse{.code = request.code, .file_id = request.file_id, .output = output});
}

}  // namespace dfscsi::testing
