// What was last seen of files, for as long as it is believed (actimeo).

#ifndef NODE_AGENT_VFS_ATTRIBUTE_CACHE_H_
#define NODE_AGENT_VFS_ATTRIBUTE_CACHE_H_

#include <cstddef>
#include <string>
#include <string_view>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/time/time.h"
#include "node-agent/state/inode_table.h"
#include "node-agent/vfs/attributes.h"

namespace dfscsi::vfs {

// By name, since a listing tells of names that have no node yet: what READDIR brought answers the
// LOOKUPs that `ls -l` sends next. Not thread-safe.
class AttributeCache {
 public:
  explicit AttributeCache(absl::Duration actimeo) : actimeo_(actimeo) {}

  struct Seen {
    ServerAttributes attributes;
    uint64_t epoch = 0;
    absl::Time until;
    // Of the last change of our own: what was asked before is no news.
    absl::Time changed = absl::InfinitePast();
    bool is_change = false;  // Nothing is known since then.
  };
  // Of what a server said.
  struct Times {
    absl::Time asked;
    absl::Time answered;
  };

  // Null if nothing is known that may still be believed: seen on the link's present binding, less
  // than actimeo ago. Valid until the next call.
  const Seen* Get(state::NodeId parent, std::string_view name, uint64_t epoch,
                  absl::Time now) const;
  // False: that was too long ago, or a later sight is known, or something was changed since it was
  // asked: the answer may be from before. (The kernel would cut the file's pages to such a size.)
  bool Put(state::NodeId parent, std::string_view name, const ServerAttributes& attributes,
           uint64_t epoch, Times seen, absl::Time now);
  // Something was changed under this name: what was seen before is not believed any more.
  void NoteChange(state::NodeId parent, std::string_view name, absl::Time now);
  // How much of actimeo is left of a sight.
  absl::Duration Left(const Seen& seen, absl::Time now) const;

 private:
  // What a table of 2^15 places holds: with one more it would be made twice as large, and while it
  // moves both are there (of 168 bytes a place). `ls -l` asks for what the last page told.
  static constexpr size_t kMost = (size_t{1} << 15) / 8 * 7;
  using Key = std::pair<state::NodeId, std::string>;

  void MakeRoom(absl::Time now);

  const absl::Duration actimeo_;
  absl::flat_hash_map<Key, Seen> seen_;
};

}  // namespace dfscsi::vfs

#endif  // NODE_AGENT_VFS_ATTRIBUTE_CACHE_H_
