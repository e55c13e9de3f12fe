#include "node-agent/testing/scripted_connection.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "node-agent/smb/wire/error_response.h"
#include "node-agent/smb/wire/io.h"
#include "node-agent/smb/wire/utf16.h"

namespace dfscsi::testing {
namespace {

using smb::wire::Command;
using smb::wire::Dialect;
using smb::wire::Header;
using smb::wire::NtStatus;

// Commands whose answer does not depend on a session.
bool NeedsSession(Command command) {
  return command != Command::kNegotiate && command != Command::kSessionSetup &&
         command != Command::kEcho && command != Command::kCancel;
}

bool NeedsTree(Command command) {
  return NeedsSession(command) && command != Command::kLogoff && command != Command::kTreeConnect &&
         command != Command::kOplockBreak;
}

std::string Narrow(std::u16string_view path) {
  return absl::StrReplaceAll(smb::wire::Utf16ToUtf8(path), {{"\\", "/"}});
}

bool IsPlain(const Action& action) {
  return action.delay == absl::ZeroDuration() && !action.pending && !action.drop &&
         !action.ignore && action.copies == 1 && !action.truncate_to.has_value() &&
         !action.tamper && action.close == Closing::kNothing;
}

}  // namespace

ScriptedConnection::ScriptedConnection(ScriptedServer& server,
                                       std::unique_ptr<runtime::Stream> stream, int number)
    : server_(server), stream_(std::move(stream)), number_(number) {
  server_.connections_.push_back(this);
}

ScriptedConnection::~ScriptedConnection() {
  std::erase(server_.connections_, this);
  for (const uint64_t id : own_sessions_) server_.EndSession(id, /*keep_durable=*/true);
  if (closing_ == Closing::kReset) stream_->ResetOnClose();
}

void ScriptedConnection::Close(Closing how) {
  if (how == Closing::kNothing) return;
  closing_ = std::max(closing_, how);
  end_.Cancel();
}

runtime::Task<void> ScriptedConnection::Run() {
  tasks_.Spawn(WriteLoop());
  std::vector<uint8_t> frame;
  while (!end_.cancelled()) {
    std::array<uint8_t, smb::wire::kFramePrefixSize> prefix;
    if (!(co_await stream_->ReadFull(prefix.data(), prefix.size(), end_.deadline())).ok()) break;
    const absl::StatusOr<uint32_t> size = smb::wire::DecodeFramePrefix(prefix);
    if (!size.ok() || *size == 0) {
      server_.Violation(number_, "a frame prefix that is none");
      break;
    }
    frame.resize(*size);
    if (!(co_await stream_->ReadFull(frame.data(), frame.size(), end_.deadline())).ok()) break;
    if (const absl::Duration rest = hangs_until_ - runtime::Loop::Current().Now();
        rest > absl::ZeroDuration()) {
      if (!(co_await runtime::Sleep(rest, end_.deadline())).ok()) break;
    }
    server_.opens_->SetNow(runtime::Loop::Current().Now());
    if (!HandleFrame(absl::MakeSpan(frame))) break;
  }
  server_.opens_->SetNow(runtime::Loop::Current().Now());
}

runtime::Task<void> ScriptedConnection::WriteLoop() {
  while (true) {
    while (outgoing_.empty()) {
      if (!(co_await outgoing_changed_.WaitForNotify(end_.deadline())).ok()) co_return;
    }
    const Outgoing next = std::move(outgoing_.front());
    outgoing_.pop_front();
    if (!(co_await stream_->WriteAll(next.bytes.data(), next.bytes.size(), end_.deadline())).ok()) {
      Close(Closing::kClose);
      co_return;
    }
    Close(next.close);
  }
}

// --- Requests

bool ScriptedConnection::HandleFrame(smb::wire::MutableBytes frame) {
  ++server_.frames_;
  std::shared_ptr<ScriptedSession> decrypted_by;
  smb::wire::Bytes plain = frame;
  if (smb::wire::KindOfFrame(frame) == smb::wire::FrameKind::kEncrypted) {
    const absl::StatusOr<smb::wire::TransformHeader> transform =
        smb::wire::DecodeTransformHeader(smb::wire::Bytes(frame));
    if (!transform.ok()) {
      server_.Violation(number_, "a malformed transform header");
      return false;
    }
    const auto session = server_.sessions_.find(transform->session_id);
    if (session == server_.sessions_.end() || session->second->connection != this ||
        !session->second->from_client.has_value()) {
      return false;  // Of a session that has ended: nothing can be read.
    }
    decrypted_by = session->second;
    const smb::wire::MutableBytes inner = frame.subspan(smb::wire::kTransformHeaderSize);
    if (!decrypted_by->from_client->Decrypt(*transform, inner).ok()) {
      server_.Violation(number_, "a frame that does not decrypt");
      return false;
    }
    plain = inner;
  }

  std::vector<Call> calls;
  smb::wire::PartReader parts(plain);
  while (!parts.done()) {
    const absl::StatusOr<smb::wire::Part> part = parts.Next();
    if (!part.ok()) {
      server_.Violation(number_, std::string(part.status().message()));
      return false;
    }
    Call call;
    call.header = part->header;
    call.message = part->message;
    call.body = part->body;
    call.encrypted = decrypted_by != nullptr;
    if (call.header.Has(smb::wire::kFlagRelated) && calls.empty()) {
      server_.Violation(number_, "a related request without one before it");
      return false;
    }
    calls.push_back(std::move(call));
  }
  return HandleCalls(std::move(calls), plain);
}

// What a part takes over from the one before it.
void ScriptedConnection::FollowOn(const Call& before, Call& call) {
  if (!call.header.Has(smb::wire::kFlagRelated)) return;
  if (call.header.session_id == smb::wire::kRelatedSessionId) {
    call.header.session_id = before.header.session_id;
  }
  if (call.header.tree_id == smb::wire::kRelatedTreeId) {
    call.header.tree_id = before.header.tree_id;
  }
  call.earlier_status = before.status;
  call.earlier_file_id = before.earlier_file_id;
}

bool ScriptedConnection::HandlePart(Call& call) {
  const Command command = call.header.command;
  if (command == Command::kCancel) {
    (void)CheckSession(call);  // A wrong signature is noted; CANCEL has no answer.
    server_.Record(Describe(call));
    Cancel(call.header);
    return true;
  }
  if (!TakeMessageIds(call.header)) return false;
  if (command != Command::kNegotiate && !negotiated_) {
    server_.Violation(number_, "a request before NEGOTIATE");
    return false;
  }
  call.reply_session_id = call.header.session_id;
  call.reply_tree_id = call.header.tree_id;
  call.status = CheckSession(call);
  ScriptedRequest request = Describe(call);
  request.number = server_.Count(command) + 1;
  call.action = server_.Decide(request);
  server_.Record(std::move(request));
  if (server_.options_.silent) call.action.drop = true;
  if (call.action.ignore) {
    call.no_reply = true;
    return true;
  }
  if (call.status == NtStatus::kSuccess && call.action.status.has_value()) {
    call.status = *call.action.status;
  }
  if (call.status == NtStatus::kSuccess && call.header.Has(smb::wire::kFlagRelated) &&
      call.earlier_file_id == smb::wire::kNoFileId && !smb::wire::IsSuccess(call.earlier_status)) {
    call.status = call.earlier_status;  // There is nothing to act on.
  }
  if (call.status == NtStatus::kSuccess) Execute(call);
  if (!call.waits && call.reply.empty()) ReplyError(call, call.status);
  if (call.action.drop) call.no_reply = true;
  return !end_.cancelled();
}

bool ScriptedConnection::TakeMessageIds(const Header& header) {
  const uint64_t first = header.message_id;
  const uint64_t count = std::max<uint64_t>(header.credit_charge, 1);
  if (first < first_free_ || first + count > limit_ || first + count < first) {
    server_.Violation(number_, absl::StrCat(std::string(smb::wire::CommandName(header.command)),
                                            " with MessageId ", first, " (", count,
                                            " credits) outside of ", first_free_, " to ", limit_));
    return false;
  }
  for (uint64_t id = first; id < first + count; ++id) {
    if (!used_.insert(id).second) {
      server_.Violation(number_, absl::StrCat("MessageId ", id, " used twice"));
      return false;
    }
  }
  while (!used_.empty() && *used_.begin() == first_free_) {
    used_.erase(used_.begin());
    ++first_free_;
  }
  return true;
}

uint16_t ScriptedConnection::Grant(const Call& call) {
  uint64_t grant = std::max<uint16_t>(call.header.credits, 1);
  const uint64_t held = limit_ - first_free_ - used_.size();
  const auto most = static_cast<uint64_t>(std::max(server_.options_.most_credits, 1));
  grant = std::min(grant, most > held ? most - held : 0);
  if (held == 0) grant = std::max<uint64_t>(grant, 1);
  if (call.action.credits.has_value()) grant = *call.action.credits;
  limit_ += grant;
  return static_cast<uint16_t>(grant);
}

NtStatus ScriptedConnection::CheckSession(Call& call) {
  const Command command = call.header.command;
  const auto found = server_.sessions_.find(call.header.session_id);
  if (found != server_.sessions_.end() && found->second->connection == this) {
    call.session = found->second;
  }
  if (call.session != nullptr) {
    if (const NtStatus status = CheckSignature(call); status != NtStatus::kSuccess) return status;
  }
  // Nor can a signature be verified without a session's key ([MS-SMB2] 3.3.5.2.4).
  const bool cannot_verify = command == Command::kEcho && call.session == nullptr &&
                             call.header.Has(smb::wire::kFlagSigned);
  if (!NeedsSession(command) && !cannot_verify) return NtStatus::kSuccess;
  if (call.session == nullptr || !call.session->valid) return NtStatus::kUserSessionDeleted;
  if (call.session->expired && command != Command::kLogoff && command != Command::kClose &&
      command != Command::kLock) {
    return NtStatus::kNetworkSessionExpired;
  }
  if (!NeedsTree(command)) return NtStatus::kSuccess;
  const auto tree = call.session->trees.find(call.header.tree_id);
  if (tree == call.session->trees.end()) return NtStatus::kNetworkNameDeleted;
  call.tree = &tree->second;
  return NtStatus::kSuccess;
}

NtStatus ScriptedConnection::CheckSignature(Call& call) {
  ScriptedSession& session = *call.session;
  if (call.encrypted || !session.signer.has_value()) return NtStatus::kSuccess;
  if (session.encrypts && NeedsSession(call.header.command)) {
    server_.Violation(number_, "a plain request on an encrypted session");
    return NtStatus::kAccessDenied;
  }
  if (!call.header.Has(smb::wire::kFlagSigned)) {
    if (!session.valid || !session.signing_required || !NeedsSession(call.header.command)) {
      return NtStatus::kSuccess;
    }
    server_.Violation(number_, "an unsigned request on a session that signs");
    return NtStatus::kAccessDenied;
  }
  call.sign_reply = true;
  if (session.signer->Verify(call.message).ok()) return NtStatus::kSuccess;
  server_.Violation(number_, "a wrong signature");
  if (server_.options_.drops_bad_signatures) Close(Closing::kClose);
  return NtStatus::kAccessDenied;
}

ScriptedRequest ScriptedConnection::Describe(const Call& call) {
  ScriptedRequest request;
  request.when = runtime::Loop::Current().Now();
  request.connection = number_;
  request.header = call.header;
  request.body = call.body;
  request.first_of_frame = !call.header.Has(smb::wire::kFlagRelated);
  request.is_signed = call.header.Has(smb::wire::kFlagSigned);
  request.encrypted = call.encrypted;
  if (call.tree != nullptr) request.share = call.tree->share;
  smb::wire::FileId file_id = smb::wire::kNoFileId;
  switch (call.header.command) {
    case Command::kTreeConnect:
      if (auto connect = smb::wire::DecodeTreeConnectRequest(call.body); connect.ok()) {
        request.path = smb::wire::Utf16ToUtf8(
            std::u16string_view(connect->path).substr(connect->path.rfind(u'\\') + 1));
        request.share = request.path;
      }
      break;
    case Command::kCreate:
      if (auto create = smb::wire::DecodeCreateRequest(call.body); create.ok()) {
        request.path = Narrow(create->name);
      }
      break;
    case Command::kClose:
      if (auto close = smb::wire::DecodeCloseRequest(call.body); close.ok()) {
        file_id = close->file_id;
      }
      break;
    case Command::kRead:
      if (auto read = smb::wire::DecodeReadRequest(call.body); read.ok()) file_id = read->file_id;
      break;
    case Command::kWrite:
      if (auto write = smb::wire::DecodeWriteRequest(call.body); write.ok()) {
        file_id = write->file_id;
      }
      break;
    case Command::kFlush:
      if (auto flush = smb::wire::DecodeFlushRequest(call.body); flush.ok()) {
        file_id = flush->file_id;
      }
      break;
    case Command::kLock:
      if (auto lock = smb::wire::DecodeLockRequest(call.body); lock.ok()) file_id = lock->file_id;
      break;
    case Command::kSetInfo:
      if (auto set = smb::wire::DecodeSetInfoRequest(call.body); set.ok()) file_id = set->file_id;
      break;
    case Command::kQueryDirectory:
      if (auto query = smb::wire::DecodeQueryDirectoryRequest(call.body); query.ok()) {
        file_id = query->file_id;
      }
      break;
    case Command::kQueryInfo:
      if (auto query = smb::wire::DecodeQueryInfoRequest(call.body); query.ok()) {
        file_id = query->file_id;
      }
      break;
    case Command::kIoctl:
      if (auto ioctl = smb::wire::DecodeIoctlRequest(call.body); ioctl.ok()) {
        request.fsctl = ioctl->code;
        file_id = ioctl->file_id;
        if (ioctl->code == smb::wire::Fsctl::kDfsGetReferrals && ioctl->input.size() > 2) {
          request.path = smb::wire::Utf16ToUtf8(smb::wire::Utf16FromBytes(ioctl->input.subspan(2)));
          while (!request.path.empty() && request.path.back() == '\0') request.path.pop_back();
        }
      }
      break;
    default:
      break;
  }
  if (file_id == smb::wire::kNoFileId) file_id = call.earlier_file_id;
  if (call.session != nullptr && request.path.empty()) {
    const auto open = call.session->opens.find(file_id.volatile_id);
    if (open != call.session->opens.end()) request.path = open->second.path;
  }
  return request;
}

// --- Answers

void ScriptedConnection::ReplyEmpty(Call& call) {
  call.reply.assign(smb::wire::kHeaderSize, 0);
  smb::wire::Writer writer(&call.reply, 0);
  smb::wire::EncodeEmptyBody(writer);
}

void ScriptedConnection::ReplyError(Call& call, NtStatus status, smb::wire::Bytes error_data,
                                    bool as_context) {
  call.status = status;
  call.reply.assign(smb::wire::kHeaderSize, 0);
  smb::wire::Writer writer(&call.reply, 0);
  smb::wire::EncodeErrorResponse({.error_data = error_data}, as_context, writer);
}

void ScriptedConnection::ReplyBuffer(Call& call, smb::wire::Bytes output) {
  call.reply.assign(smb::wire::kHeaderSize, 0);
  smb::wire::Writer writer(&call.reply, 0);
  smb::wire::EncodeOutputBuffer(output, writer);
}

// Fills in the header. The signature comes when the frame is put together.
void ScriptedConnection::FinishReply(Call& call) {
  Header header;
  header.credit_charge = call.header.credit_charge;
  header.status = call.status;
  header.command = call.header.command;
  header.credits = Grant(call);
  header.flags = smb::wire::kFlagResponse | (call.header.flags & smb::wire::kFlagRelated);
  header.message_id = call.action.message_id.value_or(call.header.message_id);
  header.tree_id = call.reply_tree_id;
  header.session_id = call.reply_session_id;
  if (call.sign_reply && !call.encrypted && !call.action.is_unsigned) {
    header.flags |= smb::wire::kFlagSigned;
  }
  smb::wire::EncodeHeader(header, absl::MakeSpan(call.reply).first(smb::wire::kHeaderSize));
  // What is hashed is what this server said; what an attacker makes of it comes later.
  if (call.header.command == Command::kNegotiate) preauth_.Update(call.reply);
  if (call.header.command == Command::kSessionSetup && call.session != nullptr &&
      call.status == NtStatus::kMoreProcessingRequired) {
    call.session->preauth.Update(call.reply);
  }
  if (call.action.edit) call.action.edit(call.reply);
}

void ScriptedConnection::Answer(std::vector<Call> calls) {
  bool plain = !server_.options_.splits_compounds;
  for (const Call& call : calls) plain = plain && IsPlain(call.action) && !call.no_reply;
  if (plain) {
    std::vector<Call*> together;
    for (Call& call : calls) {
      FinishReply(call);
      together.push_back(&call);
    }
    return Send(together);
  }
  for (Call& call : calls) {
    if (call.no_reply) {
      if (call.action.close != Closing::kNothing) Close(call.action.close);
      continue;
    }
    if (call.action.delay > absl::ZeroDuration() || call.action.pending) {
      // The request's bytes are gone by then.
      call.message = {};
      call.body = {};
      tasks_.Spawn(AnswerLater(std::make_shared<Call>(std::move(call))));
      continue;
    }
    FinishReply(call);
    Send({&call});
  }
}

runtime::Task<void> ScriptedConnection::AnswerLater(std::shared_ptr<Call> call) {
  const uint64_t message_id = call->header.message_id;
  auto cancel = std::make_shared<runtime::CancelSource>();
  cancellable_[message_id] = cancel;
  uint64_t async_id = 0;
  if (call->action.pending) {
    async_id = ++server_.last_async_id_;
    async_ids_[async_id] = message_id;
    SendInterim(*call, async_id);
  }
  runtime::Deadline deadline = cancel->deadline();
  absl::Status slept;
  if (call->action.delay == absl::InfiniteDuration()) {
    runtime::Event never;
    slept = co_await never.WaitUntilSet(deadline);
  } else {
    slept = co_await runtime::Sleep(call->action.delay, deadline);
  }
  cancellable_.erase(message_id);
  async_ids_.erase(async_id);
  if (absl::IsCancelled(slept)) {
    // It was executed ahead of its time: to its client it has not been.
    TakeBack(*call);
    ReplyError(*call, NtStatus::kCancelled);
  }
  if (call->action.pending) call->action.credits = call->action.credits.value_or(0);
  FinishReply(*call);
  if (async_id != 0) MarkAsync(*call, async_id);
  Send({call.get()});
}

void ScriptedConnection::TakeBack(const Call& call) {
  if (call.header.command != Command::kCreate || !smb::wire::IsSuccess(call.status)) return;
  const auto found = call.session->opens.find(call.earlier_file_id.volatile_id);
  if (found == call.session->opens.end()) return;  // Its compound has closed it.
  ScriptedOpen open = std::move(found->second);
  call.session->opens.erase(found);
  server_.opens_->End(std::move(open));
}

void ScriptedConnection::SendInterim(const Call& call, uint64_t async_id) {
  Call interim;
  interim.header = call.header;
  interim.action.credits = call.action.credits;
  ReplyError(interim, NtStatus::kPending);
  Header header;
  header.credit_charge = call.header.credit_charge;
  header.status = NtStatus::kPending;
  header.command = call.header.command;
  header.credits = Grant(interim);
  header.flags = smb::wire::kFlagResponse | smb::wire::kFlagAsync;
  header.message_id = call.header.message_id;
  header.async_id = async_id;
  header.session_id = call.reply_session_id;
  smb::wire::EncodeHeader(header, absl::MakeSpan(interim.reply).first(smb::wire::kHeaderSize));
  interim.session = call.session;
  interim.encrypted = call.encrypted;
  interim.action = {};
  Send({&interim});
}

void ScriptedConnection::Cancel(const Header& header) {
  uint64_t message_id = header.message_id;
  if (header.Has(smb::wire::kFlagAsync)) {
    const auto known = async_ids_.find(header.async_id);
    if (known == async_ids_.end()) return;  // It was answered meanwhile.
    message_id = known->second;
  }
  const auto waiting = cancellable_.find(message_id);
  if (waiting != cancellable_.end()) waiting->second->Cancel();
}

// Puts finished replies into one frame: padding, signatures or encryption, and the script's last
// word.
void ScriptedConnection::Send(const std::vector<Call*>& calls) {
  std::vector<uint8_t> frame;
  for (size_t i = 0; i < calls.size(); ++i) {
    Call& call = *calls[i];
    const bool last = i + 1 == calls.size();
    if (!last) call.reply.resize((call.reply.size() + 7) / 8 * 8);
    const smb::wire::MutableBytes message = absl::MakeSpan(call.reply);
    if (!last) {
      smb::wire::PatchNextCommand(message, static_cast<uint32_t>(call.reply.size()));
    }
    const absl::StatusOr<Header> header = smb::wire::DecodeHeader(call.reply);
    if (header.ok() && header->Has(smb::wire::kFlagSigned) && call.session != nullptr &&
        call.session->signer.has_value()) {
      smb::wire::Signature signature = call.session->signer->Sign(call.reply);
      if (call.action.bad_signature) signature[3] ^= 0x40;
      smb::wire::PatchSignature(message, signature);
    }
    frame.insert(frame.end(), call.reply.begin(), call.reply.end());
  }
  Call& first = *calls.front();
  if (first.encrypted && first.session != nullptr && first.session->to_client.has_value()) {
    ScriptedSession& session = *first.session;
    std::vector<uint8_t> sealed(smb::wire::kTransformHeaderSize + frame.size());
    const smb::wire::Bytes plain = frame;
    session.to_client->Encrypt(session.id, ++session.last_nonce, absl::MakeConstSpan(&plain, 1),
                               absl::MakeSpan(sealed));
    if (first.action.bad_signature) sealed[5] ^= 0x40;
    frame = std::move(sealed);
  }
  Queue(std::move(frame), first.action);
}

void ScriptedConnection::Queue(std::vector<uint8_t> frame, const Action& action) {
  if (action.tamper) action.tamper(frame);
  const std::array<uint8_t, smb::wire::kFramePrefixSize> prefix =
      smb::wire::FramePrefix(static_cast<uint32_t>(frame.size()));
  frame.insert(frame.begin(), prefix.begin(), prefix.end());
  Closing close = action.close;
  if (action.truncate_to.has_value()) {
    frame.resize(std::min(frame.size(), prefix.size() + *action.truncate_to));
    close = std::max(close, Closing::kClose);
  }
  for (int i = 0; i < action.copies; ++i) {
    outgoing_.push_back({frame, i + 1 == action.copies ? close : Closing::kNothing});
  }
  outgoing_changed_.NotifyAll();
}

}  // namespace dfscsi::testing
