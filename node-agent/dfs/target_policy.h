// Where a referral may send a credential.
//
// A referral is a server's word. Following it anywhere would let whoever controls one namespace, or
// the wire, collect log-ons of every client.

#ifndef NODE_AGENT_DFS_TARGET_POLICY_H_
#define NODE_AGENT_DFS_TARGET_POLICY_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace dfscsi::dfs {

// Immutable.
class AllowedTargets {
 public:
  // `allowed`: host names ("fs1.corp.example.com"), suffixes (".corp.example.com") or "*". Empty:
  // hosts with the DNS suffix of `mounted_host` (or below it, where that suffix is a registry's
  // like .com or .co.uk), and names without a dot; any host where `mounted_host` has no suffix
  // itself (a single label or an address; allows_all() then, which deserves a warning). The mounted
  // host is always allowed. `allow_local`: for tests. Errors: kInvalidArgument, naming the pattern;
  // for the user.
  static absl::StatusOr<AllowedTargets> Make(absl::string_view mounted_host,
                                             const std::vector<std::string>& allowed,
                                             bool allow_local);

  // May the credential go to a host of this name? False too for names that mean this machine
  // (localhost, 127/8, ::1, 169.254/16, fe80::/10, unspecified), however they are spelt.
  bool AllowsHost(absl::string_view host) const;
  // May it go to this address, which a name resolved to? In text form. `is_own`: it is one of this
  // node's.
  bool AllowsAddress(absl::string_view address, bool is_own = false) const;
  // The host that the user named: whatever it resolves to is the user's own word.
  bool IsMountedHost(absl::string_view host) const;

  // No list narrows the hosts down.
  bool allows_all() const { return all_; }

 private:
  AllowedTargets() = default;

  std::string mounted_host_;
  bool allow_local_ = false;
  bool all_ = false;
  bool single_labels_ = false;
  std::vector<std::string> hosts_;     // Lower case, without a dot at the end.
  std::vector<std::string> suffixes_;  // Likewise, with their dot in front.
};

// Loopback, link-local and unspecified addresses, mapped ones (::ffff:127.0.0.1) included. False
// for what is no address.
bool IsLocalAddress(absl::string_view address);

}  // namespace dfscsi::dfs

#endif  // NODE_AGENT_DFS_TARGET_POLICY_H_
