#include "node-agent/dfs/client.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/ascii.h"
#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "node-agent/base/status_macros.h"
#include "node-agent/dfs/binder.h"
#include "node-agent/dfs/failover.h"
#include "node-agent/dfs/failure_class.h"
#include "node-agent/dfs/link_table.h"
#include "node-agent/dfs/own_server.h"
#include "node-agent/runtime/loop.h"
#include "node-agent/smb/wire/utf16.h"

namespace dfscsi::dfs {

using runtime::Deadline;
using runtime::Task;

namespace {

// Between rounds over targets that are all down.
constexpr absl::Duration kShortestRound = absl::Milliseconds(50);
constexpr absl::Duration kLongestRound = absl::Seconds(5);
// Between attempts to reach a server that an answer was lost with.
constexpr absl::Duration kShortestPause = absl::Milliseconds(100);
constexpr absl::Duration kLongestPause = absl::Seconds(1);
constexpr char kLostUrl[] = "dfscsi/lost";
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

bool IsLost(const absl::Status& status) { return status.GetPayload(kLostUrl).has_value(); }

class Client::Impl {
 public:
  Impl(DfsPath source, smb::Credential credential, ClientOptions options,
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

  Task<absl::Status> Run(DfsPath path, Operation operation, RunOptions options, Deadline deadline) {
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

  // Run, which a soft mount also ends where an operation hangs on a server that is silent while no
  // other one is up.
  Task<absl::Status> RunInTime(DfsPath path, Operation operation, RunOptions options,
                               Deadline deadline) {
    // A moment more than Run itself allows, so that its error, which says why, comes first.
    constexpr absl::Duration kMargin = absl::Milliseconds(50);
    const absl::Time give_up = runtime::Loop::Current().Now() + options_.give_up_after + kMargin;
    const absl::Status status =
        co_await Run(std::move(path), std::move(operation), options, deadline.Before(give_up));
    if (!absl::IsDeadlineExceeded(status) || deadline.when() <= give_up) co_return status;
    co_return absl::UnavailableError("no target answered in time");
  }

  Task<absl::Status> RunOnOwn(DfsPath path, Binding lost, Operation operation, Deadline deadline) {
    runtime::Loop& loop = runtime::Loop::Current();
    const absl::Duration grace = std::min(options_.write_grace, options_.give_up_after);
    const Deadline until = deadline.Within(grace);
    const std::string host = HostOf(lost.tree->session().connection());
    const std::string share = lost.tree->share();
    std::shared_ptr<smb::Session> ending = lost.tree->session().shared_from_this();
    lost.tree = nullptr;
    absl::Duration pause = kShortestPause;
    while (true) {
      if (ending != nullptr && co_await EndLost(host, share, ending, until)) ending = nullptr;
      absl::Status status;
      if (ending == nullptr) {
        status = co_await RunOnServer(path, host, share, lost, operation, &ending, until);
        if (ending == nullptr && !absl::IsUnavailable(status)) co_return status;
      }
      if (deadline.cancelled()) co_return absl::CancelledError("cancelled");
      if (loop.Now() >= until.when()) {
        co_return absl::AbortedError(absl::StrCat(host, " did not come back in time"));
      }
      // Its end is seen above.
      (void)co_await runtime::Sleep(pause, until);
      pause = std::min(2 * pause, kLongestPause);
    }
  }

  Task<absl::Status> RunOnTarget(DfsPath path, TargetPredicate is_own, Operation operation,
                                 RunOptions options, Deadline deadline) {
    runtime::Loop& loop = runtime::Loop::Current();
    const absl::Duration grace = std::min(options_.write_grace, options_.give_up_after);
    options.movable = false;
    absl::Time began = loop.Now();
    absl::Time give_up = began + grace;
    absl::Duration pause = kShortestPause;
    while (true) {
      absl::StatusOr<Binder::Own> own =
          co_await binder_.FindOwn(path, is_own, deadline.Before(give_up));
      if (absl::IsNotFound(own.status())) co_return Lost(own.status().message());
      if (own.ok()) {
        give_up = GiveUpAt(own->target_path, began, grace);
        const absl::Status bound = co_await binder_.BindOwn(&*own, deadline.Before(give_up));
        if (bound.ok()) {
          std::optional<absl::Status> status =
              co_await RunOnBound(*std::move(own), path, operation, options, deadline);
          if (status.has_value()) co_return *std::move(status);
          began = loop.Now();
          give_up = began + grace;
        }
      }
      if (deadline.cancelled()) co_return absl::CancelledError("cancelled");
      if (loop.Now() >= deadline.when()) co_return absl::DeadlineExceededError("deadline exceeded");
      if (loop.Now() >= give_up) co_return Lost("its server did not come back in time");
      // Its end is seen above.
      (void)co_await runtime::Sleep(pause, deadline.Before(give_up));
      pause = std::min(2 * pause, kLongestPause);
    }
  }

  // Not a coroutine itself.
  Task<void> EndFormerSessions(const Binding& binding, const Deadline& deadline) {
    // A server that hangs in one of them is not waited for by every change.
    constexpr absl::Duration kEndWithin = absl::Seconds(5);
    std::string host = HostOf(binding.tree->session().connection());
    return own_server_.EndFormerSessions(std::move(host), binding.tree->share(),
                                         deadline.Within(kEndWithin));
  }

  bool IsKnownLink(const DfsPath& path) const {
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

  void NoteLink(const DfsPath& path) {
    constexpr size_t kMostNoted = 65536;
    const absl::Time now = runtime::Loop::Current().Now();
    if (noted_links_.size() >= kMostNoted) {
      absl::erase_if(noted_links_, [now](const auto& noted) { return noted.second <= now; });
      if (noted_links_.size() >= kMostNoted) return;  // Those left out cost a request to look up.
    }
    noted_links_[std::u16string(path.Key())] = now + options_.referral_ttl_min;
  }

  void ForgetLink(const DfsPath& path) {
    noted_links_.erase(std::u16string(path.Key()));
    cache_.Erase(path, account_);
    links_.ForEach([&](Link& link) {
      if (link.prefix.HasPrefix(path)) link.Leave();
    });
  }

  uint64_t GetEpoch(const DfsPath& path) const {
    const std::shared_ptr<Link> link = links_.Find(path);
    return link == nullptr || !link->bound() ? 0 : link->epoch;
  }

  absl::Duration GetTtl(const DfsPath& path) const {
    const std::shared_ptr<Link> link = links_.Find(path);
    if (link == nullptr || !link->entry_prefix.has_value()) return absl::ZeroDuration();
    const ReferralCache::Entry entry = cache_.GetExact(
        *link->entry_prefix, link->entry_prefix->size(), account_, runtime::Loop::Current().Now());
    return entry == nullptr ? options_.referral_ttl_min : entry->ttl;
  }

  const DfsPath& source() const { return source_; }

  std::vector<BoundLink> ListLinks() const {
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

  ClientCounters counters() const {
    ClientCounters counters = counters_;
    counters.failovers = binder_.failovers();
    counters.failbacks = binder_.failbacks();
    counters.referral_requests = binder_.referral_requests();
    return counters;
  }

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
  Task<absl::StatusOr<std::shared_ptr<Link>>> BindAgain(DfsPath path, Course* course,
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

  // Runs the operation where its link is bound. nullopt: it is to be run again.
  Task<std::optional<absl::Status>> RunOnLink(std::shared_ptr<Link> link, DfsPath path,
                                              Operation operation, RunOptions options,
                                              Course* course, Deadline deadline) {
    const uint64_t epoch = link->epoch;
    absl::StatusOr<Binding> binding =
        MakeBinding(path, link->prefix, link->target_path, link->tree, epoch);
    if (!binding.ok()) co_return binding.status();
    const std::shared_ptr<smb::Tree> tree = binding->tree;
    bool moved = false;
    const absl::Status status =
        co_await RunOnce(link, *std::move(binding), operation, options, &moved, deadline);
    if (status.ok()) NoteMet(*tree);
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

  // Runs the operation where what it uses is open, although its link has failed back. nullopt: that
  // target is not up any more, and the operation is to be run where the link is bound.
  Task<std::optional<absl::Status>> RunOnFormer(std::shared_ptr<Link> link, DfsPath path,
                                                Operation operation, RunOptions options,
                                                Deadline deadline) {
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

  // The link has another target already: nobody needs to look for one.
  static Task<void> MoveWhenSuspect(std::shared_ptr<smb::Tree> tree,
                                    std::shared_ptr<Attempt> attempt) {
    smb::Connection& connection = tree->session().connection();
    while (!connection.suspect()) {
      // The operation ends with the connection, and this with the operation.
      if (!(co_await connection.health_changed().WaitForNotify(Deadline::Never())).ok()) co_return;
    }
    attempt->moved = true;
    attempt->ended.Set();
  }

  // As referrals name it.
  static std::string HostOf(smb::Connection& connection) {
    const uint16_t port = connection.peer().port;
    if (port == smb::Options().port) return connection.host();
    return absl::StrCat(connection.host(), "@", port);
  }

  // True if the server has ended the session, or has forgotten it.
  Task<bool> EndLost(std::string host, std::string share, std::shared_ptr<smb::Session> session,
                     Deadline until) {
    session->connection().Close(absl::AbortedError("an answer was lost"));
    sessions_.Retire(*session);
    co_return (co_await own_server_.EndSession(host, share, session->id(), until)).ok();
  }

  // One attempt of RunOnOwn. kUnavailable: to be repeated. `*ending` is set if an answer was lost
  // again.
  Task<absl::Status> RunOnServer(DfsPath path, std::string host, std::string share, Binding lost,
                                 Operation operation, std::shared_ptr<smb::Session>* ending,
                                 Deadline until) {
    const absl::StatusOr<std::shared_ptr<smb::Tree>> tree =
        co_await own_server_.GetTree(host, share, until);
    if (!tree.ok()) co_return absl::UnavailableError(tree.status().message());
    const std::shared_ptr<Link> link = links_.Find(path);
    Binding binding = std::move(lost);
    binding.tree = *tree;
    binding.epoch = link != nullptr && link->tree == *tree ? link->epoch : 0;
    auto attempt = std::make_shared<Attempt>();
    runtime::TaskGroup task;  // Dies with this frame, and the operation with it.
    task.Spawn(RunOperation(std::move(operation), std::move(binding), attempt));
    const absl::Status ended = co_await attempt->ended.WaitUntilSet(until);
    if (!ended.ok()) co_return absl::UnavailableError(ended.message());
    const Failure failure =
        Classify(attempt->status, AttemptPhase::kOperation, /*keys_proven=*/true);
    if (failure.action == FailureAction::kAccept || failure.action == FailureAction::kReturn ||
        failure.action == FailureAction::kResolve) {
      co_return attempt->status;
    }
    if (failure.maybe_executed) *ending = (*tree)->session().shared_from_this();
    co_return absl::UnavailableError(attempt->status.message());
  }

  // One attempt of RunOnTarget. nullopt: it is not up any more.
  Task<std::optional<absl::Status>> RunOnBound(Binder::Own own, DfsPath path, Operation operation,
                                               RunOptions options, Deadline deadline) {
    NoteMet(*own.tree);
    if (own.link->tree == own.tree) {
      Course course{.began = runtime::Loop::Current().Now(),
                    .state = {.movable = false, .repeatable = options.repeatable}};
      co_return co_await RunOnLink(own.link, std::move(path), std::move(operation), options,
                                   &course, std::move(deadline));
    }
    options.held_epoch = own.epoch;
    if (own.link->FindFormer(own.epoch) == nullptr) co_return std::nullopt;
    co_return co_await RunOnFormer(own.link, std::move(path), std::move(operation), options,
                                   std::move(deadline));
  }

  static absl::Status Lost(absl::string_view why) {
    absl::Status status = absl::AbortedError(why);
    status.SetPayload(kLostUrl, absl::Cord());
    return status;
  }

  // --- How long the servers that only they will do have been missed

  static std::string NameOf(absl::string_view host, absl::string_view share) {
    return absl::AsciiStrToLower(absl::StrCat(host, "/", share));
  }

  // Until when one who began then waits for it: as long after it was first missed, and for a moment
  // in any case.
  absl::Time GiveUpAt(const DfsPath& target, absl::Time began, absl::Duration grace) {
    constexpr absl::Duration kLeast = absl::Seconds(1);
    const absl::Time since =
        missed_since_.try_emplace(NameOf(target.HostName(), target.share()), began).first->second;
    return std::max(since + grace, began + std::min(kLeast, grace));
  }

  void NoteMissed(smb::Tree& tree) {
    missed_since_.try_emplace(NameOf(tree.session().connection().host(), tree.share()),
                              runtime::Loop::Current().Now() - options_.write_grace);
  }

  void NoteMet(smb::Tree& tree) {
    if (missed_since_.empty()) return;
    missed_since_.erase(NameOf(tree.session().connection().host(), tree.share()));
  }

  absl::StatusOr<Binding> MakeBinding(const DfsPath& path, const DfsPath& prefix,
                                      const DfsPath& target_path, std::shared_ptr<smb::Tree> tree,
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

  // With its payloads: whether a log-on failed or a share refused.
  static absl::Status Denied(const absl::Status& status) {
    absl::Status denied = absl::PermissionDeniedError(status.message());
    status.ForEachPayload(
        [&](absl::string_view url, const absl::Cord& payload) { denied.SetPayload(url, payload); });
    return denied;
  }

  // An error of Bind as Run tells it.
  static absl::Status StatusOf(const absl::Status& status, const BindFailure& failure) {
    switch (failure.failure) {
      case FailureClass::kDenied:
        return Denied(status);
      default:
        return status;
    }
  }

  // What a bind means in the phase that asked for it.
  static FailoverState AfterBind(FailoverState state, bool bound, bool worth_waiting) {
    if (state.phase == FailoverPhase::kReconnect || state.phase == FailoverPhase::kWaitForOwn) {
      state = AfterReconnect(state, bound);
      // Bind has tried every target there is: there is no next one to go on to.
      if (state.phase != FailoverPhase::kNextTarget) return state;
    }
    return AfterBinding(state, bound, worth_waiting);
  }

  // Waits until targets may be tried again, or somebody has bound a link meanwhile. Soft mounts end
  // here.
  Task<absl::Status> WaitForRound(absl::Time began, FailoverState state, absl::Time retry_at,
                                  absl::Status why, Deadline deadline) {
    runtime::Loop& loop = runtime::Loop::Current();
    const absl::Time now = loop.Now();
    const absl::Time give_up = began + options_.give_up_after;
    if (now >= give_up) {
      co_return absl::UnavailableError(
          absl::StrCat("no target answered in time: ", std::string(why.message())));
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

  static Task<void> RunOperation(Operation operation, Binding binding,
                                 std::shared_ptr<Attempt> attempt) {
    attempt->status = absl::UnknownError("the operation failed unexpectedly");
    struct Ended {
      Attempt& attempt;
      ~Ended() { attempt.ended.Set(); }
    } ended{*attempt};
    attempt->status = co_await operation(std::move(binding));
  }

  static void NoteLost(Attempt& attempt) {
    if (attempt.lost && absl::IsAborted(attempt.status)) {
      attempt.status.SetPayload(kLostUrl, absl::Cord());
    }
  }

  // Silence that lasts for write_grace ends the connection, and with it what waits for its answers.
  Task<void> CloseWhenLost(std::shared_ptr<smb::Tree> tree, std::shared_ptr<Attempt> attempt) {
    smb::Connection& connection = tree->session().connection();
    while (!connection.closed()) {
      // Both end with the connection or with the operation, whose task group owns this.
      if (!connection.suspect()) {
        (void)co_await connection.health_changed().WaitForNotify(Deadline::Never());
        continue;
      }
      const Deadline lost = Deadline::After(options_.write_grace);
      absl::Status waited;
      while (waited.ok() && connection.suspect() && !connection.closed()) {
        waited = co_await connection.health_changed().WaitForNotify(lost);
      }
      if (waited.ok()) continue;
      attempt->lost = true;
      NoteMissed(*tree);
      connection.Close(absl::AbortedError("silent for write_grace"));
    }
  }

  // Runs the operation; if the link is bound anew meanwhile and the operation may move, ends it.
  Task<absl::Status> RunOnce(std::shared_ptr<Link> link, Binding binding, Operation operation,
                             RunOptions options, bool* moved, Deadline deadline) {
    EnsureGuarded(link);
    auto attempt = std::make_shared<Attempt>();
    attempt->repeatable = options.repeatable;
    runtime::TaskGroup task;  // Dies with this frame, and the operation with it.
    if (options.movable) {
      link->attempts.PushBack(*attempt);
    } else {
      task.Spawn(CloseWhenLost(binding.tree, attempt));
    }
    task.Spawn(RunOperation(std::move(operation), std::move(binding), attempt));
    CO_RETURN_IF_ERROR(co_await attempt->ended.WaitUntilSet(deadline));
    NoteLost(*attempt);
    *moved = attempt->moved;
    co_return attempt->status;
  }

  // The link's target did not do; the next Bind starts with the same or another one.
  void Lose(Link& link, uint64_t epoch, const Failure& failure, bool blame) {
    if (link.epoch != epoch) return;  // Somebody was quicker.
    if (link.tree != nullptr) {
      const bool session_gone =
          failure.action == FailureAction::kSameTarget ? !link.tree->session().usable() : true;
      if (session_gone) sessions_.Retire(link.tree->session());
    }
    link.Unbind();
    if (blame) binder_.NoteLost(link.target_path, failure.failure);
  }

  // One guard per binding: it looks for another target while the one that serves is silent.
  void EnsureGuarded(const std::shared_ptr<Link>& link) {
    if (link->guard != nullptr) return;
    link->guard = std::make_shared<runtime::CancelSource>();
    tasks_.Spawn(Guard(link, link->tree, link->guard->deadline()));
  }

  // Until the link is bound otherwise, which cancels `stop`: the tree is not held for longer than
  // the link holds it.
  Task<void> Guard(std::shared_ptr<Link> link, std::shared_ptr<smb::Tree> tree, Deadline stop) {
    smb::Connection& connection = tree->session().connection();
    while (!stop.cancelled() && !connection.closed()) {
      if (!connection.suspect()) {
        // Ends with the connection, too, which its own watch or its peer brings about.
        if (!(co_await connection.health_changed().WaitForNotify(stop)).ok()) co_return;
        continue;
      }
      ++counters_.suspicions;
      runtime::CancelSource search(stop);
      runtime::TaskGroup watch;
      watch.Spawn(CancelWhenWell(tree, &search));
      BindFailure failure{.retry_at = absl::InfiniteFuture()};
      const std::shared_ptr<smb::Session> suspect = tree->session().shared_from_this();
      const absl::StatusOr<std::shared_ptr<Link>> found =
          co_await binder_.Bind(link->prefix, {.not_covered_by = nullptr, .avoid = suspect},
                                &failure, search.deadline().Within(kSearchTime));
      if (found.ok()) {
        sessions_.Retire(*suspect);
        co_return;
      }
      if (connection.suspect()) {
        (void)co_await runtime::Sleep(kSearchPause, search.deadline());
      }
    }
  }

  static Task<void> CancelWhenWell(std::shared_ptr<smb::Tree> tree, runtime::CancelSource* search) {
    smb::Connection& connection = tree->session().connection();
    while (connection.suspect() && !connection.closed()) {
      if (!(co_await connection.health_changed().WaitForNotify(Deadline::Never())).ok()) co_return;
    }
    search->Cancel();
  }

  // Keeps what is in use fresh, so that a target that dies is left for one that is still listed.
  Task<void> Refresh() {
    const absl::Duration every =
        std::clamp(options_.referral_ttl_min / 8, absl::Milliseconds(100), absl::Seconds(5));
    while (true) {
      if (!(co_await runtime::Sleep(every, Deadline::Never())).ok()) co_return;
      co_await binder_.RefreshDue();
      co_await binder_.FailBackDue();
    }
  }

  static constexpr absl::Duration kSearchTime = absl::Seconds(10);
  static constexpr absl::Duration kSearchPause = absl::Milliseconds(200);

  const DfsPath source_;
  const ClientOptions options_;
  const std::string account_;
  smb::SessionPool& sessions_;
  ReferralCache& cache_;
  LinkTable links_;
  Binder binder_;
  OwnServer own_server_;
  absl::flat_hash_map<std::string, absl::Time> missed_since_;    // By NameOf.
  absl::flat_hash_map<std::u16string, absl::Time> noted_links_;  // Until when.
  ClientCounters counters_;
  runtime::TaskGroup tasks_;  // Dies first: its tasks use all of the above.
};

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

bool Client::IsKnownLink(const DfsPath& path) const { return impl_->IsKnownLink(path); }
void Client::NoteLink(const DfsPath& path) { impl_->NoteLink(path); }
void Client::ForgetLink(const DfsPath& path) { impl_->ForgetLink(path); }
uint64_t Client::GetEpoch(const DfsPath& path) const { return impl_->GetEpoch(path); }
absl::Duration Client::GetTtl(const DfsPath& path) const { return impl_->GetTtl(path); }
const DfsPath& Client::source() const { return impl_->source(); }
std::vector<Client::BoundLink> Client::ListLinks() const { return impl_->ListLinks(); }
ClientCounters Client::counters() const { return impl_->counters(); }

}  // namespace dfscsi::dfs
