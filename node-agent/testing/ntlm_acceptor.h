// The server's side of an NTLM log-on, for scripted SMB2 servers: the real mechanism (gss-ntlmssp
// under SPNEGO), so that what our client sends is judged by somebody else. Tests only.

#ifndef NODE_AGENT_TESTING_NTLM_ACCEPTOR_H_
#define NODE_AGENT_TESTING_NTLM_ACCEPTOR_H_

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "node-agent/base/secret.h"

namespace dfscsi::testing {

struct NtlmUser {
  std::string domain;  // A client may leave it out, but not name another.
  std::string user;
  std::string password;
};

struct NtlmReply {
  std::string token;        // For SESSION_SETUP's security buffer.
  bool complete = false;    // Send it with STATUS_SUCCESS; else with MORE_PROCESSING_REQUIRED.
  Secret session_key = {};  // Once complete.
  std::string user = {};    // Once complete: DOMAIN\user, or user
};

// One log-on of one client. Never blocks. Not thread-safe.
class NtlmExchange {
 public:
  virtual ~NtlmExchange() = default;

  // Takes the client's token, raw NTLMSSP or SPNEGO. Unauthenticated: unknown user or wrong
  // password (STATUS_LOGON_FAILURE). InvalidArgument: not a token (STATUS_INVALID_PARAMETER).
  // Either ends the exchange.
  virtual absl::StatusOr<NtlmReply> Accept(std::string_view token) = 0;
};

// Knows the users. Must outlive its exchanges.
class NtlmAcceptor {
 public:
  virtual ~NtlmAcceptor() = default;

  // `host` is the server's name as the client spells it: the plug-in tells it to the client, who
  // refuses any other. NotFound: gss-ntlmssp is not installed.
  virtual absl::StatusOr<std::unique_ptr<NtlmExchange>> NewExchange(const std::string& host) = 0;

  static absl::StatusOr<std::unique_ptr<NtlmAcceptor>> Create(const std::vector<NtlmUser>& users);
};

}  // namespace dfscsi::testing

#endif  // NODE_AGENT_TESTING_NTLM_ACCEPTOR_H_
