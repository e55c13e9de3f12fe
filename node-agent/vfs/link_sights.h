// What was last seen of the mount's root and of links: what a stat of one of them is answered from
// while its target is silent, so that nobody who walks the tree above a dead link waits for it.
//
// A look at the target goes on in the background, one per node at a time, for whoever asks next:
//   seen within actimeo                    at once, no look
//   the target is known to be silent       at once, what was last seen; a look goes on behind
//   seen not long ago                      the look may take kShortWait, then what was last seen
//   not seen for long, or never            the look may take kLongWait, then what was last seen
// Who lists a directory meets all links of one dead server in a row, and waits for the first of
// them: for kHurry after a look was overdue others may take kShortWait, and none where something
// was seen not long ago.

#ifndef NODE_AGENT_VFS_LINK_SIGHTS_H_
#define NODE_AGENT_VFS_LINK_SIGHTS_H_

#include <sys/stat.h>

#include <cstddef>
#include <functional>
#include <memory>
#include <optional>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "node-agent/runtime/deadline.h"
#include "node-agent/runtime/loop.h"
#include "node-agent/runtime/task.h"
#include "node-agent/runtime/wait.h"
#include "node-agent/state/inode_table.h"

namespace dfscsi::vfs {

// Not thread-safe; one loop. What the looks use must outlive it.
class LinkSights {
 public:
  // Whoever lists a directory of dead links does not see it stall.
  static constexpr absl::Duration kShortWait = absl::Milliseconds(50);
  // kubelet, node-exporter and df touch every mount: they wait no longer.
  static constexpr absl::Duration kLongWait = absl::Milliseconds(900);
  // Values older than this are given out only if the target does not answer within kLongWait.
  static constexpr absl::Duration kRecent = absl::Seconds(10);
  static constexpr absl::Duration kHurry = absl::Seconds(1);
  // How long one look goes on.
  static constexpr absl::Duration kLookFor = absl::Seconds(10);

  // Asks the target once; ends by the deadline.
  using Look = std::function<runtime::Task<absl::StatusOr<struct stat>>(runtime::Deadline)>;

  struct Sight {
    struct stat attributes = {};
    absl::Duration left;      // How long it may be believed; zero if it is not fresh.
    bool last_known = false;  // The target did not answer.
  };

  explicit LinkSights(absl::Duration actimeo) : actimeo_(actimeo) {}
  LinkSights(const LinkSights&) = delete;

  // `unknown`: the answer while nothing has ever been seen. Errors: kCancelled.
  runtime::Task<absl::StatusOr<Sight>> Get(state::NodeId node, struct stat unknown, Look look,
                                           runtime::Deadline deadline);

  // What may still be believed; does not ask.
  std::optional<Sight> TryGet(state::NodeId node) const;

  // The node is gone.
  void Forget(state::NodeId node) { records_.erase(node); }
  size_t size() const { return records_.size(); }

 private:
  struct Record {
    std::optional<struct stat> seen;
    absl::Time seen_at = absl::InfinitePast();
    bool silent = false;                      // The latest look ended in an error.
    std::shared_ptr<runtime::Event> looking;  // Set when the look that goes on has ended.
    absl::Time began;
  };

  // How long after its beginning a look may be waited for.
  absl::Duration WaitFor(const Record& record, absl::Time now) const;
  std::optional<Sight> FreshOf(const Record& record) const;
  static runtime::Task<void> RunLook(std::shared_ptr<Record> record, Look look);

  const absl::Duration actimeo_;
  absl::Time overdue_at_ = absl::InfinitePast();  // The latest time that a look was.
  absl::flat_hash_map<state::NodeId, std::shared_ptr<Record>> records_;
  runtime::TaskGroup looks_;
};

}  // namespace dfscsi::vfs

#endif  // NODE_AGENT_VFS_LINK_SIGHTS_H_
