// Log-ons by the dfs-auth child: the coroutine side of auth_protocol.h.

#ifndef NODE_AGENT_SMB_AUTH_GSS_AUTHENTICATOR_H_
#define NODE_AGENT_SMB_AUTH_GSS_AUTHENTICATOR_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "node-agent/runtime/real_loop.h"
#include "node-agent/smb/auth/auth_protocol.h"
#include "node-agent/smb/authenticator.h"

namespace dfscsi::smb::auth {

class AuthWorker;

// What the error of Authenticator::Step is that dfs-auth tells of so.
absl::Status StatusOf(const Failure& failure);

// Starts at most kMostChildren children, each when it is first needed, and starts another in place
// of one that was killed at a deadline, ended by itself, or has served for long. One loop.
class GssAuthenticatorFactory final : public AuthenticatorFactory {
 public:
  static constexpr int kMostChildren = 4;

  // `program` is the path of dfs-auth. `loop` must outlive the factory and its authenticators.
  GssAuthenticatorFactory(runtime::RealLoop& loop, std::string program);
  ~GssAuthenticatorFactory() override;

  std::unique_ptr<Authenticator> Begin(const Credential& credential, std::string host) override;

  // Starts a child now, so that the first log-on after a takeover need not wait for it.
  absl::Status Warm();

 private:
  std::shared_ptr<AuthWorker> PickWorker();

  runtime::RealLoop& loop_;
  const std::string program_;
  std::vector<std::shared_ptr<AuthWorker>> workers_;
};

}  // namespace dfscsi::smb::auth

#endif  // NODE_AGENT_SMB_AUTH_GSS_AUTHENTICATOR_H_
