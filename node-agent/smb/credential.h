// Who we are to a server.

#ifndef NODE_AGENT_SMB_CREDENTIAL_H_
#define NODE_AGENT_SMB_CREDENTIAL_H_

#include <array>
#include <cstdint>
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

  // What sessions are keyed by: equal ids mean the same user with the same password. An opaque
  // number that tells nothing of either (see SetIdentityKey).
  std::string Identity() const;

  // What referrals are keyed by: the user, whatever the password, and the same after a reboot.
  std::string Account() const;
};

// The key of Identity(): random for each process unless set, which an agent does, once and before
// the first log-on, so that its successor knows its sessions and refusals again.
void SetIdentityKey(const std::array<uint8_t, 32>& key);

}  // namespace dfscsi::smb

#endif  // NODE_AGENT_SMB_CREDENTIAL_H_
