// The log of operations that take long: which of them have a line.

#ifndef NODE_AGENT_AGENT_SLOW_OPERATIONS_H_
#define NODE_AGENT_AGENT_SLOW_OPERATIONS_H_

#include <cstdint>
#include <optional>

#include "absl/time/time.h"

namespace dfscsi::agent {

// What takes longer is slow.
inline constexpr absl::Duration kSlow = absl::Seconds(1);

// Of one mount: while a server is dead thousands of operations wait for it, and a few lines say so
// as well as thousands. Not thread-safe.
class SlowOperations {
 public:
  static constexpr int kLines = 5;
  static constexpr absl::Duration kPeriod = absl::Seconds(10);

  // Counts one. Returns how many had no line since the last that had one; nullopt: nor has this.
  std::optional<int64_t> Note(absl::Time now);
  int64_t total() const { return total_; }

 private:
  int64_t total_ = 0;
  int64_t unsaid_ = 0;
  int lines_ = 0;  // Since `since_`.
  absl::Time since_ = absl::InfinitePast();
};

// "READ"; "an operation" where it has no name here.
const char* OpcodeName(uint32_t opcode);

}  // namespace dfscsi::agent

#endif  // NODE_AGENT_AGENT_SLOW_OPERATIONS_H_
