// The way back to the server that a change was sent to, whatever serves its path by now.

#ifndef NODE_AGENT_DFS_OWN_SERVER_H_
#define NODE_AGENT_DFS_OWN_SERVER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "node-agent/dfs/dialer.h"
#include "node-agent/dfs/target_health.h"
#include "node-agent/runtime/deadline.h"
#include "node-agent/runtime/task.h"
#include "node-agent/smb/tree.h"

namespace dfscsi::dfs {

// New connections are rationed, and back off, as those of binding are: however many changes have
// lost their answers with one server, it sees one attempt at a time. Not thread-safe; one loop.
class OwnServer {
 public:
  // All must outlive this.
  OwnServer(Dialer& dialer, TargetHealthTable& health) : dialer_(dialer), health_(health) {}
  OwnServer(const OwnServer&) = delete;

  // As SessionPool::EndSession. `host`: as referrals name it. OK at once if it was ended already.
  runtime::Task<absl::Status> EndSession(std::string host, std::string share, uint64_t session_id,
                                         runtime::Deadline deadline);
  // Ends each of SessionPool::FormerSessions(host). One that cannot be ended in time is forgotten.
  runtime::Task<void> EndFormerSessions(std::string host, std::string share,
                                        runtime::Deadline deadline);
  // As Dialer::GetTree.
  runtime::Task<absl::StatusOr<std::shared_ptr<smb::Tree>>> GetTree(std::string host,
                                                                    std::string share,
                                                                    runtime::Deadline deadline);

 private:
  // Waits for the right to connect; until `needless`, if that comes first.
  runtime::Task<absl::StatusOr<TargetHealthTable::ConnectTicket>> Admit(
      DfsPath target, std::function<bool()> needless, runtime::Deadline deadline);
  void NoteFailed(const DfsPath& target, const absl::Status& status,
                  const runtime::Deadline& deadline);

  Dialer& dialer_;
  TargetHealthTable& health_;
};

}  // namespace dfscsi::dfs

#endif  // NODE_AGENT_DFS_OWN_SERVER_H_
