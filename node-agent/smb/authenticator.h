// The GSS exchange inside SESSION_SETUP, without knowing GSS: tokens in, tokens out.

#ifndef NODE_AGENT_SMB_AUTHENTICATOR_H_
#define NODE_AGENT_SMB_AUTHENTICATOR_H_

#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/cord.h"
#include "node-agent/base/secret.h"
#include "node-agent/runtime/deadline.h"
#include "node-agent/runtime/task.h"
#include "node-agent/smb/credential.h"

namespace dfscsi::smb {

struct AuthToken {
  std::string token;      // To the server; may be empty once complete.
  bool complete = false;  // No further token is expected from the server.
  Secret session_key;     // The full GSS key, once complete.
};

// The process that held the log-on ended for a reason that is none of this log-on's, nor of its
// server: may be repeated at once, and says nothing of either.
inline constexpr char kLogOnInterruptedUrl[] = "dfscsi/log_on_interrupted";
inline absl::Status LogOnInterruptedError() {
  absl::Status status = absl::UnavailableError("the log-on's process ended");
  status.SetPayload(kLogOnInterruptedUrl, absl::Cord("1"));
  return status;
}
inline bool IsLogOnInterrupted(const absl::Status& status) {
  return status.GetPayload(kLogOnInterruptedUrl).has_value();
}

// One exchange with one server. Destroying it ends it.
class Authenticator {
 public:
  virtual ~Authenticator() = default;

  // Takes the server's token (first: empty) and returns ours. Called until `complete`, and once
  // more if the server's last reply carries a token. Errors:
  //   kUnauthenticated   the credential is wrong, or cannot be used for this server: do not repeat
  //   kUnavailable       no KDC, the child died, …: may be repeated, another server may do; see
  //   also
  //                      IsLogOnInterrupted()
  //   kDeadlineExceeded, kCancelled
  virtual runtime::Task<absl::StatusOr<AuthToken>> Step(std::string server_token,
                                                        runtime::Deadline deadline) = 0;
};

// Real: by the dfs-auth child. In tests: a mechanism that the scripted server knows.
class AuthenticatorFactory {
 public:
  virtual ~AuthenticatorFactory() = default;
  // For a session on `host`, the server's name as the referral or the user gave it (the SPN's
  // host).
  virtual std::unique_ptr<Authenticator> Begin(const Credential& credential, std::string host) = 0;
};

}  // namespace dfscsi::smb

#endif  // NODE_AGENT_SMB_AUTHENTICATOR_H_
