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

std::unique_ptr<Dns> MakeDns(RealLoop& loop);

}  // namespace dfscsi::runtime

#endif  // NODE_AGENT_RUNTIME_DNS_H_
