// What this mount has written of late, so that who opens a file on another target learns that the
// copy there is older than that.

#ifndef NODE_AGENT_VFS_WRITTEN_RECORD_H_
#define NODE_AGENT_VFS_WRITTEN_RECORD_H_

#include <cstdint>
#include <list>
#include <optional>
#include <string>
#include <string_view>

#include "absl/container/flat_hash_map.h"
#include "absl/time/time.h"

namespace dfscsi::vfs {

// One entry per path, of its last change. Bounded: the entries that were made longest ago go first.
// Not shared with the next agent: what it does not know is not told. Pure; not thread-safe.
class WrittenRecord {
 public:
  static constexpr size_t kMost = 4096;

  struct Written {
    uint64_t server_key = 0;  // ServerKeyOf() where it is.
    uint64_t size_bytes = 0;
    absl::Time when;                          // By the clock of that server.
    std::optional<absl::Time> set_time = {};  // The last-write time, if somebody has set it.
  };
  // As a server tells it.
  struct Seen {
    uint64_t server_key = 0;
    uint64_t size_bytes = 0;
    absl::Time last_write;
  };
  enum class Verdict {
    kUnknown,     // Nothing was written there, or it is too long ago, or this is where it was.
    kNotOlder,    // What was written, or something later.
    kOlder,       // As it was before.
    kOlderAgain,  // The same, of a path of which that was said before.
  };

  // `key`: DfsPath::Key() of the path that the user sees. Known until `until`.
  void NoteWritten(std::u16string_view key, const Written& written, absl::Time until);
  // Its last-write time was set on that server: what it shows from now on.
  void NoteTimeSet(std::u16string_view key, uint64_t server_key, absl::Time set_time);
  void NoteRenamed(std::u16string_view from, std::u16string_view to);
  void NoteRemoved(std::u16string_view key) { Erase(key); }

  // What a copy is that was just opened.
  Verdict Judge(std::u16string_view key, const Seen& seen, absl::Time now);

  size_t size() const { return entries_.size(); }

 private:
  struct Entry {
    Written written;
    absl::Time until;
    bool told = false;
    std::list<std::u16string>::iterator place;
  };

  void Erase(std::u16string_view key);

  absl::flat_hash_map<std::u16string, Entry> entries_;
  std::list<std::u16string> oldest_first_;
};

}  // namespace dfscsi::vfs

#endif  // NODE_AGENT_VFS_WRITTEN_RECORD_H_
