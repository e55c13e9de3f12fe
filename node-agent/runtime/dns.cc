#include "node-agent/runtime/dns.h"

#include <ares.h>
#include <arpa/nameser.h>
#include <netdb.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

#include <algorithm>
#include <map>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "node-agent/base/status_macros.h"
#include "node-agent/runtime/real_loop.h"

namespace dfscsi::runtime {
namespace {

// What a query's callback fills in; it may run after its caller has given up.
template <class T>
struct Query {
  absl::StatusOr<std::vector<T>> result = absl::UnknownError("no answer yet");
  Event done;
  void Finish(absl::StatusOr<std::vector<T>> value) {
    result = std::move(value);
    done.Set();
  }
};

// c-ares takes a void*; this owns one reference until the callback runs, which it always does once.
template <class T>
void* Keep(const std::shared_ptr<Query<T>>& query) {
  return new std::shared_ptr<Query<T>>(query);
}
template <class T>
std::shared_ptr<Query<T>> Take(void* kept) {
  std::unique_ptr<std::shared_ptr<Query<T>>> holder(static_cast<std::shared_ptr<Query<T>>*>(kept));
  return *holder;
}

absl::Status DnsError(int error) {
  const std::string text = absl::StrCat("name look-up: ", ares_strerror(error));
  switch (error) {
    case ARES_ENOTFOUND:
    case ARES_ENODATA:
    case ARES_EBADNAME:
    case ARES_ENONAME:
      return absl::NotFoundError(text);
    default:
      return absl::UnavailableError(text);
  }
}

// An error of a look-up says which name it was about.
absl::Status About(const std::string& name, const absl::Status& status) {
  return absl::Status(status.code(), absl::StrCat(name, ": ", std::string(status.message())));
}

void OnAddresses(void* kept, int status, int /*timeouts*/, ares_addrinfo* answer) {
  std::unique_ptr<ares_addrinfo, decltype(&ares_freeaddrinfo)> owned(answer, ares_freeaddrinfo);
  auto query = Take<IpAddress>(kept);
  if (status != ARES_SUCCESS) return query->Finish(DnsError(status));
  std::vector<IpAddress> addresses;
  for (ares_addrinfo_node* at = answer->nodes; at != nullptr; at = at->ai_next) {
    if (at->ai_family == AF_INET) {
      std::array<uint8_t, 4> bytes;
      memcpy(bytes.data(), &reinterpret_cast<sockaddr_in*>(at->ai_addr)->sin_addr, bytes.size());
      addresses.push_back(IpAddress::V4(bytes));
    } else if (at->ai_family == AF_INET6) {
      std::array<uint8_t, 16> bytes;
      memcpy(bytes.data(), &reinterpret_cast<sockaddr_in6*>(at->ai_addr)->sin6_addr, bytes.size());
      addresses.push_back(IpAddress::V6(bytes));
    }
  }
  if (addresses.empty()) return query->Finish(DnsError(ARES_ENODATA));
  query->Finish(std::move(addresses));
}

void OnService(void* kept, int status, int /*timeouts*/, unsigned char* answer, int size) {
  auto query = Take<Network::Service>(kept);
  if (status != ARES_SUCCESS) return query->Finish(DnsError(status));
  ares_srv_reply* parsed = nullptr;
  status = ares_parse_srv_reply(answer, size, &parsed);
  std::unique_ptr<void, decltype(&ares_free_data)> owned(parsed, ares_free_data);
  if (status != ARES_SUCCESS) return query->Finish(DnsError(status));
  std::vector<const ares_srv_reply*> records;
  for (const ares_srv_reply* at = parsed; at != nullptr; at = at->next) records.push_back(at);
  std::sort(records.begin(), records.end(), [](const auto* a, const auto* b) {
    return std::tuple(a->priority, -int{a->weight}) < std::tuple(b->priority, -int{b->weight});
  });
  std::vector<Network::Service> services;
  services.reserve(records.size());
  for (const ares_srv_reply* record : records) services.push_back({record->host, record->port});
  query->Finish(std::move(services));
}

class CaresDns final : public Dns {
 public:
  CaresDns(RealLoop& loop, DnsSettings settings) : loop_(loop) {
    ares_library_init(ARES_LIB_INIT_ALL);
    ares_options options{};
    options.timeout = 1000;  // Milliseconds for the first try of each name server.
    options.tries = 3;
    // A name with a dot is asked as it is before search domains are added: in a pod, where ndots is
    // 5, the host of a referral would otherwise cost five wrong questions.
    options.ndots = 1;
    options.sock_state_cb = [](void* self, ares_socket_t fd, int readable, int writable) {
      static_cast<CaresDns*>(self)->OnSocketState(fd, readable != 0, writable != 0);
    };
    options.sock_state_cb_data = this;
    int given = ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_NDOTS | ARES_OPT_SOCK_STATE_CB;
    if (!settings.resolv_conf.empty()) {
      options.resolvconf_path = settings.resolv_conf.data();
      given |= ARES_OPT_RESOLVCONF;
    }
    if (ares_init_options(&channel_, &options, given) != ARES_SUCCESS) channel_ = nullptr;
    if (channel_ != nullptr && !settings.servers.empty()) {
      ares_set_servers_ports_csv(channel_, settings.servers.c_str());
    }
  }
  ~CaresDns() override {
    if (channel_ != nullptr) ares_destroy(channel_);
    ares_library_cleanup();
  }

  Task<absl::StatusOr<std::vector<IpAddress>>> Resolve(std::string name,
                                                       Deadline deadline) override {
    if (std::optional<IpAddress> literal = IpAddress::Parse(name)) {
      co_return std::vector<IpAddress>{*literal};
    }
    if (channel_ == nullptr) co_return absl::UnavailableError("c-ares did not start");
    auto query = std::make_shared<Query<IpAddress>>();
    ares_addrinfo_hints hints{};
    hints.ai_family = AF_UNSPEC;
    hints.ai_flags = ARES_AI_ENVHOSTS;
    ares_getaddrinfo(channel_, name.c_str(), nullptr, &hints, OnAddresses, Keep(query));
    CO_RETURN_IF_ERROR(co_await Drive(query, deadline));
    if (!query->result.ok()) co_return About(name, query->result.status());
    co_return std::move(query->result);
  }

  Task<absl::StatusOr<std::vector<Network::Service>>> ResolveService(std::string name,
                                                                     Deadline deadline) override {
    if (channel_ == nullptr) co_return absl::UnavailableError("c-ares did not start");
    auto query = std::make_shared<Query<Network::Service>>();
    ares_query(channel_, name.c_str(), ns_c_in, ns_t_srv, OnService, Keep(query));
    CO_RETURN_IF_ERROR(co_await Drive(query, deadline));
    if (!query->result.ok()) co_return About(name, query->result.status());
    co_return std::move(query->result);
  }

 private:
  struct Socket {
    std::unique_ptr<FdWatch> watch;  // Null once c-ares has closed the socket.
    bool read = false;
    bool write = false;
    Condition changed;
  };

  // Waits for one query, giving c-ares its time-outs meanwhile.
  template <class T>
  Task<absl::Status> Drive(std::shared_ptr<Query<T>> query, Deadline deadline) {
    while (!query->done.is_set()) {
      timeval longest{1, 0}, next{};
      ares_timeout(channel_, &longest, &next);
      absl::Status status = co_await query->done.WaitUntilSet(
          deadline.Within(absl::DurationFromTimeval(next) + absl::Milliseconds(1)));
      if (status.ok()) break;
      if (absl::IsCancelled(status) || deadline.when() <= loop_.Now()) co_return status;
      ares_process_fd(channel_, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
    }
    co_return absl::OkStatus();
  }

  void OnSocketState(ares_socket_t fd, bool readable, bool writable) {
    std::shared_ptr<Socket>& socket = sockets_[fd];
    if (!readable && !writable) {
      // c-ares closes the socket next: the reactor must forget it now.
      if (socket != nullptr) {
        socket->watch.reset();
        socket->changed.NotifyAll();
      }
      sockets_.erase(fd);
      return;
    }
    if (socket == nullptr) {
      socket = std::make_shared<Socket>();
      socket->watch = loop_.Watch(fd);
      tasks_.Spawn(Follow(socket, fd, /*for_read=*/true));
      tasks_.Spawn(Follow(socket, fd, /*for_read=*/false));
    }
    socket->read = readable;
    socket->write = writable;
    socket->changed.NotifyAll();
  }

  Task<void> Follow(std::shared_ptr<Socket> socket, ares_socket_t fd, bool for_read) {
    while (socket->watch != nullptr) {
      if (!(for_read ? socket->read : socket->write)) {
        // Ends by the next change of state or with the socket, which c-ares's time-outs close.
        if (!(co_await socket->changed.WaitForNotify(Deadline::Never())).ok()) co_return;
        continue;
      }
      Task<absl::Status> chance = for_read ? socket->watch->WaitReadable(Deadline::Never())
                                           : socket->watch->WaitWritable(Deadline::Never());
      const absl::Status status = co_await chance;
      if (!status.ok() || socket->watch == nullptr) co_return;
      ares_process_fd(channel_, for_read ? fd : ARES_SOCKET_BAD, for_read ? ARES_SOCKET_BAD : fd);
    }
  }

  RealLoop& loop_;
  ares_channel channel_ = nullptr;
  std::map<ares_socket_t, std::shared_ptr<Socket>> sockets_;
  TaskGroup tasks_;
};

}  // namespace

std::unique_ptr<Dns> MakeDns(RealLoop& loop, DnsSettings settings) {
  return std::make_unique<CaresDns>(loop, std::move(settings));
}

}  // namespace dfscsi::runtime
