#include "node-agent/state/shared_memory.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "absl/status/status.h"

namespace dfscsi::state {
namespace {

constexpr int kSizeSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;

}  // namespace

absl::StatusOr<UniqueFd> CreateSharedMemory(const char* name, uint64_t bytes) {
  UniqueFd fd(memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd) return absl::ErrnoToStatus(errno, "memfd_create");
  if (ftruncate(fd.get(), static_cast<off_t>(bytes)) != 0) {
    return absl::ErrnoToStatus(errno, "ftruncate of a memfd");
  }
  if (fcntl(fd.get(), F_ADD_SEALS, kSizeSeals) != 0) {
    return absl::ErrnoToStatus(errno, "F_ADD_SEALS");
  }
  return fd;
}

absl::StatusOr<SharedMemory> SharedMemory::Map(int fd, uint64_t bytes) {
  // Only a memfd has seals; without them another process could shrink it under us.
  const int seals = fcntl(fd, F_GET_SEALS);
  if (seals < 0 || (seals & kSizeSeals) != kSizeSeals) {
    return absl::FailedPreconditionError("not a memfd with a sealed size");
  }
  struct stat st;
  if (fstat(fd, &st) != 0) return absl::ErrnoToStatus(errno, "fstat of a memfd");
  if (static_cast<uint64_t>(st.st_size) != bytes) {
    return absl::FailedPreconditionError("a memfd of another size");
  }
  void* data =
      mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, /*offset=*/0);
  if (data == MAP_FAILED) return absl::ErrnoToStatus(errno, "mmap of a memfd");
  madvise(data, bytes, MADV_DONTFORK);
  madvise(data, bytes, MADV_DONTDUMP);
  return SharedMemory(static_cast<char*>(data), bytes);
}

SharedMemory::~SharedMemory() {
  if (data_ != nullptr) munmap(data_, size_);
}

absl::Status SharedMemory::Populate(uint64_t offset, uint64_t bytes) const {
  while (madvise(data_ + offset, bytes, MADV_POPULATE_WRITE) != 0) {
    if (errno == EINTR || errno == EAGAIN) continue;
    if (errno == EINVAL) {
      return absl::UnimplementedError("MADV_POPULATE_WRITE needs Linux 5.14");
    }
    return absl::ResourceExhaustedError("shared memory cannot be populated: out of memory");
  }
  return absl::OkStatus();
}

}  // namespace dfscsi::state
