// ListOpens, ListLocks and SetLogLevel of the service.

#include <fcntl.h>

#include <map>
#include <string>
#include <tuple>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "node-agent/agent/agent.h"
#include "node-agent/agent/failure.h"
#include "node-agent/base/log.h"
#include "node-agent/dfs/bound_link.h"
#include "node-agent/vfs/lock_model.h"

namespace dfscsi::agent {

using runtime::Deadline;
using runtime::Task;

namespace {

std::string ModeOf(const state::HandleTable::Record& record) {
  if ((record.open_flags & O_APPEND) != 0) return "a";
  switch (record.open_flags & O_ACCMODE) {
    case O_WRONLY:
      return "w";
    case O_RDWR:
      return "rw";
    default:
      return "r";
  }
}

// `target` is that share, or a folder of it.
bool IsBelow(absl::string_view target, absl::string_view share) {
  return absl::StartsWithIgnoreCase(target, share) &&
         (target.size() == share.size() || target[share.size()] == '/');
}

void ListOpensOf(ServedMount& mount, const std::string& mount_point,
                 v1::ListOpensResponse* response) {
  // By what makes two handles one line.
  std::map<std::tuple<std::string, state::NodeId, std::string, std::string>, v1::OpenFile> files;
  mount.tables().handles().ForEach(
      [&](state::FileHandle fh, const state::HandleTable::Record& record) {
        const std::string path = mount.tables().inodes().Path(record.node).value_or("");
        const std::string mode = ModeOf(record);
        const std::string share = mount.filesystem().ShareOf(fh);
        v1::OpenFile& file = files[{path, record.node, mode, share}];
        if (file.opens() == 0) {
          const dfs::Client::BoundLink link =
              dfs::LinkOf(mount.client(), dfs::PathBelow(mount.client().source(), path));
          file.set_mount_point(mount_point);
          file.set_path(path);
          file.set_link(link.prefix);
          // Its link may have moved since: it follows when it is used.
          file.set_target(share.empty() || IsBelow(link.target, share) ? link.target : share);
          file.set_mode(mode);
          file.set_directory(record.kind ==
                             static_cast<uint32_t>(state::HandleTable::Kind::kDirectory));
        }
        file.set_opens(file.opens() + state::Load(record.refs));
        file.set_written(file.written() || vfs::Filesystem::IsWritten(state::Load(record.flags)));
      });
  for (auto& [key, file] : files) *response->add_files() = std::move(file);
}

v1::FileLock* AddLock(ServedMount& mount, const std::string& mount_point, state::NodeId node,
                      v1::ListLocksResponse* response) {
  const std::string path = mount.tables().inodes().Path(node).value_or("");
  const dfs::Client::BoundLink link =
      dfs::LinkOf(mount.client(), dfs::PathBelow(mount.client().source(), path));
  v1::FileLock* const lock = response->add_locks();
  lock->set_mount_point(mount_point);
  lock->set_path(path);
  lock->set_link(link.prefix);
  lock->set_target(link.target);
  return lock;
}

void ListLocksOf(ServedMount& mount, const std::string& mount_point,
                 v1::ListLocksResponse* response) {
  mount.tables().locks().ForEach([&](uint32_t, const state::LockTable::Lock& held) {
    v1::FileLock* const lock = AddLock(mount, mount_point, held.node, response);
    const bool is_range = held.kind == static_cast<uint32_t>(vfs::LockKind::kRange);
    lock->set_kind(is_range ? "fcntl" : "flock");
    lock->set_type(held.type == static_cast<uint32_t>(vfs::LockType::kShared) ? "shared"
                                                                              : "exclusive");
    if (is_range) {
      lock->set_first(held.first);
      lock->set_last(held.last);
    }
    lock->set_pid(held.pid);
  });
  // Until the handle is closed, that is what its program has to know.
  mount.tables().handles().ForEach(
      [&](state::FileHandle, const state::HandleTable::Record& record) {
        if (!vfs::Filesystem::IsLockLost(state::Load(record.flags))) return;
        AddLock(mount, mount_point, record.node, response)->set_type("lost");
      });
}

}  // namespace

Task<absl::Status> Agent::ListOpens(v1::ListOpensRequest request, v1::ListOpensResponse* response,
                                    Deadline deadline) {
  co_return ForMounts(request.mount_point(), [&](ServedMount& mount, const std::string& point) {
    ListOpensOf(mount, point, response);
  });
}

Task<absl::Status> Agent::ListLocks(v1::ListLocksRequest request, v1::ListLocksResponse* response,
                                    Deadline deadline) {
  co_return ForMounts(request.mount_point(), [&](ServedMount& mount, const std::string& point) {
    ListLocksOf(mount, point, response);
  });
}

absl::Status Agent::ForMounts(
    const std::string& wanted,
    absl::FunctionRef<void(ServedMount&, const std::string& mount_point)> visit) const {
  bool found = wanted.empty();
  for (const auto& [id, known] : mounts_) {
    if (!wanted.empty() && known.entry.mount_point != wanted) continue;
    found = true;
    if (known.served != nullptr) visit(*known.served, known.entry.mount_point);
  }
  if (found) return absl::OkStatus();
  return WithReason(absl::NotFoundError(absl::StrCat(wanted, ": nothing of ours is mounted there")),
                    v1::BAD_MOUNT_POINT);
}

Task<absl::Status> Agent::SetLogLevel(v1::SetLogLevelRequest request,
                                      v1::SetLogLevelResponse* response, Deadline deadline) {
  if (!request.level().empty()) {
    const std::optional<LogLevel> level = ParseLogLevel(request.level());
    if (!level.has_value()) {
      co_return WithReason(absl::InvalidArgumentError("the level is error, warning, info or debug"),
                           v1::BAD_ARGUMENT);
    }
    dfscsi::SetLogLevel(*level);
  }
  for (const char* const name : {"error", "warning", "info", "debug"}) {
    if (IsLogged(*ParseLogLevel(name))) response->set_level(name);
  }
  co_return absl::OkStatus();
}

}  // namespace dfscsi::agent
