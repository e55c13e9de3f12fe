// Kerberos tickets in memory: from a password, a keytab or a credential cache to a MEMORY cache
// that holds the ticket for one server. Used by dfs-auth alone: every call may block on KDCs and
// DNS.

#ifndef NODE_AGENT_SMB_AUTH_KERBEROS_TICKETS_H_
#define NODE_AGENT_SMB_AUTH_KERBEROS_TICKETS_H_

#include <krb5.h>

#include <list>
#include <optional>
#include <string>

#include "absl/time/time.h"
#include "node-agent/base/secret.h"
#include "node-agent/base/unique_fd.h"
#include "node-agent/smb/auth/account.h"
#include "node-agent/smb/auth/auth_protocol.h"

namespace dfscsi::smb::auth {

struct KerberosError {
  FailureClass failure_class = FailureClass::kProtocol;
  std::string message = {};
  krb5_error_code code = 0;
  // The KDC refused the secret itself. Using it once more, with NTLM, would count towards a
  // lockout.
  bool secret_refused = false;
};

// What the log-on has to show. The first that is not empty counts: ccache, keytab, password.
struct KerberosSource {
  Account account = {};  // user may be empty with ccache or keytab: then they say who it is.
  Secret password = {};
  Secret keytab = {};
  Secret ccache = {};
};

struct KerberosTickets {
  std::string
      ccache_name;        // "MEMORY:...", lives as long as the KerberosClient or its next renewal.
  std::string principal;  // user@REALM
  absl::Time end = {};    // Of the service ticket.
};

// What a krb5 error means for the caller.
FailureClass ClassOf(krb5_error_code code);

// Keeps ticket-granting tickets, so that a log-on at the next target of a link does not need the
// KDC for them again.
class KerberosClient {
 public:
  KerberosClient() = default;
  KerberosClient(const KerberosClient&) = delete;
  KerberosClient& operator=(const KerberosClient&) = delete;
  ~KerberosClient();

  // Tickets for cifs/`host`. `renew`: not from what is already here.
  std::optional<KerberosError> GetTickets(const KerberosSource& source, const std::string& host,
                                          bool renew, KerberosTickets* tickets);

 private:
  struct Entry {
    std::string account;
    Secret secret;
    std::string ccache_name;
    absl::Time end = absl::InfinitePast();  // Of the ticket-granting ticket.
  };

  std::optional<KerberosError> Initialize();
  std::optional<KerberosError> FindOrAdd(const KerberosSource& source, bool renew, Entry** entry);
  std::optional<KerberosError> Fill(const KerberosSource& source, Entry* entry);
  std::optional<KerberosError> FillFromCcache(const Secret& contents, krb5_ccache cache,
                                              Entry* entry);
  std::optional<KerberosError> FillFromKdc(const KerberosSource& source, krb5_ccache cache,
                                           Entry* entry);
  std::optional<KerberosError> ServiceTicket(const std::string& host, const Entry& entry,
                                             KerberosTickets* tickets);
  KerberosError Error(const std::string& what, krb5_error_code code);
  void Drop(std::list<Entry>::iterator entry);

  krb5_context context_ = nullptr;
  std::list<Entry> entries_;  // Most recently used first.
  uint64_t caches_made_ = 0;
};

// An anonymous file with these contents, read by its name /proc/self/fd/N: the krb5 library reads
// its files by name, and no secret may lie in a real one. Empty if memory is short.
UniqueFd MemoryFile(std::string_view contents);
std::string NameOf(const UniqueFd& memory_file);

}  // namespace dfscsi::smb::auth

#endif  // NODE_AGENT_SMB_AUTH_KERBEROS_TICKETS_H_
