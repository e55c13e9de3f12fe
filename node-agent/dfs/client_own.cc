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
  NoteMet(*own.tree);
  if (own.link->tree == own.tree) {
    Course course{.began = runtime::Loop::Current().Now(),
                  .state = {.movable = false, .repeatable = options.repeatable}};
    co_return co_await RunOnLink(own.link, std::move(path), std::move(operation), options, &course,
                                 std::move(deadline));
  }
  options.held_epoch = own.epoch;
  if (own.link->FindFormer(own.epoch) == nullptr) co_return std::nullopt;
  co_return co_await RunOnFormer(own.link, std::move(path), std::move(operation), options,
                                 std::move(deadline));
}

absl::Status Client::Impl::Lost(absl::string_view why) {
  absl::Status status = absl::AbortedError(why);
  status.SetPayload(kLostUrl, absl::Cord());
  return status;
}

std::string Client::Impl::NameOf(absl::string_view host, absl::string_view share) {
  return absl::AsciiStrToLower(absl::StrCat(host, "/", share));
}

absl::Time Client::Impl::GiveUpAt(const DfsPath& target, absl::Time began, absl::Duration grace) {
  constexpr absl::Duration kLeast = absl::Seconds(1);
  const absl::Time since =
      missed_since_.try_emplace(NameOf(target.HostName(), target.share()), began).first->second;
  return std::max(since + grace, began + std::min(kLeast, grace));
}

void Client::Impl::NoteMissed(smb::Tree& tree) {
  missed_since_.try_emplace(NameOf(tree.session().connection().host(), tree.share()),
                            runtime::Loop::Current().Now() - options_.write_grace);
}

void Client::Impl::NoteMet(smb::Tree& tree) {
  if (missed_since_.empty()) return;
  missed_since_.erase(NameOf(tree.session().connection().host(), tree.share()));
}

}  // namespace dfscsi::dfs
