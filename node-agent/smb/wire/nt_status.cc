#include "node-agent/smb/wire/nt_status.h"

#include <string.h>

#include <algorithm>
#include <iterator>

#include "absl/strings/cord.h"
#include "absl/strings/str_format.h"
#include "absl/strings/string_view.h"

namespace dfscsi::smb::wire {
namespace {

constexpr char kPayloadUrl[] = "dfs-csi/ntstatus";

struct Entry {
  uint32_t value;
  const char* text;
  int error;
};

constexpr Entry kTable[] = {
#define DFSCSI_NT_STATUS(name, text, value, error) {value, "STATUS_" text, error},
#include "node-agent/smb/wire/nt_status_table.inc"
#undef DFSCSI_NT_STATUS
};

constexpr bool Before(const Entry& entry, uint32_t value) { return entry.value < value; }
static_assert(std::is_sorted(std::begin(kTable), std::end(kTable),
                             [](const Entry& a, const Entry& b) { return a.value < b.value; }));

const Entry* Find(NtStatus status) {
  const uint32_t value = static_cast<uint32_t>(status);
  const Entry* entry = std::lower_bound(std::begin(kTable), std::end(kTable), value, Before);
  return entry != std::end(kTable) && entry->value == value ? entry : nullptr;
}

absl::StatusCode CodeOf(NtStatus status) {
  switch (const absl::StatusCode code = absl::ErrnoToStatusCode(ErrnoOf(status))) {
    case absl::StatusCode::kNotFound:
    case absl::StatusCode::kAlreadyExists:
    case absl::StatusCode::kPermissionDenied:
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kResourceExhausted:
    case absl::StatusCode::kUnimplemented:
    case absl::StatusCode::kOutOfRange:
      return code;
    default:
      return absl::StatusCode::kInternal;
  }
}

}  // namespace

std::string NtStatusName(NtStatus status) {
  if (const Entry* entry = Find(status)) return entry->text;
  return absl::StrFormat("NTSTATUS 0x%08X", static_cast<uint32_t>(status));
}

std::ostream& operator<<(std::ostream& stream, NtStatus status) {
  return stream << NtStatusName(status);
}

int ErrnoOf(NtStatus status) {
  if (const Entry* entry = Find(status)) return entry->error;
  return IsSuccess(status) ? 0 : EIO;
}

absl::Status ToStatus(NtStatus status, std::string_view what) {
  absl::Status result(CodeOf(status), std::string(what) + ": " + NtStatusName(status));
  const uint32_t value = static_cast<uint32_t>(status);
  result.SetPayload(kPayloadUrl,
                    absl::Cord(absl::string_view(reinterpret_cast<const char*>(&value), 4)));
  return result;
}

std::optional<NtStatus> NtStatusOf(const absl::Status& status) {
  const absl::optional<absl::Cord> payload = status.GetPayload(kPayloadUrl);
  if (!payload.has_value() || payload->size() != 4) return std::nullopt;
  const std::string bytes(*payload);
  uint32_t value = 0;
  memcpy(&value, bytes.data(), sizeof(value));
  return static_cast<NtStatus>(value);
}

}  // namespace dfscsi::smb::wire
