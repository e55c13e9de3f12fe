// Work that blocks (files, a library without an asynchronous form) off the loop's thread.

#ifndef NODE_AGENT_RUNTIME_BLOCKING_H_
#define NODE_AGENT_RUNTIME_BLOCKING_H_

#include <functional>
#include <memory>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "node-agent/runtime/deadline.h"
#include "node-agent/runtime/loop.h"
#include "node-agent/runtime/task.h"

namespace dfscsi::runtime {

// Returns what `work` returned. If `deadline` comes first, returns its error at once; the work goes
// on and its result is dropped, so `work` owns everything it touches and is never waited for. It
// must not throw.
template <class T>
Task<absl::StatusOr<T>> Blocking(std::function<absl::StatusOr<T>()> work, Deadline deadline) {
  struct Shared {
    std::optional<absl::StatusOr<T>> result;
    Event done;
  };
  auto shared = std::make_shared<Shared>();
  Loop::Current().RunBlocking([shared, work = std::move(work)] { shared->result = work(); },
                              [shared] { shared->done.Set(); });
  absl::Status status = co_await shared->done.WaitUntilSet(deadline);
  if (!status.ok()) co_return status;
  co_return *std::move(shared->result);
}

}  // namespace dfscsi::runtime

#endif  // NODE_AGENT_RUNTIME_BLOCKING_H_
