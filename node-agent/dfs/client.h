// Runs operations on whichever target serves a path now. The only place that fails over.
//
// A path is what the user sees: //host/root/link/dir/file below the mounted source, whichever
// servers are behind it. Run() resolves it (cache, referrals, nested links, interlinks), binds it
// to a target that is up, and runs the caller's operation there. When that target is lost, or grows
// silent while another one is up, it resolves anew from the path that the user mounted and runs the
// operation again. What an operation with open files does about a new target is its own business:
// it compares epochs.
//
// Source: [MS-DFSC] 3.1.4.1, 3.1.5.

#ifndef NODE_AGENT_DFS_CLIENT_H_
#define NODE_AGENT_DFS_CLIENT_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "node-agent/dfs/domain_cache.h"
#include "node-agent/dfs/path.h"
#include "node-agent/dfs/referral_cache.h"
#include "node-agent/dfs/target_health.h"
#include "node-agent/dfs/target_order.h"
#include "node-agent/runtime/deadline.h"
#include "node-agent/runtime/task.h"
#include "node-agent/smb/session_pool.h"
#include "node-agent/smb/tree.h"

namespace dfscsi::dfs {

// A path bound to a target. A value; holding it keeps the tree.
struct Binding {
  std::shared_ptr<smb::Tree> tree;
  std::u16string path;  // The rest of the path below the share, as smb::Tree takes it.
  // Grows with every new binding of the same link (or root, or plain share). A handle opened under
  // another epoch belongs to another server, or to another session of the same one.
  uint64_t epoch = 0;
  // How many components of the user's path belong to the link (or root) that is bound: two paths
  // with the same first `link_components` components are on the same share.
  size_t link_components = 2;
};

// What a caller allows, per operation.
struct RunOptions {
  // The epoch under which what the operation uses is open; 0: it uses nothing that is open. A link
  // that has failed back to a better target leaves open what is open on the former one: while that
  // is up the operation is run there, else where the link is bound now.
  uint64_t held_epoch = 0;
  // False: while the operation is out it is not moved, however silent its server is; after
  // `write_grace` of silence the connection is given up, and the operation's own error (kAborted)
  // says so: IsLost(). What was never sent (kUnavailable) is run again, on whichever target.
  bool movable = true;
  // False: an answer that was lost leaves it unknown whether the operation was executed; it is not
  // repeated, and Run returns kAborted.
  bool repeatable = true;
};

// Picks one of the targets that a referral lists.
using TargetPredicate = std::function<bool(const DfsPath& target)>;

// When a link goes back to a better target than the one that serves.
enum class Failback {
  kNever,
  kReferral,  // To a better set, where the namespace asks for it (T bit). [MS-DFSC] 3.1.5.4.3
  kAlways,    // To any target that the referral lists before it.
};

// What a mount's options say about failing over.
struct ClientOptions {
  // Soft: how long an operation may wait for a target (op_timeout). Hard: InfiniteDuration().
  absl::Duration give_up_after = absl::InfiniteDuration();
  absl::Duration write_grace = absl::Seconds(30);
  absl::Duration referral_ttl_min = absl::Seconds(30);
  absl::Duration referral_ttl_max = absl::Hours(24);
  // Which hosts may be given the credential: host names or suffixes (".corp.example.com"); empty:
  // those of the mounted source's DNS suffix, or any where it has none.
  std::vector<std::string> allowed_targets;
  TargetPolicy target_policy = TargetPolicy::kServerOrder;
  Failback failback = Failback::kReferral;
  // A target must have been up for this long without a break to be gone back to.
  absl::Duration failback_dwell = absl::Seconds(10);
  // Our Active Directory site, for the servers' order of targets; empty: they judge by our address.
  std::string site;
  // Where link epochs come from: a number never given out before in the life of the mount,
  // whichever agent serves it (state::MountTables::NextEpoch). Unset: numbers of this client.
  std::function<uint64_t()> next_epoch;
  // Loopback, link-local and own addresses, and names that resolve to them: tests only.
  bool allow_local_targets = false;
};

struct ClientCounters {
  int64_t suspicions = 0;        // A server was silent for too long.
  int64_t failovers = 0;         // A link went from one target to another, for whatever reason.
  int64_t lost_targets = 0;      // A target said goodbye, or its connection broke.
  int64_t moved_operations = 0;  // Operations that were run again on another target.
  int64_t failbacks = 0;         // A link was bound to a better target; nothing was lost.
  int64_t referral_requests = 0;
};

// An operation that may not move was given up: its server was silent, or away, for `write_grace`.
bool IsLost(const absl::Status& status);

// Of one mount, on one loop. Not thread-safe, but for what the shared cache and health do
// themselves.
class Client {
 public:
  // `cache`, `domains` and `health` are the node's; all must outlive the client.
  Client(DfsPath source, smb::Credential credential, ClientOptions options,
         smb::SessionPool& sessions, ReferralCache& cache, DomainCache& domains,
         TargetHealthTable& health);
  ~Client();

  // An operation on one binding. It may run several times, and be destroyed while suspended.
  using Operation = std::function<runtime::Task<absl::Status>(Binding)>;

  // Runs `operation` until it has had its say: OK, or an error that no other target could mend
  // (file semantics: an NTSTATUS). Hard mounts wait for a target as long as `deadline` allows.
  // Errors of its own:
  //   kUnavailable       no target (soft: after give_up_after; hard: never): EHOSTDOWN
  //   kPermissionDenied  every target refused the credential: EACCES
  //   kNotFound          the link has no targets, or none of them has the path's prefix: ENOENT
  //   kFailedPrecondition with ELOOP (ErrnoOf): too many nested links
  //   kAborted           see RunOptions::repeatable
  //   kDeadlineExceeded, kCancelled
  runtime::Task<absl::Status> Run(DfsPath path, Operation operation, RunOptions options,
                                  runtime::Deadline deadline);

  // For a change whose answer was lost on the way (Run returned kAborted): runs `operation` on the
  // server and share of `lost` and on no other, whatever serves `path` by now. The session that was
  // lost is ended there first, so that nothing which is still on its way is executed after
  // `operation` has looked. `operation` may run several times: it finds out what was done, and does
  // what was not. Errors of its own:
  //   kAborted           the server did not come back within `write_grace` (soft: `give_up_after`)
  //   STATUS_PATH_NOT_COVERED  it never was that server's to do
  //   kDeadlineExceeded, kCancelled
  runtime::Task<absl::Status> RunOnOwn(DfsPath path, Binding lost, Operation operation,
                                       runtime::Deadline deadline);

  // For what was sent to, or is locked on, one server of several: runs `operation` on the target
  // that `is_own` picks of those which the referral lists for `path`, and on no other, wherever its
  // link is bound. That target is a former binding from then on: RunOptions::held_epoch finds it.
  // `options`: as of Run, never movable. Errors of its own, besides those of Run:
  //   kAborted, IsLost()  it is not listed (any more), or the path is not that server's, or that
  //                       was out of reach for `write_grace` since it was first missed; who asks
  //                       again soon after that is answered after one attempt
  runtime::Task<absl::Status> RunOnTarget(DfsPath path, TargetPredicate is_own, Operation operation,
                                          RunOptions options, runtime::Deadline deadline);

  // Sessions of ours that the server of `binding` may still hold, though we have lost or left them:
  // what they have open there is in the way of who removes or renames it, and a removed name stays
  // until it is closed. They are ended before this returns; within seconds, or they are let be. No
  // I/O where there are none.
  runtime::Task<void> EndFormerSessions(Binding binding, runtime::Deadline deadline);

  // Asked before a link is bound to a better target: false, if what is open on the present one
  // would suffer; it is asked again later. Unset: it may.
  void SetMayFailBack(std::function<bool(const DfsPath& link)> may_fail_back);

  // No I/O: what is known of `path` itself. True if it is exactly a link's (or a root's) path: its
  // referral is cached, whether or not its targets can be reached, or it was noted of late.
  bool IsKnownLink(const DfsPath& path) const;
  // The server of the directory above has shown that `path` is a link. Believed for
  // referral_ttl_min where no referral says more.
  void NoteLink(const DfsPath& path);
  // That server says that nothing is there, or something else: what is open below it stays open.
  void ForgetLink(const DfsPath& path);

  // The epoch under which `path` is bound now; 0 if it is not. No I/O.
  uint64_t GetEpoch(const DfsPath& path) const;

  // How long the referral is good for that lists the targets of what serves `path`; zero: there are
  // no others. No I/O.
  absl::Duration GetTtl(const DfsPath& path) const;

  const DfsPath& source() const;

  // For people and metrics.
  struct BoundLink {
    std::string prefix;
    std::string target;
    bool bound = false;
    bool suspect = false;
    uint64_t epoch = 0;
  };
  std::vector<BoundLink> ListLinks() const;
  ClientCounters counters() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace dfscsi::dfs

#endif  // NODE_AGENT_DFS_CLIENT_H_
