#include "node-agent/runtime/real_network.h"

#include <errno.h>
#include <ifaddrs.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "node-agent/base/status_macros.h"
#include "node-agent/base/unique_fd.h"
#include "node-agent/runtime/dns.h"
#include "node-agent/runtime/real_loop.h"

namespace dfscsi::runtime {
namespace {

socklen_t ToSockaddr(const SocketAddress& from, sockaddr_storage& to) {
  memset(&to, 0, sizeof to);
  if (from.address.is_v4()) {
    auto& v4 = reinterpret_cast<sockaddr_in&>(to);
    v4.sin_family = AF_INET;
    v4.sin_port = htons(from.port);
    memcpy(&v4.sin_addr, from.address.bytes().data(), sizeof v4.sin_addr);
    return sizeof v4;
  }
  auto& v6 = reinterpret_cast<sockaddr_in6&>(to);
  v6.sin6_family = AF_INET6;
  v6.sin6_port = htons(from.port);
  memcpy(&v6.sin6_addr, from.address.bytes().data(), sizeof v6.sin6_addr);
  return sizeof v6;
}

SocketAddress FromSockaddr(const sockaddr_storage& from) {
  SocketAddress to;
  if (from.ss_family == AF_INET) {
    const auto& v4 = reinterpret_cast<const sockaddr_in&>(from);
    std::array<uint8_t, 4> bytes;
    memcpy(bytes.data(), &v4.sin_addr, bytes.size());
    to.address = IpAddress::V4(bytes);
    to.port = ntohs(v4.sin_port);
  } else if (from.ss_family == AF_INET6) {
    const auto& v6 = reinterpret_cast<const sockaddr_in6&>(from);
    std::array<uint8_t, 16> bytes;
    memcpy(bytes.data(), &v6.sin6_addr, bytes.size());
    to.address = IpAddress::V6(bytes);
    to.port = ntohs(v6.sin6_port);
  }
  return to;
}

absl::Status SocketError(int error) {
  return absl::UnavailableError(strerrordesc_np(error) != nullptr ? strerrordesc_np(error)
                                                                  : "socket error");
}

class RealStream final : public Stream {
 public:
  RealStream(RealLoop& loop, UniqueFd fd, SocketAddress peer)
      : fd_(std::move(fd)), watch_(loop.Watch(fd_.get())), peer_(peer) {}

  Progress TryRead(absl::Span<const iovec> into) override {
    msghdr message{};
    message.msg_iov = const_cast<iovec*>(into.data());
    message.msg_iovlen = into.size();
    return Moved(recvmsg(fd_.get(), &message, MSG_DONTWAIT));
  }
  Progress TryWrite(absl::Span<const iovec> from) override {
    msghdr message{};
    message.msg_iov = const_cast<iovec*>(from.data());
    message.msg_iovlen = from.size();
    return Moved(sendmsg(fd_.get(), &message, MSG_DONTWAIT | MSG_NOSIGNAL));
  }
  Task<absl::Status> WaitReadable(Deadline deadline) override {
    return watch_->WaitReadable(std::move(deadline));
  }
  Task<absl::Status> WaitWritable(Deadline deadline) override {
    return watch_->WaitWritable(std::move(deadline));
  }

  TcpProgress progress() override {
    TcpProgress progress;
    tcp_info info{};
    socklen_t size = sizeof info;
    if (getsockopt(fd_.get(), IPPROTO_TCP, TCP_INFO, &info, &size) == 0) {
      progress.retransmits = info.tcpi_retransmits;
      progress.data_segments_in = info.tcpi_data_segs_in;
      progress.since_last_receive =
          absl::Milliseconds(std::min(info.tcpi_last_data_recv, info.tcpi_last_ack_recv));
    }
    int queued = 0;
    if (ioctl(fd_.get(), SIOCOUTQ, &queued) == 0) progress.unacked_bytes = queued;
    return progress;
  }
  SocketAddress peer() const override { return peer_; }
  void ResetOnClose() override {
    const linger at_once{.l_onoff = 1, .l_linger = 0};
    setsockopt(fd_.get(), SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
  }

 private:
  static Progress Moved(ssize_t n) {
    if (n >= 0) return std::optional<size_t>(static_cast<size_t>(n));
    if (errno == EAGAIN || errno == EINTR) return std::optional<size_t>();
    return SocketError(errno);
  }

  UniqueFd fd_;
  std::unique_ptr<FdWatch> watch_;  // Dies before the descriptor closes.
  SocketAddress peer_;
};

absl::StatusOr<UniqueFd> MakeSocket(const IpAddress& address) {
  UniqueFd fd(socket(address.is_v4() ? AF_INET : AF_INET6,
                     SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_TCP));
  if (!fd) return SocketError(errno);
  return fd;
}

void SetNoDelay(int fd) {
  const int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

class RealListener final : public Listener {
 public:
  RealListener(RealLoop& loop, UniqueFd fd, SocketAddress local)
      : loop_(loop), fd_(std::move(fd)), watch_(loop.Watch(fd_.get())), local_(local) {}

  Task<absl::StatusOr<std::unique_ptr<Stream>>> Accept(Deadline deadline) override {
    while (true) {
      sockaddr_storage from{};
      socklen_t size = sizeof from;
      UniqueFd fd(accept4(fd_.get(), reinterpret_cast<sockaddr*>(&from), &size,
                          SOCK_NONBLOCK | SOCK_CLOEXEC));
      if (fd) {
        SetNoDelay(fd.get());
        co_return std::make_unique<RealStream>(loop_, std::move(fd), FromSockaddr(from));
      }
      if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED) co_return SocketError(errno);
      CO_RETURN_IF_ERROR(co_await watch_->WaitReadable(deadline));
    }
  }
  SocketAddress local() const override { return local_; }

 private:
  RealLoop& loop_;
  UniqueFd fd_;
  std::unique_ptr<FdWatch> watch_;
  SocketAddress local_;
};

class RealNetwork final : public Network {
 public:
  explicit RealNetwork(RealLoop& loop) : loop_(loop), dns_(MakeDns(loop)) {}

  Task<absl::StatusOr<std::unique_ptr<Stream>>> Connect(SocketAddress to,
                                                        Deadline deadline) override {
    CO_ASSIGN_OR_RETURN(UniqueFd fd, MakeSocket(to.address));
    SetNoDelay(fd.get());
    sockaddr_storage sockaddr_to;
    const socklen_t size = ToSockaddr(to, sockaddr_to);
    if (connect(fd.get(), reinterpret_cast<sockaddr*>(&sockaddr_to), size) != 0) {
      if (errno != EINPROGRESS) co_return SocketError(errno);
      std::unique_ptr<FdWatch> watch = loop_.Watch(fd.get());
      CO_RETURN_IF_ERROR(co_await watch->WaitWritable(deadline));
      int error = 0;
      socklen_t error_size = sizeof error;
      getsockopt(fd.get(), SOL_SOCKET, SO_ERROR, &error, &error_size);
      if (error != 0) co_return SocketError(error);
    }
    co_return std::make_unique<RealStream>(loop_, std::move(fd), to);
  }

  absl::StatusOr<std::unique_ptr<Listener>> Listen(SocketAddress on) override {
    ASSIGN_OR_RETURN(UniqueFd fd, MakeSocket(on.address));
    const int yes = 1;
    setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    sockaddr_storage address;
    socklen_t size = ToSockaddr(on, address);
    if (bind(fd.get(), reinterpret_cast<sockaddr*>(&address), size) != 0 ||
        listen(fd.get(), SOMAXCONN) != 0) {
      return SocketError(errno);
    }
    size = sizeof address;
    getsockname(fd.get(), reinterpret_cast<sockaddr*>(&address), &size);
    return std::make_unique<RealListener>(loop_, std::move(fd), FromSockaddr(address));
  }

  Task<absl::StatusOr<std::vector<IpAddress>>> Resolve(std::string name,
                                                       Deadline deadline) override {
    return dns_->Resolve(std::move(name), std::move(deadline));
  }
  Task<absl::StatusOr<std::vector<Service>>> ResolveService(std::string name,
                                                            Deadline deadline) override {
    return dns_->ResolveService(std::move(name), std::move(deadline));
  }

  std::vector<IpAddress> OwnAddresses() override {
    std::vector<IpAddress> own;
    ifaddrs* list = nullptr;
    if (getifaddrs(&list) != 0) return own;
    for (const ifaddrs* one = list; one != nullptr; one = one->ifa_next) {
      if (one->ifa_addr == nullptr) continue;
      const int family = one->ifa_addr->sa_family;
      if (family != AF_INET && family != AF_INET6) continue;
      sockaddr_storage address = {};
      memcpy(&address, one->ifa_addr,
             family == AF_INET ? sizeof(sockaddr_in) : sizeof(sockaddr_in6));
      own.push_back(FromSockaddr(address).address);
    }
    freeifaddrs(list);
    return own;
  }

 private:
  RealLoop& loop_;
  std::unique_ptr<Dns> dns_;
};

}  // namespace

std::unique_ptr<Network> MakeRealNetwork(RealLoop& loop) {
  return std::make_unique<RealNetwork>(loop);
}

}  // namespace dfscsi::runtime
