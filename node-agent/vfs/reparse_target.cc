#include "node-agent/vfs/reparse_target.h"

#include <errno.h>

#include <algorithm>
#include <variant>

#include "node-agent/smb/wire/reparse.h"
#include "node-agent/smb/wire/utf16.h"
#include "node-agent/vfs/errno.h"

namespace dfscsi::vfs {
namespace {

absl::StatusOr<std::string> Checked(std::string target) {
  if (target.empty() || target.find('\0') != std::string::npos) {
    return ErrnoError(EIO, "a symbolic link without a target");
  }
  if (target.front() == '/') return ErrnoError(ELOOP, "an absolute symbolic link");
  return target;
}

std::string WithSlashes(std::u16string_view name) {
  std::string target = smb::wire::Utf16ToUtf8(name);
  std::replace(target.begin(), target.end(), '\\', '/');
  return target;
}

}  // namespace

absl::StatusOr<std::string> ReparseTarget(smb::wire::Bytes reparse) {
  absl::StatusOr<smb::wire::ReparseData> decoded = smb::wire::DecodeReparseData(reparse);
  if (!decoded.ok()) return ErrnoError(EIO, "a malformed reparse point");
  if (const auto* link = std::get_if<smb::wire::SymlinkReparse>(&*decoded)) {
    if (!link->relative) return ErrnoError(ELOOP, "an absolute symbolic link");
    return Checked(WithSlashes(link->substitute_name));
  }
  if (const auto* link = std::get_if<smb::wire::LxSymlinkReparse>(&*decoded)) {
    return Checked(link->target);
  }
  if (const auto* nfs = std::get_if<smb::wire::NfsReparse>(&*decoded)) {
    if (nfs->type != smb::wire::NfsType::kLink) return ErrnoError(EINVAL, "not a link");
    return Checked(smb::wire::Utf16ToUtf8(nfs->target));
  }
  if (std::holds_alternative<smb::wire::MountPointReparse>(*decoded)) {
    return ErrnoError(ELOOP, "a junction to a drive");
  }
  return ErrnoError(EOPNOTSUPP, "an unknown kind of link");
}

}  // namespace dfscsi::vfs
