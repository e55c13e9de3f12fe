#include "node-agent/runtime/sim_tcp.h"

#include <string.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "node-agent/base/status_macros.h"

namespace dfscsi::runtime::sim_internal {
namespace {

constexpr uint64_t kLargestSegment = 32 * 1024;  // As with segmentation offload.
constexpr uint64_t kFirstFlight = 10 * 1448;
constexpr uint64_t kLargestFlight = 1 << 20;
constexpr size_t kHeaderBytes = 66;
constexpr uint32_t kMostRetransmits = 15;
constexpr int kMostSyns = 7;

uint64_t HashBytes(const char* at, size_t size) {
  uint64_t hash = size;
  for (; size >= 8; at += 8, size -= 8) {
    uint64_t word;
    memcpy(&word, at, 8);
    hash = (hash ^ word) * 0x9e3779b97f4a7c15;
    hash ^= hash >> 29;
  }
  for (; size > 0; ++at, --size) hash = (hash ^ static_cast<unsigned char>(*at)) * 0x100000001b3;
  return hash;
}

absl::Status Reset() { return absl::UnavailableError("Connection reset by peer"); }
absl::Status Refused() { return absl::UnavailableError("Connection refused"); }
absl::Status Unreachable() { return absl::UnavailableError("No route to host"); }
absl::Status TimedOut() { return absl::UnavailableError("Connection timed out"); }

}  // namespace

Connection::Connection(SimNetwork& network)
    : network_(network),
      send_buffer_(64 * 1024 + network.random_.Below(448 * 1024)),
      receive_buffer_(64 * 1024 + network.random_.Below(448 * 1024)) {}

bool Connection::in_use() const { return ends_[0].loop != nullptr || ends_[1].loop != nullptr; }

bool Connection::FinReceived(int side) {
  return other(side).finished && ends_[side].received == other(side).end();
}

uint64_t Connection::Readable(int side) {
  return std::min(ends_[side].received, other(side).written) - ends_[side].read;
}

uint64_t Connection::Room(int side) const {
  const uint64_t held = ends_[side].written - std::min(ends_[side].unacked, ends_[side].written);
  return held < send_buffer_ ? send_buffer_ - held : 0;
}

// --- The application's calls

Stream::Progress Connection::TryRead(int side, absl::Span<const iovec> into) {
  Socket& self = ends_[side];
  Socket& from = other(side);
  if (self.closed) return absl::UnavailableError("closed");
  uint64_t n = Readable(side);
  if (n == 0) {
    if (FinReceived(side)) return std::optional<size_t>(0);
    if (!self.error.ok()) return self.error;
    return std::optional<size_t>();
  }
  uint64_t wanted = 0;
  for (const iovec& part : into) wanted += part.iov_len;
  n = std::min(n, wanted);
  if (n > 1 && network_.random_.Chance(network_.fragmentation_)) n = 1 + network_.random_.Below(n);
  const char* at = from.bytes.data() + from.discarded + (self.read - from.kept);
  uint64_t left = n;
  for (const iovec& part : into) {
    const uint64_t chunk = std::min<uint64_t>(left, part.iov_len);
    memcpy(part.iov_base, at, chunk);
    at += chunk;
    left -= chunk;
  }
  self.read += n;
  Discard(1 - side);
  const uint64_t limit = self.read + receive_buffer_;
  if (limit - self.advertised >= receive_buffer_ / 2) SendAck(side);  // The window is open again.
  return std::optional<size_t>(n);
}

Stream::Progress Connection::TryWrite(int side, absl::Span<const iovec> from) {
  Socket& self = ends_[side];
  if (self.closed) return absl::UnavailableError("closed");
  if (!self.error.ok()) return self.error;
  uint64_t n = 0;
  for (const iovec& part : from) n += part.iov_len;
  n = std::min(n, Room(side));
  if (n == 0) return std::optional<size_t>();
  if (n > 1 && network_.random_.Chance(network_.fragmentation_)) n = 1 + network_.random_.Below(n);
  uint64_t left = n;
  for (const iovec& part : from) {
    const uint64_t chunk = std::min<uint64_t>(left, part.iov_len);
    self.bytes.append(static_cast<const char*>(part.iov_base), chunk);
    left -= chunk;
  }
  self.written += n;
  SendWhatFits(side);
  return std::optional<size_t>(n);
}

TcpProgress Connection::progress(int side) {
  const Socket& self = ends_[side];
  TcpProgress progress;
  progress.unacked_bytes = self.written - std::min(self.unacked, self.written);
  progress.retransmits = self.retransmits;
  progress.data_segments_in = self.data_segments_in;
  progress.since_last_receive = network_.world_.now() - self.last_receive;
  return progress;
}

Task<absl::Status> Connection::WaitFor(std::shared_ptr<Connection> connection, int side,
                                       bool readable, Deadline deadline) {
  Socket& self = connection->ends_[side];
  Condition& changed = readable ? self.readable : self.writable;
  // As with a real reactor, a wait may end for nothing.
  SimNetwork& network = connection->network_;
  if (network.random_.Chance(network.fragmentation_ / 10)) {
    CO_RETURN_IF_ERROR(co_await Sleep(
        absl::Microseconds(static_cast<int64_t>(network.random_.Below(50))), deadline));
    co_return self.closed ? absl::UnavailableError("closed") : absl::OkStatus();
  }
  while (true) {
    if (self.closed) co_return absl::UnavailableError("closed");
    if (!self.error.ok()) co_return absl::OkStatus();  // The next Try tells.
    if (readable ? connection->Readable(side) > 0 || connection->FinReceived(side)
                 : connection->Room(side) > 0) {
      co_return absl::OkStatus();
    }
    CO_RETURN_IF_ERROR(co_await changed.WaitForNotify(deadline));
  }
}

void Connection::Close(int side) {
  Socket& self = ends_[side];
  if (self.closed) return;
  self.closed = true;
  self.loop = nullptr;
  self.readable.NotifyAll();
  self.writable.NotifyAll();
  if (self.host == nullptr) return;
  if (!self.established) return Forget(side);
  if (Readable(side) > 0 || self.reset_on_close)
    return Abort(side);  // Unread bytes: the other end must know.
  self.finished = true;
  Discard(1 - side);
  SendWhatFits(side);
}

void Connection::Discard(int side) {
  Socket& self = ends_[side];
  const Socket& reader = other(side);
  const uint64_t consumed = reader.closed ? reader.received : reader.read;
  const uint64_t keep = std::min({self.unacked, consumed, self.written});
  if (keep <= self.kept) return;
  self.discarded += keep - self.kept;
  self.kept = keep;
  if (self.discarded > kLargestSegment && self.discarded > self.bytes.size() / 2) {
    self.bytes.erase(0, self.discarded);
    self.discarded = 0;
  }
}

// --- The kernels

void Connection::Forget(int side) {
  ends_[side].host = nullptr;
  ends_[side].timer_at = absl::InfiniteFuture();
}

void Connection::Fail(int side, absl::Status error) {
  Socket& self = ends_[side];
  if (self.error.ok()) self.error = std::move(error);
  Forget(side);
  self.readable.NotifyAll();
  self.writable.NotifyAll();
}

void Connection::OnReset(int side) {
  if (ends_[side].host != nullptr) Fail(side, ends_[side].established ? Reset() : Refused());
}

void Connection::Abort(int side) {
  Socket& self = ends_[side];
  if (self.host == nullptr) return;
  network_.Send(*self.host, self.local.address, self.remote.address, kHeaderBytes, nullptr,
                [connection = shared_from_this(), side](SimHost& at) {
                  if (connection->other(side).host == &at) connection->OnReset(1 - side);
                });
  Forget(side);
}

void Connection::ResetBothEnds() {
  OnReset(0);
  OnReset(1);
}

void Connection::Send(int side, size_t bytes, bool in_order, std::function<void()> arrive) {
  Socket& self = ends_[side];
  if (self.host == nullptr) return;
  const SimHost* const to = network_.Find(self.remote.address);
  if (to != nullptr) {
    const SimPath path = network_.path(*self.host, *to);
    if (path.fate == SimPath::Fate::kReset) {
      network_.world_.After(2 * path.latency,
                            [connection = shared_from_this(), side] { connection->OnReset(side); });
      return;
    }
  }
  network_.Send(*self.host, self.local.address, self.remote.address, bytes,
                in_order ? &self.last_arrival : nullptr,
                [connection = shared_from_this(), side, arrive = std::move(arrive)](SimHost& at) {
                  const Socket& receiver = connection->other(side);
                  if (receiver.host == &at) return arrive();
                  // That kernel knows nothing of this connection.
                  const Socket& sender = connection->ends_[side];
                  connection->network_.Send(at, sender.remote.address, sender.local.address,
                                            kHeaderBytes, nullptr,
                                            [connection, side](SimHost& back) {
                                              if (connection->ends_[side].host == &back) {
                                                connection->OnReset(side);
                                              }
                                            });
                });
}

void Connection::SendWhatFits(int side) {
  Socket& self = ends_[side];
  if (self.host == nullptr || !self.established) return;
  const uint64_t limit = std::min(self.send_limit, self.unacked + self.in_flight_limit);
  while (self.next < std::min(self.written, limit)) {
    const uint64_t most = std::min(self.written, limit) - self.next;
    uint64_t to = self.next + std::min(most, 1448 + network_.random_.Below(kLargestSegment - 1448));
    if (self.finished && to == self.written) ++to;
    SendSegment(side, self.next, to);
    self.next = to;
  }
  if (self.finished && self.next == self.written) {
    SendSegment(side, self.written, self.written + 1);
    self.next = self.written + 1;
  }
  ArmTimer(side);
}

// Like every segment it says, too, what has arrived: an acknowledgement that was lost is made good
// by the next request.
void Connection::SendSegment(int side, uint64_t from, uint64_t to) {
  const uint64_t limit = Advertise(side);
  Send(side, kHeaderBytes + (to - from), /*in_order=*/true,
       [this, side, from, to, ack = ends_[side].received, limit] {
         OnSegment(1 - side, from, to);
         OnAck(1 - side, ack, limit, /*hole=*/false);
       });
}

uint64_t Connection::Advertise(int side) {
  Socket& self = ends_[side];
  self.advertised = (self.closed ? self.received : self.read) + receive_buffer_;
  return self.advertised;
}

void Connection::SendAck(int side) {
  const Socket& self = ends_[side];
  const uint64_t limit = Advertise(side);
  Send(side, kHeaderBytes, /*in_order=*/false,
       [this, side, ack = self.received, limit, hole = !self.early.empty()] {
         OnAck(1 - side, ack, limit, hole);
       });
}

void Connection::OnSegment(int side, uint64_t from, uint64_t to) {
  Socket& self = ends_[side];
  const Socket& sender = other(side);
  self.last_receive = network_.world_.now();
  if (!self.established) Establish(side);  // The handshake's last acknowledgement was lost.
  if (self.host == nullptr) return;
  if (to > from) ++self.data_segments_in;
  if (self.closed && std::min(to, sender.written) > self.received) return Abort(side);
  if (from > self.received) {
    uint64_t& known = self.early[from];
    known = std::max(known, to);
  } else if (to > self.received) {
    const uint64_t before = self.received;
    self.received = to;
    while (!self.early.empty() && self.early.begin()->first <= self.received) {
      self.received = std::max(self.received, self.early.begin()->second);
      self.early.erase(self.early.begin());
    }
    network_.world_.Trace(HashBytes(sender.bytes.data() + sender.discarded + (before - sender.kept),
                                    std::min(self.received, sender.written) - before));
    self.readable.NotifyAll();
  }
  SendAck(side);
}

void Connection::OnAck(int side, uint64_t ack, uint64_t limit, bool hole) {
  Socket& self = ends_[side];
  if (self.host == nullptr) return;
  self.last_receive = network_.world_.now();
  self.send_limit = std::max(self.send_limit, limit);
  if (ack > self.unacked) {
    self.unacked = ack;
    self.next = std::max(self.next, ack);
    self.retransmits = 0;
    self.backoff = 0;
    self.fast_retransmitted = UINT64_MAX;
    self.in_flight_limit = std::min(self.in_flight_limit * 2, kLargestFlight);
    self.timer_at = absl::InfiniteFuture();
    Discard(side);
    self.writable.NotifyAll();
  } else if (hole && self.next > self.unacked && self.fast_retransmitted != self.unacked) {
    self.fast_retransmitted = self.unacked;
    SendSegment(side, self.unacked, std::min(self.next, self.unacked + kLargestSegment));
  }
  SendWhatFits(side);
}

absl::Duration Connection::RetransmitTime(int side) {
  const Socket& self = ends_[side];
  absl::Duration round_trip = absl::ZeroDuration();
  if (const SimHost* const to = network_.Find(self.remote.address)) {
    round_trip = network_.path(*self.host, *to).latency + network_.path(*to, *self.host).latency;
  }
  return std::min((absl::Milliseconds(200) + round_trip) * (1 << std::min(self.backoff, 10u)),
                  absl::Minutes(2));
}

void Connection::ArmTimer(int side) {
  Socket& self = ends_[side];
  // Something is under way, or waits for the other end's window to open.
  if (self.next == self.unacked && self.next == self.end()) {
    self.timer_at = absl::InfiniteFuture();
    return;
  }
  if (self.timer_at == absl::InfiniteFuture()) {
    self.timer_at = network_.world_.now() + RetransmitTime(side);
  }
  if (self.timer_event_at <= self.timer_at) return;
  self.timer_event_at = self.timer_at;
  network_.world_.At(self.timer_at,
                     [connection = shared_from_this(), side] { connection->OnTimer(side); });
}

void Connection::OnTimer(int side) {
  Socket& self = ends_[side];
  self.timer_event_at = absl::InfiniteFuture();
  if (self.host == nullptr || self.timer_at == absl::InfiniteFuture()) return;
  if (network_.world_.now() < self.timer_at) return ArmTimer(side);
  self.timer_at = absl::InfiniteFuture();
  ++self.backoff;
  if (self.next > self.unacked) {
    if (++self.retransmits > kMostRetransmits) return Fail(side, TimedOut());
    // From the first unacknowledged byte on, carefully.
    self.next = self.unacked;
    self.in_flight_limit = 1448;
    SendWhatFits(side);
  } else {
    SendSegment(side, self.next, self.next);  // Asks for the window.
    ArmTimer(side);
  }
}

// --- The handshake

void Connection::SendSyn(int attempt) {
  Socket& self = ends_[kConnecting];
  if (self.host == nullptr || self.established) return;
  if (attempt == kMostSyns) return Fail(kConnecting, TimedOut());
  const auto fail_after = [&](absl::Duration delay, absl::Status error) {
    network_.world_.After(delay, [connection = shared_from_this(), error = std::move(error)] {
      const Socket& end = connection->ends_[kConnecting];
      if (end.host != nullptr && !end.established) connection->Fail(kConnecting, error);
    });
  };
  if (const SimHost* const to = network_.Find(self.remote.address); to == nullptr) {
    if (network_.unknown_unreachable_ != absl::InfiniteDuration()) {
      fail_after(network_.unknown_unreachable_, Unreachable());
    }
  } else {
    const SimPath path = network_.path(*self.host, *to);
    if (path.fate == SimPath::Fate::kReset) fail_after(2 * path.latency, Refused());
    if (path.fate == SimPath::Fate::kUnreachable) fail_after(2 * path.latency, Unreachable());
    network_.Send(*self.host, self.local.address, self.remote.address, kHeaderBytes, nullptr,
                  [connection = shared_from_this()](SimHost& at) { connection->OnSyn(at); });
  }
  network_.world_.After(absl::Seconds(1 << attempt), [connection = shared_from_this(), attempt] {
    connection->SendSyn(attempt + 1);
  });
}

void Connection::OnSyn(SimHost& at) {
  Socket& self = ends_[kAccepting];
  const Socket& from = ends_[kConnecting];
  if (self.host == &at) return;  // The answer is under way, and repeated.
  if (self.host != nullptr || self.closed || self.established) return;
  SocketAddress any = from.remote;
  any.address = any.address.is_v4() ? IpAddress::V4({}) : IpAddress::V6({});
  auto listener = at.listeners_.find(from.remote);
  if (listener == at.listeners_.end()) listener = at.listeners_.find(any);
  if (listener == at.listeners_.end()) {
    network_.Send(at, from.remote.address, from.local.address, kHeaderBytes, nullptr,
                  [connection = shared_from_this()](SimHost& back) {
                    if (connection->ends_[kConnecting].host == &back) {
                      connection->OnReset(kConnecting);
                    }
                  });
    return;
  }
  if (listener->second->full()) return;
  self.host = &at;
  self.loop = listener->second->loop();
  self.local = from.remote;
  self.remote = from.local;
  SendSynAck(/*attempt=*/0);
}

void Connection::SendSynAck(int attempt) {
  const Socket& self = ends_[kAccepting];
  if (self.host == nullptr || self.established) return;
  if (attempt == kMostSyns) return Forget(kAccepting);
  Send(kAccepting, kHeaderBytes, /*in_order=*/false, [this] {
    if (!ends_[kConnecting].established) Establish(kConnecting);
    Send(kConnecting, kHeaderBytes, /*in_order=*/true, [this] {
      if (!ends_[kAccepting].established) Establish(kAccepting);
    });
  });
  network_.world_.After(absl::Seconds(1 << attempt), [connection = shared_from_this(), attempt] {
    connection->SendSynAck(attempt + 1);
  });
}

void Connection::Establish(int side) {
  Socket& self = ends_[side];
  self.established = true;
  self.last_receive = network_.world_.now();
  self.in_flight_limit = kFirstFlight;
  self.send_limit = receive_buffer_;
  self.advertised = receive_buffer_;
  if (side == kConnecting) return self.writable.NotifyAll();
  SocketAddress any = self.local;
  any.address = any.address.is_v4() ? IpAddress::V4({}) : IpAddress::V6({});
  auto listener = self.host->listeners_.find(self.local);
  if (listener == self.host->listeners_.end()) listener = self.host->listeners_.find(any);
  if (listener == self.host->listeners_.end() || listener->second->full()) return Abort(side);
  listener->second->Push(shared_from_this());
}

Task<absl::StatusOr<std::unique_ptr<Stream>>> WaitUntilConnected(
    std::shared_ptr<Connection> connection, Deadline deadline) {
  // From here on the connection closes on every way out but the last, destruction included.
  auto stream = std::make_unique<SimStream>(connection, Connection::kConnecting);
  Socket& self = connection->end(Connection::kConnecting);
  while (!self.established) {
    if (!self.error.ok()) co_return self.error;
    CO_RETURN_IF_ERROR(co_await self.writable.WaitForNotify(deadline));
    if (self.closed) co_return absl::UnavailableError("closed");
  }
  co_return std::move(stream);
}

// --- Listening

SimListener::SimListener(SimLoop& loop, SimHost& host, SocketAddress local)
    : loop_(&loop), host_(host), local_(local) {
  host_.listeners_[local_] = this;
}

SimListener::~SimListener() { Close(); }

void SimListener::Push(std::shared_ptr<Connection> connection) {
  state_->queue.push_back(std::move(connection));
  state_->changed.NotifyAll();
}

void SimListener::Close() {
  if (state_->closed) return;
  state_->closed = true;
  state_->changed.NotifyAll();
  host_.listeners_.erase(local_);
  for (const std::shared_ptr<Connection>& waiting : state_->queue) {
    waiting->Abort(Connection::kAccepting);
    waiting->Close(Connection::kAccepting);
  }
  state_->queue.clear();
}

Task<absl::StatusOr<std::unique_ptr<Stream>>> SimListener::AcceptFrom(std::shared_ptr<State> state,
                                                                      Deadline deadline) {
  while (true) {
    if (state->closed) co_return absl::UnavailableError("closed");
    if (!state->queue.empty()) {
      std::shared_ptr<Connection> connection = std::move(state->queue.front());
      state->queue.pop_front();
      if (connection->end(Connection::kAccepting).closed) continue;
      co_return std::make_unique<SimStream>(std::move(connection), Connection::kAccepting);
    }
    CO_RETURN_IF_ERROR(co_await state->changed.WaitForNotify(deadline));
  }
}

}  // namespace dfscsi::runtime::sim_internal
