// The locks of one file: what this mount's programs have, and what is held for them on the server.
//
// SMB locks are mandatory, and belong to one open: whoever reads or writes through another open of
// the same file is refused. So all locks of a file are held through one open of its own, the
// holder, and while there are any, all of this mount's reads and writes of the file go through it.
// Programs of this mount exclude each other here (LockModel); the server knows only what all of
// them need together.
//
// What SMB has not, and what comes of it:
//   a part of a locked range cannot be unlocked    the range is unlocked as a whole, and the rest
//                                                  is locked again: shared parts before, exclusive
//                                                  parts after it
//   a shared lock cannot be made exclusive         it is unlocked, and then locked exclusively; if
//                                                  another machine was faster, it is locked shared
//                                                  again
//   an exclusive lock can be made shared           the shared lock is stacked upon it
// Who could not get back what he had has lost it: OnLost.

#ifndef NODE_AGENT_VFS_FILE_LOCKS_H_
#define NODE_AGENT_VFS_FILE_LOCKS_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "node-agent/dfs/client.h"
#include "node-agent/runtime/deadline.h"
#include "node-agent/runtime/task.h"
#include "node-agent/runtime/wait.h"
#include "node-agent/smb/tree.h"
#include "node-agent/vfs/lock_model.h"
#include "node-agent/vfs/open_file.h"

namespace dfscsi::vfs {

// True if a server says that somebody else has the range.
bool IsLockRefused(const absl::Status& status);

// Not thread-safe; one loop. Held by shared_ptr.
class FileLocks {
 public:
  // `on_lost`: another machine has what was held here; whoever has it in `model` has it no longer.
  FileLocks(std::shared_ptr<OpenFile> holder, std::function<void(LockRange)> on_lost)
      : holder(std::move(holder)), on_lost_(std::move(on_lost)) {}
  FileLocks(const FileLocks&) = delete;

  LockModel model;
  runtime::Condition given_back;  // Something in `model` may be had now.
  runtime::Mutex changing;        // What is held on the server is changed by one at a time.
  std::shared_ptr<OpenFile> holder;
  dfs::Binding binding;                  // Where it was held last; no tree: nowhere yet.
  std::optional<dfs::DfsPath> bound_as;  // The name that `binding` leads to.
  bool holding_again = false;            // Somebody is about to take all of them again.
  runtime::Condition held_again;         // He has come to an end.
  runtime::CancelSource watching;        // Of who waits for the death of `binding`.
  bool is_watched = false;
  state::NodeId directory = 0;  // The file's, when it was locked first.
  bool closed = false;          // The file's last handle is gone.

  bool IsHeldAnywhere() const { return !held_.empty() || !missing_.empty() || !model.empty(); }
  // Must be taken again before anything is done through the holder.
  bool IsHoldLost() const {
    return !model.empty() && (binding.tree == nullptr || !binding.tree->usable());
  }

  // --- On the server, through the open `id` of the holder. What a connection's end leaves undone
  // is run again on the next one. `*again`: the holder was opened anew meanwhile, nothing was done.

  // All that `model` needs is held through this open. `*retaken` counts ranges.
  runtime::Task<absl::Status> HoldOn(std::shared_ptr<smb::Tree> tree, smb::wire::FileId id,
                                     int64_t* retaken, runtime::Deadline deadline);
  // True if TakeOn() takes more than one step, between which it cannot be given up.
  bool IsSwap(const FileLock& wanted) const;
  // Takes what the model would need with `wanted` and does not hold; all or nothing. IsLockRefused:
  // another machine has it. `*took`: something was taken. REQUIRES: `changing`; a deadline that
  // ends only if it is no swap.
  runtime::Task<absl::Status> TakeOn(std::shared_ptr<smb::Tree> tree, smb::wire::FileId id,
                                     FileLock wanted, bool* took, bool* again,
                                     runtime::Deadline deadline);
  // Gives back what the model does not need. REQUIRES: `changing`.
  runtime::Task<absl::Status> TrimOn(std::shared_ptr<smb::Tree> tree, smb::wire::FileId id,
                                     bool* again);
  // Waits until TakeOn() is worth trying again.
  runtime::Task<absl::Status> WaitOn(std::shared_ptr<smb::Tree> tree, smb::wire::FileId id,
                                     FileLock wanted, runtime::Deadline deadline);
  // What another machine has of the range of `wanted`: its first byte. nullopt: nothing that can be
  // known. REQUIRES: `changing`.
  runtime::Task<absl::StatusOr<std::optional<LockRange>>> ProbeOn(std::shared_ptr<smb::Tree> tree,
                                                                  smb::wire::FileId id,
                                                                  FileLock wanted,
                                                                  runtime::Deadline deadline);

 private:
  bool IsOn(const smb::Tree& tree, const smb::wire::FileId& id) const {
    return tree_.get() == &tree && id_ == id;
  }
  std::vector<LockRange> Lacking(const std::vector<LockRange>& needed) const;
  static bool IsInTheWay(const LockRange& held, const std::vector<LockRange>& lacking);
  // Locks all of `ranges` or none, without waiting; they are in held_ then.
  runtime::Task<absl::Status> Lock(std::shared_ptr<smb::Tree> tree, smb::wire::FileId id,
                                   std::vector<LockRange> ranges, runtime::Deadline deadline);
  runtime::Task<absl::Status> Unlock(std::shared_ptr<smb::Tree> tree, smb::wire::FileId id,
                                     std::vector<LockRange> ranges);
  // Locks what was held a moment ago; what another machine has got is lost.
  runtime::Task<absl::Status> LockAgain(std::shared_ptr<smb::Tree> tree, smb::wire::FileId id,
                                        std::vector<LockRange> ranges, absl::Duration patience);

  const std::function<void(LockRange)> on_lost_;
  // Through this open of the holder. Ranges as they were locked: they may overlap.
  std::shared_ptr<smb::Tree> tree_;
  smb::wire::FileId id_;
  std::vector<LockRange> held_;
  std::vector<LockRange> missing_;  // Not taken again yet.
  runtime::Mutex holding_;
};

}  // namespace dfscsi::vfs

#endif  // NODE_AGENT_VFS_FILE_LOCKS_H_
