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
  const wire::LeaseBreakAck acknowledgment{.key = key, .state = state};
  std::vector<Request> requests;
  requests.push_back(
      MakeRequest(wire::Command::kOplockBreak, wire::EncodeLeaseBreakAck, acknowledgment));
  requests.front().tree_id = TreeForBreak(key);
  CO_ASSIGN_OR_RETURN(const std::vector<Response> responses,
                      co_await Call(std::move(requests), deadline));
  const wire::NtStatus status = responses.front().header.status;
  if (!wire::IsSuccess(status)) {
    leases_.OnAcknowledged(key, 0);
    co_return wire::ToStatus(status, "lease break acknowledgment");
  }
  co_return absl::OkStatus();
}

}  // namespace dfscsi::smb
