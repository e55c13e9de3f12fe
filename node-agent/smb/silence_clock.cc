#include "node-agent/smb/silence_clock.h"

#include <algorithm>

namespace dfscsi::smb {
namespace {

// An answer this many times later than the slowest of late is news.
constexpr int kPatience = 4;
// TCP is believed to be still trying for at most this many times SuspectAfter().
constexpr int kTcpPatience = 2;
// Where TCP is not asked again in between, this is how often its counters are wanted.
constexpr absl::Duration kTcpInterval = absl::Milliseconds(200);

}  // namespace

absl::string_view SilenceCauseName(SilenceCause cause) {
  switch (cause) {
    case SilenceCause::kNone:
      return "none";
    case SilenceCause::kServerHung:
      return "server_hung";
    case SilenceCause::kPathDown:
      return "path_down";
    case SilenceCause::kDisconnected:
      return "disconnected";
    case SilenceCause::kUnlisted:
      return "unlisted";
  }
  return "?";
}

void SilenceClock::Restart(absl::Time now) {
  silent_since_ = busy_ ? now : absl::InfiniteFuture();
  tcp_known_ = false;
}

void SilenceClock::OnBusy(absl::Time now) {
  busy_ = true;
  if (silent_since_ == absl::InfiniteFuture()) Restart(now);
}

void SilenceClock::OnIdle() {
  busy_ = false;
  if (!disconnected_) silent_since_ = absl::InfiniteFuture();
}

void SilenceClock::OnBytes(absl::Time now) {
  if (!disconnected_) Restart(now);
}

void SilenceClock::OnAnswer(absl::Time now, absl::Duration latency) {
  OnBytes(now);
  // The peak is forgotten by and by: a server that was slow for a minute is trusted less after it.
  slowest_ = std::max(latency, slowest_ - slowest_ / 16);
}

void SilenceClock::OnTcp(absl::Time now, const TcpObservation& observation) {
  if (disconnected_) return;
  // Segments that wait for a lost one before them are signs of life that no read shows.
  const bool alive = tcp_known_ && observation.data_segments_in > tcp_.data_segments_in;
  if (alive) Restart(now);
  tcp_ = observation;
  tcp_known_ = true;
}

void SilenceClock::OnDisconnected(absl::Time now) {
  disconnected_ = true;
  if (silent_since_ == absl::InfiniteFuture()) silent_since_ = now;
}

void SilenceClock::OnReconnected(absl::Time now) {
  disconnected_ = false;
  Restart(now);
}

void SilenceClock::OnUnlisted(absl::Time now) {
  unlisted_ = true;
  if (silent_since_ == absl::InfiniteFuture()) silent_since_ = now;
}

void SilenceClock::OnLocalStall(absl::Duration stall) {
  if (silent_since_ != absl::InfiniteFuture()) silent_since_ += stall;
}

absl::Duration SilenceClock::SuspectAfter() const {
  return std::max(options_.suspect_after,
                  std::min(kPatience * slowest_, options_.suspect_after_max));
}

SilenceClock::Verdict SilenceClock::Look(absl::Time now) const {
  Verdict verdict;
  if (unlisted_) {
    return {.silence = Silence::kLost, .cause = SilenceCause::kUnlisted};
  }
  if (silent_since_ == absl::InfiniteFuture()) return verdict;

  const absl::Time lost_at = silent_since_ + options_.write_grace;
  const absl::Time patient_until = silent_since_ + SuspectAfter();
  const absl::Time tcp_until = silent_since_ + kTcpPatience * SuspectAfter();
  const bool tcp_tries = tcp_known_ && TcpStillTries();
  if (disconnected_) {
    verdict.silence = Silence::kSuspect;
    verdict.cause = SilenceCause::kDisconnected;
  } else if (now >= patient_until && (!tcp_tries || now >= tcp_until)) {
    verdict.silence = Silence::kSuspect;
    verdict.cause =
        tcp_known_ && tcp_.unacknowledged ? SilenceCause::kPathDown : SilenceCause::kServerHung;
  }
  if (now >= lost_at) {
    verdict.silence = Silence::kLost;
    if (verdict.cause == SilenceCause::kNone) verdict.cause = SilenceCause::kServerHung;
    return verdict;
  }
  const absl::Time probe_at = silent_since_ + SuspectAfter() / 2;
  verdict.probe = !disconnected_ && now >= probe_at;
  if (verdict.silence == Silence::kSuspect) {
    verdict.look_again = lost_at;
  } else if (now < probe_at) {
    verdict.look_again = probe_at;
  } else if (now < patient_until) {
    verdict.look_again = patient_until;
  } else {
    verdict.look_again = std::min(now + kTcpInterval, tcp_until);
  }
  return verdict;
}

}  // namespace dfscsi::smb
