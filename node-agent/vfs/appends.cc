#include "node-agent/vfs/appends.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "node-agent/base/status_macros.h"
#include "node-agent/smb/tree.h"
#include "node-agent/smb/wire/nt_status.h"

namespace dfscsi::vfs {

using runtime::Deadline;
using runtime::Task;
using smb::wire::NtStatus;

Task<absl::Status> Appends::Turn::Take(Deadline deadline) {
  if (guard_.has_value()) co_return absl::OkStatus();
  CO_ASSIGN_OR_RETURN(runtime::Mutex::Guard guard, co_await queue_->Lock(std::move(deadline)));
  guard_.emplace(std::move(guard));
  co_return absl::OkStatus();
}

Appends::Turn Appends::TurnOf(state::NodeId node) {
  std::shared_ptr<runtime::Mutex> queue = queues_[node].lock();
  if (queue == nullptr) {
    absl::erase_if(queues_, [](const auto& entry) { return entry.second.expired(); });
    queue = std::make_shared<runtime::Mutex>();
    queues_[node] = queue;
  }
  return Turn(std::move(queue));
}

Task<absl::StatusOr<Verdict>> ProbeAppended(dfs::Binding binding, uint64_t offset,
                                            absl::Span<const uint8_t> from, uint64_t id,
                                            Deadline deadline) {
  // The least that an interrupted write leaves: what goes in one request.
  constexpr size_t kPiece = 65536;
  smb::wire::CreateRequest create;
  create.desired_access = smb::wire::kAccessReadData | smb::wire::kAccessReadAttributes;
  create.options = smb::wire::kOptionNonDirectory;
  create.name = binding.path;
  create.query_on_disk_id = true;
  const absl::StatusOr<smb::OpenedFile> opened =
      co_await binding.tree->Create(std::move(create), deadline);
  if (!opened.ok()) {
    const std::optional<NtStatus> answer = smb::wire::NtStatusOf(opened.status());
    const bool says_nothing =
        answer.has_value() && !IsAnswerLost(opened.status()) && answer != NtStatus::kPathNotCovered;
    if (says_nothing) co_return Verdict::kUnknown;
    co_return opened.status();
  }
  struct Closing {
    ~Closing() { tree->CloseLater(file_id); }
    std::shared_ptr<smb::Tree> tree;
    smb::wire::FileId file_id;
  } closing{binding.tree, opened->file_id};
  const auto& on_disk = opened->response.on_disk_id;
  if (id != 0 && on_disk.has_value() && on_disk->file != 0 && on_disk->file != id) {
    co_return Verdict::kUnknown;  // Another file has its name.
  }
  std::vector<uint8_t> there(from.size());
  const absl::StatusOr<size_t> n =
      co_await binding.tree->Read(opened->file_id, offset, {there.data(), there.size()}, deadline);
  if (!n.ok()) {
    if (!IsAnswerLost(n.status()) && smb::wire::NtStatusOf(n.status()).has_value()) {
      co_return Verdict::kUnknown;
    }
    co_return n.status();
  }
  const auto same = static_cast<size_t>(
      std::mismatch(there.begin(), there.begin() + static_cast<ptrdiff_t>(*n), from.begin()).first -
      there.begin());
  if (same == from.size()) co_return Verdict::kDone;
  // All that is there is the beginning of ours, or a whole request of several.
  const bool is_part = (same == *n && same > 0) || same >= kPiece;
  co_return is_part ? Verdict::kUnknown : Verdict::kNotDone;
}

}  // namespace dfscsi::vfs
