#include "node-agent/agent/credential_socket.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "node-agent/base/log.h"

namespace dfscsi::agent {

using runtime::Deadline;
using runtime::Task;

namespace {
constexpr absl::Duration kAcceptAgainAfter = absl::Milliseconds(100);
}  // namespace

absl::StatusOr<std::unique_ptr<CredentialSocket>> CredentialSocket::Listen(
    runtime::RealLoop& loop, const std::string& socket_dir) {
  const std::string path = absl::StrCat(socket_dir, kCredentialSocketName);
  // Under a name of its own until it listens; then it takes the place of its predecessor's.
  const std::string temporary = absl::StrCat(path, ".", getpid());
  sockaddr_un address = {.sun_family = AF_UNIX};
  if (temporary.size() >= sizeof(address.sun_path)) {
    return absl::InvalidArgumentError(absl::StrCat(temporary, ": too long for a socket"));
  }
  memcpy(address.sun_path, temporary.data(), temporary.size());
  UniqueFd listener(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  (void)unlink(temporary.c_str());
  if (!listener ||
      bind(listener.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0 ||
      chmod(temporary.c_str(), 0660) != 0 || listen(listener.get(), /*backlog=*/64) != 0 ||
      rename(temporary.c_str(), path.c_str()) != 0) {
    return absl::ErrnoToStatus(errno, path);
  }
  return std::unique_ptr<CredentialSocket>(new CredentialSocket(loop, std::move(listener)));
}

CredentialSocket::CredentialSocket(runtime::RealLoop& loop, UniqueFd listener)
    : loop_(loop), listener_(std::move(listener)), watch_(loop.Watch(listener_.get())) {
  tasks_.Spawn(Accept());
}

std::optional<Secret> CredentialSocket::Take(std::string_view ticket) {
  const auto found = given_.find(ticket);
  if (found == given_.end()) return std::nullopt;
  Secret secret = std::move(found->second);
  given_.erase(found);
  return secret;
}

Task<void> CredentialSocket::Accept() {
  // Ends with its owner.
  while ((co_await watch_->WaitReadable(Deadline::Never())).ok()) {
    const auto connection = std::make_shared<UniqueFd>(
        accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!*connection) {
      // Without a free descriptor the caller stays in the queue, and the socket readable.
      if (errno != EAGAIN) (void)co_await runtime::Sleep(kAcceptAgainAfter, Deadline::Never());
      continue;
    }
    // Those of them that are too many are hung up on, and come again.
    if (tasks_.running() > static_cast<int>(kMostConnections)) continue;
    tasks_.Spawn(Serve(connection));
  }
}

Task<void> CredentialSocket::Serve(std::shared_ptr<UniqueFd> connection) {
  const Deadline deadline = Deadline::After(kConnectionTime);
  const std::unique_ptr<runtime::FdWatch> watch = loop_.Watch(connection->get());
  if (!(co_await watch->WaitReadable(deadline)).ok()) co_return;
  Secret message = Secret::WithRoom(1 + kMostSecretBytes + 1);
  const ssize_t received =
      recv(connection->get(), message.data(), message.Expose().size(), MSG_DONTWAIT);
  if (received < 1 || static_cast<size_t>(received) > 1 + kMostSecretBytes ||
      message.data()[0] != kPasswordFollows) {
    if (received > 0) LogWarning("credential.sock: not a credential");
    co_return;
  }
  message.Truncate(static_cast<size_t>(received));
  std::string ticket(kTicketBytes, '\0');
  if (getrandom(ticket.data(), ticket.size(), 0) != static_cast<ssize_t>(ticket.size())) co_return;
  given_[ticket] = Secret(message.Expose().substr(1));
  message = Secret();
  if (send(connection->get(), ticket.data(), ticket.size(), MSG_NOSIGNAL | MSG_DONTWAIT) ==
      static_cast<ssize_t>(ticket.size())) {
    // Until the caller hangs up.
    (void)co_await watch->WaitReadable(deadline);
  }
  given_.erase(ticket);
}

}  // namespace dfscsi::agent
