// ListOpens and SetLogLevel of the service.

#include <fcntl.h>

#include <map>
#include <string>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "node-agent/agent/agent.h"
#include "node-agent/agent/bound_link.h"
#include "node-agent/agent/failure.h"
#include "node-agent/base/log.h"

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

void ListOpensOf(ServedMount& mount, const std::string& mount_point,
                 v1::ListOpensResponse* response) {
  // By what makes two handles one line.
  std::map<std::tuple<std::string, state::NodeId, std::string>, v1::OpenFile> files;
  mount.tables().handles().ForEach(
      [&](state::FileHandle, const state::HandleTable::Record& record) {
        const std::string path = mount.tables().inodes().Path(record.node).value_or("");
        const std::string mode = ModeOf(record);
        v1::OpenFile& file = files[{path, record.node, mode}];
        if (file.opens() == 0) {
          const dfs::Client::BoundLink link =
              LinkOf(mount.client(), PathBelow(mount.client().source(), path));
          file.set_mount_point(mount_point);
          file.set_path(path);
          file.set_link(link.prefix);
          file.set_target(link.target);
          file.set_mode(mode);
          file.set_directory(record.kind ==
                             static_cast<uint32_t>(state::HandleTable::Kind::kDirectory));
        }
        file.set_opens(file.opens() + state::Load(record.refs));
        file.set_written(file.written() || vfs::Filesystem::IsWritten(state::Load(record.flags)));
      });
  for (auto& [key, file] : files) *response->add_files() = std::move(file);
}

}  // namespace

Task<absl::Status> Agent::ListOpens(v1::ListOpensRequest request, v1::ListOpensResponse* response,
                                    Deadline deadline) {
  bool found = request.mount_point().empty();
  for (const auto& [id, known] : mounts_) {
    if (!request.mount_point().empty() && known.entry.mount_point != request.mount_point()) {
      continue;
    }
    found = true;
    if (known.served != nullptr) ListOpensOf(*known.served, known.entry.mount_point, response);
  }
  if (found) co_return absl::OkStatus();
  co_return WithReason(absl::NotFoundError(absl::StrCat(request.mount_point(),
                                                        ": nothing of ours is mounted there")),
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
