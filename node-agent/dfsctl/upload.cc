#include "node-agent/dfsctl/upload.h"

#include <random>
#include <utility>

#include "absl/strings/str_format.h"
#include "node-agent/base/status_macros.h"
#include "node-agent/dfsctl/direct_call.h"
#include "node-agent/runtime/deadline.h"
#include "node-agent/smb/wire/file_attributes.h"
#include "node-agent/smb/wire/nt_status.h"
#include "node-agent/smb/wire/utf16.h"

namespace dfscsi::dfsctl {

using runtime::Deadline;
using runtime::Task;
using smb::wire::NtStatus;
using smb::wire::NtStatusOf;

namespace {

std::u16string TemporaryName() {
  std::random_device random;
  return *smb::wire::Utf8ToUtf16(absl::StrFormat(".dfsctl-%08x%08x", random(), random()));
}

std::u16string Beside(const std::u16string& path, const std::u16string& name) {
  const size_t end = path.rfind(u'\\');
  return end == std::u16string::npos ? name : path.substr(0, end + 1) + name;
}

}  // namespace

Upload::~Upload() {
  if (tree_ != nullptr) tree_->CloseLater(file_id_);
}

Task<absl::Status> Upload::Begin(dfs::Client* client, dfs::DfsPath target) {
  const size_t components = target.size();
  co_return co_await client->Run(
      target,
      [this, components](dfs::Binding binding) {
        const bool is_link = binding.link_components == components;
        return BeginOn(std::move(binding), is_link);
      },
      {}, Deadline::Never());  // Bounded by give_up_after, and by each request's own deadline.
}

Task<absl::Status> Upload::BeginOn(dfs::Binding binding, bool is_link) {
  if (is_link) co_return smb::wire::ToStatus(NtStatus::kFileIsADirectory, "a link or a share");
  const absl::StatusOr<smb::FileStatus> there =
      co_await binding.tree->Stat(binding.path, Deadline::After(kAnswerTime));
  if (there.ok() && there->attributes.Has(smb::wire::kAttributeDirectory)) {
    co_return smb::wire::ToStatus(NtStatus::kFileIsADirectory, "CREATE");
  }
  if (there.ok() && there->attributes.Has(smb::wire::kAttributeReadonly)) {
    co_return smb::wire::ToStatus(NtStatus::kAccessDenied, "a read-only file");
  }
  if (!there.ok() && NtStatusOf(there.status()) != NtStatus::kObjectNameNotFound) {
    co_return there.status();
  }
  if (there.ok()) {  // Who may not write it may not replace it either.
    smb::wire::CreateRequest old;
    old.desired_access = smb::wire::kAccessWriteData;
    old.options = smb::wire::kOptionNonDirectory;
    old.name = binding.path;
    CO_ASSIGN_OR_RETURN(
        const smb::OpenedFile writable,
        co_await binding.tree->Create(std::move(old), Deadline::After(kAnswerTime)));
    CO_RETURN_IF_ERROR(
        co_await binding.tree->Close(writable.file_id, Deadline::After(kAnswerTime)));
  }
  smb::wire::CreateRequest create;
  create.desired_access =
      smb::wire::kAccessWriteData | smb::wire::kAccessReadAttributes | smb::wire::kAccessDelete;
  create.disposition = smb::wire::Disposition::kCreate;
  create.options = smb::wire::kOptionNonDirectory;
  create.name = Beside(binding.path, TemporaryName());
  CO_ASSIGN_OR_RETURN(
      const smb::OpenedFile opened,
      co_await binding.tree->Create(std::move(create), Deadline::After(kAnswerTime)));
  tree_ = binding.tree;
  file_id_ = opened.file_id;
  path_ = binding.path;
  co_return co_await tree_->SetDisposition(file_id_, /*remove=*/true, Deadline::After(kAnswerTime));
}

Task<absl::Status> Upload::Write(uint64_t offset, absl::Span<const uint8_t> from) {
  co_return co_await tree_->Write(file_id_, offset, {from.data(), from.size()},
                                  Deadline::After(kAnswerTime));
}

Task<absl::StatusOr<uint64_t>> Upload::CopyFrom(smb::wire::FileId source, uint64_t offset,
                                                uint64_t length_bytes) {
  co_return co_await tree_->CopyRange(source, offset, file_id_, offset, length_bytes,
                                      Deadline::After(kAnswerTime));
}

Task<absl::Status> Upload::Commit() {
  CO_RETURN_IF_ERROR(co_await tree_->Flush(file_id_, Deadline::After(kAnswerTime)));
  CO_RETURN_IF_ERROR(
      co_await tree_->SetDisposition(file_id_, /*remove=*/false, Deadline::After(kAnswerTime)));
  const absl::Status renamed = co_await tree_->Rename(file_id_, {.replace = true, .target = path_},
                                                      Deadline::After(kAnswerTime));
  if (renamed.ok()) {
    const std::shared_ptr<smb::Tree> tree = std::exchange(tree_, nullptr);
    co_return co_await tree->Close(file_id_, Deadline::After(kAnswerTime));
  }
  if (!NtStatusOf(renamed).has_value()) {
    co_return absl::UnknownError(
        "the server was lost while the file took its place: it may be there, or not");
  }
  (void)co_await tree_->SetDisposition(file_id_, /*remove=*/true, Deadline::After(kAnswerTime));
  co_return renamed;
}

}  // namespace dfscsi::dfsctl
