// Why a request of the agent's service failed, for programs: the reason that becomes dfsctl's exit
// code and the driver's CSI code.

#ifndef NODE_AGENT_AGENT_FAILURE_H_
#define NODE_AGENT_AGENT_FAILURE_H_

#include <string>

#include "absl/status/status.h"
#include "proto/agent.pb.h"

namespace dfscsi::agent {

// Says it explicitly.
absl::Status WithReason(absl::Status status, v1::FailureReason reason);

// What was said, else what the status itself tells: its NTSTATUS, how far the attempt on the target
// had come (smb::ConnectPhaseOf), its code.
v1::FailureReason ReasonOf(const absl::Status& status);

// The message, and where it is a server's status alone, what that means.
std::string ForPeople(const absl::Status& status);

}  // namespace dfscsi::agent

#endif  // NODE_AGENT_AGENT_FAILURE_H_
