#include "node-agent/dfsctl/keeper.h"

#include <errno.h>
#include <poll.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "node-agent/base/log.h"
#include "node-agent/dfsctl/log_files.h"

namespace dfscsi::dfsctl {
namespace {

// A standby that somebody else started dies without a sign; otherwise there are signs.
constexpr absl::Duration kLookPeriod = absl::Seconds(1);
// While somebody is being started, or is dead and the mounter has not seen it yet.
constexpr absl::Duration kShortPeriod = absl::Milliseconds(20);
// An agent that has not found the mounter by then is not waited for.
constexpr absl::Duration kStartTime = absl::Seconds(5);
constexpr absl::Duration kLogPeriod = absl::Seconds(5);
constexpr absl::Duration kMounterTime = absl::Seconds(10);
// Longer than agents need to find a new mounter and give back their mounts; as long as they wait
// themselves before they end.
constexpr absl::Duration kIdleTime = absl::Seconds(5);

UniqueFd OpenPidfd(pid_t pid) {
  return UniqueFd(static_cast<int>(syscall(SYS_pidfd_open, pid, 0)));
}

}  // namespace

Keeper::Keeper(std::string socket_dir, std::string state_dir)
    : socket_dir_(socket_dir), programs_(std::move(socket_dir), std::move(state_dir)) {}

absl::Status Keeper::Run() {
  lock_ = Programs::TryLockKeeper(socket_dir_);
  if (!lock_) return absl::OkStatus();
  LogInfo("keeps the programs of ", socket_dir_, " running");
  wanted_at_ = absl::Now();
  while (true) {
    Reap();
    const std::optional<state::StatusReply> status = Look();
    const absl::Time now = absl::Now();
    if (now - logs_looked_at_ >= kLogPeriod) {
      logs_looked_at_ = now;
      for (const char* const name : {"dfs-mounter", "dfs-node-agent", "dfs-keeper"}) {
        BoundLog(absl::StrCat(socket_dir_, "/", name, ".log"));
      }
    }
    if (mounts_ != 0) wanted_at_ = now;
    if (now - wanted_at_ > kIdleTime && MayEnd()) {
      LogInfo("nothing is mounted: the end");
      return absl::OkStatus();
    }
    if (!status.has_value()) {
      Wait(std::clamp(mounter_policy_.Next() - now, kShortPeriod, kLookPeriod));
      continue;
    }
    if (status->agents >= Programs::kAgents) {
      starting_ = 0;
      agents_policy_.NoteSuccess();
    }
    const bool pending =
        starting_ != 0 && status->agents <= agents_then_ && now - started_at_ < kStartTime;
    const bool missing = status->mounts != 0 && status->agents < Programs::kAgents;
    if (missing && !pending && now >= agents_policy_.Next()) StartAgent(status->agents);
    Wait(missing || (active_pid_ != 0 && !active_) ? kShortPeriod : kLookPeriod);
  }
}

std::optional<state::StatusReply> Keeper::Look() {
  if (!mounter_.has_value()) {
    absl::StatusOr<MounterTool> connected = MounterTool::Connect(socket_dir_);
    if (absl::IsUnavailable(connected.status()) && mounts_ != 0 &&
        absl::Now() >= mounter_policy_.Next()) {
      LogWarning("the mounter is gone; it is started");
      mounter_policy_.NoteStart(absl::Now());
      const absl::Time deadline = absl::Now() + kMounterTime;
      const absl::StatusOr<UniqueFd> lock = programs_.Lock(deadline);
      const absl::Status started = lock.ok() ? programs_.EnsureMounter(deadline) : lock.status();
      if (started.ok()) {
        mounter_policy_.NoteSuccess();
        wanted_at_ = absl::Now();
      } else {
        LogError(started.message());
        mounter_policy_.NoteError(absl::Now());
      }
      connected = MounterTool::Connect(socket_dir_);
    }
    if (!connected.ok()) return std::nullopt;
    mounter_ = *std::move(connected);
  }
  const absl::StatusOr<state::StatusReply> status = mounter_->GetStatus();
  if (!status.ok()) {
    mounter_.reset();
    return std::nullopt;
  }
  // A new mounter knows of no mount until an agent has told it.
  mounts_ = status->mounts;
  if (std::exchange(active_pid_, static_cast<pid_t>(status->active_pid)) != active_pid_) {
    active_ = active_pid_ == 0 ? UniqueFd() : OpenPidfd(active_pid_);
  }
  return *status;
}

void Keeper::StartAgent(uint32_t agents) {
  agents_policy_.NoteStart(absl::Now());
  const absl::StatusOr<pid_t> started = programs_.StartAgent();
  if (!started.ok()) {
    LogError(started.status().message());
    agents_policy_.NoteError(absl::Now());
    return;
  }
  LogInfo("of ", Programs::kAgents, " agents ", agents, " run; pid ", *started, " is started");
  starting_ = *started;
  agents_then_ = agents;
  started_at_ = absl::Now();
  children_[*started] = OpenPidfd(*started);
}

void Keeper::Reap() {
  int status = 0;
  for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;) {
    const bool agent = children_.erase(pid) != 0;
    if (agent && WIFEXITED(status) && WEXITSTATUS(status) != 0) {
      LogError("pid ", pid, " ended with exit code ", WEXITSTATUS(status));
      agents_policy_.NoteError(absl::Now());
    }
    if (pid == starting_) starting_ = 0;
  }
}

bool Keeper::MayEnd() {
  // A mount is made first, and then its keeper is looked for, under this lock.
  const absl::StatusOr<UniqueFd> lock = programs_.Lock(absl::Now() + kMounterTime);
  if (!lock.ok()) return false;
  (void)Look();
  if (mounts_ != 0) return false;
  lock_.reset();
  return true;
}

void Keeper::Wait(absl::Duration longest) {
  std::vector<pollfd> polled;
  if (mounter_.has_value()) polled.push_back({mounter_->fd(), POLLIN, 0});
  const size_t active_at = polled.size();
  if (active_) polled.push_back({active_.get(), POLLIN, 0});
  for (const auto& [pid, pidfd] : children_) {
    if (pidfd) polled.push_back({pidfd.get(), POLLIN, 0});
  }
  const int n =
      poll(polled.data(), polled.size(), static_cast<int>(absl::ToInt64Milliseconds(longest)));
  if (n <= 0) return;
  if (active_ && (polled[active_at].revents & POLLIN) != 0) active_.reset();
  // The mounter says nothing that it was not asked for: this is its end.
  if (mounter_.has_value() && polled[0].revents != 0) mounter_.reset();
}

}  // namespace dfscsi::dfsctl
