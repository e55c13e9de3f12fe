#include "node-agent/dfsctl/password_ticket.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "node-agent/agent/credential_socket_protocol.h"
#include "node-agent/agent/failure.h"

namespace dfscsi::dfsctl {

absl::StatusOr<PasswordTicket> GivePassword(const std::string& socket_dir, const Secret& password,
                                            absl::Time deadline) {
  const std::string path = absl::StrCat(socket_dir, agent::kCredentialSocketName);
  const std::string_view bytes = password.Expose();
  sockaddr_un address = {.sun_family = AF_UNIX};
  if (path.size() >= sizeof(address.sun_path)) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": too long for a socket"));
  }
  if (bytes.size() > agent::kMostSecretBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("the password is longer than ", agent::kMostSecretBytes, " bytes"));
  }
  memcpy(address.sun_path, path.data(), path.size());
  Secret message = Secret::WithRoom(1 + bytes.size());
  message.data()[0] = agent::kPasswordFollows;
  std::copy(bytes.begin(), bytes.end(), message.data() + 1);

  PasswordTicket given;
  given.connection.reset(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  const absl::Duration left = std::max(deadline - absl::Now(), absl::Milliseconds(1));
  const timeval patience = absl::ToTimeval(left);
  const int fd = given.connection.get();
  given.ticket.resize(agent::kTicketBytes);
  ssize_t answered = -1;
  if (fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)) == 0 &&
      setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience)) == 0 &&
      connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0 &&
      send(fd, message.data(), message.Expose().size(), MSG_NOSIGNAL) >= 0) {
    answered = recv(fd, given.ticket.data(), given.ticket.size(), 0);
  }
  if (answered != static_cast<ssize_t>(given.ticket.size())) {
    const char* const why = answered < 0 ? strerror(errno) : "the agent hung up";
    return agent::WithReason(absl::UnavailableError(absl::StrCat(path, ": ", why)),
                             agent::v1::SYSTEM);
  }
  return given;
}

}  // namespace dfscsi::dfsctl
