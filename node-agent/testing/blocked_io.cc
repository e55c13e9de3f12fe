// blocked-io OPERATION PATH [OFFSET]: one system call of each kind, for tests of what becomes of
// its process when no server answers.
//
// It says "ready" once all is prepared, waits for a line on its input, says "begin", makes the call
// and says "ok NUMBER" or "error NAME". It stays until its input ends, so that what it has open is
// closed when the test wants it. SIGINT is caught, as a program with a handler does: the call that
// can be interrupted says "error EINTR". OFFSET: where a read reads (0), in bytes, a multiple of
// 4096.

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/aio_abi.h>
#include <linux/io_uring.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <functional>
#include <iterator>
#include <map>
#include <string>

namespace {

constexpr size_t kBytes = 64 << 10;

[[noreturn]] void Die(const char* what) {
  perror(what);
  exit(2);
}

struct Call {
  std::string path;
  off_t offset = 0;
  int fd = -1;
  void* buffer = nullptr;  // Page aligned, kBytes.

  void Open(int flags) {
    fd = open(path.c_str(), flags | O_CLOEXEC);
    if (fd < 0) Die(path.c_str());
  }
};

// -1 and errno: the call failed.
using Run = std::function<int64_t()>;

// ---- libaio's system calls ----

Run PrepareAio(Call& call) {
  call.Open(O_RDONLY | O_DIRECT);
  return [&call]() -> int64_t {
    aio_context_t context = 0;
    if (syscall(SYS_io_setup, 1, &context) != 0) return -1;
    iocb control = {};
    control.aio_lio_opcode = IOCB_CMD_PREAD;
    control.aio_fildes = static_cast<uint32_t>(call.fd);
    control.aio_buf = reinterpret_cast<uint64_t>(call.buffer);
    control.aio_nbytes = kBytes;
    control.aio_offset = call.offset;
    iocb* controls[] = {&control};
    if (syscall(SYS_io_submit, context, 1, controls) != 1) return -1;
    io_event event = {};
    if (syscall(SYS_io_getevents, context, 1, 1, &event, nullptr) != 1) return -1;
    if (event.res < 0) errno = static_cast<int>(-event.res);
    return event.res < 0 ? -1 : event.res;
  };
}

// ---- io_uring without its library ----

struct Ring {
  int fd = -1;
  io_uring_params parameters = {};
  char* submissions = nullptr;
  char* completions = nullptr;
  io_uring_sqe* entries = nullptr;

  char* Map(size_t bytes, off_t what) {
    void* const mapped =
        mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, what);
    if (mapped == MAP_FAILED) Die("mmap of a ring");
    return static_cast<char*>(mapped);
  }
  void Make() {
    fd = static_cast<int>(syscall(SYS_io_uring_setup, 1, &parameters));
    if (fd < 0) Die("io_uring_setup");
    const io_uring_params& p = parameters;
    submissions = Map(p.sq_off.array + p.sq_entries * sizeof(uint32_t), IORING_OFF_SQ_RING);
    completions = Map(p.cq_off.cqes + p.cq_entries * sizeof(io_uring_cqe), IORING_OFF_CQ_RING);
    entries =
        reinterpret_cast<io_uring_sqe*>(Map(p.sq_entries * sizeof(io_uring_sqe), IORING_OFF_SQES));
  }
  static std::atomic<uint32_t>& Word(char* ring, uint32_t at) {
    return *reinterpret_cast<std::atomic<uint32_t>*>(ring + at);
  }
};

Run PrepareUring(Call& call) {
  call.Open(O_RDONLY | O_DIRECT);
  static Ring ring;
  ring.Make();
  return [&call]() -> int64_t {
    ring.entries[0] = {};
    ring.entries[0].opcode = IORING_OP_READ;
    ring.entries[0].fd = call.fd;
    ring.entries[0].addr = reinterpret_cast<uint64_t>(call.buffer);
    ring.entries[0].len = kBytes;
    ring.entries[0].off = static_cast<uint64_t>(call.offset);
    Ring::Word(ring.submissions, ring.parameters.sq_off.array).store(0);
    Ring::Word(ring.submissions, ring.parameters.sq_off.tail).fetch_add(1);
    if (syscall(SYS_io_uring_enter, ring.fd, 1, 1, IORING_ENTER_GETEVENTS, nullptr, 0) < 0)
      return -1;
    const auto* const done =
        reinterpret_cast<const io_uring_cqe*>(ring.completions + ring.parameters.cq_off.cqes);
    if (done->res < 0) errno = -done->res;
    return done->res < 0 ? -1 : done->res;
  };
}

// ---- The others ----

Run PrepareRead(Call& call, int flags) {
  call.Open(O_RDONLY | flags);
  return [&call] { return pread(call.fd, call.buffer, kBytes, call.offset); };
}

Run PrepareFault(Call& call) {
  call.Open(O_RDONLY);
  void* const mapped = mmap(nullptr, kBytes, PROT_READ, MAP_SHARED, call.fd, call.offset);
  if (mapped == MAP_FAILED) Die("mmap");
  return [mapped] { return int64_t{*static_cast<volatile unsigned char*>(mapped)}; };
}

// As many entries as there are.
Run PrepareGetdents(Call& call) {
  call.Open(O_RDONLY | O_DIRECTORY);
  return [&call] {
    int64_t bytes = 0;
    while (true) {
      const long n = syscall(SYS_getdents64, call.fd, call.buffer, kBytes);
      if (n <= 0) return n < 0 ? int64_t{-1} : bytes;
      bytes += n;
    }
  };
}

using Prepare = std::function<Run(Call&)>;
const std::map<std::string, Prepare>& Operations() {
  static const auto* const operations = new std::map<std::string, Prepare>{
      {"read", [](Call& call) { return PrepareRead(call, 0); }},
      {"direct-read", [](Call& call) { return PrepareRead(call, O_DIRECT); }},
      {"libaio", PrepareAio},
      {"io_uring", PrepareUring},
      {"mmap", PrepareFault},
      {"getdents", PrepareGetdents},
      {"open",
       [](Call& call) -> Run { return [&call] { return open(call.path.c_str(), O_RDONLY); }; }},
      {"opendir",
       [](Call& call) -> Run {
         return [&call] { return open(call.path.c_str(), O_RDONLY | O_DIRECTORY); };
       }},
      {"stat",
       [](Call& call) -> Run {
         return [&call] {
           struct stat st;
           return lstat(call.path.c_str(), &st);
         };
       }},
      {"readlink",
       [](Call& call) -> Run {
         return [&call] {
           return readlink(call.path.c_str(), static_cast<char*>(call.buffer), kBytes);
         };
       }},
      {"statfs",
       [](Call& call) -> Run {
         return [&call] {
           struct statfs st;
           return statfs(call.path.c_str(), &st);
         };
       }},
      {"seek-data",
       [](Call& call) -> Run {
         call.Open(O_RDONLY);
         return [&call] { return lseek(call.fd, call.offset, SEEK_DATA); };
       }},
      {"close",
       [](Call& call) -> Run {
         call.Open(O_RDONLY);
         return [&call] { return close(call.fd); };
       }},
      {"fsync",
       [](Call& call) -> Run {
         call.Open(O_RDONLY);
         return [&call] { return fsync(call.fd); };
       }},
      {"flock",
       [](Call& call) -> Run {
         call.Open(O_RDONLY);
         return [&call] { return flock(call.fd, LOCK_SH); };
       }},
  };
  return *operations;
}

}  // namespace

int main(int argc, char** argv) {
  const auto found = argc < 3 ? Operations().end() : Operations().find(argv[1]);
  if (found == Operations().end()) {
    fprintf(stderr, "usage: blocked-io OPERATION PATH [OFFSET]\n");
    return 2;
  }
  struct sigaction action = {};
  action.sa_handler = [](int) {};  // Without SA_RESTART: the call ends with EINTR.
  sigaction(SIGINT, &action, nullptr);
  setvbuf(stdout, nullptr, _IOLBF, 0);
  Call call;
  call.path = argv[2];
  call.offset = argc > 3 ? atoll(argv[3]) : 0;
  if (posix_memalign(&call.buffer, 4096, kBytes) != 0) Die("memory");
  memset(call.buffer, 0, kBytes);
  const Run run = found->second(call);
  puts("ready");
  if (getchar() == EOF) return 0;
  puts("begin");
  const int64_t result = run();
  if (result < 0) {
    printf("error %s\n", strerrorname_np(errno));
  } else {
    printf("ok %lld\n", static_cast<long long>(result));
  }
  while (getchar() != EOF) {
  }
  return 0;
}
