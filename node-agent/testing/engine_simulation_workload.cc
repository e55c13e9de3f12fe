#include "node-agent/testing/engine_simulation_workload.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <string.h>
#include <unistd.h>

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace dfscsi::simulation {
namespace {

using runtime::Deadline;
using runtime::Task;

// GETATTR of the root and STATFS answer from the last known values after 1 s.
constexpr absl::Duration kAtOnce = absl::Milliseconds(1'500);
constexpr uint64_t kNoNode = 0;

template <typename T>
std::string BytesOf(const T& value) {
  return std::string(reinterpret_cast<const char*>(&value), sizeof(value));
}

template <typename T>
T As(const std::string& bytes, size_t offset = 0) {
  T value = {};
  if (bytes.size() >= offset + sizeof(T)) memcpy(&value, bytes.data() + offset, sizeof(T));
  return value;
}

}  // namespace

void Workload::Start(const std::shared_ptr<Mount>& mount, int applications) {
  for (int i = 0; i < applications; ++i) {
    progress_.push_back({.mount = mount});
    ++running_;
    node_.SpawnApplication(Run(mount, progress_.size() - 1));
  }
}

bool Workload::AllGotOnSince(const std::vector<Progress>& before) const {
  for (size_t i = 0; i < before.size(); ++i) {
    // The visit that was under way does not count.
    if (!progress_[i].mount->gone() && progress_[i].visits < before[i].visits + 2) return false;
  }
  return true;
}

int64_t Workload::visits() const {
  int64_t visits = 0;
  for (const Progress& one : progress_) visits += one.visits;
  return visits;
}

Task<void> Workload::Run(std::shared_ptr<Mount> mount, size_t self) {
  Visit held{.mount = mount};  // One file that stays open over many visits.
  uint64_t held_fh = 0;
  int held_file = 0;
  while (!stopping_ && !mount->gone() && !oracle_.failed()) {
    Visit visit{.mount = mount, .link = Lab::kLinks[Below(Lab::kLinks.size())]};
    const uint64_t what = Below(100);
    if (what < 35) {
      const int file = static_cast<int>(Below(kFileBytes.size()));
      uint64_t fh = 0;
      uint64_t node = 0;
      if (co_await OpenFile(&visit, file, &fh, &node)) {
        if (co_await ReadSome(&visit, fh, file)) (void)co_await SeekSome(&visit, fh, file);
      }
    } else if (what < 65) {
      if (held.handles.empty()) {
        held.link = visit.link;
        held_file = static_cast<int>(Below(kFileBytes.size()));
        uint64_t node = 0;
        if (!co_await OpenFile(&held, held_file, &held_fh, &node)) co_await Leave(&held);
      }
      if (!held.handles.empty() && !co_await ReadSome(&held, held_fh, held_file)) {
        co_await Leave(&held);
      }
    } else if (what < 75) {
      (void)co_await List(&visit, "many", kManyEntries);
    } else if (what < 77) {
      (void)co_await List(&visit, "large", kLargeEntries);
    } else if (what < 82) {
      visit.link.clear();
      (void)co_await ListRoot(&visit);
    } else if (what < 86) {
      (void)co_await LookUpNothing(&visit);
    } else {
      (void)co_await StatSome(&visit);
    }
    co_await Leave(&visit);
    ++progress_[self].visits;
    const absl::Duration pause = calm_
                                     ? absl::Milliseconds(50)
                                     : longest_pause_ * (static_cast<double>(Below(1000)) / 1000.0);
    if (!stopping_) (void)co_await runtime::Sleep(pause, Deadline::Never());
  }
  co_await Leave(&held);
  --running_;
}

bool Workload::IsAllowed(const Visit& visit, uint32_t opcode, int error, bool interruptible) const {
  if (visit.mount->gone()) return true;
  if (error == EINTR) return interruptible;
  // EIO: removed and made again between an answer "not covered" and the question where else.
  const bool of_a_name = error == ENOENT || error == ESTALE || error == ENOTDIR || error == EIO;
  return of_a_name && node_.world().now() <= lab_.UnsettledUntil(visit.link);
}

Task<bool> Workload::Ask(Visit* visit, uint32_t opcode, uint64_t node, std::string body,
                         std::string* reply) {
  absl::Duration signal = absl::InfiniteDuration();
  if (!calm_ && Below(40) == 0) signal = absl::Milliseconds(static_cast<int64_t>(Below(1500)));
  Mount::Answer answer =
      co_await visit->mount->Ask(opcode, node, std::move(body), visit->link, signal);
  if (oracle_.failed()) co_return false;
  if (answer.error != 0) {
    if (!IsAllowed(*visit, opcode, answer.error, signal != absl::InfiniteDuration())) {
      oracle_.Violation(absl::StrCat("opcode ", opcode, " below link \"", visit->link,
                                     "\" of mount ", visit->mount->id(), ": ",
                                     strerror(answer.error)));
    }
    co_return false;
  }
  if (((opcode == FUSE_GETATTR && node == FUSE_ROOT_ID) || opcode == FUSE_STATFS) &&
      answer.waited > kAtOnce) {
    oracle_.Violation(
        absl::StrCat("opcode ", opcode, " took ", absl::FormatDuration(answer.waited)));
  }
  *reply = std::move(answer.body);
  co_return true;
}

Task<bool> Workload::Lookup(Visit* visit, uint64_t parent, std::string name, uint64_t* node) {
  std::string reply;
  if (!co_await Ask(visit, FUSE_LOOKUP, parent, absl::StrCat(name, std::string(1, '\0')), &reply)) {
    co_return false;
  }
  const auto entry = As<fuse_entry_out>(reply);
  if (entry.nodeid == kNoNode) {
    oracle_.Violation(absl::StrCat("LOOKUP of ", name, ": no node"));
    co_return false;
  }
  visit->lookups.emplace_back(entry.nodeid, 1);
  oracle_.CheckInode(visit->mount->id(),
                     absl::StrCat(parent == FUSE_ROOT_ID ? "" : visit->link, "/", name),
                     entry.attr.ino);
  *node = entry.nodeid;
  if (name.starts_with("file")) {
    oracle_.CheckFileSize(name, kFileBytes[static_cast<size_t>(name.back() - '0')],
                          entry.attr.size);
  }
  co_return true;
}

Task<bool> Workload::OpenFile(Visit* visit, int file, uint64_t* fh, uint64_t* node) {
  uint64_t link = 0;
  if (!co_await Lookup(visit, FUSE_ROOT_ID, visit->link, &link)) co_return false;
  if (!co_await Lookup(visit, link, FileName(file), node)) co_return false;
  fuse_open_in open = {};
  open.flags = O_RDONLY;
  std::string reply;
  if (!co_await Ask(visit, FUSE_OPEN, *node, BytesOf(open), &reply)) co_return false;
  *fh = As<fuse_open_out>(reply).fh;
  visit->handles.emplace_back(*fh, false);
  co_return true;
}

Task<bool> Workload::ReadSome(Visit* visit, uint64_t fh, int file) {
  const uint64_t size = kFileBytes[static_cast<size_t>(file)];
  fuse_read_in read = {};
  read.fh = fh;
  read.offset = Below(size + 100);
  read.size = static_cast<uint32_t>(Below(8) == 0 ? 128 << 10 : 4096);
  std::string reply;
  // The node of a READ is not looked at: the handle says all.
  if (!co_await Ask(visit, FUSE_READ, FUSE_ROOT_ID, BytesOf(read), &reply)) co_return false;
  oracle_.CheckBytes(FileName(file), read.offset, read.size, reply);
  co_return !oracle_.failed();
}

Task<bool> Workload::SeekSome(Visit* visit, uint64_t fh, int file) {
  const uint64_t size = kFileBytes[static_cast<size_t>(file)];
  fuse_lseek_in seek = {};
  seek.fh = fh;
  seek.offset = Below(size);
  seek.whence = Below(2) == 0 ? SEEK_DATA : SEEK_HOLE;
  std::string reply;
  if (!co_await Ask(visit, FUSE_LSEEK, FUSE_ROOT_ID, BytesOf(seek), &reply)) co_return false;
  const uint64_t want = seek.whence == SEEK_DATA ? seek.offset : size;
  if (As<fuse_lseek_out>(reply).offset != want) {
    oracle_.Violation(absl::StrCat("LSEEK in ", FileName(file), " from ", seek.offset, ": ",
                                   As<fuse_lseek_out>(reply).offset, " instead of ", want));
  }
  co_return !oracle_.failed();
}

Task<bool> Workload::StatSome(Visit* visit) {
  const std::string none(sizeof(fuse_getattr_in), '\0');
  std::string reply;
  const std::string link = std::exchange(visit->link, "");
  if (!co_await Ask(visit, FUSE_GETATTR, FUSE_ROOT_ID, none, &reply)) co_return false;
  if ((As<fuse_attr_out>(reply).attr.mode & S_IFMT) != S_IFDIR) {
    oracle_.Violation("the root is no directory");
  }
  if (!co_await Ask(visit, FUSE_STATFS, FUSE_ROOT_ID, "", &reply)) co_return false;
  visit->link = link;
  uint64_t node = 0;
  if (!co_await Lookup(visit, FUSE_ROOT_ID, link, &node)) co_return false;
  if (!co_await Ask(visit, FUSE_GETATTR, node, none, &reply)) co_return false;
  if ((As<fuse_attr_out>(reply).attr.mode & S_IFMT) != S_IFDIR) {
    oracle_.Violation(absl::StrCat(link, " is no directory"));
  }
  const int file = static_cast<int>(Below(kFileBytes.size()));
  if (!co_await Lookup(visit, node, FileName(file), &node)) co_return false;
  if (!co_await Ask(visit, FUSE_GETATTR, node, none, &reply)) co_return false;
  oracle_.CheckFileSize(FileName(file), kFileBytes[static_cast<size_t>(file)],
                        As<fuse_attr_out>(reply).attr.size);
  co_return !oracle_.failed();
}

Task<bool> Workload::LookUpNothing(Visit* visit) {
  uint64_t link = 0;
  if (!co_await Lookup(visit, FUSE_ROOT_ID, visit->link, &link)) co_return false;
  const Mount::Answer answer =
      co_await visit->mount->Ask(FUSE_LOOKUP, link, std::string("missing\0", 8), visit->link);
  if (answer.error != ENOENT && !IsAllowed(*visit, FUSE_LOOKUP, answer.error, false)) {
    oracle_.Violation(absl::StrCat("LOOKUP of a missing name below \"", visit->link,
                                   "\": ", answer.error == 0 ? "found" : strerror(answer.error)));
  }
  co_return !oracle_.failed();
}

// --- Directories

struct Workload::Page {
  std::vector<std::string> names;
  std::vector<uint64_t> offsets;  // Where each entry says that the next one begins.
};

Task<bool> Workload::ReadPage(Visit* visit, uint64_t fh, uint64_t offset, bool plus, Page* page) {
  fuse_read_in read = {};
  read.fh = fh;
  read.offset = offset;
  read.size = static_cast<uint32_t>(1000 + Below(7000));
  std::string reply;
  if (!co_await Ask(visit, plus ? FUSE_READDIRPLUS : FUSE_READDIR, FUSE_ROOT_ID, BytesOf(read),
                    &reply)) {
    co_return false;
  }
  for (size_t at = 0; at < reply.size();) {
    if (plus) {
      const auto entry = As<fuse_entry_out>(reply, at);
      if (entry.nodeid != kNoNode) visit->mount->Forget(entry.nodeid, 1);
      at += sizeof(entry);
    }
    const auto dirent = As<fuse_dirent>(reply, at);
    page->names.push_back(reply.substr(at + FUSE_NAME_OFFSET, dirent.namelen));
    page->offsets.push_back(dirent.off);
    at += FUSE_DIRENT_ALIGN(FUSE_NAME_OFFSET + dirent.namelen);
  }
  co_return true;
}

Task<bool> Workload::ReadAll(Visit* visit, uint64_t fh, uint64_t offset, bool plus,
                             std::vector<std::string>* names, std::vector<uint64_t>* offsets) {
  while (true) {
    Page page;
    if (!co_await ReadPage(visit, fh, offset, plus, &page)) co_return false;
    if (page.names.empty()) co_return true;
    names->insert(names->end(), page.names.begin(), page.names.end());
    offsets->insert(offsets->end(), page.offsets.begin(), page.offsets.end());
    offset = page.offsets.back();
    if (names->size() > size_t{2} * kLargeEntries) {
      oracle_.Violation("a listing without an end");
      co_return false;
    }
    if (!calm_ && Below(4) == 0) {
      (void)co_await runtime::Sleep(absl::Milliseconds(static_cast<int64_t>(Below(2000))),
                                    Deadline::Never());
    }
  }
}

Task<bool> Workload::List(Visit* visit, std::string directory, int entries) {
  uint64_t node = 0;
  if (!co_await Lookup(visit, FUSE_ROOT_ID, visit->link, &node)) co_return false;
  if (!co_await Lookup(visit, node, directory, &node)) co_return false;
  std::string reply;
  if (!co_await Ask(visit, FUSE_OPENDIR, node, std::string(sizeof(fuse_open_in), '\0'), &reply)) {
    co_return false;
  }
  const uint64_t fh = As<fuse_open_out>(reply).fh;
  visit->handles.emplace_back(fh, true);
  const bool plus = Below(2) == 0;
  std::vector<std::string> names;
  std::vector<uint64_t> offsets;
  if (!co_await ReadAll(visit, fh, 0, plus, &names, &offsets)) co_return false;
  oracle_.CheckListing(absl::StrCat(visit->link, "/", directory), names, entries);
  if (oracle_.failed()) co_return false;
  // seekdir(): from any place that was told, the same rest follows.
  const size_t from = Below(names.size());
  std::vector<std::string> again(names.begin(), names.begin() + static_cast<int64_t>(from) + 1);
  if (!co_await ReadAll(visit, fh, offsets[from], plus, &again, &offsets)) co_return false;
  oracle_.CheckListing(absl::StrCat(visit->link, "/", directory, " from place ", from), again,
                       entries);
  co_return !oracle_.failed();
}

Task<bool> Workload::ListRoot(Visit* visit) {
  std::string reply;
  if (!co_await Ask(visit, FUSE_OPENDIR, FUSE_ROOT_ID, std::string(sizeof(fuse_open_in), '\0'),
                    &reply)) {
    co_return false;
  }
  const uint64_t fh = As<fuse_open_out>(reply).fh;
  visit->handles.emplace_back(fh, true);
  std::vector<std::string> names;
  std::vector<uint64_t> offsets;
  if (!co_await ReadAll(visit, fh, 0, Below(2) == 0, &names, &offsets)) co_return false;
  for (const char* const link : Lab::kLinks) {
    const int64_t count = std::count(names.begin(), names.end(), link);
    const bool settled = node_.world().now() > lab_.UnsettledUntil(link);
    if (count > 1 || (count == 0 && settled)) {
      oracle_.Violation(absl::StrCat("the root's listing has ", link, " ", count, " times"));
    }
  }
  co_return !oracle_.failed();
}

Task<void> Workload::Leave(Visit* visit) {
  for (const auto& [fh, directory] : visit->handles) {
    fuse_release_in release = {};
    release.fh = fh;
    const Mount::Answer answer = co_await visit->mount->Ask(
        directory ? FUSE_RELEASEDIR : FUSE_RELEASE, FUSE_ROOT_ID, BytesOf(release), "");
    if (answer.error != 0 && !visit->mount->gone() && !oracle_.failed()) {
      oracle_.Violation(absl::StrCat("RELEASE: ", strerror(answer.error)));
    }
  }
  for (const auto& [node, count] : visit->lookups) visit->mount->Forget(node, count);
  visit->handles.clear();
  visit->lookups.clear();
}

}  // namespace dfscsi::simulation
