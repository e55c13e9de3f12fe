// smb::SessionMemory over the node's log-on guard: what is known of sessions and refusals outlives
// the agent.

#ifndef NODE_AGENT_AGENT_GUARDED_SESSIONS_H_
#define NODE_AGENT_AGENT_GUARDED_SESSIONS_H_

#include <cstdint>
#include <map>
#include <set>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "node-agent/smb/credential.h"
#include "node-agent/smb/session_pool.h"
#include "node-agent/state/logon_guard.h"

namespace dfscsi::agent {

// One loop.
class GuardedSessions final : public smb::SessionMemory {
 public:
  // A refused credential is not shown to the same server again before this; one that its KDC
  // refused is not shown to the KDC, for whichever server. Accounts lock after a handful of wrong
  // passwords in a quarter of an hour or more; a corrected password is another credential and waits
  // for nothing.
  static constexpr absl::Duration kRefusedFor = absl::Minutes(5);

  explicit GuardedSessions(state::LogonGuard& guard) : guard_(guard) {}

  uint64_t PreviousSessionId(const std::string& host, const std::string& identity) override;
  void RememberSessionId(const std::string& host, const std::string& identity,
                         uint64_t session_id) override;
  absl::Duration RefusedFor(const std::string& host, const std::string& identity) override;
  // Logs it. Only of a wrong password is the next log-on forbidden: nothing else makes an account
  // lock, or stay locked.
  void RememberRefusal(const std::string& host, const smb::Credential& credential,
                       const absl::Status& refused) override;
  // Somebody says that an account is well again: each refused credential may be tried once more.
  void ForgiveRefusals();

  // This agent ends its sessions in order: its successor has none to replace.
  void ForgetSessions();

 private:
  // What the KDC of the credential's realm has refused, for whichever server.
  uint64_t KdcKeyOf(const std::string& identity) const;
  uint64_t KeyOf(const std::string& host, const std::string& identity) const;

  state::LogonGuard& guard_;
  std::set<uint64_t> remembered_;
  std::map<uint64_t, absl::Duration> logged_;  // Refusals; since boot.
};

}  // namespace dfscsi::agent

#endif  // NODE_AGENT_AGENT_GUARDED_SESSIONS_H_
