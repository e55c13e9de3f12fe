// Sockets and names of the real loop. Private to runtime/.

#ifndef NODE_AGENT_RUNTIME_REAL_NETWORK_H_
#define NODE_AGENT_RUNTIME_REAL_NETWORK_H_

#include <memory>

#include "node-agent/runtime/network.h"

namespace dfscsi::runtime {

class RealLoop;

std::unique_ptr<Network> MakeRealNetwork(RealLoop& loop);

}  // namespace dfscsi::runtime

#endif  // NODE_AGENT_RUNTIME_REAL_NETWORK_H_
