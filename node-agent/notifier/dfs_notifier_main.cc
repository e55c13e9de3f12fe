// dfs-notifier: writes FUSE notifications for the agent.
//
// A notification may have to wait for a page or a directory that a parked request has locked, and
// its writer is then in D state, where not even SIGKILL ends it. No thread of the agent may ever be
// there: its death could not be noticed, and nobody would take over. So this child writes them, one
// thread for each mount. It ends when its socket closes or the agent dies; where one of its threads
// is stuck, that is when somebody answers the request, or with the mount: until then it keeps the
// mount's fd open. Where nobody is left to answer, `umount -f` is needed (docs/reliability.md).

#include <errno.h>
#include <linux/fuse.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <condition_variable>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>

#include "node-agent/base/unique_fd.h"
#include "node-agent/state/notifier_protocol.h"

namespace dfscsi {
namespace {

using state::kNotifierSocketFd;
using state::NotifierCommand;
using state::NotifierReply;
using state::NotifierRequest;

constexpr int kNotifyIncrementEpoch = 8;  // FUSE_NOTIFY_INC_EPOCH, since 7.44.

// Returns 0 or a positive errno.
int Notify(int fuse_fd, const NotifierRequest& request) {
  fuse_out_header header = {};
  fuse_notify_inval_inode_out inval = {};
  iovec parts[2] = {{&header, sizeof(header)}, {&inval, sizeof(inval)}};
  int count = 1;
  switch (request.command) {
    case NotifierCommand::kInvalidateInode:
      header.error = FUSE_NOTIFY_INVAL_INODE;
      inval.ino = request.node;
      inval.off = request.offset;
      inval.len = request.length;
      count = 2;
      break;
    case NotifierCommand::kIncrementEpoch:
      header.error = kNotifyIncrementEpoch;
      break;
    default:
      return EINVAL;
  }
  header.len = static_cast<uint32_t>(parts[0].iov_len + (count > 1 ? parts[1].iov_len : 0));
  return writev(fuse_fd, parts, count) < 0 ? errno : 0;
}

// One mount: its fd, and the thread that alone writes to it. Detached, because it may be stuck.
class Mount : public std::enable_shared_from_this<Mount> {
 public:
  explicit Mount(UniqueFd fuse_fd) : fuse_fd_(std::move(fuse_fd)) {}

  void Start() {
    std::thread([self = shared_from_this()] { self->Run(); }).detach();
  }
  void Add(const NotifierRequest& request) {
    const std::lock_guard lock(mutex_);
    queue_.push_back(request);
    changed_.notify_one();
  }
  void Remove() {
    const std::lock_guard lock(mutex_);
    removed_ = true;
    changed_.notify_one();
  }

 private:
  void Run() {
    std::unique_lock lock(mutex_);
    while (true) {
      changed_.wait(lock, [this] { return removed_ || !queue_.empty(); });
      if (removed_) return;
      const NotifierRequest request = queue_.front();
      queue_.pop_front();
      lock.unlock();
      const NotifierReply reply{request.id, Notify(fuse_fd_.get(), request), 0};
      // The agent bounds how many requests are out, so this waits for nobody. If it fails the agent
      // is gone, and the main thread sees that, too.
      (void)send(kNotifierSocketFd, &reply, sizeof(reply), MSG_NOSIGNAL);
      lock.lock();
    }
  }

  const UniqueFd fuse_fd_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<NotifierRequest> queue_;
  bool removed_ = false;
};

// False: the agent is gone, or sent something else than a request.
bool Receive(NotifierRequest* request, UniqueFd* fd) {
  iovec part{request, sizeof(*request)};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))];
  msghdr message = {};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  ssize_t n;
  do {
    n = recvmsg(kNotifierSocketFd, &message, MSG_CMSG_CLOEXEC);
  } while (n < 0 && errno == EINTR);
  if (n > 0) {
    const cmsghdr* const c = CMSG_FIRSTHDR(&message);
    if (c != nullptr && c->cmsg_type == SCM_RIGHTS && c->cmsg_len == CMSG_LEN(sizeof(int))) {
      int received;
      memcpy(&received, CMSG_DATA(c), sizeof(received));
      fd->reset(received);
    }
  }
  return n == static_cast<ssize_t>(sizeof(*request));
}

int Main() {
  // The file contents and credentials are the agent's; nothing of them is here. Still:
  prctl(PR_SET_DUMPABLE, 0);
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  std::map<uint32_t, std::shared_ptr<Mount>> mounts;
  while (true) {
    NotifierRequest request;
    UniqueFd fd;
    if (!Receive(&request, &fd)) break;
    const auto it = mounts.find(request.mount_id);
    switch (request.command) {
      case NotifierCommand::kAddMount:
        if (!fd || it != mounts.end()) break;
        mounts.emplace(request.mount_id, std::make_shared<Mount>(std::move(fd)))
            .first->second->Start();
        break;
      case NotifierCommand::kRemoveMount:
        if (it == mounts.end()) break;
        it->second->Remove();
        mounts.erase(it);
        break;
      default:
        if (it != mounts.end()) {
          it->second->Add(request);
        } else {
          const NotifierReply reply{request.id, ENODEV, 0};
          (void)send(kNotifierSocketFd, &reply, sizeof(reply), MSG_NOSIGNAL);
        }
    }
  }
  _exit(0);  // Not by way of destructors: threads may be stuck in a write.
}

}  // namespace
}  // namespace dfscsi

int main(int argc, char**) {
  sockaddr_storage name;
  socklen_t length = sizeof(name);
  if (argc != 1 ||
      getsockname(dfscsi::kNotifierSocketFd, reinterpret_cast<sockaddr*>(&name), &length) != 0) {
    fputs("dfs-notifier is started by dfs-node-agent, with a socket as descriptor 3\n", stderr);
    return 1;
  }
  return dfscsi::Main();
}
