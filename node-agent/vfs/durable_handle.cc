#include "node-agent/vfs/durable_handle.h"

#include <utility>

#include "node-agent/runtime/loop.h"
#include "node-agent/smb/wire/create.h"
#include "node-agent/smb/wire/nt_status.h"
#include "node-agent/vfs/file_lease.h"

namespace dfscsi::vfs {

namespace wire = smb::wire;
using runtime::Deadline;
using runtime::Task;

state::HandleTable::ServerSide DurableHandle::ToRecord() const {
  return {.lease_key = lease_key,
          .create_guid = create_guid,
          .file_id = {.persistent = file_id.persistent_id, .volatile_part = file_id.volatile_id}};
}

std::optional<DurableHandle> DurableHandle::FromRecord(const state::HandleTable::ServerSide& record,
                                                       uint64_t server_key, uint32_t access) {
  if (record.create_guid == state::Guid{} || server_key == 0) return std::nullopt;
  return DurableHandle{
      .server_key = server_key,
      .access = access,
      .create_guid = record.create_guid,
      .lease_key = record.lease_key,
      .lease_state = LeaseStateFor(access, /*write_behind=*/false) | wire::kLeaseHandle,
      .file_id = {.persistent_id = record.file_id.persistent,
                  .volatile_id = record.file_id.volatile_part}};
}

wire::Guid DrawCreateGuid() {
  wire::Guid guid = {};
  for (size_t at = 0; at < guid.size(); at += sizeof(uint64_t)) {
    const uint64_t bits = runtime::Loop::Current().Random();
    for (size_t i = 0; i < sizeof(bits); ++i) guid[at + i] = static_cast<uint8_t>(bits >> (8 * i));
  }
  return guid;
}

Task<absl::StatusOr<std::optional<smb::OpenedFile>>> TakeUp(
    std::shared_ptr<smb::Tree> tree, std::u16string name, DurableHandle handle,
    std::weak_ptr<smb::LeaseObserver> observer, Deadline deadline) {
  wire::CreateRequest create;
  create.desired_access = handle.access;
  create.disposition = wire::Disposition::kOpen;
  create.options = wire::kOptionNonDirectory;
  create.name = std::move(name);
  create.lease = wire::Lease{.key = handle.lease_key, .state = handle.lease_state};
  create.durable = wire::DurableRequest{.create_guid = handle.create_guid};
  absl::StatusOr<std::optional<smb::OpenedFile>> opened = co_await tree->Reconnect(
      std::move(create), handle.file_id, deadline, {.observer = std::move(observer)});
  // Whatever else it says of this one: the file may be opened plainly, which then says more.
  if (wire::NtStatusOf(opened.status()).has_value() || absl::IsInvalidArgument(opened.status())) {
    co_return std::optional<smb::OpenedFile>();
  }
  co_return opened;
}

Task<void> CloseDurable(std::shared_ptr<smb::Tree> tree, std::u16string name, DurableHandle handle,
                        Deadline deadline) {
  const absl::StatusOr<std::optional<smb::OpenedFile>> opened =
      co_await TakeUp(tree, std::move(name), handle, {}, deadline);
  if (!opened.ok() || !opened->has_value()) co_return;
  (void)co_await tree->Close((*opened)->file_id, deadline);
}

}  // namespace dfscsi::vfs
