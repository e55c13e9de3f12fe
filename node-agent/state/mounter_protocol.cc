#include "node-agent/state/mounter_protocol.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <type_traits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "node-agent/base/status_macros.h"

namespace dfscsi::state {
namespace {

constexpr uint32_t kMagic = 0x4d534644;  // "DFSM"
constexpr size_t kHeaderBytes = 20;      // magic, version, type, length, request id
constexpr size_t kMaxStringBytes = kMaxConfigBytes;

class Writer {
 public:
  template <typename... Ts>
  void operator()(const Ts&... fields) {
    (Put(fields), ...);
  }
  void Put(const std::string& text) {
    Put(static_cast<uint32_t>(text.size()));
    bytes_ += text;
  }
  template <typename T>
    requires(std::is_integral_v<T> || std::is_enum_v<T>)
  void Put(T value) {
    const uint64_t bits = static_cast<uint64_t>(value);
    for (size_t i = 0; i < sizeof(T); ++i) bytes_ += static_cast<char>(bits >> (8 * i));
  }
  std::string& bytes() { return bytes_; }

 private:
  std::string bytes_;
};

// Fields behind the end of the packet keep their defaults; half a field is an error.
class Reader {
 public:
  explicit Reader(std::string_view rest) : rest_(rest) {}

  template <typename... Ts>
  void operator()(Ts&... fields) {
    (Get(fields), ...);
  }
  void Get(std::string& text) {
    if (rest_.empty()) return;
    uint32_t length = 0;
    Get(length);
    if (length > kMaxStringBytes || length > rest_.size()) ok_ = false;
    if (!ok_) return;
    text.assign(rest_.substr(0, length));
    rest_.remove_prefix(length);
  }
  template <typename T>
    requires(std::is_integral_v<T> || std::is_enum_v<T>)
  void Get(T& value) {
    if (rest_.empty() || !ok_) return;
    if (rest_.size() < sizeof(T)) {
      ok_ = false;
      return;
    }
    uint64_t bits = 0;
    for (size_t i = 0; i < sizeof(T); ++i) {
      bits |= static_cast<uint64_t>(static_cast<unsigned char>(rest_[i])) << (8 * i);
    }
    rest_.remove_prefix(sizeof(T));
    if constexpr (std::is_same_v<T, bool>) {
      value = bits != 0;
    } else {
      value = static_cast<T>(bits);
    }
  }
  bool ok() const { return ok_; }

 private:
  std::string_view rest_;
  bool ok_ = true;
};

// The message of type number `type`, default-made; false: there is none.
template <size_t I = 0>
bool MakeMessage(size_t type, Message* message) {
  if constexpr (I == std::variant_size_v<Message>) {
    return false;
  } else {
    if (type != I) return MakeMessage<I + 1>(type, message);
    message->emplace<I>();
    return true;
  }
}

std::string SocketPath(const std::string& socket_dir) {
  return socket_dir + "/" + std::string(kMounterSocketName);
}

absl::StatusOr<sockaddr_un> AddressOf(const std::string& path) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof(address.sun_path)) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": too long for a socket's name"));
  }
  memcpy(address.sun_path, path.data(), path.size());
  return address;
}

absl::Status HungUp() { return absl::UnavailableError("the peer hung up"); }

}  // namespace

std::string_view MessageName(const Message& message) {
  static constexpr std::array<std::string_view, std::variant_size_v<Message>> kNames = {
      "Hello",       "Draining",     "Mount",       "Unmount",   "GrowArena",  "ReturnStep",
      "ReportGone",  "List",         "Status",      "Welcome",   "MountEntry", "ListEnd",
      "Activate",    "StepGranted",  "StepRevoked", "MountGone", "Done",       "Error",
      "StatusReply", "EscrowWanted", "EscrowNode",  "EscrowEnd"};
  return kNames[message.index()];
}

std::string EncodeMessage(const Message& message, uint64_t request_id) {
  Writer fields;
  std::visit(
      [&](const auto& m) {
        // Fields() is written once for both directions; the writer changes nothing.
        const_cast<std::remove_const_t<std::remove_reference_t<decltype(m)>>&>(m).Fields(fields);
      },
      message);
  Writer packet;
  packet(kMagic, kMounterProtocolVersion, static_cast<uint16_t>(message.index()),
         static_cast<uint32_t>(fields.bytes().size()), request_id);
  return std::move(packet.bytes()) + fields.bytes();
}

absl::StatusOr<Envelope> DecodeMessage(std::string_view packet) {
  if (packet.size() < kHeaderBytes) return absl::InvalidArgumentError("message: too short");
  uint32_t magic = 0, length = 0;
  uint16_t version = 0, type = 0;
  Envelope envelope;
  Reader header(packet.substr(0, kHeaderBytes));
  header(magic, version, type, length, envelope.request_id);
  if (magic != kMagic) return absl::InvalidArgumentError("message: not of this protocol");
  if (version != kMounterProtocolVersion) {
    return absl::InvalidArgumentError(absl::StrCat(
        "message: protocol version ", version, ", this program speaks ", kMounterProtocolVersion));
  }
  if (length != packet.size() - kHeaderBytes) {
    return absl::InvalidArgumentError("message: wrong length");
  }
  if (!MakeMessage(type, &envelope.message)) {
    return absl::InvalidArgumentError(absl::StrCat("message: unknown type ", type));
  }
  Reader fields(packet.substr(kHeaderBytes));
  std::visit([&](auto& m) { m.Fields(fields); }, envelope.message);
  if (!fields.ok()) {
    return absl::InvalidArgumentError(std::string(MessageName(envelope.message)) + ": malformed");
  }
  return envelope;
}

absl::StatusOr<MessageSocket> MessageSocket::Connect(const std::string& socket_dir) {
  const std::string path = SocketPath(socket_dir);
  ASSIGN_OR_RETURN(const sockaddr_un address, AddressOf(path));
  UniqueFd fd(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!fd) return absl::ErrnoToStatus(errno, "socket");
  if (connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    if (errno == ENOENT || errno == ECONNREFUSED || errno == EAGAIN) {
      return absl::UnavailableError(absl::StrCat(path, ": no mounter listens there"));
    }
    return absl::ErrnoToStatus(errno, path);
  }
  return MessageSocket(std::move(fd));
}

absl::StatusOr<MessageListener> MessageListener::Listen(const std::string& socket_dir,
                                                        std::optional<gid_t> group) {
  if (mkdir(socket_dir.c_str(), 0750) != 0 && errno != EEXIST) {
    return absl::ErrnoToStatus(errno, socket_dir);
  }
  const std::string path = SocketPath(socket_dir);
  const std::string fresh = path + ".new";
  ASSIGN_OR_RETURN(const sockaddr_un address, AddressOf(fresh));
  unlink(fresh.c_str());
  MessageListener listener;
  listener.fd_.reset(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  constexpr uid_t kSameOwner = static_cast<uid_t>(-1);
  if (bind(listener.fd(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0 ||
      chmod(fresh.c_str(), 0660) != 0 || listen(listener.fd(), /*backlog=*/64) != 0 ||
      (group && (chown(socket_dir.c_str(), kSameOwner, *group) != 0 ||
                 chown(fresh.c_str(), kSameOwner, *group) != 0)) ||
      rename(fresh.c_str(), path.c_str()) != 0) {
    return absl::ErrnoToStatus(errno, path);
  }
  listener.path_ = path;
  return listener;
}

MessageListener::~MessageListener() {
  if (!path_.empty()) unlink(path_.c_str());
}

std::optional<MessageListener::Accepted> MessageListener::Accept() {
  UniqueFd fd(accept4(fd_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
  if (!fd) return std::nullopt;
  Accepted accepted;
  ucred who = {};
  socklen_t length = sizeof(who);
  if (getsockopt(fd.get(), SOL_SOCKET, SO_PEERCRED, &who, &length) != 0) return std::nullopt;
  accepted.pid = who.pid;
  accepted.uid = who.uid;
  constexpr int kSoPeerPidfd =
      77;  // SO_PEERPIDFD, Linux 6.5: no race with a pid that is used again.
  int pidfd = -1;
  length = sizeof(pidfd);
  if (getsockopt(fd.get(), SOL_SOCKET, kSoPeerPidfd, &pidfd, &length) != 0) {
    pidfd = static_cast<int>(syscall(SYS_pidfd_open, who.pid, 0));
  }
  accepted.pidfd.reset(pidfd);
  accepted.socket = MessageSocket(std::move(fd));
  return accepted;
}

absl::StatusOr<bool> MessageSocket::SendPacket(std::string_view bytes, absl::Span<const int> fds) {
  iovec io = {const_cast<char*>(bytes.data()), bytes.size()};
  msghdr message = {};
  message.msg_iov = &io;
  message.msg_iovlen = 1;
  alignas(cmsghdr) char control[CMSG_SPACE(kMaxFdsPerMessage * sizeof(int))] = {};
  if (!fds.empty()) {
    message.msg_control = control;
    message.msg_controllen = CMSG_SPACE(fds.size() * sizeof(int));
    cmsghdr* const header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(fds.size() * sizeof(int));
    memcpy(CMSG_DATA(header), fds.data(), fds.size() * sizeof(int));
  }
  for (;;) {
    if (sendmsg(fd_.get(), &message, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0) return true;
    switch (errno) {
      case EINTR:
        continue;
      case EAGAIN:
      case ETOOMANYREFS:  // Fds of this user wait in sockets that nobody reads.
        return false;
      case EPIPE:
      case ECONNRESET:
      case ENOTCONN:
        return HungUp();
      default:
        return absl::ErrnoToStatus(errno, "sendmsg");
    }
  }
}

absl::Status MessageSocket::Send(const Message& message, uint64_t request_id,
                                 absl::Span<const int> fds) {
  if (!fd_) return HungUp();
  std::string bytes = EncodeMessage(message, request_id);
  if (bytes.size() > kMaxMessageBytes || fds.size() > size_t{kMaxFdsPerMessage}) {
    return absl::InvalidArgumentError(std::string(MessageName(message)) + ": too long to be sent");
  }
  if (queue_.empty()) {
    ASSIGN_OR_RETURN(const bool sent, SendPacket(bytes, fds));
    if (sent) return absl::OkStatus();
  }
  if (queue_.size() >= kMaxQueuedMessages) {
    return absl::ResourceExhaustedError("the peer does not read");
  }
  Packet packet = {std::move(bytes), {}};
  for (const int fd : fds) {
    packet.fds.emplace_back(fcntl(fd, F_DUPFD_CLOEXEC, 0));
    if (!packet.fds.back()) return absl::ErrnoToStatus(errno, "F_DUPFD_CLOEXEC");
  }
  queue_.push_back(std::move(packet));
  return absl::OkStatus();
}

absl::Status MessageSocket::Flush() {
  while (!queue_.empty()) {
    std::vector<int> fds;
    for (const UniqueFd& fd : queue_.front().fds) fds.push_back(fd.get());
    ASSIGN_OR_RETURN(const bool sent, SendPacket(queue_.front().bytes, fds));
    if (!sent) return absl::OkStatus();
    queue_.pop_front();
  }
  return absl::OkStatus();
}

absl::StatusOr<std::optional<Envelope>> MessageSocket::Receive() {
  if (!fd_) return HungUp();
  buffer_.resize(kMaxMessageBytes);
  iovec io = {buffer_.data(), buffer_.size()};
  alignas(cmsghdr) char control[CMSG_SPACE(kMaxFdsPerMessage * sizeof(int))];
  msghdr message = {};
  message.msg_iov = &io;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  ssize_t n;
  do {
    n = recvmsg(fd_.get(), &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  } while (n < 0 && errno == EINTR);
  if (n < 0 && errno == EAGAIN) return std::nullopt;
  if (n <= 0) return HungUp();

  std::vector<UniqueFd> fds;
  for (cmsghdr* c = CMSG_FIRSTHDR(&message); c != nullptr; c = CMSG_NXTHDR(&message, c)) {
    if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
    for (size_t i = 0; CMSG_LEN((i + 1) * sizeof(int)) <= c->cmsg_len; ++i) {
      int fd;
      memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
      fds.emplace_back(fd);
    }
  }
  if (message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) {
    // MSG_CTRUNC also when this process is at its limit of open files.
    return absl::InvalidArgumentError("message: longer than allowed, or its fds did not fit");
  }
  ASSIGN_OR_RETURN(Envelope envelope,
                   DecodeMessage(std::string_view(buffer_.data(), static_cast<size_t>(n))));
  envelope.fds = std::move(fds);
  return std::optional<Envelope>(std::move(envelope));
}

}  // namespace dfscsi::state
