// test_agent: the smallest agent that survives its own death. For the tests of mounter and state.
//
// One thread, no libfuse, one file "file" whose 8-byte word at offset x is x * kWord. Everything
// that the kernel relies on lies in the shared memory, as the real agent has it: requests in the
// arena, node ids and file handles in the tables. Requests are first all read, then answered, so
// that a kill finds several.
//
//   test_agent SOCKET_DIR [--mount=PATH] [--size-mib=N] [--name=BUILD_ID] [--layout=N]
//              [--unpopulate=arena|reply|both]   makes the pages not present again, for the control
//              experiment
//              [--writable[=checked]]   takes WRITEs and forgets them; checked: they must repeat
//              the content
//              [--hang-after=SECONDS]            then the heartbeat stops, and so does everything
//              else
//              [--hang-up-after=SECONDS]         then it leaves the mounter, and serves on
// SIGTERM: drains and exits. Lines on stdout: "active GENERATION ADOPTED", "mounted ID", "gone ID".

#include <errno.h>
#include <linux/fuse.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "node-agent/state/heartbeat.h"
#include "node-agent/state/mount_tables.h"
#include "node-agent/state/mounter_protocol.h"
#include "node-agent/state/request_arena.h"

namespace dfscsi::state {
namespace {

constexpr uint64_t kWord = 0x9E3779B97F4A7C15;
constexpr size_t kReplyBytes = 1 << 20;
constexpr uint64_t kSocket = 0;  // In epoll; mounts have their ids.

volatile sig_atomic_t stopped = 0;

double Now() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

struct Flags {
  std::string socket_dir, mount, name = "test", unpopulate;
  uint64_t size = 64 << 20;
  uint32_t layout = kTablesLayoutVersion;
  double hang_after = 0, hang_up_after = 0;
  bool writable = false, check_writes = false;
};

// The word pattern, by the megabyte, in a mapping whose pages can be made not present.
char* MakeContent(uint64_t size) {
  const UniqueFd fd(memfd_create("content", MFD_CLOEXEC));
  if (ftruncate(fd.get(), static_cast<off_t>(size)) != 0) abort();
  auto* content =
      static_cast<uint64_t*>(mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0));
  for (uint64_t i = 0; i < size / 8; ++i) content[i] = i * 8 * kWord;
  return reinterpret_cast<char*>(content);
}

class TestAgent {
 public:
  explicit TestAgent(Flags flags) : flags_(std::move(flags)), epoll_(epoll_create1(EPOLL_CLOEXEC)) {
    content_ = MakeContent(flags_.size);
    reply_ = static_cast<char*>(mmap(nullptr, kReplyBytes, PROT_READ | PROT_WRITE,
                                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0));
  }

  int Run() {
    const double start = Now();
    for (;;) {
      if (stopped) return Drain();
      if (flags_.hang_after > 0 && Now() - start > flags_.hang_after) pause();
      const bool hung_up = flags_.hang_up_after > 0 && Now() - start > flags_.hang_up_after;
      if (hung_up) socket_ = MessageSocket();
      if (socket_.fd() < 0 && !hung_up) Connect();
      if (heartbeat_) heartbeat_->Beat(line_);
      epoll_event events[16];
      const int n = epoll_wait(epoll_.get(), events, 16, socket_.fd() < 0 ? 10 : 200);
      for (int i = 0; i < n; ++i) {
        if (events[i].data.u64 == kSocket) {
          ReadSocket();
        } else {
          Serve(static_cast<uint32_t>(events[i].data.u64));
        }
      }
      if (socket_.fd() >= 0 && socket_.wants_write()) socket_.Flush().IgnoreError();
      if (refused_) return 3;
    }
  }

 private:
  struct Mount {
    MountEntry entry;
    UniqueFd fuse_fd, tables_fd;
    std::unique_ptr<MountTables> tables;
  };

  // ---- the mounter ----

  void Connect() {
    auto socket = MessageSocket::Connect(flags_.socket_dir);
    if (!socket.ok()) return;
    socket_ = *std::move(socket);
    epoll_event event = {.events = EPOLLIN, .data = {.u64 = kSocket}};
    epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, socket_.fd(), &event);
    Hello hello;
    hello.role = Role::kAgent;
    hello.arena_layout = kArenaLayoutVersion;
    hello.tables_layout = flags_.layout;
    hello.tables_oldest_readable = flags_.layout;
    hello.build_id = flags_.name;
    hello.state_id = state_id_;
    hello.escrow_mounts = static_cast<uint32_t>(mounts_.size());
    hello.active_generation = generation_;
    socket_.Send(hello).IgnoreError();
  }

  void ReadSocket() {
    for (;;) {
      auto received = socket_.Receive();
      if (!received.ok()) {
        socket_ = MessageSocket();  // The mounter died; mounts are served on.
        return;
      }
      if (!received->has_value()) return;
      Handle(**std::move(received));
    }
  }

  void Handle(Envelope envelope) {
    if (auto* welcome = std::get_if<Welcome>(&envelope.message)) {
      line_ = welcome->heartbeat_line;
      granted_ = welcome->granted_steps;
      if (welcome->state_id == state_id_) return;
      state_id_ = welcome->state_id;
      node_fds_ = std::move(envelope.fds);
      mounts_.clear();
      generation_ = 0;
      arena_ = RequestArena::Map(node_fds_[0].get()).value();
      if (!arena_->Prepare(granted_).ok()) abort();
      heartbeat_ = std::make_unique<Heartbeat>(Heartbeat::Map(node_fds_[3].get()).value());
    } else if (auto* entry = std::get_if<MountEntry>(&envelope.message)) {
      Mount& mount = mounts_[entry->mount_id];
      if (mount.fuse_fd) return;
      mount.entry = std::move(*entry);
      mount.fuse_fd = std::move(envelope.fds[0]);
      mount.tables_fd = std::move(envelope.fds[1]);
      if (generation_ != 0) Open(&mount);
    } else if (auto* activate = std::get_if<Activate>(&envelope.message)) {
      if (generation_ != activate->generation) BecomeActive(activate->generation);
    } else if (auto* gone = std::get_if<MountGone>(&envelope.message)) {
      if (arena_ && generation_ != 0) arena_->FreeMount(gone->mount_id);
      mounts_.erase(gone->mount_id);
      printf("gone %u\n", gone->mount_id);
    } else if (std::holds_alternative<EscrowWanted>(envelope.message)) {
      EscrowNode node;
      node.state_id = state_id_;
      node.granted_steps = granted_;
      node.arena_layout = kArenaLayoutVersion;
      std::vector<int> fds;
      fds.reserve(node_fds_.size());
      for (const UniqueFd& fd : node_fds_) fds.push_back(fd.get());
      socket_.Send(node, 0, fds).IgnoreError();
      for (const auto& [id, mount] : mounts_) {
        socket_.Send(mount.entry, 0, {mount.fuse_fd.get(), mount.tables_fd.get()}).IgnoreError();
      }
      socket_.Send(EscrowEnd()).IgnoreError();
    } else if (auto* error = std::get_if<Error>(&envelope.message)) {
      printf("error %d %s\n", error->error, error->text.c_str());
      refused_ = envelope.request_id == 0;
    } else if (auto* step = std::get_if<StepGranted>(&envelope.message)) {
      granted_ = step->granted_steps;
    }
    fflush(stdout);
  }

  void BecomeActive(uint32_t generation) {
    auto found = arena_->Adopt(generation, granted_);
    if (!found.ok()) abort();
    generation_ = generation;
    for (auto& [id, mount] : mounts_) Open(&mount);
    for (RequestSlot slot : *found) {
      const auto mount = mounts_.find(slot.mount_id());
      if (mount == mounts_.end()) {
        arena_->Free(slot);
      } else {
        Answer(mount->second, slot);
      }
    }
    printf("active %u %zu\n", generation, found->size());
    if (mounts_.empty() && !flags_.mount.empty()) {
      MountRequest request;
      request.mount_point = flags_.mount;
      request.source = "//test/agent";
      request.read_only = !flags_.writable;
      request.init_flags = FUSE_ASYNC_READ | FUSE_BIG_WRITES | FUSE_PARALLEL_DIROPS |
                           FUSE_MAX_PAGES | FUSE_INIT_EXT | FUSE_EXPLICIT_INVAL_DATA |
                           FUSE_ATOMIC_O_TRUNC;
      request.max_write = kMaxWriteBytes;
      request.max_readahead = 1 << 20;
      request.read_ahead_kb = 1024;
      request.tables_layout = flags_.layout;
      request.config = "a configuration";
      socket_.Send(request, 1).IgnoreError();
    }
  }

  void Open(Mount* mount) {
    auto tables = MountTables::Map(mount->tables_fd.get());
    if (absl::IsNotFound(tables.status())) {
      tables = MountTables::Format(mount->tables_fd.get(), 1);
    } else if (tables.ok() && !(*tables)->Recover().ok()) {
      abort();
    }
    mount->tables = *std::move(tables);
    const uint32_t id = mount->entry.mount_id;
    epoll_event event = {.events = EPOLLIN, .data = {.u64 = id}};
    epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, mount->fuse_fd.get(), &event);
    printf("mounted %u\n", id);
    fflush(stdout);
  }

  int Drain() {
    socket_.Send(Draining()).IgnoreError();
    return 0;  // What was read has been answered.
  }

  // ---- the kernel ----

  void Serve(uint32_t mount_id) {
    const auto found = mounts_.find(mount_id);
    if (found == mounts_.end()) return;
    Mount& mount = found->second;
    if (flags_.unpopulate == "arena" || flags_.unpopulate == "both") UnpopulateArena();
    std::vector<RequestSlot> slots;
    for (int i = 0; i < 16; ++i) {
      const RequestArena::Read read = arena_->ReadRequest(mount.fuse_fd.get(), mount_id);
      if (read.result == RequestArena::ReadResult::kRequest) {
        slots.push_back(read.slot);
        continue;
      }
      if (read.result == RequestArena::ReadResult::kGone) {
        epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, mount.fuse_fd.get(), nullptr);
        if (socket_.fd() >= 0) socket_.Send(ReportGone{mount_id}).IgnoreError();
      }
      break;
    }
    for (RequestSlot slot : slots) Answer(mount, slot);
  }

  void UnpopulateArena() {
    FILE* maps = fopen("/proc/self/maps", "re");
    char line[512];
    while (fgets(line, sizeof(line), maps) != nullptr) {
      unsigned long from, to;
      if (strstr(line, "dfs-arena") && sscanf(line, "%lx-%lx", &from, &to) == 2) {
        madvise(reinterpret_cast<void*>(from), to - from, MADV_DONTNEED);
      }
    }
    fclose(maps);
  }

  void Reply(const Mount& mount, RequestSlot slot, int error, const void* body, size_t bytes) {
    fuse_out_header out = {};
    out.len = static_cast<uint32_t>(sizeof(out) + bytes);
    out.error = -error;
    out.unique = slot.unique();
    iovec parts[] = {{&out, sizeof(out)}, {const_cast<void*>(body), bytes}};
    // ENOENT: the kernel has the answer of the agent before this one, or was interrupted.
    if (writev(mount.fuse_fd.get(), parts, bytes == 0 ? 1 : 2) < 0 && errno != ENOENT &&
        errno != ENODEV) {
      fprintf(stderr, "test_agent: reply: %s\n", strerror(errno));
    }
    arena_->Free(slot);
  }
  template <typename T>
  void Reply(const Mount& mount, RequestSlot slot, const T& body) {
    Reply(mount, slot, 0, &body, sizeof(body));
  }

  fuse_attr Attr(NodeId id) {
    fuse_attr attr = {};
    attr.ino = id == kRootNode ? 1 : 2;
    attr.mode = id == kRootNode ? S_IFDIR | 0755 : S_IFREG | 0644;
    attr.nlink = 1;
    attr.size = id == kRootNode ? 0 : flags_.size;
    attr.blksize = 4096;
    return attr;
  }

  void Answer(Mount& mount, RequestSlot slot) {
    const char* const body = slot.request().data() + sizeof(fuse_in_header);
    fuse_in_header in;
    memcpy(&in, slot.request().data(), sizeof(in));
    InodeTable& inodes = mount.tables->inodes();
    HandleTable& handles = mount.tables->handles();
    const int stale = inodes.Contains(in.nodeid) ? 0 : ESTALE;
    switch (in.opcode) {
      case FUSE_LOOKUP: {
        if (in.nodeid != kRootNode || strcmp(body, "file") != 0) {
          return Reply(mount, slot, ENOENT, nullptr, 0);
        }
        fuse_entry_out entry = {};
        entry.nodeid = *inodes.FindOrInsert(kRootNode, "file", {.ino = 2});
        inodes.AddLookup(entry.nodeid);
        entry.attr = Attr(entry.nodeid);
        return Reply(mount, slot, entry);
      }
      case FUSE_FORGET: {
        fuse_forget_in forget;
        memcpy(&forget, body, sizeof(forget));
        if (slot.state() != SlotState::kStarted) {
          arena_->MarkStarted(slot);
          inodes.Forget(in.nodeid, forget.nlookup);
        }
        return arena_->Free(slot);
      }
      case FUSE_BATCH_FORGET:
      case FUSE_INTERRUPT:
        return arena_->Free(slot);
      case FUSE_GETATTR: {
        if (stale) return Reply(mount, slot, stale, nullptr, 0);
        fuse_attr_out out = {};
        out.attr = Attr(in.nodeid);
        return Reply(mount, slot, out);
      }
      case FUSE_OPEN:
      case FUSE_OPENDIR: {
        const auto fh = handles.Open({.node = in.nodeid});
        if (!fh.ok()) return Reply(mount, slot, ESTALE, nullptr, 0);
        fuse_open_out out = {};
        out.fh = *fh;
        return Reply(mount, slot, out);
      }
      case FUSE_READ: {
        fuse_read_in read;
        memcpy(&read, body, sizeof(read));
        if (stale || !handles.Contains(read.fh)) return Reply(mount, slot, ESTALE, nullptr, 0);
        const uint64_t end = std::min(flags_.size, read.offset + read.size);
        const size_t bytes = read.offset < end ? end - read.offset : 0;
        const char* from = content_ + read.offset;
        if (flags_.unpopulate == "reply" || flags_.unpopulate == "both") {
          madvise(content_, flags_.size, MADV_DONTNEED);  // Straight from a mapping without pages.
        } else {
          memcpy(reply_, from, bytes);
          from = reply_;
        }
        return Reply(mount, slot, 0, from, bytes);
      }
      case FUSE_WRITE: {
        fuse_write_in write;
        memcpy(&write, body, sizeof(write));
        fuse_write_out out = {};
        out.size = write.size;
        // All of it has arrived, and what was written is what reading would say.
        const char* const bytes = body + sizeof(write);
        if (slot.request().size() != sizeof(in) + sizeof(write) + write.size ||
            (flags_.check_writes && memcmp(bytes, content_ + write.offset, write.size) != 0)) {
          fprintf(stderr, "test_agent: a WRITE at %lu is damaged\n", write.offset);
        }
        return Reply(mount, slot, out);
      }
      case FUSE_RELEASE:
      case FUSE_RELEASEDIR: {
        fuse_release_in release;
        memcpy(&release, body, sizeof(release));
        handles.Close(release.fh);
        return Reply(mount, slot, 0, nullptr, 0);
      }
      case FUSE_FLUSH:
        return Reply(mount, slot, 0, nullptr, 0);
      case FUSE_STATFS: {
        fuse_statfs_out out = {};
        out.st.bsize = out.st.frsize = 4096;
        out.st.namelen = 255;
        return Reply(mount, slot, out);
      }
      case FUSE_READDIR:
        return Reply(mount, slot, 0, nullptr, 0);
      default:
        return Reply(mount, slot, ENOSYS, nullptr, 0);
    }
  }

  const Flags flags_;
  const UniqueFd epoll_;
  char* content_;
  char* reply_;
  MessageSocket socket_;
  uint64_t state_id_ = 0;
  uint64_t granted_ = 0;
  uint32_t line_ = 0;
  uint32_t generation_ = 0;
  bool refused_ = false;
  std::vector<UniqueFd> node_fds_;
  std::unique_ptr<RequestArena> arena_;
  std::unique_ptr<Heartbeat> heartbeat_;
  std::map<uint32_t, Mount> mounts_;
};

}  // namespace
}  // namespace dfscsi::state

int main(int argc, char** argv) {
  if (argc < 2) return 2;
  dfscsi::state::Flags flags;
  flags.socket_dir = argv[1];
  for (int i = 2; i < argc; ++i) {
    const std::string flag = argv[i];
    const auto value = [&](const char* name) -> const char* {
      return flag.rfind(name, 0) == 0 ? flag.c_str() + strlen(name) : nullptr;
    };
    if (const char* mount = value("--mount=")) flags.mount = mount;
    if (const char* size = value("--size-mib=")) flags.size = strtoull(size, nullptr, 10) << 20;
    if (const char* name = value("--name=")) flags.name = name;
    if (const char* layout = value("--layout=")) {
      flags.layout = static_cast<uint32_t>(atoi(layout));
    }
    if (const char* what = value("--unpopulate=")) flags.unpopulate = what;
    flags.writable = flags.writable || flag.rfind("--writable", 0) == 0;
    flags.check_writes = flags.check_writes || flag == "--writable=checked";
    if (const char* seconds = value("--hang-after=")) flags.hang_after = atof(seconds);
    if (const char* seconds = value("--hang-up-after=")) flags.hang_up_after = atof(seconds);
  }
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  struct sigaction action = {};
  action.sa_handler = [](int) { dfscsi::state::stopped = 1; };
  sigaction(SIGTERM, &action, nullptr);
  signal(SIGPIPE, SIG_IGN);
  return dfscsi::state::TestAgent(std::move(flags)).Run();
}
