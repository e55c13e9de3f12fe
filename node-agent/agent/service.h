// agent.proto on a Unix socket: gRPC's threads on one side, the loop on the other.

#ifndef NODE_AGENT_AGENT_SERVICE_H_
#define NODE_AGENT_AGENT_SERVICE_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "node-agent/runtime/deadline.h"
#include "node-agent/runtime/real_loop.h"
#include "node-agent/runtime/task.h"
#include "proto/agent.pb.h"

namespace dfscsi::agent {

class Service {
 public:
  // What the calls do. On the loop's thread. `response` lives until the task has ended or been
  // destroyed; the deadline is the caller's, and is cancelled when the caller hangs up.
  class Handler {
   public:
    virtual ~Handler() = default;
#define DFSCSI_AGENT_CALL(Name)             \
  virtual runtime::Task<absl::Status> Name( \
      v1::Name##Request request, v1::Name##Response* response, runtime::Deadline deadline) = 0;
#define DFSCSI_AGENT_CALLS(CALL) \
  CALL(Mount)                    \
  CALL(Unmount)                  \
  CALL(ListMounts)               \
  CALL(ListReferrals)            \
  CALL(ListTargets)              \
  CALL(FlushCache)               \
  CALL(GetMetrics)               \
  CALL(GetVersion)               \
  CALL(ListOpens)                \
  CALL(ListLocks)                \
  CALL(SetLogLevel)
    DFSCSI_AGENT_CALLS(DFSCSI_AGENT_CALL)
#undef DFSCSI_AGENT_CALL
  };

  // Listens on `<socket_dir>/agent.sock`, in place of whoever did before. Blocks for some
  // milliseconds: call it off the loop's thread. `loop` and `handler` must outlive Stop().
  static absl::StatusOr<std::unique_ptr<Service>> Start(runtime::RealLoop& loop, Handler& handler,
                                                        const std::string& socket_dir);
  ~Service();

  // No new calls; those in progress end with kUnavailable unless they have ended. Blocks until
  // then. Not from the loop's thread while it has calls to run.
  void Stop();

 private:
  class Impl;
  Service();
  std::unique_ptr<Impl> impl_;
};

}  // namespace dfscsi::agent

#endif  // NODE_AGENT_AGENT_SERVICE_H_
