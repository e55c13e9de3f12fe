#include "node-agent/dfsctl/commands.h"

#include <errno.h>
#include <google/protobuf/util/json_util.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <optional>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "node-agent/agent/failure.h"
#include "node-agent/base/status_macros.h"
#include "node-agent/dfsctl/agent_stub.h"
#include "node-agent/dfsctl/command_line.h"
#include "node-agent/dfsctl/credentials_file.h"
#include "node-agent/dfsctl/held_signals.h"
#include "node-agent/dfsctl/interrupted_mount.h"
#include "node-agent/dfsctl/keeper.h"
#include "node-agent/dfsctl/mount_point.h"
#include "node-agent/dfsctl/mounter_tool.h"
#include "node-agent/dfsctl/password_prompt.h"
#include "node-agent/dfsctl/password_ticket.h"
#include "node-agent/dfsctl/programs.h"

namespace dfscsi::dfsctl {
namespace {

using agent::WithReason;
namespace v1 = agent::v1;

// From the command line to its answer.
constexpr absl::Duration kMountTime = absl::Seconds(19);
constexpr absl::Duration kCallTime = absl::Seconds(19);
constexpr absl::Duration kKeeperTime = absl::Seconds(5);
constexpr absl::Duration kTakeoverTime = absl::Seconds(5);

void HideControls(std::string* text) {
  std::replace_if(
      text->begin(), text->end(), [](unsigned char c) { return absl::ascii_iscntrl(c); }, '?');
}

void Print(const std::string& text) { fwrite(text.data(), 1, text.size(), stdout); }

absl::Status PrintJson(const google::protobuf::Message& message) {
  google::protobuf::util::JsonPrintOptions options;
  options.always_print_primitive_fields = true;
  options.preserve_proto_field_names = true;
  std::string json;
  if (!google::protobuf::util::MessageToJsonString(message, &json, options).ok()) {
    return absl::InternalError("the answer cannot be written as JSON");
  }
  Print(json + "\n");
  return absl::OkStatus();
}

// A column of text, and then others.
class Table {
 public:
  explicit Table(std::vector<std::string> heads) { rows_.push_back(std::move(heads)); }
  // One line, whatever a cell holds.
  void Add(std::vector<std::string> cells) {
    for (std::string& cell : cells) HideControls(&cell);
    rows_.push_back(std::move(cells));
  }
  void Show() const {
    std::vector<size_t> widths(rows_[0].size());
    for (const auto& row : rows_) {
      for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
    }
    for (const auto& row : rows_) {
      std::string line;
      for (size_t i = 0; i < row.size(); ++i) {
        line += row[i];
        if (i + 1 < row.size()) line.append(widths[i] - row[i].size() + 2, ' ');
      }
      Print(line + "\n");
    }
  }

 private:
  std::vector<std::vector<std::string>> rows_;
};

// ---- Credentials ----

struct GivenCredential {
  std::optional<std::string> file;
  smb::Credential credential;
};

// The words of -o that are about the credential, taken out of `options`.
GivenCredential TakeCredentialOptions(std::vector<std::string>* options) {
  GivenCredential given;
  std::erase_if(*options, [&](const std::string& option) {
    const std::pair<std::string, std::string> parts =
        absl::StrSplit(option, absl::MaxSplits('=', 1));
    const auto& [key, value] = parts;
    if (key == "credentials" || key == "cred") {
      given.file = value;
    } else if (key == "username" || key == "user") {
      given.credential.user = value;
    } else if (key == "domain" || key == "dom" || key == "workgroup") {
      given.credential.domain = value;
    } else {
      return false;
    }
    return true;
  });
  return given;
}

absl::StatusOr<Secret> AskPassword(const std::string& user) {
  if (!isatty(STDIN_FILENO)) {
    return absl::InvalidArgumentError(
        "--credentials FILE is needed (username=, password=, domain=)");
  }
  return AskForPassword(absl::StrCat("Password of ", user, ": "));
}

absl::StatusOr<smb::Credential> GetCredential(CommandLine* line) {
  GivenCredential given = TakeCredentialOptions(&line->options);
  if (line->credentials.has_value()) given.file = line->credentials;
  if (given.file.has_value()) {
    absl::StatusOr<smb::Credential> read = ReadCredentialsFile(*given.file);
    // Whatever is wrong with it, it is the caller's to mend.
    if (!read.ok()) return WithReason(read.status(), v1::BAD_ARGUMENT);
    return read;
  }
  if (given.credential.user.empty()) {
    return absl::InvalidArgumentError(
        "--credentials FILE is needed (username=, password=, domain=)");
  }
  ASSIGN_OR_RETURN(given.credential.password, AskPassword(given.credential.user));
  RETURN_IF_ERROR(CheckCredential(given.credential));
  return std::move(given.credential);
}

// ---- Calls ----

absl::Status NoAgent(const std::string& socket_dir) {
  return WithReason(absl::UnavailableError(absl::StrCat("no agent runs in ", socket_dir)),
                    v1::SYSTEM);
}

// Repeats what found no agent: one may be taking over.
template <typename Request, typename Response>
absl::Status CallAgent(const std::string& socket_dir,
                       grpc::Status (v1::Agent::Stub::*method)(grpc::ClientContext*, const Request&,
                                                               Response*),
                       const Request& request, Response* response) {
  const absl::Time give_up = absl::Now() + kTakeoverTime;
  while (true) {
    absl::Status status =
        AgentStub(socket_dir).Call(method, request, response, absl::Now() + kCallTime);
    const bool absent = absl::IsUnavailable(status) && agent::ReasonOf(status) == v1::SYSTEM;
    if (!absent) return status;
    const absl::Status mounter = MounterTool::Connect(socket_dir).status();
    if (absl::IsPermissionDenied(mounter)) return WithReason(mounter, v1::SYSTEM);
    // No mounter: nobody will take over either.
    if (!mounter.ok() || absl::Now() > give_up) return NoAgent(socket_dir);
    absl::SleepFor(absl::Milliseconds(20));
  }
}

std::string StateDir(const CommandLine& line) {
  return line.state_dir.value_or(line.socket_dir == kDefaultSocketDir
                                     ? "/var/lib/dfs-csi-local"
                                     : absl::StrCat(line.socket_dir, "/state"));
}

absl::Status MountOnce(const std::string& socket_dir, const Secret& password,
                       v1::MountRequest* request, absl::Time deadline) {
  ASSIGN_OR_RETURN(const PasswordTicket given, GivePassword(socket_dir, password, deadline));
  request->mutable_credential()->set_ticket(given.ticket);
  v1::MountResponse response;
  grpc::ClientContext context;
  // The agent undoes what it has made for one who has gone.
  const SignalWatch watch([&context] { context.TryCancel(); });
  RETURN_IF_ERROR(
      AgentStub(socket_dir).Call(&v1::Agent::Stub::Mount, *request, &response, deadline, context));
  for (const std::string& warning : response.warnings()) {
    fprintf(stderr, "dfsctl: warning: %s\n", warning.c_str());
  }
  return absl::OkStatus();
}

// By this the mount of a request is known again, whoever mounts something there meanwhile.
absl::StatusOr<std::string> MakeInodeKey() {
  std::string key(16, '\0');
  if (getrandom(key.data(), key.size(), 0) != static_cast<ssize_t>(key.size())) {
    return WithReason(absl::ErrnoToStatus(errno, "getrandom"), v1::SYSTEM);
  }
  return key;
}

}  // namespace

absl::Status Keep(const std::vector<std::string>& arguments) {
  ASSIGN_OR_RETURN(const CommandLine line, ParseCommandLine(arguments, 0, 0));
  prctl(PR_SET_NAME, "dfs-keeper");
  return Keeper(line.socket_dir, StateDir(line)).Run();
}

absl::Status Mount(const std::vector<std::string>& arguments) {
  const absl::Time deadline = absl::Now() + kMountTime;
  ASSIGN_OR_RETURN(CommandLine line, ParseCommandLine(arguments, 2, 2));
  ASSIGN_OR_RETURN(smb::Credential credential, GetCredential(&line));
  ASSIGN_OR_RETURN(const std::string mount_point, CheckMountPoint(line.positional[1]));
  v1::MountRequest request;
  request.set_source(line.positional[0]);
  request.set_mount_point(mount_point);
  *request.mutable_options() = {line.options.begin(), line.options.end()};
  request.mutable_credential()->set_user(credential.user);
  request.mutable_credential()->set_domain(credential.domain);
  ASSIGN_OR_RETURN(*request.mutable_inode_key(), MakeInodeKey());

  Programs programs(line.socket_dir, StateDir(line));
  while (true) {
    absl::Status status = programs.EnsureRunning(deadline);
    // From here on an interruption leaves the mount and its keeper, with exit code 0, or nothing.
    HeldSignals held;
    if (status.ok()) {
      status = MountOnce(line.socket_dir, credential.password, &request, deadline);
    }
    if (absl::IsCancelled(status) && WasMounted(line.socket_dir, request.inode_key())) {
      status = absl::OkStatus();
    }
    if (status.ok()) {
      const absl::Status kept = programs.EnsureKeeper(absl::Now() + kKeeperTime);
      if (!kept.ok()) {
        fprintf(stderr, "dfsctl: mounted, but an agent that dies is not started anew: %s\n",
                std::string(kept.message()).c_str());
      }
      held.Drop();
      return absl::OkStatus();
    }
    const bool absent = absl::IsUnavailable(status) && agent::ReasonOf(status) == v1::SYSTEM;
    if (absent && absl::Now() + absl::Seconds(1) < deadline) {
      absl::SleepFor(absl::Milliseconds(20));
      continue;
    }
    programs.StopIfUnused();
    if (absl::IsDeadlineExceeded(status)) {
      return WithReason(
          absl::DeadlineExceededError(absl::StrCat(line.positional[0], ": no answer in time")),
          v1::UNREACHABLE);
    }
    return status;
  }
}

namespace {

// What was unmounted at `mount_point`, and is still open.
absl::StatusOr<std::vector<uint32_t>> DetachedAt(MounterTool& mounter,
                                                 const std::string& mount_point) {
  // It looks first whether somebody else has unmounted something.
  RETURN_IF_ERROR(mounter.GetStatus().status());
  ASSIGN_OR_RETURN(const std::vector<state::MountEntry> mounts, mounter.ListMounts());
  std::vector<uint32_t> ids;
  for (const state::MountEntry& entry : mounts) {
    if (entry.detached && entry.mount_point == mount_point) ids.push_back(entry.mount_id);
  }
  return ids;
}

absl::Status EndDetached(MounterTool& mounter, const std::vector<uint32_t>& ids) {
  for (const uint32_t id : ids) {
    const absl::Status status = mounter.Unmount(id, /*force=*/true);
    // Its last file was closed meanwhile.
    if (!status.ok() && !absl::IsNotFound(status)) return status;
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status Unmount(const std::vector<std::string>& arguments) {
  ASSIGN_OR_RETURN(const CommandLine line, ParseCommandLine(arguments, 1, 1));
  ASSIGN_OR_RETURN(const std::string mount_point, ResolveMountPoint(line.positional[0]));
  absl::StatusOr<MounterTool> mounter = MounterTool::Connect(line.socket_dir);
  if (absl::IsUnavailable(mounter.status()) && !line.detached) {
    return UnmountAlone(mount_point, line.force);
  }
  if (!mounter.ok()) return WithReason(mounter.status(), v1::SYSTEM);
  absl::Status status = WithReason(
      absl::NotFoundError(absl::StrCat(mount_point, ": no mount that was there is still used")),
      v1::BAD_MOUNT_POINT);
  if (!line.detached) status = mounter->Unmount(mount_point, line.force);
  if (!absl::IsNotFound(status)) return status;
  ASSIGN_OR_RETURN(const std::vector<uint32_t> detached, DetachedAt(*mounter, mount_point));
  if (detached.empty()) return status;
  if (line.force || line.detached) return EndDetached(*mounter, detached);
  return WithReason(
      absl::FailedPreconditionError(absl::StrCat(
          mount_point,
          ": unmounted already, but still used: it goes when its last file is closed, or with "
          "--force")),
      v1::BAD_MOUNT_POINT);
}

absl::Status Mounts(const std::vector<std::string>& arguments) {
  ASSIGN_OR_RETURN(const CommandLine line, ParseCommandLine(arguments, 0, 0));
  v1::ListMountsResponse response;
  absl::StatusOr<MounterTool> mounter = MounterTool::Connect(line.socket_dir);
  if (mounter.ok()) {
    ASSIGN_OR_RETURN(const state::StatusReply status, mounter->GetStatus());
    if (status.active_pid != 0) {
      RETURN_IF_ERROR(CallAgent(line.socket_dir, &v1::Agent::Stub::ListMounts,
                                v1::ListMountsRequest(), &response));
    } else {  // The mounter knows what is mounted, and no more.
      ASSIGN_OR_RETURN(const std::vector<state::MountEntry> mounts, mounter->ListMounts());
      for (const state::MountEntry& entry : mounts) {
        v1::Mount* const mount = response.add_mounts();
        mount->set_mount_id(entry.mount_id);
        mount->set_source(entry.source);
        mount->set_mount_point(entry.mount_point);
        mount->set_detached(entry.detached);
      }
    }
  } else if (!absl::IsUnavailable(mounter.status())) {
    return WithReason(mounter.status(), v1::SYSTEM);
  }
  AddDeadMounts(&response);
  if (!mounter.ok() && response.mounts().empty()) return NoAgent(line.socket_dir);
  if (line.json) return PrintJson(response);
  Table table({"SOURCE", "MOUNT POINT", "SERVED BY", "OPTIONS"});
  for (const v1::Mount& mount : response.mounts()) {
    table.Add({mount.source(),
               absl::StrCat(mount.mount_point(), mount.detached() ? " (detached)" : ""),
               mount.dead()               ? "dead: run dfsctl unmount"
               : !mount.serving().empty() ? mount.serving()
               : mount.links().empty()    ? "not used yet"
                                          : "no target",
               mount.options().empty() ? "-" : absl::StrJoin(mount.options(), ",")});
  }
  table.Show();
  return absl::OkStatus();
}

absl::Status Referrals(const std::vector<std::string>& arguments) {
  ASSIGN_OR_RETURN(const CommandLine line, ParseCommandLine(arguments, 0, 1));
  v1::ListReferralsRequest request;
  if (!line.positional.empty()) request.set_path(line.positional[0]);
  v1::ListReferralsResponse response;
  RETURN_IF_ERROR(CallAgent(line.socket_dir, &v1::Agent::Stub::ListReferrals, request, &response));
  if (line.json) return PrintJson(response);
  for (const v1::Referral& referral : response.referrals()) {
    Print(absl::StrFormat("%s  %s%s, %s\n", referral.prefix(),
                          referral.negative() ? "nothing there"
                          : referral.root()   ? "root"
                                              : "link",
                          referral.interlink() ? " to another namespace" : "",
                          referral.expires_in_seconds() > 0
                              ? absl::StrFormat("fresh for %.0f s", referral.expires_in_seconds())
                              : "stale"));
    for (const v1::Referral::Target& target : referral.targets()) {
      Print(absl::StrCat("  ", target.hint() ? "* " : "  ", target.path(), "\n"));
    }
  }
  if (!response.resolved().empty()) Print(absl::StrCat("served by ", response.resolved(), "\n"));
  return absl::OkStatus();
}

absl::Status Targets(const std::vector<std::string>& arguments) {
  ASSIGN_OR_RETURN(const CommandLine line, ParseCommandLine(arguments, 0, 0));
  v1::ListTargetsResponse response;
  RETURN_IF_ERROR(CallAgent(line.socket_dir, &v1::Agent::Stub::ListTargets,
                            v1::ListTargetsRequest(), &response));
  if (line.json) return PrintJson(response);
  Table targets({"TARGET", "STATE", "FAILURES", "LAST FAILURE", "RETRY IN"});
  for (const v1::Target& target : response.targets()) {
    targets.Add({target.path(), target.state(), absl::StrCat(target.failures()),
                 target.last_failure().empty() ? "-" : target.last_failure(),
                 target.retry_in_seconds() > 0
                     ? absl::StrFormat("%.1f s", target.retry_in_seconds())
                     : "-"});
  }
  targets.Show();
  Table connections({"CONNECTION", "ADDRESS", "FRAMES SENT", ""});
  for (const v1::Connection& connection : response.connections()) {
    connections.Add({connection.host(), connection.address(),
                     absl::StrCat(connection.frames_sent()), connection.suspect() ? "silent" : ""});
  }
  connections.Show();
  return absl::OkStatus();
}

absl::Status Cache(const std::vector<std::string>& arguments) {
  ASSIGN_OR_RETURN(const CommandLine line, ParseCommandLine(arguments, 1, 1));
  if (line.positional[0] != "flush") {
    return absl::InvalidArgumentError(
        absl::StrCat("cache ", line.positional[0], ": the one thing to do with it is flush"));
  }
  v1::FlushCacheResponse response;
  RETURN_IF_ERROR(
      CallAgent(line.socket_dir, &v1::Agent::Stub::FlushCache, v1::FlushCacheRequest(), &response));
  Print(absl::StrCat(response.entries(), " referrals\n"));
  return absl::OkStatus();
}

namespace {

// MOUNTPOINT, if it is given, of `opens` and `locks`.
template <typename Request>
absl::StatusOr<Request> OfMountPoint(const CommandLine& line) {
  Request request;
  if (!line.positional.empty()) {
    ASSIGN_OR_RETURN(const std::string mount_point, ResolveMountPoint(line.positional[0]));
    request.set_mount_point(mount_point);
  }
  return request;
}

std::string ShownPath(const std::string& mount_point, const std::string& path, bool is_directory) {
  if (path.empty() && !is_directory) return absl::StrCat(mount_point, " (removed)");
  return absl::StrCat(mount_point, path.empty() ? "" : "/", path, is_directory ? "/" : "");
}

std::string OrDash(const std::string& text) { return text.empty() ? "-" : text; }

}  // namespace

absl::Status Opens(const std::vector<std::string>& arguments) {
  ASSIGN_OR_RETURN(const CommandLine line, ParseCommandLine(arguments, 0, 1));
  ASSIGN_OR_RETURN(const v1::ListOpensRequest request, OfMountPoint<v1::ListOpensRequest>(line));
  v1::ListOpensResponse response;
  RETURN_IF_ERROR(CallAgent(line.socket_dir, &v1::Agent::Stub::ListOpens, request, &response));
  if (line.json) return PrintJson(response);
  Table table({"MODE", "OPENS", "WRITTEN", "LINK", "TARGET", "FILE"});
  for (const v1::OpenFile& file : response.files()) {
    table.Add({file.mode(), absl::StrCat(file.opens()), file.written() ? "yes" : "no",
               OrDash(file.link()), OrDash(file.target()),
               ShownPath(file.mount_point(), file.path(), file.directory())});
  }
  table.Show();
  return absl::OkStatus();
}

absl::Status Locks(const std::vector<std::string>& arguments) {
  ASSIGN_OR_RETURN(const CommandLine line, ParseCommandLine(arguments, 0, 1));
  ASSIGN_OR_RETURN(const v1::ListLocksRequest request, OfMountPoint<v1::ListLocksRequest>(line));
  v1::ListLocksResponse response;
  RETURN_IF_ERROR(CallAgent(line.socket_dir, &v1::Agent::Stub::ListLocks, request, &response));
  if (line.json) return PrintJson(response);
  Table table({"KIND", "TYPE", "FIRST", "LAST", "PID", "LINK", "TARGET", "FILE"});
  for (const v1::FileLock& lock : response.locks()) {
    const bool is_range = lock.kind() == "fcntl";
    const bool to_the_end = lock.last() >= uint64_t{std::numeric_limits<int64_t>::max()};
    table.Add({OrDash(lock.kind()), lock.type(), is_range ? absl::StrCat(lock.first()) : "-",
               !is_range    ? "-"
               : to_the_end ? "end"
                            : absl::StrCat(lock.last()),
               lock.pid() == 0 ? "-" : absl::StrCat(lock.pid()), OrDash(lock.link()),
               OrDash(lock.target()), ShownPath(lock.mount_point(), lock.path(), false)});
  }
  table.Show();
  return absl::OkStatus();
}

absl::Status LogLevelOf(const std::vector<std::string>& arguments) {
  ASSIGN_OR_RETURN(const CommandLine line, ParseCommandLine(arguments, 0, 1));
  v1::SetLogLevelRequest request;
  if (!line.positional.empty()) request.set_level(line.positional[0]);
  v1::SetLogLevelResponse response;
  RETURN_IF_ERROR(CallAgent(line.socket_dir, &v1::Agent::Stub::SetLogLevel, request, &response));
  Print(absl::StrCat(response.level(), "\n"));
  return absl::OkStatus();
}

absl::Status Metrics(const std::vector<std::string>& arguments) {
  ASSIGN_OR_RETURN(const CommandLine line, ParseCommandLine(arguments, 0, 0));
  v1::GetMetricsResponse response;
  RETURN_IF_ERROR(
      CallAgent(line.socket_dir, &v1::Agent::Stub::GetMetrics, v1::GetMetricsRequest(), &response));
  Print(response.text());
  return absl::OkStatus();
}

absl::Status Version(const std::vector<std::string>& arguments) {
  ASSIGN_OR_RETURN(const CommandLine line, ParseCommandLine(arguments, 0, 0));
  v1::GetVersionResponse response;
  const bool runs =
      MounterTool::Connect(line.socket_dir).ok() &&
      CallAgent(line.socket_dir, &v1::Agent::Stub::GetVersion, v1::GetVersionRequest(), &response)
          .ok();
  if (line.json) return PrintJson(response);
  Print("dfsctl " DFSCSI_BUILD_ID "\n");
  if (runs) {
    Print(absl::StrFormat("dfs-node-agent %s, pid %d, generation %d, active for %.1f s\n",
                          response.version(), response.pid(), response.generation(),
                          response.active_seconds()));
  }
  return absl::OkStatus();
}

}  // namespace dfscsi::dfsctl
