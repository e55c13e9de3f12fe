// What was last seen of the mount's root and of links: what a stat of one of them is answered from,
// so that nobody who walks the tree above a dead link waits for it.
//
// A look at the target goes on in the background, one per node at a time, for whoever asks next:
//   seen within actimeo                at once, no look
//   seen before that                   at once, what was last seen; a look goes on behind
//   not seen for long                  the look may take kShortWait, then what was last seen
//   never seen                         the look may take kLongWait, then an empty directory
//   not seen since a change of ours    the look may take kLongWait, then what was last seen
//   the latest look was in vain        at once, and the next look only after a pause that grows
// Who lists a directory meets all links of one dead server in a row, and waits for the first of
// them: for kHurry after a look was overdue a node that was never seen may take kShortWait, and
// others nothing.

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
  // What is older than this, or than ten times actimeo, was not seen for long.
  static constexpr absl::Duration kRecent = absl::Seconds(10);
  static constexpr absl::Duration kHurry = absl::Seconds(1);
  // How long one look goes on: long enough for a dead target to be known as such.
  static constexpr absl::Duration kLookFor = absl::Seconds(10);
  // Between the end of a look that was in vain and the next one: doubled each time.
  static constexpr absl::Duration kShortestPause = absl::Milliseconds(500);
  static constexpr absl::Duration kLongestPause = absl::Seconds(5);

  // Asks the target once; ends by the deadline.
  using Look = std::function<runtime::Task<absl::StatusOr<struct stat>>(runtime::Deadline)>;

  struct Sight {
    struct stat attributes = {};
    bool last_known = false;                     // The target is silent.
    absl::Duration left = absl::ZeroDuration();  // Of actimeo: how long it may still be believed.
  };

  explicit LinkSights(absl::Duration actimeo) : actimeo_(actimeo) {}
  LinkSights(const LinkSights&) = delete;

  // `unknown`: the answer while nothing has ever been seen. Errors: kCancelled.
  runtime::Task<absl::StatusOr<Sight>> Get(state::NodeId node, struct stat unknown, Look look,
                                           runtime::Deadline deadline);

  // What was last seen, however long ago; does not ask.
  std::optional<Sight> TryGet(state::NodeId node) const;

  // Something in the directory was changed: what was seen before is asked for again.
  void NoteChange(state::NodeId node);

  // The node is gone.
  void Forget(state::NodeId node) { records_.erase(node); }
  size_t size() const { return records_.size(); }

 private:
  struct Record {
    std::optional<struct stat> seen;
    absl::Time seen_at = absl::InfinitePast();
    int64_t changes = 0;                      // Counts NoteChange().
    int in_vain = 0;                          // The latest looks that ended in an error.
    std::shared_ptr<runtime::Event> looking;  // Set when the look that goes on has ended.
    absl::Time began;
    absl::Time next_look = absl::InfinitePast();  // Not before.
  };

  absl::Duration Left(const Record& record, absl::Time now) const;
  // How long after its beginning a look may be waited for.
  absl::Duration WaitFor(const Record& record, absl::Time now) const;
  static runtime::Task<void> RunLook(std::shared_ptr<Record> record, Look look);

  const absl::Duration actimeo_;
  absl::Time overdue_at_ = absl::InfinitePast();  // The latest time that a look was.
  absl::flat_hash_map<state::NodeId, std::shared_ptr<Record>> records_;
  runtime::TaskGroup looks_;
};

}  // namespace dfscsi::vfs

#endif  // NODE_AGENT_VFS_LINK_SIGHTS_H_
