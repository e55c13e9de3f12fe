#include "node-agent/testing/engine_simulation_lockers.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <string.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "node-agent/testing/engine_simulation_requests.h"

namespace dfscsi::simulation {

using requests::As;
using requests::BytesOf;
using requests::Named;
using runtime::Deadline;
using runtime::Task;

namespace {

// Locks wait for their own server (write_grace, 30 s), and then everything may begin anew.
constexpr absl::Duration kPatience = absl::Seconds(45);
// Within it the engine finds out that a server has lost its locks, and takes them again.
constexpr absl::Duration kFoundOut = absl::Seconds(40);

}  // namespace

void Lockers::Start(std::shared_ptr<Mount> mount, int owners) {
  auto file = std::make_shared<File>();
  file->mount = std::move(mount);
  file->link = Lab::kLinks[Below(Lab::kLinks.size())];
  file->folder = Copies::BaseName(files_++ % Copies::kBases);
  file->owners.resize(static_cast<size_t>(owners));
  file->left = owners;
  for (size_t i = 0; i < file->owners.size(); ++i) {
    file->owners[i].id = 1000 + ++last_owner_;
    ++running_;
    node_.SpawnApplication(Run(file, i));
  }
}

Task<void> Lockers::Run(std::shared_ptr<File> file, size_t self) {
  while (!stopping_ && !file->mount->gone() && !oracle_.failed()) {
    if (!file->owners[self].is_open) (void)co_await Open(file, self);
    if (file->owners[self].is_open) co_await Step(file, self);
    const absl::Duration pause =
        calm_ ? absl::Milliseconds(20)
              : 0.2 * longest_pause_ * (static_cast<double>(1 + Below(1000)) / 1000.0);
    (void)co_await runtime::Sleep(std::max(pause, absl::Milliseconds(5)), Deadline::Never());
  }
  if (!file->mount->gone() && !oracle_.failed()) co_await CheckHeld(file, self);
  co_await Close(file, self);
  if (--file->left == 0) {
    for (const auto& [node, count] : file->lookups) file->mount->Forget(node, count);
  }
  --running_;
}

bool Lockers::MayFail(const File& file, int error) const {
  if (file.mount->gone() || oracle_.failed()) return true;
  const bool unsettled = node_.world().now() <= lab_.UnsettledUntil(file.link);
  const bool gone = error == ENOENT || error == ESTALE || error == ENOTDIR;
  return (unsettled && (gone || error == EIO)) || (gone && !stays_);
}

Task<bool> Lockers::Open(std::shared_ptr<File> file, size_t self) {
  uint64_t node = FUSE_ROOT_ID;
  for (const std::string& name : {file->link, std::string(Copies::kFolder), file->folder,
                                  std::string(Copies::kBaseFiles[0])}) {
    const Mount::Answer found = co_await file->mount->Ask(
        FUSE_LOOKUP, node, Named("", name), file->link, absl::InfiniteDuration(), kPatience);
    if (found.error != 0) {
      if (!MayFail(*file, found.error)) {
        oracle_.Violation(absl::StrCat("locker: LOOKUP of ", name, ": ", strerror(found.error)));
      }
      co_return false;
    }
    node = As<fuse_entry_out>(found.body).nodeid;
    file->lookups.emplace_back(node, 1);
  }
  fuse_open_in open = {};
  open.flags = O_RDWR;
  const Mount::Answer opened = co_await file->mount->Ask(FUSE_OPEN, node, BytesOf(open), file->link,
                                                         absl::InfiniteDuration(), kPatience);
  if (opened.error != 0) {
    if (!MayFail(*file, opened.error)) {
      oracle_.Violation(absl::StrCat("locker: OPEN: ", strerror(opened.error)));
    }
    co_return false;
  }
  file->owners[self].fh = As<fuse_open_out>(opened.body).fh;
  file->owners[self].is_open = true;
  co_return true;
}

Task<void> Lockers::Close(std::shared_ptr<File> file, size_t self) {
  Owner& owner = file->owners[self];
  if (!owner.is_open) co_return;
  Lose(*file, self);
  owner.is_open = false;
  ++file->changing;
  fuse_flush_in flush = {};
  flush.fh = owner.fh;
  flush.lock_owner = owner.id;
  (void)co_await file->mount->Ask(FUSE_FLUSH, FUSE_ROOT_ID, BytesOf(flush), file->link,
                                  absl::InfiniteDuration(), kPatience);
  fuse_release_in release = {};
  release.fh = file->owners[self].fh;
  (void)co_await file->mount->Ask(FUSE_RELEASE, FUSE_ROOT_ID, BytesOf(release), "");
  --file->changing;
  ++file->changes;
}

void Lockers::Lose(File& file, size_t self) {
  std::fill_n(file.owners[self].held, kBytes, Kind::kNone);
  ++file.changes;
}

int Lockers::Conflicting(const File& file, size_t self) const {
  for (size_t other = 0; other < file.owners.size(); ++other) {
    if (other == self) continue;
    for (uint64_t at = 0; at < kBytes; ++at) {
      const Kind mine = file.owners[self].held[at], its = file.owners[other].held[at];
      if (mine == Kind::kNone || its == Kind::kNone) continue;
      if (mine == Kind::kExclusive || its == Kind::kExclusive) return static_cast<int>(other);
    }
  }
  return -1;
}

Task<int> Lockers::Set(std::shared_ptr<File> file, size_t self, uint32_t type, uint64_t first,
                       uint64_t last) {
  fuse_lk_in lock = {};
  lock.fh = file->owners[self].fh;
  lock.owner = file->owners[self].id;
  lock.lk = {.start = first, .end = last, .type = type, .pid = 7};
  const Mount::Answer answer = co_await file->mount->Ask(
      FUSE_SETLK, FUSE_ROOT_ID, BytesOf(lock), file->link, absl::InfiniteDuration(), kPatience);
  node_.world().Log(absl::StrCat("locker ", lock.owner, ": ",
                                 type == F_UNLCK   ? "unlock "
                                 : type == F_RDLCK ? "read lock "
                                                   : "write lock ",
                                 first, "-", last, ": ",
                                 answer.error == 0 ? "done" : strerror(answer.error)));
  co_return answer.error;
}

Task<bool> Lockers::Use(std::shared_ptr<File> file, size_t self) {
  fuse_read_in read = {};
  read.fh = file->owners[self].fh;
  read.size = 4096;
  const bool locked = IsLockedByFormer(*file);
  const Mount::Answer answer = co_await file->mount->Ask(
      FUSE_READ, FUSE_ROOT_ID, BytesOf(read), file->link, absl::InfiniteDuration(), kPatience);
  if (answer.error == 0) co_return true;
  // What a dead agent had locked stays so while its process of the server hangs.
  const bool refused = answer.error == EACCES && (locked || IsLockedByFormer(*file));
  if (answer.error != EIO && !refused && !MayFail(*file, answer.error)) {
    oracle_.Violation(absl::StrCat("locker: READ: ", strerror(answer.error)));
  }
  co_return false;
}

Task<void> Lockers::Step(std::shared_ptr<File> file, size_t self) {
  const uint64_t first = Below(kBytes), last = std::min(kBytes - 1, first + Below(6));
  const uint64_t what = Below(10);
  const uint32_t type = what < 3 ? F_WRLCK : what < 6 ? F_RDLCK : F_UNLCK;
  int error = 0;
  if (what == 9) {
    error = co_await Use(file, self) ? 0 : EIO;
  } else {
    // What is given back, or made less, is not held any more from now on.
    for (uint64_t at = first; at <= last; ++at) {
      Kind& held = file->owners[self].held[at];
      if (type == F_UNLCK) held = Kind::kNone;
      if (type == F_RDLCK && held == Kind::kExclusive) held = Kind::kShared;
    }
    const bool alone = file->changing++ == 0 &&
                       std::all_of(file->owners.begin(), file->owners.end(), [&](const Owner& o) {
                         return &o == &file->owners[self] ||
                                std::all_of(o.held, o.held + kBytes,
                                            [](Kind kind) { return kind == Kind::kNone; });
                       });
    const int64_t changes = ++file->changes;
    error = co_await Set(file, self, type, first, last);
    --file->changing;
    if (error == EAGAIN && type != F_UNLCK) {
      ++counts_.refused;
      if (calm_ && alone && changes == file->changes) {
        oracle_.Violation("a lock is refused, and nobody has one");
      }
      co_return;
    }
    ++file->changes;
  }
  if (error != 0) {
    if (error == EIO && stays_ && !MayFail(*file, error)) {
      oracle_.Violation("a lock is lost although every server is well");
    } else if (error != EIO && !MayFail(*file, error)) {
      oracle_.Violation(absl::StrCat("SETLK: ", strerror(error)));
    }
    ++counts_.lost;
    co_await Close(file, self);
    co_return;
  }
  if (what == 9) co_return;
  ++(type == F_UNLCK ? counts_.unlocked : counts_.locked);
  if (type == F_UNLCK) co_return;
  std::fill(file->owners[self].held + first, file->owners[self].held + last + 1,
            type == F_WRLCK ? Kind::kExclusive : Kind::kShared);
  const int other = Conflicting(*file, self);
  if (other < 0) co_return;
  // The other one has lost it, and is to hear of it; or the two exclude each other no more.
  if (co_await Use(file, static_cast<size_t>(other)) && Conflicting(*file, self) == other) {
    oracle_.Violation(absl::StrCat(
        "owners ", file->owners[self].id, " and ", file->owners[static_cast<size_t>(other)].id,
        " have locked the same in ", file->folder, " of link ", file->link));
  } else {
    Lose(*file, static_cast<size_t>(other));
  }
}

const testing::ScriptedFile* Lockers::Find(size_t copy, const File& file) const {
  const testing::ScriptedFile* const folder = copies_.Find(copy, file.folder);
  if (folder == nullptr) return nullptr;
  const auto one = std::find_if(folder->children.begin(), folder->children.end(),
                                [](auto& child) { return child.second->name == u"one"; });
  return one == folder->children.end() ? nullptr : one->second.get();
}

bool Lockers::IsLockedByFormer(const File& file) const {
  for (size_t copy = 0; copy < Copies::kAll.size(); ++copy) {
    const testing::ScriptedFile* const one = Find(copy, file);
    testing::ScriptedServer& server = lab_.server(Copies::kAll[copy].server).scripted();
    if (one != nullptr && server.IsLockedByFormer(*one)) return true;
  }
  return false;
}

bool Lockers::IsHeldOnAServer(const File& file, const Owner& owner) const {
  for (size_t copy = 0; copy < Copies::kAll.size(); ++copy) {
    const testing::ScriptedFile* const one = Find(copy, file);
    if (one == nullptr) continue;
    bool all = true;
    for (uint64_t at = 0; at < kBytes && all; ++at) {
      if (owner.held[at] == Kind::kNone) continue;
      all =
          std::any_of(one->locks.begin(), one->locks.end(), [&](const testing::ScriptedLock& lock) {
            return lock.offset <= at && at < lock.offset + lock.length_bytes &&
                   (lock.exclusive || owner.held[at] == Kind::kShared);
          });
    }
    if (all) return true;
  }
  return false;
}

Task<void> Lockers::CheckHeld(std::shared_ptr<File> file, size_t self) {
  if (!file->owners[self].is_open) co_return;
  (void)co_await runtime::Sleep(kFoundOut, Deadline::Never());
  if (file->mount->gone() || oracle_.failed()) co_return;
  if (IsHeldOnAServer(*file, file->owners[self])) co_return;
  if (co_await Use(file, self) && !IsHeldOnAServer(*file, file->owners[self])) {
    oracle_.Violation(absl::StrCat("what owner ", file->owners[self].id, " has locked in ",
                                   file->folder, " of link ", file->link,
                                   " is locked on no server, and nobody was told"));
  }
}

}  // namespace dfscsi::simulation
