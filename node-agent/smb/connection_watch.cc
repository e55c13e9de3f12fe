// Signs of life. Silence is not death: this file only says when a server has been silent for too
// long; what follows is dfs/'s to decide.

#include "node-agent/smb/connection.h"
#include "node-agent/smb/silence_clock.h"

namespace dfscsi::smb {

runtime::Task<void> Connection::SendEcho() {
  echo_in_flight_ = true;
  std::vector<Request> requests;
  requests.push_back(MakeEmptyRequest(wire::Command::kEcho));
  // The answer itself is of no interest, any byte is a sign of life. Ends with the connection.
  (void)co_await Call(std::move(requests), runtime::Deadline::Never());
  echo_in_flight_ = false;
}

runtime::Task<void> Connection::Watch() {
  runtime::Loop& loop = runtime::Loop::Current();
  while (!closed_) {
    SilenceClock::Verdict verdict = silence_.Look(loop.Now());
    if (verdict.probe) {
      // Silent for a while already: what TCP knows now counts.
      const runtime::TcpProgress tcp = stream_->progress();
      silence_.OnTcp(loop.Now(), {.data_segments_in = static_cast<int64_t>(tcp.data_segments_in),
                                  .unacknowledged = tcp.unacked_bytes > 0,
                                  .retransmits = static_cast<int>(tcp.retransmits)});
      verdict = silence_.Look(loop.Now());
      if (verdict.probe && !echo_in_flight_) tasks_.Spawn(SendEcho());
    }
    if (verdict.silence != Silence::kNone && !suspect_) {
      suspect_ = true;
      health_changed_.NotifyAll();
    }
    // Ends when something was sent after a pause, at the time of the next look, or with the
    // connection.
    (void)co_await silence_changed_.WaitForNotify(runtime::Deadline::At(verdict.look_again));
  }
}

}  // namespace dfscsi::smb
