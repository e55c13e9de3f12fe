// The spellings of a user's name, and what each mechanism makes of them. Pure.

#ifndef NODE_AGENT_SMB_AUTH_ACCOUNT_H_
#define NODE_AGENT_SMB_AUTH_ACCOUNT_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace dfscsi::smb::auth {

struct Account {
  std::string user;    // Without domain. Empty only where a ticket file says who it is.
  std::string domain;  // NetBIOS name, DNS name or realm; may be empty.
  // Was written user@suffix: for NTLM the name is sent as a whole, without a domain, and the server
  // looks the suffix up ([MS-NLMP] 2.2.1.3 has no other place for it).
  bool is_principal = false;
};

// Splits "DOM\user", "DOM;user" and "user@realm"; a separate `domain` wins over none but may not
// contradict the name. InvalidArgument: one line that says what is wrong, for the user.
absl::StatusOr<Account> ParseAccount(absl::string_view user, absl::string_view domain);

// In the syntax that gss-ntlmssp takes for GSS_C_NT_USER_NAME.
std::string NtlmName(const Account& account);

// The realm that the name itself tells, in upper case; empty if it tells none (a NetBIOS domain is
// no realm): then the default realm of krb5.conf counts.
std::string RealmOf(const Account& account);

// For messages: DOM\user, user@realm or user.
std::string DisplayName(const Account& account);

bool IsUtf8(absl::string_view text);

}  // namespace dfscsi::smb::auth

#endif  // NODE_AGENT_SMB_AUTH_ACCOUNT_H_
