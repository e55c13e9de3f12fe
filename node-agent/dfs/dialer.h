// Connects to the hosts that referrals name, if the credential may go there.

#ifndef NODE_AGENT_DFS_DIALER_H_
#define NODE_AGENT_DFS_DIALER_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "node-agent/dfs/target_policy.h"
#include "node-agent/runtime/deadline.h"
#include "node-agent/runtime/network.h"
#include "node-agent/runtime/task.h"
#include "node-agent/smb/credential.h"
#include "node-agent/smb/session_pool.h"

namespace dfscsi::dfs {

// The only way from a referral to smb::SessionPool: host names and what they resolve to are both
// looked at. Not thread-safe; one loop.
class Dialer {
 public:
  // `sessions` must outlive it.
  Dialer(smb::SessionPool& sessions, smb::Credential credential, AllowedTargets allowed);

  const std::string& identity() const { return identity_; }

  // OK if the name may be given the credential; else kPermissionDenied, for people.
  absl::Status CheckHost(absl::string_view host) const;

  // As SessionPool::GetTree; `rules.may_connect` is set here. Errors besides: kPermissionDenied,
  // the host or every address of it is not allowed; nothing was sent.
  runtime::Task<absl::StatusOr<std::shared_ptr<smb::Tree>>> GetTree(std::string host,
                                                                    std::string share,
                                                                    smb::ConnectRules rules,
                                                                    smb::ConnectPhase* phase,
                                                                    runtime::Deadline deadline);
  // As SessionPool::EndSession, with the same errors besides.
  runtime::Task<absl::Status> EndSession(std::string host, uint64_t session_id,
                                         runtime::Deadline deadline);
  // As SessionPool::IsEnded.
  bool IsEnded(const std::string& host, uint64_t session_id) const {
    return sessions_.IsEnded(host, identity_, session_id);
  }
  // As SessionPool::FormerSessions and ForgetFormer.
  std::vector<uint64_t> FormerSessions(const std::string& host) const {
    return sessions_.FormerSessions(host, identity_);
  }
  void ForgetFormer(const std::string& host, uint64_t session_id) {
    sessions_.ForgetFormer(host, identity_, session_id);
  }
  // A session is at hand, and is not `avoid`: GetTree makes no connection.
  bool HasSession(absl::string_view host, const smb::Session* avoid) const;
  // As SessionPool::Retire.
  void Retire(const smb::Session& session) { sessions_.Retire(session); }
  // As SessionPool::RetireIfSilent.
  void RetireIfSilent(const smb::Session& session, const absl::Status& status, absl::Time began,
                      const runtime::Deadline& deadline) {
    sessions_.RetireIfSilent(session, status, began, deadline);
  }

 private:
  smb::ConnectRules RulesFor(const std::string& name) const;
  absl::Status CheckAddress(absl::string_view host, const runtime::IpAddress& address) const;

  smb::SessionPool& sessions_;
  const smb::Credential credential_;
  const std::string identity_;
  const AllowedTargets allowed_;
};

}  // namespace dfscsi::dfs

#endif  // NODE_AGENT_DFS_DIALER_H_
