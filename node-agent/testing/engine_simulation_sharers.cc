// What simulated sharers do: threads that use the files of a writer's folder through handles, while
// the writer changes their names.

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <string.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "node-agent/testing/engine_simulation_requests.h"
#include "node-agent/testing/engine_simulation_writers.h"

namespace dfscsi::simulation {

using requests::As;
using requests::BytesOf;
using runtime::Deadline;
using runtime::Task;

namespace {

constexpr size_t kMostHandles = 3;  // Of one sharer.
// Within it the engine finds out that a server has lost its locks, and takes them again.
constexpr absl::Duration kFoundOut = absl::Seconds(40);

}  // namespace

void Writers::StartSharers(Visit* visit) {
  for (int i = 0; i < sharers_; ++i) {
    auto own = std::make_shared<Visit>(
        Visit{.mount = visit->mount, .link = visit->link, .folder = visit->folder});
    own->reachable = visit->reachable;
    own->view = visit->view;
    own->sharing = visit->sharing;
    ++visit->sharing->running;
    node_.SpawnApplication(Share(std::move(own)));
  }
}

Task<void> Writers::EndSharers(Visit* visit) {
  visit->sharing->ends = true;
  while (visit->sharing->running > 0) {
    (void)co_await visit->sharing->changed.WaitForNotify(Deadline::Never());
  }
}

Task<void> Writers::Share(std::shared_ptr<Visit> visit) {
  Sharing& sharing = *visit->sharing;
  while (!sharing.ends && !sharing.left && !stopping_ && !visit->mount->gone() &&
         !oracle_.failed()) {
    if (!co_await UseSomething(visit.get())) {
      sharing.left = true;
      break;
    }
    // Without a pause while a name is being changed.
    const absl::Duration pause = 0.2 * longest_pause_ * (static_cast<double>(Below(1000)) / 1000);
    if (!sharing.names_change || Below(8) == 0) {
      (void)co_await sharing.names.WaitForNotify(
          Deadline::After(std::max(pause, absl::Milliseconds(1))));
    }
  }
  const bool locked = std::any_of(visit->handles.begin(), visit->handles.end(),
                                  [](const Handle& handle) { return handle.owner != 0; });
  if (stopping_ && locked && !sharing.left) {
    (void)co_await runtime::Sleep(kFoundOut, Deadline::Never());
  }
  // What is open is what it was, to the end.
  for (size_t i = visit->handles.size(); i > 0 && !sharing.left && !visit->mount->gone(); --i) {
    if (!co_await ReadBack(visit.get(), i - 1) ||
        (stopping_ && !co_await CheckLocks(visit.get(), i - 1))) {
      sharing.left = true;
    }
  }
  while (!visit->handles.empty()) {
    (void)co_await Release(visit.get(), visit->handles.size() - 1);
  }
  --sharing.running;
  sharing.changed.NotifyAll();
}

std::set<uint64_t> Writers::FilesOf(const Handle& handle) {
  std::set<uint64_t> files(handle.files.begin(), handle.files.end());
  files.erase(0);
  return files;
}

Task<bool> Writers::UseSomething(Visit* visit) {
  const uint64_t what = Below(100);
  const size_t handle = visit->handles.empty() ? 0 : Below(visit->handles.size());
  if (visit->handles.empty() || (what < 15 && visit->handles.size() < kMostHandles)) {
    co_return co_await OpenShared(visit);
  }
  const bool writes = visit->handles[handle].writes;
  if (what < 40 && writes) co_return co_await Write(visit, handle);
  if (what < 60) co_return co_await ReadBack(visit, handle);
  if (what < 66) co_return co_await Sync(visit, handle);
  if (what < 72 && writes) co_return co_await TruncateThrough(visit, handle);
  if (what < 80) co_return co_await LookThrough(visit, handle);
  if (what < 95) co_return co_await LockThrough(visit, handle);
  co_return co_await Release(visit, handle);
}

// By a node that the writer knows: its name may be another one by now, or nobody's.
Task<bool> Writers::OpenShared(Visit* visit) {
  std::vector<std::pair<std::string, uint64_t>> known;
  for (const auto& [path, node] : visit->sharing->writer->nodes) {
    if (visit->folder->on(visit->view).FileAt(path) != 0) known.emplace_back(path, node);
  }
  if (known.empty()) co_return true;
  const auto [path, node] = known[Below(known.size())];
  const Folder::Files files = visit->folder->FilesAt(path);
  const uint64_t how = Below(6);
  const Step step{
      .kind = Step::Kind::kOpen, .path = path, .through_handle = true, .truncates = how == 0};
  fuse_open_in open = {};
  open.flags = how == 2 ? O_RDONLY : O_RDWR | (how == 1 ? O_APPEND : 0) | (how == 0 ? O_TRUNC : 0);
  std::string reply;
  Folder::Outcome outcome;
  const bool go_on =
      co_await Do(visit, step, FUSE_OPEN, node, BytesOf(open), &reply, &outcome, files);
  if (!go_on || reply.empty()) co_return go_on;
  visit->handles.push_back({.fh = As<fuse_open_out>(reply).fh,
                            .files = outcome.opened,
                            .path = path,
                            .writes = how != 2,
                            .appends = how == 1,
                            .node = node});
  co_return true;
}

Task<bool> Writers::TruncateThrough(Visit* visit, size_t index) {
  const Handle handle = visit->handles[index];
  const Step step{.kind = Step::Kind::kTruncate,
                  .path = handle.path,
                  .through_handle = true,
                  .size_bytes = Below(6'000)};
  fuse_setattr_in set = {};
  set.valid = FATTR_SIZE | FATTR_FH;
  set.fh = handle.fh;
  set.size = step.size_bytes;
  std::string reply;
  Folder::Outcome outcome;
  const bool go_on = co_await Do(visit, step, FUSE_SETATTR, handle.node, BytesOf(set), &reply,
                                 &outcome, handle.files);
  if (!go_on || reply.empty()) co_return go_on;
  if (As<fuse_attr_out>(reply).attr.size != step.size_bytes && visit->reachable != Copies::kEvery) {
    oracle_.Violation(absl::StrCat("SETATTR of ", visit->folder->name(), " ", handle.path,
                                   ": size ", As<fuse_attr_out>(reply).attr.size));
  }
  for (size_t copy = 0; copy < Copies::kAll.size(); ++copy) {
    if ((outcome.where & (1u << copy)) == 0) visit->handles[index].files[copy] = 0;
  }
  co_return !oracle_.failed();
}

Task<bool> Writers::LookThrough(Visit* visit, size_t index) {
  const Handle handle = visit->handles[index];
  const std::shared_ptr<Reserved> reserved = co_await Reserve(visit, FilesOf(handle));
  if (visit->sharing->left) co_return false;
  fuse_getattr_in get = {};
  get.getattr_flags = FUSE_GETATTR_FH;
  get.fh = handle.fh;
  const Answer answer = co_await Ask(visit, FUSE_GETATTR, handle.node, BytesOf(get));
  if (answer.error == EIO && handle.owner != 0) co_return co_await LoseLocks(visit, index);
  if (!Accept(*visit, answer, FUSE_GETATTR, handle.path)) co_return false;
  const uint64_t size = As<fuse_attr_out>(answer.body).attr.size;
  // By its name, the copy that serves now may answer.
  if (visit->reachable != Copies::kEvery && !visit->folder->HasSize(handle.files, size)) {
    oracle_.Violation(absl::StrCat("GETATTR through a handle of ", visit->folder->name(), " ",
                                   handle.path, ": size ", size));
  }
  co_return !oracle_.failed();
}

// --- Locks

bool Writers::MayLock(const Visit& visit, const Handle& handle, const Locks& locks) const {
  for (const uint64_t file : FilesOf(handle)) {
    const auto held = visit.sharing->locks.find(file);
    if (held == visit.sharing->locks.end()) continue;
    for (const auto& [owner, others] : held->second) {
      if (owner == handle.owner) continue;
      for (uint64_t at = 0; at < kLockedBytes; ++at) {
        if (locks[at] == Locked::kNone || others[at] == Locked::kNone) continue;
        if (locks[at] == Locked::kExclusive || others[at] == Locked::kExclusive) return false;
      }
    }
  }
  return true;
}

std::string Writers::DescribeLocks(const Visit& visit, const Handle& handle) const {
  std::string text;
  for (const uint64_t file : FilesOf(handle)) {
    for (const auto& [owner, locks] : visit.sharing->locks[file]) {
      absl::StrAppend(&text, "\n    file ", file, ", owner ", owner, ": ");
      for (const Locked kind : locks) text += "-sx"[static_cast<size_t>(kind)];
    }
  }
  for (size_t copy = 0; copy < Copies::kAll.size(); ++copy) {
    const testing::ScriptedFile* const file = visit.folder->FindOnServer(copy, handle.files[copy]);
    if (file == nullptr) continue;
    absl::StrAppend(&text, "\n    ", Copies::kAll[copy].target, ":");
    for (const testing::ScriptedLock& lock : file->locks) {
      absl::StrAppend(&text, " ", lock.owner, " ", lock.exclusive ? "x " : "s ", lock.offset, "+",
                      lock.length_bytes);
    }
  }
  return text;
}

Task<bool> Writers::LockThrough(Visit* visit, size_t index) {
  Handle& opened = visit->handles[index];
  if (opened.owner == 0) opened.owner = 1000 + ++last_owner_;
  const Handle handle = opened;
  const std::shared_ptr<Reserved> reserved = co_await Reserve(visit, FilesOf(handle));
  if (visit->sharing->left) co_return false;
  const uint64_t first = Below(kLockedBytes), last = std::min(kLockedBytes - 1, first + Below(6));
  const uint64_t what = Below(10);
  if (FilesOf(handle).size() > 1) co_return true;  // Which copy's it is nobody knows.
  const Locked kind = what < 3                     ? Locked::kNone
                      : what < 5 || !handle.writes ? Locked::kShared
                                                   : Locked::kExclusive;
  Locks asked = {};
  std::fill(asked.begin() + static_cast<int64_t>(first),
            asked.begin() + static_cast<int64_t>(last) + 1, kind);
  const bool may = MayLock(*visit, handle, asked);
  const Step through{.path = handle.path, .through_handle = true};
  const bool former = IsLockedByFormer(*visit, through, handle.files);
  fuse_lk_in lock = {};
  lock.fh = handle.fh;
  lock.owner = handle.owner;
  lock.lk = {.start = first,
             .end = last,
             .type = static_cast<uint32_t>(kind == Locked::kNone     ? F_UNLCK
                                           : kind == Locked::kShared ? F_RDLCK
                                                                     : F_WRLCK),
             .pid = 7};
  ++counts_.shared;
  counts_.beside += visit->sharing->names_change ? 1 : 0;
  const Answer answer = co_await Ask(visit, FUSE_SETLK, handle.node, BytesOf(lock));
  node_.world().Log(absl::StrCat("sharer ", handle.owner, " (", handle.fh,
                                 "): ", visit->folder->name(), " ", handle.path, " lock ",
                                 static_cast<int>(kind), " of ", first, "-", last, ": ",
                                 answer.error == 0 ? "done" : strerror(answer.error)));
  if (answer.error == EAGAIN && kind != Locked::kNone) {
    if (may && !former && !IsLockedByFormer(*visit, through, handle.files)) {
      oracle_.Violation(absl::StrCat("a lock of ", visit->folder->name(), " ", handle.path,
                                     " is refused, and nobody has one",
                                     DescribeLocks(*visit, handle)));
    }
    co_return !oracle_.failed();
  }
  if (answer.error == EIO) co_return co_await LoseLocks(visit, index);
  if (!Accept(*visit, answer, FUSE_SETLK, handle.path)) co_return false;
  if (!may && visit->reachable == Copies::kEvery) {
    // The others may have been on a copy that the link has left: they will hear of it.
    for (const uint64_t file : FilesOf(handle)) visit->sharing->locks[file].clear();
  } else if (!may) {
    oracle_.Violation(absl::StrCat("two owners have locked the same of ", visit->folder->name(),
                                   " ", handle.path, DescribeLocks(*visit, handle)));
    co_return false;
  }
  for (const uint64_t file : FilesOf(handle)) {
    Locks& held = visit->sharing->locks[file][handle.owner];
    std::fill(held.begin() + static_cast<int64_t>(first),
              held.begin() + static_cast<int64_t>(last) + 1, kind);
  }
  ++counts_.locked;
  co_return true;
}

Task<void> Writers::GiveBackLocks(Visit* visit, Handle handle) {
  const std::shared_ptr<Reserved> reserved = co_await Reserve(visit, FilesOf(handle));
  for (const uint64_t file : FilesOf(handle)) visit->sharing->locks[file].erase(handle.owner);
  node_.world().Log(absl::StrCat("sharer ", handle.owner, ": ", visit->folder->name(), " ",
                                 handle.path, " lock all back"));
  fuse_flush_in flush = {};
  flush.fh = handle.fh;
  flush.lock_owner = handle.owner;
  (void)co_await visit->mount->Ask(FUSE_FLUSH, handle.node, BytesOf(flush), visit->link);
}

Task<bool> Writers::LoseLocks(Visit* visit, size_t index) {
  const Handle handle = visit->handles[index];
  ++counts_.lost;
  const bool unsettled = node_.world().now() <= lab_.UnsettledUntil(visit->link);
  if (stays_ && !unsettled && !visit->mount->gone()) {
    oracle_.Violation("a lock is lost although every server is well");
  }
  for (const uint64_t file : FilesOf(handle)) visit->sharing->locks[file].erase(handle.owner);
  co_return !oracle_.failed();
}

bool Writers::IsLockedByFormer(const Visit& visit, const Step& step,
                               const Folder::Files& files) const {
  const Folder::Files about = step.through_handle ? files : visit.folder->FilesAt(step.path);
  for (size_t copy = 0; copy < Copies::kAll.size(); ++copy) {
    const testing::ScriptedFile* const file = visit.folder->FindOnServer(copy, about[copy]);
    testing::ScriptedServer& server = lab_.server(Copies::kAll[copy].server).scripted();
    if (file != nullptr && server.IsLockedByFormer(*file)) return true;
  }
  return false;
}

bool Writers::AreLocksOnAServer(const Visit& visit, const Handle& handle) const {
  for (size_t copy = 0; copy < Copies::kAll.size(); ++copy) {
    const testing::ScriptedFile* const file = visit.folder->FindOnServer(copy, handle.files[copy]);
    if (file == nullptr) continue;
    const Locks& held = visit.sharing->locks[handle.files[copy]][handle.owner];
    bool all = true;
    for (uint64_t at = 0; at < kLockedBytes && all; ++at) {
      if (held[at] == Locked::kNone) continue;
      all = std::any_of(file->locks.begin(), file->locks.end(),
                        [&](const testing::ScriptedLock& lock) {
                          return lock.offset <= at && at < lock.offset + lock.length_bytes &&
                                 (lock.exclusive || held[at] == Locked::kShared);
                        });
    }
    if (all) return true;
  }
  return false;
}

Task<bool> Writers::CheckLocks(Visit* visit, size_t index) {
  const Handle handle = visit->handles[index];
  if (handle.owner == 0 || AreLocksOnAServer(*visit, handle)) co_return true;
  const int64_t lost = counts_.lost;
  if (!co_await ReadBack(visit, index)) co_return false;
  if (counts_.lost == lost && !visit->mount->gone() && !AreLocksOnAServer(*visit, handle)) {
    oracle_.Violation(absl::StrCat("what is locked of ", visit->folder->name(), " ", handle.path,
                                   " is locked on no server, and nobody was told"));
  }
  co_return !oracle_.failed();
}

}  // namespace dfscsi::simulation
