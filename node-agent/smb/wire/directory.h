// Entries of a directory, as QUERY_DIRECTORY returns them ([MS-FSCC] 2.4, the …Directory classes).

#ifndef NODE_AGENT_SMB_WIRE_DIRECTORY_H_
#define NODE_AGENT_SMB_WIRE_DIRECTORY_H_

#include <cstdint>
#include <optional>
#include <string_view>

#include "absl/status/status.h"
#include "node-agent/smb/wire/file_attributes.h"
#include "node-agent/smb/wire/query.h"
#include "node-agent/smb/wire/reader.h"
#include "node-agent/smb/wire/record_list.h"
#include "node-agent/smb/wire/writer.h"

namespace dfscsi::smb::wire {

struct DirectoryEntry {
  Bytes name;  // UTF-16LE, in the buffer; file_name.h makes a Linux name of it.
  FileAttributes attributes;
  uint32_t reparse_tag = 0;  // Of a reparse point, if the server says so; else 0.
  uint64_t file_id = 0;      // Id… classes; else 0.
};

// Walks one output buffer without copying. Give it what the buffer was asked as: any of kDirectory,
// kFullDirectory, kBothDirectory, kIdBothDirectory, kIdFullDirectory.
class DirectoryReader {
 public:
  DirectoryReader(FileInfoClass info_class, Bytes buffer);

  // The next entry; nullopt at the end of the buffer, or when status() became kDataLoss. "." and
  // ".." are left out, and so are names that must not reach the kernel (empty, odd length, with
  // '/', '\' or NUL): one bad name does not hide its directory, skipped() counts them.
  std::optional<DirectoryEntry> Next();

  absl::Status status() const { return list_.status(); }
  int skipped() const { return skipped_; }

 private:
  struct Layout;
  static const Layout& LayoutOf(FileInfoClass info_class);

  const Layout& layout_;
  RecordListReader list_;
  int skipped_ = 0;
};

// For servers: fills one output buffer.
class DirectoryWriter {
 public:
  // `max_bytes` is what the client asked for. Classes as above.
  DirectoryWriter(FileInfoClass info_class, size_t max_bytes, Writer* writer);

  // False: no room left; the entry belongs to the next reply.
  bool Add(std::u16string_view name, const FileAttributes& attributes, uint32_t reparse_tag,
           uint64_t file_id);

 private:
  const FileInfoClass info_class_;
  const size_t max_bytes_;
  const size_t start_;
  Writer& writer_;
  RecordListWriter list_;
  uint32_t index_ = 0;
};

}  // namespace dfscsi::smb::wire

#endif  // NODE_AGENT_SMB_WIRE_DIRECTORY_H_
