// Client: what only one server will do for, wherever its link is bound.

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "node-agent/base/status_macros.h"
#include "node-agent/dfs/binder_parts.h"
#include "node-agent/dfs/client_impl.h"
#include "node-agent/runtime/loop.h"
#include "node-agent/smb/connection.h"
#include "node-agent/smb/session.h"

namespace dfscsi::dfs {

using runtime::Deadline;
using runtime::Task;

namespace {

// Between attempts to reach a server that an answer was lost with, or that is waited for.
constexpr absl::Duration kShortestPause = absl::Milliseconds(100);
constexpr absl::Duration kLongestPause = absl::Seconds(1);
constexpr char kLostUrl[] = "dfscsi/lost";

bool IsDeadline(const absl::Status& status) {
  return absl::IsDeadlineExceeded(status) || absl::IsCancelled(status);
}

}  // namespace

bool IsLost(const absl::Status& status) { return status.GetPayload(kLostUrl).has_value(); }

Task<absl::Status> Client::Impl::RunOnOwn(DfsPath path, Binding lost, Operation operation,
                                          Deadline deadline) {
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

Task<absl::Status> Client::Impl::RunOnTarget(DfsPath path, TargetPredicate is_own,
                                             Operation operation, RunOptions options,
                                             Deadline deadline) {
  runtime::Loop& loop = runtime::Loop::Current();
  const absl::Time began = loop.Now();
  const absl::Time soft = began + options_.give_up_after;
  const Deadline until = deadline.Before(soft);
  bool is_away = false;  // For longer than anybody waits for it.
  absl::Duration pause = kShortestPause;
  while (!is_away) {
    absl::StatusOr<Binder::Own> own = co_await binder_.FindOwn(path, is_own, until);
    if (absl::IsNotFound(own.status())) co_return Lost(own.status().message());
    absl::Status status = own.status();
    if (own.ok()) {
      NoteMissed(own->target_path);
      status = co_await binder_.BindOwn(&*own, until.Within(binder_parts::kTargetTime));
    }
    if (status.ok()) {
      missed_.erase(NameOf(own->target_path));
      std::optional<absl::Status> ended =
          co_await RunOnBound(*std::move(own), path, operation, options, until);
      if (ended.has_value() && !IsDeadline(*ended)) co_return *std::move(ended);
    } else if (own.ok()) {
      is_away = IsAway(own->target_path);
    } else {
      is_away = loop.Now() >= began + options_.write_grace;
    }
    if (deadline.cancelled()) co_return absl::CancelledError("cancelled");
    if (loop.Now() >= soft) co_return absl::UnavailableError("its server did not answer in time");
    if (loop.Now() >= deadline.when()) co_return absl::DeadlineExceededError("deadline exceeded");
    if (is_away) break;
    // Its end is seen above.
    (void)co_await runtime::Sleep(pause, until);
    pause = std::min(2 * pause, kLongestPause);
  }
  co_return Lost("its server did not come back in time");
}

Task<void> Client::Impl::EndFormerSessions(Binding binding, Deadline deadline) {
  // A server that hangs in one of them is not waited for by every change.
  constexpr absl::Duration kEndWithin = absl::Seconds(5);
  std::string host = HostOf(binding.tree->session().connection());
  co_await own_server_.EndFormerSessions(std::move(host), binding.tree->share(),
                                         deadline.Within(kEndWithin));
}

std::string Client::Impl::HostOf(smb::Connection& connection) {
  const uint16_t port = connection.peer().port;
  if (port == smb::Options().port) return connection.host();
  return absl::StrCat(connection.host(), "@", port);
}

Task<bool> Client::Impl::EndLost(std::string host, std::string share,
                                 std::shared_ptr<smb::Session> session, Deadline until) {
  session->connection().Close(absl::AbortedError("an answer was lost"));
  sessions_.Retire(*session);
  co_return (co_await own_server_.EndSession(host, share, session->id(), until)).ok();
}

Task<absl::Status> Client::Impl::RunOnServer(DfsPath path, std::string host, std::string share,
                                             Binding lost, Operation operation,
                                             std::shared_ptr<smb::Session>* ending,
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
  const Failure failure = Classify(attempt->status, AttemptPhase::kOperation, /*keys_proven=*/true);
  if (failure.action == FailureAction::kAccept || failure.action == FailureAction::kReturn ||
      failure.action == FailureAction::kResolve) {
    co_return attempt->status;
  }
  if (failure.maybe_executed) *ending = (*tree)->session().shared_from_this();
  co_return absl::UnavailableError(attempt->status.message());
}

Task<std::optional<absl::Status>> Client::Impl::RunOnBound(Binder::Own own, DfsPath path,
                                                           Operation operation, RunOptions options,
                                                           Deadline deadline) {
  absl::StatusOr<Binding> binding =
      MakeBinding(path, own.link->prefix, own.target_path, own.tree, own.epoch);
  if (!binding.ok()) co_return binding.status();
  auto attempt = std::make_shared<Attempt>();
  {
    runtime::TaskGroup tasks;  // Dies with this frame, and the operation with it.
    tasks.Spawn(RunOperation(std::move(operation), *std::move(binding), attempt));
    tasks.Spawn(CloseWhenLost(own.tree, attempt));
    absl::Status waited = co_await attempt->ended.WaitUntilSet(deadline);
    if (!waited.ok()) co_return waited;
  }
  NoteLost(*attempt);
  const Failure failure = Classify(attempt->status, AttemptPhase::kOperation, /*keys_proven=*/true);
  const FailureAction action = failure.action;
  // The path goes on elsewhere: it is not that server's any more.
  if (action == FailureAction::kResolve) co_return Lost(attempt->status.message());
  if (action == FailureAction::kAccept || action == FailureAction::kReturn)
    co_return attempt->status;
  if (IsLost(attempt->status) || (failure.maybe_executed && !options.repeatable)) {
    co_return attempt->status;
  }
  if (!own.tree->session().usable()) sessions_.Retire(own.tree->session());
  co_return std::nullopt;
}

absl::Status Client::Impl::Lost(absl::string_view why) {
  absl::Status status = absl::AbortedError(why);
  status.SetPayload(kLostUrl, absl::Cord());
  return status;
}

std::string Client::Impl::NameOf(absl::string_view host, absl::string_view share) {
  return absl::AsciiStrToLower(absl::StrCat(host, "/", share));
}

void Client::Impl::NoteMissed(const DfsPath& target) {
  const absl::Time now = runtime::Loop::Current().Now();
  const auto [missed, is_new] = missed_.try_emplace(NameOf(target), Missed{now, now});
  // Nobody has asked for it in so long: it may have been there in between.
  if (now - missed->second.last > options_.write_grace) missed->second.since = now;
  missed->second.last = now;
}

void Client::Impl::NoteSilent(smb::Tree& tree) {
  const absl::Time now = runtime::Loop::Current().Now();
  missed_.insert_or_assign(NameOf(tree.session().connection().host(), tree.share()),
                           Missed{.since = now - options_.write_grace, .last = now});
}

bool Client::Impl::IsAway(const DfsPath& target) const {
  const auto missed = missed_.find(NameOf(target));
  return missed != missed_.end() &&
         runtime::Loop::Current().Now() - missed->second.since >= options_.write_grace;
}

}  // namespace dfscsi::dfs
