// Which instant of base/death_points.h a frame is.

#include <algorithm>

#include "node-agent/base/death_points.h"
#include "node-agent/smb/connection_internal.h"
#include "node-agent/smb/wire/create.h"

namespace dfscsi::smb {
namespace {

struct Instants {
  wire::Command command;
  DeathPoint sent, answered;
};
constexpr Instants kInstants[] = {
    // In this order: what a compound is about.
    {wire::Command::kSetInfo, DeathPoint::kSetInfoSent, DeathPoint::kSetInfoAnswered},
    {wire::Command::kWrite, DeathPoint::kWriteSent, DeathPoint::kWriteAnswered},
    {wire::Command::kLock, DeathPoint::kLockSent, DeathPoint::kLockAnswered},
    {wire::Command::kFlush, DeathPoint::kFlushSent, DeathPoint::kFlushAnswered},
    {wire::Command::kCreate, DeathPoint::kCreateSent, DeathPoint::kCreateAnswered},
};

bool MayMake(const Request& create) {
  const absl::StatusOr<wire::CreateRequest> request =
      wire::DecodeCreateRequest(wire::Bytes(create.message).subspan(wire::kHeaderSize));
  return request.ok() && request->disposition != wire::Disposition::kOpen;
}

const Instants* InstantsOf(const std::vector<Request>& frame) {
  for (const Instants& instants : kInstants) {
    const auto of = std::find_if(frame.begin(), frame.end(), [&](const Request& request) {
      return request.command == instants.command;
    });
    if (of == frame.end()) continue;
    return of->command != wire::Command::kCreate || MayMake(*of) ? &instants : nullptr;
  }
  return nullptr;
}

}  // namespace

void PassSent(const std::vector<Request>& frame) {
  if (const Instants* const instants = InstantsOf(frame)) Pass(instants->sent);
}

void PassAnswered(const std::vector<Request>& frame) {
  if (const Instants* const instants = InstantsOf(frame)) Pass(instants->answered);
}

}  // namespace dfscsi::smb
