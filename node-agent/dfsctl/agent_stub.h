// The active agent's service, as a blocking call with a deadline and our statuses.

#ifndef NODE_AGENT_DFSCTL_AGENT_STUB_H_
#define NODE_AGENT_DFSCTL_AGENT_STUB_H_

#include <grpcpp/grpcpp.h>

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "proto/agent.grpc.pb.h"
#include "proto/agent.pb.h"

namespace dfscsi::dfsctl {

class AgentStub {
 public:
  explicit AgentStub(const std::string& socket_dir);

  // An error carries the agent's reason (agent/failure.h). kUnavailable: no agent is active there
  // now; a take-over is a fraction of a second.
  template <typename Request, typename Response>
  absl::Status Call(grpc::Status (agent::v1::Agent::Stub::*method)(grpc::ClientContext*,
                                                                   const Request&, Response*),
                    const Request& request, Response* response, absl::Time deadline) {
    grpc::ClientContext context;
    return Call(method, request, response, deadline, context);
  }
  // The same, for a caller that may cancel it: `context` is new.
  template <typename Request, typename Response>
  absl::Status Call(grpc::Status (agent::v1::Agent::Stub::*method)(grpc::ClientContext*,
                                                                   const Request&, Response*),
                    const Request& request, Response* response, absl::Time deadline,
                    grpc::ClientContext& context) {
    context.set_deadline(absl::ToChronoTime(deadline));
    return ToStatus((stub_.get()->*method)(&context, request, response));
  }

 private:
  static absl::Status ToStatus(const grpc::Status& status);

  const std::unique_ptr<agent::v1::Agent::Stub> stub_;
};

}  // namespace dfscsi::dfsctl

#endif  // NODE_AGENT_DFSCTL_AGENT_STUB_H_
