// What dfs-mounter, agents and dfsctl say to each other, over a SOCK_SEQPACKET Unix socket.
//
// One packet is one message: a 20-byte header (magic, version, type, length, request id), the
// fields in the order of each struct below, little-endian, strings with their length before them;
// and file descriptors by SCM_RIGHTS. A reader ignores bytes behind the fields that it knows, and
// fields that a shorter message lacks keep their default: an old mounter and a new agent understand
// each other as long as fields are only appended.
//
//   agent                                          mounter
//   Hello(role agent, layouts, escrow counts) ->
//     [only if the mounter is new and asks:     <- EscrowWanted
//      EscrowNode, Escrow..., EscrowEnd ->]
//                                               <- Welcome + arena, vault, guard, heartbeat
//                                               <- MountEntry + fuse fd, tables fd    (each live
//                                               mount)
//                                               <- ListEnd                             (a standby
//                                               is now ready)
//                                               <- Activate(generation)                (it alone
//                                               works from here)
//   Mount(...) ->                               <- MountEntry + fds, to every agent; same request
//   id to the asker Unmount(...) ->                             <- MountGone to every agent, then
//   Done(request id) GrowArena ->                                <- StepGranted, to every agent
//   ReturnStep(step) ->                         <- StepRevoked, to every agent
//   Draining ->                                 (then it answers what it can and closes: the next
//   is activated)
//
// The hang-up of the socket is the death of its agent, so no child may inherit it. Requests that
// fail are answered by Error with their request id. A mounter that restarts is an end-of-file to
// all agents: they connect again, say Hello with the counts of what they hold, and give it all back
// if they are asked (escrow). Agents go on serving meanwhile: the fds are theirs, too.

#ifndef NODE_AGENT_STATE_MOUNTER_PROTOCOL_H_
#define NODE_AGENT_STATE_MOUNTER_PROTOCOL_H_

#include <sys/types.h>

#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "node-agent/base/unique_fd.h"

namespace dfscsi::state {

inline constexpr uint16_t kMounterProtocolVersion = 1;
inline constexpr size_t kMaxMessageBytes = 96 * 1024;
inline constexpr size_t kMaxConfigBytes = 64 * 1024;
inline constexpr int kMaxFdsPerMessage = 253;  // SCM_MAX_FD
inline constexpr std::string_view kMounterSocketName = "mounter.sock";

enum class Role : uint32_t {
  kAgent = 1,  // Serves mounts: gets fds.
  kTool = 2,   // dfsctl, the driver: may list and unmount; gets no fds.
};

// ---- agent or tool to mounter ----

struct Hello {
  Role role = Role::kTool;
  // Layouts (kTablesLayoutVersion; the arena's) that this program writes, and the oldest it reads.
  // An agent that cannot read what live mounts have is refused here, before it could be activated.
  uint32_t arena_layout = 0;
  uint32_t tables_layout = 0;
  uint32_t tables_oldest_readable = 0;
  std::string build_id = {};
  // Identity of the node state it holds from an earlier connection, 0: none; and how many mounts.
  uint64_t state_id = 0;
  uint32_t escrow_mounts = 0;
  // It is the active one (mounter restarted): it goes on being so, under this generation. 0: not
  // active.
  uint32_t active_generation = 0;

  template <typename A>
  void Fields(A& a) {
    a(role, arena_layout, tables_layout, tables_oldest_readable, build_id, state_id, escrow_mounts,
      active_generation);
  }
};

// The agent got SIGTERM: it is never activated (again); it finishes what it can and closes.
struct Draining {
  template <typename A>
  void Fields(A&) {}
};

// Everything that makes a mount. All policy is in here: the mounter has none.
struct MountRequest {
  std::string mount_point =
      {};                   // Absolute, an existing directory below the mounter's --mount-root.
  std::string source = {};  // What mountinfo shows, for example //server/namespace.
  bool read_only = false;
  uint64_t init_flags =
      0;  // FUSE_* of INIT, flags2 in the high half; ANDed with the kernel's offer.
  uint32_t max_write = 0;
  uint32_t max_readahead = 0;  // In INIT (the kernel caps it at its own offer, 128 KiB).
  uint32_t read_ahead_kb = 0;  // On the BDI after the mount; 0: leave the kernel's.
  uint32_t time_gran = 1;      // Nanoseconds.
  uint16_t max_background = 8192;
  uint32_t tables_layout = 0;
  std::string
      config;  // Opaque, at most kMaxConfigBytes, no secrets: for the agents that come later.

  template <typename A>
  void Fields(A& a) {
    a(mount_point, source, read_only, init_flags, max_write, max_readahead, read_ahead_kb,
      time_gran, max_background, tables_layout, config);
  }
};

// By id, or by path if `mount_id` is 0. The mount leaves the tree at once (MNT_DETACH); open files
// go on until they are closed, unless `force` aborts them all (ECONNABORTED, for every bind mount
// of it, too).
struct UnmountRequest {
  uint32_t mount_id = 0;
  std::string mount_point = {};
  bool force = false;

  template <typename A>
  void Fields(A& a) {
    a(mount_id, mount_point, force);
  }
};

// One more step of the arena, please. Answer: StepGranted, or Error (ENOSPC: all 16 are granted;
// ENOMEM).
struct GrowArena {
  template <typename A>
  void Fields(A&) {}
};

// The step is out of use; its memory may go back to the system. Answer: StepRevoked.
struct ReturnStep {
  uint32_t step = 0;
  template <typename A>
  void Fields(A& a) {
    a(step);
  }
};

// This fd said ENODEV: somebody unmounted it.
struct ReportGone {
  uint32_t mount_id = 0;
  template <typename A>
  void Fields(A& a) {
    a(mount_id);
  }
};

struct ListRequest {  // Answer: MountEntry without fds for each, then ListEnd.
  template <typename A>
  void Fields(A&) {}
};

struct StatusRequest {  // Answer: StatusReply.
  template <typename A>
  void Fields(A&) {}
};

// ---- mounter to agent or tool ----

// fds: arena, vault, guard, heartbeat.
struct Welcome {
  uint64_t state_id = 0;
  uint32_t heartbeat_line = 0;
  uint64_t granted_steps = 0;  // Bit i: step i of the arena.
  std::string build_id = {};

  template <typename A>
  void Fields(A& a) {
    a(state_id, heartbeat_line, granted_steps, build_id);
  }
};

// One mount. fds: /dev/fuse, tables (agents only). Also sent by the agent as Escrow.
struct MountEntry {
  uint32_t mount_id = 0;   // Never used again in the life of the node's state.
  uint32_t dev_minor = 0;  // st_dev is 0:dev_minor.
  uint32_t tables_layout = 0;
  std::string mount_point = {};
  std::string source = {};
  bool read_only = false;
  std::string init_in = {};   // FUSE_INIT as the kernel sent it, fuse_in_header first: to be
                              // replayed into libfuse.
  std::string init_out = {};  // struct fuse_init_out as it was answered.
  std::string config = {};
  bool detached = false;  // Unmounted; lives on while files are open or bind mounts of it exist.

  template <typename A>
  void Fields(A& a) {
    a(mount_id, dev_minor, tables_layout, mount_point, source, read_only, init_in, init_out, config,
      detached);
  }
};

struct ListEnd {
  uint32_t mounts = 0;
  template <typename A>
  void Fields(A& a) {
    a(mounts);
  }
};

// The receiver is the active agent now: adopt the arena, recover the tables, read. Generations rise
// with each activation on this node. An agent that is active already (the mounter restarted) just
// goes on.
struct Activate {
  uint32_t generation = 0;
  template <typename A>
  void Fields(A& a) {
    a(generation);
  }
};

struct StepGranted {
  uint32_t step = 0;
  uint64_t granted_steps = 0;
  template <typename A>
  void Fields(A& a) {
    a(step, granted_steps);
  }
};

struct StepRevoked {
  uint32_t step = 0;
  uint64_t granted_steps = 0;
  template <typename A>
  void Fields(A& a) {
    a(step, granted_steps);
  }
};

// Unmounted, by whomever. Close the fds, free its slots, forget its tables.
struct MountGone {
  uint32_t mount_id = 0;
  std::string mount_point = {};
  template <typename A>
  void Fields(A& a) {
    a(mount_id, mount_point);
  }
};

struct Done {  // The request with this id was carried out.
  template <typename A>
  void Fields(A&) {}
};

// A request failed, or (request id 0) the connection is refused and will be closed.
struct Error {
  int32_t error = 0;      // errno
  std::string text = {};  // One line, for people.
  template <typename A>
  void Fields(A& a) {
    a(error, text);
  }
};

struct StatusReply {
  uint32_t mounts = 0;
  uint32_t agents = 0;
  uint32_t active_pid = 0;  // 0: none is active.
  uint32_t generation = 0;
  uint64_t granted_steps = 0;
  std::string build_id = {};
  std::string active_build_id = {};
  template <typename A>
  void Fields(A& a) {
    a(mounts, agents, active_pid, generation, granted_steps, build_id, active_build_id);
  }
};

// ---- escrow: agent to a mounter that has just started ----

struct EscrowWanted {  // Mounter to agent.
  template <typename A>
  void Fields(A&) {}
};

// fds: arena, vault, guard, heartbeat.
struct EscrowNode {
  uint64_t state_id = 0;
  uint64_t granted_steps = 0;
  uint32_t arena_layout = 0;
  template <typename A>
  void Fields(A& a) {
    a(state_id, granted_steps, arena_layout);
  }
};

struct EscrowEnd {  // After the MountEntry messages with their fds.
  template <typename A>
  void Fields(A&) {}
};

// The order is the type number on the wire: append only.
using Message = std::variant<Hello, Draining, MountRequest, UnmountRequest, GrowArena, ReturnStep,
                             ReportGone, ListRequest, StatusRequest, Welcome, MountEntry, ListEnd,
                             Activate, StepGranted, StepRevoked, MountGone, Done, Error,
                             StatusReply, EscrowWanted, EscrowNode, EscrowEnd>;

struct Envelope {
  uint64_t request_id = 0;  // The asker's number; 0: not a request and not an answer to one.
  Message message;
  std::vector<UniqueFd> fds;
};

// "Mount", "Activate" …: for logs.
std::string_view MessageName(const Message& message);

std::string EncodeMessage(const Message& message, uint64_t request_id);
// InvalidArgument: not a message (too short, a length beyond the packet, a string beyond its limit,
// an unknown type, a newer protocol). The caller closes the connection. Reads no descriptor.
absl::StatusOr<Envelope> DecodeMessage(std::string_view packet);

// One end of a connection. Never blocks. Not thread-safe.
class MessageSocket {
 public:
  MessageSocket() = default;
  // `fd`: a connected SOCK_SEQPACKET socket, O_NONBLOCK.
  explicit MessageSocket(UniqueFd fd) : fd_(std::move(fd)) {}
  // Connects to `<socket_dir>/mounter.sock`. Unavailable: nobody listens there (yet): try again
  // later. PermissionDenied: this user may not.
  static absl::StatusOr<MessageSocket> Connect(const std::string& socket_dir);

  int fd() const { return fd_.get(); }

  // Sends, or queues (with duplicates of the fds) while the peer does not read. Unavailable: hung
  // up. ResourceExhausted: more than kMaxQueuedMessages wait; the caller closes.
  static constexpr size_t kMaxQueuedMessages = 8192;
  absl::Status Send(const Message& message, uint64_t request_id = 0,
                    absl::Span<const int> fds = {});
  // True: call Flush() when the fd is writable.
  bool wants_write() const { return !queue_.empty(); }
  absl::Status Flush();

  // The next message; nullopt: nothing is there now. Unavailable: hung up. InvalidArgument: as
  // DecodeMessage.
  absl::StatusOr<std::optional<Envelope>> Receive();

 private:
  struct Packet {
    std::string bytes;
    std::vector<UniqueFd> fds;
  };
  // OK and false: would block.
  absl::StatusOr<bool> SendPacket(std::string_view bytes, absl::Span<const int> fds);

  UniqueFd fd_;
  std::deque<Packet> queue_;
  std::string buffer_;
};

// The mounter's end: `<socket_dir>/mounter.sock`.
class MessageListener {
 public:
  struct Accepted {
    MessageSocket socket;
    pid_t pid = 0;
    uid_t uid = 0;
    UniqueFd pidfd;  // Empty: this kernel or pid namespace cannot say; the peer cannot be killed.
  };

  MessageListener() = default;
  MessageListener(MessageListener&& other) noexcept { *this = std::move(other); }
  MessageListener& operator=(MessageListener&& other) noexcept {
    std::swap(fd_, other.fd_);
    std::swap(path_, other.path_);
    return *this;
  }
  // Removes the socket: to be destroyed before whatever keeps a successor from listening is let go.
  ~MessageListener();
  // Makes the folder (0750) and the socket (0660), of `group` if given. The socket appears under
  // its name when it can be connected to; one that a dead listener left is replaced.
  static absl::StatusOr<MessageListener> Listen(const std::string& socket_dir,
                                                std::optional<gid_t> group);
  int fd() const { return fd_.get(); }
  std::optional<Accepted> Accept();  // Nonblocking.

 private:
  UniqueFd fd_;
  std::string path_;  // Empty: there is no socket.
};

}  // namespace dfscsi::state

#endif  // NODE_AGENT_STATE_MOUNTER_PROTOCOL_H_
