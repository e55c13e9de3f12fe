// CREATE and its contexts ([MS-SMB2] 2.2.13, 2.2.14).

#ifndef NODE_AGENT_SMB_WIRE_CREATE_H_
#define NODE_AGENT_SMB_WIRE_CREATE_H_

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "node-agent/smb/wire/file_attributes.h"
#include "node-agent/smb/wire/file_information.h"
#include "node-agent/smb/wire/header.h"
#include "node-agent/smb/wire/reader.h"
#include "node-agent/smb/wire/writer.h"

namespace dfscsi::smb::wire {

enum class OplockLevel : uint8_t {
  kNone = 0,
  kLevel2 = 1,
  kExclusive = 8,
  kBatch = 9,
  kLease = 0xFF,
};

enum Access : uint32_t {
  kAccessReadData = 0x1,    // Directories: list.
  kAccessWriteData = 0x2,   // Directories: add a file.
  kAccessAppendData = 0x4,  // Directories: add a directory.
  kAccessReadEa = 0x8,
  kAccessWriteEa = 0x10,
  kAccessExecute = 0x20,  // Directories: traverse.
  kAccessDeleteChild = 0x40,
  kAccessReadAttributes = 0x80,
  kAccessWriteAttributes = 0x100,
  kAccessDelete = 0x10000,
  kAccessReadControl = 0x20000,
  kAccessWriteDac = 0x40000,
  kAccessWriteOwner = 0x80000,
  kAccessSynchronize = 0x100000,
  kAccessMaximumAllowed = 0x02000000,
  kAccessGenericAll = 0x10000000,
  kAccessGenericExecute = 0x20000000,
  kAccessGenericWrite = 0x40000000,
  kAccessGenericRead = 0x80000000,
};

enum ShareAccess : uint32_t { kShareRead = 1, kShareWrite = 2, kShareDelete = 4, kShareAll = 7 };

enum class Disposition : uint32_t {
  kSupersede = 0,
  kOpen = 1,
  kCreate = 2,
  kOpenIf = 3,
  kOverwrite = 4,
  kOverwriteIf = 5,
};

enum CreateOption : uint32_t {
  kOptionDirectory = 0x1,
  kOptionWriteThrough = 0x2,
  kOptionSequential = 0x4,
  kOptionNoBuffering = 0x8,
  kOptionNonDirectory = 0x40,
  kOptionRandom = 0x800,
  kOptionDeleteOnClose = 0x1000,
  kOptionOpenByFileId = 0x2000,
  kOptionBackupIntent = 0x4000,
  kOptionOpenReparsePoint = 0x200000,
};

enum class CreateAction : uint32_t {
  kSuperseded = 0,
  kOpened = 1,
  kCreated = 2,
  kOverwritten = 3,
};

enum LeaseState : uint32_t { kLeaseRead = 1, kLeaseHandle = 2, kLeaseWrite = 4 };
enum LeaseFlags : uint32_t { kLeaseBreakInProgress = 2, kLeaseParentKeySet = 4 };
using LeaseKey = std::array<uint8_t, 16>;

// RqLs, version 1 (2.1) or 2 (3.x), in requests and in responses.
struct Lease {
  bool v2 = true;
  LeaseKey key = {};
  uint32_t state = 0;
  uint32_t flags = 0;
  LeaseKey parent_key = {};  // v2
  uint16_t epoch = 0;        // v2
};

enum DurableFlags : uint32_t { kDurablePersistent = 2 };

// DH2Q: asks for a handle that outlives the connection, for `timeout_ms` (0: the server's choice).
struct DurableRequest {
  uint32_t timeout_ms = 0;
  uint32_t flags = 0;
  Guid create_guid = {};
};
struct DurableResponse {
  uint32_t timeout_ms = 0;
  uint32_t flags = 0;
};
// DH2C: takes such a handle up again. Valid on the same server only, never on another DFS target.
struct DurableReconnect {
  FileId file_id;  // As it was; the server looks at the persistent half.
  Guid create_guid = {};
  uint32_t flags = 0;
};

struct CreateRequest {
  OplockLevel oplock = OplockLevel::kNone;
  uint32_t desired_access = 0;
  uint32_t file_attributes = 0;
  uint32_t share_access = kShareAll;
  Disposition disposition = Disposition::kOpen;
  uint32_t options = 0;
  std::u16string name;  // Relative to the share, no leading '\'; empty: its root.

  // Contexts; each is sent if set.
  std::optional<Lease> lease;                         // RqLs; set oplock to kLease as well.
  bool durable_v1 = false;                            // DHnQ (2.1)
  std::optional<FileId> durable_v1_reconnect;         // DHnC
  std::optional<DurableRequest> durable;              // DH2Q
  std::optional<DurableReconnect> durable_reconnect;  // DH2C
  bool query_maximal_access = false;                  // MxAc
  bool query_on_disk_id = false;                      // QFid
  std::optional<uint64_t> allocation_bytes;           // AlSi: of a file that is created.
  std::vector<ExtendedAttribute> attributes;          // ExtA: of a file that is created; not empty.
};
void EncodeCreateRequest(const CreateRequest& request, Writer& writer);
absl::StatusOr<CreateRequest> DecodeCreateRequest(Bytes body);

struct MaximalAccess {
  NtStatus status = NtStatus::kSuccess;
  uint32_t access = 0;  // If status is a success.
};

// Unique per volume of one server.
struct OnDiskId {
  uint64_t file = 0;
  uint64_t volume = 0;
};

struct CreateResponse {
  OplockLevel oplock = OplockLevel::kNone;
  uint8_t flags = 0;  // 1: a reparse point was opened.
  CreateAction action = CreateAction::kOpened;
  FileAttributes attributes;
  FileId file_id;

  std::optional<Lease> lease;
  bool durable_v1 = false;
  std::optional<DurableResponse> durable;
  std::optional<MaximalAccess> maximal_access;
  std::optional<OnDiskId> on_disk_id;
};
void EncodeCreateResponse(const CreateResponse& response, Writer& writer);
absl::StatusOr<CreateResponse> DecodeCreateResponse(Bytes body);

}  // namespace dfscsi::smb::wire

#endif  // NODE_AGENT_SMB_WIRE_CREATE_H_
