// Information classes of files, for QUERY_INFO and SET_INFO ([MS-FSCC] 2.4). Names are the
// specification's without "File" where that does not clash.
//
// Decoders take the output buffer of QUERY_INFO (the test server: the input of SET_INFO) and ignore
// what follows the structure. All errors are kDataLoss.

#ifndef NODE_AGENT_SMB_WIRE_FILE_INFORMATION_H_
#define NODE_AGENT_SMB_WIRE_FILE_INFORMATION_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "node-agent/smb/wire/file_attributes.h"
#include "node-agent/smb/wire/reader.h"
#include "node-agent/smb/wire/writer.h"

namespace dfscsi::smb::wire {

inline constexpr uint32_t kBasicInformationSize = 40;
inline constexpr uint32_t kStandardInformationSize = 24;
inline constexpr uint32_t kInternalInformationSize = 8;
inline constexpr uint32_t kNetworkOpenInformationSize = 56;
inline constexpr uint32_t kAttributeTagInformationSize = 8;
// Without the name, which a server cuts off with BUFFER_OVERFLOW if it does not fit. Ask for
// kAllInformationLeastOutput at least: Samba refuses less with INFO_LENGTH_MISMATCH.
inline constexpr uint32_t kAllInformationFixedSize = 100;
inline constexpr uint32_t kAllInformationLeastOutput = 104;

// Of BasicInformation's times, in SET_INFO alone ([MS-FSCC] 2.4.7).
inline constexpr uint64_t kTimeKeep = 0;
inline constexpr uint64_t kTimeFreeze = ~uint64_t{0};  // Keep, and what this handle does leaves it.
inline constexpr uint64_t kTimeThaw = ~uint64_t{1};    // Ends kTimeFreeze.

// Class 4. In SET_INFO a time of kTimeKeep, and attributes of 0, mean: keep. To clear all
// attributes set kAttributeNormal.
struct BasicInformation {
  uint64_t creation_time = 0;
  uint64_t last_access_time = 0;
  uint64_t last_write_time = 0;
  uint64_t change_time = 0;
  uint32_t attributes = 0;
};
void EncodeBasicInformation(const BasicInformation& information, Writer& writer);
absl::StatusOr<BasicInformation> DecodeBasicInformation(Bytes buffer);

// Class 5
struct StandardInformation {
  uint64_t allocation_size = 0;
  uint64_t end_of_file = 0;
  uint32_t links = 1;
  bool delete_pending = false;
  bool directory = false;
};
void EncodeStandardInformation(const StandardInformation& information, Writer& writer);
absl::StatusOr<StandardInformation> DecodeStandardInformation(Bytes buffer);

// Class 6: the file's id on its volume.
void EncodeInternalInformation(uint64_t file_id, Writer& writer);
absl::StatusOr<uint64_t> DecodeInternalInformation(Bytes buffer);

// Class 18, without the name: a server may have cut it off.
struct AllInformation {
  BasicInformation basic;
  StandardInformation standard;
  uint64_t file_id = 0;
  uint32_t ea_size = 0;  // Of a reparse point: its tag, on servers that say so.
  uint32_t access = 0;
  uint64_t position = 0;
  uint32_t mode = 0;
};
void EncodeAllInformation(const AllInformation& information, std::u16string_view name,
                          Writer& writer);
absl::StatusOr<AllInformation> DecodeAllInformation(Bytes buffer);

// Class 34
void EncodeNetworkOpenInformation(const FileAttributes& attributes, Writer& writer);
absl::StatusOr<FileAttributes> DecodeNetworkOpenInformation(Bytes buffer);

// Class 35
struct AttributeTagInformation {
  uint32_t attributes = 0;
  uint32_t reparse_tag = 0;  // If attributes has kAttributeReparsePoint.
};
void EncodeAttributeTagInformation(const AttributeTagInformation& information, Writer& writer);
absl::StatusOr<AttributeTagInformation> DecodeAttributeTagInformation(Bytes buffer);

// Class 48: the path from the share's root, as the server spells it.
void EncodeNormalizedName(std::u16string_view name, Writer& writer);
absl::StatusOr<std::u16string> DecodeNormalizedName(Bytes buffer);

// Classes 10 (rename) and 11 (hard link): one layout. The target is relative to the share.
struct RenameInformation {
  bool replace = false;
  std::u16string target;
};
void EncodeRenameInformation(const RenameInformation& information, Writer& writer);
absl::StatusOr<RenameInformation> DecodeRenameInformation(Bytes buffer);

// Class 65: the same with flags in the place of `replace`.
enum RenameExFlags : uint32_t { kRenameReplace = 1, kRenamePosix = 2 };
struct RenameExInformation {
  uint32_t flags = 0;
  std::u16string target;
};
void EncodeRenameExInformation(const RenameExInformation& information, Writer& writer);
absl::StatusOr<RenameExInformation> DecodeRenameExInformation(Bytes buffer);

// Class 13
void EncodeDispositionInformation(bool delete_on_close, Writer& writer);
absl::StatusOr<bool> DecodeDispositionInformation(Bytes buffer);

// Class 64
enum DispositionExFlags : uint32_t { kDispositionDelete = 1, kDispositionPosix = 2 };
void EncodeDispositionExInformation(uint32_t flags, Writer& writer);
absl::StatusOr<uint32_t> DecodeDispositionExInformation(Bytes buffer);

// Classes 19 (allocation), 20 (end of file), 39 (valid data length): one number of bytes.
void EncodeSizeInformation(uint64_t size_bytes, Writer& writer);
absl::StatusOr<uint64_t> DecodeSizeInformation(Bytes buffer);

// Class 15
struct ExtendedAttribute {
  uint8_t flags = 0;
  std::string name;   // ASCII, case-insensitive, at most 254 bytes.
  std::string value;  // At most 65,535 bytes. In SET_INFO an empty value removes the attribute.
};
void EncodeExtendedAttributes(const std::vector<ExtendedAttribute>& attributes, Writer& writer);
absl::StatusOr<std::vector<ExtendedAttribute>> DecodeExtendedAttributes(Bytes buffer);

// Which attributes QUERY_INFO of class 15 is to return (FileGetEaInformation, [MS-FSCC] 2.4.15.1):
// its input. Without one the server returns all.
void EncodeExtendedAttributeNames(const std::vector<std::string>& names, Writer& writer);
absl::StatusOr<std::vector<std::string>> DecodeExtendedAttributeNames(Bytes input);

// Class 22
struct StreamInformation {
  uint64_t size_bytes = 0;
  uint64_t allocation_size = 0;
  std::u16string name;  // ":name:$DATA"; "::$DATA" is the file's own data.
};
void EncodeStreams(const std::vector<StreamInformation>& streams, Writer& writer);
absl::StatusOr<std::vector<StreamInformation>> DecodeStreams(Bytes buffer);

}  // namespace dfscsi::smb::wire

#endif  // NODE_AGENT_SMB_WIRE_FILE_INFORMATION_H_
