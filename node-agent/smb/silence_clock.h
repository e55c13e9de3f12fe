// The two clocks of one connection: when is its server suspect, when is it lost?
//
// Silence is not death. Failing over early destroys writes that a durable reconnect would have kept
// (a switch or a VM moves: 2 to 30 s); failing over late stops readers. So readers and writers have
// a clock each, and both start when requests are outstanding and nothing comes back:
//
//   suspect  what can move without loss (new opens, metadata, clean read handles) may use another
//            target that is up
//   lost     handles with unacknowledged data, locks or write leases have waited long enough for
//            their own server
//
//   what happens                      suspect            lost
//   bytes arrive, TCP sees data       restarts           restarts
//   reset, FIN, refused               at once            goes on
//   a referral lists it no more       at once            at once
//   its ECHO is answered              restarts           restarts
//   it answered as late before        later              goes on
//   unacknowledged, < 3 retransmits   later (bounded)    goes on
//   we ourselves did not run          later by as much   later by as much
//
// Pure: no timers, no I/O. The connection's owner feeds it and asks when to look again.

#ifndef NODE_AGENT_SMB_SILENCE_CLOCK_H_
#define NODE_AGENT_SMB_SILENCE_CLOCK_H_

#include <cstdint>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace dfscsi::smb {

enum class Silence { kNone, kSuspect, kLost };

enum class SilenceCause {
  kNone,
  kServerHung,  // TCP acknowledges what we send, and nothing else comes.
  kPathDown,    // Nothing is acknowledged.
  kDisconnected,
  kUnlisted,
};
absl::string_view SilenceCauseName(SilenceCause cause);

// Of getsockopt(TCP_INFO), as far as it matters.
struct TcpObservation {
  int64_t data_segments_in = 0;  // tcpi_data_segs_in: grows by segments out of order, too.
  bool unacknowledged = false;   // tcpi_unacked > 0
  int retransmits = 0;           // tcpi_retransmits, of the oldest segment.
};

// One per connection; used by its loop.
class SilenceClock {
 public:
  struct Options {
    absl::Duration suspect_after = absl::Seconds(1);
    absl::Duration write_grace = absl::Seconds(30);
    // However slow a server was, it is suspect after this.
    absl::Duration suspect_after_max = absl::Seconds(10);
  };
  explicit SilenceClock(Options options) : options_(options) {}

  // Requests outstanding: from none to some, and from some to none.
  void OnBusy(absl::Time now);
  void OnIdle();
  // Bytes came in.
  void OnBytes(absl::Time now);
  // A response (of any request, an ECHO's too) came `latency` after its request. Not for requests
  // that the server said would take long (STATUS_PENDING).
  void OnAnswer(absl::Time now, absl::Duration latency);
  // TCP_INFO was read; once per look while the server is silent is enough.
  void OnTcp(absl::Time now, const TcpObservation& observation);
  // Reset, FIN, refused.
  void OnDisconnected(absl::Time now);
  // The same server has a session for us again. What was learned of its speed stays.
  void OnReconnected(absl::Time now);
  // A fresh referral lists this target no more; it is lost whatever it does.
  void OnUnlisted(absl::Time now);
  // Our own loop did not run for this long: not the server's fault.
  void OnLocalStall(absl::Duration stall);

  struct Verdict {
    Silence silence = Silence::kNone;
    SilenceCause cause = SilenceCause::kNone;  // Unless kNone.
    // Send an ECHO, if none is outstanding (at half of the time until suspect).
    bool probe = false;
    // Nothing changes before, unless something is fed. InfiniteFuture: nothing will.
    absl::Time look_again = absl::InfiniteFuture();
  };
  Verdict Look(absl::Time now) const;

  // How long this server may be silent before it is suspect, by what it has shown so far.
  absl::Duration SuspectAfter() const;

 private:
  bool TcpStillTries() const { return tcp_.unacknowledged && tcp_.retransmits < 3; }
  void Restart(absl::Time now);

  const Options options_;
  // When the present silence began; InfiniteFuture while nothing is outstanding and all is well.
  absl::Time silent_since_ = absl::InfiniteFuture();
  bool busy_ = false;
  bool disconnected_ = false;
  bool unlisted_ = false;
  bool tcp_known_ = false;  // Since the present silence began.
  TcpObservation tcp_;
  absl::Duration slowest_ = absl::ZeroDuration();  // Decaying peak of latencies.
};

}  // namespace dfscsi::smb

#endif  // NODE_AGENT_SMB_SILENCE_CLOCK_H_
