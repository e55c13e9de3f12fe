// Asking for DFS referrals: the kinds there are, and the two requests as bytes.
//
// Source: [MS-DFSC] 2.2.2, 2.2.3 (layouts), 3.1.4.2 (which kind goes where).

#ifndef NODE_AGENT_DFS_REFERRAL_REQUEST_H_
#define NODE_AGENT_DFS_REFERRAL_REQUEST_H_

#include <cstdint>
#include <string_view>
#include <vector>

#include "absl/strings/string_view.h"

namespace dfscsi::dfs {

// What is asked for; says where the request goes and what its path looks like ([MS-DFSC] 3.1.4.2).
enum class ReferralKind {
  kDomain,  // "": the names of all domains. To a bootstrap DC; a name list.
  kDc,      // \domain: its domain controllers. To a bootstrap DC; a name list.
  kSysvol,  // \domain\SYSVOL or \domain\NETLOGON. To a DC.
  kRoot,    // \host-or-domain\namespace. To a DC, or the host itself.
  kLink,    // \host-or-domain\namespace\a\b. To a root target.
};
absl::string_view ReferralKindName(ReferralKind kind);

// DOMAIN and DC requests below level 3 fail, so there is no reason to ever ask for less than all.
inline constexpr uint16_t kMaxReferralLevel = 4;

// MaxOutputResponse of the FSCTL: the first try, and where a caller that saw STATUS_BUFFER_OVERFLOW
// (whose partial reply is never decoded) stops doubling.
inline constexpr uint32_t kFirstReferralBufferBytes = 8 * 1024;
inline constexpr uint32_t kMaxReferralBufferBytes = 56 * 1024;

// The input of FSCTL_DFS_GET_REFERRALS. `path` has one leading backslash, or is empty (kDomain).
std::vector<uint8_t> EncodeReferralRequest(std::u16string_view path,
                                           uint16_t max_level = kMaxReferralLevel);
// The input of FSCTL_DFS_GET_REFERRALS_EX, with the client's Active Directory site. Where a server
// refuses that FSCTL, the caller falls back to the plain one and remembers it for the connection.
std::vector<uint8_t> EncodeReferralRequestEx(std::u16string_view path, std::u16string_view site);

}  // namespace dfscsi::dfs

#endif  // NODE_AGENT_DFS_REFERRAL_REQUEST_H_
