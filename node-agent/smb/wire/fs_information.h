// Information classes of file systems, for QUERY_INFO ([MS-FSCC] 2.5). All errors are kDataLoss.

#ifndef NODE_AGENT_SMB_WIRE_FS_INFORMATION_H_
#define NODE_AGENT_SMB_WIRE_FS_INFORMATION_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "node-agent/smb/wire/reader.h"
#include "node-agent/smb/wire/writer.h"

namespace dfscsi::smb::wire {

// Class 1
struct FsVolumeInformation {
  uint64_t creation_time = 0;
  uint32_t serial_number = 0;
  std::u16string label;
};
void EncodeFsVolumeInformation(const FsVolumeInformation& information, Writer& writer);
absl::StatusOr<FsVolumeInformation> DecodeFsVolumeInformation(Bytes buffer);

// Classes 3 and 7, in allocation units. Class 3 has one figure of free units: both fields hold it.
// Decoders reject a unit of 0 bytes, of more than 2 GiB, and sizes that overflow 64 bits, so a
// caller may multiply.
struct FsSizeInformation {
  uint64_t total_units = 0;
  uint64_t available_units = 0;  // To this user (quota).
  uint64_t free_units = 0;
  uint32_t sectors_per_unit = 1;
  uint32_t bytes_per_sector = 512;

  uint64_t unit_bytes() const { return uint64_t{sectors_per_unit} * bytes_per_sector; }
};
void EncodeFsSizeInformation(const FsSizeInformation& information, Writer& writer);
absl::StatusOr<FsSizeInformation> DecodeFsSizeInformation(Bytes buffer);
void EncodeFsFullSizeInformation(const FsSizeInformation& information, Writer& writer);
absl::StatusOr<FsSizeInformation> DecodeFsFullSizeInformation(Bytes buffer);

// Class 5
enum FsAttribute : uint32_t {
  kFsCaseSensitiveSearch = 0x1,
  kFsCasePreservedNames = 0x2,
  kFsUnicodeOnDisk = 0x4,
  kFsSupportsSparseFiles = 0x40,
  kFsSupportsReparsePoints = 0x80,
  kFsSupportsPosixUnlinkRename = 0x400,  // DispositionEx and RenameEx with their POSIX flags.
  kFsSupportsBlockRefcounting = 0x08000000,
};
struct FsAttributeInformation {
  uint32_t attributes = 0;
  uint32_t max_component_units = 255;
  std::u16string file_system;  // "NTFS"
};
void EncodeFsAttributeInformation(const FsAttributeInformation& information, Writer& writer);
absl::StatusOr<FsAttributeInformation> DecodeFsAttributeInformation(Bytes buffer);

// Class 11
struct FsSectorSizeInformation {
  uint32_t logical_bytes_per_sector = 512;
  uint32_t physical_bytes_per_sector = 4096;
  uint32_t flags = 0;
};
void EncodeFsSectorSizeInformation(const FsSectorSizeInformation& information, Writer& writer);
absl::StatusOr<FsSectorSizeInformation> DecodeFsSectorSizeInformation(Bytes buffer);

}  // namespace dfscsi::smb::wire

#endif  // NODE_AGENT_SMB_WIRE_FS_INFORMATION_H_
