#include "node-agent/state/mount_tables.h"

#include <sys/random.h>

#include "absl/strings/str_cat.h"
#include "node-agent/base/status_macros.h"

namespace dfscsi::state {
namespace {

constexpr uint64_t kMagic = 0x73656c6261747364;  // "dstables"

}  // namespace

MountTables::MountTables(SharedMemory memory)
    : memory_(std::move(memory)),
      inodes_(&header()->inodes, memory_.data() + kTablesHeaderBytes),
      handles_(&header()->handles, memory_.data() + kTablesHeaderBytes + InodeTable::kRegionBytes,
               &inodes_),
      locks_(&header()->locks, memory_.data() + kTablesBytes - LockTable::kRegionBytes) {}

absl::StatusOr<std::unique_ptr<MountTables>> MountTables::Format(int fd, uint64_t root_ino) {
  ASSIGN_OR_RETURN(SharedMemory memory, SharedMemory::Map(fd, kTablesBytes));
  std::unique_ptr<MountTables> tables(new MountTables(std::move(memory)));
  TablesHeader* const header = tables->header();
  if (Load(header->magic) != 0) return absl::FailedPreconditionError("tables are in use already");
  // An agent that died in here left a blank magic: everything is simply done again.
  Fill(header->layout_version, kTablesLayoutVersion);
  Guid guid;
  if (getrandom(guid.data(), guid.size(), 0) != static_cast<ssize_t>(guid.size())) {
    return absl::UnavailableError("getrandom");
  }
  Fill(header->client_guid, guid);
  tables->inodes_.Format(root_ino);
  Store(header->magic, kMagic);
  RETURN_IF_ERROR(tables->Recover());
  return tables;
}

absl::StatusOr<std::unique_ptr<MountTables>> MountTables::Map(int fd) {
  ASSIGN_OR_RETURN(SharedMemory memory, SharedMemory::Map(fd, kTablesBytes));
  const TablesHeader* header = reinterpret_cast<const TablesHeader*>(memory.data());
  const uint64_t magic = Load(header->magic);
  if (magic == 0) return absl::NotFoundError("tables are blank");
  if (magic != kMagic || header->layout_version > kTablesLayoutVersion ||
      header->layout_version < kTablesOldestReadable) {
    return absl::FailedPreconditionError(
        absl::StrCat("mount tables of layout ", header->layout_version, ", this program reads ",
                     kTablesOldestReadable, " to ", kTablesLayoutVersion));
  }
  return std::unique_ptr<MountTables>(new MountTables(std::move(memory)));
}

absl::Status MountTables::Recover() {
  RETURN_IF_ERROR(inodes_.Recover());
  RETURN_IF_ERROR(handles_.Recover());
  RETURN_IF_ERROR(locks_.Recover());
  inodes_.ReleaseUnheld();
  return absl::OkStatus();
}

uint64_t MountTables::NextId() {
  const uint64_t id = Load(header()->next_id) + 1;
  Store(header()->next_id, id);
  return id;
}

uint64_t MountTables::NextEpoch() {
  const uint64_t epoch = Load(header()->epoch) + 1;
  Store(header()->epoch, epoch);
  return epoch;
}

}  // namespace dfscsi::state
