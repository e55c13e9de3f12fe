// SETLK, SETLKW, GETLK, flock; and how reads and writes go while a file is locked (file_locks.h).

#include <errno.h>
#include <fcntl.h>

#include <algorithm>
#include <utility>

#include "node-agent/base/death_points.h"
#include "node-agent/base/log.h"
#include "node-agent/base/status_macros.h"
#include "node-agent/runtime/loop.h"
#include "node-agent/smb/session.h"
#include "node-agent/smb/wire/nt_status.h"
#include "node-agent/vfs/errno.h"
#include "node-agent/vfs/filesystem_impl.h"

namespace dfscsi::vfs {

using runtime::Deadline;
using runtime::Task;
using smb::wire::NtStatus;

namespace {

// What another machine gave back by closing may be seen as locked for a moment longer.
constexpr int kAttempts = 3;
constexpr absl::Duration kBetweenAttempts = absl::Milliseconds(10);
// So long close(2) waits until its locks are given back. A process that exits cannot be
// interrupted.
constexpr absl::Duration kCloseWithin = absl::Seconds(1);
// While a file is locked its server is asked so often whether it lives; all files together, so
// often.
constexpr absl::Duration kAskEvery = absl::Seconds(10);
constexpr absl::Duration kAskEveryPerFile = absl::Milliseconds(100);
// Records that one change of an owner's locks may add: itself, and what is left on both sides.
constexpr uint32_t kMostAdded = 3;

bool IsDenied(const absl::Status& status) {
  const std::optional<NtStatus> answer = smb::wire::NtStatusOf(status);
  return answer == NtStatus::kAccessDenied || answer == NtStatus::kMediaWriteProtected;
}

state::LockTable::Lock RecordOf(state::NodeId node, const FileLock& lock) {
  return {.node = node,
          .fh = lock.fh,
          .owner = lock.owner,
          .first = lock.first,
          .last = lock.last,
          .kind = static_cast<uint32_t>(lock.kind),
          .type = static_cast<uint32_t>(lock.type),
          .pid = lock.pid};
}

}  // namespace

// One SETLK on its way. It goes on by itself: what it does on the server cannot be left half done,
// whatever becomes of the program that asked.
struct Filesystem::Impl::LockCall {
  FileLock wanted;
  bool wait = false;
  state::NodeId node = 0;
  std::shared_ptr<FileLocks> locks;
  std::vector<uint64_t> waits_for = {};  // Owners, on this machine.
  bool took = false;                     // Something of the server, for it.
  bool granted = false;
  runtime::CancelSource given_up;  // Nobody wants it any more.
  runtime::Event done;
  absl::Status result;
};

// --- The file's locks

std::shared_ptr<FileLocks> Filesystem::Impl::MakeLocks(state::NodeId node, const OpenFile& file) {
  std::shared_ptr<FileLocks>& locks = locks_[node];
  if (locks == nullptr) {
    auto holder = std::make_shared<OpenFile>(file.path(), options_.read_only ? O_RDONLY : O_RDWR,
                                             file.identity(), file.server_key(), file.written());
    holder->UseLease(file.lease());
    locks = std::make_shared<FileLocks>(
        std::move(holder), [this, node](LockRange range) { NoteLocksLost(node, range); });
    if (tables_.inodes().Contains(node)) locks->directory = tables_.inodes().Get(node).parent();
    ++locked_in_[locks->directory];
  }
  return locks;
}

void Filesystem::Impl::RestoreLocks() {
  std::vector<uint32_t> gone;
  tables_.locks().ForEach([&](uint32_t record, const state::LockTable::Lock& lock) {
    const absl::StatusOr<std::shared_ptr<OpenFile>> file = FileOf(lock.fh);
    if (!file.ok()) {
      gone.push_back(record);
      return;
    }
    MakeLocks(lock.node, **file)
        ->model.Restore({.kind = static_cast<LockKind>(lock.kind),
                         .type = static_cast<LockType>(lock.type),
                         .owner = lock.owner,
                         .first = lock.first,
                         .last = lock.last,
                         .pid = lock.pid,
                         .fh = lock.fh},
                        record);
  });
  for (const uint32_t record : gone) tables_.locks().Remove(record);
}

void Filesystem::Impl::ResumeLocks() {
  for (const auto& [node, locks] : locks_) StartHolding(node, locks);
}

void Filesystem::Impl::StoreLocks(state::NodeId node, FileLocks& locks,
                                  const std::vector<uint32_t>& gone) {
  for (LockModel::Held& held : locks.model.held()) {
    if (held.record.has_value()) continue;
    const absl::StatusOr<uint32_t> record = tables_.locks().Add(RecordOf(node, held.lock));
    if (record.ok()) held.record = *record;
  }
  for (const uint32_t record : gone) tables_.locks().Remove(record);
  locks.given_back.NotifyAll();
}

void Filesystem::Impl::NoteLocksLost(state::NodeId node, LockRange range) {
  const auto found = locks_.find(node);
  if (found == locks_.end()) return;
  const std::shared_ptr<FileLocks> locks = found->second;
  ++counters_.lost_locks;
  LogWarning("locks: another machine has what was locked here; the handle answers EIO");
  const std::vector<uint32_t> gone = locks->model.Drop([&](const FileLock& lock) {
    if (!range.Overlaps({lock.first, lock.last, lock.type})) return false;
    SetHandleFlag(lock.fh, kHandleLockLost);
    return true;
  });
  StoreLocks(node, *locks, gone);
  invalidation_.DataChanged(node);  // No page of it hides the EIO.
}

// --- The holder

void Filesystem::Impl::StartHolding(state::NodeId node, std::shared_ptr<FileLocks> locks) {
  if (locks->holding_again || locks->closed || !locks->IsHoldLost()) return;
  locks->holding_again = true;
  tasks_.Spawn(HoldAgain(node, std::move(locks)));
}

Task<void> Filesystem::Impl::HoldAgain(state::NodeId node, std::shared_ptr<FileLocks> locks) {
  const Deadline never = Deadline::Never();  // Hard mounts wait; soft ones end by themselves.
  const OpenFile::Act hold = [&](std::shared_ptr<smb::Tree> tree, smb::wire::FileId id) {
    return locks->HoldOn(std::move(tree), id, &counters_.retaken_locks, never);
  };
  const Call on = [&](dfs::Binding binding) -> Task<absl::Status> {
    const absl::Status status =
        co_await locks->holder->ActOn(binding, hold, options_.check_identity, &counters_, never);
    if (status.ok()) NoteHeldOn(node, std::move(binding), locks.get());
    co_return status;
  };
  absl::Status status;
  do {
    // A change of its name ends by itself.
    (void)co_await names_->AwaitSettled(PathOf(node).value_or(locks->holder->path()), never);
    const dfs::DfsPath path = PathOf(node).value_or(locks->holder->path());
    const uint64_t since = names_->now();
    const auto by_name = [&](dfs::Binding binding) {
      return ByName(locks->holder, &path, since, std::move(binding), &on);
    };
    status = absl::AbortedError("held nowhere");
    // Its own server first: there others look for them.
    if (locks->binding.tree != nullptr) {
      status = co_await client_.RunOnOwn(path, HeldOn(node, *locks), by_name, never);
    } else if (locks->holder->server_key() != 0) {
      // A dead agent's.
      status = co_await RunOnServer(path, locks->holder->server_key(), by_name, {}, never);
    }
    if (!status.ok() && !IsNameMoved(status)) {
      status = co_await client_.Run(
          path, by_name,
          {.held_epoch = locks->holder->epoch(), .movable = false, .repeatable = true}, never);
    }
  } while (IsNameMoved(status));
  if (status.ok()) {
    Pass(DeathPoint::kLocksRetaken);
  } else {
    NoteLocksLost(node, {0, UINT64_MAX, LockType::kExclusive});
  }
  locks->holding_again = false;
  locks->held_again.NotifyAll();
  StartWatching(node, locks);
  // Nobody was kept out meanwhile. The kernel waits for reads of those pages, and they for the
  // locks: so it is told behind them.
  if (status.ok()) (void)co_await DropPages(node);
}

Task<absl::Status> Filesystem::Impl::AwaitHold(state::NodeId node, std::shared_ptr<FileLocks> locks,
                                               Deadline deadline) {
  while (locks->IsHoldLost() && !locks->closed) {
    StartHolding(node, locks);
    CO_RETURN_IF_ERROR(co_await locks->held_again.WaitForNotify(deadline));
  }
  co_return absl::OkStatus();
}

void Filesystem::Impl::StartWatching(state::NodeId node, const std::shared_ptr<FileLocks>& locks) {
  if (locks->is_watched || locks->closed || locks->model.empty()) return;
  locks->is_watched = true;
  tasks_.Spawn(WatchHold(node, locks));
}

// Locks are gone with their connection, and are wanted whether or not anybody reads.
Task<void> Filesystem::Impl::WatchHold(state::NodeId node, std::shared_ptr<FileLocks> locks) {
  while (!locks->closed && !locks->model.empty() && locks->binding.tree != nullptr) {
    const std::shared_ptr<smb::Tree> tree = locks->binding.tree;
    if (!tree->usable()) {
      StartHolding(node, locks);
      break;  // Who holds them again watches again.
    }
    const absl::Duration pause = std::max(kAskEvery, kAskEveryPerFile * locks_.size());
    const absl::Status woken = co_await tree->session().connection().health_changed().WaitForNotify(
        locks->watching.deadline().Within(pause));
    if (absl::IsCancelled(woken)) break;
    if (woken.ok()) continue;
    // A server that dies without a word is found out by asking.
    const LockAct ask = [](std::shared_ptr<smb::Tree> on, smb::wire::FileId id,
                           bool*) -> Task<absl::Status> {
      co_return (co_await on->GetStandard(id, Deadline::Never())).status();
    };
    (void)co_await OnHolder(node, locks, ask, locks->watching.deadline());
  }
  locks->is_watched = false;
}

Task<absl::Status> Filesystem::Impl::ActHeld(state::NodeId node, std::shared_ptr<FileLocks> locks,
                                             dfs::Binding binding, OpenFile::Act act,
                                             Deadline deadline) {
  CO_RETURN_IF_ERROR(co_await AwaitHold(node, locks, deadline));
  if (!locks->model.empty() && locks->binding.tree != nullptr) binding = HeldOn(node, *locks);
  const OpenFile::Act held = [&](std::shared_ptr<smb::Tree> tree,
                                 smb::wire::FileId id) -> Task<absl::Status> {
    CO_RETURN_IF_ERROR(co_await locks->HoldOn(tree, id, &counters_.retaken_locks, deadline));
    NoteHeldOn(node, binding, locks.get());
    co_return co_await act(std::move(tree), id);
  };
  co_return co_await locks->holder->ActOn(binding, held, options_.check_identity, &counters_,
                                          deadline);
}

Task<absl::Status> Filesystem::Impl::OnHolder(state::NodeId node, std::shared_ptr<FileLocks> locks,
                                              LockAct act, Deadline deadline) {
  absl::Status status;
  bool again = false;
  do {
    again = false;
    if (locks->closed) co_return ErrnoError(EBADF, "the file is closed");
    const OpenFile::Act on = [&](std::shared_ptr<smb::Tree> tree, smb::wire::FileId id) {
      return act(std::move(tree), id, &again);
    };
    const std::shared_ptr<OpenFile> holder = locks->holder;
    const auto name_of = [&]() -> absl::StatusOr<dfs::DfsPath> {
      return PathOf(node).value_or(holder->path());
    };
    CO_ASSIGN_OR_RETURN(const dfs::DfsPath path, name_of());
    status = co_await RunByName(
        holder, path, name_of,
        [&](dfs::Binding binding) {
          return ActHeld(node, locks, std::move(binding), on, deadline);
        },
        {.movable = false, .repeatable = true}, deadline);
    if (IsDenied(status) && holder->writes() && holder->epoch() == 0 && locks->holder == holder) {
      // This user only reads it.
      locks->holder = std::make_shared<OpenFile>(holder->path(), O_RDONLY, holder->identity(),
                                                 holder->server_key(), holder->written());
      locks->holder->UseLease(holder->lease());
      again = true;
      status = absl::OkStatus();
    }
  } while (again && status.ok());
  co_return status;
}

// --- Reads and writes

std::shared_ptr<FileLocks> Filesystem::Impl::LocksInTheWay(state::FileHandle fh,
                                                           bool writes) const {
  if (locks_.empty() || !tables_.handles().Contains(fh)) return nullptr;
  const auto found = locks_.find(tables_.handles().Get(fh).node);
  if (found == locks_.end() || !found->second->IsHeldAnywhere()) return nullptr;
  const OpenFile& holder = *found->second->holder;
  const bool can = writes ? holder.writes() : (holder.access() & smb::wire::kAccessReadData) != 0;
  return can ? found->second : nullptr;
}

Task<absl::StatusOr<size_t>> Filesystem::Impl::ReadLocked(state::FileHandle fh,
                                                          std::shared_ptr<FileLocks> locks,
                                                          uint64_t offset, absl::Span<uint8_t> into,
                                                          Deadline deadline) {
  const state::NodeId node = tables_.handles().Get(fh).node;
  absl::StatusOr<size_t> result = size_t{0};
  const LockAct read = [&](std::shared_ptr<smb::Tree> tree, smb::wire::FileId id,
                           bool*) -> Task<absl::Status> {
    result = co_await tree->Read(id, offset, into, deadline);
    co_return result.status();
  };
  const absl::Status status = co_await OnHolder(node, std::move(locks), read, deadline);
  if (IsLockLost(fh)) co_return ErrnoError(EIO, "its locks were lost");
  if (IsLockRefused(status)) NoteReadRefused(fh);
  CO_RETURN_IF_ERROR(status);
  co_return result;
}

Task<absl::Status> Filesystem::Impl::MoveTo(dfs::Binding binding, state::FileHandle fh,
                                            std::shared_ptr<OpenFile> file, Deadline deadline) {
  if (file->server_key() == 0 || file->server_key() == ServerKeyOf(binding)) {
    co_return absl::OkStatus();
  }
  if (file->written()) co_return ErrnoError(ESTALE, "written on another server");
  const OpenFile::Act nothing = [](std::shared_ptr<smb::Tree>,
                                   smb::wire::FileId) -> Task<absl::Status> {
    co_return absl::OkStatus();
  };
  CO_RETURN_IF_ERROR(co_await file->ActOn(std::move(binding), nothing, options_.check_identity,
                                          &counters_, std::move(deadline)));
  NoteServer(fh, *file);
  co_return absl::OkStatus();
}

Task<absl::Status> Filesystem::Impl::ActThrough(state::FileHandle fh,
                                                std::shared_ptr<OpenFile> file,
                                                dfs::Binding binding, OpenFile::Act act,
                                                Change* change, Deadline deadline) {
  std::shared_ptr<FileLocks> locks = LocksInTheWay(fh, /*writes=*/true);
  if (locks == nullptr) {
    const absl::Status status =
        co_await file->ActOn(binding, act, options_.check_identity, &counters_, deadline);
    if (!IsLockRefused(status)) co_return status;
    // Locked by another program of this mount, while it was on its way.
    locks = LocksInTheWay(fh, /*writes=*/true);
    if (locks == nullptr) co_return status;
  }
  // The link may have moved to another server than the one that holds the locks: what is sent, and
  // looked for if its answer is lost, is there.
  const OpenFile::Act there = [&](std::shared_ptr<smb::Tree> tree,
                                  smb::wire::FileId id) -> Task<absl::Status> {
    const dfs::Binding holding = HeldOn(tables_.handles().Get(fh).node, *locks);
    CO_RETURN_IF_ERROR(co_await MoveTo(holding, fh, file, deadline));
    locks->holder->NoteWritten();
    change->where = holding;
    co_return co_await act(std::move(tree), id);
  };
  const absl::Status status =
      co_await ActHeld(tables_.handles().Get(fh).node, locks, std::move(binding), there, deadline);
  if (IsLockLost(fh)) co_return ErrnoError(EIO, "its locks were lost");
  co_return status;
}

// --- Taking

bool Filesystem::Impl::WouldWaitForEver(const LockCall& call) const {
  if (call.wanted.kind != LockKind::kRange) return false;
  absl::flat_hash_set<uint64_t> seen;
  std::vector<uint64_t> ahead = call.waits_for;
  while (!ahead.empty()) {
    const uint64_t owner = ahead.back();
    ahead.pop_back();
    if (owner == call.wanted.owner) return true;
    if (!seen.insert(owner).second) continue;
    for (const LockCall* const other : waiting_locks_) {
      if (other->wanted.kind != LockKind::kRange || other->wanted.owner != owner) continue;
      ahead.insert(ahead.end(), other->waits_for.begin(), other->waits_for.end());
    }
  }
  return false;
}

Task<absl::Status> Filesystem::Impl::AwaitTurn(std::shared_ptr<LockCall> call) {
  FileLocks& locks = *call->locks;
  while (locks.model.FindConflict(call->wanted) != nullptr) {
    if (!call->wait) co_return ErrnoError(EAGAIN, "locked");
    call->waits_for.clear();
    for (const LockModel::Held& held : locks.model.held()) {
      LockModel alone;
      alone.Restore(held.lock, 0);
      if (alone.FindConflict(call->wanted) != nullptr) call->waits_for.push_back(held.lock.owner);
    }
    if (WouldWaitForEver(*call)) co_return ErrnoError(EDEADLK, "they wait for each other");
    waiting_locks_.insert(call.get());
    const absl::Status status = co_await locks.given_back.WaitForNotify(call->given_up.deadline());
    waiting_locks_.erase(call.get());
    CO_RETURN_IF_ERROR(status);
    if (locks.closed) co_return ErrnoError(EBADF, "the file is closed");
  }
  co_return absl::OkStatus();
}

Task<absl::Status> Filesystem::Impl::DropPages(state::NodeId node) {
  if (!tables_.inodes().Contains(node)) co_return absl::OkStatus();
  const state::InodeTable::Node record = tables_.inodes().Get(node);
  ForgetName(record.parent(), record.name());
  const Deadline soon = Deadline::After(kDropWithinForLocks);
  // Before the pages go: a change that is noticed later makes the kernel drop them once more, and
  // with them the size that it is just being told.
  (void)co_await GetAttributes(node, soon);
  const absl::Status status = co_await invalidation_.DropPages(node, soon);
  if (!status.ok()) co_return ErrnoError(ENOLCK, "the kernel keeps pages of before");
  co_return absl::OkStatus();
}

// On the server, and then in the model and in shared memory.
Task<absl::Status> Filesystem::Impl::TryLock(std::shared_ptr<LockCall> call) {
  const std::shared_ptr<FileLocks> locks = call->locks;
  CO_ASSIGN_OR_RETURN(const runtime::Mutex::Guard guard,
                      co_await locks->changing.Lock(call->given_up.deadline()));
  if (locks->model.FindConflict(call->wanted) != nullptr) co_return absl::OkStatus();
  if (!tables_.locks().HasRoom(kMostAdded)) co_return ErrnoError(ENOLCK, "too many locks");
  // A lock that is granted when it is not waited for any more is given back by smb/.
  const Deadline until =
      locks->IsSwap(call->wanted) ? Deadline::Never() : call->given_up.deadline();
  const LockAct take = [&](std::shared_ptr<smb::Tree> tree, smb::wire::FileId id, bool* again) {
    return locks->TakeOn(std::move(tree), id, call->wanted, &call->took, again, until);
  };
  absl::Status status = co_await OnHolder(call->node, locks, take, until);
  // What others wrote until now is to be read under the lock.
  if (status.ok() && call->took) status = co_await DropPages(call->node);
  if (status.ok() && call->given_up.cancelled()) status = absl::CancelledError("given up");
  if (status.ok() && !tables_.handles().Contains(call->wanted.fh)) {
    status = ErrnoError(EBADF, "closed meanwhile");
  }
  // Others were recorded meanwhile. Without a record it would be gone with this agent.
  if (status.ok() && !tables_.locks().HasRoom(kMostAdded)) {
    status = ErrnoError(ENOLCK, "too many locks");
  }
  if (status.ok()) {
    Pass(DeathPoint::kLockGranted);
    StoreLocks(call->node, *locks, locks->model.Set(call->wanted));
    Pass(DeathPoint::kLockStored);
    StartWatching(call->node, locks);
    call->granted = true;
  }
  if (!IsLockRefused(status)) (void)co_await Trim(call->node, locks);
  co_return status;
}

Task<void> Filesystem::Impl::RunLock(std::shared_ptr<LockCall> call) {
  const std::shared_ptr<FileLocks> locks = call->locks;
  absl::Status status;
  for (int attempt = 1; !call->granted; ++attempt) {
    status = co_await AwaitTurn(call);
    if (status.ok()) status = co_await TryLock(call);
    if (status.ok()) continue;
    if (!IsLockRefused(status)) break;
    if (call->wait) {
      const LockAct wait = [&](std::shared_ptr<smb::Tree> tree, smb::wire::FileId id, bool*) {
        return locks->WaitOn(std::move(tree), id, call->wanted, call->given_up.deadline());
      };
      status = co_await OnHolder(call->node, locks, wait, call->given_up.deadline());
      call->took |= status.ok();
    } else if (attempt == kAttempts) {
      status = ErrnoError(EAGAIN, "locked by another machine");
    } else {
      status = co_await runtime::Sleep(kBetweenAttempts, call->given_up.deadline());
    }
    if (!status.ok()) break;
  }
  if (!call->granted) call->result = status;
  call->done.Set();
  // It may have been granted when nobody waited any more.
  if (call->wait && !call->granted) co_await TrimLater(call->node, locks, nullptr);
}

Task<absl::Status> Filesystem::Impl::SetLock(FileLock wanted, bool wait, Deadline deadline) {
  CO_ASSIGN_OR_RETURN(const std::shared_ptr<OpenFile> file, FileOf(wanted.fh));
  if (wanted.last < wanted.first) co_return ErrnoError(EINVAL, "a range");
  const state::NodeId node = tables_.handles().Get(wanted.fh).node;
  if (wanted.type == LockType::kNone) {
    const auto found = locks_.find(node);
    if (found == locks_.end()) co_return absl::OkStatus();
    const std::shared_ptr<FileLocks> locks = found->second;
    if (!tables_.locks().HasRoom(kMostAdded)) co_return ErrnoError(ENOLCK, "too many locks");
    StoreLocks(node, *locks, locks->model.Set(wanted));
    Pass(DeathPoint::kUnlockStored);
    co_return co_await TrimSoon(node, locks, std::move(deadline));
  }
  auto call = std::make_shared<LockCall>();
  call->wanted = wanted;
  call->wait = wait;
  call->node = node;
  call->locks = MakeLocks(node, *file);
  tasks_.Spawn(RunLock(call));
  const absl::Status status = co_await call->done.WaitUntilSet(std::move(deadline));
  if (call->done.is_set() || call->granted) co_return call->result;
  call->given_up.Cancel();
  co_return status;
}

Task<absl::StatusOr<FileLock>> Filesystem::Impl::GetLock(FileLock wanted, Deadline deadline) {
  CO_ASSIGN_OR_RETURN(const std::shared_ptr<OpenFile> file, FileOf(wanted.fh));
  const state::NodeId node = tables_.handles().Get(wanted.fh).node;
  const std::shared_ptr<FileLocks> locks = MakeLocks(node, *file);
  if (const FileLock* const own = locks->model.FindConflict(wanted)) co_return *own;
  CO_ASSIGN_OR_RETURN(const runtime::Mutex::Guard guard, co_await locks->changing.Lock(deadline));
  std::optional<LockRange> others;
  const LockAct probe = [&](std::shared_ptr<smb::Tree> tree, smb::wire::FileId id,
                            bool*) -> Task<absl::Status> {
    CO_ASSIGN_OR_RETURN(others, co_await locks->ProbeOn(std::move(tree), id, wanted, deadline));
    co_return absl::OkStatus();
  };
  CO_RETURN_IF_ERROR(co_await OnHolder(node, locks, probe, deadline));
  FileLock answer = wanted;
  answer.type = others.has_value() ? others->type : LockType::kNone;
  answer.pid = 0;
  if (others.has_value()) {
    answer.first = others->first;
    answer.last = others->last;
  }
  co_return answer;
}

// --- Giving back

Task<absl::Status> Filesystem::Impl::Trim(state::NodeId node, std::shared_ptr<FileLocks> locks) {
  const bool is_lost = locks->binding.tree == nullptr || !locks->binding.tree->usable();
  // With its connection everything is given back.
  if (locks->closed || (locks->model.empty() && is_lost)) co_return absl::OkStatus();
  const LockAct trim = [&](std::shared_ptr<smb::Tree> tree, smb::wire::FileId id, bool* again) {
    return locks->TrimOn(std::move(tree), id, again);
  };
  co_return co_await OnHolder(node, locks, trim, Deadline::Never());
}

Task<void> Filesystem::Impl::TrimLater(state::NodeId node, std::shared_ptr<FileLocks> locks,
                                       std::shared_ptr<runtime::Event> done) {
  {
    const absl::StatusOr<runtime::Mutex::Guard> guard =
        co_await locks->changing.Lock(Deadline::Never());
    (void)co_await Trim(node, locks);
  }
  if (done != nullptr) done->Set();
}

Task<absl::Status> Filesystem::Impl::TrimSoon(state::NodeId node, std::shared_ptr<FileLocks> locks,
                                              Deadline deadline) {
  const auto done = std::make_shared<runtime::Event>();
  tasks_.Spawn(TrimLater(node, std::move(locks), done));
  co_return co_await done->WaitUntilSet(std::move(deadline));
}

std::shared_ptr<FileLocks> Filesystem::Impl::DropRanges(state::NodeId node, uint64_t owner) {
  const auto found = locks_.find(node);
  if (found == locks_.end()) return nullptr;
  const std::shared_ptr<FileLocks> locks = found->second;
  const std::vector<uint32_t> gone = locks->model.Drop(
      [&](const FileLock& lock) { return lock.kind == LockKind::kRange && lock.owner == owner; });
  if (gone.empty()) return nullptr;
  StoreLocks(node, *locks, gone);
  return locks;
}

void Filesystem::Impl::DropRangesOfKilled(state::FileHandle fh, uint64_t owner) {
  if (!tables_.handles().Contains(fh)) return;
  const state::NodeId node = tables_.handles().Get(fh).node;
  std::shared_ptr<FileLocks> locks = DropRanges(node, owner);
  if (locks == nullptr) return;
  tasks_.Spawn(TrimOnceWritten(node, std::move(locks), BehindHandle(fh)));
}

Task<void> Filesystem::Impl::TrimOnceWritten(state::NodeId node, std::shared_ptr<FileLocks> locks,
                                             std::vector<state::NodeId> nodes) {
  (void)co_await behind_.AwaitEnd(std::move(nodes), Deadline::Never());
  co_await TrimLater(node, std::move(locks), nullptr);
}

Task<absl::Status> Filesystem::Impl::Flush(state::FileHandle fh, uint64_t owner,
                                           Deadline deadline) {
  if (!tables_.handles().Contains(fh)) co_return ErrnoError(EBADF, "no such handle");
  NoteUse(fh);
  const state::NodeId node = tables_.handles().Get(fh).node;
  const auto file = files_.find(fh);
  if (file != files_.end() && file->second->late_write().has_value()) {
    co_await SetTimeOfLateWrite(file->second);
  }
  const std::shared_ptr<FileLocks> locks = DropRanges(node, owner);
  if (locks == nullptr) co_return absl::OkStatus();
  // For this mount's programs they are gone; giving them back goes on by itself.
  (void)co_await TrimSoon(node, locks, deadline.Within(kCloseWithin));
  co_return absl::OkStatus();
}

void Filesystem::Impl::ReleaseLocks(state::NodeId node, state::FileHandle fh, bool is_last) {
  const auto found = locks_.find(node);
  if (found == locks_.end()) return;
  const std::shared_ptr<FileLocks> locks = found->second;
  const std::vector<uint32_t> gone =
      locks->model.Drop([&](const FileLock& lock) { return is_last || lock.fh == fh; });
  StoreLocks(node, *locks, gone);
  if (!is_last) {
    if (!gone.empty()) tasks_.Spawn(TrimLater(node, locks, nullptr));
    return;
  }
  locks->closed = true;
  locks->watching.Cancel();
  locks->held_again.NotifyAll();
  locks->holder->CloseLater();
  if (--locked_in_[locks->directory] == 0) locked_in_.erase(locks->directory);
  locks_.erase(found);
}

}  // namespace dfscsi::vfs
