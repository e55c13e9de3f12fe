// Asks servers for referrals: FSCTL_DFS_GET_REFERRALS (with a site, FSCTL_DFS_GET_REFERRALS_EX) on
// IPC$, and SRV records for domains.
//
// Source: [MS-DFSC] 3.1.4.2, [MS-SMB2] 3.2.4.20.3.

#ifndef NODE_AGENT_DFS_REFERRAL_SOURCE_H_
#define NODE_AGENT_DFS_REFERRAL_SOURCE_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "node-agent/dfs/dialer.h"
#include "node-agent/dfs/failure_class.h"
#include "node-agent/dfs/path.h"
#include "node-agent/dfs/referral.h"
#include "node-agent/dfs/resolver.h"
#include "node-agent/dfs/target_health.h"
#include "node-agent/runtime/deadline.h"
#include "node-agent/runtime/loop.h"
#include "node-agent/runtime/task.h"
#include "node-agent/smb/session_pool.h"
#include "node-agent/smb/tree.h"

namespace dfscsi::dfs {

// Not thread-safe; one loop.
class ReferralSource {
 public:
  // `dialer` and `health`, which rations new connections, and knows who is down, as it does of
  // targets, must outlive it. `site`: our Active Directory site, for the servers' order of targets;
  // empty: they judge by our address.
  ReferralSource(Dialer& dialer, std::u16string site, TargetHealthTable& health);

  struct Answer {
    std::variant<Referral, NameListReferral> referral;
    size_t answered_by = 0;  // Index into the hosts asked.
  };

  // Asks the hosts of `fetch`, the first at once, each further one when the one before it has
  // failed or has been silent for a while; the first answer counts. An NTSTATUS is an answer only
  // if no host gave a referral. Errors: the most telling of the hosts'; `failure` is its class.
  runtime::Task<absl::StatusOr<Answer>> Fetch(ReferralFetch fetch, FailureClass* failure,
                                              runtime::Deadline deadline);

  // The controllers that the name service has for `domain`; kNotFound: it is no domain.
  runtime::Task<absl::StatusOr<std::vector<std::string>>> FindControllers(
      std::string domain, runtime::Deadline deadline);

  // True if the last connection of ours to each of the hosts failed. No I/O.
  bool AreDown(const std::vector<std::string>& hosts) const;

  int64_t requests_sent() const { return requests_sent_; }

 private:
  runtime::Task<absl::StatusOr<Answer>> Ask(std::string host, size_t index, ReferralKind kind,
                                            std::u16string wire_path, runtime::Deadline deadline);

  // One referral request, as EX where there is a site and the server knows EX.
  runtime::Task<absl::StatusOr<std::vector<uint8_t>>> Request(std::shared_ptr<smb::Tree> tree,
                                                              std::u16string wire_path,
                                                              uint32_t most_bytes,
                                                              runtime::Deadline deadline);

  // `host`'s IPC$, by a session at hand or by a new connection when one may be made. A host that
  // failed a moment ago fails at once: there may be another one, or something stale that will do.
  runtime::Task<absl::StatusOr<std::shared_ptr<smb::Tree>>> GetIpc(std::string host,
                                                                   runtime::Deadline deadline);

  // A connection of ours failed: where that speaks against the host, its health says so.
  void NoteConnectFailed(const DfsPath& path, const absl::Status& status, smb::ConnectPhase phase,
                         absl::Time began, const runtime::Deadline& deadline);

  Dialer& dialer_;
  const std::u16string site_;
  TargetHealthTable& health_;
  // Sessions (each a connection) whose server has refused EX; by host.
  std::map<std::string, std::weak_ptr<smb::Session>> without_ex_;
  int64_t requests_sent_ = 0;
  runtime::TaskGroup racing_;  // Dies first: losers still use all of the above.
};

}  // namespace dfscsi::dfs

#endif  // NODE_AGENT_DFS_REFERRAL_SOURCE_H_
