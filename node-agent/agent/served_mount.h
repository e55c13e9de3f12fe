// One mount, while this agent serves it: its tables, its way to the servers, its file system, its
// conversation with the kernel. Made in the same way for a new mount and for one that is taken
// over.

#ifndef NODE_AGENT_AGENT_SERVED_MOUNT_H_
#define NODE_AGENT_AGENT_SERVED_MOUNT_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "node-agent/agent/engine.h"
#include "node-agent/agent/mount_options.h"
#include "node-agent/agent/slow_operations.h"
#include "node-agent/dfs/client.h"
#include "node-agent/dfs/path.h"
#include "node-agent/fuse/session.h"
#include "node-agent/smb/credential.h"
#include "node-agent/state/mount_tables.h"
#include "node-agent/state/mounter_protocol.h"
#include "node-agent/vfs/filesystem.h"
#include "proto/stored_mount.pb.h"

namespace dfscsi::agent {

// What a mount is made of; from a request, or from what an earlier agent stored.
struct MountPlan {
  v1::StoredMount stored;
  dfs::DfsPath source;
  MountOptions options;
  bool any_target = false;  // Nothing says which hosts a referral may lead the credential to.
  smb::Credential credential;
};
// kInvalidArgument: source or options are malformed.
absl::StatusOr<MountPlan> MakePlan(v1::StoredMount stored, smb::Credential credential);

// A credential as the vault keeps it, and back.
absl::StatusOr<Secret> EncodeCredential(const smb::Credential& credential);
absl::StatusOr<smb::Credential> DecodeCredential(const Secret& secret);

// One loop.
class ServedMount final : public vfs::Invalidation {
 public:
  // `fuse_fd` is duplicated. Tables that are not formatted yet are formatted if `fresh`, and are
  // kNotFound otherwise: the mount was never finished. Other errors: kFailedPrecondition (tables or
  // INIT that this program does not understand).
  static absl::StatusOr<std::unique_ptr<ServedMount>> Make(Engine& engine, MountPlan plan,
                                                           const state::MountEntry& entry,
                                                           int fuse_fd, int tables_fd, bool fresh,
                                                           std::function<void()> on_gone);
  ~ServedMount() override;

  // Answers or runs what the predecessor left, then reads on. With an empty list: a new mount.
  void Start(const std::vector<state::RequestSlot>& adopted);

  fuse::Session& session() { return *session_; }
  dfs::Client& client() { return *client_; }
  const vfs::Filesystem& filesystem() const { return *filesystem_; }
  state::MountTables& tables() { return *tables_; }
  const MountPlan& plan() const { return plan_; }
  int64_t slow_operations() const { return slow_.total(); }

 private:
  void LogSlow(const fuse::SlowRequest& request);
  ServedMount(Engine& engine, MountPlan plan, uint32_t mount_id);
  void DataChanged(state::NodeId node) override;
  runtime::Task<absl::Status> DropPages(state::NodeId node, runtime::Deadline deadline) override;

  Engine& engine_;
  const MountPlan plan_;
  const uint32_t mount_id_;
  SlowOperations slow_;
  std::shared_ptr<smb::SessionPool> pool_;
  std::unique_ptr<dfs::Client> client_;
  std::unique_ptr<state::MountTables> tables_;
  std::unique_ptr<vfs::Filesystem> filesystem_;
  std::unique_ptr<fuse::Session> session_;
};

}  // namespace dfscsi::agent

#endif  // NODE_AGENT_AGENT_SERVED_MOUNT_H_
