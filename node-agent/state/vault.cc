#include "node-agent/state/vault.h"

#include <string.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "node-agent/base/status_macros.h"

namespace dfscsi::state {
namespace {

constexpr uint64_t kMagic = 0x746c756176736664;  // "dfsvault"
constexpr uint32_t kVaultLayout = 1;
constexpr uint32_t kFree = 0;
constexpr uint32_t kLive = 1;
constexpr uint64_t kCellBytes = 2048;
constexpr int kCells = Vault::kBytes / kCellBytes - 1;  // The first is the header.

struct Header {
  uint64_t magic;
  uint32_t layout_version;
};

}  // namespace

struct Vault::Cell {
  std::atomic<uint32_t> state;
  uint32_t mount_id;
  uint32_t version;  // Of two cells of one mount the later one counts.
  uint32_t length;
  char bytes[kMaxSecretBytes];
};

absl::StatusOr<UniqueFd> Vault::Create() {
  static_assert(sizeof(Cell) == kCellBytes);
  ASSIGN_OR_RETURN(UniqueFd fd, CreateSharedMemory("dfs-vault", kBytes));
  ASSIGN_OR_RETURN(SharedMemory memory, SharedMemory::Map(fd.get(), kBytes));
  *reinterpret_cast<Header*>(memory.data()) = {kMagic, kVaultLayout};
  return fd;
}

absl::StatusOr<Vault> Vault::Map(int fd) {
  ASSIGN_OR_RETURN(SharedMemory memory, SharedMemory::Map(fd, kBytes));
  const Header* header = reinterpret_cast<const Header*>(memory.data());
  if (header->magic != kMagic || header->layout_version != kVaultLayout) {
    return absl::FailedPreconditionError(absl::StrCat("vault of layout ", header->layout_version,
                                                      ", this program reads ", kVaultLayout));
  }
  return Vault(std::move(memory));
}

Vault::Cell* Vault::cells() const { return reinterpret_cast<Cell*>(memory_.data() + kCellBytes); }

// The secret goes before its cell counts as free, so that a death leaves no readable rest in a free
// cell.
void Vault::Wipe(Cell* cell) {
  explicit_bzero(cell->bytes, sizeof(cell->bytes));
  StoreDone();
  Fill(cell->length, 0);
  Store(cell->state, kFree);
}

absl::Status Vault::Put(uint32_t mount_id, const Secret& secret) {
  const std::string_view bytes = secret.Expose();
  if (bytes.size() > kMaxSecretBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("credentials are longer than ", kMaxSecretBytes, " bytes"));
  }
  absl::MutexLock lock(&mutex_);
  Cell* fresh = nullptr;
  uint32_t version = 0;
  for (int i = 0; i < kCells; ++i) {
    Cell& cell = cells()[i];
    if (Load(cell.state) != kLive) {
      if (fresh == nullptr) fresh = &cell;
    } else if (cell.mount_id == mount_id && cell.version > version) {
      version = cell.version;
    }
  }
  if (fresh == nullptr) return absl::ResourceExhaustedError("the vault is full");
  FillBytes(fresh->bytes, bytes.data(), bytes.size());
  Fill(fresh->length, static_cast<uint32_t>(bytes.size()));
  Fill(fresh->mount_id, mount_id);
  Fill(fresh->version, version + 1);
  Store(fresh->state, kLive);
  for (int i = 0; i < kCells; ++i) {
    Cell& cell = cells()[i];
    if (&cell != fresh && Load(cell.state) == kLive && cell.mount_id == mount_id) Wipe(&cell);
  }
  return absl::OkStatus();
}

std::optional<Secret> Vault::Get(uint32_t mount_id) const {
  absl::MutexLock lock(&mutex_);
  const Cell* newest = nullptr;
  for (int i = 0; i < kCells; ++i) {
    const Cell& cell = cells()[i];
    if (Load(cell.state) != kLive || cell.mount_id != mount_id) continue;
    if (newest == nullptr || cell.version > newest->version) newest = &cell;
  }
  if (newest == nullptr || newest->length > kMaxSecretBytes) return std::nullopt;
  return Secret(std::string_view(newest->bytes, newest->length));
}

void Vault::Erase(uint32_t mount_id) {
  absl::MutexLock lock(&mutex_);
  for (int i = 0; i < kCells; ++i) {
    Cell& cell = cells()[i];
    if (Load(cell.state) == kLive && cell.mount_id == mount_id) Wipe(&cell);
  }
}

void Vault::EraseAllBut(absl::Span<const uint32_t> mount_ids) {
  absl::MutexLock lock(&mutex_);
  for (int i = 0; i < kCells; ++i) {
    Cell& cell = cells()[i];
    bool keep = false;
    if (Load(cell.state) == kLive) {
      for (const uint32_t id : mount_ids) keep = keep || id == cell.mount_id;
    } else if (cell.length == 0 && cell.bytes[0] == 0) {
      continue;  // Never used, or wiped.
    }
    // A free cell with bytes: its Put() died before it was published.
    if (!keep) Wipe(&cell);
  }
}

}  // namespace dfscsi::state
