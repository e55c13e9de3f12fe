#include "node-agent/dfsctl/agent_stub.h"

#include "absl/strings/str_cat.h"
#include "node-agent/agent/failure.h"

namespace dfscsi::dfsctl {

AgentStub::AgentStub(const std::string& socket_dir)
    : stub_(agent::v1::Agent::NewStub(grpc::CreateChannel(
          absl::StrCat("unix:", socket_dir, "/agent.sock"), grpc::InsecureChannelCredentials()))) {}

absl::Status AgentStub::ToStatus(const grpc::Status& status) {
  if (status.ok()) return absl::OkStatus();
  const absl::Status error(static_cast<absl::StatusCode>(status.error_code()),
                           status.error_message());
  agent::v1::Failure failure;
  if (!status.error_details().empty() && failure.ParseFromString(status.error_details())) {
    return agent::WithReason(error, failure.reason());
  }
  // Not from the agent, but of the way to it.
  return agent::WithReason(error, agent::v1::SYSTEM);
}

}  // namespace dfscsi::dfsctl
