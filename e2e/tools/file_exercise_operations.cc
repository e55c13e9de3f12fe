// What the operations on one file do, and what each must leave in it.

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "e2e/tools/file_exercise.h"

namespace dfscsi::exercise {
namespace {

constexpr uint64_t kPageBytes = 4096;

// --- Mappings may end in SIGBUS

sigjmp_buf bus_error_jump;

void OnBusError(int) { siglongjmp(bus_error_jump, 1); }

// memcpy; false: SIGBUS.
bool CopyMapped(uint8_t* to, const uint8_t* from, size_t size) {
  struct sigaction before;
  struct sigaction action = {};
  action.sa_handler = OnBusError;
  sigaction(SIGBUS, &action, &before);
  bool whole = false;
  if (sigsetjmp(bus_error_jump, 1) == 0) {
    memcpy(to, from, size);
    whole = true;
  }
  sigaction(SIGBUS, &before, nullptr);
  return whole;
}

off_t OffsetOf(uint64_t offset) { return static_cast<off_t>(offset); }

absl::Status WrongCount(absl::string_view what, int64_t count, uint64_t expected) {
  if (count < 0) return ErrnoStatus(what);
  return absl::InternalError(absl::StrFormat("%s: %d bytes instead of %d", what, count, expected));
}

absl::Status DoneIf(bool done, absl::string_view what) {
  return done ? absl::OkStatus() : ErrnoStatus(what);
}

absl::Status SizeError(absl::string_view what, int64_t size, uint64_t expected) {
  return absl::InternalError(
      absl::StrFormat("%s says %d bytes instead of %d", what, size, expected));
}

}  // namespace

// --- What they share

absl::Status FileExercise::SizeIsRight(int handle) const {
  struct stat status = {};
  if (fstat(handle, &status) != 0) return ErrnoStatus("fstat");
  if (static_cast<uint64_t>(status.st_size) == shadow_.size()) return absl::OkStatus();
  return SizeError("fstat", status.st_size, shadow_.size());
}

absl::Status FileExercise::ReadAndCompare(int handle, uint64_t offset, uint64_t size) {
  uint8_t* const into = handle == direct_ ? aligned_ : buffer_.data();
  memset(into, 0xee, size);
  const uint64_t expected = shadow_.Part(offset, size).size();
  const ssize_t count = pread(handle, into, size, OffsetOf(offset));
  if (count < 0 || static_cast<uint64_t>(count) != expected) {
    return WrongCount("pread", count, expected);
  }
  return shadow_.Compare(offset, {into, expected});
}

// Linux 6.17 and later lose what a buffered write adds to a file of FUSE, if the file's last page
// is dirty by a mapping and is written back meanwhile: what lies behind the old end is zeroed first
// (docs/posix.md).
absl::Status FileExercise::SyncMappedTail(uint64_t end) {
  const uint64_t in_tail = shadow_.size() % kPageBytes;
  if (held_ == nullptr || end <= shadow_.size() || in_tail == 0) return absl::OkStatus();
  return DoneIf(msync(held_ + (shadow_.size() - in_tail), in_tail, MS_SYNC) == 0, "msync");
}

absl::Status FileExercise::WriteAll(int handle, uint64_t offset, absl::Span<const uint8_t> bytes) {
  if (const absl::Status status = SyncMappedTail(offset + bytes.size()); !status.ok()) {
    return status;
  }
  const ssize_t count = pwrite(handle, bytes.data(), bytes.size(), OffsetOf(offset));
  if (count < 0 || static_cast<size_t>(count) != bytes.size()) {
    return WrongCount("pwrite", count, bytes.size());
  }
  shadow_.Write(offset, bytes);
  return absl::OkStatus();
}

absl::Status FileExercise::AccessMapping(uint64_t offset, uint64_t size, MapAccess access) {
  const uint64_t skipped = held_ != nullptr ? offset : offset % kPageBytes;
  const uint64_t mapped_bytes = held_ != nullptr ? options_.size_max_bytes : skipped + size;
  uint8_t* mapped = held_;
  if (mapped == nullptr) {
    const int protection = access == MapAccess::kRead ? PROT_READ : PROT_READ | PROT_WRITE;
    void* const made =
        mmap(nullptr, mapped_bytes, protection, MAP_SHARED, a_, OffsetOf(offset - skipped));
    if (made == MAP_FAILED) return ErrnoStatus("mmap");
    mapped = static_cast<uint8_t*>(made);
  }
  const bool whole = access == MapAccess::kRead
                         ? CopyMapped(buffer_.data(), mapped + skipped, size)
                         : CopyMapped(mapped + skipped, buffer_.data(), size);
  absl::Status status = whole ? absl::OkStatus() : absl::InternalError("SIGBUS in the mapping");
  if (status.ok() && access == MapAccess::kWriteAndSync) {
    const uint64_t begin = skipped / kPageBytes * kPageBytes;
    status = DoneIf(msync(mapped + begin, skipped + size - begin, MS_SYNC) == 0, "msync");
  }
  if (held_ == nullptr && munmap(mapped, mapped_bytes) != 0 && status.ok()) {
    status = ErrnoStatus("munmap");
  }
  return status;
}

// --- Content

absl::Status FileExercise::Read(const Words& words) {
  return ReadAndCompare(Handle(words), words.Number(2), words.Number(3));
}

absl::Status FileExercise::Write(const Words& words) {
  const uint64_t offset = words.Number(2);
  const absl::Span<uint8_t> bytes(buffer_.data(), words.Number(3));
  FillContent(static_cast<uint32_t>(words.Number(4)), offset, bytes);
  return WriteAll(Handle(words), offset, bytes);
}

absl::Status FileExercise::Append(const Words& words) {
  const absl::Span<uint8_t> bytes(buffer_.data(),
                                  std::min(words.Number(1), shadow_.size_max() - shadow_.size()));
  FillContent(static_cast<uint32_t>(words.Number(2)), shadow_.size(), bytes);
  if (const absl::Status status = SyncMappedTail(shadow_.size() + bytes.size()); !status.ok()) {
    return status;
  }
  int handle = -1;
  if (const absl::Status status = Open(&handle, O_WRONLY | O_APPEND); !status.ok()) return status;
  const ssize_t count = write(handle, bytes.data(), bytes.size());
  absl::Status status = absl::OkStatus();
  if (count < 0 || static_cast<size_t>(count) != bytes.size()) {
    status = WrongCount("write with O_APPEND", count, bytes.size());
  } else {
    shadow_.Write(shadow_.size(), bytes);
  }
  if (close(handle) != 0 && status.ok()) status = ErrnoStatus("close");
  return status;
}

absl::Status FileExercise::DirectRead(const Words& words) {
  return ReadAndCompare(direct_, words.Number(1), words.Number(2));
}

absl::Status FileExercise::DirectWrite(const Words& words) {
  const uint64_t offset = words.Number(1);
  const absl::Span<uint8_t> bytes(aligned_, words.Number(2));
  FillContent(static_cast<uint32_t>(words.Number(3)), offset, bytes);
  return WriteAll(direct_, offset, bytes);
}

absl::Status FileExercise::MapRead(const Words& words) {
  const uint64_t offset = words.Number(1);
  const uint64_t size = shadow_.Part(offset, words.Number(2)).size();
  if (size == 0) return absl::OkStatus();
  const absl::Status status = AccessMapping(offset, size, MapAccess::kRead);
  return status.ok() ? shadow_.Compare(offset, {buffer_.data(), size}) : status;
}

absl::Status FileExercise::MapWrite(const Words& words) {
  const uint64_t offset = words.Number(1);
  const absl::Span<uint8_t> bytes(buffer_.data(), words.Number(2));
  if (offset + bytes.size() > shadow_.size()) {
    if (ftruncate(a_, OffsetOf(offset + bytes.size())) != 0) return ErrnoStatus("ftruncate");
    shadow_.Resize(offset + bytes.size());
  }
  FillContent(static_cast<uint32_t>(words.Number(3)), offset, bytes);
  const absl::Status status =
      AccessMapping(offset, bytes.size(),
                    words.Word(4) == "sync" ? MapAccess::kWriteAndSync : MapAccess::kWriteLazily);
  if (status.ok()) shadow_.Write(offset, bytes);
  return status;
}

absl::Status FileExercise::Hold(const Words&) {
  if (held_ != nullptr) return absl::OkStatus();
  void* const made =
      mmap(nullptr, options_.size_max_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, a_, 0);
  if (made == MAP_FAILED) return ErrnoStatus("mmap");
  held_ = static_cast<uint8_t*>(made);
  return absl::OkStatus();
}

absl::Status FileExercise::Drop(const Words&) {
  if (held_ == nullptr) return absl::OkStatus();
  return DoneIf(munmap(std::exchange(held_, nullptr), options_.size_max_bytes) == 0, "munmap");
}

absl::Status FileExercise::Copy(const Words& words) {
  const uint64_t from = words.Number(1);
  const uint64_t size = shadow_.Part(from, words.Number(3)).size();
  const absl::Status status = ReadAndCompare(b_, from, size);
  return status.ok() ? WriteAll(a_, words.Number(2), {buffer_.data(), size}) : status;
}

absl::Status FileExercise::CopyRange(const Words& words) {
  const absl::Span<const uint8_t> part = shadow_.Part(words.Number(1), words.Number(3));
  const std::vector<uint8_t> bytes(part.begin(), part.end());
  off_t from = OffsetOf(words.Number(1));
  off_t to = OffsetOf(words.Number(2));
  for (size_t done = 0; done < bytes.size();) {
    const ssize_t count = copy_file_range(b_, &from, a_, &to, bytes.size() - done, 0);
    if (count <= 0) return WrongCount("copy_file_range", count, bytes.size() - done);
    done += static_cast<size_t>(count);
  }
  shadow_.Write(words.Number(2), bytes);
  return absl::OkStatus();
}

// --- Size and holes

absl::Status FileExercise::Truncate(const Words& words) {
  if (truncate(options_.path.c_str(), OffsetOf(words.Number(1))) != 0) {
    return ErrnoStatus("truncate");
  }
  shadow_.Resize(words.Number(1));
  return absl::OkStatus();
}

absl::Status FileExercise::Cut(const Words& words) {
  if (ftruncate(Handle(words), OffsetOf(words.Number(2))) != 0) return ErrnoStatus("ftruncate");
  shadow_.Resize(words.Number(2));
  return absl::OkStatus();
}

absl::Status FileExercise::Empty(const Words&) {
  int handle = -1;
  if (const absl::Status status = Open(&handle, O_RDWR | O_TRUNC); !status.ok()) return status;
  shadow_.Resize(0);
  return DoneIf(close(handle) == 0, "close");
}

absl::Status FileExercise::Fallocate(int mode, const Words& words) {
  if (fallocate(a_, mode, OffsetOf(words.Number(1)), OffsetOf(words.Number(2))) != 0) {
    return ErrnoStatus("fallocate");
  }
  const uint64_t end = words.Number(1) + words.Number(2);
  if ((mode & FALLOC_FL_KEEP_SIZE) == 0 && end > shadow_.size()) shadow_.Resize(end);
  if (mode != 0) shadow_.Clear(words.Number(1), words.Number(2));
  return absl::OkStatus();
}

absl::Status FileExercise::Allocate(const Words& words) { return Fallocate(0, words); }
absl::Status FileExercise::Punch(const Words& words) {
  return Fallocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, words);
}
absl::Status FileExercise::Clear(const Words& words) {
  return Fallocate(FALLOC_FL_ZERO_RANGE, words);
}

absl::Status FileExercise::SeekData(const Words& words) {
  const uint64_t offset = words.Number(1);
  const off_t found = lseek(a_, OffsetOf(offset), SEEK_DATA);
  if (found < 0 && errno != ENXIO) return ErrnoStatus("lseek(SEEK_DATA)");
  const uint64_t data = found < 0 ? shadow_.size() : static_cast<uint64_t>(found);
  if (offset >= shadow_.size() && found < 0) return absl::OkStatus();
  if (data < offset || (found >= 0 && data >= shadow_.size())) {
    return absl::InternalError(absl::StrCat("lseek(SEEK_DATA) leads to ", data));
  }
  // Whatever was passed over must be zeros.
  const std::vector<uint8_t> zeros(data - offset, 0);
  return shadow_.Compare(offset, zeros);
}

absl::Status FileExercise::SeekHole(const Words& words) {
  const uint64_t offset = words.Number(1);
  const off_t found = lseek(a_, OffsetOf(offset), SEEK_HOLE);
  if (found < 0 && errno != ENXIO) return ErrnoStatus("lseek(SEEK_HOLE)");
  if (found < 0) {
    return offset >= shadow_.size() ? absl::OkStatus() : ErrnoStatus("lseek(SEEK_HOLE)");
  }
  const auto hole = static_cast<uint64_t>(found);
  if (hole < offset || hole > shadow_.size() || offset >= shadow_.size()) {
    return absl::InternalError(absl::StrCat("lseek(SEEK_HOLE) leads to ", hole));
  }
  const std::vector<uint8_t> zeros(shadow_.Part(hole, 1).size(), 0);
  return shadow_.Compare(hole, zeros);
}

// --- Handles, attributes, everything

absl::Status FileExercise::Fsync(const Words& words) {
  return DoneIf(fsync(Handle(words)) == 0, "fsync");
}

absl::Status FileExercise::Fdatasync(const Words& words) {
  return DoneIf(fdatasync(Handle(words)) == 0, "fdatasync");
}

absl::Status FileExercise::Reopen(const Words& words) {
  int& handle = Handle(words);
  if (close(std::exchange(handle, -1)) != 0) return ErrnoStatus("close");
  return Open(&handle, O_RDWR);
}

absl::Status FileExercise::Stat(const Words&) {
  struct stat status = {};
  if (stat(options_.path.c_str(), &status) != 0) return ErrnoStatus("stat");
  if (!S_ISREG(status.st_mode)) return absl::InternalError("stat says that it is no file");
  if (static_cast<uint64_t>(status.st_size) != shadow_.size()) {
    return SizeError("stat", status.st_size, shadow_.size());
  }
  const off_t end = lseek(b_, 0, SEEK_END);
  if (end < 0 || static_cast<uint64_t>(end) != shadow_.size()) {
    return SizeError("lseek(SEEK_END)", end, shadow_.size());
  }
  return SizeIsRight(b_);
}

absl::Status FileExercise::Forget(const Words&) {
  const int error = posix_fadvise(a_, 0, 0, POSIX_FADV_DONTNEED);
  return error == 0 ? absl::OkStatus()
                    : absl::InternalError(absl::StrCat("posix_fadvise: ", ErrnoName(error)));
}

absl::Status FileExercise::Check(const Words& words) {
  if (const absl::Status status = Stat(words); !status.ok()) return status;
  int handle = -1;
  if (const absl::Status status = Open(&handle, O_RDONLY); !status.ok()) return status;
  absl::Status status = ReadAndCompare(handle, 0, shadow_.size_max());
  close(handle);
  if (!status.ok() || direct_ < 0) return status;
  return ReadAndCompare(direct_, 0, shadow_.size_max());
}

}  // namespace dfscsi::exercise
