// One log-on at one server: a SPNEGO security context of GSSAPI. Used by dfs-auth alone; every call
// may block on KDCs and DNS.

#ifndef NODE_AGENT_SMB_AUTH_LOG_ON_H_
#define NODE_AGENT_SMB_AUTH_LOG_ON_H_

#include <stdint.h>

#include <optional>
#include <string>
#include <string_view>

#include "absl/time/time.h"
#include "node-agent/smb/auth/account.h"
#include "node-agent/smb/auth/auth_protocol.h"
#include "node-agent/smb/auth/gss_handles.h"
#include "node-agent/smb/auth/kerberos_tickets.h"

namespace dfscsi::smb::auth {

// Start once, then Continue until complete. After a Failure it is of no more use.
class LogOn {
 public:
  LogOn() = default;

  // `kerberos` outlives this object.
  Reply Start(const Begin& begin, KerberosClient* kerberos);

  // The server's last token must be fed back too: it holds what proves the server (AP-REP,
  // mechListMIC), and the session key is not given away before.
  Reply Continue(const Step& step);

 private:
  // Which mechanisms SPNEGO offers.
  struct Offer {
    bool kerberos = false;
    bool ntlm = false;
    KerberosTickets tickets;  // If kerberos.
  };

  std::optional<Failure> CheckBegin(const Begin& begin);
  std::optional<Failure> ChooseOffer(const Begin& begin, KerberosClient* kerberos, Offer* offer);
  std::optional<Failure> AcquireCredential(const Begin& begin, const Offer& offer);
  Reply Advance(gss_buffer_t token);
  Reply Completed(gss_OID mechanism, uint32_t flags, Token token);
  Failure Fail(FailureClass failure_class, absl::string_view what);
  Failure FailGss(absl::string_view what, uint32_t major, uint32_t minor);

  uint64_t context_id_ = 0;
  Account account_;
  std::string title_;  // For messages: "log-on of DOM\user at host".
  Mechanism offered_ = Mechanism::kNegotiate;
  absl::Time ticket_end_ = absl::InfiniteFuture();
  GssName target_;
  GssCredential credential_;
  GssContext context_;
  bool complete_ = false;
};

// One line of printable text, not longer than a Failure's message may be.
std::string OneLine(absl::string_view text);

}  // namespace dfscsi::smb::auth

#endif  // NODE_AGENT_SMB_AUTH_LOG_ON_H_
