// The service's calls: agent.proto's words, one function each.

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <optional>
#include <utility>
#include <variant>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "node-agent/agent/agent.h"
#include "node-agent/agent/failure.h"
#include "node-agent/agent/metrics.h"
#include "node-agent/agent/mount_difference.h"
#include "node-agent/agent/mount_options.h"
#include "node-agent/base/log.h"
#include "node-agent/base/status_macros.h"
#include "node-agent/dfs/bound_link.h"
#include "node-agent/dfs/failure_class.h"
#include "node-agent/fuse/init_flags.h"
#include "node-agent/smb/tree.h"
#include "node-agent/smb/wire/nt_status.h"

namespace dfscsi::agent {

using runtime::Deadline;
using runtime::Task;

namespace {

// How long a mount request looks for a target before it says that there is none. A round that began
// before may take 10 s more (a referral and a target, 5 s each), and all must be over in 20.
constexpr absl::Duration kReachTime = absl::Seconds(8);
constexpr uint32_t kReadAheadKb = 4096;
constexpr uint32_t kTimeGranularity = 100;  // Nanoseconds: FILETIME's.

struct Counted {
  explicit Counted(int& the_count) : count(the_count) { ++count; }
  ~Counted() { --count; }
  int& count;
};

// A kernel that aborts connections whose requests take long (6.14 and newer) would turn the waiting
// of a hard mount into the loss of the mount.
absl::Status CheckKernelTimeouts() {
  for (const char* const name : {"default_request_timeout", "max_request_timeout"}) {
    const std::string path = absl::StrCat("/proc/sys/fs/fuse/", name);
    const UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
    char text[32] = {};
    if (!fd || read(fd.get(), text, sizeof(text) - 1) <= 0) continue;  // An older kernel.
    int64_t seconds = 0;
    if (absl::SimpleAtoi(text, &seconds) && seconds != 0) {
      return WithReason(
          absl::FailedPreconditionError(absl::StrCat(
              "fs.fuse.", name, " is ", seconds,
              ": the kernel would abort a mount that waits for a server; set it to 0")),
          v1::SYSTEM);
    }
  }
  return absl::OkStatus();
}

// "1:2 a" … -> one line: what a server says may hold anything.
absl::Status About(const std::string& source, const absl::Status& status) {
  absl::Status about(status.code(), absl::StrCat(source, ": ", ForPeople(status)));
  status.ForEachPayload(
      [&](absl::string_view url, const absl::Cord& payload) { about.SetPayload(url, payload); });
  return about;
}

bool IsMountPointError(int error) {
  return error == ENOENT || error == ENOTDIR || error == EBUSY || error == ELOOP ||
         error == EXDEV || error == EEXIST || error == EINVAL || error == ENAMETOOLONG;
}

absl::Status StatusOfMounter(const state::Error& error) {
  return WithReason(absl::ErrnoToStatus(error.error, error.text),
                    IsMountPointError(error.error) ? v1::BAD_MOUNT_POINT : v1::SYSTEM);
}

}  // namespace

Agent::KnownMount* Agent::FindByPath(const std::string& mount_point) {
  for (auto& [id, known] : mounts_) {
    if (known.entry.mount_point == mount_point && !known.entry.detached) return &known;
  }
  return nullptr;
}

absl::StatusOr<smb::Credential> Agent::CredentialOf(const v1::Credential& from) {
  smb::Credential credential;
  credential.user = from.user();
  credential.domain = from.domain();
  if (credential.user.empty()) {
    return absl::InvalidArgumentError("no user name: guest and anonymous access are refused");
  }
  std::optional<Secret> password =
      credential_socket_ == nullptr ? std::nullopt : credential_socket_->Take(from.ticket());
  if (!password.has_value()) {
    // Its caller tries again, with the agent that serves then.
    return WithReason(absl::UnavailableError("this agent was not given the password"), v1::SYSTEM);
  }
  credential.password = *std::move(password);
  return credential;
}

Task<absl::Status> Agent::Mount(v1::MountRequest request, v1::MountResponse* response,
                                Deadline deadline) {
  const Counted counted(calls_in_progress_);
  deadline = deadline.Within(kMountTime);
  CO_ASSIGN_OR_RETURN(smb::Credential credential, CredentialOf(request.credential()));
  v1::StoredMount stored;
  stored.set_source(request.source());
  *stored.mutable_options() = request.options();
  stored.set_inode_key(request.inode_key());
  if (stored.inode_key().empty()) {
    for (int i = 0; i < 2; ++i) {
      const uint64_t random = loop_.Random();
      stored.mutable_inode_key()->append(reinterpret_cast<const char*>(&random), sizeof(random));
    }
  }
  CO_ASSIGN_OR_RETURN(MountPlan plan, MakePlan(std::move(stored), std::move(credential)));
  *response->mutable_warnings() = {plan.options.warnings.begin(), plan.options.warnings.end()};
  const std::string& mount_point = request.mount_point();
  if (!absl::StartsWith(mount_point, "/")) {
    co_return WithReason(absl::InvalidArgumentError("the mount point must be an absolute path"),
                         v1::BAD_MOUNT_POINT);
  }
  CO_RETURN_IF_ERROR(CheckKernelTimeouts());
  if (FindByPath(mount_point) != nullptr) {
    // Somebody else may have unmounted it: before the mounter answers it tells what is detached.
    const absl::StatusOr<state::Message> looked =
        co_await link_.Request(state::StatusRequest(), deadline);
    if (!looked.ok()) co_return WithReason(looked.status(), v1::SYSTEM);
  }
  if (KnownMount* const known = FindByPath(mount_point); known != nullptr) {
    const std::string difference = known->served == nullptr
                                       ? "and this agent cannot serve it, see its log"
                                       : DifferenceOf(known->served->plan(), plan);
    if (!difference.empty()) {
      co_return WithReason(absl::AlreadyExistsError(absl::StrCat(
                               mount_point, ": ", known->entry.source, " is mounted there, ",
                               difference, ": unmount it first")),
                           v1::BAD_MOUNT_POINT);
    }
    // Nobody has looked whether the other one is right; the mount goes on with its own.
    if (known->served->plan().credential.Identity() != plan.credential.Identity()) {
      co_return WithReason(
          absl::AlreadyExistsError(
              absl::StrCat(mount_point, ": ", known->entry.source,
                           " is mounted there with another user or password: unmount it first")),
          v1::BAD_MOUNT_POINT);
    }
    response->set_mount_id(known->entry.mount_id);
    co_return absl::OkStatus();
  }
  if (!mounting_.insert(mount_point).second) {
    co_return WithReason(
        absl::AlreadyExistsError(absl::StrCat(mount_point, ": a mount is being made there")),
        v1::BAD_MOUNT_POINT);
  }
  struct Unreserve {
    std::set<std::string>& mounting;
    std::string path;
    ~Unreserve() { mounting.erase(path); }
  } const unreserve{mounting_, mount_point};

  if (const absl::Status reached = co_await Reach(&plan, deadline); !reached.ok()) {
    LogWarning("mount of ", request.source(), ": ", reached.message());
    co_return About(request.source(), reached);
  }
  if (plan.any_target && plan.options.dfs.allowed_targets.empty()) {
    LogWarning("mount of ", request.source(),
               ": a referral may lead its credential to any host: ", plan.source.HostName(),
               " has no DNS suffix, and allowed_targets is not set");
  }
  for (const std::string& warning : plan.options.warnings) {
    LogWarning("mount of ", request.source(), ": ", warning);
  }
  CO_ASSIGN_OR_RETURN(const uint32_t id, co_await MountAt(mount_point, std::move(plan), deadline));
  response->set_mount_id(id);
  co_return absl::OkStatus();
}

Task<absl::Status> Agent::Reach(const MountPlan* plan, Deadline deadline) {
  // Soft, whatever the mount will be: somebody waits for the answer.
  dfs::ClientOptions options = plan->options.dfs;
  options.give_up_after = std::min(options.give_up_after, kReachTime);
  const std::shared_ptr<smb::SessionPool> pool = engine_->GetPool(plan->options.smb);
  dfs::Client client(plan->source, plan->credential, options, *pool, engine_->cache,
                     engine_->domains, engine_->health);
  const auto is_directory = std::make_shared<bool>(false);
  dfs::Client::Operation look = [is_directory](dfs::Binding binding) -> Task<absl::Status> {
    return LookAt(std::move(binding), is_directory);
  };
  const absl::Status looked = co_await client.Run(plan->source, std::move(look), {}, deadline);
  if (!looked.ok()) co_return ExplainDenial(looked, plan->credential);
  if (!*is_directory) {
    co_return WithReason(absl::FailedPreconditionError("not a directory"), v1::MISSING_PATH);
  }
  co_return absl::OkStatus();
}

absl::Status Agent::ExplainDenial(const absl::Status& status,
                                  const smb::Credential& credential) const {
  if (!absl::IsPermissionDenied(status) || smb::wire::NtStatusOf(status).has_value()) return status;
  const std::string identity = credential.Identity();
  for (const dfs::TargetHealthTable::Listed& listed : engine_->health.List()) {
    if (listed.credential != identity || listed.status.state != dfs::TargetState::kDenied) continue;
    const std::string host = listed.target.substr(2, listed.target.find('/', 2) - 2);
    if (engine_->sessions.RefusedFor(host, identity) <= absl::ZeroDuration()) continue;
    return smb::wire::ToStatus(smb::wire::NtStatus::kLogonFailure,
                               absl::StrCat("log-on to ", host,
                                            " (refused a moment ago; if it is mended there: dfsctl "
                                            "cache flush, then again)"));
  }
  return status;
}

Task<absl::Status> Agent::LookAt(dfs::Binding binding, std::shared_ptr<bool> is_directory) {
  if (!binding.tree->is_disk()) {
    co_return WithReason(absl::FailedPreconditionError("the share is not a file share"),
                         v1::UNKNOWN_SHARE);
  }
  // The race of targets, and the client, bound it.
  CO_ASSIGN_OR_RETURN(const smb::FileStatus status,
                      co_await binding.tree->Stat(binding.path, Deadline::After(kReachTime)));
  *is_directory = (status.attributes.attributes & smb::wire::kAttributeDirectory) != 0;
  co_return absl::OkStatus();
}

Task<absl::StatusOr<uint32_t>> Agent::MountAt(std::string mount_point, MountPlan plan,
                                              Deadline deadline) {
  CO_ASSIGN_OR_RETURN(const Secret secret, EncodeCredential(plan.credential));
  state::MountRequest request;
  request.mount_point = mount_point;
  request.source = plan.source.ToString();
  request.read_only = plan.options.vfs.read_only;
  request.init_flags = fuse::kInitFlags;
  if (plan.options.vfs.locks) request.init_flags |= fuse::kInitLockFlags;
  request.max_write = state::kMaxWriteBytes;
  request.max_readahead = kReadAheadKb << 10;
  request.read_ahead_kb = kReadAheadKb;
  request.time_gran = kTimeGranularity;
  request.tables_layout = state::kTablesLayoutVersion;
  request.config = plan.stored.SerializeAsString();
  // It also travels in lists and between agents, with room for what stands beside it.
  constexpr size_t kMostBytes = state::kMaxMessageBytes / 2;
  if (request.mount_point.size() + request.source.size() + request.config.size() > kMostBytes) {
    co_return WithReason(absl::InvalidArgumentError(absl::StrCat(
                             "source and options are longer than ", kMostBytes, " bytes")),
                         v1::BAD_ARGUMENT);
  }
  CO_ASSIGN_OR_RETURN(const state::Message answer,
                      co_await link_.Request(std::move(request), deadline));
  if (const auto* error = std::get_if<state::Error>(&answer)) co_return StatusOfMounter(*error);
  const auto* entry = std::get_if<state::MountEntry>(&answer);
  const auto found = entry == nullptr ? mounts_.end() : mounts_.find(entry->mount_id);
  if (found == mounts_.end()) {
    co_return WithReason(absl::InternalError("the mounter did not say what it mounted"),
                         v1::SYSTEM);
  }
  // From here to the end nothing waits: the mount is whole, or it is removed. (An agent that dies
  // in between leaves one without a secret or tables, which its successor removes.)
  KnownMount& known = found->second;
  known.making = false;
  const uint32_t id = entry->mount_id;
  // Who asked has gone, and will not be told of it.
  absl::Status status =
      deadline.cancelled() ? absl::CancelledError("its caller is gone") : absl::OkStatus();
  if (status.ok()) status = memory_->vault->Put(id, secret);
  if (status.ok()) status = Serve(known, std::move(plan), /*fresh=*/true, {});
  if (!status.ok()) {
    memory_->vault->Erase(id);
    tasks_.Spawn(RemoveUnfinished(id));
    co_return WithReason(status, v1::SYSTEM);
  }
  LogInfo("mount ", id, ": ", known.entry.source, " on ", mount_point);
  co_return id;
}

Task<absl::Status> Agent::Unmount(v1::UnmountRequest request, v1::UnmountResponse* response,
                                  Deadline deadline) {
  const Counted counted(calls_in_progress_);
  state::UnmountRequest unmount;
  unmount.mount_point = request.mount_point();
  unmount.force = request.force();
  CO_ASSIGN_OR_RETURN(
      const state::Message answer,
      co_await link_.Request(std::move(unmount), deadline.Within(absl::Seconds(10))));
  const auto* error = std::get_if<state::Error>(&answer);
  if (error == nullptr) co_return absl::OkStatus();
  if (error->error == EINVAL || error->error == ENOENT) {
    co_return WithReason(absl::NotFoundError(error->text), v1::BAD_MOUNT_POINT);
  }
  co_return StatusOfMounter(*error);
}

Task<absl::Status> Agent::ListMounts(v1::ListMountsRequest request,
                                     v1::ListMountsResponse* response, Deadline deadline) {
  for (const auto& [id, known] : mounts_) {
    v1::Mount* const mount = response->add_mounts();
    mount->set_mount_id(id);
    mount->set_source(known.entry.source);
    mount->set_mount_point(known.entry.mount_point);
    mount->set_detached(known.entry.detached);
    if (known.served == nullptr) continue;
    for (const std::string& option : known.served->plan().stored.options()) {
      mount->add_options(ShownOption(option));
    }
    mount->set_inodes(known.served->tables().inodes().size());
    mount->set_open_files(known.served->tables().handles().size());
    mount->set_requests_in_flight(known.served->session().in_flight());
    mount->set_serving(dfs::LinkOf(known.served->client(), known.served->client().source()).target);
    for (const dfs::Client::BoundLink& link : known.served->client().ListLinks()) {
      v1::Mount::Link* const listed = mount->add_links();
      listed->set_prefix(link.prefix);
      listed->set_target(link.target);
      listed->set_bound(link.bound);
      listed->set_suspect(link.suspect);
    }
  }
  co_return absl::OkStatus();
}

absl::StatusOr<Agent::KnownMount*> Agent::FindFor(const dfs::DfsPath& path,
                                                  const std::string& mount_point) {
  for (auto& [id, known] : mounts_) {
    if (known.served == nullptr) continue;
    const dfs::DfsPath& source = known.served->client().source();
    if (mount_point.empty() ? path.HasPrefix(source.Prefix(2))
                            : known.entry.mount_point == mount_point) {
      return &known;
    }
  }
  return WithReason(
      absl::NotFoundError(
          mount_point.empty()
              ? absl::StrCat(path.ToString(), ": nothing of this namespace is mounted")
              : absl::StrCat(mount_point, ": nothing is mounted there")),
      v1::BAD_ARGUMENT);
}

namespace {

void FillReferral(const dfs::ReferralEntry& entry, absl::Time now, v1::Referral* referral) {
  referral->set_prefix(entry.prefix.ToString());
  referral->set_root(entry.kind == dfs::EntryKind::kRoot);
  referral->set_interlink(entry.interlink);
  referral->set_failback(entry.target_failback);
  referral->set_negative(!dfs::HasTargets(entry.kind));
  referral->set_expires_in_seconds(absl::ToDoubleSeconds(entry.expiry - now));
  uint32_t set = 0;
  for (size_t i = 0; i < entry.targets.size(); ++i) {
    if (i > 0 && entry.targets[i].starts_set) ++set;
    v1::Referral::Target* const target = referral->add_targets();
    target->set_path(entry.targets[i].path.ToString());
    target->set_hint(i == entry.hint);
    target->set_set(set);
  }
}

Task<absl::Status> NoteWhere(dfs::Binding binding, std::shared_ptr<std::string> where,
                             Deadline deadline) {
  // Only the server says that a path is behind a link that nobody has used yet. Whether there is
  // such a file is another question.
  const absl::Status status = (co_await binding.tree->Stat(binding.path, deadline)).status();
  const dfs::FailureClass failure =
      dfs::Classify(status, dfs::AttemptPhase::kOperation, /*keys_proven=*/true).failure;
  if (failure != dfs::FailureClass::kNone && failure != dfs::FailureClass::kSemantics) {
    co_return status;
  }
  *where =
      absl::StrCat("//", binding.tree->session().connection().host(), "/", binding.tree->share());
  co_return absl::OkStatus();
}

}  // namespace

Task<absl::Status> Agent::ListReferrals(v1::ListReferralsRequest request,
                                        v1::ListReferralsResponse* response, Deadline deadline) {
  const absl::Time now = loop_.Now();
  if (request.path().empty()) {
    for (const dfs::ReferralCache::Listed& listed : engine_->cache.List()) {
      FillReferral(*listed.entry, now, response->add_referrals());
    }
    co_return absl::OkStatus();
  }
  CO_ASSIGN_OR_RETURN(const dfs::DfsPath typed, dfs::DfsPath::Parse(request.path()));
  const dfs::DfsPath path = typed.WithoutPort();
  CO_ASSIGN_OR_RETURN(KnownMount* const known, FindFor(path, request.mount_point()));
  const MountPlan plan = known->served->plan();  // The mount may go while this waits.
  dfs::ClientOptions options = plan.options.dfs;
  options.give_up_after = std::min(options.give_up_after, kReachTime);
  const std::shared_ptr<smb::SessionPool> pool = engine_->GetPool(plan.options.smb);
  dfs::Client client(plan.source, plan.credential, options, *pool, engine_->cache, engine_->domains,
                     engine_->health);
  const auto where = std::make_shared<std::string>();
  const Deadline until = deadline.Within(kMountTime);
  dfs::Client::Operation note = [where, until](dfs::Binding binding) {
    return NoteWhere(std::move(binding), where, until);
  };
  const absl::Status reached = co_await client.Run(path, std::move(note), {}, until);
  for (size_t components = 2; components <= path.size(); ++components) {
    const dfs::ReferralCache::Entry entry =
        engine_->cache.GetExact(path, components, plan.credential.Account(), loop_.Now());
    if (entry != nullptr) FillReferral(*entry, loop_.Now(), response->add_referrals());
  }
  if (!reached.ok()) co_return About(request.path(), reached);
  response->set_resolved(*where);
  co_return absl::OkStatus();
}

Task<absl::Status> Agent::ListTargets(v1::ListTargetsRequest request,
                                      v1::ListTargetsResponse* response, Deadline deadline) {
  for (const dfs::TargetHealthTable::Listed& listed : engine_->health.List()) {
    v1::Target* const target = response->add_targets();
    target->set_path(listed.target);
    target->set_state(std::string(dfs::TargetStateName(listed.status.state)));
    const dfs::TargetHealthTable::Counters& counters = listed.counters;
    target->set_failures(static_cast<uint64_t>(counters.transport + counters.unavailable +
                                               counters.missing + counters.denied +
                                               counters.throttled + counters.other));
    if (listed.status.last_failure != dfs::FailureClass::kNone) {
      target->set_last_failure(std::string(dfs::FailureClassName(listed.status.last_failure)));
    }
    target->set_retry_in_seconds(
        std::max(0.0, absl::ToDoubleSeconds(listed.status.not_before - loop_.Now())));
    target->set_latency_seconds(absl::ToDoubleSeconds(listed.status.latency));
  }
  engine_->ForEachPool([&](const smb::SessionPool& pool) {
    for (const smb::SessionPool::Listed& listed : pool.List()) {
      v1::Connection* const connection = response->add_connections();
      connection->set_host(listed.host);
      connection->set_address(listed.peer);
      connection->set_suspect(listed.suspect);
      connection->set_frames_sent(static_cast<uint64_t>(listed.frames_sent));
    }
  });
  co_return absl::OkStatus();
}

Task<absl::Status> Agent::FlushCache(v1::FlushCacheRequest request,
                                     v1::FlushCacheResponse* response, Deadline deadline) {
  response->set_entries(static_cast<uint32_t>(engine_->cache.Flush()));
  engine_->domains.Flush();
  engine_->sessions.ForgiveRefusals();
  engine_->health.Forgive();
  co_return absl::OkStatus();
}

Task<absl::Status> Agent::GetMetrics(v1::GetMetricsRequest request,
                                     v1::GetMetricsResponse* response, Deadline deadline) {
  MetricsSource source{.engine = *engine_, .arena = *memory_->arena, .loop = loop_};
  source.generation = generation_;
  source.lost_early_writes = lost_early_writes_;
  for (const auto& [id, known] : mounts_) {
    if (known.served == nullptr) continue;
    source.mounts.push_back({.mount_point = known.entry.mount_point,
                             .source = known.entry.source,
                             .session = known.served->session(),
                             .filesystem = known.served->filesystem(),
                             .client = known.served->client(),
                             .tables = known.served->tables(),
                             .slow_operations = known.served->slow_operations()});
  }
  response->set_text(MetricsText(source));
  co_return absl::OkStatus();
}

Task<absl::Status> Agent::GetVersion(v1::GetVersionRequest request,
                                     v1::GetVersionResponse* response, Deadline deadline) {
  response->set_version(DFSCSI_BUILD_ID);
  response->set_pid(static_cast<uint32_t>(getpid()));
  response->set_generation(generation_);
  response->set_active_seconds(absl::ToDoubleSeconds(loop_.Now() - active_since_));
  co_return absl::OkStatus();
}

}  // namespace dfscsi::agent
