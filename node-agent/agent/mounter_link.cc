#include "node-agent/agent/mounter_link.h"

#include <sys/socket.h>

#include <utility>

#include "node-agent/base/log.h"
#include "node-agent/base/status_macros.h"

namespace dfscsi::agent {

using runtime::Deadline;
using runtime::Task;

namespace {
constexpr absl::Duration kConnectAgainAfter = absl::Milliseconds(50);
}  // namespace

MounterLink::MounterLink(runtime::RealLoop& loop, std::string socket_dir, Receiver& receiver)
    : loop_(loop), socket_dir_(std::move(socket_dir)), receiver_(receiver) {}

Task<void> MounterLink::Run() {
  bool complained = false;
  while (!closed_) {
    absl::StatusOr<state::MessageSocket> socket = state::MessageSocket::Connect(socket_dir_);
    if (!socket.ok()) {
      if (!std::exchange(complained, true)) {
        LogWarning("waiting for the mounter: ", socket.status().message());
      }
      // There is no event for "somebody listens now".
      (void)co_await runtime::Sleep(kConnectAgainAfter, Deadline::Never());
      continue;
    }
    complained = false;
    auto connection = std::make_shared<Connection>();
    connection->socket = *std::move(socket);
    connection->watch = loop_.Watch(connection->socket.fd());
    connection_ = connection;
    Send(receiver_.OnConnected());
    const absl::Status status = co_await ReceiveAll(connection);
    if (closed_) co_return;
    LogWarning("lost the mounter: ", status.message());
    Lose();
    (void)co_await runtime::Sleep(kConnectAgainAfter, Deadline::Never());
  }
}

Task<absl::Status> MounterLink::ReceiveAll(std::shared_ptr<Connection> connection) {
  while (connection == connection_) {
    absl::StatusOr<std::optional<state::Envelope>> received = connection->socket.Receive();
    if (!received.ok()) co_return received.status();
    if (!received->has_value()) {
      // Ends with the connection.
      CO_RETURN_IF_ERROR(co_await connection->watch->WaitReadable(Deadline::Never()));
      continue;
    }
    state::Envelope& envelope = **received;
    CO_RETURN_IF_ERROR(receiver_.OnMessage(envelope));
    const auto pending = pending_.find(envelope.request_id);
    if (pending == pending_.end()) continue;
    pending->second->answer = std::move(envelope.message);
    pending->second->answered.Set();
    pending_.erase(pending);
  }
  co_return absl::CancelledError("closed");
}

pid_t MounterLink::mounter_pid() const {
  ucred peer = {};
  socklen_t size = sizeof(peer);
  if (connection_ == nullptr ||
      getsockopt(connection_->socket.fd(), SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) {
    return 0;
  }
  return peer.pid;
}

void MounterLink::Send(const state::Message& message, absl::Span<const int> fds) {
  if (connection_ == nullptr) return;
  // An error shows itself at the reading end, too.
  connection_->socket.Send(message, 0, fds).IgnoreError();
  if (connection_->socket.wants_write() && !std::exchange(connection_->writing, true)) {
    tasks_.Spawn(WriteRest(connection_));
  }
}

Task<void> MounterLink::WriteRest(std::shared_ptr<Connection> connection) {
  while (connection == connection_ && connection->socket.wants_write()) {
    if (!(co_await connection->watch->WaitWritable(Deadline::Never())).ok()) break;
    if (!connection->socket.Flush().ok()) break;
  }
  connection->writing = false;
}

Task<absl::StatusOr<state::Message>> MounterLink::Request(state::Message message,
                                                          Deadline deadline) {
  if (connection_ == nullptr) co_return absl::UnavailableError("the mounter is not connected");
  const uint64_t id = ++last_request_;
  const auto pending = std::make_shared<Pending>();
  pending_[id] = pending;
  connection_->socket.Send(message, id).IgnoreError();
  if (connection_->socket.wants_write() && !std::exchange(connection_->writing, true)) {
    tasks_.Spawn(WriteRest(connection_));
  }
  const absl::Status status = co_await pending->answered.WaitUntilSet(deadline);
  pending_.erase(id);
  // One that has come counts, also if nobody waits any more: Receiver::OnMessage has acted on it.
  if (!status.ok() && !pending->answer.has_value()) co_return status;
  if (!pending->answer.has_value()) co_return absl::UnavailableError("the mounter is gone");
  co_return *std::move(pending->answer);
}

void MounterLink::Lose() {
  HangUp();
  for (auto& [id, pending] : std::exchange(pending_, {})) pending->answered.Set();
  receiver_.OnLost();
}

// A coroutine may hold the connection for a moment longer; the mounter is told now.
void MounterLink::HangUp() {
  if (connection_ != nullptr) shutdown(connection_->socket.fd(), SHUT_RDWR);
  connection_.reset();
}

void MounterLink::Close() {
  closed_ = true;
  HangUp();
  for (auto& [id, pending] : std::exchange(pending_, {})) pending->answered.Set();
}

}  // namespace dfscsi::agent
