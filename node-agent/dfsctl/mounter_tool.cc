#include "node-agent/dfsctl/mounter_tool.h"

#include <errno.h>
#include <poll.h>

#include <algorithm>
#include <optional>
#include <utility>
#include <variant>

#include "absl/time/clock.h"
#include "node-agent/agent/failure.h"
#include "node-agent/base/status_macros.h"

namespace dfscsi::dfsctl {
namespace {
constexpr absl::Duration kAnswerTime = absl::Seconds(10);
}  // namespace

absl::StatusOr<MounterTool> MounterTool::Connect(const std::string& socket_dir) {
  ASSIGN_OR_RETURN(state::MessageSocket socket, state::MessageSocket::Connect(socket_dir));
  state::Hello hello;
  hello.role = state::Role::kTool;
  RETURN_IF_ERROR(socket.Send(hello));
  return MounterTool(std::move(socket));
}

absl::StatusOr<state::Message> MounterTool::Receive(absl::Time deadline) {
  while (true) {
    ASSIGN_OR_RETURN(std::optional<state::Envelope> envelope, socket_.Receive());
    if (envelope.has_value()) return std::move(envelope->message);
    const absl::Duration left = deadline - absl::Now();
    if (left <= absl::ZeroDuration()) {
      return absl::DeadlineExceededError("the mounter does not answer");
    }
    pollfd ready{socket_.fd(), POLLIN, 0};
    if (poll(&ready, 1, static_cast<int>(absl::ToInt64Milliseconds(left) + 1)) < 0 &&
        errno != EINTR) {
      return absl::ErrnoToStatus(errno, "poll");
    }
  }
}

absl::StatusOr<state::Message> MounterTool::Ask(const state::Message& message) {
  RETURN_IF_ERROR(socket_.Send(message, 1));
  return Receive(absl::Now() + kAnswerTime);
}

absl::StatusOr<state::StatusReply> MounterTool::GetStatus() {
  ASSIGN_OR_RETURN(const state::Message answer, Ask(state::StatusRequest()));
  if (const auto* reply = std::get_if<state::StatusReply>(&answer)) return *reply;
  if (const auto* error = std::get_if<state::Error>(&answer)) {
    return absl::ErrnoToStatus(error->error, error->text);
  }
  return absl::InternalError("the mounter answers something else");
}

absl::StatusOr<std::vector<state::MountEntry>> MounterTool::ListMounts() {
  RETURN_IF_ERROR(socket_.Send(state::ListRequest(), 1));
  const absl::Time deadline = absl::Now() + kAnswerTime;
  std::vector<state::MountEntry> mounts;
  while (true) {
    ASSIGN_OR_RETURN(state::Message answer, Receive(deadline));
    if (auto* entry = std::get_if<state::MountEntry>(&answer)) {
      mounts.push_back(std::move(*entry));
    } else if (std::holds_alternative<state::ListEnd>(answer)) {
      return mounts;
    } else if (const auto* error = std::get_if<state::Error>(&answer)) {
      return absl::ErrnoToStatus(error->error, error->text);
    }
  }
}

absl::Status MounterTool::Unmount(const std::string& mount_point, bool force) {
  state::UnmountRequest request;
  request.mount_point = mount_point;
  request.force = force;
  return Unmount(request);
}

absl::Status MounterTool::Unmount(uint32_t mount_id, bool force) {
  state::UnmountRequest request;
  request.mount_id = mount_id;
  request.force = force;
  return Unmount(request);
}

absl::Status MounterTool::Unmount(const state::UnmountRequest& request) {
  ASSIGN_OR_RETURN(const state::Message answer, Ask(request));
  const auto* error = std::get_if<state::Error>(&answer);
  if (error == nullptr) return absl::OkStatus();
  if (error->error == EINVAL || error->error == ENOENT) {
    return agent::WithReason(absl::NotFoundError(error->text), agent::v1::BAD_MOUNT_POINT);
  }
  if (error->error == EPERM) {  // A mount of somebody else's, or no place of ours.
    return agent::WithReason(absl::PermissionDeniedError(error->text), agent::v1::BAD_MOUNT_POINT);
  }
  return agent::WithReason(absl::ErrnoToStatus(error->error, error->text), agent::v1::SYSTEM);
}

}  // namespace dfscsi::dfsctl
