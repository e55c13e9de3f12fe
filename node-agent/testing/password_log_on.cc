#include "node-agent/testing/password_log_on.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "node-agent/base/status_macros.h"
#include "node-agent/runtime/loop.h"
#include "node-agent/smb/wire/crypto_key.h"

namespace dfscsi::testing {
namespace {

// Tokens are words with blanks between:
//   client HELLO user nonce      server CHALLENGE nonce
//   client PROOF hex             server MORE, client ANYWAY: as many rounds as the server wants
//   (server DONE hex)
smb::wire::Bytes AsBytes(std::string_view text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

std::string Derive(const Secret& password, std::string_view label, const std::string& nonces) {
  const smb::wire::Key key =
      smb::wire::DeriveKey(AsBytes(password.Expose()), label, AsBytes(nonces), 16);
  return std::string(reinterpret_cast<const char*>(key.bytes().data()), key.bytes().size());
}

std::string Hex(std::string_view bytes) {
  std::string hex;
  for (const char c : bytes)
    absl::StrAppend(&hex, absl::Hex(static_cast<unsigned char>(c), absl::kZeroPad2));
  return hex;
}

std::vector<std::string> Words(std::string_view token) {
  return absl::StrSplit(absl::string_view(token.data(), token.size()), ' ');
}

}  // namespace

// --- The server

class PasswordAcceptor::Exchange final : public LogOnExchange {
 public:
  explicit Exchange(PasswordAcceptor& acceptor)
      : acceptor_(acceptor), nonce_(absl::StrCat("s", ++acceptor.last_nonce_)) {}

  absl::StatusOr<LogOnReply> Accept(std::string_view token) override {
    ++round_;
    const std::vector<std::string> words = Words(token);
    if (round_ == 1) {
      if (words.size() != 3 || words[0] != "HELLO") {
        return absl::InvalidArgumentError("not a token of this mechanism");
      }
      user_ = words[1];
      nonces_ = absl::StrCat(words[2], "/", nonce_);
      return LogOnReply{.token = absl::StrCat("CHALLENGE ", nonce_)};
    }
    if (round_ == 2) {
      const auto known = std::find_if(acceptor_.users_.begin(), acceptor_.users_.end(),
                                      [&](const PasswordUser& one) { return one.user == user_; });
      if (words.size() != 2 || words[0] != "PROOF" || known == acceptor_.users_.end() ||
          words[1] != Hex(Derive(Secret(known->password), "proof", nonces_))) {
        ++acceptor_.refused_;
        return absl::UnauthenticatedError("unknown user or wrong password");
      }
      password_ = Secret(known->password);
    }
    if (round_ < acceptor_.rounds_) return LogOnReply{.token = "MORE"};
    ++acceptor_.accepted_;
    LogOnReply reply{.complete = true, .user = user_};
    if (acceptor_.proves_itself_) {
      reply.token = absl::StrCat("DONE ", Hex(Derive(password_, "server", nonces_)));
    }
    reply.session_key = Secret(Derive(password_, "session", nonces_));
    return reply;
  }

 private:
  PasswordAcceptor& acceptor_;
  const std::string nonce_;
  int round_ = 0;
  std::string user_;
  std::string nonces_;
  Secret password_;
};

std::unique_ptr<LogOnExchange> PasswordAcceptor::Begin() {
  return std::make_unique<Exchange>(*this);
}

void PasswordAcceptor::SetPassword(const std::string& user, std::string password) {
  std::erase_if(users_, [&](const PasswordUser& one) { return one.user == user; });
  users_.push_back({user, std::move(password)});
}

// --- The client

class PasswordAuthenticators::Client final : public smb::Authenticator {
 public:
  Client(smb::Credential credential, absl::Duration step_time, absl::Status failure)
      : credential_(std::move(credential)),
        step_time_(step_time),
        failure_(std::move(failure)),
        nonce_(absl::StrCat("c", runtime::Loop::Current().Random())) {}

  runtime::Task<absl::StatusOr<smb::AuthToken>> Step(std::string server_token,
                                                     runtime::Deadline deadline) override {
    if (step_time_ > absl::ZeroDuration()) {
      CO_RETURN_IF_ERROR(co_await runtime::Sleep(step_time_, deadline));
    }
    if (!failure_.ok()) co_return failure_;
    const std::vector<std::string> words = Words(server_token);
    smb::AuthToken ours;
    if (server_token.empty()) {
      ours.token = absl::StrCat("HELLO ", credential_.user, " ", nonce_);
      co_return ours;
    }
    if (words[0] == "CHALLENGE" && words.size() == 2) {
      nonces_ = absl::StrCat(nonce_, "/", words[1]);
      ours.token = absl::StrCat("PROOF ", Hex(Derive(credential_.password, "proof", nonces_)));
    } else if (words[0] == "MORE") {
      ours.token = "ANYWAY";
    } else if (words[0] != "DONE" || words.size() != 2 ||
               words[1] != Hex(Derive(credential_.password, "server", nonces_))) {
      co_return absl::UnauthenticatedError("the server does not know the password");
    }
    ours.complete = true;
    ours.session_key = Secret(Derive(credential_.password, "session", nonces_));
    co_return ours;
  }

 private:
  const smb::Credential credential_;
  const absl::Duration step_time_;
  const absl::Status failure_;
  const std::string nonce_;
  std::string nonces_;
};

std::unique_ptr<smb::Authenticator> PasswordAuthenticators::Begin(const smb::Credential& credential,
                                                                  std::string host) {
  ++begun_;
  return std::make_unique<Client>(credential, step_time_,
                                  failure_ ? failure_(host) : absl::OkStatus());
}

}  // namespace dfscsi::testing
