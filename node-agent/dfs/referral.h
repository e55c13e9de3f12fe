// DFS referrals as a server sends them.
//
// Source: [MS-DFSC] 2.2.4 (layouts), 3.1.5.4 (what a client makes of them). Each bound
// that is checked here was once a remote crash in another client. PathConsumed counts bytes of
// UTF-16 on the wire; it becomes a count of components here, and no other file sees it.

#ifndef NODE_AGENT_DFS_REFERRAL_H_
#define NODE_AGENT_DFS_REFERRAL_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "node-agent/dfs/path.h"
#include "node-agent/smb/wire/reader.h"

namespace dfscsi::dfs {

// One place where the data is.
struct Target {
  DfsPath path;             // \host\share[\path]
  bool starts_set = false;  // TargetSetBoundary; true for the first target of all.

  friend bool operator==(const Target&, const Target&) = default;
};

// More of these in one reply are dropped (and counted).
inline constexpr size_t kMaxTargets = 256;

// A decoded SYSVOL, ROOT or LINK referral.
struct Referral {
  int version = 0;                   // 1 to 4.
  size_t consumed_components = 0;    // PathConsumed, as a count of the request path's components.
  bool root = false;                 // ServerType of the first entry: these are root targets.
  bool interlink = false;            // ReferralServers and not StorageServers: another namespace.
  bool target_failback = false;      // TargetFailback (V4).
  absl::Duration ttl = {};           // The smallest of all entries, as sent; the cache clamps it.
  std::vector<Target> targets = {};  // In the server's order, without duplicates.
  int dropped_targets = 0;           // Malformed ones, duplicates, and those above kMaxTargets.
};

// Decodes RESP_GET_DFS_REFERRAL. `request_path` is the path that was sent.
//
// A reply without targets is not an error: either the link is empty (dropped_targets == 0: the path
// does not exist), or all its targets are unusable (dropped_targets > 0: EIO).
// A link's reply in which neither ReferralServers nor StorageServers is set counts as storage:
// where that is wrong, the target answers STATUS_PATH_NOT_COVERED and the resolver goes on from
// there. Errors: kDataLoss, the reply breaks a rule of [MS-DFSC]; the caller answers EIO, or asks
// another server of the namespace.
absl::StatusOr<Referral> DecodeReferral(smb::wire::Bytes response,
                                        std::u16string_view request_path);

// A decoded DOMAIN or DC referral. Names have no leading backslash; unusable ones are left out.
struct NameListReferral {
  struct Entry {
    std::string name;                   // SpecialName: the domain.
    std::vector<std::string> expanded;  // Its controllers (kDc).
  };
  absl::Duration ttl;
  std::vector<Entry> entries;
};

// Decodes RESP_GET_DFS_REFERRAL for kDomain and kDc. Errors: kDataLoss, as above.
absl::StatusOr<NameListReferral> DecodeNameListReferral(smb::wire::Bytes response);

}  // namespace dfscsi::dfs

#endif  // NODE_AGENT_DFS_REFERRAL_H_
