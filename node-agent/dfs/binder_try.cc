// Binder: one attempt on one target.

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "node-agent/base/status_macros.h"
#include "node-agent/dfs/binder.h"
#include "node-agent/dfs/binder_parts.h"
#include "node-agent/dfs/client.h"
#include "node-agent/runtime/loop.h"
#include "node-agent/smb/connection.h"
#include "node-agent/smb/session.h"
#include "node-agent/smb/wire/utf16.h"

namespace dfscsi::dfs {

using runtime::Deadline;
using runtime::Task;

namespace {

// A target that is slower than this to come up gets a competitor.
constexpr absl::Duration kTargetStagger = absl::Milliseconds(250);
// So does the one that served last, if nobody has tried it yet: an agent that has just taken over
// must not move a link because its server is slow for a moment. As long as silence is no suspicion
// (smb::Options::suspect_after).
constexpr absl::Duration kHintStagger = absl::Seconds(1);

std::u16string SharePathOf(const DfsPath& path) {
  const absl::string_view relative = path.Relative(2);
  return smb::wire::Utf8ToUtf16(std::string_view(relative.data(), relative.size())).value_or(u"");
}

}  // namespace

DfsPath Binder::TargetPathOf(const DfsPath& origin, const ResolveStep& step, size_t candidate) {
  const DfsPath& target = step.entry->targets[candidate].path;
  const size_t rest = origin.size() - std::min(origin.size(), step.link_components);
  const size_t own = step.path->size() - std::min(step.path->size(), rest);
  if (own <= step.prefix_components) return target;
  const absl::StatusOr<DfsPath> deeper =
      step.path->Prefix(own).ReplacePrefix(step.prefix_components, target);
  return deeper.ok() ? *deeper : target;  // Too long: the path itself will be refused, too.
}

std::vector<Binder::Try> Binder::ChooseTries(const DfsPath& origin, const ResolveStep& step,
                                             const Request& request, BindFailure* failure) {
  const absl::Time now = runtime::Loop::Current().Now();
  const std::string& identity = dialer_.identity();
  std::vector<Try> tries;
  std::vector<TargetStatus> statuses;
  TargetOrder order;
  if (step.kind == ResolveStep::Kind::kTryTargets) {
    for (const uint16_t candidate : step.candidates) {
      statuses.push_back(health_.Get(TargetPathOf(origin, step, candidate), identity, now));
    }
    order = OrderTargets(*step.entry, step.candidates, statuses, MakeOrderOptions(),
                         /*new_open=*/request.avoid == nullptr, now);
  } else {
    const DfsPath host = step.path->Prefix(2);
    statuses.push_back(health_.Get(host, identity, now));
    order.push_back({.index = 0, .not_before = statuses.front().not_before});
  }
  std::vector<Try> last;
  for (const OrderedTarget& target : order) {
    if (target.not_before > now) {
      failure->retry_at = std::min(failure->retry_at, target.not_before);
      continue;
    }
    Try attempt{.candidate = target.index, .target_path = step.path->Prefix(2)};
    if (step.kind == ResolveStep::Kind::kTryTargets) {
      attempt.target_path = TargetPathOf(origin, step, target.index);
      attempt.may_be_namespace = step.entry->kind == EntryKind::kLink;
    }
    const bool avoided =
        request.avoid != nullptr &&
        absl::EqualsIgnoreCase(request.avoid->connection().host(), attempt.target_path.HostName());
    if (avoided) attempt.avoid = request.avoid;
    (avoided ? last : tries).push_back(std::move(attempt));
  }
  tries.insert(tries.end(), last.begin(), last.end());
  for (size_t i = 0; i < tries.size(); ++i) tries[i].order = i;
  return tries;
}

// Waits until the try before this one has failed or had its time, then tries.
Task<absl::StatusOr<Binder::Reached>> Binder::TryInTurn(Try attempt, std::shared_ptr<Round> shared,
                                                        Deadline deadline) {
  struct Ended {
    runtime::Event& event;
    ~Ended() { event.Set(); }
  } ended{shared->ended[attempt.order]};
  if (attempt.order > 0) {
    const absl::Duration first = shared->begins_with_hint ? kHintStagger : kTargetStagger;
    const absl::Status status = co_await shared->ended[attempt.order - 1].WaitUntilSet(
        deadline.Within(first + kTargetStagger * static_cast<int64_t>(attempt.order - 1)));
    if (absl::IsCancelled(status)) co_return status;
    // Who is not needed takes nobody's turn to connect.
    if (shared->won) co_return absl::CancelledError("another target serves");
  }
  absl::StatusOr<Reached> reached =
      co_await TryTarget(std::move(attempt), shared, std::move(deadline));
  shared->won = shared->won || reached.ok();
  co_return reached;
}

Task<absl::StatusOr<Binder::Reached>> Binder::TryTarget(Try attempt, std::shared_ptr<Round> shared,
                                                        Deadline deadline) {
  const absl::Status allowed = dialer_.CheckHost(attempt.target_path.HostName());
  if (!allowed.ok()) {
    shared->failures.push_back({attempt.candidate, FailureClass::kDenied, allowed});
    co_return allowed;
  }
  const Deadline until = deadline.Within(binder_parts::kTargetTime);
  const absl::Time began = runtime::Loop::Current().Now();
  AttemptPhase phase = AttemptPhase::kResolve;
  absl::StatusOr<Reached> reached = Reached{.target_path = attempt.target_path};
  while (reached.ok() && reached->tree == nullptr) {
    const absl::StatusOr<TargetHealthTable::Admitted> admitted =
        co_await AdmitConnect(attempt, until);
    if (!admitted.ok()) {
      if (!deadline.cancelled()) {
        const FailureClass last =
            health_.Get(attempt.target_path, dialer_.identity(), runtime::Loop::Current().Now())
                .last_failure;
        shared->failures.push_back({attempt.candidate,
                                    last == FailureClass::kNone ? FailureClass::kTransport : last,
                                    admitted.status()});
      }
      co_return admitted.status();
    }
    const bool join_only = admitted->admission == TargetHealthTable::Admission::kJoin;
    reached = co_await Reach(attempt, join_only, &phase, until);
    if (reached.ok() && reached->tree == nullptr) {
      const absl::Status status = co_await runtime::Sleep(binder_parts::kConnectGivenUp, until);
      if (!status.ok()) reached = status;
    }
  }
  if (!reached.ok()) {
    NoteTryFailed(attempt, reached.status(), phase, deadline, shared.get());
    co_return reached;
  }
  if (!reached->not_covered) {
    const absl::Time now = runtime::Loop::Current().Now();
    health_.NoteUp(attempt.target_path, dialer_.identity(), now, now - began);
  }
  co_return reached;
}

// A new connection: one in flight for each credential (whom the pool has others wait for), and not
// too many in a second. A target that backs off fails at once: there may be a next one.
Task<absl::StatusOr<TargetHealthTable::Admitted>> Binder::AdmitConnect(Try attempt,
                                                                       Deadline deadline) {
  const DfsPath& target_path = attempt.target_path;
  while (true) {
    if (dialer_.HasSession(target_path.host(), attempt.avoid.get())) {
      co_return TargetHealthTable::Admitted{.admission = TargetHealthTable::Admission::kGo};
    }
    const absl::Time now = runtime::Loop::Current().Now();
    TargetHealthTable::Admitted admitted =
        health_.TryBeginConnect(target_path, dialer_.identity(), now);
    if (admitted.admission != TargetHealthTable::Admission::kTooSoon) co_return admitted;
    if (!health_.Get(target_path, dialer_.identity(), now).MayTry(now)) {
      co_return absl::UnavailableError(
          absl::StrCat(target_path.ToString(), ": failed a moment ago"));
    }
    CO_RETURN_IF_ERROR(co_await runtime::Sleep(admitted.not_before - now, deadline));
  }
}

// Up means more than that TCP connected: the target's root must open.
Task<absl::StatusOr<Binder::Reached>> Binder::Reach(Try attempt, bool join_only,
                                                    AttemptPhase* phase, Deadline deadline) {
  const std::string host(attempt.target_path.host());
  const std::string share(attempt.target_path.share());
  smb::ConnectPhase connect_phase = smb::ConnectPhase::kResolve;
  const absl::StatusOr<std::shared_ptr<smb::Tree>> tree = co_await dialer_.GetTree(
      host, share, {.avoid = attempt.avoid, .join_only = join_only}, &connect_phase, deadline);
  *phase = binder_parts::PhaseOf(connect_phase);
  if (!tree.ok()) co_return tree.status();
  if (*tree == nullptr) co_return Reached{.target_path = attempt.target_path};
  if (!(*tree)->is_disk()) {  // IPC$, or a printer: no other answer will come.
    *phase = AttemptPhase::kTreeConnect;
    co_return smb::wire::ToStatus(
        smb::wire::NtStatus::kBadNetworkName,
        absl::StrCat(attempt.target_path.Prefix(2).ToString(), " is not a file share"));
  }
  Reached reached{
      .candidate = attempt.candidate, .tree = *tree, .target_path = attempt.target_path};
  *phase = AttemptPhase::kTargetRoot;
  const absl::Time began = runtime::Loop::Current().Now();
  const absl::StatusOr<smb::FileStatus> root =
      co_await (*tree)->Stat(SharePathOf(attempt.target_path), deadline);
  if (!root.ok()) {
    dialer_.RetireIfSilent((*tree)->session(), root.status(), began, deadline);
    const Failure failure = Classify(root.status(), AttemptPhase::kTargetRoot, true);
    if (failure.failure == FailureClass::kPathNotCovered) {
      reached.not_covered = true;
      co_return reached;
    }
    if (failure.action != FailureAction::kAccept) {
      // A peer that broke the protocol is to see the end of the connection now.
      if (!(*tree)->session().usable()) dialer_.Retire((*tree)->session());
      co_return root.status();
    }
  }
  reached.in_dfs = attempt.may_be_namespace && (*tree)->in_dfs();
  co_return reached;
}

void Binder::NoteTryFailed(const Try& attempt, const absl::Status& status, AttemptPhase phase,
                           const Deadline& deadline, Round* round) {
  Failure failure = Classify(status, phase, /*keys_proven=*/phase > AttemptPhase::kSessionSetup);
  // Cancelled: somebody else won, which says nothing of this target. But its own time is up:
  // silence.
  if (failure.failure == FailureClass::kCaller) {
    if (deadline.cancelled()) return;
    failure.failure = FailureClass::kTransport;
  }
  runtime::Loop& loop = runtime::Loop::Current();
  health_.NoteFailed(attempt.target_path, dialer_.identity(), phase, failure.failure, loop.Now(),
                     binder_parts::Fraction(loop.Random()), smb::LogOnForbiddenFor(status));
  round->failures.push_back(
      {attempt.candidate, failure.failure,
       binder_parts::WithText(status, absl::StrCat(attempt.target_path.ToString(), ": ",
                                                   std::string(status.message())))});
}

}  // namespace dfscsi::dfs
