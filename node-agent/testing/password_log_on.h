// A log-on for tests that needs no GSSAPI and no child process: client and server know a password
// and prove it to each other by HMAC. Some rounds of tokens, as with real mechanisms.

#ifndef NODE_AGENT_TESTING_PASSWORD_LOG_ON_H_
#define NODE_AGENT_TESTING_PASSWORD_LOG_ON_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "node-agent/base/secret.h"
#include "node-agent/smb/authenticator.h"

namespace dfscsi::testing {

// The server's half of one log-on, whatever the mechanism.
struct LogOnReply {
  std::string token = {};
  bool complete = false;
  Secret session_key = {};  // Once complete.
  std::string user = {};    // Once complete.
};
class LogOnExchange {
 public:
  virtual ~LogOnExchange() = default;
  // Unauthenticated: LOGON_FAILURE. InvalidArgument: INVALID_PARAMETER. Either ends the exchange.
  virtual absl::StatusOr<LogOnReply> Accept(std::string_view token) = 0;
};
class LogOnAcceptor {
 public:
  virtual ~LogOnAcceptor() = default;
  virtual std::unique_ptr<LogOnExchange> Begin() = 0;
};

struct PasswordUser {
  std::string user;
  std::string password;
};

class PasswordAcceptor final : public LogOnAcceptor {
 public:
  explicit PasswordAcceptor(std::vector<PasswordUser> users) : users_(std::move(users)) {}

  std::unique_ptr<LogOnExchange> Begin() override;

  // Rounds until the server is content, at least 2.
  void set_rounds(int rounds) { rounds_ = rounds; }
  // The server's last reply carries a token, as with Kerberos.
  void set_proves_itself(bool proves) { proves_itself_ = proves; }
  void SetPassword(const std::string& user, std::string password);

  int64_t accepted() const { return accepted_; }
  int64_t refused() const { return refused_; }

 private:
  class Exchange;

  std::vector<PasswordUser> users_;
  int rounds_ = 2;
  bool proves_itself_ = false;
  uint64_t last_nonce_ = 0;
  int64_t accepted_ = 0;
  int64_t refused_ = 0;
};

class PasswordAuthenticators final : public smb::AuthenticatorFactory {
 public:
  std::unique_ptr<smb::Authenticator> Begin(const smb::Credential& credential,
                                            std::string host) override;

  // Each step takes this long: a KDC's time.
  void set_step_time(absl::Duration time) { step_time_ = time; }
  // What Begin()'s authenticators fail with for this host; OK: nothing.
  void set_failure(std::function<absl::Status(const std::string& host)> failure) {
    failure_ = std::move(failure);
  }
  int64_t begun() const { return begun_; }

 private:
  class Client;

  absl::Duration step_time_ = absl::ZeroDuration();
  std::function<absl::Status(const std::string&)> failure_;
  int64_t begun_ = 0;
};

}  // namespace dfscsi::testing

#endif  // NODE_AGENT_TESTING_PASSWORD_LOG_ON_H_
