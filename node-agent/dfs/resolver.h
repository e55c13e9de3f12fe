// From a path to the targets that serve it: which step is next.
//
// Resolver::Next() looks at the cache and at what this resolution has learned so far, and names one
// step. The driver does it (attempts on targets, a referral request), notes what came of it, and
// asks again. There is no I/O here and no waiting.
//
//   step          the driver
//   kTryTargets   attempts the candidates, in an order of its choice. One is up and covers the
//   path:
//                 done. Else NoteTargetFailed, NotePathNotCovered or NoteShareInDfs
//   kFetch        asks the hosts in turn: NoteReferral, NoteControllers or NoteFetchFailed
//   kNotDfs       opens the path on its own host; NotePathNotCovered if that is the answer
//   kError        reports it; a hard mount starts a new resolution later if WorthWaiting()
//
// A path may lead through several namespaces: a link's target may be a path in another one (an
// interlink). Samba does not announce that; it shows by STATUS_PATH_NOT_COVERED, or by a share that
// says it is in a DFS tree. Each namespace that is entered is a level. A level whose targets have
// all failed is left again, and the next target of the link that led there is tried.
//
// Source: [MS-DFSC] 3.1.4.1 (its step numbers are named in resolver.cc), 3.1.5.1, 3.1.5.4.
// Departures: at most 8 links per resolution and never the same path twice (the specification has
// no loop guard); a link target that is a namespace is entered although 3.1.5.1 has the request
// fail; a refused first ROOT referral means "not DFS" whatever the error.

#ifndef NODE_AGENT_DFS_RESOLVER_H_
#define NODE_AGENT_DFS_RESOLVER_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "node-agent/dfs/domain_cache.h"
#include "node-agent/dfs/failure_class.h"
#include "node-agent/dfs/path.h"
#include "node-agent/dfs/referral.h"
#include "node-agent/dfs/referral_cache.h"
#include "node-agent/dfs/referral_request.h"

namespace dfscsi::dfs {

inline constexpr size_t kMaxLinks = 8;

// A referral to ask for.
struct ReferralFetch {
  ReferralKind kind = ReferralKind::kRoot;
  std::u16string wire_path;        // RequestFileName.
  std::optional<DfsPath> request;  // The same as a path; not for kDc.
  std::string domain;              // kDc
  // Whom to ask, in this order, until one answers. Empty (kDc only): the driver looks up the
  // domain's SRV records and tells the DomainCache, by PutDomain or PutNotADomain.
  std::vector<std::string> hosts;
  // Something stale is known and will be used if this fails: no reason to wait long.
  bool stale_known = false;
  // And none of its targets has been tried yet: no reason to wait for hosts that are down.
  bool untried_known = false;
};

struct ResolveStep {
  enum class Kind { kTryTargets, kFetch, kNotDfs, kError };
  Kind kind = Kind::kError;

  // kTryTargets: the entry that serves the path, and which of its targets are candidates:
  // TargetHint first, then the server's order, without those that failed.
  ReferralCache::Entry entry;
  absl::InlinedVector<uint16_t, 16> candidates;
  // kTryTargets, kNotDfs: the path to open. Its first `prefix_components` give way to the target's
  // own path (kNotDfs: they are the host and the share). Lives until the resolution changes.
  const DfsPath* path = nullptr;
  size_t prefix_components = 0;
  // How many components of the path that the resolution began with belong to the link (or root, or
  // share) that serves it: link epochs are kept by origin().KeyPrefix(link_components).
  size_t link_components = 0;

  ReferralFetch fetch;  // kFetch

  // kError
  absl::Status status;
  FailureClass failure = FailureClass::kNone;
  int error_number = 0;

  // kError: true if the same resolution may succeed later, without anybody changing the namespace.
  bool WorthWaiting() const { return dfs::WorthWaiting(failure); }
  // kTryTargets: the path on one candidate, \host\share\<target's path>\<rest>.
  // Errors: kOutOfRange, too long for SMB.
  absl::StatusOr<DfsPath> PathOn(size_t candidate) const {
    return path->ReplacePrefix(prefix_components, entry->targets[candidate].path);
  }
};

// What one operation has learned on its way. Of one operation, used by one loop.
class Resolution {
 public:
  // `origin` is the path as the user sees it. Both must outlive the resolution.
  Resolution(const DfsPath& origin, absl::string_view credential);

  const DfsPath& origin() const { return *origin_; }
  absl::string_view credential() const { return credential_; }
  // Namespaces entered and not left, the first included.
  size_t levels() const { return levels_.size(); }

 private:
  friend class Resolver;

  // A question that each level asks at most once.
  struct Question {
    bool asked = false;
    absl::Status status;
    FailureClass failure = FailureClass::kNone;
  };
  struct Level {
    const DfsPath* path = nullptr;
    std::unique_ptr<const DfsPath> rewritten;  // Owns `path`, at all levels but the first.
    // The link and its target that led here; null at the first level.
    ReferralCache::Entry via;
    size_t via_target = 0;
    size_t link_components = 0;  // Of the origin, up to that link.
    // A server of this level's namespace has said that the path lies below a link.
    bool not_covered = false;
    Question root, link, controllers;
    bool left_out = false;  // What is stale is used as it is.
    // Targets that failed and how, and targets that turned out to be no namespaces; by key.
    std::vector<std::u16string> failed;
    std::vector<FailureClass> failures;
    bool tried = false;  // At least one of them was really tried.
    std::vector<std::u16string> plain;
    // The target whose namespace is to be entered next; empty: none.
    std::u16string entering;
    bool entering_not_covered = false;
  };

  const DfsPath* origin_;
  absl::string_view credential_;
  absl::InlinedVector<Level, 1> levels_;
  int fetches_ = 0;
  int entered_ = 0;
};

// Stateless but for its references; thread-safe as far as a Resolution is used by one loop.
class Resolver {
 public:
  struct Options {
    // Ask whether a host name with a dot is a domain (SRV records) before it is asked for a root.
    bool find_domains = false;
  };
  Resolver(ReferralCache& cache, DomainCache& domains, Options options)
      : cache_(cache), domains_(domains), options_(options) {}

  // Names the next step. Changes `resolution` only by entering and leaving levels. On the common
  // path (the entry is cached and fresh, nothing has failed) it allocates nothing.
  ResolveStep Next(Resolution& resolution, absl::Time now);

  // The driver's reports, each about the step that Next() returned last.

  // A candidate failed; `failure` is none of kNone, kPathNotCovered, kSemantics, kCaller.
  void NoteTargetFailed(Resolution& resolution, const ResolveStep& step, size_t candidate,
                        FailureClass failure);
  // A candidate was not tried: it is backing off, having failed that way. As NoteTargetFailed, but
  // a level where nothing was tried is no reason to fetch its list anew.
  void NoteTargetHeldBack(Resolution& resolution, const ResolveStep& step, size_t candidate,
                          FailureClass failure);
  // A candidate (kNotDfs: the path's own host; `candidate` is not looked at) answered
  // STATUS_PATH_NOT_COVERED.
  void NotePathNotCovered(Resolution& resolution, const ResolveStep& step, size_t candidate);
  // A link's candidate has a share that is in a DFS tree (SHARE_CAP_DFS): the next step looks for a
  // namespace there. False, and no effect, for root targets and where that is known already.
  bool NoteShareInDfs(Resolution& resolution, const ResolveStep& step, size_t candidate);

  // Puts into a fetch's result what it needs to be remembered.
  struct FetchContext {
    TtlLimits limits;
    absl::Time now;
    double random = 0;  // In [0, 1).
  };
  // hosts[answered_by] answered a ROOT, LINK or SYSVOL request.
  void NoteReferral(Resolution& resolution, const ResolveStep& step, const Referral& referral,
                    size_t answered_by, const FetchContext& context);
  // hosts[answered_by] answered a DC request with these controllers.
  void NoteControllers(Resolution& resolution, const ResolveStep& step,
                       const NameListReferral& list, size_t answered_by,
                       const FetchContext& context);
  // The driver looked up SRV records, or another operation did this very fetch and has noted it.
  void NoteFetchedElsewhere(Resolution& resolution, const ResolveStep& step);
  // fetch.untried_known, and the hosts are down: what is known is used, and stays due.
  void NoteFetchLeftOut(Resolution& resolution);
  // No host answered, or one refused (`failure` is kSemantics: `status` is its NTSTATUS).
  void NoteFetchFailed(Resolution& resolution, const ResolveStep& step, const absl::Status& status,
                       FailureClass failure, const FetchContext& context);

  // For the background: how to fetch `entry` anew, and what to do with the result.
  // REQUIRES: HasTargets(entry.kind).
  ReferralFetch RefreshOf(const ReferralEntry& entry, absl::Time now) const;
  void StoreReferral(absl::string_view credential, const ReferralFetch& fetch,
                     const Referral& referral, size_t answered_by, const FetchContext& context);
  void StoreFailure(absl::string_view credential, const ReferralFetch& fetch,
                    const absl::Status& status, FailureClass failure, const FetchContext& context);

 private:
  using Level = Resolution::Level;
  using Question = Resolution::Question;
  // One look at the deepest level; nullopt: a level was entered or left, look again.
  using Look = std::optional<ResolveStep>;

  Look LookAtLevel(Resolution& resolution, absl::Time now);
  Look LookAtNothing(Resolution& resolution, absl::Time now);
  Look LookAtNotDfs(Resolution& resolution, absl::Time now);
  Look LookAtRoot(Resolution& resolution, ReferralCache::Entry entry, absl::Time now);
  Look LookAtLink(Resolution& resolution, ReferralCache::Entry entry, absl::Time now);
  Look NotCoveredAtRoot(Resolution& resolution, absl::Time now);
  Look TryTargets(Resolution& resolution, ReferralCache::Entry entry, absl::Time now);
  Look TargetsFailed(Resolution& resolution, const ReferralEntry& entry, absl::Time now);
  Look Enter(Resolution& resolution, const ReferralCache::Entry& via, size_t target,
             bool not_covered);
  Look LeaveFailed(Resolution& resolution, FailureClass failure, const absl::Status& status);
  Look Ask(Resolution& resolution, ReferralFetch fetch);
  Look AskRoot(Resolution& resolution, bool stale_known, absl::Time now);
  Look AskLink(Resolution& resolution, bool stale_known, absl::Time now);
  static Look Untried(Look ask);
  bool IsNamespace(const Level& level, const ReferralEntry& entry, size_t target,
                   absl::Time now) const;
  ReferralFetch RootFetch(const DfsPath& path, absl::Time now) const;
  ReferralFetch LinkFetch(const DfsPath& path, absl::string_view credential, absl::Time now) const;
  static Question& QuestionOf(Level& level, ReferralKind kind);

  ReferralCache& cache_;
  DomainCache& domains_;
  const Options options_;
};

}  // namespace dfscsi::dfs

#endif  // NODE_AGENT_DFS_RESOLVER_H_
