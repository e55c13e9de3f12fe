// Signs of life. Silence is not death: this file only says when a server has been silent for too
// long; what follows is dfs/'s to decide.

#include <algorithm>

#include "node-agent/smb/connection.h"

namespace dfscsi::smb {

absl::Duration Connection::SuspectAfter() const {
  // A server, or a path, that always takes long is not suspect for it.
  return std::max(options_.suspect_after, 4 * round_trip_);
}

runtime::Task<void> Connection::SendEcho() {
  echo_in_flight_ = true;
  std::vector<Request> requests;
  requests.push_back(MakeEmptyRequest(wire::Command::kEcho));
  // The answer itself is of no interest, any byte is a sign of life. Ends with the connection.
  (void)co_await Call(std::move(requests), runtime::Deadline::Never());
  echo_in_flight_ = false;
}

runtime::Task<void> Connection::Watch() {
  // A lost packet that TCP is about to repeat is not silence yet; three repeats are.
  constexpr uint32_t kPathIsDead = 3;
  constexpr uint64_t kProgress = 65536;
  uint64_t unacked_before = 0;
  absl::Time base_before;
  while (!closed_) {
    if (pending_.empty()) {
      // Ends with the next request or the connection.
      if (!(co_await outstanding_changed_.WaitForNotify(runtime::Deadline::Never())).ok()) {
        co_return;
      }
      continue;
    }
    runtime::Loop& loop = runtime::Loop::Current();
    const absl::Time base = std::max(last_received_, waiting_since_);
    const absl::Duration silent = loop.Now() - base;
    const absl::Duration suspect_after = SuspectAfter();
    absl::Duration next = suspect_after / 2;
    if (silent >= suspect_after / 2) {
      const runtime::TcpProgress tcp = stream_->progress();
      // A large request on its way out over a slow line is progress too.
      if (base == base_before && tcp.unacked_bytes + kProgress <= unacked_before) {
        last_received_ = loop.Now();
      } else if (!echo_in_flight_) {
        tasks_.Spawn(SendEcho());
      }
      unacked_before = tcp.unacked_bytes;
      base_before = base;
      const bool repeating = tcp.retransmits > 0 && tcp.retransmits < kPathIsDead;
      if (silent >= (repeating ? 2 : 1) * suspect_after && !suspect_) {
        suspect_ = true;
        health_changed_.NotifyAll();
      }
      next = suspect_after / 8;
    } else {
      next = suspect_after / 2 - silent;
    }
    (void)co_await runtime::Sleep(next, runtime::Deadline::Never());
  }
}

}  // namespace dfscsi::smb
