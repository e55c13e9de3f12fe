// Finds a target for a path and brings it up: the loop that does the I/O which resolver.h asks for.

#ifndef NODE_AGENT_DFS_BINDER_H_
#define NODE_AGENT_DFS_BINDER_H_

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "node-agent/dfs/dialer.h"
#include "node-agent/dfs/domain_cache.h"
#include "node-agent/dfs/link_table.h"
#include "node-agent/dfs/path.h"
#include "node-agent/dfs/referral_cache.h"
#include "node-agent/dfs/referral_source.h"
#include "node-agent/dfs/resolver.h"
#include "node-agent/dfs/target_health.h"
#include "node-agent/dfs/target_order.h"
#include "node-agent/dfs/target_policy.h"
#include "node-agent/runtime/deadline.h"
#include "node-agent/runtime/loop.h"
#include "node-agent/runtime/task.h"
#include "node-agent/smb/session_pool.h"

namespace dfscsi::dfs {

struct ClientOptions;

using TargetPredicate = std::function<bool(const DfsPath& target)>;  // As of client.h.

// Why no target could be had, besides the status.
struct BindFailure {
  FailureClass failure = FailureClass::kNone;
  bool worth_waiting = false;
  absl::Time retry_at;  // If worth_waiting: before this no target may be tried again.
};

// Not thread-safe; one loop.
class Binder {
 public:
  // All must outlive it.
  Binder(smb::Credential credential, const ClientOptions& options, smb::SessionPool& sessions,
         ReferralCache& cache, DomainCache& domains, TargetHealthTable& health, LinkTable& links,
         AllowedTargets allowed);

  struct Request {
    // This target answered STATUS_PATH_NOT_COVERED for the path; null if none did.
    std::shared_ptr<Link> not_covered_by;
    // This session is not to be used: it is suspect. Its server may be tried by a fresh connection.
    std::shared_ptr<smb::Session> avoid;
  };

  // Binds the link that serves `path` and returns it. Callers that need the same link wait for one
  // attempt. Links that the namespace had on the way and has no more are forgotten; what waited on
  // them is told to run again. On an error `failure`, which must live until this returns or is
  // destroyed, says more. Errors: as of Client::Run.
  runtime::Task<absl::StatusOr<std::shared_ptr<Link>>> Bind(DfsPath path, Request request,
                                                            BindFailure* failure,
                                                            runtime::Deadline deadline);

  // One target of a link, wherever the link is bound.
  struct Own {
    std::shared_ptr<Link> link;
    DfsPath target_path;
    std::shared_ptr<smb::Tree> tree = nullptr;
    uint64_t epoch = 0;  // The link's, or that of a former binding.
  };
  // The target of `path`'s link that `is_own` picks. kNotFound: the referral lists no such target.
  // Others: the link cannot be bound at all.
  runtime::Task<absl::StatusOr<Own>> FindOwn(DfsPath path, TargetPredicate is_own,
                                             runtime::Deadline deadline);
  // Brings it up, as a former binding of the link where it is not the present one. `own` must live
  // until this returns or is destroyed. An error: not now.
  runtime::Task<absl::Status> BindOwn(Own* own, runtime::Deadline deadline);

  // Fetches again what is due; entries whose servers do not answer stay as they are.
  runtime::Task<void> RefreshDue();

  // The namespace has this link, and what lies below it, no more: new operations do not reach its
  // targets, and what is open there stays there. A link's path in its own namespace.
  void LeaveGone(const DfsPath& entry_prefix);

  // Failback: looks whether better targets than those that serve are up, and binds links to those
  // that have been for a while. What is open, or in flight and not repeatable, stays where it is.
  runtime::Task<void> FailBackDue();
  // As Client::SetMayFailBack.
  void SetMayFailBack(std::function<bool(const DfsPath& link)> may_fail_back) {
    may_fail_back_ = std::move(may_fail_back);
  }
  int64_t failbacks() const { return failbacks_; }

  // An operation found its target lost, though it had just been connected to.
  void NoteLost(const DfsPath& target_path, FailureClass failure);

  Dialer& dialer() { return dialer_; }
  // Notified whenever a link is bound.
  runtime::Condition& bound() { return bound_; }
  int64_t referral_requests() const { return referrals_.requests_sent(); }
  // Times a link that one target served was bound to another one.
  int64_t failovers() const { return failovers_; }

 private:
  // A target that was reached: it is up, or it says that the path goes on elsewhere.
  struct Reached {
    size_t candidate = 0;
    std::shared_ptr<smb::Tree> tree;
    DfsPath target_path;
    bool not_covered = false;
    bool in_dfs = false;
  };
  struct Try {
    size_t candidate = 0;
    DfsPath target_path;
    bool may_be_namespace = false;
    std::shared_ptr<smb::Session> avoid = nullptr;  // By another connection than this.
    size_t order = 0;                               // Among the tries of this round.
  };
  struct TryFailure {
    size_t candidate;
    FailureClass failure;
    absl::Status why;  // Its text names the target.
  };
  // What the tries of one round share; a loser may outlive the round.
  struct Round {
    explicit Round(size_t tries) : ended(tries) {}
    std::vector<runtime::Event> ended;
    std::vector<TryFailure> failures;
    bool won = false;
    bool begins_with_hint = false;  // The target that served last, and that nobody has tried yet.
  };
  // What one Bind knows.
  struct Search {
    Search(const DfsPath& path, absl::string_view account, Request bind_request)
        : resolution(path, account),
          request(std::move(bind_request)),
          not_covered_told(request.not_covered_by == nullptr) {}
    Resolution resolution;
    Request request;
    bool not_covered_told;
    std::map<FailureClass, absl::Status> met;  // The last failed attempt of each class.
  };
  // What a step of Bind came to; nullopt: the resolver is asked again.
  using Outcome = std::optional<absl::StatusOr<std::shared_ptr<Link>>>;

  // binder.cc
  runtime::Task<absl::Status> FetchOnce(ResolveStep step, Search* search,
                                        runtime::Deadline deadline);
  runtime::Task<absl::Status> Fetch(Resolution* resolution, ResolveStep step,
                                    runtime::Deadline deadline);
  bool TellNotCovered(Search* search, const ResolveStep& step);
  runtime::Task<Outcome> BindLink(DfsPath path, ResolveStep step, Search* search,
                                  BindFailure* failure, runtime::Deadline deadline);
  Outcome NothingToTry(const ResolveStep& step, const Link& link, Search* search,
                       BindFailure* failure);
  Outcome AfterRound(const ResolveStep& step, const absl::StatusOr<Reached>& reached,
                     const Round& round, std::shared_ptr<Link> link, Search* search,
                     BindFailure* failure);
  // Takes the links below `link` on the way to `path` out of the table: the namespace has them no
  // more. Not those that are bound and well: their own operations will find out.
  void ForgetDeeper(const DfsPath& path, const Link& link, const smb::Session* avoid);
  // Gives a link its new target: operations on the old one that may move are told.
  void Apply(Link& link, std::shared_ptr<smb::Tree> tree, DfsPath target_path);
  uint64_t NextEpoch();
  // `status`, with what an attempt that failed that way met: an error that names no host helps
  // nobody.
  static absl::Status Explain(const absl::Status& status, FailureClass failure,
                              const std::map<FailureClass, absl::Status>& met);
  // The candidate with which `origin` leads to this target path.
  static size_t CandidateOf(const DfsPath& origin, const ResolveStep& step,
                            const DfsPath& target_path);
  static bool IsCandidate(const DfsPath& origin, const ResolveStep& step,
                          const DfsPath& target_path);
  Resolver::FetchContext MakeFetchContext() const;
  OrderOptions MakeOrderOptions() const;
  // Steps of one key ask for the same, or for what the same answer may tell.
  std::u16string FetchKey(const ResolveStep& step);
  // Held by the one that does a step of this key.
  std::shared_ptr<runtime::Mutex> FetchMutex(const ResolveStep& step);

  // binder_try.cc
  // The candidates that may be tried now, in order; `failure` says why there are none.
  std::vector<Try> ChooseTries(const DfsPath& origin, const ResolveStep& step,
                               const Request& request, BindFailure* failure);
  // Where the link that serves `origin` leads with this candidate. An interlink may lead deeper
  // into the other namespace than the root that is tried: what lies between belongs to the link.
  static DfsPath TargetPathOf(const DfsPath& origin, const ResolveStep& step, size_t candidate);
  runtime::Task<absl::StatusOr<Reached>> TryTarget(Try attempt, std::shared_ptr<Round> shared,
                                                   runtime::Deadline deadline);
  runtime::Task<absl::StatusOr<Reached>> TryInTurn(Try attempt, std::shared_ptr<Round> shared,
                                                   runtime::Deadline deadline);
  // kGo or kJoin, or an error; kUnavailable: the target is backing off.
  runtime::Task<absl::StatusOr<TargetHealthTable::Admitted>> AdmitConnect(
      Try attempt, runtime::Deadline deadline);
  // `join_only`: as of smb::ConnectRules; the tree is null then.
  runtime::Task<absl::StatusOr<Reached>> Reach(Try attempt, bool join_only, AttemptPhase* phase,
                                               runtime::Deadline deadline);
  void NoteTryFailed(const Try& attempt, const absl::Status& status, AttemptPhase phase,
                     const runtime::Deadline& deadline, Round* round);

  // binder_own.cc
  std::vector<DfsPath> TargetsOf(const Link& link) const;

  // binder_refresh.cc
  bool MayRefresh(const ReferralEntry& entry, const ReferralFetch& fetch);
  // A target that the namespace lists no more is left, however well it does. A link that has none
  // any more is left as by LeaveGone.
  void LeaveUnlisted();
  runtime::Task<void> FailBack(std::shared_ptr<Link> link);
  std::vector<DfsPath> BetterTargets(const Link& link, const DfsPath& entry_prefix);
  runtime::Task<void> FindBetter(std::shared_ptr<Link> link, std::vector<DfsPath> wanted);
  // Reaches an entry's target for failback; nullopt: it is not up, or is no plain share.
  runtime::Task<std::optional<Reached>> Probe(DfsPath target_path);
  void ApplyBetter(Link& link, Reached reached);

  const smb::Credential credential_;
  const std::string account_;
  const ClientOptions& options_;
  ReferralCache& cache_;
  DomainCache& domains_;
  TargetHealthTable& health_;
  LinkTable& links_;
  Dialer dialer_;
  Resolver resolver_;
  ReferralSource referrals_;
  runtime::Condition bound_;
  std::function<bool(const DfsPath& link)> may_fail_back_;
  uint64_t last_epoch_ = 0;
  int64_t failovers_ = 0;
  int64_t failbacks_ = 0;
  runtime::TaskGroup racing_;  // Dies first: losers still use all of the above.
  std::map<std::u16string, std::weak_ptr<runtime::Mutex>> fetching_;
  // Entries that only another mount of the account may refresh, and until when that is believed.
  std::map<std::u16string, absl::Time> not_ours_;
};

}  // namespace dfscsi::dfs

#endif  // NODE_AGENT_DFS_BINDER_H_
