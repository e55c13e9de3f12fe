// What the operations on a tree do, and what each must leave in it.

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "e2e/tools/shadow_file.h"
#include "e2e/tools/tree_exercise.h"

namespace dfscsi::exercise {
namespace {

// How long a removed file's own name may still be there after its last close.
constexpr absl::Duration kRemovalTime = absl::Seconds(20);
constexpr absl::Duration kPollEvery = absl::Milliseconds(20);

// The errno of a call that has just returned `result`.
int ErrnoOf(int result) { return result < 0 ? errno : 0; }

// Whether a call ended as the model did.
absl::Status SameErrno(absl::string_view what, int error, int expected) {
  if (error == expected) return absl::OkStatus();
  return absl::InternalError(
      absl::StrCat(what, ": ", ErrnoName(error), " instead of ", ErrnoName(expected)));
}

}  // namespace

// --- Comparing

absl::Status TreeExercise::CompareStat(const TreePath& path, const TreeNode& node) const {
  struct stat status = {};
  if (lstat(FullPath(path).c_str(), &status) != 0) return ErrnoStatus("stat");
  if (S_ISDIR(status.st_mode) != node.is_directory ||
      S_ISREG(status.st_mode) == node.is_directory) {
    return absl::InternalError(absl::StrFormat("stat says mode %o of a %s", status.st_mode,
                                               node.is_directory ? "directory" : "file"));
  }
  if (node.is_directory || static_cast<uint64_t>(status.st_size) == node.content.size()) {
    return absl::OkStatus();
  }
  return absl::InternalError(
      absl::StrFormat("stat says %d bytes instead of %d", status.st_size, node.content.size()));
}

absl::Status TreeExercise::CompareContent(int fd, const TreeNode& node, uint64_t offset,
                                          uint64_t size) const {
  ShadowFile expected(kFileBytesMax);
  expected.Write(0, node.content);
  std::vector<uint8_t> found(size);
  const ssize_t count = pread(fd, found.data(), size, static_cast<off_t>(offset));
  if (count < 0) return ErrnoStatus("pread");
  found.resize(static_cast<size_t>(count));
  const size_t there = expected.Part(offset, size).size();
  if (found.size() != there) {
    return absl::InternalError(
        absl::StrFormat("pread: %d bytes instead of %d", found.size(), there));
  }
  return expected.Compare(offset, found);
}

absl::Status TreeExercise::CompareListing(const TreePath& path, const TreeNode& node,
                                          int* hidden) const {
  DIR* const listing = opendir(FullPath(path).c_str());
  if (listing == nullptr) return ErrnoStatus("opendir");
  std::set<std::string> left;
  for (const auto& [name, entry] : node.entries) left.insert(name);
  absl::Status status = absl::OkStatus();
  *hidden = 0;
  errno = 0;
  while (const dirent* const entry = readdir(listing)) {
    const std::string name = entry->d_name;
    if (name == "." || name == "..") continue;
    if (options_.smb && absl::StartsWith(name, kHiddenPrefix)) {
      ++*hidden;
    } else if (left.erase(name) == 0) {
      status = absl::InternalError(
          absl::StrCat("the listing has ", name, node.entries.contains(name) ? " twice" : ""));
    } else if (const unsigned char type = node.entries.at(name)->is_directory ? DT_DIR : DT_REG;
               entry->d_type != type && entry->d_type != DT_UNKNOWN) {
      status = absl::InternalError(absl::StrCat("the listing has a wrong type of ", name));
    }
    errno = 0;
  }
  if (errno != 0) status = ErrnoStatus("readdir");
  closedir(listing);
  if (!status.ok() || left.empty()) return status;
  return absl::InternalError(absl::StrCat("the listing lacks ", *left.begin()));
}

absl::Status TreeExercise::CheckBelow(const TreePath& path, TreeNode& node) {
  if (!node.is_directory) {
    if (const absl::Status status = CompareStat(path, node); !status.ok()) return status;
    const int fd = open(FullPath(path).c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) return ErrnoStatus("open");
    const absl::Status status = CompareContent(fd, node, 0, kFileBytesMax);
    close(fd);
    return status;
  }
  const auto holds = [&node](const Slot& slot) {
    return slot.node != nullptr && slot.node->is_removed && slot.node->parent == &node;
  };
  const bool may_be_hidden = std::any_of(slots_.begin(), slots_.end(), holds);
  const absl::Time end = absl::Now() + kRemovalTime;
  int hidden = 0;
  absl::Status status = CompareListing(path, node, &hidden);
  while (status.ok() && hidden > 0 && !may_be_hidden) {
    if (absl::Now() > end) return absl::InternalError("a removed file's own name stays");
    absl::SleepFor(kPollEvery);
    status = CompareListing(path, node, &hidden);
  }
  if (!may_be_hidden) node.had_removed_files = false;
  for (const auto& [name, entry] : node.entries) {
    if (!status.ok()) break;
    TreePath below = path;
    below.push_back(name);
    status = CheckBelow(below, *entry);
    if (!status.ok() && !absl::StrContains(status.message(), " [")) {
      status = absl::InternalError(absl::StrCat(status.message(), " [", FullPath(below), "]"));
    }
  }
  return status;
}

absl::Status TreeExercise::Check(const Words&) {
  for (const Slot& slot : slots_) {
    if (slot.fd < 0) continue;
    const absl::Status status = CompareContent(slot.fd, *slot.node, 0, kFileBytesMax);
    if (!status.ok()) return absl::InternalError(absl::StrCat(status.message(), " by its handle"));
  }
  return CheckBelow({}, *model_->root());
}

absl::Status TreeExercise::Stat(const Words& words) {
  const TreePath path = PathOf(words.Word(1));
  std::shared_ptr<TreeNode> node;
  const int expected = model_->Find(path, &node);
  if (expected == 0) return CompareStat(path, *node);
  struct stat status = {};
  return SameErrno("stat", ErrnoOf(lstat(FullPath(path).c_str(), &status)), expected);
}

absl::Status TreeExercise::List(const Words& words) {
  const TreePath path = PathOf(words.Word(1));
  std::shared_ptr<TreeNode> node;
  int expected = model_->Find(path, &node);
  if (expected == 0 && !node->is_directory) expected = ENOTDIR;
  int hidden = 0;
  if (expected == 0) return CompareListing(path, *node, &hidden);
  DIR* const listing = opendir(FullPath(path).c_str());
  const absl::Status status = SameErrno("opendir", ErrnoOf(listing == nullptr ? -1 : 0), expected);
  if (listing != nullptr) closedir(listing);
  return status;
}

// --- Handles

TreeExercise::Slot& TreeExercise::SlotOf(absl::string_view number) {
  return slots_[Words(number).Number(0) % kSlots];
}

absl::Status TreeExercise::CloseSlot(Slot& slot) {
  if (slot.fd < 0) return absl::OkStatus();
  --slot.node->open_handles;
  slot.node = nullptr;
  return close(std::exchange(slot.fd, -1)) == 0 ? absl::OkStatus() : ErrnoStatus("close");
}

absl::Status TreeExercise::OpenInto(const TreePath& path, absl::string_view slot_number,
                                    int flags) {
  Slot& slot = SlotOf(slot_number);
  absl::Status closed = CloseSlot(slot);
  if (!closed.ok()) return closed;
  const int fd = open(FullPath(path).c_str(), O_RDWR | O_CLOEXEC | flags, 0644);
  const int error = ErrnoOf(fd);
  std::shared_ptr<TreeNode> node;
  const int expected = model_->Open(path, (flags & O_CREAT) != 0, (flags & O_EXCL) != 0,
                                    (flags & O_TRUNC) != 0, &node);
  absl::Status status = SameErrno("open", error, expected);
  if (!status.ok() || fd < 0) {
    if (fd >= 0) close(fd);
    return status;
  }
  slot.fd = fd;
  slot.node = std::move(node);
  ++slot.node->open_handles;
  return CompareStat(path, *slot.node);
}

absl::Status TreeExercise::Create(const Words& words) {
  return OpenInto(PathOf(words.Word(1)), words.Word(2), O_CREAT | O_EXCL);
}

absl::Status TreeExercise::Open(const Words& words) {
  const absl::string_view letters = words.Word(3);
  const int flags = (absl::StrContains(letters, "c") ? O_CREAT : 0) |
                    (absl::StrContains(letters, "t") ? O_TRUNC : 0);
  return OpenInto(PathOf(words.Word(1)), words.Word(2), flags);
}

absl::Status TreeExercise::Close(const Words& words) { return CloseSlot(SlotOf(words.Word(1))); }

absl::Status TreeExercise::Write(const Words& words) {
  const Slot& slot = SlotOf(words.Word(1));
  if (slot.fd < 0) return absl::OkStatus();
  const uint64_t offset = words.Number(2);
  std::vector<uint8_t> bytes(words.Number(3));
  FillContent(static_cast<uint32_t>(words.Number(4)), offset, absl::MakeSpan(bytes));
  const ssize_t count = pwrite(slot.fd, bytes.data(), bytes.size(), static_cast<off_t>(offset));
  if (count < 0) return ErrnoStatus("pwrite");
  if (static_cast<size_t>(count) != bytes.size()) {
    return absl::InternalError(absl::StrFormat("pwrite: %d bytes of %d", count, bytes.size()));
  }
  std::vector<uint8_t>& content = slot.node->content;
  if (content.size() < offset + bytes.size()) content.resize(offset + bytes.size());
  std::copy(bytes.begin(), bytes.end(), content.begin() + static_cast<ptrdiff_t>(offset));
  return absl::OkStatus();
}

absl::Status TreeExercise::Read(const Words& words) {
  const Slot& slot = SlotOf(words.Word(1));
  if (slot.fd < 0) return absl::OkStatus();
  return CompareContent(slot.fd, *slot.node, words.Number(2), words.Number(3));
}

absl::Status TreeExercise::Cut(const Words& words) {
  const Slot& slot = SlotOf(words.Word(1));
  if (slot.fd < 0) return absl::OkStatus();
  if (ftruncate(slot.fd, static_cast<off_t>(words.Number(2))) != 0) return ErrnoStatus("ftruncate");
  slot.node->content.resize(words.Number(2));
  struct stat status = {};
  if (fstat(slot.fd, &status) != 0) return ErrnoStatus("fstat");
  if (static_cast<uint64_t>(status.st_size) == words.Number(2)) return absl::OkStatus();
  return absl::InternalError(
      absl::StrFormat("fstat says %d bytes instead of %d", status.st_size, words.Number(2)));
}

absl::Status TreeExercise::Fsync(const Words& words) {
  const Slot& slot = SlotOf(words.Word(1));
  return slot.fd < 0 || fsync(slot.fd) == 0 ? absl::OkStatus() : ErrnoStatus("fsync");
}

// --- Names

bool TreeExercise::IsLeftOut(const TreePath& path) const {
  std::shared_ptr<TreeNode> node;
  return options_.smb && model_->Find(path, &node) == 0 && node->is_directory &&
         TreeModel::IsBusy(*node);
}

absl::Status TreeExercise::MakeDirectory(const Words& words) {
  const TreePath path = PathOf(words.Word(1));
  const int error = ErrnoOf(mkdir(FullPath(path).c_str(), 0755));
  const absl::Status status = SameErrno("mkdir", error, model_->MakeDirectory(path));
  return status.ok() ? Stat(words) : status;
}

absl::Status TreeExercise::RemoveDirectory(const Words& words) {
  const TreePath path = PathOf(words.Word(1));
  if (IsLeftOut(path)) return absl::OkStatus();
  const int error = ErrnoOf(rmdir(FullPath(path).c_str()));
  const absl::Status status = SameErrno("rmdir", error, model_->RemoveDirectory(path));
  return status.ok() ? Stat(words) : status;
}

absl::Status TreeExercise::Unlink(const Words& words) {
  const TreePath path = PathOf(words.Word(1));
  const int error = ErrnoOf(unlink(FullPath(path).c_str()));
  const absl::Status status = SameErrno("unlink", error, model_->Unlink(path));
  return status.ok() ? Stat(words) : status;
}

absl::Status TreeExercise::RenameAs(const Words& words, bool replace) {
  const TreePath from = PathOf(words.Word(1));
  const TreePath to = PathOf(words.Word(2));
  if (IsLeftOut(from) || IsLeftOut(to)) return absl::OkStatus();
  const int error = ErrnoOf(renameat2(AT_FDCWD, FullPath(from).c_str(), AT_FDCWD,
                                      FullPath(to).c_str(), replace ? 0 : RENAME_NOREPLACE));
  absl::Status status = SameErrno("rename", error, model_->Rename(from, to, replace));
  if (status.ok()) status = Stat(words);
  return status.ok() ? Stat(Words(absl::StrCat("stat ", words.Word(2)))) : status;
}

absl::Status TreeExercise::Rename(const Words& words) { return RenameAs(words, true); }
absl::Status TreeExercise::RenameNew(const Words& words) { return RenameAs(words, false); }

}  // namespace dfscsi::exercise
