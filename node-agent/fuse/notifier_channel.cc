#include "node-agent/fuse/notifier_channel.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "node-agent/base/log.h"
#include "node-agent/base/status_macros.h"

namespace dfscsi::fuse {
namespace {

using runtime::Deadline;
using runtime::Task;
using state::kNotifierSocketFd;
using state::NotifierCommand;
using state::NotifierReply;
using state::NotifierRequest;

constexpr absl::Duration kStartAgainAfter = absl::Seconds(1);

// Descriptors of the child: /dev/null twice, our stderr, its socket; nothing else. Our connection
// to the mounter above all: its hang-up is our death.
absl::StatusOr<pid_t> SpawnNotifier(const std::string& program, int socket_fd) {
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  posix_spawn_file_actions_init(&actions);
  posix_spawnattr_init(&attributes);
  sigset_t none, all;
  sigemptyset(&none);
  sigfillset(&all);
  int error = posix_spawn_file_actions_adddup2(&actions, socket_fd, kNotifierSocketFd);
  for (const int fd : {STDIN_FILENO, STDOUT_FILENO}) {
    if (error == 0) {
      error = posix_spawn_file_actions_addopen(&actions, fd, "/dev/null", O_RDWR, 0);
    }
  }
  if (error == 0) {
    error = posix_spawn_file_actions_addclosefrom_np(&actions, kNotifierSocketFd + 1);
  }
  if (error == 0) error = posix_spawnattr_setsigmask(&attributes, &none);
  if (error == 0) error = posix_spawnattr_setsigdefault(&attributes, &all);
  if (error == 0) {
    error = posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  }
  char name[] = "dfs-notifier";
  char* const arguments[] = {name, nullptr};
  char* const environment[] = {nullptr};
  pid_t pid = -1;
  if (error == 0) {
    error = posix_spawn(&pid, program.c_str(), &actions, &attributes, arguments, environment);
  }
  posix_spawn_file_actions_destroy(&actions);
  posix_spawnattr_destroy(&attributes);
  if (error != 0) return absl::ErrnoToStatus(error, absl::StrCat("cannot run ", program));
  return pid;
}

}  // namespace

class NotifierChannel::Child {
 public:
  Child(runtime::RealLoop& loop, UniqueFd socket, pid_t pid)
      : socket_(std::move(socket)), watch_(loop.Watch(socket_.get())), pid_(pid) {}
  ~Child() {
    Kill();
    // Not waited for: it may be stuck in the kernel for as long as a server is silent. Whom it
    // leaves behind is collected when it ends, or by init when we have ended.
    TryReap();
  }

  int socket() const { return socket_.get(); }
  runtime::FdWatch& watch() { return *watch_; }

  void Kill() {
    if (pid_ > 0) kill(pid_, SIGKILL);  // Not reaped, so the number is still its own.
  }
  bool TryReap() {
    if (pid_ > 0 && waitpid(pid_, nullptr, WNOHANG) != 0) pid_ = -1;
    return pid_ <= 0;
  }

 private:
  UniqueFd socket_;
  std::unique_ptr<runtime::FdWatch> watch_;
  pid_t pid_;
};

NotifierChannel::NotifierChannel(runtime::RealLoop& loop, std::string program)
    : loop_(loop), program_(std::move(program)) {}

NotifierChannel::~NotifierChannel() = default;

void NotifierChannel::AddMount(uint32_t mount_id, int fuse_fd) {
  UniqueFd copy(fcntl(fuse_fd, F_DUPFD_CLOEXEC, 0));
  if (!copy) {
    LogError("notifier: mount ", mount_id, ": ", strerror(errno));
    return;
  }
  mounts_[mount_id].fuse_fd = std::move(copy);
  if (child_ == nullptr) return;  // One that is started is told of all mounts.
  queue_.push_back({.command = NotifierCommand::kAddMount, .mount_id = mount_id});
  Flush();
}

void NotifierChannel::RemoveMount(uint32_t mount_id) {
  if (mounts_.erase(mount_id) == 0) return;
  std::erase_if(queue_, [&](const NotifierRequest& queued) {
    if (queued.mount_id != mount_id) return false;
    queued_.erase({queued.mount_id, queued.node});
    Settle(queued.id, /*confirmed=*/false);
    return true;
  });
  std::erase_if(unanswered_, [&](const auto& entry) {
    if (entry.second.request.mount_id != mount_id) return false;
    Settle(entry.first, /*confirmed=*/false);
    return true;
  });
  if (child_ == nullptr) return;
  queue_.push_back({.command = NotifierCommand::kRemoveMount, .mount_id = mount_id});
  Flush();
}

uint64_t NotifierChannel::Queue(uint32_t mount_id, state::NodeId node) {
  if (mounts_.count(mount_id) == 0) return 0;
  if (pending() >= kMostPending) {
    ++counters_.dropped;
    return 0;
  }
  const auto [queued, inserted] = queued_.emplace(std::pair(mount_id, node), last_id_ + 1);
  if (!inserted) return queued->second;
  const uint64_t id = ++last_id_;
  queue_.push_back({.command = NotifierCommand::kInvalidateInode,
                    .mount_id = mount_id,
                    .id = id,
                    .node = node,
                    .offset = 0,
                    .length = 0});
  Flush();
  return id;
}

Task<absl::Status> NotifierChannel::InvalidateInodeAndWait(uint32_t mount_id, state::NodeId node,
                                                           Deadline deadline) {
  const uint64_t id = Queue(mount_id, node);
  if (id == 0) co_return absl::UnavailableError("too many notifications wait");
  std::shared_ptr<Awaited>& entry = awaited_[id];
  if (entry == nullptr) entry = std::make_shared<Awaited>();
  const std::shared_ptr<Awaited> awaited = entry;
  CO_RETURN_IF_ERROR(co_await awaited->settled.WaitUntilSet(std::move(deadline)));
  co_return awaited->confirmed ? absl::OkStatus()
                               : absl::UnavailableError("the kernel did not take a notification");
}

void NotifierChannel::Settle(uint64_t id, bool confirmed) {
  const auto found = awaited_.find(id);
  if (found == awaited_.end()) return;
  found->second->confirmed = confirmed;
  found->second->settled.Set();
  awaited_.erase(found);
}

// Starts a child and tells it of all mounts.
absl::Status NotifierChannel::StartChild() {
  ReapLeaving();
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) {
    return absl::ErrnoToStatus(errno, "socketpair for dfs-notifier");
  }
  UniqueFd ours(ends[0]), theirs(ends[1]);
  if (fcntl(ours.get(), F_SETFL, O_NONBLOCK) != 0) return absl::ErrnoToStatus(errno, "fcntl");
  ASSIGN_OR_RETURN(const pid_t pid, SpawnNotifier(program_, theirs.get()));
  child_ = std::make_shared<Child>(loop_, std::move(ours), pid);
  std::erase_if(queue_, [](const NotifierRequest& queued) {
    return queued.command == NotifierCommand::kAddMount ||
           queued.command == NotifierCommand::kRemoveMount;
  });
  for (const auto& [mount_id, mount] : mounts_) {
    queue_.push_front({.command = NotifierCommand::kAddMount, .mount_id = mount_id});
  }
  tasks_.Spawn(ReadReplies(child_));
  return absl::OkStatus();
}

// Sends what is queued, as far as it goes now.
void NotifierChannel::Flush() {
  if (queue_.empty() || flush_due_) return;
  if (child_ == nullptr && !std::exchange(start_later_, false)) {
    const absl::Status started = StartChild();
    if (!started.ok()) LogError("notifier: ", started.message());
  }
  if (child_ == nullptr) {
    flush_due_ = true;
    tasks_.Spawn(FlushLater());
    return;
  }
  while (!queue_.empty()) {
    NotifierRequest& request = queue_.front();
    iovec part{&request, sizeof(request)};
    msghdr message = {};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
    if (request.command == NotifierCommand::kAddMount) {
      const auto mount = mounts_.find(request.mount_id);
      if (mount == mounts_.end()) {
        queue_.pop_front();
        continue;
      }
      message.msg_control = control;
      message.msg_controllen = sizeof(control);
      cmsghdr* const c = CMSG_FIRSTHDR(&message);
      c->cmsg_level = SOL_SOCKET;
      c->cmsg_type = SCM_RIGHTS;
      c->cmsg_len = CMSG_LEN(sizeof(int));
      const int fd = mount->second.fuse_fd.get();
      memcpy(CMSG_DATA(c), &fd, sizeof(fd));
    }
    if (sendmsg(child_->socket(), &message, MSG_NOSIGNAL | MSG_DONTWAIT) < 0) {
      if (errno != EAGAIN) return;  // The child has ended: ReadReplies() sees it, too.
      flush_due_ = true;
      tasks_.Spawn(FlushWhenWritable(child_));
      return;
    }
    if (request.id != 0) {
      unanswered_[request.id] = {request, loop_.Now()};
      queued_.erase({request.mount_id, request.node});
      if (!std::exchange(watching_, true)) tasks_.Spawn(WatchForStuck());
    }
    queue_.pop_front();
  }
}

Task<void> NotifierChannel::FlushWhenWritable(std::shared_ptr<Child> child) {
  // A child always reads; and if it ends, its socket is writable.
  (void)co_await child->watch().WaitWritable(Deadline::Never());
  flush_due_ = false;
  Flush();
}

Task<void> NotifierChannel::FlushLater() {
  (void)co_await runtime::Sleep(kStartAgainAfter, Deadline::Never());
  flush_due_ = false;
  Flush();
}

Task<void> NotifierChannel::ReadReplies(std::shared_ptr<Child> child) {
  while (true) {
    NotifierReply reply;
    const ssize_t n = recv(child->socket(), &reply, sizeof(reply), MSG_DONTWAIT);
    if (n == static_cast<ssize_t>(sizeof(reply))) {
      if (child == child_) HandleReply(reply);
    } else if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
      // Ends with the child, whose end makes its socket readable.
      (void)co_await child->watch().WaitReadable(Deadline::Never());
    } else {
      break;
    }
  }
  if (child != child_) co_return;
  ++counters_.ended;
  LogWarning("notifier: dfs-notifier has ended");
  start_later_ = true;
  GiveUpChild(/*stuck=*/false);
}

void NotifierChannel::HandleReply(const NotifierReply& reply) {
  if (unanswered_.erase(reply.id) == 0) return;  // Of a mount that is gone.
  Settle(reply.id, reply.error == 0 || reply.error == ENOENT);
  if (reply.error == 0) {
    ++counters_.written;
  } else if (reply.error == ENOENT) {
    ++counters_.unknown_nodes;
  } else {
    ++counters_.failed;
  }
}

Task<void> NotifierChannel::WatchForStuck() {
  while (!unanswered_.empty()) {
    const absl::Time due = unanswered_.begin()->second.sent + kStuckAfter;
    if (loop_.Now() < due) {
      (void)co_await runtime::Sleep(due - loop_.Now(), Deadline::Never());
      continue;
    }
    ReapLeaving();
    if (leaving_.size() < kMostStuckChildren) {
      GiveUpChild(/*stuck=*/true);
    } else {
      ++counters_.dropped;  // The child has to do as it is; what is stuck in it is given up.
      Settle(unanswered_.begin()->first, /*confirmed=*/false);
      unanswered_.erase(unanswered_.begin());
    }
  }
  watching_ = false;
}

void NotifierChannel::ReapLeaving() {
  std::erase_if(leaving_, [](const std::shared_ptr<Child>& child) { return child->TryReap(); });
}

// The notification that is stuck is not repeated (whoever opens the file anew tells the kernel the
// same); all else is, by the next child.
void NotifierChannel::GiveUpChild(bool stuck) {
  if (stuck) {
    ++counters_.stuck;
    ++counters_.dropped;
    const uint32_t stuck_mount = unanswered_.begin()->second.request.mount_id;
    LogWarning("notifier: the kernel holds a notification of mount ", stuck_mount,
               "; dfs-notifier is replaced");
    child_->Kill();
    Settle(unanswered_.begin()->first, /*confirmed=*/false);
    unanswered_.erase(unanswered_.begin());
  }
  leaving_.push_back(std::move(child_));
  child_.reset();
  for (auto it = unanswered_.rbegin(); it != unanswered_.rend(); ++it) {
    const NotifierRequest& request = it->second.request;
    const bool inserted =
        queued_.emplace(std::pair(request.mount_id, request.node), request.id).second;
    if (inserted || awaited_.contains(request.id)) queue_.push_front(request);
  }
  unanswered_.clear();
  Flush();
}

}  // namespace dfscsi::fuse
