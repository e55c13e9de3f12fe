#include "node-agent/dfs/binder.h"

#include <algorithm>
#include <functional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "node-agent/base/status_macros.h"
#include "node-agent/dfs/binder_parts.h"
#include "node-agent/dfs/client.h"
#include "node-agent/runtime/loop.h"
#include "node-agent/runtime/race.h"
#include "node-agent/smb/connection.h"
#include "node-agent/smb/session.h"
#include "node-agent/smb/wire/utf16.h"

namespace dfscsi::dfs {

using runtime::Deadline;
using runtime::Task;

namespace {

// The same where something stale will do.
constexpr absl::Duration kFetchTimeIfStale = absl::Seconds(1);

std::u16string SiteOf(const ClientOptions& options) {
  return smb::wire::Utf8ToUtf16(options.site).value_or(u"");
}

}  // namespace

Binder::Binder(smb::Credential credential, const ClientOptions& options, smb::SessionPool& sessions,
               ReferralCache& cache, DomainCache& domains, TargetHealthTable& health,
               LinkTable& links, AllowedTargets allowed)
    : credential_(std::move(credential)),
      account_(credential_.Account()),
      options_(options),
      cache_(cache),
      domains_(domains),
      health_(health),
      links_(links),
      dialer_(sessions, credential_, std::move(allowed)),
      resolver_(cache, domains, {.find_domains = true}),
      referrals_(dialer_, SiteOf(options), health) {}

Resolver::FetchContext Binder::MakeFetchContext() const {
  runtime::Loop& loop = runtime::Loop::Current();
  return {.limits = {.min = options_.referral_ttl_min, .max = options_.referral_ttl_max},
          .now = loop.Now(),
          .random = binder_parts::Fraction(loop.Random())};
}

std::u16string Binder::FetchKey(const ResolveStep& step) {
  const DfsPath& path = *step.path;
  size_t components = 2;
  if (step.fetch.kind == ReferralKind::kDc) {
    components = 1;
  } else if (step.fetch.kind == ReferralKind::kLink) {
    // Whatever lies below a known link, or below one name of a namespace whose links are not known,
    // waits for one referral; other names do not.
    const ReferralCache::Entry known = cache_.Get(path, account_, runtime::Loop::Current().Now());
    if (known != nullptr) {
      components = known->prefix.size() + (known->kind == EntryKind::kLink ? 0 : 1);
    }
  }
  return std::u16string(path.KeyPrefix(std::min(path.size(), components)));
}

std::shared_ptr<runtime::Mutex> Binder::FetchMutex(const ResolveStep& step) {
  std::u16string key = FetchKey(step);
  std::shared_ptr<runtime::Mutex> mutex = fetching_[key].lock();
  if (mutex == nullptr) {
    std::erase_if(fetching_, [](const auto& entry) { return entry.second.expired(); });
    mutex = std::make_shared<runtime::Mutex>();
    fetching_[std::move(key)] = mutex;
  }
  return mutex;
}

OrderOptions Binder::MakeOrderOptions() const {
  return {.policy = options_.target_policy,
          .failback = options_.failback == Failback::kAlways,
          .obey_referral = options_.failback != Failback::kNever,
          .dwell = options_.failback_dwell};
}

// Asks for what the resolver wants to know, unless somebody has meanwhile.
Task<absl::Status> Binder::FetchOnce(ResolveStep step, Search* search, Deadline deadline) {
  const std::shared_ptr<runtime::Mutex> mutex = FetchMutex(step);
  CO_ASSIGN_OR_RETURN(const runtime::Mutex::Guard guard, co_await mutex->Lock(deadline));
  step = resolver_.Next(search->resolution, runtime::Loop::Current().Now());
  if (step.kind != ResolveStep::Kind::kFetch || FetchMutex(step) != mutex) {
    co_return absl::OkStatus();  // It is known now, or something else is asked for.
  }
  co_return co_await Fetch(&search->resolution, std::move(step), deadline);
}

Task<absl::Status> Binder::Fetch(Resolution* resolution, ResolveStep step, Deadline deadline) {
  if (step.fetch.untried_known && referrals_.AreDown(step.fetch.hosts)) {
    // Refresh() goes on asking, and is not held up by those that can go on without.
    resolver_.NoteFetchLeftOut(*resolution);
    co_return absl::OkStatus();
  }
  const Deadline until =
      deadline.Within(step.fetch.stale_known ? kFetchTimeIfStale : binder_parts::kFetchTime);
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

Task<absl::StatusOr<std::shared_ptr<Link>>> Binder::Bind(DfsPath path, Request request,
                                                         BindFailure* failure, Deadline deadline) {
  Search search(path, account_, std::move(request));
  while (true) {
    const absl::Time now = runtime::Loop::Current().Now();
    ResolveStep step = resolver_.Next(search.resolution, now);
    if (step.kind == ResolveStep::Kind::kError) {
      failure->failure = step.failure;
      failure->worth_waiting = step.WorthWaiting();
      if (failure->worth_waiting) {
        failure->retry_at = std::min(failure->retry_at, now + absl::Milliseconds(500));
      }
      co_return Explain(step.status, step.failure, search.met);
    }
    if (step.kind == ResolveStep::Kind::kFetch) {
      CO_RETURN_IF_ERROR(co_await FetchOnce(std::move(step), &search, deadline));
      continue;
    }
    if (TellNotCovered(&search, step)) continue;
    Outcome outcome = co_await BindLink(path, std::move(step), &search, failure, deadline);
    if (outcome.has_value()) co_return *std::move(outcome);
  }
}

// Tells the resolver, once it has come to the link, that its target does not cover the path.
bool Binder::TellNotCovered(Search* search, const ResolveStep& step) {
  if (search->not_covered_told) return false;
  const Link& link = *search->request.not_covered_by;
  if (std::max<size_t>(2, step.link_components) != link.prefix.size()) return false;
  search->not_covered_told = true;
  resolver_.NotePathNotCovered(search->resolution, step,
                               CandidateOf(search->resolution.origin(), step, link.target_path));
  return true;
}

// Tries the step's targets, all in one round, for the link that they are of.
Task<Binder::Outcome> Binder::BindLink(DfsPath path, ResolveStep step, Search* search,
                                       BindFailure* failure, Deadline deadline) {
  const std::shared_ptr<Link> link = links_.Get(path, std::max<size_t>(2, step.link_components));
  const smb::Session* const avoid = search->request.avoid.get();
  absl::StatusOr<runtime::Mutex::Guard> guard = co_await link->binding.Lock(deadline);
  if (!guard.ok()) co_return Outcome(guard.status());
  // Bound meanwhile by somebody else? Not so if the path goes on below it in another namespace.
  if (link->bound() && avoid != &link->tree->session() &&
      (step.kind == ResolveStep::Kind::kNotDfs || IsCandidate(path, step, link->target_path))) {
    ForgetDeeper(path, *link, avoid);
    co_return Outcome(link);
  }
  const std::vector<Try> tries = ChooseTries(path, step, search->request, failure);
  if (tries.empty()) co_return NothingToTry(step, *link, search, failure);
  auto round = std::make_shared<Round>(tries.size());
  round->begins_with_hint =
      step.kind == ResolveStep::Kind::kTryTargets && avoid == nullptr &&
      tries.front().candidate == step.entry->hint &&
      health_.Get(tries.front().target_path, dialer_.identity(), runtime::Loop::Current().Now())
              .state == TargetState::kUnknown;
  std::vector<std::function<Task<absl::StatusOr<Reached>>(Deadline)>> racers;
  racers.reserve(tries.size());
  for (const Try& attempt : tries) {
    racers.push_back([this, attempt, round](Deadline until) {
      return TryInTurn(attempt, round, std::move(until));
    });
  }
  const auto says_more = [](const absl::Status& a, const absl::Status& b) {
    return smb::wire::NtStatusOf(a).has_value() && !smb::wire::NtStatusOf(b).has_value();
  };
  absl::StatusOr<Reached> reached =
      co_await runtime::Race<Reached>(std::move(racers), says_more, deadline, &racing_);
  if (!reached.ok() &&
      (deadline.cancelled() || deadline.when() <= runtime::Loop::Current().Now())) {
    co_return Outcome(reached.status());
  }
  Outcome outcome = AfterRound(step, reached, *round, link, search, failure);
  if (!outcome.has_value() || !outcome->ok()) co_return outcome;
  link->entry_prefix.reset();
  if (step.kind == ResolveStep::Kind::kTryTargets) {
    cache_.SetHint(step.entry->prefix, account_, step.entry->targets[reached->candidate].path);
    link->pin = cache_.PinPrefix(step.entry->prefix, account_);
    link->entry_prefix = step.entry->prefix;
  }
  Apply(*link, std::move(reached->tree), std::move(reached->target_path));
  ForgetDeeper(path, *link, avoid);
  co_return outcome;
}

// All are known to be down for the moment, or to refuse us: they fail as they did before.
Binder::Outcome Binder::NothingToTry(const ResolveStep& step, const Link& link, Search* search,
                                     BindFailure* failure) {
  const std::string& identity = dialer_.identity();
  const absl::Time now = runtime::Loop::Current().Now();
  if (step.kind == ResolveStep::Kind::kTryTargets) {
    for (const uint16_t candidate : step.candidates) {
      const DfsPath target = TargetPathOf(search->resolution.origin(), step, candidate);
      resolver_.NoteTargetHeldBack(search->resolution, step, candidate,
                                   health_.Get(target, identity, now).last_failure);
    }
    return std::nullopt;
  }
  failure->failure = health_.Get(step.path->Prefix(2), identity, now).last_failure;
  if (failure->failure == FailureClass::kNone) failure->failure = FailureClass::kTransport;
  failure->worth_waiting = WorthWaiting(failure->failure);
  return absl::StatusOr<std::shared_ptr<Link>>(
      StatusOf(failure->failure,
               absl::StrCat(link.prefix.ToString(), ": ", FailureClassName(failure->failure))));
}

// `link` if the target is to serve it; an error if no other target is left to go on to.
Binder::Outcome Binder::AfterRound(const ResolveStep& step, const absl::StatusOr<Reached>& reached,
                                   const Round& round, std::shared_ptr<Link> link, Search* search,
                                   BindFailure* failure) {
  // An ordinary share has one target, and no list to strike it from.
  const bool has_list = step.kind == ResolveStep::Kind::kTryTargets;
  for (const TryFailure& failed : round.failures) {
    if (has_list) {
      resolver_.NoteTargetFailed(search->resolution, step, failed.candidate, failed.failure);
    }
    search->met.insert_or_assign(failed.failure, failed.why);
  }
  if (!reached.ok()) {
    if (has_list) return std::nullopt;
    failure->failure =
        round.failures.empty() ? FailureClass::kTransport : round.failures.back().failure;
    failure->worth_waiting = WorthWaiting(failure->failure);
    failure->retry_at = runtime::Loop::Current().Now() + absl::Milliseconds(200);
    return absl::StatusOr<std::shared_ptr<Link>>(reached.status());
  }
  if (reached->not_covered) {
    resolver_.NotePathNotCovered(search->resolution, step, reached->candidate);
    return std::nullopt;
  }
  if (reached->in_dfs && resolver_.NoteShareInDfs(search->resolution, step, reached->candidate)) {
    return std::nullopt;
  }
  return absl::StatusOr<std::shared_ptr<Link>>(std::move(link));
}

void Binder::ForgetDeeper(const DfsPath& path, const Link& link, const smb::Session* avoid) {
  while (true) {
    const std::shared_ptr<Link> deeper = links_.Find(path);
    if (deeper == nullptr || deeper->prefix.size() <= link.prefix.size()) return;
    if (deeper->bound() && &deeper->tree->session() != avoid) return;
    // What is open on a link that is gone finds its target by it.
    if (deeper->HasFormer()) return;
    // Somebody is binding it, and is to find it in the table: who is right will show.
    if (deeper->binding.locked()) return;
    links_.Erase(deeper->prefix);
    deeper->Unbind();
    deeper->MoveAttempts();
  }
}

void Binder::Apply(Link& link, std::shared_ptr<smb::Tree> tree, DfsPath target_path) {
  if (link.epoch != 0 && !(link.target_path == target_path)) ++failovers_;
  link.Unbind();
  link.tree = std::move(tree);
  link.target_path = std::move(target_path);
  link.lost_since = absl::InfinitePast();
  link.epoch = NextEpoch();
  link.MoveAttempts();
  bound_.NotifyAll();
}

uint64_t Binder::NextEpoch() {
  return options_.next_epoch != nullptr ? options_.next_epoch() : ++last_epoch_;
}

void Binder::NoteLost(const DfsPath& target_path, FailureClass failure) {
  runtime::Loop& loop = runtime::Loop::Current();
  health_.NoteFailed(target_path, dialer_.identity(), AttemptPhase::kOperation, failure, loop.Now(),
                     binder_parts::Fraction(loop.Random()));
}

absl::Status Binder::Explain(const absl::Status& status, FailureClass failure,
                             const std::map<FailureClass, absl::Status>& met) {
  const auto found = met.find(failure);
  if (found == met.end()) return status;
  absl::Status explained = binder_parts::WithText(
      status,
      absl::StrCat(std::string(status.message()), " (", std::string(found->second.message()), ")"));
  if (failure != FailureClass::kDenied) return explained;
  // The errno is the same whether the log-on failed or the share refused; the remedy is not.
  found->second.ForEachPayload([&](absl::string_view url, const absl::Cord& payload) {
    explained.SetPayload(url, payload);
  });
  return explained;
}

size_t Binder::CandidateOf(const DfsPath& origin, const ResolveStep& step,
                           const DfsPath& target_path) {
  if (step.kind != ResolveStep::Kind::kTryTargets) return 0;
  for (size_t i = 0; i < step.entry->targets.size(); ++i) {
    if (TargetPathOf(origin, step, i) == target_path) return i;
  }
  return step.candidates.empty() ? 0 : step.candidates.front();
}

bool Binder::IsCandidate(const DfsPath& origin, const ResolveStep& step,
                         const DfsPath& target_path) {
  return std::any_of(step.candidates.begin(), step.candidates.end(), [&](uint16_t candidate) {
    return TargetPathOf(origin, step, candidate) == target_path;
  });
}

}  // namespace dfscsi::dfs
