#include "node-agent/smb/session.h"

#include <algorithm>
#include <functional>
#include <optional>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "node-agent/base/status_macros.h"
#include "node-agent/smb/tree.h"
#include "node-agent/smb/wire/create.h"
#include "node-agent/smb/wire/ioctl.h"
#include "node-agent/smb/wire/session.h"
#include "node-agent/smb/wire/utf16.h"

namespace dfscsi::smb {

namespace {

// An expired session is renewed in this time (a KDC may have a part in it), or is none any more.
constexpr absl::Duration kMostRenewalTime = absl::Seconds(30);

bool IsExpired(const Response& response) {
  return response.header.status == wire::NtStatus::kNetworkSessionExpired;
}

// Something was changed by a part that was executed.
bool HasChanged(const std::vector<Request>& requests, const std::vector<Response>& responses) {
  for (size_t i = 0; i < requests.size(); ++i) {
    if (requests[i].changes && wire::IsSuccess(responses[i].header.status)) return true;
  }
  return false;
}

// What the compound opened, and did not close. nullopt: nothing.
std::optional<wire::FileId> OpenedBy(const std::vector<Request>& requests,
                                     const std::vector<Response>& responses) {
  const Response& first = responses.front();
  if (requests.front().command != wire::Command::kCreate || !wire::IsSuccess(first.header.status)) {
    return std::nullopt;
  }
  for (size_t i = 1; i < requests.size(); ++i) {
    if (requests[i].command == wire::Command::kClose &&
        wire::IsSuccess(responses[i].header.status)) {
      return std::nullopt;
    }
  }
  const absl::StatusOr<wire::CreateResponse> created = wire::DecodeCreateResponse(first.body());
  return created.ok() ? std::optional<wire::FileId>(created->file_id) : std::nullopt;
}

}  // namespace

Session::Session(std::shared_ptr<Connection> connection, AuthenticatorFactory& authenticators,
                 Credential credential)
    : connection_(std::move(connection)),
      authenticators_(authenticators),
      credential_(std::move(credential)) {
  connection_->set_break_handler([this](const wire::Break& broken) { OnBreak(broken); });
}

Session::~Session() {
  connection_->set_break_handler(nullptr);
  connection_->Close(absl::UnavailableError("the session was given up"));
}

runtime::Task<absl::StatusOr<std::shared_ptr<Session>>> Session::Setup(
    std::shared_ptr<Connection> connection, AuthenticatorFactory& authenticators,
    Credential credential, uint64_t previous_session_id, runtime::Deadline deadline) {
  // A coroutine of its own: it takes no reference.
  struct Beginning {
    static runtime::Task<absl::StatusOr<std::shared_ptr<Session>>> Run(
        std::shared_ptr<Session> session, uint64_t previous_session_id,
        runtime::Deadline deadline) {
      CO_RETURN_IF_ERROR(co_await session->Authenticate(previous_session_id, deadline));
      co_return session;
    }
  };
  auto session =
      std::make_shared<Session>(std::move(connection), authenticators, std::move(credential));
  return Beginning::Run(std::move(session), previous_session_id, std::move(deadline));
}

// [MS-SMB2] 3.2.4.2.3, 3.2.5.3.
runtime::Task<absl::Status> Session::Authenticate(uint64_t previous_session_id,
                                                  runtime::Deadline deadline) {
  SecurityContext& security = connection_->security();
  const bool again = security.has_keys();
  const std::unique_ptr<Authenticator> authenticator =
      authenticators_.Begin(credential_, connection_->host());
  std::string server_token;
  // Each round is an answer of the server; GSS mechanisms need two or three.
  for (int round = 0; round < 8; ++round) {
    CO_ASSIGN_OR_RETURN(AuthToken ours, co_await authenticator->Step(server_token, deadline));
    wire::SessionSetupRequest setup;
    if (connection_->options().signing == Signing::kRequired) {
      setup.security_mode |= wire::kSigningRequired;
    }
    setup.capabilities = wire::kCapDfs;
    setup.previous_session_id = previous_session_id;
    setup.security_buffer =
        wire::Bytes(reinterpret_cast<const uint8_t*>(ours.token.data()), ours.token.size());
    std::vector<Request> requests;
    requests.push_back(
        MakeRequest(wire::Command::kSessionSetup, wire::EncodeSessionSetupRequest, setup));
    requests.front().must_sign = again;
    CO_ASSIGN_OR_RETURN(const std::vector<Response> responses,
                        co_await connection_->Call(std::move(requests), deadline));
    const Response& response = responses.front();
    const wire::NtStatus status = response.header.status;
    if (status != wire::NtStatus::kMoreProcessingRequired && !wire::IsSuccess(status)) {
      co_return wire::ToStatus(status, absl::StrCat("log-on to ", connection_->host()));
    }
    CO_ASSIGN_OR_RETURN(const wire::SessionSetupResponse answer,
                        wire::DecodeSessionSetupResponse(response.body()));
    security.session_id = response.header.session_id;
    server_token.assign(answer.security_buffer.begin(), answer.security_buffer.end());
    if (!wire::IsSuccess(status)) continue;

    if (!server_token.empty() || !ours.complete) {
      CO_ASSIGN_OR_RETURN(AuthToken last, co_await authenticator->Step(server_token, deadline));
      if (!last.session_key.empty()) ours = std::move(last);
    }
    if (!ours.complete || ours.session_key.empty()) {
      co_return absl::DataLossError("the server ended the log-on before we had a key");
    }
    co_return FinishSetup(answer, response, ours.session_key, again);
  }
  co_return absl::DataLossError("the log-on does not come to an end");
}

absl::Status Session::FinishSetup(const wire::SessionSetupResponse& answer,
                                  const Response& response, const Secret& key, bool again) {
  SecurityContext& security = connection_->security();
  // A guest has no key: nothing could be signed, and it is not who the user asked to be.
  if ((answer.session_flags & (wire::kSessionGuest | wire::kSessionNull)) != 0) {
    return absl::PermissionDeniedError(
        absl::StrCat(connection_->host(), " took the user for a guest"));
  }
  // Authenticating again leaves the keys as they are ([MS-SMB2] 3.2.5.3.2).
  if (!again) {
    security.DeriveKeys(key, connection_->preauth());
    id_ = security.session_id;
    security.signing = connection_->options().signing == Signing::kRequired ||
                       (connection_->negotiated().security_mode & wire::kSigningRequired) != 0;
    const bool encrypt = (answer.session_flags & wire::kSessionEncryptData) != 0 ||
                         connection_->options().encryption == Encryption::kRequired;
    if (encrypt) RETURN_IF_ERROR(security.StartEncrypting());
  }
  // The signature of the last reply covers, through the key, all that was negotiated.
  const wire::Bytes whole[] = {response.message};
  const bool is_signed = response.header.Has(wire::kFlagSigned);
  if (is_signed ? !security.Verify(whole)
                : security.dialect == wire::Dialect::k311 || security.signing) {
    return absl::DataLossError(absl::StrCat(
        "the log-on to ", connection_->host(),
        " was not signed rightly: the negotiation was tampered with, or our key is wrong"));
  }
  return absl::OkStatus();
}

// Whoever asks for it may go (another namespace server was quicker, say): the session is not only
// its own, and a server takes no second log-on while it waits for the rest of the first.
runtime::Task<absl::Status> Session::Reauthenticate(runtime::Deadline deadline) {
  if (renewal_ == nullptr) {
    // Refused: whoever waited does not ask again, or one wrong password locks the account.
    if (!usable_) co_return absl::UnavailableError("the session has expired");
    renewal_ = std::make_shared<Renewal>();
    renewing_.Spawn(Renew());
  }
  const std::shared_ptr<Renewal> renewal = renewal_;
  CO_RETURN_IF_ERROR(co_await renewal->ended.WaitUntilSet(deadline));
  co_return renewal->status;
}

runtime::Task<void> Session::Renew() {
  const std::shared_ptr<Renewal> renewal = renewal_;
  renewal->status =
      co_await Authenticate(/*previous_session_id=*/0, runtime::Deadline::After(kMostRenewalTime));
  if (!renewal->status.ok()) usable_ = false;
  renewal_ = nullptr;
  renewal->ended.Set();
}

void Session::GiveBackOpened(const std::vector<Request>& requests,
                             const std::vector<Response>& responses) {
  const bool closed = requests.size() > 1 && requests.back().command == wire::Command::kClose &&
                      wire::IsSuccess(responses.back().header.status);
  for (size_t i = 0; i < requests.size() && !closed; ++i) {
    if (requests[i].on_late && wire::IsSuccess(responses[i].header.status)) {
      requests[i].on_late(responses[i]);
    }
  }
}

runtime::Task<absl::StatusOr<std::vector<Response>>> Session::Call(std::vector<Request> requests,
                                                                   runtime::Deadline deadline) {
  // It may expire again while a slow server's answer is on its way; not for ever.
  constexpr int kMostExpiries = 3;
  for (int expiries = 0;; ++expiries) {
    CO_ASSIGN_OR_RETURN(std::vector<Response> responses,
                        co_await connection_->Call(requests, deadline));
    // What stands in the frame unrelated to its first part was asked by the way: its caller does
    // without.
    const auto by_the_way = std::find_if(requests.begin() + 1, requests.end(),
                                         [](const Request& request) { return !request.related; });
    const auto own = by_the_way - requests.begin();
    bool expired = false;
    for (ptrdiff_t i = 0; i < own; ++i) expired |= IsExpired(responses[static_cast<size_t>(i)]);
    for (const Response& response : responses) {
      if (response.header.status == wire::NtStatus::kUserSessionDeleted) usable_ = false;
    }
    if (!expired) co_return responses;
    if (expiries == kMostExpiries) {
      // What was to be closed in its own compound nobody else closes.
      if (requests.back().command == wire::Command::kClose) GiveBackOpened(requests, responses);
      co_return responses;
    }
    // Nothing of an expired request was executed ([MS-SMB2] 3.3.5.2.9); what came before it in its
    // compound was.
    if (HasChanged(requests, responses)) {
      co_return co_await CallRest(std::move(requests), std::move(responses), deadline);
    }
    GiveBackOpened(requests, responses);
    CO_RETURN_IF_ERROR(co_await Reauthenticate(deadline));
  }
}

runtime::Task<absl::StatusOr<std::vector<Response>>> Session::CallRest(
    std::vector<Request> requests, std::vector<Response> responses, runtime::Deadline deadline) {
  const std::optional<wire::FileId> opened = OpenedBy(requests, responses);
  // Without what it acted on there is nothing to go on with: its caller finds out.
  if (!opened.has_value()) co_return responses;
  struct GiveBack {
    std::function<void(const Response&)> on_late;
    Response created;
    ~GiveBack() {
      if (on_late) on_late(created);
    }
  } give_back{requests.front().on_late, responses.front()};
  absl::Status status = co_await Reauthenticate(deadline);
  for (size_t i = 1; i < requests.size() && status.ok(); ++i) {
    if (!IsExpired(responses[i])) continue;
    if (requests[i].command == wire::Command::kClose) give_back.on_late = nullptr;
    NameFile(*opened, requests[i]);
    std::vector<Request> one;
    one.push_back(std::move(requests[i]));
    absl::StatusOr<std::vector<Response>> answered = co_await Call(std::move(one), deadline);
    status = answered.status();
    if (answered.ok()) responses[i] = std::move(answered->front());
  }
  if (absl::IsCancelled(status) || absl::IsDeadlineExceeded(status) || absl::IsDataLoss(status)) {
    co_return status;
  }
  if (!status.ok()) co_return absl::AbortedError(status.message());
  co_return responses;
}

runtime::Task<absl::StatusOr<std::shared_ptr<Tree>>> Session::ConnectTree(
    std::string share, runtime::Deadline deadline) {
  const std::string key = absl::AsciiStrToLower(share);
  CO_ASSIGN_OR_RETURN(const runtime::Mutex::Guard guard, co_await connecting_trees_.Lock(deadline));
  if (std::shared_ptr<Tree> tree = trees_[key].lock()) co_return tree;

  wire::TreeConnectRequest request;
  const std::optional<std::u16string> path =
      wire::Utf8ToUtf16(absl::StrCat("\\\\", connection_->host(), "\\", share));
  if (!path.has_value()) co_return absl::InvalidArgumentError("a share name that is not UTF-8");
  request.path = *path;
  std::vector<Request> requests;
  requests.push_back(
      MakeRequest(wire::Command::kTreeConnect, wire::EncodeTreeConnectRequest, request));
  // 3.1.1 servers refuse an unsigned one, even where signing is optional.
  requests.front().must_sign = true;
  CO_ASSIGN_OR_RETURN(const std::vector<Response> responses,
                      co_await Call(std::move(requests), deadline));
  const Response& response = responses.front();
  if (!wire::IsSuccess(response.header.status)) {
    co_return wire::ToStatus(response.header.status,
                             absl::StrCat("share ", share, " on ", connection_->host()));
  }
  CO_ASSIGN_OR_RETURN(const wire::TreeConnectResponse answer,
                      wire::DecodeTreeConnectResponse(response.body()));
  SecurityContext& security = connection_->security();
  if ((answer.share_flags & wire::kShareFlagEncryptData) != 0 && !security.encrypting()) {
    CO_RETURN_IF_ERROR(security.StartEncrypting());
  }
  auto tree = std::make_shared<Tree>(shared_from_this(), share, response.header.tree_id, answer);
  if (!validated_) {
    CO_RETURN_IF_ERROR(co_await ValidateNegotiate(response.header.tree_id, deadline));
    validated_ = true;
  }
  trees_[key] = tree;
  co_return tree;
}

// [MS-SMB2] 3.2.5.5: before 3.1.1 only this protects the negotiation from an attacker's hand.
runtime::Task<absl::Status> Session::ValidateNegotiate(uint32_t tree_id,
                                                       runtime::Deadline deadline) {
  const wire::NegotiateResponse& negotiated = connection_->negotiated();
  if (negotiated.dialect != wire::Dialect::k300 && negotiated.dialect != wire::Dialect::k302) {
    co_return absl::OkStatus();
  }
  const wire::NegotiateRequest& sent = connection_->negotiate_request();
  wire::ValidateNegotiateRequest validate{.capabilities = sent.capabilities,
                                          .guid = sent.client_guid,
                                          .security_mode = sent.security_mode,
                                          .dialects = sent.dialects};
  std::vector<uint8_t> input;
  wire::Writer writer(&input);
  wire::EncodeValidateNegotiateRequest(validate, writer);
  wire::IoctlRequest ioctl{
      .code = wire::Fsctl::kValidateNegotiate, .input = input, .max_output_bytes = 24};
  std::vector<Request> requests;
  requests.push_back(MakeRequest(wire::Command::kIoctl, wire::EncodeIoctlRequest, ioctl));
  requests.front().tree_id = tree_id;
  requests.front().must_sign = true;
  CO_ASSIGN_OR_RETURN(const std::vector<Response> responses,
                      co_await Call(std::move(requests), deadline));
  const Response& response = responses.front();
  const absl::Status tampered = absl::DataLossError(
      absl::StrCat("the negotiation with ", connection_->host(), " was tampered with"));
  if (!response.header.Has(wire::kFlagSigned) && !connection_->security().encrypting()) {
    co_return tampered;
  }
  if (!wire::IsSuccess(response.header.status)) {
    co_return wire::ToStatus(response.header.status, "FSCTL_VALIDATE_NEGOTIATE_INFO");
  }
  CO_ASSIGN_OR_RETURN(const wire::IoctlResponse answer, wire::DecodeIoctlResponse(response.body()));
  CO_ASSIGN_OR_RETURN(const wire::ValidateNegotiateResponse said,
                      wire::DecodeValidateNegotiateResponse(answer.output));
  if (said.capabilities != negotiated.capabilities || said.guid != negotiated.server_guid ||
      said.security_mode != negotiated.security_mode || said.dialect != negotiated.dialect) {
    co_return tampered;
  }
  co_return absl::OkStatus();
}

void Session::ForgetTree(const std::string& share) { trees_.erase(absl::AsciiStrToLower(share)); }

runtime::Task<absl::Status> Session::LogOff(runtime::Deadline deadline) {
  std::vector<Request> requests;
  requests.push_back(MakeEmptyRequest(wire::Command::kLogoff));
  usable_ = false;
  co_return (co_await connection_->Call(std::move(requests), deadline)).status();
}

}  // namespace dfscsi::smb
