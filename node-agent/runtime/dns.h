// Host names by c-ares: asynchronous, with deadlines. Private to runtime/.

#ifndef NODE_AGENT_RUNTIME_DNS_H_
#define NODE_AGENT_RUNTIME_DNS_H_

#include <memory>
#include <string>
#include <vector>

#include "node-agent/runtime/network.h"

namespace dfscsi::runtime {

class RealLoop;

// As documented at Network::Resolve and Network::ResolveService.
class Dns {
 public:
  virtual ~Dns() = default;
  virtual Task<absl::StatusOr<std::vector<IpAddress>>> Resolve(std::string name,
                                                               Deadline deadline) = 0;
  virtual Task<absl::StatusOr<std::vector<Network::Service>>> ResolveService(std::string name,
                                                                             Deadline deadline) = 0;
};

// Where the answers come from; empty: where the system says.
struct DnsSettings {
  std::string resolv_conf = {};  // Path.
  std::string servers = {};      // "127.0.0.1:5300"
};
std::unique_ptr<Dns> MakeDns(RealLoop& loop, DnsSettings settings = {});

}  // namespace dfscsi::runtime

#endif  // NODE_AGENT_RUNTIME_DNS_H_
