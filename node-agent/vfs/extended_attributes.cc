// GETXATTR, LISTXATTR, SETXATTR, REMOVEXATTR: `user.*` are the server's extended attributes (EAs).
//
// An EA "a" is user.a here, as cifs has it. EAs have ASCII names without case, and no empty values.

#include <errno.h>
#include <sys/xattr.h>

#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "node-agent/base/status_macros.h"
#include "node-agent/smb/tree.h"
#include "node-agent/smb/wire/nt_status.h"
#include "node-agent/vfs/errno.h"
#include "node-agent/vfs/filesystem_impl.h"

namespace dfscsi::vfs {

using runtime::Deadline;
using runtime::Task;
using smb::wire::ExtendedAttribute;
using smb::wire::NtStatus;
using smb::wire::NtStatusOf;

namespace {

constexpr std::string_view kUser = "user.";
constexpr size_t kMostNameBytes = 254;
constexpr size_t kMostValueBytes = 65535;
// What a server says to a name that it does not take ([MS-ERREF] STATUS_INVALID_EA_NAME).
constexpr auto kInvalidEaName = static_cast<NtStatus>(0x80000013);

// The server's name. EOPNOTSUPP: it cannot have it.
absl::StatusOr<std::string> EaName(const std::string& name) {
  const std::string ea = name.substr(kUser.size());
  if (ea.empty()) return ErrnoError(EINVAL, "an attribute without a name");
  if (ea.size() > kMostNameBytes) return ErrnoError(ERANGE, "an attribute's name");
  for (const char c : ea) {
    if (c < ' ' || c > '~') return ErrnoError(EOPNOTSUPP, "names on the server are ASCII");
  }
  return ea;
}

// An open file or folder, closed when this goes.
struct Opened {
  std::shared_ptr<smb::Tree> tree;
  smb::wire::FileId id;
  Opened(std::shared_ptr<smb::Tree> on, smb::wire::FileId opened)
      : tree(std::move(on)), id(opened) {}
  Opened(Opened&&) = default;
  ~Opened() {
    if (tree != nullptr) tree->CloseLater(id);
  }
};

Task<absl::StatusOr<Opened>> OpenFor(dfs::Binding binding, uint32_t access, Deadline deadline) {
  smb::wire::CreateRequest create;
  create.desired_access = access;
  create.options = smb::wire::kOptionOpenReparsePoint;
  create.name = binding.path;
  CO_ASSIGN_OR_RETURN(const smb::OpenedFile opened,
                      co_await binding.tree->Create(std::move(create), deadline));
  co_return Opened(binding.tree, opened.file_id);
}

const ExtendedAttribute* FindIn(const std::vector<ExtendedAttribute>& all, const std::string& ea) {
  const ExtendedAttribute* found = nullptr;
  for (const ExtendedAttribute& attribute : all) {
    if (attribute.value.empty()) continue;
    if (attribute.name == ea) return &attribute;
    if (absl::EqualsIgnoreCase(attribute.name, ea)) found = &attribute;
  }
  return found;
}

// Servers, and file systems behind them, without EAs.
absl::Status Told(const absl::Status& status) {
  const std::optional<NtStatus> answer = NtStatusOf(status);
  if (answer == NtStatus::kEasNotSupported || answer == NtStatus::kInvalidDeviceRequest ||
      answer == NtStatus::kNotSupported || answer == NtStatus::kInvalidInfoClass ||
      answer == NtStatus::kNotImplemented) {
    return ErrnoError(EOPNOTSUPP, "no extended attributes there");
  }
  if (answer == kInvalidEaName) return ErrnoError(EINVAL, "a name that the server refuses");
  if (answer == NtStatus::kNoEasOnFile) return ErrnoError(ENODATA, "no attributes");
  return status;
}

absl::Status NoSuchAttribute() { return ErrnoError(ENODATA, "no such attribute"); }

}  // namespace

bool Filesystem::Impl::IsUserXattr(std::string_view name) const {
  return options_.user_xattr && name.substr(0, kUser.size()) == kUser;
}

absl::Status Filesystem::Impl::NoXattr(std::string_view name) const {
  const bool never = absl::StartsWith({name.data(), name.size()}, "security.") ||
                     absl::StartsWith({name.data(), name.size()}, "system.");
  // At the first ENOSYS the kernel stops asking, for whichever attribute.
  return never && !options_.user_xattr ? ErrnoError(ENOSYS, "no such attributes")
                                       : ErrnoError(EOPNOTSUPP, "no such attributes");
}

Task<absl::StatusOr<std::vector<ExtendedAttribute>>> Filesystem::Impl::AllAttributes(
    dfs::DfsPath path, Deadline deadline) {
  std::vector<ExtendedAttribute> all;
  // A dead link must not stop who copies the tree above it.
  if (client_.IsKnownLink(path)) co_return all;
  const auto get = [&](dfs::Binding binding) -> Task<absl::Status> {
    CO_ASSIGN_OR_RETURN(const Opened opened,
                        co_await OpenFor(std::move(binding), smb::wire::kAccessReadEa, deadline));
    CO_ASSIGN_OR_RETURN(all, co_await opened.tree->GetExtendedAttributes(opened.id, {}, deadline));
    co_return absl::OkStatus();
  };
  const absl::Status status = co_await client_.Run(path, get, {}, deadline);
  if (!status.ok()) co_return Told(status);
  co_return all;
}

Task<absl::StatusOr<std::string>> Filesystem::Impl::GetXattr(state::NodeId node, std::string name,
                                                             Deadline deadline) {
  if (!IsUserXattr(name)) co_return NoXattr(name);
  CO_ASSIGN_OR_RETURN(const std::string ea, EaName(name));
  CO_ASSIGN_OR_RETURN(const dfs::DfsPath path, PathOf(node));
  CO_ASSIGN_OR_RETURN(const std::vector<ExtendedAttribute> all,
                      co_await AllAttributes(path, deadline));
  const ExtendedAttribute* const found = FindIn(all, ea);
  if (found == nullptr) co_return NoSuchAttribute();
  co_return found->value;
}

Task<absl::StatusOr<std::string>> Filesystem::Impl::ListXattrs(state::NodeId node,
                                                               Deadline deadline) {
  if (!options_.user_xattr) co_return ErrnoError(ENOSYS, "no extended attributes");
  CO_ASSIGN_OR_RETURN(const dfs::DfsPath path, PathOf(node));
  CO_ASSIGN_OR_RETURN(const std::vector<ExtendedAttribute> all,
                      co_await AllAttributes(path, deadline));
  std::string names;
  for (const ExtendedAttribute& attribute : all) {
    // A server's name is data: what would not be a name, or two, is left out.
    const std::string name = absl::StrCat("user.", attribute.name);
    if (!attribute.value.empty() && EaName(name).ok())
      absl::StrAppend(&names, name, std::string(1, '\0'));
  }
  co_return names;
}

Task<absl::Status> Filesystem::Impl::ChangeXattr(state::NodeId node, std::string name,
                                                 std::string value, int flags,
                                                 ChangeJournal* journal, Deadline deadline) {
  CO_RETURN_IF_ERROR(MayChange());
  const bool removes = value.empty();
  if (!IsUserXattr(name)) co_return NoXattr(name);
  if (value.size() > kMostValueBytes) co_return ErrnoError(E2BIG, "an attribute's value");
  CO_ASSIGN_OR_RETURN(std::string ea, EaName(name));
  CO_ASSIGN_OR_RETURN(const dfs::DfsPath path, PathOf(node));
  if (client_.IsKnownLink(path)) co_return ErrnoError(EOPNOTSUPP, "a DFS link");
  constexpr uint32_t kAccess = smb::wire::kAccessReadEa | smb::wire::kAccessWriteEa;
  bool may_look = true;
  Change change{.attempt = {}, .in_pieces = true, .journal = journal};
  change.attempt = [&](dfs::Binding binding) -> Task<absl::Status> {
    if (binding.link_components == path.size()) co_return ErrnoError(EOPNOTSUPP, "a DFS link");
    CO_ASSIGN_OR_RETURN(const Opened opened,
                        co_await OpenFor(std::move(binding), kAccess, deadline));
    if (may_look && (flags != 0 || removes)) {
      CO_ASSIGN_OR_RETURN(const std::vector<ExtendedAttribute> all,
                          co_await opened.tree->GetExtendedAttributes(opened.id, {}, deadline));
      const ExtendedAttribute* const found = FindIn(all, ea);
      if (found != nullptr && flags == XATTR_CREATE) co_return ErrnoError(EEXIST, "it is there");
      if (found == nullptr && flags != XATTR_CREATE) co_return NoSuchAttribute();
    }
    change.Sending();
    std::vector<ExtendedAttribute> wanted;
    wanted.push_back({.flags = 0, .name = ea, .value = value});
    co_return co_await opened.tree->SetExtendedAttributes(opened.id, std::move(wanted), deadline);
  };
  change.probe = [&](dfs::Binding binding) -> Task<absl::StatusOr<Verdict>> {
    CO_ASSIGN_OR_RETURN(const Opened opened,
                        co_await OpenFor(std::move(binding), smb::wire::kAccessReadEa, deadline));
    CO_ASSIGN_OR_RETURN(const std::vector<ExtendedAttribute> all,
                        co_await opened.tree->GetExtendedAttributes(opened.id, {}, deadline));
    const ExtendedAttribute* const found = FindIn(all, ea);
    const bool is_done = removes ? found == nullptr : found != nullptr && found->value == value;
    may_look = false;  // It was as the flags say when it was sent.
    co_return is_done ? Verdict::kDone : Verdict::kNotDone;
  };
  const absl::Status status = co_await RunChange(path, &change, deadline);
  if (node != state::kRootNode) {
    const state::InodeTable::Node record = tables_.inodes().Get(node);
    ForgetName(record.parent(), record.name());
  }
  co_return Told(status);
}

}  // namespace dfscsi::vfs
