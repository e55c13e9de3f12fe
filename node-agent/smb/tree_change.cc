// Changes by path, each in one frame.

#include <utility>

#include "node-agent/base/status_macros.h"
#include "node-agent/smb/session.h"
#include "node-agent/smb/tree.h"
#include "node-agent/smb/tree_internal.h"
#include "node-agent/smb/wire/file_information.h"
#include "node-agent/smb/wire/query.h"

namespace dfscsi::smb {
namespace {

using runtime::Deadline;
using runtime::Task;

wire::CreateRequest OpenToChange(std::u16string path, uint32_t access) {
  wire::CreateRequest create;
  create.desired_access = access;
  create.options = wire::kOptionOpenReparsePoint;
  create.name = std::move(path);
  return create;
}

// What servers say to an information class that they do not know.
bool IsUnknownClass(const absl::Status& status) {
  const std::optional<wire::NtStatus> nt = wire::NtStatusOf(status);
  return nt == wire::NtStatus::kInvalidInfoClass || nt == wire::NtStatus::kNotSupported ||
         nt == wire::NtStatus::kNotImplemented || nt == wire::NtStatus::kInvalidParameter;
}

}  // namespace

Task<absl::Status> Tree::OpenSet(wire::CreateRequest create, wire::FileInfoClass info_class,
                                 std::vector<uint8_t> input, Deadline deadline) {
  const wire::SetInfoRequest set{.type = wire::InfoType::kFile,
                                 .info_class = static_cast<uint8_t>(info_class),
                                 .input = input};
  std::vector<Request> requests;
  requests.push_back(MakeCreate(create));
  requests.push_back(MakeRelated(wire::Command::kSetInfo, wire::EncodeSetInfoRequest, set));
  requests.push_back(MakeRelatedClose());
  CO_ASSIGN_OR_RETURN(const std::vector<Response> responses,
                      co_await Call(std::move(requests), deadline));
  if (ForgetLeaseCarried(create, responses[0].header.status)) {
    co_return co_await OpenSet(std::move(create), info_class, std::move(input),
                               std::move(deadline));
  }
  constexpr std::string_view kNames[] = {"CREATE", "SET_INFO", "CLOSE"};
  for (size_t i = 0; i < responses.size(); ++i) {
    const wire::NtStatus status = responses[i].header.status;
    if (!wire::IsSuccess(status)) co_return wire::ToStatus(status, kNames[i]);
  }
  co_return absl::OkStatus();
}

Task<absl::Status> Tree::OpenSetPosix(wire::CreateRequest create, wire::FileInfoClass posix_class,
                                      std::vector<uint8_t> posix_input,
                                      wire::FileInfoClass plain_class,
                                      std::vector<uint8_t> plain_input, Deadline deadline) {
  if (posix_classes_) {
    const absl::Status status =
        co_await OpenSet(create, posix_class, std::move(posix_input), deadline);
    if (!IsUnknownClass(status)) co_return status;
  }
  const absl::Status status =
      co_await OpenSet(std::move(create), plain_class, std::move(plain_input), deadline);
  // The class was the matter, not what it was asked for.
  if (!IsUnknownClass(status)) posix_classes_ = false;
  co_return status;
}

Task<absl::Status> Tree::Remove(std::u16string path, FileType type, Deadline deadline) {
  wire::CreateRequest create = OpenToChange(std::move(path), wire::kAccessDelete);
  create.options |=
      type == FileType::kDirectory ? wire::kOptionDirectory : wire::kOptionNonDirectory;
  const uint32_t posix = wire::kDispositionDelete | wire::kDispositionPosix;
  return OpenSetPosix(std::move(create), wire::FileInfoClass::kDispositionEx,
                      Encoded(wire::EncodeDispositionExInformation, posix),
                      wire::FileInfoClass::kDisposition,
                      Encoded(wire::EncodeDispositionInformation, true), std::move(deadline));
}

Task<absl::Status> Tree::RemoveReadOnly(std::u16string path, uint32_t attributes,
                                        Deadline deadline) {
  wire::CreateRequest create =
      OpenToChange(std::move(path), wire::kAccessDelete | wire::kAccessWriteAttributes);
  create.options |= wire::kOptionNonDirectory;
  const std::vector<uint8_t> basic =
      Encoded(wire::EncodeBasicInformation, wire::BasicInformation{.attributes = attributes});
  const std::vector<uint8_t> disposition = Encoded(wire::EncodeDispositionInformation, true);
  const auto set = [](wire::FileInfoClass info_class, const std::vector<uint8_t>& input) {
    return MakeRelated(wire::Command::kSetInfo, wire::EncodeSetInfoRequest,
                       wire::SetInfoRequest{.type = wire::InfoType::kFile,
                                            .info_class = static_cast<uint8_t>(info_class),
                                            .input = input});
  };
  std::vector<Request> requests;
  requests.push_back(MakeCreate(create));
  requests.push_back(set(wire::FileInfoClass::kBasic, basic));
  requests.push_back(set(wire::FileInfoClass::kDisposition, disposition));
  requests.push_back(MakeRelatedClose());
  CO_ASSIGN_OR_RETURN(const std::vector<Response> responses,
                      co_await Call(std::move(requests), deadline));
  if (ForgetLeaseCarried(create, responses[0].header.status)) {
    co_return co_await RemoveReadOnly(std::move(create.name), attributes, std::move(deadline));
  }
  constexpr std::string_view kNames[] = {"CREATE", "SET_INFO", "SET_INFO", "CLOSE"};
  for (size_t i = 0; i < responses.size(); ++i) {
    const wire::NtStatus status = responses[i].header.status;
    if (!wire::IsSuccess(status)) co_return wire::ToStatus(status, kNames[i]);
  }
  co_return absl::OkStatus();
}

Task<absl::Status> Tree::RenamePath(std::u16string path, wire::RenameInformation rename,
                                    Deadline deadline) {
  const std::u16string from = path;
  const absl::Status status = co_await DoRenamePath(std::move(path), rename, std::move(deadline));
  if (status.ok()) session_->leases().Rename(tree_id_, from, rename.target);
  co_return status;
}

Task<absl::Status> Tree::DoRenamePath(std::u16string path, wire::RenameInformation rename,
                                      Deadline deadline) {
  wire::CreateRequest create =
      OpenToChange(std::move(path), wire::kAccessDelete | wire::kAccessReadAttributes);
  std::vector<uint8_t> plain = Encoded(wire::EncodeRenameInformation, rename);
  if (!rename.replace) {
    return OpenSet(std::move(create), wire::FileInfoClass::kRename, std::move(plain),
                   std::move(deadline));
  }
  const wire::RenameExInformation posix{.flags = wire::kRenameReplace | wire::kRenamePosix,
                                        .target = std::move(rename.target)};
  return OpenSetPosix(std::move(create), wire::FileInfoClass::kRenameEx,
                      Encoded(wire::EncodeRenameExInformation, posix), wire::FileInfoClass::kRename,
                      std::move(plain), std::move(deadline));
}

Task<absl::Status> Tree::LinkPath(std::u16string path, wire::RenameInformation link,
                                  Deadline deadline) {
  co_return co_await OpenSet(
      OpenToChange(std::move(path), wire::kAccessReadAttributes | wire::kAccessWriteAttributes),
      wire::FileInfoClass::kLink, Encoded(wire::EncodeRenameInformation, link),
      std::move(deadline));
}

Task<absl::Status> Tree::SetBasicOfPath(std::u16string path, wire::BasicInformation basic,
                                        Deadline deadline) {
  return OpenSet(OpenToChange(std::move(path), wire::kAccessWriteAttributes),
                 wire::FileInfoClass::kBasic, Encoded(wire::EncodeBasicInformation, basic),
                 std::move(deadline));
}

Task<absl::Status> Tree::Truncate(std::u16string path, uint64_t size_bytes, Deadline deadline) {
  wire::CreateRequest create = OpenToChange(std::move(path), wire::kAccessWriteData);
  create.options |= wire::kOptionNonDirectory;
  return OpenSet(std::move(create), wire::FileInfoClass::kEndOfFile,
                 Encoded(wire::EncodeSizeInformation, size_bytes), std::move(deadline));
}

Task<absl::StatusOr<FileStatus>> Tree::MakeDirectory(std::u16string path, Deadline deadline) {
  return Make(std::move(path), FileType::kDirectory, std::move(deadline));
}

Task<absl::StatusOr<FileStatus>> Tree::MakeFile(std::u16string path, Deadline deadline) {
  return Make(std::move(path), FileType::kFile, std::move(deadline));
}

Task<absl::StatusOr<FileStatus>> Tree::Make(std::u16string path, FileType type, Deadline deadline) {
  wire::CreateRequest create = OpenToChange(std::move(path), wire::kAccessReadAttributes);
  create.options =
      type == FileType::kDirectory ? wire::kOptionDirectory : wire::kOptionNonDirectory;
  create.disposition = wire::Disposition::kCreate;
  create.query_on_disk_id = true;
  std::vector<Request> requests;
  requests.push_back(MakeCreate(create));
  requests.push_back(MakeRelatedClose());
  CO_ASSIGN_OR_RETURN(const std::vector<Response> responses,
                      co_await Call(std::move(requests), deadline));
  if (!wire::IsSuccess(responses[0].header.status)) {
    co_return wire::ToStatus(responses[0].header.status, "CREATE");
  }
  CO_ASSIGN_OR_RETURN(const wire::CreateResponse created,
                      wire::DecodeCreateResponse(responses[0].body()));
  FileStatus status;
  status.attributes = created.attributes;
  if (created.on_disk_id.has_value()) status.file_id = created.on_disk_id->file;
  co_return status;
}

}  // namespace dfscsi::smb
