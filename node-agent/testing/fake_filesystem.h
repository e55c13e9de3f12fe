// A vfs::Filesystem without anything behind it, for tests of what is above. Linked *instead* of the
// real one: it defines that class's members. One per test at a time.

#ifndef NODE_AGENT_TESTING_FAKE_FILESYSTEM_H_
#define NODE_AGENT_TESTING_FAKE_FILESYSTEM_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "node-agent/runtime/wait.h"
#include "node-agent/vfs/filesystem.h"

namespace dfscsi::testing {

// What the fake holds, and how it behaves. It outlives the file systems made on it, as a server
// outlives agents.
//   node ids   1 is the root; LOOKUP of "7" gives node 7, of anything not a number ENOENT
//   a file     its byte at offset i is i * 31 + node; kFileBytes long
//   directory  entries "2" … "101", next_offset as in "." = 1
struct FakeServer {
  struct SetLock {
    vfs::FileLock wanted;
    bool wait = false;
  };
  static constexpr uint64_t kFileBytes = 3 << 20;
  static constexpr int kEntries = 100;
  static constexpr int64_t kBornSeconds = 1'234'567'890;  // Every file was made then.

  bool parked = false;  // Operations wait for `released`, or until they are cancelled.
  runtime::Event released;
  bool throws = false;  // Operations throw.

  static constexpr uint64_t kServerKey = 0x5e17;
  bool sends = true;         // Changes are noted as sent before they wait.
  uint64_t sent_before = 0;  // What the last change's journal said.
  uint64_t offset_before = 0;
  uint64_t offset = ~uint64_t{0};                   // What changes note as theirs.
  std::string written;                              // By the last WRITE.
  std::optional<uint64_t> changed_through;          // The handle of the last SETATTR.
  size_t room = SIZE_MAX;                           // For one WRITE.
  int kept_error = 0;                               // FLUSH, FSYNC and WRITE tell it.
  bool unwritten = false;                           // RELEASE waits for `released`.
  std::vector<std::pair<uint64_t, int>> told = {};  // By NoteErrorTold().
  std::function<void()> on_told = {};               // Called by it.
  std::vector<uint64_t> lost_writes = {};           // Handles of WRITEs that were ended.
  bool early = false;  // WRITEs are acknowledged before they wait, if they may be.
  std::vector<std::string> begun =
      {};  // What each WRITE had to write, in the order of their start.

  int waiting = 0;                       // Operations parked now.
  std::map<uint64_t, uint64_t> lookups;  // By node: what the kernel holds.
  std::set<uint64_t> open_handles;
  std::map<uint64_t, uint64_t> undelivered = {};  // Of them, by handle: a node to forget, or 0.
  std::vector<SetLock> locks = {};                // As they were asked for.
  uint64_t flushed_by = 0;                        // The owner of the last FLUSH.
  uint64_t next_handle = 1000;
  std::map<std::string, int> calls;  // By name of the operation.
};

std::unique_ptr<vfs::Filesystem> MakeFakeFilesystem(FakeServer* server);

}  // namespace dfscsi::testing

#endif  // NODE_AGENT_TESTING_FAKE_FILESYSTEM_H_
