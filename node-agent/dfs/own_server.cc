#include "node-agent/dfs/own_server.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "node-agent/base/status_macros.h"
#include "node-agent/dfs/binder_parts.h"
#include "node-agent/dfs/failure_class.h"
#include "node-agent/runtime/loop.h"
#include "node-agent/runtime/wait.h"

namespace dfscsi::dfs {

using runtime::Deadline;
using runtime::Task;

namespace {

// While somebody else connects: until the next look whether it did.
constexpr absl::Duration kNextLook = absl::Milliseconds(50);

absl::StatusOr<DfsPath> TargetOf(const std::string& host, const std::string& share) {
  return DfsPath::Parse(absl::StrCat("//", host, "/", share));
}

}  // namespace

Task<absl::StatusOr<TargetHealthTable::ConnectTicket>> OwnServer::Admit(
    DfsPath target, std::function<bool()> needless, Deadline deadline) {
  while (!needless()) {
    const absl::Time now = runtime::Loop::Current().Now();
    TargetHealthTable::Admitted admitted = health_.TryBeginConnect(target, dialer_.identity(), now);
    if (admitted.admission == TargetHealthTable::Admission::kGo) {
      co_return std::move(admitted.ticket);
    }
    const bool joins = admitted.admission == TargetHealthTable::Admission::kJoin;
    CO_RETURN_IF_ERROR(
        co_await runtime::Sleep(joins ? kNextLook : admitted.not_before - now, deadline));
  }
  co_return TargetHealthTable::ConnectTicket();
}

void OwnServer::NoteFailed(const DfsPath& target, const absl::Status& status,
                           const Deadline& deadline) {
  runtime::Loop& loop = runtime::Loop::Current();
  // It was our time that was up, which says nothing of the server.
  if (status.ok() || deadline.cancelled() || loop.Now() >= deadline.when()) return;
  const Failure failure = Classify(status, AttemptPhase::kSessionSetup, /*keys_proven=*/false);
  health_.NoteFailed(target, dialer_.identity(), AttemptPhase::kSessionSetup, failure.failure,
                     loop.Now(), binder_parts::Fraction(loop.Random()),
                     smb::LogOnForbiddenFor(status));
}

Task<absl::Status> OwnServer::EndSession(std::string host, std::string share, uint64_t session_id,
                                         Deadline deadline) {
  CO_ASSIGN_OR_RETURN(const DfsPath target, TargetOf(host, share));
  const auto ended = [&] { return dialer_.IsEnded(host, session_id); };
  CO_ASSIGN_OR_RETURN(const TargetHealthTable::ConnectTicket ticket,
                      co_await Admit(target, ended, deadline));
  if (ended()) co_return absl::OkStatus();
  const absl::Status status = co_await dialer_.EndSession(host, session_id, deadline);
  NoteFailed(target, status, deadline);
  co_return status;
}

Task<void> OwnServer::EndFormerSessions(std::string host, std::string share, Deadline deadline) {
  for (const uint64_t id : dialer_.FormerSessions(host)) {
    // Of OK nothing is left to be forgotten.
    (void)co_await EndSession(host, share, id, deadline);
    if (!deadline.cancelled()) dialer_.ForgetFormer(host, id);
  }
}

Task<absl::StatusOr<std::shared_ptr<smb::Tree>>> OwnServer::GetTree(std::string host,
                                                                    std::string share,
                                                                    Deadline deadline) {
  CO_ASSIGN_OR_RETURN(const DfsPath target, TargetOf(host, share));
  const auto connected = [&] { return dialer_.HasSession(host, nullptr); };
  const bool connects = !connected();
  CO_ASSIGN_OR_RETURN(const TargetHealthTable::ConnectTicket ticket,
                      co_await Admit(target, connected, deadline));
  smb::ConnectPhase phase = smb::ConnectPhase::kResolve;
  absl::StatusOr<std::shared_ptr<smb::Tree>> tree =
      co_await dialer_.GetTree(host, std::move(share), {}, &phase, deadline);
  if (connects && phase < smb::ConnectPhase::kTreeConnect) {
    NoteFailed(target, tree.status(), deadline);
  }
  co_return tree;
}

}  // namespace dfscsi::dfs
