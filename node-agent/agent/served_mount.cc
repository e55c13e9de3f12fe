#include "node-agent/agent/served_mount.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include <optional>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "node-agent/base/log.h"
#include "node-agent/base/status_macros.h"
#include "node-agent/dfs/bound_link.h"
#include "node-agent/dfs/target_policy.h"
#include "node-agent/state/vault.h"

namespace dfscsi::agent {

absl::StatusOr<MountPlan> MakePlan(v1::StoredMount stored, smb::Credential credential) {
  ASSIGN_OR_RETURN(dfs::DfsPath source, dfs::DfsPath::Parse(stored.source()));
  const std::vector<std::string> words(stored.options().begin(), stored.options().end());
  ASSIGN_OR_RETURN(MountOptions options, ParseMountOptions(words));
  if (stored.inode_key().size() != options.vfs.key.size()) {
    return absl::InvalidArgumentError("the inode key must have 16 bytes");
  }
  if (const std::optional<uint16_t> port = source.Port()) {  // host@port
    if (options.smb.port != smb::Options().port && options.smb.port != *port) {
      return absl::InvalidArgumentError(
          absl::StrCat("the source says port ", *port, ", the option port ", options.smb.port));
    }
    options.smb.port = *port;
    source = source.WithoutPort();
  }
  if (options.smb.port != smb::Options().port) {
    options.smb.port_host = std::string(source.HostName());  // Not that of its links' targets.
  }
  ASSIGN_OR_RETURN(const dfs::AllowedTargets allowed,
                   dfs::AllowedTargets::Make(source.HostName(), options.dfs.allowed_targets,
                                             options.dfs.allow_local_targets));
  memcpy(options.vfs.key.data(), stored.inode_key().data(), options.vfs.key.size());
  return MountPlan{.stored = std::move(stored),
                   .source = std::move(source),
                   .options = std::move(options),
                   .any_target = allowed.allows_all(),
                   .credential = std::move(credential)};
}

// In both directions the message is wiped: its memory is not a Secret's.
absl::StatusOr<Secret> EncodeCredential(const smb::Credential& credential) {
  v1::StoredSecret stored;
  stored.set_user(credential.user);
  stored.set_domain(credential.domain);
  const std::string_view password = credential.password.Expose();
  stored.set_password(password.data(), password.size());
  Secret encoded = Secret::WithRoom(stored.ByteSizeLong());
  const bool written =
      stored.SerializeToArray(encoded.data(), static_cast<int>(encoded.Expose().size()));
  explicit_bzero(stored.mutable_password()->data(), password.size());
  if (!written || encoded.Expose().size() > state::Vault::kMaxSecretBytes) {
    return absl::InvalidArgumentError("the credential is too long");
  }
  return encoded;
}

absl::StatusOr<smb::Credential> DecodeCredential(const Secret& secret) {
  v1::StoredSecret stored;
  if (!stored.ParseFromArray(secret.Expose().data(), static_cast<int>(secret.Expose().size()))) {
    return absl::DataLossError("the vault holds something else than a credential");
  }
  smb::Credential credential;
  credential.user = stored.user();
  credential.domain = stored.domain();
  credential.password = Secret(std::move(*stored.mutable_password()));
  return credential;
}

ServedMount::ServedMount(Engine& engine, MountPlan plan, uint32_t mount_id)
    : engine_(engine), plan_(std::move(plan)), mount_id_(mount_id) {}

ServedMount::~ServedMount() {
  // In this order: whoever goes first uses what goes later.
  session_.reset();
  filesystem_.reset();
  client_.reset();
  tables_.reset();
  engine_.notifier.RemoveMount(mount_id_);
}

absl::StatusOr<std::unique_ptr<ServedMount>> ServedMount::Make(Engine& engine, MountPlan plan,
                                                               const state::MountEntry& entry,
                                                               int fuse_fd, int tables_fd,
                                                               bool fresh,
                                                               std::function<void()> on_gone) {
  std::unique_ptr<ServedMount> mount(new ServedMount(engine, std::move(plan), entry.mount_id));
  const MountPlan& p = mount->plan_;

  absl::StatusOr<std::unique_ptr<state::MountTables>> tables = state::MountTables::Map(tables_fd);
  if (tables.ok()) {
    RETURN_IF_ERROR((*tables)->Recover());
  } else if (fresh && absl::IsNotFound(tables.status())) {
    tables = state::MountTables::Format(
        tables_fd, vfs::Filesystem::RootInodeNumber(p.options.vfs.key, p.source));
  }
  if (!tables.ok()) return tables.status();
  mount->tables_ = *std::move(tables);

  mount->pool_ = engine.GetPool(p.options.smb);
  dfs::ClientOptions options = p.options.dfs;
  options.next_epoch = [tables = mount->tables_.get()] { return tables->NextEpoch(); };
  mount->client_ =
      std::make_unique<dfs::Client>(p.source, p.credential, std::move(options), *mount->pool_,
                                    engine.cache, engine.domains, engine.health);
  vfs::Options vfs = p.options.vfs;
  vfs.name_in_log = absl::StrCat("mount ", entry.mount_id, " (", entry.mount_point, ")");
  mount->filesystem_ =
      std::make_unique<vfs::Filesystem>(*mount->client_, *mount->tables_, *mount, std::move(vfs));

  UniqueFd fd(fcntl(fuse_fd, F_DUPFD_CLOEXEC, 0));
  if (!fd) return absl::ErrnoToStatus(errno, "duplicating the mount's fd");
  engine.notifier.AddMount(entry.mount_id, fd.get());
  std::unique_ptr<runtime::FdWatch> watch = engine.loop().Watch(fd.get());
  fuse::Session::Config config;
  config.mount_id = entry.mount_id;
  config.fuse_fd = std::move(fd);
  config.init_in = entry.init_in;
  config.check_own_requests = engine.check_own_requests();
  config.slow = kSlow;
  config.on_slow = [served = mount.get()](const fuse::SlowRequest& request) {
    served->LogSlow(request);
  };
  config.moves = [client = mount->client_.get()] { return client->counters().moved_operations; };
  ASSIGN_OR_RETURN(mount->session_,
                   fuse::Session::Make(std::move(config), std::move(watch), *mount->filesystem_,
                                       engine.room, engine.buffers, std::move(on_gone)));
  return mount;
}

void ServedMount::Start(const std::vector<state::RequestSlot>& adopted) {
  session_->Adopt(adopted);
  session_->Start();
  filesystem_->ResumeInvalidations();
}

void ServedMount::LogSlow(const fuse::SlowRequest& request) {
  const std::optional<int64_t> unsaid = slow_.Note(engine_.loop().Now());
  if (!unsaid.has_value()) return;
  const std::string below = tables_->inodes().Contains(request.node)
                                ? tables_->inodes().Path(request.node).value_or("")
                                : "";
  const dfs::Client::BoundLink link =
      dfs::LinkOf(*client_, dfs::PathBelow(client_->source(), below));
  std::string line = absl::StrFormat(
      "mount %d: %s%s %s %.1f s: %s on %s, %s", mount_id_, OpcodeName(request.opcode),
      request.behind ? " (behind its answer)" : "", request.answered ? "took" : "waits since",
      absl::ToDoubleSeconds(request.age), link.prefix.empty() ? "no link" : link.prefix,
      link.target.empty() ? "no target" : link.target,
      !link.bound    ? "looking for one that is up"
      : link.suspect ? "which is silent"
                     : "which answers");
  if (request.moves > 0) absl::StrAppend(&line, "; ", request.moves, " operations moved meanwhile");
  if (*unsaid > 0) absl::StrAppend(&line, "; ", *unsaid, " more had no line");
  LogWarning(line);
  // A name may tell more of a company than its log may.
  LogDebug("mount ", mount_id_, ": that was of /", below);
}

void ServedMount::DataChanged(state::NodeId node) {
  engine_.notifier.InvalidateInode(mount_id_, node);
}

runtime::Task<absl::Status> ServedMount::DropPages(state::NodeId node, runtime::Deadline deadline) {
  return engine_.notifier.InvalidateInodeAndWait(mount_id_, node, std::move(deadline));
}

}  // namespace dfscsi::agent
