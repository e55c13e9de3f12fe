// Which link of a mount is bound to which target now.
//
// A link here is what a Binding is for: a DFS link, a namespace root, or a plain share, known by
// the first components of the path that the user sees.

#ifndef NODE_AGENT_DFS_LINK_TABLE_H_
#define NODE_AGENT_DFS_LINK_TABLE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "node-agent/dfs/path.h"
#include "node-agent/dfs/referral_cache.h"
#include "node-agent/runtime/deadline.h"
#include "node-agent/runtime/list.h"
#include "node-agent/runtime/loop.h"
#include "node-agent/runtime/wait.h"
#include "node-agent/smb/tree.h"

namespace dfscsi::dfs {

// One operation in flight on a link's target: in the link's list for as long as it runs.
struct Attempt : runtime::ListNode {
  runtime::Event ended;
  absl::Status status;
  bool lost = false;   // Its server was silent for too long.
  bool moved = false;  // The link was bound anew; the operation is to be run again there.
  bool repeatable = true;
};

// Where a link was bound before it went back to a better target, or out of the namespace: what is
// open there stays there while that target is up (both are for new opens).
struct FormerBinding {
  std::weak_ptr<smb::Tree> tree;  // Held by what is open on it, and by nobody else.
  DfsPath target_path;
  uint64_t epoch = 0;
};

// A better target than the one that serves: it has been up since then, and may be gone back to.
struct BetterTarget {
  DfsPath target_path;
  std::shared_ptr<smb::Tree> tree;
  absl::Time since;
};

struct Link {
  explicit Link(DfsPath link_prefix) : prefix(std::move(link_prefix)) {}

  // True if operations may be started on it.
  bool bound() const { return tree != nullptr && tree->usable(); }
  // Ends the binding, guard and all. Attempts stay, for whoever ends them.
  void Unbind();
  // Tells the operations in flight that may move that they are to be run again.
  void MoveAttempts();
  // As above, but what may not be repeated goes on where it is.
  void MoveRepeatableAttempts();
  // The present binding becomes a former one, which it stays for what is open there. Who binds the
  // link anew, or leaves it, goes on to say so.
  void KeepAsFormer();
  // Ends the binding for whatever is new: the namespace has the link no more.
  void Leave();
  // Whether something may be open on a former binding that is up. No I/O.
  bool HasFormer() const;
  // The former binding of this epoch, if it is up. No I/O.
  const FormerBinding* FindFormer(uint64_t of_epoch) const;
  void DropFormer(uint64_t of_epoch);

  const DfsPath prefix;  // Of the path that the user sees.

  std::shared_ptr<smb::Tree> tree;  // Null before the first binding.
  DfsPath target_path = prefix;     // \host\share[\path] of the target.
  uint64_t epoch = 0;
  std::optional<DfsPath> entry_prefix;  // Of the referral that lists the target; none: no referral.
  ReferralCache::Pin pin;               // That entry stays cached.
  // When the target was last found lost, for write_grace; InfinitePast while it serves.
  absl::Time lost_since = absl::InfinitePast();
  std::vector<FormerBinding> former;
  std::optional<BetterTarget> better;

  runtime::Mutex binding;           // Held by the one that binds it.
  runtime::List<Attempt> attempts;  // Those that may move.
  // Ends the guard that watches the present target; null: there is none.
  std::shared_ptr<runtime::CancelSource> guard;
};

// Not thread-safe; one loop.
class LinkTable {
 public:
  LinkTable() = default;
  LinkTable(const LinkTable&) = delete;
  LinkTable& operator=(const LinkTable&) = delete;
  // Lets go of the links in the order of their paths: each may be the last to hold a tree, whose
  // end is sent.
  ~LinkTable();

  // The link with the longest prefix of `path`, or null. Allocates nothing.
  std::shared_ptr<Link> Find(const DfsPath& path) const;
  // The link of exactly the first `components` of `path`; made if it is not there.
  std::shared_ptr<Link> Get(const DfsPath& path, size_t components);
  bool Contains(const DfsPath& path) const;
  void Erase(const DfsPath& prefix);
  // In the order of their paths, as List().
  void ForEach(const std::function<void(Link&)>& visit) const;
  // All of them now: for walks that wait.
  std::vector<std::shared_ptr<Link>> List() const;
  size_t size() const { return links_.size(); }

 private:
  struct Hash {
    using is_transparent = void;
    size_t operator()(std::u16string_view key) const {
      return std::hash<std::u16string_view>()(key);
    }
  };
  struct Equal {
    using is_transparent = void;
    bool operator()(std::u16string_view a, std::u16string_view b) const { return a == b; }
  };

  absl::flat_hash_map<std::u16string, std::shared_ptr<Link>, Hash, Equal> links_;
  std::vector<int> links_of_size_ = {
      0};  // By number of components: lengths that no link has are skipped.
};

}  // namespace dfscsi::dfs

#endif  // NODE_AGENT_DFS_LINK_TABLE_H_
