#include "node-agent/smb/wire/directory.h"

namespace dfscsi::smb::wire {

// Offsets in one entry; 0: the class has no such field. Up to 64 bytes all classes are alike.
struct DirectoryReader::Layout {
  size_t ea_size;
  size_t file_id;
  size_t name;
};

namespace {

constexpr size_t kShortNameSize = 26;  // Its length, a reserved byte, 12 units.

uint64_t NumberAt(Bytes record, size_t offset, size_t size) {
  Reader reader(record);
  reader.Skip(offset);
  return size == 4 ? reader.U32() : reader.U64();
}

bool IsDotOrDotDot(Bytes name) {
  constexpr uint8_t kDots[] = {'.', 0, '.', 0};
  return (name.size() == 2 || name.size() == 4) && name == Bytes(kDots, name.size());
}

bool IsSafeName(Bytes name) {
  if (name.empty() || name.size() % 2 != 0) return false;
  for (size_t i = 0; i < name.size(); i += 2) {
    if (name[i + 1] == 0 && (name[i] == 0 || name[i] == '/' || name[i] == '\\')) return false;
  }
  return true;
}

}  // namespace

const DirectoryReader::Layout& DirectoryReader::LayoutOf(FileInfoClass info_class) {
  static constexpr Layout kDirectory = {0, 0, 64};
  static constexpr Layout kFull = {64, 0, 68};
  static constexpr Layout kBoth = {64, 0, 94};
  static constexpr Layout kIdBoth = {64, 96, 104};
  static constexpr Layout kIdFull = {64, 72, 80};
  switch (info_class) {
    case FileInfoClass::kFullDirectory:
      return kFull;
    case FileInfoClass::kBothDirectory:
      return kBoth;
    case FileInfoClass::kIdBothDirectory:
      return kIdBoth;
    case FileInfoClass::kIdFullDirectory:
      return kIdFull;
    default:
      return kDirectory;
  }
}

DirectoryReader::DirectoryReader(FileInfoClass info_class, Bytes buffer)
    : layout_(LayoutOf(info_class)), list_(buffer, layout_.name, "directory entry") {}

std::optional<DirectoryEntry> DirectoryReader::Next() {
  while (const std::optional<Bytes> record = list_.Next()) {
    Reader reader(*record);
    reader.Skip(8);  // NextEntryOffset, FileIndex
    DirectoryEntry entry;
    entry.attributes.creation_time = reader.U64();
    entry.attributes.last_access_time = reader.U64();
    entry.attributes.last_write_time = reader.U64();
    entry.attributes.change_time = reader.U64();
    entry.attributes.end_of_file = reader.U64();
    entry.attributes.allocation_size = reader.U64();
    entry.attributes.attributes = reader.U32();
    const uint32_t name_length = reader.U32();
    if (!Slice(*record, layout_.name, name_length, &entry.name)) {
      return list_.Fail("name outside its entry");
    }
    if (!IsSafeName(entry.name)) {
      ++skipped_;
      continue;
    }
    if (IsDotOrDotDot(entry.name)) continue;
    if (layout_.ea_size != 0 && entry.attributes.Has(kAttributeReparsePoint)) {
      entry.reparse_tag = static_cast<uint32_t>(NumberAt(*record, layout_.ea_size, 4));
    }
    if (layout_.file_id != 0) entry.file_id = NumberAt(*record, layout_.file_id, 8);
    return entry;
  }
  return std::nullopt;
}

DirectoryWriter::DirectoryWriter(FileInfoClass info_class, size_t max_bytes, Writer* writer)
    : info_class_(info_class),
      max_bytes_(max_bytes),
      start_(writer->size()),
      writer_(*writer),
      list_(8, writer) {}

bool DirectoryWriter::Add(std::u16string_view name, const FileAttributes& attributes,
                          uint32_t reparse_tag, uint64_t file_id) {
  constexpr size_t kLargestFixedPart = 104;
  const size_t used = (writer_.size() - start_ + 7) & ~size_t{7};
  if (used + kLargestFixedPart + name.size() * 2 > max_bytes_) return false;
  list_.Begin();
  writer_.U32(index_++);
  writer_.U64(attributes.creation_time);
  writer_.U64(attributes.last_access_time);
  writer_.U64(attributes.last_write_time);
  writer_.U64(attributes.change_time);
  writer_.U64(attributes.end_of_file);
  writer_.U64(attributes.allocation_size);
  writer_.U32(attributes.attributes);
  writer_.Length32(name.size() * 2);
  if (info_class_ != FileInfoClass::kDirectory) writer_.U32(reparse_tag);
  switch (info_class_) {
    case FileInfoClass::kBothDirectory:
      writer_.Zero(kShortNameSize);
      break;
    case FileInfoClass::kIdBothDirectory:
      writer_.Zero(kShortNameSize + 2);
      writer_.U64(file_id);
      break;
    case FileInfoClass::kIdFullDirectory:
      writer_.U32(0);
      writer_.U64(file_id);
      break;
    default:
      break;
  }
  writer_.Utf16(name);
  return true;
}

}  // namespace dfscsi::smb::wire
