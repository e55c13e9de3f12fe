// The server: who is connected, who is active, what is mounted.
//
// One thread, one epoll; every step is short. It decides only three things by itself: which agent
// is active, when an agent is dead or hung, and when a mount is gone. Everything else is asked for
// by agents and tools.
//
// Life of the node's memory and mounts:
//   none     -> live      the first agent connected; or, after a restart of the mounter, an agent
//   gave back
//                         what it had kept (escrow). While mounts of an earlier mounter may exist,
//                         an agent that has nothing waits for one that has.
//   live     -> none      never: memory is kept for the life of the process.
// Life of an agent: connected -> (gives escrow) -> standby -> active -> gone. Draining ones are not
// activated.

#ifndef NODE_AGENT_MOUNTER_MOUNTER_H_
#define NODE_AGENT_MOUNTER_MOUNTER_H_

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "node-agent/base/unique_fd.h"
#include "node-agent/mounter/fuse_mount.h"
#include "node-agent/state/mounter_protocol.h"
#include "node-agent/state/node_memory.h"

namespace dfscsi::mounter {

struct Options {
  std::string socket_dir;
  std::string mount_root = "/";
  std::vector<std::pair<uid_t, state::Role>> allow;
  std::optional<gid_t> group;   // Owner of the socket and its folder.
  bool exit_when_idle = false;  // When the last agent has gone and nothing is mounted.
};

class Mounter {
 public:
  // Makes the folder and the socket. Errors: one line for people.
  static absl::StatusOr<std::unique_ptr<Mounter>> Start(const Options& options);

  // Serves until `stop_fd` is readable. Mounts stay.
  absl::Status Run(int stop_fd);

 private:
  struct Mount {
    state::MountEntry entry;
    UniqueFd fuse_fd;
    UniqueFd tables;
  };
  struct Peer : state::MessageListener::Accepted {
    uint64_t number = 0;  // In the order of connecting.
    std::optional<state::Hello> hello;
    bool welcomed = false;
    bool draining = false;
    bool closing = false;  // Refused; it hangs up when it has read the reason.
    bool polls_write = false;
    uint32_t line = 0;  // Of the heartbeat.
    uint64_t beats = 0;
    absl::Time alive_at;  // Last sign of life, on the monotonic clock.
    absl::Time drain_since;
    bool killed = false;

    bool IsAgent() const { return hello && hello->role == state::Role::kAgent; }
  };
  // What an agent gives back, until it is complete.
  struct Escrow {
    uint64_t giver;
    absl::Time since;
    std::unique_ptr<state::NodeMemory> memory;
    std::map<uint32_t, Mount> mounts;
  };

  Mounter(Options options, MountRoot root);

  static constexpr char kBuildId[] = DFSCSI_BUILD_ID;
  static constexpr absl::Duration kTick = absl::Milliseconds(500);
  static absl::Time Now();  // Of the monotonic clock.

  bool MayBe(uid_t uid, state::Role role) const;
  void Accept();
  void PollFor(Peer& peer);
  void ReadFrom(Peer& peer);
  absl::Status Handle(Peer& peer, state::Envelope envelope);
  absl::Status HandleHello(Peer& peer, const state::Hello& hello);
  absl::Status HandleEscrow(state::Envelope envelope);
  absl::Status HandleAgent(Peer& peer, const state::Envelope& envelope);
  void Send(Peer& peer, const state::Message& message, uint64_t request_id = 0,
            const std::vector<int>& fds = {});
  void Broadcast(const state::Message& message, const Peer* asker = nullptr,
                 uint64_t request_id = 0, const std::vector<int>& fds = {});
  void Fail(Peer& peer, uint64_t request_id, const state::Error& error);
  void Refuse(Peer& peer, int error, const std::string& text);
  void Close(uint64_t number);

  void Admit();
  void Welcome(Peer& peer);
  void TakeEscrow();
  std::string WhyUnreadable(const state::Hello& hello) const;

  void SendStatus(Peer& peer, uint64_t request_id);
  void DoMount(Peer& peer, const state::MountRequest& request, uint64_t request_id);
  void DoUnmount(Peer& peer, const state::UnmountRequest& request, uint64_t request_id);
  void DropMount(uint32_t mount_id);
  // What somebody else unmounted, perhaps while no mounter ran.
  void NoteUnmounted();
  void SetDetached(uint32_t mount_id, Mount& mount);
  void NoteLiveMounts();

  Peer* active();
  void ChooseActive();
  bool EarlierActiveLives();
  void Tick();
  void CheckHeartbeat(absl::Time now);
  // Of an agent that was active and hung up without draining.
  void MakeSureItIsDead(Peer& peer);
  static void Kill(int pidfd, const std::string& why);

  const Options options_;
  const MountRoot root_;
  UniqueFd lock_, epoll_;
  state::MessageListener listener_;

  std::map<uint64_t, std::unique_ptr<Peer>> peers_;
  uint64_t last_peer_ = 0;
  uint64_t active_ = 0;  // 0: none.
  std::unique_ptr<state::NodeMemory> memory_;
  std::map<uint32_t, Mount> mounts_;
  std::optional<Escrow> escrow_;

  bool expects_escrow_ = false;  // A mounter before this one had mounts, in this boot.
  absl::Time started_at_;
  // The pidfd of an agent that was active and may still be: under the mounter before this one, or
  // it hung up and is slow to die.
  UniqueFd earlier_active_;
  absl::Time ticked_at_;
};

}  // namespace dfscsi::mounter

#endif  // NODE_AGENT_MOUNTER_MOUNTER_H_
