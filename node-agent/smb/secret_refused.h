// The refusal of a password by who is no file server: the realm's KDC, before any server has seen
// it.

#ifndef NODE_AGENT_SMB_SECRET_REFUSED_H_
#define NODE_AGENT_SMB_SECRET_REFUSED_H_

#include "absl/status/status.h"
#include "absl/strings/cord.h"
#include "absl/strings/string_view.h"

namespace dfscsi::smb {

inline constexpr char kSecretRefusedUrl[] = "dfscsi/secret_refused";

// An error of Authenticator::Step: the password is wrong. The KDC is the same for all servers, and
// has counted it: whichever of them is next, it is not to be shown again. So SessionMemory is told
// of it as of a server's refusal.
inline absl::Status SecretRefusedError(absl::string_view message) {
  absl::Status status = absl::UnauthenticatedError(message);
  status.SetPayload(kSecretRefusedUrl, absl::Cord("1"));
  return status;
}
inline bool IsSecretRefused(const absl::Status& status) {
  return status.GetPayload(kSecretRefusedUrl).has_value();
}

}  // namespace dfscsi::smb

#endif  // NODE_AGENT_SMB_SECRET_REFUSED_H_
