// How each target does, as seen by each credential: up, down until a time, or denied.
//
// "Up" means that a session, the tree and the target's root were had, not that TCP connected.
// Backing off is a time before which a target is not tried; nobody sleeps here.

#ifndef NODE_AGENT_DFS_TARGET_HEALTH_H_
#define NODE_AGENT_DFS_TARGET_HEALTH_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/time/time.h"
#include "node-agent/base/mutex.h"
#include "node-agent/dfs/failure_class.h"
#include "node-agent/dfs/path.h"

namespace dfscsi::dfs {

// One per node, shared by all loops. Thread-safe; pure but for its mutex: time and randomness come
// in.
class TargetHealthTable {
 public:
  // After the first failure, doubling up to the second; each with up to a quarter of jitter.
  static constexpr absl::Duration kShortestBackoff = absl::Milliseconds(200);
  static constexpr absl::Duration kLongestBackoff = absl::Seconds(5);
  // A refused credential is not tried again before this: accounts lock.
  static constexpr absl::Duration kDeniedFor = absl::Seconds(60);
  // No target is tried more often than this, whatever the reason.
  static constexpr absl::Duration kShortestInterval = absl::Milliseconds(100);

  struct Availability {
    absl::Time not_before = absl::InfinitePast();  // When it may be tried; InfinitePast: at once.
    bool denied = false;                           // It refused the credential, and not long ago.
  };
  Availability Get(const DfsPath& target, std::string_view identity, absl::Time now) const;

  void NoteUp(const DfsPath& target, std::string_view identity, absl::Time now);
  // `random` in [0, 1).
  void NoteFailure(const DfsPath& target, std::string_view identity, FailureClass failure,
                   absl::Time now, double random);
  // Whoever changed something (a new password, `dfsctl cache flush`) wants all to be tried again.
  void Forget();

  enum class State { kUp, kDown, kDenied };
  struct Listed {
    std::string target;  // //host/share[/path]
    State state = State::kUp;
    absl::Time not_before;
    int64_t failures = 0;  // Since it was last up.
    FailureClass last_failure = FailureClass::kNone;
    int64_t total_failures = 0;
  };
  std::vector<Listed> List() const;

 private:
  struct Health {
    State state = State::kUp;
    absl::Time not_before = absl::InfinitePast();
    int64_t failures = 0;
    int64_t total_failures = 0;
    FailureClass last_failure = FailureClass::kNone;
    std::string name;
  };
  using Key = std::pair<std::u16string, std::string>;
  static Key KeyOf(const DfsPath& target, std::string_view identity) {
    return {std::u16string(target.Key()), std::string(identity)};
  }

  mutable Mutex mutex_;
  absl::flat_hash_map<Key, Health> targets_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace dfscsi::dfs

#endif  // NODE_AGENT_DFS_TARGET_HEALTH_H_
