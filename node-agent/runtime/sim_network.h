// The simulated network: hosts, the paths between them, their TCP, and the name table.
//
// TCP is modelled per segment: acknowledgements, windows, retransmission with back-off, FIN, RST,
// the handshake. It belongs to the host's kernel: it goes on while a process is frozen, and needs a
// living host and path. What a test may do to it:
//
//   loss, latency, bandwidth     SetPath
//   cut, half-open               Cut, CutOneWay (nothing arrives, nobody is told), Heal
//   firewall with reset          SetPath with Fate::kReset
//   RST on what is connected     ResetConnections
//   a switch port, a cable       SimHost::SetLinkUp
//   power failure                SimHost::PowerOff, then destroy its SimLoops
//   kill -9                      destroy the SimLoop
//   hang                         SimLoop::Freeze
//   another address              SimHost::SetAddresses

#ifndef NODE_AGENT_RUNTIME_SIM_NETWORK_H_
#define NODE_AGENT_RUNTIME_SIM_NETWORK_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "node-agent/runtime/network.h"
#include "node-agent/runtime/sim_world.h"

namespace dfscsi::runtime {

namespace sim_internal {
class Connection;
class SimListener;
}  // namespace sim_internal

// One direction between two hosts.
struct SimPath {
  enum class Fate {
    kDelivered,
    kDropped,      // Silently.
    kReset,        // A firewall answers with RST.
    kUnreachable,  // A router answers with ICMP: ends connecting, not what is connected.
  };
  absl::Duration latency = absl::Microseconds(100);
  absl::Duration jitter = absl::Microseconds(20);
  double bytes_per_second = 1.25e9;
  double loss = 0;  // Of a segment: 0 to 1.
  Fate fate = Fate::kDelivered;
};

class SimHost {
 public:
  const std::string& name() const { return name_; }
  const std::vector<IpAddress>& addresses() const { return addresses_; }

  // Connections of an address that goes away hang: nothing for them arrives any more. The name
  // table is another matter (SimNetwork::SetName).
  void SetAddresses(std::vector<IpAddress> addresses) { addresses_ = std::move(addresses); }
  void SetLinkUp(bool up) { link_up_ = up; }
  bool link_up() const { return link_up_; }
  // Everything that its kernel knew of connections is gone, silently. Destroy its SimLoops next.
  void PowerOff();
  void PowerOn() { powered_ = true; }

 private:
  friend class SimNetwork;
  friend class sim_internal::Connection;
  friend class sim_internal::SimListener;

  SimHost(SimNetwork& network, int id, std::string name, std::vector<IpAddress> addresses)
      : network_(network), id_(id), name_(std::move(name)), addresses_(std::move(addresses)) {}

  bool reachable() const { return link_up_ && powered_; }
  bool Owns(const IpAddress& address) const;

  SimNetwork& network_;
  const int id_;
  const std::string name_;
  std::vector<IpAddress> addresses_;
  bool link_up_ = true;
  bool powered_ = true;
  uint16_t next_port_ = 32768;
  std::map<SocketAddress, sim_internal::SimListener*> listeners_;
};

class SimNetwork {
 public:
  SimNetwork(SimWorld& world, uint64_t seed);
  ~SimNetwork();

  SimHost& AddHost(std::string name, std::vector<IpAddress> addresses);
  // One that the name table knows by its own name.
  SimHost& AddNamedHost(std::string name, std::vector<IpAddress> addresses);

  // For all pairs that have no path of their own.
  void set_default_path(const SimPath& path) { default_path_ = path; }
  void SetPath(const SimHost& from, const SimHost& to, const SimPath& path);
  void SetBothPaths(const SimHost& a, const SimHost& b, const SimPath& path);
  SimPath path(const SimHost& from, const SimHost& to) const;
  void CutOneWay(const SimHost& from, const SimHost& to);
  void Cut(const SimHost& a, const SimHost& b);
  void Heal(const SimHost& a, const SimHost& b);
  // Both ends of every connection between the two see a reset now.
  void ResetConnections(const SimHost& a, const SimHost& b);

  // What happens to a SYN for an address that no host has: nothing (the default), or
  // "unreachable" after `after`.
  void set_unknown_addresses_unreachable(absl::Duration after) { unknown_unreachable_ = after; }

  // Names, compared without case and without a final dot.
  void SetName(absl::string_view name, std::vector<IpAddress> addresses);
  void RemoveName(absl::string_view name);
  void SetService(absl::string_view name, std::vector<Network::Service> services);
  enum class NameServer {
    kAnswers,
    kSilent,  // kUnavailable when the resolver gives up, after 7 s.
    kFails,   // kUnavailable at once.
  };
  void set_name_server(NameServer state) { name_server_ = state; }
  void set_name_server_latency(absl::Duration latency) { name_latency_ = latency; }

  // Framing code must not depend on where reads and writes are cut. The chance that a read or write
  // moves fewer bytes than it could, and that a wait ends for nothing is a tenth of it.
  void set_fragmentation(double chance) { fragmentation_ = chance; }

  // What was asked of the network so far.
  struct ConnectAttempt {
    absl::Time when;
    std::string from;  // Host.
    SocketAddress to;
  };
  const std::vector<ConnectAttempt>& connect_attempts() const { return connect_attempts_; }
  int64_t name_queries() const { return name_queries_; }
  // Connections that either end still holds.
  int64_t open_connections() const;
  // `host` has accepted a connection on which the other end has written or closed what did not
  // arrive yet (each time it is sent again takes twice as long) or never will (an RST that was
  // lost).
  bool HasNotHeardAll(const SimHost& host) const;

 private:
  friend class SimHost;
  friend class SimLoop;
  friend class sim_internal::Connection;
  friend class sim_internal::SimListener;
  class Endpoint;

  std::unique_ptr<Network> Attach(SimLoop& loop, SimHost& host);
  // The process is gone: its kernel closes what it left open.
  void Detach(SimLoop& loop);

  SimHost* Find(const IpAddress& address) const;
  // Sends one segment: `arrive` runs at the other host, if the segment gets there and that host
  // still has the address `to`. `busy_until` and `last_arrival` keep the order within a stream;
  // null for segments outside of it.
  void Send(const SimHost& from, const IpAddress& source, const IpAddress& to, size_t bytes,
            absl::Time* last_arrival, std::function<void(SimHost&)> arrive);
  void Remember(const std::shared_ptr<sim_internal::Connection>& connection);

  SimWorld& world_;
  SimRandom random_;
  SimPath default_path_;
  std::vector<std::unique_ptr<SimHost>> hosts_;
  std::map<std::pair<int, int>, SimPath> paths_;
  std::map<std::pair<int, int>, absl::Time> busy_until_;
  std::vector<std::weak_ptr<sim_internal::Connection>> connections_;
  size_t prune_at_ = 64;
  absl::Duration unknown_unreachable_ = absl::InfiniteDuration();
  std::map<std::string, std::vector<IpAddress>> names_;
  std::map<std::string, std::vector<Network::Service>> services_;
  NameServer name_server_ = NameServer::kAnswers;
  absl::Duration name_latency_ = absl::Milliseconds(1);
  double fragmentation_ = 0.2;
  std::vector<ConnectAttempt> connect_attempts_;
  int64_t name_queries_ = 0;
};

}  // namespace dfscsi::runtime

#endif  // NODE_AGENT_RUNTIME_SIM_NETWORK_H_
