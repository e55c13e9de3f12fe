#include "node-agent/smb/connection.h"

#include <string.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "node-agent/base/status_macros.h"
#include "node-agent/smb/connection_internal.h"
#include "node-agent/smb/wire/create.h"
#include "node-agent/smb/wire/filetime.h"
#include "node-agent/smb/wire/utf16.h"

namespace dfscsi::smb {

// Takes the call off the connection if its caller is destroyed, cancelled or out of time.
class Connection::CallGuard {
 public:
  CallGuard(Connection& connection, std::shared_ptr<CallState> call)
      : connection_(connection), call_(std::move(call)) {}
  CallGuard(const CallGuard&) = delete;
  ~CallGuard() {
    if (!taken_) connection_.Abandon(call_);
  }
  void Taken() { taken_ = true; }

 private:
  Connection& connection_;
  const std::shared_ptr<CallState> call_;
  bool taken_ = false;  // Its caller has the responses.
};

// Gives back what a CREATE opened, or a LOCK locked, if its caller goes between the frames of one
// compound.
class Connection::OpenedGuard {
 public:
  OpenedGuard() = default;
  OpenedGuard(const OpenedGuard&) = delete;
  ~OpenedGuard() {
    for (const Handle& handle : handles_) {
      if (handle.on_late) handle.on_late(handle.created);
    }
  }
  void Opened(std::function<void(const Response&)> on_late, const Response& created) {
    handles_.push_back({std::move(on_late), created});
  }
  // By a CLOSE that belongs to the latest.
  void DismissLatest() {
    if (!handles_.empty()) handles_.pop_back();
  }
  void Dismiss() { handles_.clear(); }

 private:
  struct Handle {
    std::function<void(const Response&)> on_late;
    Response created;
  };
  std::vector<Handle> handles_;
};

namespace {

// A CREATE whose CLOSE is in its frame leaves nothing to give back. The CLOSE is of the CREATE that
// the parts before it are related to: there may be another, unrelated one before.
void ForgetWhatIsClosed(std::vector<Request>& requests) {
  bool closed = false;
  for (auto request = requests.rbegin(); request != requests.rend(); ++request) {
    if (request->related) {
      closed |= request->command == wire::Command::kClose;
    } else if (std::exchange(closed, false)) {
      request->on_late = nullptr;
    }
  }
}

// Where a request's body has its FileId ([MS-SMB2] 2.2.15 to 2.2.39).
size_t FileIdOffset(wire::Command command) {
  switch (command) {
    case wire::Command::kQueryInfo:
      return wire::kHeaderSize + 24;
    case wire::Command::kRead:
    case wire::Command::kWrite:
    case wire::Command::kSetInfo:
      return wire::kHeaderSize + 16;
    default:
      return wire::kHeaderSize + 8;
  }
}

// Of one that is no CREATE.
std::optional<wire::FileId> FileNamedBy(const Request& request) {
  wire::FileId file_id;
  const size_t offset = FileIdOffset(request.command);
  if (request.message.size() < offset + sizeof file_id) return std::nullopt;
  memcpy(&file_id, request.message.data() + offset, sizeof file_id);
  return file_id;
}

}  // namespace

void NameFile(const wire::FileId& file_id, Request& request) {
  request.related = false;
  const size_t offset = FileIdOffset(request.command);
  if (request.message.size() < offset + sizeof file_id) return;
  memcpy(request.message.data() + offset, &file_id, sizeof file_id);
}
static_assert(sizeof(wire::FileId) == 16);

Connection::Connection(std::unique_ptr<runtime::Stream> stream, std::string host, Options options)
    : options_(std::move(options)),
      host_(std::move(host)),
      stream_(std::move(stream)),
      silence_({.suspect_after = options_.suspect_after}) {}

Connection::~Connection() { Close(absl::UnavailableError("the connection was given up")); }

runtime::Task<absl::StatusOr<std::shared_ptr<Connection>>> Connection::Negotiate(
    std::unique_ptr<runtime::Stream> stream, std::string host, Options options,
    runtime::Deadline deadline) {
  auto connection =
      std::make_shared<Connection>(std::move(stream), std::move(host), std::move(options));
  connection->tasks_.Spawn(connection->ReadLoop());
  connection->tasks_.Spawn(connection->WriteLoop());
  CO_RETURN_IF_ERROR(co_await connection->DoNegotiate(deadline));
  connection->tasks_.Spawn(connection->Watch());
  co_return connection;
}

runtime::Task<absl::Status> Connection::DoNegotiate(runtime::Deadline deadline) {
  wire::NegotiateRequest& request = negotiate_request_;
  request.security_mode = wire::kSigningEnabled;
  if (options_.signing == Signing::kRequired) request.security_mode |= wire::kSigningRequired;
  request.capabilities = wire::kCapDfs | wire::kCapLeasing | wire::kCapLargeMtu;
  if (options_.highest_dialect >= wire::Dialect::k300) {
    request.capabilities |= wire::kCapEncryption | wire::kCapPersistentHandles;
  }
  request.client_guid = options_.client_guid;
  for (const wire::Dialect dialect :
       {wire::Dialect::k210, wire::Dialect::k300, wire::Dialect::k302, wire::Dialect::k311}) {
    if (dialect >= options_.lowest_dialect && dialect <= options_.highest_dialect) {
      request.dialects.push_back(dialect);
    }
  }
  if (options_.highest_dialect == wire::Dialect::k311) {
    request.contexts.hashes = {wire::kSha512};
    runtime::Loop& loop = runtime::Loop::Current();
    for (int i = 0; i < 32; ++i) {
      request.contexts.salt.push_back(static_cast<uint8_t>(loop.Random()));
    }
    request.contexts.ciphers = options_.ciphers;
    request.contexts.signings = options_.signing_algorithms;
    request.contexts.net_name = wire::Utf8ToUtf16(host_).value_or(u"");
  }
  std::vector<Request> requests;
  requests.push_back(MakeRequest(wire::Command::kNegotiate, wire::EncodeNegotiateRequest, request));
  CO_ASSIGN_OR_RETURN(std::vector<Response> responses,
                      co_await Call(std::move(requests), deadline));
  const Response& response = responses.front();
  if (!wire::IsSuccess(response.header.status)) {
    if (response.header.status == wire::NtStatus::kNotSupported) {
      co_return absl::FailedPreconditionError(
          absl::StrCat(host_, " speaks no SMB dialect that is allowed here"));
    }
    co_return wire::ToStatus(response.header.status, absl::StrCat("NEGOTIATE with ", host_));
  }
  CO_ASSIGN_OR_RETURN(negotiated_, wire::DecodeNegotiateResponse(response.body()));
  if (const auto told = wire::TimeOfFileTime(negotiated_.system_time); told.has_value()) {
    clock_ahead_ = *told - runtime::Loop::Current().Now();
  }
  negotiated_.security_buffer = {};  // Points into the response; nobody needs its hints.
  co_return CheckNegotiated();
}

// [MS-SMB2] 3.2.5.2: what was chosen must have been offered.
absl::Status Connection::CheckNegotiated() {
  const auto offered = [](const auto& list, auto chosen) {
    return std::find(list.begin(), list.end(), chosen) != list.end();
  };
  if (!offered(negotiate_request_.dialects, negotiated_.dialect)) {
    return absl::FailedPreconditionError(
        absl::StrCat(host_, " chose a dialect that was not offered: 0x",
                     absl::Hex(static_cast<uint16_t>(negotiated_.dialect))));
  }
  security_.dialect = negotiated_.dialect;
  if (negotiated_.dialect < wire::Dialect::k300) {
    security_.signing_id = wire::SigningId::kHmacSha256;
  } else {
    security_.signing_id = wire::SigningId::kAesCmac;
    if ((negotiated_.capabilities & wire::kCapEncryption) != 0) {
      security_.cipher_id = wire::CipherId::kAes128Ccm;
    }
  }
  if (negotiated_.dialect == wire::Dialect::k311) {
    const wire::NegotiateContexts& chosen = negotiated_.contexts;
    security_.cipher_id = wire::CipherId::kNone;
    if (!chosen.ciphers.empty()) security_.cipher_id = chosen.ciphers.front();
    if (!chosen.signings.empty()) security_.signing_id = chosen.signings.front();
    if (!offered(chosen.hashes, wire::kSha512) ||
        (security_.cipher_id != wire::CipherId::kNone &&
         !offered(options_.ciphers, security_.cipher_id)) ||
        (!chosen.signings.empty() && !offered(options_.signing_algorithms, security_.signing_id))) {
      return absl::FailedPreconditionError(
          absl::StrCat(host_, " chose an algorithm that was not offered"));
    }
  }
  if (options_.encryption == Encryption::kRequired &&
      security_.cipher_id == wire::CipherId::kNone) {
    return absl::FailedPreconditionError(
        absl::StrCat(host_, " cannot encrypt, which is required here"));
  }
  return absl::OkStatus();
}

uint32_t Connection::max_read_bytes() const {
  return std::min(options_.max_read_bytes, negotiated_.max_read_bytes);
}

uint32_t Connection::max_write_bytes() const {
  return std::min(options_.max_write_bytes, negotiated_.max_write_bytes);
}

uint32_t Connection::max_transact_bytes() const {
  return std::min<uint32_t>(1 << 20, negotiated_.max_transact_bytes);
}

runtime::Task<absl::StatusOr<std::vector<Response>>> Connection::Call(std::vector<Request> requests,
                                                                      runtime::Deadline deadline) {
  int charge = 0;
  bool sign_of_life = false;
  for (const Request& request : requests) {
    if (!request.well_formed) {
      co_return absl::InvalidArgumentError("a name or a length does not fit into an SMB request");
    }
    charge += ChargeOf(request);
    // An acknowledgment must not wait behind requests of ours that wait for it, at the server.
    sign_of_life |=
        request.command == wire::Command::kEcho || request.command == wire::Command::kOplockBreak;
  }
  if (requests.size() > 1 && charge > window_.largest_charge()) {
    co_return co_await CallOneByOne(std::move(requests), deadline);
  }
  const absl::StatusOr<uint64_t> first_id = co_await window_.Acquire(
      charge,
      sign_of_life ? SequenceWindow::Purpose::kSignOfLife : SequenceWindow::Purpose::kRequest,
      deadline);
  if (absl::IsResourceExhausted(first_id.status()) && requests.size() > 1) {
    co_return co_await CallOneByOne(std::move(requests), deadline);
  }
  CO_RETURN_IF_ERROR(first_id.status());
  if (closed_) co_return absl::UnavailableError(close_reason_.message());
  auto call = std::make_shared<CallState>();
  call->requests = std::move(requests);
  ForgetWhatIsClosed(call->requests);
  Outgoing frame = EncodeFrame(call, *first_id);
  CallGuard guard(*this, call);
  Send(std::move(frame));
  CO_RETURN_IF_ERROR(co_await call->done.WaitUntilSet(deadline));
  guard.Taken();
  CO_RETURN_IF_ERROR(call->status);
  co_return std::move(call->responses);
}

runtime::Task<absl::StatusOr<std::vector<Response>>> Connection::CallOneByOne(
    std::vector<Request> requests, runtime::Deadline deadline) {
  std::vector<Response> responses;
  std::optional<wire::FileId> opened;
  OpenedGuard give_back;
  for (Request& request : requests) {
    const bool related = request.related;
    if (related && !opened.has_value()) {
      // What follows a CREATE that failed fails likewise ([MS-SMB2] 3.3.5.2.7.2).
      responses.push_back(responses.back());
      continue;
    }
    const wire::Command command = request.command;
    if (related) {
      NameFile(*opened, request);
      if (command == wire::Command::kClose) give_back.DismissLatest();
    } else {
      // What follows is related to this one, also if it fails.
      opened = command == wire::Command::kCreate ? std::nullopt : FileNamedBy(request);
    }
    const std::function<void(const Response&)> on_late = request.on_late;
    std::vector<Request> one;
    one.push_back(std::move(request));
    absl::StatusOr<std::vector<Response>> answered = co_await Call(std::move(one), deadline);
    if (absl::IsUnavailable(answered.status()) && !responses.empty()) {
      co_return absl::AbortedError(answered.status().message());  // The parts before were executed.
    }
    CO_RETURN_IF_ERROR(answered.status());
    responses.push_back(std::move(answered->front()));
    const Response& response = responses.back();
    if (related || !wire::IsSuccess(response.header.status)) continue;
    give_back.Opened(on_late, response);
    if (command == wire::Command::kCreate) {
      CO_ASSIGN_OR_RETURN(const wire::CreateResponse created,
                          wire::DecodeCreateResponse(response.body()));
      opened = created.file_id;
    }
  }
  give_back.Dismiss();
  co_return responses;
}

void Connection::Close(absl::Status why) {
  if (closed_) return;
  closed_ = true;
  close_reason_ = std::move(why);
  const std::string reason(close_reason_.message());
  const bool broken = absl::IsDataLoss(close_reason_);
  window_.Close();
  outgoing_.clear();
  absl::flat_hash_map<uint64_t, Pending> pending = std::move(pending_);
  pending_.clear();
  // In the order of asking: that of a hash table differs between processes, and whoever is told
  // first acts first.
  std::vector<uint64_t> ids;
  ids.reserve(pending.size());
  for (const auto& [id, part] : pending) ids.push_back(id);
  std::sort(ids.begin(), ids.end());
  for (const uint64_t id : ids) {
    const Pending& part = pending.at(id);
    if (part.call == nullptr || part.call->done.is_set()) continue;
    part.call->status = broken                   ? close_reason_
                        : part.call->on_the_wire ? absl::AbortedError(reason)
                                                 : absl::UnavailableError(reason);
    part.call->done.Set();
  }
  outgoing_changed_.NotifyAll();
  silence_changed_.NotifyAll();
  health_changed_.NotifyAll();
}

}  // namespace dfscsi::smb
