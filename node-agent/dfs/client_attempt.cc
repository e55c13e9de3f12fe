// Client: one attempt on one target, and who watches that meanwhile.

#include <memory>
#include <utility>

#include "node-agent/base/status_macros.h"
#include "node-agent/dfs/client_impl.h"
#include "node-agent/runtime/loop.h"
#include "node-agent/smb/connection.h"
#include "node-agent/smb/session.h"

namespace dfscsi::dfs {

using runtime::Deadline;
using runtime::Task;

namespace {

// Of one search for another target while the one that serves is silent, and between two of them.
constexpr absl::Duration kSearchTime = absl::Seconds(10);
constexpr absl::Duration kSearchPause = absl::Milliseconds(200);

}  // namespace

Task<void> Client::Impl::MoveWhenSuspect(std::shared_ptr<smb::Tree> tree,
                                         std::shared_ptr<Attempt> attempt) {
  smb::Connection& connection = tree->session().connection();
  while (!connection.suspect()) {
    // The operation ends with the connection, and this with the operation.
    if (!(co_await connection.health_changed().WaitForNotify(Deadline::Never())).ok()) co_return;
  }
  attempt->moved = true;
  attempt->ended.Set();
}

Task<void> Client::Impl::RunOperation(Operation operation, Binding binding,
                                      std::shared_ptr<Attempt> attempt) {
  attempt->status = absl::UnknownError("the operation failed unexpectedly");
  struct Ended {
    Attempt& attempt;
    ~Ended() { attempt.ended.Set(); }
  } ended{*attempt};
  attempt->status = co_await operation(std::move(binding));
}

void Client::Impl::NoteLost(Attempt& attempt) {
  if (attempt.lost && absl::IsAborted(attempt.status)) {
    attempt.status = Lost(attempt.status.message());
  }
}

Task<void> Client::Impl::CloseWhenLost(std::shared_ptr<smb::Tree> tree,
                                       std::shared_ptr<Attempt> attempt) {
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
    NoteSilent(*tree);
    connection.Close(absl::AbortedError("silent for write_grace"));
  }
}

Task<absl::Status> Client::Impl::RunOnce(std::shared_ptr<Link> link, Binding binding,
                                         Operation operation, RunOptions options, bool* moved,
                                         Deadline deadline) {
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

void Client::Impl::Lose(Link& link, uint64_t epoch, const Failure& failure, bool blame) {
  if (link.epoch != epoch) return;  // Somebody was quicker.
  if (link.tree != nullptr) {
    const bool session_gone =
        failure.action == FailureAction::kSameTarget ? !link.tree->session().usable() : true;
    if (session_gone) sessions_.Retire(link.tree->session());
  }
  link.Unbind();
  if (blame) binder_.NoteLost(link.target_path, failure.failure);
}

void Client::Impl::EnsureGuarded(const std::shared_ptr<Link>& link) {
  if (link->guard != nullptr) return;
  link->guard = std::make_shared<runtime::CancelSource>();
  tasks_.Spawn(Guard(link, link->tree, link->guard->deadline()));
}

Task<void> Client::Impl::Guard(std::shared_ptr<Link> link, std::shared_ptr<smb::Tree> tree,
                               Deadline stop) {
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
        co_await binder_.Bind(link->prefix, {.not_covered_by = nullptr, .avoid = suspect}, &failure,
                              search.deadline().Within(kSearchTime));
    if (found.ok()) {
      sessions_.Retire(*suspect);
      co_return;
    }
    if (connection.suspect()) {
      (void)co_await runtime::Sleep(kSearchPause, search.deadline());
    }
  }
}

Task<void> Client::Impl::CancelWhenWell(std::shared_ptr<smb::Tree> tree,
                                        runtime::CancelSource* search) {
  smb::Connection& connection = tree->session().connection();
  while (connection.suspect() && !connection.closed()) {
    if (!(co_await connection.health_changed().WaitForNotify(Deadline::Never())).ok()) co_return;
  }
  search->Cancel();
}

}  // namespace dfscsi::dfs
