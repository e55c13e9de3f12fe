// What the mounts of one loop share: sessions, referrals, target health, reply buffers, the arena,
// the notifier. Made when the agent becomes active.

#ifndef NODE_AGENT_AGENT_ENGINE_H_
#define NODE_AGENT_AGENT_ENGINE_H_

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "node-agent/agent/guarded_sessions.h"
#include "node-agent/dfs/domain_cache.h"
#include "node-agent/dfs/referral_cache.h"
#include "node-agent/dfs/target_health.h"
#include "node-agent/fuse/arena_room.h"
#include "node-agent/fuse/buffer_pool.h"
#include "node-agent/fuse/notifier_channel.h"
#include "node-agent/runtime/real_loop.h"
#include "node-agent/smb/authenticator.h"
#include "node-agent/smb/session_pool.h"
#include "node-agent/state/logon_guard.h"
#include "node-agent/state/request_arena.h"

namespace dfscsi::agent {

// One loop.
class Engine {
 public:
  struct Outside {
    runtime::RealLoop& loop;
    smb::AuthenticatorFactory& authenticators;
    state::RequestArena& arena;
    state::LogonGuard& guard;
    std::string notifier_program;
    std::string cache_file;            // "": the referral cache is not kept on disk.
    std::function<void()> grow_arena;  // As ArenaRoom.
    bool check_own_requests = true;
  };

  explicit Engine(Outside outside);
  ~Engine();

  runtime::RealLoop& loop() { return outside_.loop; }
  bool check_own_requests() const { return outside_.check_own_requests; }

  // The pool for these options; made, and kept, while somebody holds it. `options.client_guid` is
  // set here.
  std::shared_ptr<smb::SessionPool> GetPool(smb::Options options);
  void ForEachPool(const std::function<void(const smb::SessionPool&)>& visit) const;

  // The referral cache's file: read (what is cached already stays), written.
  void LoadCache();
  runtime::Task<void> SaveCache(runtime::Deadline deadline);
  // Entries came, went or were renewed since the last SaveCache().
  bool CacheChanged() const;

  GuardedSessions sessions;
  dfs::ReferralCache cache;
  dfs::DomainCache domains;
  dfs::TargetHealthTable health;
  fuse::ArenaRoom room;
  fuse::BufferPool buffers;
  fuse::NotifierChannel notifier;

 private:
  const Outside outside_;
  // What tells one state of the cache from another: entries, and fetches that filled it.
  std::pair<int64_t, int64_t> CacheState() const;

  std::map<std::string, std::weak_ptr<smb::SessionPool>> pools_;
  std::pair<int64_t, int64_t> saved_state_;
};

}  // namespace dfscsi::agent

#endif  // NODE_AGENT_AGENT_ENGINE_H_
