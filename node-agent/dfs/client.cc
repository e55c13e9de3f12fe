#include "node-agent/dfs/client.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "node-agent/base/status_macros.h"
#include "node-agent/dfs/client_impl.h"
#include "node-agent/runtime/loop.h"
#include "node-agent/smb/wire/utf16.h"

namespace dfscsi::dfs {

using runtime::Deadline;
using runtime::Task;

namespace {

// Between rounds over targets that are all down.
constexpr absl::Duration kShortestRound = absl::Milliseconds(50);
constexpr absl::Duration kLongestRound = absl::Seconds(5);
// An operation that keeps finding its target gone, or its path covered elsewhere, ends in an error:
// no namespace needs more.
constexpr int kMostResolutions = 24;

AllowedTargets MakeAllowed(const DfsPath& source, const ClientOptions& options) {
  absl::StatusOr<AllowedTargets> allowed =
      AllowedTargets::Make(source.HostName(), options.allowed_targets, options.allow_local_targets);
  // A list that does not parse was refused where options are parsed; here it allows the least.
  if (!allowed.ok()) allowed = AllowedTargets::Make(source.HostName(), {}, false);
  return *std::move(allowed);
}

}  // namespace

Client::Impl::Impl(DfsPath source, smb::Credential credential, ClientOptions options,
                   smb::SessionPool& sessions, ReferralCache& cache, DomainCache& domains,
                   TargetHealthTable& health)
    : source_(std::move(source)),
      options_(std::move(options)),
      account_(credential.Account()),
      sessions_(sessions),
      cache_(cache),
      binder_(std::move(credential), options_, sessions, cache, domains, health, links_,
              MakeAllowed(source_, options_)),
      own_server_(binder_.dialer(), health) {
  tasks_.Spawn(Refresh());
}

Task<absl::Status> Client::Impl::Run(DfsPath path, Operation operation, RunOptions options,
                                     Deadline deadline) {
  Course course{.began = runtime::Loop::Current().Now(),
                .state = {.movable = options.movable, .repeatable = options.repeatable}};
  while (true) {
    std::shared_ptr<Link> link = links_.Find(path);
    if (link != nullptr && link->FindFormer(options.held_epoch) != nullptr) {
      std::optional<absl::Status> status =
          co_await RunOnFormer(std::move(link), path, operation, options, deadline);
      if (status.has_value()) co_return *std::move(status);
      continue;
    }
    if (link == nullptr || !link->bound() || course.state.phase != FailoverPhase::kAttempt) {
      CO_ASSIGN_OR_RETURN(link, co_await BindAgain(path, &course, deadline));
      if (link == nullptr) continue;
    }
    std::optional<absl::Status> status =
        co_await RunOnLink(std::move(link), path, operation, options, &course, deadline);
    if (status.has_value()) co_return *std::move(status);
  }
}

Task<absl::Status> Client::Impl::RunInTime(DfsPath path, Operation operation, RunOptions options,
                                           Deadline deadline) {
  // A moment more than Run itself allows, so that its error, which says why, comes first.
  constexpr absl::Duration kMargin = absl::Milliseconds(50);
  const absl::Time give_up = runtime::Loop::Current().Now() + options_.give_up_after + kMargin;
  const absl::Status status =
      co_await Run(std::move(path), std::move(operation), options, deadline.Before(give_up));
  if (!absl::IsDeadlineExceeded(status) || deadline.when() <= give_up) co_return status;
  co_return absl::UnavailableError("no target answered in time");
}

bool Client::Impl::IsKnownLink(const DfsPath& path) const {
  if (path.size() <= 2) return true;
  const absl::Time now = runtime::Loop::Current().Now();
  const ReferralCache::Entry entry = cache_.GetExact(path, path.size(), account_, now);
  if (entry != nullptr &&
      (entry->kind == EntryKind::kLink || entry->kind == EntryKind::kUnusable)) {
    return true;
  }
  // A link without any target has a negative entry; whether the name is there the note says.
  const auto noted = noted_links_.find(std::u16string(path.Key()));
  return noted != noted_links_.end() && now < noted->second;
}

void Client::Impl::NoteLink(const DfsPath& path) {
  constexpr size_t kMostNoted = 65536;
  const absl::Time now = runtime::Loop::Current().Now();
  if (noted_links_.size() >= kMostNoted) {
    absl::erase_if(noted_links_, [now](const auto& noted) { return noted.second <= now; });
    if (noted_links_.size() >= kMostNoted) return;  // Those left out cost a request to look up.
  }
  noted_links_[std::u16string(path.Key())] = now + options_.referral_ttl_min;
}

void Client::Impl::ForgetLink(const DfsPath& path) {
  noted_links_.erase(std::u16string(path.Key()));
  cache_.Erase(path, account_);
  links_.ForEach([&](Link& link) {
    if (link.prefix.HasPrefix(path)) link.Leave();
  });
}

uint64_t Client::Impl::GetEpoch(const DfsPath& path) const {
  const std::shared_ptr<Link> link = links_.Find(path);
  return link == nullptr || !link->bound() ? 0 : link->epoch;
}

absl::Duration Client::Impl::GetTtl(const DfsPath& path) const {
  const std::shared_ptr<Link> link = links_.Find(path);
  if (link == nullptr || !link->entry_prefix.has_value()) return absl::ZeroDuration();
  const ReferralCache::Entry entry = cache_.GetExact(
      *link->entry_prefix, link->entry_prefix->size(), account_, runtime::Loop::Current().Now());
  return entry == nullptr ? options_.referral_ttl_min : entry->ttl;
}

std::vector<Client::BoundLink> Client::Impl::ListLinks() const {
  std::vector<BoundLink> listed;
  links_.ForEach([&](Link& link) {
    listed.push_back({.prefix = link.prefix.ToString(),
                      .target = link.tree == nullptr ? "" : link.target_path.ToString(),
                      .bound = link.bound(),
                      .suspect = link.bound() && link.tree->session().connection().suspect(),
                      .epoch = link.epoch});
  });
  return listed;
}

ClientCounters Client::Impl::counters() const {
  ClientCounters counters = counters_;
  counters.failovers = binder_.failovers();
  counters.failbacks = binder_.failbacks();
  counters.referral_requests = binder_.referral_requests();
  return counters;
}

Task<absl::StatusOr<std::shared_ptr<Link>>> Client::Impl::BindAgain(DfsPath path, Course* course,
                                                                    Deadline deadline) {
  FailoverState& state = course->state;
  if (state.phase == FailoverPhase::kAttempt) state.phase = FailoverPhase::kResolve;
  BindFailure failure{.retry_at = absl::InfiniteFuture()};
  absl::StatusOr<std::shared_ptr<Link>> bound =
      co_await binder_.Bind(path, std::exchange(course->request, {}), &failure, deadline);
  if (deadline.cancelled()) co_return absl::CancelledError("cancelled");
  state = AfterBind(state, bound.ok(), failure.worth_waiting);
  if (state.phase == FailoverPhase::kFailed) co_return StatusOf(bound.status(), failure);
  if (state.phase == FailoverPhase::kAttempt) co_return bound;
  if (course->why.ok()) course->why = bound.status();
  CO_RETURN_IF_ERROR(
      co_await WaitForRound(course->began, state, failure.retry_at, course->why, deadline));
  if (state.phase == FailoverPhase::kWait) state = AfterWait(state);
  co_return nullptr;
}

Task<std::optional<absl::Status>> Client::Impl::RunOnLink(std::shared_ptr<Link> link, DfsPath path,
                                                          Operation operation, RunOptions options,
                                                          Course* course, Deadline deadline) {
  const uint64_t epoch = link->epoch;
  absl::StatusOr<Binding> binding =
      MakeBinding(path, link->prefix, link->target_path, link->tree, epoch);
  if (!binding.ok()) co_return binding.status();
  bool moved = false;
  const absl::Status status =
      co_await RunOnce(link, *std::move(binding), operation, options, &moved, deadline);
  if (moved) {
    ++counters_.moved_operations;
    if (!options.repeatable) co_return absl::AbortedError("the target was lost on the way");
    co_return std::nullopt;
  }
  const Failure failure = Classify(status, AttemptPhase::kOperation, /*keys_proven=*/true);
  FailoverState& state = course->state;
  state = AfterAttempt(state, failure);
  switch (state.phase) {
    case FailoverPhase::kDone:
    case FailoverPhase::kFailed:
    case FailoverPhase::kVerify:  // The caller knows how to find out.
      co_return status;
    case FailoverPhase::kResolve:
      // A link below this target, which only a new resolution finds.
      if (++course->resolutions > kMostResolutions) {
        co_return absl::FailedPreconditionError("too many links");
      }
      course->request.not_covered_by = link;
      break;
    case FailoverPhase::kBackOff: {
      absl::Status waited =
          co_await WaitForRound(course->began, state, absl::InfiniteFuture(), status, deadline);
      if (!waited.ok()) co_return waited;
      state = AfterWait(state);
      break;
    }
    default:
      Lose(*link, epoch, failure, /*blame=*/state.phase == FailoverPhase::kNextTarget);
      ++counters_.lost_targets;
      break;
  }
  co_return std::nullopt;
}

Task<std::optional<absl::Status>> Client::Impl::RunOnFormer(std::shared_ptr<Link> link,
                                                            DfsPath path, Operation operation,
                                                            RunOptions options, Deadline deadline) {
  const FormerBinding* const former = link->FindFormer(options.held_epoch);
  const std::shared_ptr<smb::Tree> tree = former->tree.lock();
  absl::StatusOr<Binding> binding =
      MakeBinding(path, link->prefix, former->target_path, tree, former->epoch);
  if (!binding.ok()) co_return binding.status();
  auto attempt = std::make_shared<Attempt>();
  {
    runtime::TaskGroup tasks;  // Dies with this frame, and the operation with it.
    tasks.Spawn(RunOperation(std::move(operation), *std::move(binding), attempt));
    if (options.movable && options.repeatable) tasks.Spawn(MoveWhenSuspect(tree, attempt));
    if (!options.movable) tasks.Spawn(CloseWhenLost(tree, attempt));
    absl::Status waited = co_await attempt->ended.WaitUntilSet(deadline);
    if (!waited.ok()) co_return waited;
  }
  NoteLost(*attempt);
  if (!attempt->moved) {
    const FailoverState state =
        AfterAttempt({.movable = options.movable, .repeatable = options.repeatable},
                     Classify(attempt->status, AttemptPhase::kOperation, /*keys_proven=*/true));
    if (state.phase == FailoverPhase::kDone || state.phase == FailoverPhase::kFailed ||
        state.phase == FailoverPhase::kVerify) {
      co_return attempt->status;
    }
  }
  link->DropFormer(options.held_epoch);
  ++counters_.moved_operations;
  co_return std::nullopt;
}

absl::StatusOr<Binding> Client::Impl::MakeBinding(const DfsPath& path, const DfsPath& prefix,
                                                  const DfsPath& target_path,
                                                  std::shared_ptr<smb::Tree> tree,
                                                  uint64_t epoch) const {
  ASSIGN_OR_RETURN(const DfsPath target, path.ReplacePrefix(prefix.size(), target_path));
  const absl::string_view relative = target.Relative(2);
  std::optional<std::u16string> wire_path =
      smb::wire::Utf8ToUtf16(std::string_view(relative.data(), relative.size()));
  if (!wire_path.has_value()) return absl::InvalidArgumentError("a name that is not UTF-8");
  return Binding{.tree = std::move(tree),
                 .path = *std::move(wire_path),
                 .epoch = epoch,
                 .link_components = prefix.size()};
}

absl::Status Client::Impl::Denied(const absl::Status& status) {
  absl::Status denied = absl::PermissionDeniedError(status.message());
  status.ForEachPayload(
      [&](absl::string_view url, const absl::Cord& payload) { denied.SetPayload(url, payload); });
  return denied;
}

absl::Status Client::Impl::StatusOf(const absl::Status& status, const BindFailure& failure) {
  switch (failure.failure) {
    case FailureClass::kDenied:
      return Denied(status);
    default:
      return status;
  }
}

FailoverState Client::Impl::AfterBind(FailoverState state, bool bound, bool worth_waiting) {
  if (state.phase == FailoverPhase::kReconnect || state.phase == FailoverPhase::kWaitForOwn) {
    state = AfterReconnect(state, bound);
    // Bind has tried every target there is: there is no next one to go on to.
    if (state.phase != FailoverPhase::kNextTarget) return state;
  }
  return AfterBinding(state, bound, worth_waiting);
}

Task<absl::Status> Client::Impl::WaitForRound(absl::Time began, FailoverState state,
                                              absl::Time retry_at, absl::Status why,
                                              Deadline deadline) {
  runtime::Loop& loop = runtime::Loop::Current();
  const absl::Time now = loop.Now();
  const absl::Time give_up = began + options_.give_up_after;
  if (now >= give_up) {
    co_return absl::UnavailableError(absl::StrCat("no target is up: ", std::string(why.message())));
  }
  // The health of targets says when; where it does not, the rounds become longer.
  absl::Time at = std::clamp(retry_at, now + kShortestRound, now + kLongestRound);
  if (retry_at == absl::InfiniteFuture()) {
    at = now + BackoffDelay(state, static_cast<double>(loop.Random() >> 11) * 0x1.0p-53);
  }
  at = std::min(at, give_up);
  const absl::Status status = co_await binder_.bound().WaitForNotify(deadline.Before(at));
  if (absl::IsDeadlineExceeded(status) && deadline.when() > at) co_return absl::OkStatus();
  co_return status;
}

Task<void> Client::Impl::Refresh() {
  const absl::Duration every =
      std::clamp(options_.referral_ttl_min / 8, absl::Milliseconds(100), absl::Seconds(5));
  while (true) {
    if (!(co_await runtime::Sleep(every, Deadline::Never())).ok()) co_return;
    co_await binder_.RefreshDue();
    co_await binder_.FailBackDue();
  }
}

Client::Client(DfsPath source, smb::Credential credential, ClientOptions options,
               smb::SessionPool& sessions, ReferralCache& cache, DomainCache& domains,
               TargetHealthTable& health)
    : impl_(std::make_unique<Impl>(std::move(source), std::move(credential), std::move(options),
                                   sessions, cache, domains, health)) {}

Client::~Client() = default;

Task<absl::Status> Client::Run(DfsPath path, Operation operation, RunOptions options,
                               Deadline deadline) {
  return impl_->RunInTime(std::move(path), std::move(operation), options, std::move(deadline));
}

Task<absl::Status> Client::RunOnOwn(DfsPath path, Binding lost, Operation operation,
                                    Deadline deadline) {
  return impl_->RunOnOwn(std::move(path), std::move(lost), std::move(operation),
                         std::move(deadline));
}

Task<absl::Status> Client::RunOnTarget(DfsPath path, TargetPredicate is_own, Operation operation,
                                       RunOptions options, Deadline deadline) {
  return impl_->RunOnTarget(std::move(path), std::move(is_own), std::move(operation), options,
                            std::move(deadline));
}

Task<void> Client::EndFormerSessions(Binding binding, Deadline deadline) {
  return impl_->EndFormerSessions(std::move(binding), std::move(deadline));
}

void Client::SetMayFailBack(std::function<bool(const DfsPath& link)> may_fail_back) {
  impl_->SetMayFailBack(std::move(may_fail_back));
}

bool Client::IsKnownLink(const DfsPath& path) const { return impl_->IsKnownLink(path); }
void Client::NoteLink(const DfsPath& path) { impl_->NoteLink(path); }
void Client::ForgetLink(const DfsPath& path) { impl_->ForgetLink(path); }
uint64_t Client::GetEpoch(const DfsPath& path) const { return impl_->GetEpoch(path); }
absl::Duration Client::GetTtl(const DfsPath& path) const { return impl_->GetTtl(path); }
const DfsPath& Client::source() const { return impl_->source(); }
std::vector<Client::BoundLink> Client::ListLinks() const { return impl_->ListLinks(); }
ClientCounters Client::counters() const { return impl_->counters(); }

}  // namespace dfscsi::dfs
