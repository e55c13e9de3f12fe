#include "node-agent/smb/auth/gss_authenticator.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "node-agent/base/status_macros.h"
#include "node-agent/runtime/wait.h"
#include "node-agent/smb/auth/auth_child.h"
#include "node-agent/smb/auth/auth_protocol.h"
#include "node-agent/smb/secret_refused.h"

namespace dfscsi::smb::auth {

using runtime::Deadline;
using runtime::Task;

absl::Status StatusOf(const Failure& failure) {
  switch (failure.failure_class) {
    case FailureClass::kBadCredentials:
      if (failure.gss_minor == kKdcRefusedSecret) return SecretRefusedError(failure.message);
      return absl::UnauthenticatedError(failure.message);
    case FailureClass::kNoMechanism:
      return absl::UnauthenticatedError(failure.message);
    case FailureClass::kNoKdc:
    case FailureClass::kClockSkew:
      return absl::UnavailableError(failure.message);
    case FailureClass::kProtocol:
      return absl::DataLossError(failure.message);
  }
  return absl::InternalError("unknown failure class");
}

// One child, and whose turn it is: GSSAPI does one thing at a time.
class AuthWorker {
 public:
  AuthWorker(runtime::RealLoop& loop, std::string program)
      : loop_(loop), program_(std::move(program)) {}

  absl::Status EnsureStarted() {
    if (child_.has_value()) return absl::OkStatus();
    absl::StatusOr<AuthChild> child = StartAuthChild(program_);
    if (!child.ok()) return absl::UnavailableError(child.status().message());
    child_ = *std::move(child);
    watch_ = loop_.Watch(child_->socket.get());
    reader_.emplace();
    ++generation_;
    served_ = 0;
    return absl::OkStatus();
  }

  // The child that holds a context; another generation knows nothing of it.
  int generation() const { return generation_; }
  uint64_t NextContext() { return next_context_++; }
  int users = 0;

  // Sends one request and returns its answer.
  Task<absl::StatusOr<Token>> Exchange(Request request, std::optional<int> generation,
                                       Deadline deadline) {
    CO_ASSIGN_OR_RETURN(const runtime::Mutex::Guard turn, co_await turn_.Lock(deadline));
    if (generation.has_value() && (*generation != generation_ || !child_.has_value())) {
      co_return LogOnInterruptedError();  // Another log-on was given up, and its process killed.
    }
    if (!generation.has_value() && served_ >= kLogOnsPerChild) Stop();
    CO_RETURN_IF_ERROR(EnsureStarted());
    if (!generation.has_value()) ++served_;
    // Whatever way this ends before the answer is whole, the stream is of no more use, and the
    // child may be stuck: it is killed, and the next exchange starts another.
    struct KillUnlessDone {
      AuthWorker& worker;
      bool done = false;
      ~KillUnlessDone() {
        if (!done) worker.Stop();
      }
    } unless{*this};
    CO_ASSIGN_OR_RETURN(const Secret frame, EncodeRequest(request));
    CO_RETURN_IF_ERROR(co_await Write(frame.Expose(), deadline));
    if (std::holds_alternative<End>(request)) {
      unless.done = true;
      co_return Token{};
    }
    CO_ASSIGN_OR_RETURN(const Reply reply, co_await Read(deadline));
    unless.done = true;
    if (const Failure* failure = std::get_if<Failure>(&reply)) co_return StatusOf(*failure);
    co_return std::get<Token>(reply);
  }

 private:
  static constexpr int kLogOnsPerChild = 500;

  void Stop() {
    watch_.reset();
    reader_.reset();
    child_.reset();
  }

  Task<absl::Status> Write(std::string_view bytes, Deadline deadline) {
    while (!bytes.empty()) {
      const ssize_t n = send(child_->socket.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (n > 0) {
        bytes.remove_prefix(n);
      } else if (errno == EAGAIN) {
        CO_RETURN_IF_ERROR(co_await watch_->WaitWritable(deadline));
      } else if (errno != EINTR) {
        co_return absl::UnavailableError("dfs-auth has ended");
      }
    }
    co_return absl::OkStatus();
  }

  Task<absl::StatusOr<Reply>> Read(Deadline deadline) {
    while (true) {
      const absl::Span<char> space = reader_->Space();
      const ssize_t n = recv(child_->socket.get(), space.data(), space.size(), 0);
      if (n > 0) {
        absl::StatusOr<std::optional<Secret>> frame = reader_->Received(n);
        if (!frame.ok()) co_return absl::UnavailableError(frame.status().message());
        if (frame->has_value()) {
          absl::StatusOr<Reply> reply = DecodeReply((*frame)->Expose());
          if (!reply.ok()) co_return absl::UnavailableError(reply.status().message());
          co_return reply;
        }
      } else if (n < 0 && errno == EAGAIN) {
        CO_RETURN_IF_ERROR(co_await watch_->WaitReadable(deadline));
      } else if (n == 0 || errno != EINTR) {
        co_return absl::UnavailableError("dfs-auth has ended");
      }
    }
  }

  runtime::RealLoop& loop_;
  const std::string program_;
  std::optional<AuthChild> child_;
  std::optional<FrameReader> reader_;
  std::unique_ptr<runtime::FdWatch> watch_;  // Dies before the child's socket closes.
  int generation_ = 0;
  int served_ = 0;
  uint64_t next_context_ = 1;
  runtime::Mutex turn_;
};

namespace {

class GssAuthenticator final : public Authenticator {
 public:
  GssAuthenticator(std::shared_ptr<AuthWorker> worker, const Credential& credential,
                   std::string host)
      : worker_(std::move(worker)), context_(worker_->NextContext()) {
    ++worker_->users;
    begin_ =
        Begin{.context_id = context_,
              .mechanism = credential.mechanism == smb::Mechanism::kKerberos ? Mechanism::kKerberos
                                                                             : Mechanism::kNtlm,
              .target_host = std::move(host),
              .user = credential.user,
              .domain = credential.domain,
              .password = credential.password};
  }

  ~GssAuthenticator() override {
    --worker_->users;
    if (!generation_.has_value()) return;
    struct Ender {
      static Task<void> Run(std::shared_ptr<AuthWorker> worker, uint64_t context, int generation) {
        (void)co_await worker->Exchange(End{.context_id = context}, generation,
                                        Deadline::After(absl::Seconds(10)));
      }
    };
    runtime::Loop::Current().Spawn(Ender::Run(worker_, context_, *generation_));
  }

  Task<absl::StatusOr<AuthToken>> Step(std::string server_token, Deadline deadline) override {
    Token token;
    if (begin_.has_value()) {
      Begin begin = *std::move(begin_);
      begin_.reset();
      CO_ASSIGN_OR_RETURN(token,
                          co_await worker_->Exchange(std::move(begin), std::nullopt, deadline));
      generation_ = worker_->generation();
    } else {
      auth::Step step{.context_id = context_, .token = Secret(std::move(server_token))};
      CO_ASSIGN_OR_RETURN(token,
                          co_await worker_->Exchange(std::move(step), generation_, deadline));
    }
    co_return AuthToken{.token = std::string(token.token.Expose()),
                        .complete = token.complete,
                        .session_key = std::move(token.session_key)};
  }

 private:
  const std::shared_ptr<AuthWorker> worker_;
  const uint64_t context_;
  std::optional<Begin> begin_;  // Until the first step.
  std::optional<int> generation_;
};

}  // namespace

GssAuthenticatorFactory::GssAuthenticatorFactory(runtime::RealLoop& loop, std::string program)
    : loop_(loop), program_(std::move(program)) {}

GssAuthenticatorFactory::~GssAuthenticatorFactory() = default;

std::shared_ptr<AuthWorker> GssAuthenticatorFactory::PickWorker() {
  std::shared_ptr<AuthWorker> least;
  for (const std::shared_ptr<AuthWorker>& worker : workers_) {
    if (least == nullptr || worker->users < least->users) least = worker;
  }
  if (least != nullptr && (least->users == 0 || workers_.size() >= kMostChildren)) return least;
  workers_.push_back(std::make_shared<AuthWorker>(loop_, program_));
  return workers_.back();
}

std::unique_ptr<Authenticator> GssAuthenticatorFactory::Begin(const Credential& credential,
                                                              std::string host) {
  return std::make_unique<GssAuthenticator>(PickWorker(), credential, std::move(host));
}

absl::Status GssAuthenticatorFactory::Warm() { return PickWorker()->EnsureStarted(); }

}  // namespace dfscsi::smb::auth
