// NTSTATUS: the error language of SMB servers, and its translation to errno and absl::Status
// ([MS-ERREF] 2.3).

#ifndef NODE_AGENT_SMB_WIRE_NT_STATUS_H_
#define NODE_AGENT_SMB_WIRE_NT_STATUS_H_

#include <errno.h>

#include <cstdint>
#include <optional>
#include <ostream>
#include <string>
#include <string_view>

#include "absl/status/status.h"

namespace dfscsi::smb::wire {

// A server may send any 32-bit value; those below are the ones that somebody here asks for by name.
enum class NtStatus : uint32_t {
#define DFSCSI_NT_STATUS(name, text, value, error) name = value,
#include "node-agent/smb/wire/nt_status_table.inc"
#undef DFSCSI_NT_STATUS
};

enum class Severity { kSuccess = 0, kInformational = 1, kWarning = 2, kError = 3 };
inline Severity SeverityOf(NtStatus status) {
  return static_cast<Severity>(static_cast<uint32_t>(status) >> 30);
}
inline bool IsSuccess(NtStatus status) { return SeverityOf(status) == Severity::kSuccess; }

// "STATUS_ACCESS_DENIED", or "NTSTATUS 0xC0001234" for a value without a name.
std::string NtStatusName(NtStatus status);
std::ostream& operator<<(std::ostream& stream, NtStatus status);

// The errno that a FUSE reply carries when nothing above knows better. 0 for successes and for the
// warnings that carry a result (BUFFER_OVERFLOW, NO_MORE_FILES); EIO for what has no entry.
// Statuses that callers act on instead (PATH_NOT_COVERED, NETWORK_SESSION_EXPIRED, …) have entries
// too, for the day an action runs out.
int ErrnoOf(NtStatus status);

// "<what>: STATUS_…" with the NTSTATUS as payload. The code is absl's for ErrnoOf(status) where
// that speaks of the file or the request (kNotFound, kPermissionDenied, …), else kInternal:
// kUnavailable, kAborted, kCancelled, kDeadlineExceeded and kDataLoss stay for what no server said.
// Never OK: a warning that is passed to this function was an error to its caller.
absl::Status ToStatus(NtStatus status, std::string_view what);

// The NTSTATUS that `status` was made from; nullopt if it was not (transport, malformed, ours).
std::optional<NtStatus> NtStatusOf(const absl::Status& status);

}  // namespace dfscsi::smb::wire

#endif  // NODE_AGENT_SMB_WIRE_NT_STATUS_H_
