// The agent's end of dfs-notifier: hands over what the kernel must be told, and replaces a child
// that is stuck.
//
// Nothing here waits: a notification is sent or queued, its confirmation is watched for, and if a
// mount's thread in the child has not answered by kStuckAfter, a new child takes all mounts over.
// The stuck one is killed, which takes effect when the kernel lets it go; the one notification that
// is stuck is not repeated (it stands in the kernel, waiting for a page of a parked READ), all that
// stood behind it is.
//
// Not thread-safe; one loop.

#ifndef NODE_AGENT_FUSE_NOTIFIER_CHANNEL_H_
#define NODE_AGENT_FUSE_NOTIFIER_CHANNEL_H_

#include <sys/types.h>

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "node-agent/base/unique_fd.h"
#include "node-agent/runtime/loop.h"
#include "node-agent/runtime/real_loop.h"
#include "node-agent/runtime/task.h"
#include "node-agent/runtime/wait.h"
#include "node-agent/state/inode_table.h"
#include "node-agent/state/notifier_protocol.h"

namespace dfscsi::fuse {

class NotifierChannel {
 public:
  static constexpr absl::Duration kStuckAfter = absl::Seconds(2);
  // Replaced children whom the kernel has not let go. Beyond it a stuck one stays in service.
  static constexpr size_t kMostStuckChildren = 4;
  // Unanswered and queued together. Beyond it notifications are dropped: the pages they would have
  // dropped are dropped when the file is opened anew.
  static constexpr size_t kMostPending = 8192;

  // `program`: the path of dfs-notifier. It is started when there is something to write.
  NotifierChannel(runtime::RealLoop& loop, std::string program);
  NotifierChannel(const NotifierChannel&) = delete;
  ~NotifierChannel();

  // Keeps a duplicate of the fd.
  void AddMount(uint32_t mount_id, int fuse_fd);
  void RemoveMount(uint32_t mount_id);

  // The kernel drops its pages and attributes of a node. Asked twice before it was sent: once.
  void InvalidateInode(uint32_t mount_id, state::NodeId node) { (void)Queue(mount_id, node); }
  // The same, and returns once the kernel has. kUnavailable: it has not, nor will; and
  // kDeadlineExceeded, kCancelled.
  runtime::Task<absl::Status> InvalidateInodeAndWait(uint32_t mount_id, state::NodeId node,
                                                     runtime::Deadline deadline);

  struct Counters {
    int64_t written = 0;
    int64_t unknown_nodes = 0;  // The kernel holds nothing of the node: as good as written.
    int64_t failed = 0;
    int64_t dropped = 0;
    int64_t stuck = 0;  // Children that were replaced.
    int64_t ended = 0;  // Children that ended by themselves.
  };
  const Counters& counters() const { return counters_; }
  size_t pending() const { return queue_.size() + unanswered_.size(); }

 private:
  class Child;
  struct Mount {
    UniqueFd fuse_fd;
  };
  struct Unanswered {
    state::NotifierRequest request;
    absl::Time sent;
  };

  // Somebody waits for a confirmation.
  struct Awaited {
    runtime::Event settled;
    bool confirmed = false;
  };

  // The id of what was queued now, or stood there; 0: nothing, it is dropped.
  uint64_t Queue(uint32_t mount_id, state::NodeId node);
  void Settle(uint64_t id, bool confirmed);
  absl::Status StartChild();
  void Flush();
  runtime::Task<void> FlushWhenWritable(std::shared_ptr<Child> child);
  runtime::Task<void> FlushLater();
  runtime::Task<void> ReadReplies(std::shared_ptr<Child> child);
  runtime::Task<void> WatchForStuck();
  void HandleReply(const state::NotifierReply& reply);
  void GiveUpChild(bool stuck);
  void ReapLeaving();

  runtime::RealLoop& loop_;
  const std::string program_;
  std::map<uint32_t, Mount> mounts_;
  std::shared_ptr<Child> child_;
  std::vector<std::shared_ptr<Child>> leaving_;  // Ended, or killed and stuck; not reaped yet.
  std::deque<state::NotifierRequest> queue_;
  // The id by which (mount, node) is in queue_.
  absl::flat_hash_map<std::pair<uint32_t, state::NodeId>, uint64_t> queued_;
  std::map<uint64_t, Unanswered> unanswered_;                        // By id: oldest first.
  absl::flat_hash_map<uint64_t, std::shared_ptr<Awaited>> awaited_;  // By id.
  uint64_t last_id_ = 0;
  bool watching_ = false;     // WatchForStuck() runs.
  bool flush_due_ = false;    // FlushLater() or FlushWhenWritable() runs.
  bool start_later_ = false;  // A start failed, or a child ended: not at once again.
  Counters counters_;
  runtime::TaskGroup tasks_;
};

}  // namespace dfscsi::fuse

#endif  // NODE_AGENT_FUSE_NOTIFIER_CHANNEL_H_
