// What CREATE, CLOSE, QUERY_INFO and directory entries say about a file ([MS-FSCC] 2.4, 2.6).

#ifndef NODE_AGENT_SMB_WIRE_FILE_ATTRIBUTES_H_
#define NODE_AGENT_SMB_WIRE_FILE_ATTRIBUTES_H_

#include <cstdint>

#include "node-agent/smb/wire/reader.h"
#include "node-agent/smb/wire/writer.h"

namespace dfscsi::smb::wire {

enum FileAttribute : uint32_t {
  kAttributeReadonly = 0x1,
  kAttributeHidden = 0x2,
  kAttributeSystem = 0x4,
  kAttributeDirectory = 0x10,
  kAttributeArchive = 0x20,
  kAttributeNormal = 0x80,
  kAttributeTemporary = 0x100,
  kAttributeSparse = 0x200,
  kAttributeReparsePoint = 0x400,
  kAttributeCompressed = 0x800,
  kAttributeOffline = 0x1000,
  kAttributeEncrypted = 0x4000,
};

// What SET_INFO may set; the rest of a file's attributes is the server's.
inline constexpr uint32_t kSettableAttributes = kAttributeReadonly | kAttributeHidden |
                                                kAttributeSystem | kAttributeArchive |
                                                kAttributeTemporary;

// Times are FILETIMEs (filetime.h), sizes bytes. All of it is the server's word: sizes may exceed
// int64, times may be 0 (unknown).
struct FileAttributes {
  uint64_t creation_time = 0;
  uint64_t last_access_time = 0;
  uint64_t last_write_time = 0;
  uint64_t change_time = 0;
  uint64_t allocation_size = 0;
  uint64_t end_of_file = 0;
  uint32_t attributes = 0;  // FileAttribute bits.

  bool Has(FileAttribute attribute) const { return (attributes & attribute) != 0; }
  friend bool operator==(const FileAttributes&, const FileAttributes&) = default;
};

// The run of fields that CREATE, CLOSE and FileNetworkOpenInformation share: four times, the two
// sizes, the attributes (52 bytes).
inline FileAttributes ReadFileAttributes(Reader& reader) {
  FileAttributes file;
  file.creation_time = reader.U64();
  file.last_access_time = reader.U64();
  file.last_write_time = reader.U64();
  file.change_time = reader.U64();
  file.allocation_size = reader.U64();
  file.end_of_file = reader.U64();
  file.attributes = reader.U32();
  return file;
}
inline void WriteFileAttributes(const FileAttributes& file, Writer& writer) {
  writer.U64(file.creation_time);
  writer.U64(file.last_access_time);
  writer.U64(file.last_write_time);
  writer.U64(file.change_time);
  writer.U64(file.allocation_size);
  writer.U64(file.end_of_file);
  writer.U32(file.attributes);
}

}  // namespace dfscsi::smb::wire

#endif  // NODE_AGENT_SMB_WIRE_FILE_ATTRIBUTES_H_
