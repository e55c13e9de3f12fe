// TCP of the simulated network: one Connection is both ends and what is between them. Private to
// the simulator.

#ifndef NODE_AGENT_RUNTIME_SIM_TCP_H_
#define NODE_AGENT_RUNTIME_SIM_TCP_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "node-agent/runtime/network.h"
#include "node-agent/runtime/sim_network.h"
#include "node-agent/runtime/wait.h"

namespace dfscsi::runtime::sim_internal {

// A kernel's half of a connection. Positions count bytes from the start of the stream; a FIN counts
// as one byte after the last.
struct Socket {
  SimHost* host = nullptr;  // Null: no kernel knows this socket (not yet, or no longer).
  SimLoop* loop = nullptr;  // The process that holds it; null once the application closed it.
  SocketAddress local;
  SocketAddress remote;
  bool established = false;
  bool reset_on_close = false;
  bool closed = false;  // By the application, or with its process.
  absl::Status error;   // Not OK: reset or timed out.
  Condition readable;
  Condition writable;
  absl::Time last_receive;

  // What this end sends. The bytes stay here until the other end's application has read them and
  // this end's kernel knows that they arrived.
  std::string bytes;        // Those from `kept` on.
  size_t discarded = 0;     // Of `bytes`, at its front.
  uint64_t kept = 0;        // Position of the first byte after the discarded ones.
  uint64_t written = 0;     // By the application.
  bool finished = false;    // It will write no more: a FIN follows.
  uint64_t next = 0;        // To be sent.
  uint64_t unacked = 0;     // The first position not acknowledged.
  uint64_t send_limit = 0;  // What the other end's window allows.
  uint64_t in_flight_limit = 0;
  uint64_t fast_retransmitted = UINT64_MAX;  // The hole that was already repaired once.
  uint32_t retransmits = 0;
  uint32_t backoff = 0;
  absl::Time timer_at = absl::InfiniteFuture();
  absl::Time timer_event_at = absl::InfiniteFuture();  // Of the event that looks at timer_at.
  absl::Time last_arrival = absl::InfinitePast();

  // What this end has received of the other's stream.
  uint64_t received = 0;               // In order.
  uint64_t read = 0;                   // By the application.
  std::map<uint64_t, uint64_t> early;  // Beyond a hole: from, to.
  uint64_t advertised = 0;             // The limit last told to the other end.
  uint64_t data_segments_in = 0;       // Those that came twice or too early, too.

  uint64_t end() const { return written + (finished ? 1 : 0); }
};

class Connection : public std::enable_shared_from_this<Connection> {
 public:
  static constexpr int kConnecting = 0;  // The end that called Connect.
  static constexpr int kAccepting = 1;

  explicit Connection(SimNetwork& network);

  Socket& end(int side) { return ends_[side]; }
  SimNetwork& network() { return network_; }

  // The application's calls, on the end `side`.
  Stream::Progress TryRead(int side, absl::Span<const iovec> into);
  Stream::Progress TryWrite(int side, absl::Span<const iovec> from);
  TcpProgress progress(int side);
  void Close(int side);
  static Task<absl::Status> WaitFor(std::shared_ptr<Connection> self, int side, bool readable,
                                    Deadline deadline);

  // The handshake, from the connecting end.
  void SendSyn(int attempt);
  // The kernel of `side` forgets this connection without a word.
  void Forget(int side);
  // Sends an RST from `side` and forgets the connection there.
  void Abort(int side);
  // Both ends are told of a reset, whatever the network does.
  void ResetBothEnds();
  // A process holds one of its ends.
  bool in_use() const;

 private:
  Socket& other(int side) { return ends_[1 - side]; }
  bool FinReceived(int side);
  uint64_t Readable(int side);
  uint64_t Room(int side) const;
  void SendWhatFits(int side);
  void SendSegment(int side, uint64_t from, uint64_t to);
  void SendAck(int side);
  // Notes, and returns, up to where the other end may send now.
  uint64_t Advertise(int side);
  void OnSegment(int side, uint64_t from, uint64_t to);
  void OnAck(int side, uint64_t ack, uint64_t limit, bool hole);
  void ArmTimer(int side);
  void OnTimer(int side);
  void Fail(int side, absl::Status error);
  void Discard(int side);
  absl::Duration RetransmitTime(int side);
  void Establish(int side);
  void OnSyn(SimHost& at);
  void SendSynAck(int attempt);
  void OnReset(int side);
  // Sends a segment from `side`; `arrive` runs when it got there and is known there.
  void Send(int side, size_t bytes, bool in_order, std::function<void()> arrive);

  SimNetwork& network_;
  Socket ends_[2];
  const uint64_t send_buffer_;
  const uint64_t receive_buffer_;
};

class SimStream final : public Stream {
 public:
  SimStream(std::shared_ptr<Connection> connection, int side)
      : connection_(std::move(connection)), side_(side) {}
  ~SimStream() override { connection_->Close(side_); }

  Progress TryRead(absl::Span<const iovec> into) override {
    return connection_->TryRead(side_, into);
  }
  Progress TryWrite(absl::Span<const iovec> from) override {
    return connection_->TryWrite(side_, from);
  }
  Task<absl::Status> WaitReadable(Deadline deadline) override {
    return Connection::WaitFor(connection_, side_, /*readable=*/true, std::move(deadline));
  }
  Task<absl::Status> WaitWritable(Deadline deadline) override {
    return Connection::WaitFor(connection_, side_, /*readable=*/false, std::move(deadline));
  }
  TcpProgress progress() override { return connection_->progress(side_); }
  SocketAddress peer() const override { return connection_->end(side_).remote; }
  void ResetOnClose() override { connection_->end(side_).reset_on_close = true; }

 private:
  std::shared_ptr<Connection> connection_;
  const int side_;
};

class SimListener final : public Listener {
 public:
  SimListener(SimLoop& loop, SimHost& host, SocketAddress local);
  ~SimListener() override;

  Task<absl::StatusOr<std::unique_ptr<Stream>>> Accept(Deadline deadline) override {
    return AcceptFrom(state_, std::move(deadline));
  }
  SocketAddress local() const override { return local_; }

  SimLoop* loop() const { return loop_; }
  bool full() const { return state_->queue.size() >= kBacklog; }
  void Push(std::shared_ptr<Connection> connection);
  // Its process is gone.
  void Close();

 private:
  static constexpr size_t kBacklog = 128;
  struct State {
    Condition changed;
    std::deque<std::shared_ptr<Connection>> queue;
    bool closed = false;
  };
  static Task<absl::StatusOr<std::unique_ptr<Stream>>> AcceptFrom(std::shared_ptr<State> state,
                                                                  Deadline deadline);

  SimLoop* const loop_;
  SimHost& host_;
  const SocketAddress local_;
  std::shared_ptr<State> state_ = std::make_shared<State>();
};

// Waits until `connection`, whose SYN is under way, is established.
Task<absl::StatusOr<std::unique_ptr<Stream>>> WaitUntilConnected(
    std::shared_ptr<Connection> connection, Deadline deadline);

}  // namespace dfscsi::runtime::sim_internal

#endif  // NODE_AGENT_RUNTIME_SIM_TCP_H_
