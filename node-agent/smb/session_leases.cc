// Leases of a session: breaks on their way up, acknowledgments on their way out.

#include <utility>

#include "node-agent/base/status_macros.h"
#include "node-agent/smb/session.h"
#include "node-agent/smb/tree.h"
#include "node-agent/smb/wire/break.h"

namespace dfscsi::smb {
namespace {

// Servers wait 35 s for an acknowledgment.
constexpr absl::Duration kAcknowledgeTime = absl::Seconds(35);

}  // namespace

void Session::OnBreak(const wire::Break& broken) {
  // We ask for leases alone, never for oplocks.
  const auto* const notification = std::get_if<wire::LeaseBreakNotification>(&broken);
  if (notification == nullptr) return;
  const LeaseTable::Broken known = leases_.OnBreak(*notification);
  if (known.observer != nullptr) return known.observer->OnLeaseBreak(known.lease_break);
  if (!known.lease_break.must_acknowledge) return;
  // Nothing is cached under it: whoever waits at the server need not wait for us.
  struct Acknowledge {
    static runtime::Task<void> Run(std::shared_ptr<Session> session, wire::LeaseKey key,
                                   uint32_t state) {
      (void)co_await session->AcknowledgeLease(key, state,
                                               runtime::Deadline::After(kAcknowledgeTime));
    }
  };
  runtime::Loop::Current().Spawn(
      Acknowledge::Run(shared_from_this(), known.lease_break.key, known.lease_break.to));
}

uint32_t Session::TreeForBreak(const wire::LeaseKey& key) const {
  if (const std::optional<uint32_t> tree = leases_.TreeOf(key)) return *tree;
  for (const auto& [share, weak] : trees_) {
    if (const std::shared_ptr<Tree> tree = weak.lock()) return tree->id();
  }
  return 0;
}

runtime::Task<absl::Status> Session::AcknowledgeLease(wire::LeaseKey key, uint32_t state,
                                                      runtime::Deadline deadline) {
  // What the server may now give to others is not ours from this moment on.
  leases_.OnAcknowledged(key, state);
  absl::Status status = absl::UnavailableError("the session is of no use any more");
  if (usable()) {
    const wire::LeaseBreakAck acknowledgment{.key = key, .state = state};
    std::vector<Request> requests;
    requests.push_back(
        MakeRequest(wire::Command::kOplockBreak, wire::EncodeLeaseBreakAck, acknowledgment));
    requests.front().tree_id = TreeForBreak(key);
    const absl::StatusOr<std::vector<Response>> responses =
        co_await Call(std::move(requests), deadline);
    status = responses.status();
    if (responses.ok() && !wire::IsSuccess(responses->front().header.status)) {
      leases_.OnAcknowledged(key, 0);
      status = wire::ToStatus(responses->front().header.status, "lease break acknowledgment");
    }
  }
  if (usable() || connection_->closed()) co_return status;
  // Its log-on could not be renewed, say. The server has its handles all the same, and keeps others
  // waiting for what nobody can say on it any more; leaving it is allowed ([MS-SMB2] 3.3.5.2.9).
  (void)co_await LogOff(std::move(deadline));
  connection_->Close(absl::AbortedError("a broken lease could not be given back"));
  co_return status;
}

}  // namespace dfscsi::smb
