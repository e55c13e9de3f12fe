// What the files of Client share: client.cc (where an operation is run), client_attempt.cc (one
// attempt, and who watches its server), client_own.cc (what only one server will do for).

#ifndef NODE_AGENT_DFS_CLIENT_IMPL_H_
#define NODE_AGENT_DFS_CLIENT_IMPL_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "node-agent/dfs/binder.h"
#include "node-agent/dfs/client.h"
#include "node-agent/dfs/failover.h"
#include "node-agent/dfs/failure_class.h"
#include "node-agent/dfs/link_table.h"
#include "node-agent/dfs/own_server.h"
#include "node-agent/runtime/deadline.h"
#include "node-agent/runtime/task.h"

namespace dfscsi::dfs {

class Client::Impl {
 public:
  Impl(DfsPath source, smb::Credential credential, ClientOptions options,
       smb::SessionPool& sessions, ReferralCache& cache, DomainCache& domains,
       TargetHealthTable& health);
  runtime::Task<absl::Status> Run(DfsPath path, Operation operation, RunOptions options,
                                  runtime::Deadline deadline);
  // Run, which a soft mount also ends where an operation hangs on a server that is silent while no
  // other one is up.
  runtime::Task<absl::Status> RunInTime(DfsPath path, Operation operation, RunOptions options,
                                        runtime::Deadline deadline);
  runtime::Task<absl::Status> RunOnOwn(DfsPath path, Binding lost, Operation operation,
                                       runtime::Deadline deadline);
  runtime::Task<absl::Status> RunOnTarget(DfsPath path, TargetPredicate is_own, Operation operation,
                                          RunOptions options, runtime::Deadline deadline);
  runtime::Task<void> EndFormerSessions(Binding binding, runtime::Deadline deadline);
  void SetMayFailBack(std::function<bool(const DfsPath& link)> may_fail_back) {
    binder_.SetMayFailBack(std::move(may_fail_back));
  }
  bool IsKnownLink(const DfsPath& path) const;
  void NoteLink(const DfsPath& path);
  void ForgetLink(const DfsPath& path);
  uint64_t GetEpoch(const DfsPath& path) const;
  absl::Duration GetTtl(const DfsPath& path) const;
  const DfsPath& source() const { return source_; }

  std::vector<BoundLink> ListLinks() const;
  ClientCounters counters() const;

 private:
  // How far one operation has come.
  struct Course {
    absl::Time began;
    FailoverState state;
    int resolutions = 0;
    Binder::Request request = {};
    absl::Status why =
        absl::OkStatus();  // Of the first round: later ones may only say "still down".
  };
  // Binds the path's link. Null: not now, look again. Errors: as of Run.
  runtime::Task<absl::StatusOr<std::shared_ptr<Link>>> BindAgain(DfsPath path, Course* course,
                                                                 runtime::Deadline deadline);
  // Runs the operation where its link is bound. nullopt: it is to be run again.
  runtime::Task<std::optional<absl::Status>> RunOnLink(std::shared_ptr<Link> link, DfsPath path,
                                                       Operation operation, RunOptions options,
                                                       Course* course, runtime::Deadline deadline);
  // Runs the operation where what it uses is open, although its link has failed back. nullopt: that
  // target is not up any more, and the operation is to be run where the link is bound.
  runtime::Task<std::optional<absl::Status>> RunOnFormer(std::shared_ptr<Link> link, DfsPath path,
                                                         Operation operation, RunOptions options,
                                                         runtime::Deadline deadline);
  // The link has another target already: nobody needs to look for one.
  static runtime::Task<void> MoveWhenSuspect(std::shared_ptr<smb::Tree> tree,
                                             std::shared_ptr<Attempt> attempt);
  // As referrals name it.
  static std::string HostOf(smb::Connection& connection);
  // True if the server has ended the session, or has forgotten it.
  runtime::Task<bool> EndLost(std::string host, std::string share,
                              std::shared_ptr<smb::Session> session, runtime::Deadline until);
  // One attempt of RunOnOwn. kUnavailable: to be repeated. `*ending` is set if an answer was lost
  // again.
  runtime::Task<absl::Status> RunOnServer(DfsPath path, std::string host, std::string share,
                                          Binding lost, Operation operation,
                                          std::shared_ptr<smb::Session>* ending,
                                          runtime::Deadline until);
  // One attempt of RunOnTarget. nullopt: to be repeated.
  runtime::Task<std::optional<absl::Status>> RunOnBound(Binder::Own own, DfsPath path,
                                                        Operation operation, RunOptions options,
                                                        runtime::Deadline deadline);
  static absl::Status Lost(absl::string_view why);
  // How long the servers that are waited for (RunOnTarget) have been missed, by their names.
  struct Missed {
    absl::Time since;
    absl::Time last;  // When somebody has asked for it.
  };
  static std::string NameOf(absl::string_view host, absl::string_view share);
  static std::string NameOf(const DfsPath& target) {
    return NameOf(target.HostName(), target.share());
  }
  void NoteMissed(const DfsPath& target);
  void NoteSilent(smb::Tree& tree);  // For write_grace, already.
  // For longer than anybody waits.
  bool IsAway(const DfsPath& target) const;
  absl::StatusOr<Binding> MakeBinding(const DfsPath& path, const DfsPath& prefix,
                                      const DfsPath& target_path, std::shared_ptr<smb::Tree> tree,
                                      uint64_t epoch) const;
  // With its payloads: whether a log-on failed or a share refused.
  static absl::Status Denied(const absl::Status& status);
  // An error of Bind as Run tells it.
  static absl::Status StatusOf(const absl::Status& status, const BindFailure& failure);
  // What a bind means in the phase that asked for it.
  static FailoverState AfterBind(FailoverState state, bool bound, bool worth_waiting);
  // Waits until targets may be tried again, or somebody has bound a link meanwhile. Soft mounts end
  // here.
  runtime::Task<absl::Status> WaitForRound(absl::Time began, FailoverState state,
                                           absl::Time retry_at, absl::Status why,
                                           runtime::Deadline deadline);
  static runtime::Task<void> RunOperation(Operation operation, Binding binding,
                                          std::shared_ptr<Attempt> attempt);
  static void NoteLost(Attempt& attempt);
  // Silence that lasts for write_grace ends the connection, and with it what waits for its answers.
  runtime::Task<void> CloseWhenLost(std::shared_ptr<smb::Tree> tree,
                                    std::shared_ptr<Attempt> attempt);
  // Runs the operation; if the link is bound anew meanwhile and the operation may move, ends it.
  runtime::Task<absl::Status> RunOnce(std::shared_ptr<Link> link, Binding binding,
                                      Operation operation, RunOptions options, bool* moved,
                                      runtime::Deadline deadline);
  // The link's target did not do; the next Bind starts with the same or another one.
  void Lose(Link& link, uint64_t epoch, const Failure& failure, bool blame);
  // One guard per binding: it looks for another target while the one that serves is silent.
  void EnsureGuarded(const std::shared_ptr<Link>& link);
  // Until the link is bound otherwise, which cancels `stop`: the tree is not held for longer than
  // the link holds it.
  runtime::Task<void> Guard(std::shared_ptr<Link> link, std::shared_ptr<smb::Tree> tree,
                            runtime::Deadline stop);
  static runtime::Task<void> CancelWhenWell(std::shared_ptr<smb::Tree> tree,
                                            runtime::CancelSource* search);
  // Keeps what is in use fresh, so that a target that dies is left for one that is still listed.
  runtime::Task<void> Refresh();

  const DfsPath source_;
  const ClientOptions options_;
  const std::string account_;
  smb::SessionPool& sessions_;
  ReferralCache& cache_;
  LinkTable links_;
  Binder binder_;
  OwnServer own_server_;
  absl::flat_hash_map<std::string, Missed> missed_;              // By NameOf.
  absl::flat_hash_map<std::u16string, absl::Time> noted_links_;  // Until when.
  ClientCounters counters_;
  runtime::TaskGroup tasks_;  // Dies first: its tasks use all of the above.
};

}  // namespace dfscsi::dfs

#endif  // NODE_AGENT_DFS_CLIENT_IMPL_H_
