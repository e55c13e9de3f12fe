// Who we are to a server.

#ifndef NODE_AGENT_SMB_CREDENTIAL_H_
#define NODE_AGENT_SMB_CREDENTIAL_H_

#include <string>

#include "node-agent/base/secret.h"

namespace dfscsi::smb {

enum class Mechanism { kNtlm, kKerberos };

// A value. Two credentials share nothing: no connection, no session, no referral.
struct Credential {
  Mechanism mechanism = Mechanism::kNtlm;
  std::string user;
  std::string domain;
  Secret password;

  // What sessions and referrals are keyed by; equal ids mean the same user with the same password.
  // An opaque number that tells nothing of either (keyed with a random key of this process).
  std::string Identity() const;
};

}  // namespace dfscsi::smb

#endif  // NODE_AGENT_SMB_CREDENTIAL_H_
