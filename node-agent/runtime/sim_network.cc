#include "node-agent/runtime/sim_network.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "node-agent/base/status_macros.h"
#include "node-agent/runtime/sim_tcp.h"

namespace dfscsi::runtime {
namespace {

using sim_internal::Connection;
using sim_internal::SimListener;

constexpr absl::Duration kResolverPatience = absl::Seconds(7);

std::string NameKey(absl::string_view name) {
  return absl::AsciiStrToLower(absl::StripSuffix(name, "."));
}

}  // namespace

// What one process sees of the network.
class SimNetwork::Endpoint final : public Network {
 public:
  Endpoint(SimNetwork& network, SimLoop& loop, SimHost& host)
      : network_(network), loop_(loop), host_(host) {}

  Task<absl::StatusOr<std::unique_ptr<Stream>>> Connect(SocketAddress to,
                                                        Deadline deadline) override {
    network_.connect_attempts_.push_back({network_.world_.now(), host_.name(), to});
    const auto source =
        std::find_if(host_.addresses_.begin(), host_.addresses_.end(),
                     [&](const IpAddress& own) { return own.is_v4() == to.address.is_v4(); });
    if (source == host_.addresses_.end()) {
      co_return absl::UnavailableError("Network is unreachable");
    }
    auto connection = std::make_shared<Connection>(network_);
    network_.Remember(connection);
    sim_internal::Socket& end = connection->end(Connection::kConnecting);
    end.host = &host_;
    end.loop = &loop_;
    end.local = {*source, host_.next_port_};
    host_.next_port_ = host_.next_port_ == 65535 ? 32768 : host_.next_port_ + 1;
    end.remote = to;
    end.last_receive = network_.world_.now();
    connection->SendSyn(/*attempt=*/0);
    co_return co_await sim_internal::WaitUntilConnected(std::move(connection), deadline);
  }

  absl::StatusOr<std::unique_ptr<Listener>> Listen(SocketAddress on) override {
    if (on.port == 0) on.port = host_.next_port_++;
    if (!on.address.IsUnspecified() && !host_.Owns(on.address)) {
      return absl::UnavailableError("Cannot assign requested address");
    }
    if (host_.listeners_.contains(on)) return absl::UnavailableError("Address already in use");
    return std::make_unique<SimListener>(loop_, host_, on);
  }

  Task<absl::StatusOr<std::vector<IpAddress>>> Resolve(std::string name,
                                                       Deadline deadline) override {
    if (std::optional<IpAddress> literal = IpAddress::Parse(name)) {
      co_return std::vector<IpAddress>{*literal};
    }
    CO_RETURN_IF_ERROR(co_await AskNameServer(&network_, deadline));
    const auto found = network_.names_.find(NameKey(name));
    if (found == network_.names_.end()) {
      co_return absl::NotFoundError("name look-up: no such name");
    }
    co_return found->second;
  }

  Task<absl::StatusOr<std::vector<Service>>> ResolveService(std::string name,
                                                            Deadline deadline) override {
    CO_RETURN_IF_ERROR(co_await AskNameServer(&network_, deadline));
    const auto found = network_.services_.find(NameKey(name));
    if (found == network_.services_.end()) {
      co_return absl::NotFoundError("name look-up: no such name");
    }
    co_return found->second;
  }

  std::vector<IpAddress> OwnAddresses() override { return host_.addresses(); }

 private:
  static Task<absl::Status> AskNameServer(SimNetwork* network, Deadline deadline) {
    ++network->name_queries_;
    absl::Duration time = network->name_latency_;
    const NameServer state = network->name_server_;
    if (state == NameServer::kSilent) time = kResolverPatience;
    CO_RETURN_IF_ERROR(co_await Sleep(time, deadline));
    if (state == NameServer::kAnswers) co_return absl::OkStatus();
    co_return absl::UnavailableError("name look-up: no name server answered");
  }

  SimNetwork& network_;
  SimLoop& loop_;
  SimHost& host_;
};

// --- Hosts

bool SimHost::Owns(const IpAddress& address) const {
  return std::find(addresses_.begin(), addresses_.end(), address) != addresses_.end();
}

void SimHost::PowerOff() {
  network_.world_.Log(absl::StrCat(name_, ": power off"));
  powered_ = false;
  for (const std::weak_ptr<Connection>& known : network_.connections_) {
    const std::shared_ptr<Connection> connection = known.lock();
    if (connection == nullptr) continue;
    for (const int side : {0, 1}) {
      if (connection->end(side).host == this) connection->Forget(side);
    }
  }
}

// --- The network

SimNetwork::SimNetwork(SimWorld& world, uint64_t seed) : world_(world), random_(seed) {}
SimNetwork::~SimNetwork() = default;

SimHost& SimNetwork::AddHost(std::string name, std::vector<IpAddress> addresses) {
  hosts_.push_back(std::unique_ptr<SimHost>(
      new SimHost(*this, static_cast<int>(hosts_.size()), std::move(name), std::move(addresses))));
  return *hosts_.back();
}

SimHost& SimNetwork::AddNamedHost(std::string name, std::vector<IpAddress> addresses) {
  SetName(name, addresses);
  return AddHost(std::move(name), std::move(addresses));
}

SimHost* SimNetwork::Find(const IpAddress& address) const {
  for (const std::unique_ptr<SimHost>& host : hosts_) {
    if (host->Owns(address)) return host.get();
  }
  return nullptr;
}

SimPath SimNetwork::path(const SimHost& from, const SimHost& to) const {
  const auto own = paths_.find({from.id_, to.id_});
  if (own != paths_.end()) return own->second;
  if (&from == &to) {
    SimPath loopback;
    loopback.latency = absl::Microseconds(15);
    loopback.jitter = absl::Microseconds(5);
    return loopback;
  }
  return default_path_;
}

void SimNetwork::SetPath(const SimHost& from, const SimHost& to, const SimPath& path) {
  paths_[{from.id_, to.id_}] = path;
}

void SimNetwork::SetBothPaths(const SimHost& a, const SimHost& b, const SimPath& path) {
  SetPath(a, b, path);
  SetPath(b, a, path);
}

void SimNetwork::CutOneWay(const SimHost& from, const SimHost& to) {
  world_.Log(absl::StrCat("cut ", from.name(), " > ", to.name()));
  SimPath cut = path(from, to);
  cut.fate = SimPath::Fate::kDropped;
  SetPath(from, to, cut);
}

void SimNetwork::Cut(const SimHost& a, const SimHost& b) {
  CutOneWay(a, b);
  CutOneWay(b, a);
}

void SimNetwork::Heal(const SimHost& a, const SimHost& b) {
  world_.Log(absl::StrCat("heal ", a.name(), " - ", b.name()));
  for (const auto& [from, to] : {std::pair(&a, &b), std::pair(&b, &a)}) {
    SimPath healed = path(*from, *to);
    healed.fate = SimPath::Fate::kDelivered;
    SetPath(*from, *to, healed);
  }
}

void SimNetwork::ResetConnections(const SimHost& a, const SimHost& b) {
  world_.Log(absl::StrCat("reset ", a.name(), " - ", b.name()));
  // Resetting may make and drop connections' last references; look at a copy.
  const std::vector<std::weak_ptr<Connection>> known = connections_;
  for (const std::weak_ptr<Connection>& weak : known) {
    const std::shared_ptr<Connection> connection = weak.lock();
    if (connection == nullptr) continue;
    const SimHost* const first = connection->end(0).host;
    const SimHost* const second = connection->end(1).host;
    if ((first == &a && second == &b) || (first == &b && second == &a)) {
      connection->ResetBothEnds();
    }
  }
}

void SimNetwork::Send(const SimHost& from, const IpAddress& source, const IpAddress& to,
                      size_t bytes, absl::Time* last_arrival,
                      std::function<void(SimHost&)> arrive) {
  if (!from.reachable() || !from.Owns(source)) return;
  SimHost* const destination = Find(to);
  if (destination == nullptr) return;
  const SimPath path_now = path(from, *destination);
  if (path_now.fate != SimPath::Fate::kDelivered) return;
  if (path_now.loss > 0 && random_.Chance(path_now.loss)) return;
  absl::Time& busy_until = busy_until_[{from.id_, destination->id_}];
  busy_until = std::max(busy_until, world_.now()) +
               absl::Seconds(static_cast<double>(bytes) / path_now.bytes_per_second);
  absl::Time when =
      busy_until + path_now.latency + random_.Between(absl::ZeroDuration(), path_now.jitter);
  if (last_arrival != nullptr) *last_arrival = when = std::max(when, *last_arrival);
  world_.At(when, [this, &from, destination, to, arrive = std::move(arrive)] {
    // The path may have been cut while the segment was on it.
    if (!destination->reachable() || !destination->Owns(to)) return;
    if (path(from, *destination).fate != SimPath::Fate::kDelivered) return;
    arrive(*destination);
  });
}

void SimNetwork::Remember(const std::shared_ptr<Connection>& connection) {
  if (connections_.size() >= prune_at_) {
    std::erase_if(connections_, [](const auto& known) { return known.expired(); });
    prune_at_ = std::max<size_t>(64, 2 * connections_.size());
  }
  connections_.push_back(connection);
}

std::unique_ptr<Network> SimNetwork::Attach(SimLoop& loop, SimHost& host) {
  return std::make_unique<Endpoint>(*this, loop, host);
}

void SimNetwork::Detach(SimLoop& loop) {
  std::map<SocketAddress, SimListener*> listeners = loop.host().listeners_;
  for (const auto& [address, listener] : listeners) {
    if (listener->loop() == &loop) listener->Close();
  }
  const std::vector<std::weak_ptr<Connection>> known = connections_;
  for (const std::weak_ptr<Connection>& weak : known) {
    const std::shared_ptr<Connection> connection = weak.lock();
    if (connection == nullptr) continue;
    for (const int side : {0, 1}) {
      if (connection->end(side).loop == &loop) connection->Close(side);
    }
  }
}

int64_t SimNetwork::open_connections() const {
  return std::count_if(connections_.begin(), connections_.end(), [](const auto& known) {
    const std::shared_ptr<Connection> connection = known.lock();
    return connection != nullptr && connection->in_use();
  });
}

bool SimNetwork::HasNotHeardAll(const SimHost& host) const {
  return std::any_of(connections_.begin(), connections_.end(), [&host](const auto& known) {
    const std::shared_ptr<Connection> connection = known.lock();
    if (connection == nullptr) return false;
    const sim_internal::Socket& ours = connection->end(Connection::kAccepting);
    const sim_internal::Socket& theirs = connection->end(Connection::kConnecting);
    return ours.host == &host && !ours.closed && (theirs.closed || theirs.unacked < theirs.end());
  });
}

void SimNetwork::SetName(absl::string_view name, std::vector<IpAddress> addresses) {
  names_[NameKey(name)] = std::move(addresses);
}
void SimNetwork::RemoveName(absl::string_view name) { names_.erase(NameKey(name)); }
void SimNetwork::SetService(absl::string_view name, std::vector<Network::Service> services) {
  services_[NameKey(name)] = std::move(services);
}

}  // namespace dfscsi::runtime
