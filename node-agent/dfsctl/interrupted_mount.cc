#include "node-agent/dfsctl/interrupted_mount.h"

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "node-agent/dfsctl/agent_stub.h"
#include "node-agent/dfsctl/mounter_tool.h"
#include "node-agent/state/mounter_protocol.h"
#include "proto/agent.pb.h"
#include "proto/stored_mount.pb.h"

namespace dfscsi::dfsctl {
namespace {

namespace v1 = agent::v1;

// By then an agent has heard that a call was cancelled.
constexpr absl::Duration kHearingTime = absl::Milliseconds(300);
constexpr absl::Duration kTakeoverTime = absl::Seconds(5);

// The mount that was made with this key, and is there still; nullopt: there is none.
std::optional<uint32_t> FindMountOf(MounterTool& mounter, const std::string& inode_key) {
  const absl::StatusOr<std::vector<state::MountEntry>> mounts = mounter.ListMounts();
  if (!mounts.ok()) return std::nullopt;
  for (const state::MountEntry& entry : *mounts) {
    v1::StoredMount stored;
    if (!entry.detached && stored.ParseFromString(entry.config) &&
        stored.inode_key() == inode_key) {
      return entry.mount_id;
    }
  }
  return std::nullopt;
}

// An agent serves it: it is whole, whoever asked for it.
bool IsServed(const std::string& socket_dir, uint32_t mount_id) {
  v1::ListMountsResponse response;
  const absl::Status listed = AgentStub(socket_dir)
                                  .Call(&v1::Agent::Stub::ListMounts, v1::ListMountsRequest(),
                                        &response, absl::Now() + kTakeoverTime);
  if (!listed.ok()) return false;
  for (const v1::Mount& mount : response.mounts()) {
    if (mount.mount_id() == mount_id) return mount.inodes() > 0;
  }
  return false;
}

}  // namespace

bool WasMounted(const std::string& socket_dir, const std::string& inode_key) {
  absl::StatusOr<MounterTool> mounter = MounterTool::Connect(socket_dir);
  if (!mounter.ok()) return false;
  const absl::Time heard = absl::Now() + kHearingTime;
  const absl::Time give_up = absl::Now() + kTakeoverTime;
  while (true) {
    const std::optional<uint32_t> made = FindMountOf(*mounter, inode_key);
    if (made.has_value() && IsServed(socket_dir, *made)) return true;
    if (absl::Now() > (made.has_value() ? give_up : heard)) return false;
    absl::SleepFor(absl::Milliseconds(20));
  }
}

}  // namespace dfscsi::dfsctl
