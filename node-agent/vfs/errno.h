// From statuses to errno: the only place.
//
// In this order:
//   1. ErrnoError(e, ...), made up here in vfs/: e.
//   2. an NTSTATUS (wire::NtStatusOf): the table of smb/wire/nt_status_table.inc, but for the few
//      where POSIX wants something else of a file system (kStatusOverrides in errno.cc).
//   3. the code:
//        kCancelled EINTR            kDeadlineExceeded ETIMEDOUT    kUnavailable EHOSTDOWN
//        kNotFound ENOENT            kAlreadyExists EEXIST          kPermissionDenied EACCES
//        kUnauthenticated EACCES     kInvalidArgument EINVAL        kOutOfRange ENAMETOOLONG
//        kResourceExhausted ENFILE   kFailedPrecondition ELOOP      kUnimplemented EOPNOTSUPP
//        kAborted, kDataLoss, kInternal, kUnknown and whatever else: EIO
// OK is 0. An error never is: where a table says 0 for a status that came as an error, it is EIO.

#ifndef NODE_AGENT_VFS_ERRNO_H_
#define NODE_AGENT_VFS_ERRNO_H_

#include <string_view>

#include "absl/status/status.h"

namespace dfscsi::vfs {

// A status that becomes exactly `error` (E*, > 0).
absl::Status ErrnoError(int error, std::string_view what);

// The errno of a FUSE reply, positive; 0 for OK.
int ErrnoOf(const absl::Status& status);

}  // namespace dfscsi::vfs

#endif  // NODE_AGENT_VFS_ERRNO_H_
