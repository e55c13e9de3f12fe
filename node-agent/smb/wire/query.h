// QUERY_DIRECTORY, QUERY_INFO, SET_INFO, CHANGE_NOTIFY ([MS-SMB2] 2.2.33–2.2.40). What their
// buffers hold is in file_info.h, fs_info.h and directory.h.

#ifndef NODE_AGENT_SMB_WIRE_QUERY_H_
#define NODE_AGENT_SMB_WIRE_QUERY_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "node-agent/smb/wire/header.h"
#include "node-agent/smb/wire/reader.h"
#include "node-agent/smb/wire/writer.h"

namespace dfscsi::smb::wire {

enum class InfoType : uint8_t { kFile = 1, kFileSystem = 2, kSecurity = 3, kQuota = 4 };

// Of InfoType::kFile, and of QUERY_DIRECTORY.
enum class FileInfoClass : uint8_t {
  kDirectory = 1,
  kFullDirectory = 2,
  kBothDirectory = 3,
  kBasic = 4,
  kStandard = 5,
  kInternal = 6,
  kEa = 7,
  kRename = 10,
  kLink = 11,
  kNames = 12,
  kDisposition = 13,
  kFullEa = 15,
  kAll = 18,
  kAllocation = 19,
  kEndOfFile = 20,
  kStream = 22,
  kNetworkOpen = 34,
  kAttributeTag = 35,
  kIdBothDirectory = 37,
  kIdFullDirectory = 38,
  kValidDataLength = 39,
  kNormalizedName = 48,
  kDispositionEx = 64,
  kRenameEx = 65,
};

// Of InfoType::kFileSystem.
enum class FsInfoClass : uint8_t {
  kVolume = 1,
  kSize = 3,
  kDevice = 4,
  kAttribute = 5,
  kFullSize = 7,
  kSectorSize = 11,
};

enum QueryDirectoryFlags : uint8_t {
  kRestartScan = 0x1,
  kSingleEntry = 0x2,
  kIndexSpecified = 0x4,
  kReopen = 0x10,
};

// The end of a listing is NO_MORE_FILES; a pattern that matches nothing is NO_SUCH_FILE.
struct QueryDirectoryRequest {
  FileInfoClass info_class = FileInfoClass::kIdBothDirectory;
  uint8_t flags = 0;
  uint32_t file_index = 0;
  FileId file_id;
  uint32_t max_output_bytes = 0;
  std::u16string pattern = u"*";
};
void EncodeQueryDirectoryRequest(const QueryDirectoryRequest& request, Writer& writer);
absl::StatusOr<QueryDirectoryRequest> DecodeQueryDirectoryRequest(Bytes body);

// QUERY_DIRECTORY, QUERY_INFO and CHANGE_NOTIFY answer with one buffer each (StructureSize 9). The
// decoded span points into `body`.
void EncodeOutputBuffer(Bytes output, Writer& writer);
absl::StatusOr<Bytes> DecodeOutputBuffer(Bytes body);

struct QueryInfoRequest {
  InfoType type = InfoType::kFile;
  uint8_t info_class = 0;  // FileInfoClass or FsInfoClass.
  uint32_t max_output_bytes = 0;
  uint32_t additional_information = 0;  // Security: 1 owner, 2 group, 4 DACL.
  uint32_t flags = 0;
  FileId file_id;
  Bytes input;  // FullEa: which; else empty.
};
void EncodeQueryInfoRequest(const QueryInfoRequest& request, Writer& writer);
absl::StatusOr<QueryInfoRequest> DecodeQueryInfoRequest(Bytes body);

struct SetInfoRequest {
  InfoType type = InfoType::kFile;
  uint8_t info_class = 0;
  uint32_t additional_information = 0;
  FileId file_id;
  Bytes input;
};
void EncodeSetInfoRequest(const SetInfoRequest& request, Writer& writer);
absl::StatusOr<SetInfoRequest> DecodeSetInfoRequest(Bytes body);
void EncodeSetInfoResponse(Writer& writer);
absl::Status DecodeSetInfoResponse(Bytes body);

struct ChangeNotifyRequest {
  bool watch_tree = false;
  uint32_t max_output_bytes = 0;
  FileId file_id;
  uint32_t completion_filter = 0;
};
void EncodeChangeNotifyRequest(const ChangeNotifyRequest& request, Writer& writer);
absl::StatusOr<ChangeNotifyRequest> DecodeChangeNotifyRequest(Bytes body);

}  // namespace dfscsi::smb::wire

#endif  // NODE_AGENT_SMB_WIRE_QUERY_H_
