#include "node-agent/dfs/binder.h"

#include <algorithm>
#include <functional>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "node-agent/base/status_macros.h"
#include "node-agent/dfs/client.h"
#include "node-agent/runtime/loop.h"
#include "node-agent/runtime/race.h"
#include "node-agent/smb/wire/utf16.h"

namespace dfscsi::dfs {

using runtime::Deadline;
using runtime::Task;

namespace {

// A target that is slower than this to come up gets a competitor.
constexpr absl::Duration kTargetStagger = absl::Milliseconds(250);
// One target: name, TCP, NEGOTIATE, SESSION_SETUP, TREE_CONNECT and the open of its root, in all.
constexpr absl::Duration kTargetTime = absl::Seconds(5);
// One referral, from whichever namespace server.
constexpr absl::Duration kFetchTime = absl::Seconds(5);
// The same where something stale will do.
constexpr absl::Duration kFetchTimeIfStale = absl::Seconds(1);

AttemptPhase PhaseOf(smb::ConnectPhase phase) { return static_cast<AttemptPhase>(phase); }
static_assert(static_cast<int>(AttemptPhase::kTreeConnect) ==
              static_cast<int>(smb::ConnectPhase::kTreeConnect));

double Fraction(uint64_t random) { return static_cast<double>(random >> 11) * 0x1.0p-53; }

absl::Status WithText(const absl::Status& status, absl::string_view text) {
  absl::Status other(status.code(), text);
  status.ForEachPayload(
      [&](absl::string_view url, const absl::Cord& payload) { other.SetPayload(url, payload); });
  return other;
}

std::u16string SharePathOf(const DfsPath& path) {
  const absl::string_view relative = path.Relative(2);
  return smb::wire::Utf8ToUtf16(std::string_view(relative.data(), relative.size())).value_or(u"");
}

}  // namespace

Binder::Binder(smb::Credential credential, const ClientOptions& options, smb::SessionPool& sessions,
               ReferralCache& cache, DomainCache& domains, TargetHealthTable& health,
               LinkTable& links, AllowedTargets allowed)
    : credential_(std::move(credential)),
      account_(credential_.Account()),
      options_(options),
      sessions_(sessions),
      cache_(cache),
      domains_(domains),
      health_(health),
      links_(links),
      allowed_(std::move(allowed)),
      resolver_(cache, domains, {.find_domains = true}),
      referrals_(sessions, credential_) {}

Resolver::FetchContext Binder::MakeFetchContext() const {
  runtime::Loop& loop = runtime::Loop::Current();
  return {.limits = {.min = options_.referral_ttl_min, .max = options_.referral_ttl_max},
          .now = loop.Now(),
          .random = Fraction(loop.Random())};
}

std::shared_ptr<runtime::Mutex> Binder::FetchMutex(const DfsPath& path) {
  // Whatever lies below one name of a bound link waits for one referral; other names do not.
  const std::shared_ptr<Link> above = links_.Find(path);
  const size_t components =
      std::min(path.size(), above == nullptr ? size_t{2} : above->prefix.size() + 1);
  std::weak_ptr<runtime::Mutex>& slot = fetching_[std::u16string(path.KeyPrefix(components))];
  std::shared_ptr<runtime::Mutex> mutex = slot.lock();
  if (mutex == nullptr) {
    std::erase_if(fetching_, [](const auto& entry) { return entry.second.expired(); });
    mutex = std::make_shared<runtime::Mutex>();
    fetching_[std::u16string(path.KeyPrefix(components))] = mutex;
  }
  return mutex;
}

Task<absl::Status> Binder::Fetch(Resolution* resolution, ResolveStep step, Deadline deadline) {
  const Deadline until = deadline.Within(step.fetch.stale_known ? kFetchTimeIfStale : kFetchTime);
  if (step.fetch.kind == ReferralKind::kDc && step.fetch.hosts.empty()) {
    absl::StatusOr<std::vector<std::string>> hosts =
        co_await referrals_.FindControllers(step.fetch.domain, until);
    if (deadline.cancelled()) co_return absl::CancelledError("cancelled");
    const absl::Time now = runtime::Loop::Current().Now();
    if (hosts.ok() && !hosts->empty()) {
      domains_.PutDomain(step.fetch.domain, *std::move(hosts));
    } else {
      domains_.PutNotADomain(step.fetch.domain, now + absl::Minutes(5));
    }
    resolver_.NoteFetchedElsewhere(*resolution, step);
    co_return absl::OkStatus();
  }
  FailureClass failure = FailureClass::kNone;
  absl::StatusOr<ReferralSource::Answer> answer =
      co_await referrals_.Fetch(step.fetch, &failure, until);
  if (deadline.cancelled() || deadline.when() <= runtime::Loop::Current().Now()) {
    co_return answer.ok() ? absl::DeadlineExceededError("deadline exceeded") : answer.status();
  }
  if (!answer.ok()) {
    resolver_.NoteFetchFailed(*resolution, step, answer.status(), failure, MakeFetchContext());
  } else if (const auto* referral = std::get_if<Referral>(&answer->referral)) {
    resolver_.NoteReferral(*resolution, step, *referral, answer->answered_by, MakeFetchContext());
  } else {
    resolver_.NoteControllers(*resolution, step, std::get<NameListReferral>(answer->referral),
                              answer->answered_by, MakeFetchContext());
  }
  co_return absl::OkStatus();
}

std::vector<Binder::Try> Binder::ChooseTries(const ResolveStep& step, const Request& request,
                                             BindFailure* failure) {
  const absl::Time now = runtime::Loop::Current().Now();
  const std::string identity = credential_.Identity();
  std::vector<Try> tries;
  std::vector<TargetStatus> statuses;
  TargetOrder order;
  if (step.kind == ResolveStep::Kind::kTryTargets) {
    for (const uint16_t candidate : step.candidates) {
      statuses.push_back(health_.Get(step.entry->targets[candidate].path, identity, now));
    }
    const OrderOptions options{.policy = options_.target_policy, .failback = options_.failback};
    order = OrderTargets(*step.entry, step.candidates, statuses, options,
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
      attempt.target_path = step.entry->targets[target.index].path;
      attempt.may_be_namespace = step.entry->kind == EntryKind::kLink;
    }
    attempt.fresh =
        request.avoid != nullptr &&
        absl::EqualsIgnoreCase(request.avoid->connection().host(), attempt.target_path.HostName());
    (attempt.fresh ? last : tries).push_back(std::move(attempt));
  }
  tries.insert(tries.end(), last.begin(), last.end());
  for (size_t i = 0; i < tries.size(); ++i) tries[i].order = i;
  return tries;
}

Task<absl::StatusOr<std::shared_ptr<smb::Tree>>> Binder::Connect(Try attempt,
                                                                 smb::ConnectPhase* phase,
                                                                 Deadline deadline) {
  const std::string host(attempt.target_path.host());
  const std::string share(attempt.target_path.share());
  if (!attempt.fresh) {
    co_return co_await sessions_.GetTree(host, share, credential_, phase, deadline);
  }
  CO_ASSIGN_OR_RETURN(std::shared_ptr<smb::Session> session,
                      co_await sessions_.ConnectFresh(host, credential_, phase, deadline));
  *phase = smb::ConnectPhase::kTreeConnect;
  CO_ASSIGN_OR_RETURN(std::shared_ptr<smb::Tree> tree,
                      co_await session->ConnectTree(share, deadline));
  sessions_.Adopt(std::move(session), host, credential_.Identity());
  co_return tree;
}

Task<absl::StatusOr<Binder::Reached>> Binder::TryTarget(Try attempt, std::shared_ptr<Round> shared,
                                                        Deadline deadline) {
  struct Ended {
    runtime::Event& event;
    ~Ended() { event.Set(); }
  } ended{shared->ended[attempt.order]};
  if (attempt.order > 0) {
    // At once when the one before has failed, else when it has had its time.
    const absl::Status status = co_await shared->ended[attempt.order - 1].WaitUntilSet(
        deadline.Within(kTargetStagger * static_cast<int64_t>(attempt.order)));
    if (absl::IsCancelled(status)) co_return status;
  }
  const std::string identity = credential_.Identity();
  const auto failed = [&](const absl::Status& status, AttemptPhase phase) {
    Failure failure = Classify(status, phase, /*keys_proven=*/phase > AttemptPhase::kSessionSetup);
    // Cancelled: somebody else won, which says nothing of this target. But its own time is up:
    // silence.
    if (failure.failure == FailureClass::kCaller) {
      if (deadline.cancelled()) return;
      failure.failure = FailureClass::kTransport;
    }
    runtime::Loop& loop = runtime::Loop::Current();
    health_.NoteFailed(attempt.target_path, identity, phase, failure.failure, loop.Now(),
                       Fraction(loop.Random()));
    shared->failures.push_back({attempt.candidate, failure.failure,
                                WithText(status, absl::StrCat(attempt.target_path.ToString(), ": ",
                                                              std::string(status.message())))});
  };
  if (!allowed_.AllowsHost(attempt.target_path.HostName())) {
    const absl::Status refused = absl::PermissionDeniedError(
        absl::StrCat("a referral leads to ", attempt.target_path.HostName(),
                     ", which may not be given the credential (allowed_targets)"));
    shared->failures.push_back({attempt.candidate, FailureClass::kDenied, refused});
    co_return refused;
  }
  const Deadline until = deadline.Within(kTargetTime);
  const absl::Time began = runtime::Loop::Current().Now();
  TargetHealthTable::ConnectTicket ticket;
  if (attempt.fresh ||
      sessions_.Find(std::string(attempt.target_path.host()), identity) == nullptr) {
    // A new connection: one in flight for each credential, and not too many in a second.
    while (true) {
      const absl::Time now = runtime::Loop::Current().Now();
      TargetHealthTable::Admitted admitted =
          health_.TryBeginConnect(attempt.target_path, identity, now);
      if (admitted.admission != TargetHealthTable::Admission::kTooSoon) {
        ticket = std::move(admitted.ticket);
        break;
      }
      const absl::Status status = co_await runtime::Sleep(admitted.not_before - now, until);
      if (status.ok()) continue;
      if (!deadline.cancelled()) {
        shared->failures.push_back({attempt.candidate, FailureClass::kTransport, status});
      }
      co_return status;
    }
  }
  smb::ConnectPhase phase = smb::ConnectPhase::kResolve;
  absl::StatusOr<std::shared_ptr<smb::Tree>> tree = co_await Connect(attempt, &phase, until);
  ticket = {};
  if (!tree.ok()) {
    failed(tree.status(), PhaseOf(phase));
    co_return tree.status();
  }
  if (!(*tree)->is_disk()) {  // IPC$, or a printer: no other answer will come.
    const absl::Status no_files = smb::wire::ToStatus(
        smb::wire::NtStatus::kBadNetworkName,
        absl::StrCat(attempt.target_path.Prefix(2).ToString(), " is not a file share"));
    failed(no_files, AttemptPhase::kTreeConnect);
    co_return no_files;
  }
  Reached reached{
      .candidate = attempt.candidate, .tree = *tree, .target_path = attempt.target_path};
  // Up means more than that TCP connected: its root must open.
  const absl::StatusOr<smb::FileStatus> root =
      co_await (*tree)->Stat(SharePathOf(attempt.target_path), until);
  if (!root.ok()) {
    const Failure failure = Classify(root.status(), AttemptPhase::kTargetRoot, true);
    if (failure.failure == FailureClass::kPathNotCovered) {
      reached.not_covered = true;
      co_return reached;
    }
    if (failure.action != FailureAction::kAccept) {
      failed(root.status(), AttemptPhase::kTargetRoot);
      co_return root.status();
    }
  }
  reached.in_dfs = attempt.may_be_namespace && (*tree)->in_dfs();
  const absl::Time now = runtime::Loop::Current().Now();
  health_.NoteUp(attempt.target_path, identity, now, now - began);
  co_return reached;
}

void Binder::Apply(Link& link, std::shared_ptr<smb::Tree> tree, DfsPath target_path) {
  if (link.epoch != 0 && !(link.target_path == target_path)) ++failovers_;
  link.tree = std::move(tree);
  link.target_path = std::move(target_path);
  link.lost_since = absl::InfinitePast();
  link.epoch = options_.next_epoch != nullptr ? options_.next_epoch() : ++last_epoch_;
  while (Attempt* const attempt = link.attempts.PopFront()) {
    attempt->moved = true;
    attempt->ended.Set();
  }
  bound_.NotifyAll();
}

void Binder::NoteLost(const DfsPath& target_path, FailureClass failure) {
  runtime::Loop& loop = runtime::Loop::Current();
  health_.NoteFailed(target_path, credential_.Identity(), AttemptPhase::kOperation, failure,
                     loop.Now(), Fraction(loop.Random()));
}

Task<void> Binder::RefreshDue() {
  constexpr size_t kMostAtOnce = 8;
  for (const ReferralCache::Entry& entry :
       cache_.DueForRefresh(runtime::Loop::Current().Now(), kMostAtOnce)) {
    if (entry->credential != account_) continue;  // Another mount's client has that credential.
    const ReferralFetch fetch = resolver_.RefreshOf(*entry, runtime::Loop::Current().Now());
    FailureClass failure = FailureClass::kNone;
    const absl::StatusOr<ReferralSource::Answer> answer =
        co_await referrals_.Fetch(fetch, &failure, Deadline::After(kFetchTime));
    const Referral* const referral =
        answer.ok() ? std::get_if<Referral>(&answer->referral) : nullptr;
    if (referral == nullptr) {
      resolver_.StoreFailure(account_, fetch, answer.status(), failure, MakeFetchContext());
    } else {
      resolver_.StoreReferral(account_, fetch, *referral, answer->answered_by, MakeFetchContext());
    }
    const ReferralCache::Entry fresh = cache_.GetExact(entry->prefix, entry->prefix.size(),
                                                       account_, runtime::Loop::Current().Now());
    LeaveUnlisted(*entry, fresh.get());
  }
}

// A target that the namespace lists no more is left, however well it does. Null: the link is gone.
void Binder::LeaveUnlisted(const ReferralEntry& old, const ReferralEntry* fresh) {
  const auto listed = [](const ReferralEntry& entry, const DfsPath& path) {
    return std::any_of(entry.targets.begin(), entry.targets.end(),
                       [&](const CachedTarget& target) { return target.path == path; });
  };
  links_.ForEach([&](Link& link) {
    if (link.tree == nullptr || !listed(old, link.target_path) ||
        (fresh != nullptr && listed(*fresh, link.target_path)) ||
        !link.prefix.HasPrefix(old.prefix)) {
      return;
    }
    link.tree = nullptr;
    while (Attempt* const attempt = link.attempts.PopFront()) {
      attempt->moved = true;
      attempt->ended.Set();
    }
  });
}

Task<absl::StatusOr<std::shared_ptr<Link>>> Binder::Bind(DfsPath path, Request request,
                                                         BindFailure* failure, Deadline deadline) {
  Resolution resolution(path, account_);
  bool not_covered_told = request.not_covered_by == nullptr;
  std::map<FailureClass, absl::Status> met;  // The last failed attempt of each class.
  while (true) {
    ResolveStep step = resolver_.Next(resolution, runtime::Loop::Current().Now());
    if (step.kind == ResolveStep::Kind::kError) {
      failure->failure = step.failure;
      failure->worth_waiting = step.WorthWaiting();
      if (failure->worth_waiting) {
        failure->retry_at =
            std::min(failure->retry_at, runtime::Loop::Current().Now() + absl::Milliseconds(500));
      }
      co_return Explain(step.status, step.failure, met);
    }
    if (step.kind == ResolveStep::Kind::kFetch) {
      const std::shared_ptr<runtime::Mutex> mutex = FetchMutex(path);
      CO_ASSIGN_OR_RETURN(const runtime::Mutex::Guard guard, co_await mutex->Lock(deadline));
      step = resolver_.Next(resolution, runtime::Loop::Current().Now());
      if (step.kind == ResolveStep::Kind::kFetch) {
        CO_RETURN_IF_ERROR(co_await Fetch(&resolution, std::move(step), deadline));
      }
      continue;
    }

    const size_t components = std::max<size_t>(2, step.link_components);
    if (!not_covered_told && components == request.not_covered_by->prefix.size()) {
      not_covered_told = true;
      const size_t candidate = CandidateOf(step, request.not_covered_by->target_path);
      resolver_.NotePathNotCovered(resolution, step, candidate);
      continue;
    }
    const std::shared_ptr<Link> link = links_.Get(path, components);
    CO_ASSIGN_OR_RETURN(const runtime::Mutex::Guard guard, co_await link->binding.Lock(deadline));
    // Bound meanwhile by somebody else? Not so if the path goes on below it in another namespace.
    if (link->bound() && request.avoid.get() != &link->tree->session() &&
        (step.kind == ResolveStep::Kind::kNotDfs || IsCandidate(step, link->target_path))) {
      co_return link;
    }
    const std::vector<Try> tries = ChooseTries(step, request, failure);
    if (tries.empty()) {
      // All are known to be down for the moment, or to refuse us: they fail as they did before.
      const std::string identity = credential_.Identity();
      const absl::Time now = runtime::Loop::Current().Now();
      if (step.kind == ResolveStep::Kind::kTryTargets) {
        for (const uint16_t candidate : step.candidates) {
          const DfsPath& target = step.entry->targets[candidate].path;
          resolver_.NoteTargetHeldBack(resolution, step, candidate,
                                       health_.Get(target, identity, now).last_failure);
        }
        continue;
      }
      failure->failure = health_.Get(step.path->Prefix(2), identity, now).last_failure;
      if (failure->failure == FailureClass::kNone) failure->failure = FailureClass::kTransport;
      failure->worth_waiting = WorthWaiting(failure->failure);
      co_return StatusOf(failure->failure, absl::StrCat(link->prefix.ToString(), ": ",
                                                        FailureClassName(failure->failure)));
    }
    auto round = std::make_shared<Round>(tries.size());
    std::vector<std::function<Task<absl::StatusOr<Reached>>(Deadline)>> racers;
    for (const Try& attempt : tries) {
      racers.push_back([this, attempt, round](Deadline until) {
        return TryTarget(attempt, round, std::move(until));
      });
    }
    const auto says_more = [](const absl::Status& a, const absl::Status& b) {
      return smb::wire::NtStatusOf(a).has_value() && !smb::wire::NtStatusOf(b).has_value();
    };
    absl::StatusOr<Reached> reached =
        co_await runtime::Race<Reached>(std::move(racers), says_more, deadline, &racing_);
    if (!reached.ok() &&
        (deadline.cancelled() || deadline.when() <= runtime::Loop::Current().Now())) {
      co_return reached.status();
    }
    // An ordinary share has one target, and no list to strike it from.
    const bool has_list = step.kind == ResolveStep::Kind::kTryTargets;
    for (const TryFailure& failed : round->failures) {
      if (has_list) resolver_.NoteTargetFailed(resolution, step, failed.candidate, failed.failure);
      met.insert_or_assign(failed.failure, failed.why);
    }
    if (!reached.ok()) {
      if (step.kind == ResolveStep::Kind::kNotDfs) {
        // There is no other target to go on to.
        const FailureClass worst =
            round->failures.empty() ? FailureClass::kTransport : round->failures.back().failure;
        failure->failure = worst;
        failure->worth_waiting = WorthWaiting(worst);
        failure->retry_at = runtime::Loop::Current().Now() + absl::Milliseconds(200);
        co_return reached.status();
      }
      continue;
    }
    if (reached->not_covered) {
      resolver_.NotePathNotCovered(resolution, step, reached->candidate);
      continue;
    }
    if (reached->in_dfs && resolver_.NoteShareInDfs(resolution, step, reached->candidate)) {
      continue;
    }
    if (step.kind == ResolveStep::Kind::kTryTargets) {
      cache_.SetHint(step.entry->prefix, account_, reached->target_path);
      link->pin = cache_.PinPrefix(step.entry->prefix, account_);
    }
    Apply(*link, std::move(reached->tree), std::move(reached->target_path));
    co_return link;
  }
}

absl::Status Binder::Explain(const absl::Status& status, FailureClass failure,
                             const std::map<FailureClass, absl::Status>& met) {
  const auto found = met.find(failure);
  if (found == met.end()) return status;
  absl::Status explained = WithText(
      status,
      absl::StrCat(std::string(status.message()), " (", std::string(found->second.message()), ")"));
  if (failure != FailureClass::kDenied) return explained;
  // The errno is the same whether the log-on failed or the share refused; the remedy is not.
  found->second.ForEachPayload([&](absl::string_view url, const absl::Cord& payload) {
    explained.SetPayload(url, payload);
  });
  return explained;
}

size_t Binder::CandidateOf(const ResolveStep& step, const DfsPath& target_path) {
  if (step.kind != ResolveStep::Kind::kTryTargets) return 0;
  for (size_t i = 0; i < step.entry->targets.size(); ++i) {
    if (step.entry->targets[i].path == target_path) return i;
  }
  return step.candidates.empty() ? 0 : step.candidates.front();
}

bool Binder::IsCandidate(const ResolveStep& step, const DfsPath& target_path) {
  return std::any_of(step.candidates.begin(), step.candidates.end(), [&](uint16_t candidate) {
    return step.entry->targets[candidate].path == target_path;
  });
}

}  // namespace dfscsi::dfs
