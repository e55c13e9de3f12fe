// When a program that died may be started again.

#ifndef NODE_AGENT_DFSCTL_RESTART_POLICY_H_
#define NODE_AGENT_DFSCTL_RESTART_POLICY_H_

#include <algorithm>

#include "absl/time/time.h"

namespace dfscsi::dfsctl {

// At once, as long as deaths are rare; a row of them at kRefillTime each; and a program that ends
// by itself with an error (it cannot work here) after a wait that doubles, to kLongestWait.
class RestartPolicy {
 public:
  static constexpr int kBurst = 20;
  static constexpr absl::Duration kRefillTime = absl::Seconds(2);
  static constexpr absl::Duration kFirstWait = absl::Milliseconds(200);
  static constexpr absl::Duration kLongestWait = absl::Seconds(30);

  void NoteStart(absl::Time now) { full_at_ = std::max(full_at_, now) + kRefillTime; }
  void NoteError(absl::Time now) {
    wait_ = std::min(std::max(2 * wait_, kFirstWait), kLongestWait);
    not_before_ = now + wait_;
  }
  void NoteSuccess() { wait_ = absl::ZeroDuration(); }

  // The earliest time of the next start.
  absl::Time Next() const { return std::max(not_before_, full_at_ - (kBurst - 1) * kRefillTime); }

 private:
  absl::Time full_at_ = absl::InfinitePast();  // When kBurst starts at once are possible again.
  absl::Time not_before_ = absl::InfinitePast();
  absl::Duration wait_ = absl::ZeroDuration();
};

}  // namespace dfscsi::dfsctl

#endif  // NODE_AGENT_DFSCTL_RESTART_POLICY_H_
