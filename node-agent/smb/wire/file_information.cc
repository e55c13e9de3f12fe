#include "node-agent/smb/wire/file_information.h"

#include <utility>

#include "node-agent/smb/wire/record_list.h"
#include "node-agent/smb/wire/utf16.h"

namespace dfscsi::smb::wire {
namespace {

constexpr size_t kExtendedAttributeFixedSize = 8;
constexpr size_t kExtendedAttributeNameFixedSize = 5;
constexpr size_t kStreamFixedSize = 24;
// RenameInformation must have this size at least, whatever its name's length.
constexpr size_t kRenameSmallestSize = 24;

BasicInformation ReadBasic(Reader& reader) {
  BasicInformation information;
  information.creation_time = reader.U64();
  information.last_access_time = reader.U64();
  information.last_write_time = reader.U64();
  information.change_time = reader.U64();
  information.attributes = reader.U32();
  reader.Skip(4);
  return information;
}

StandardInformation ReadStandard(Reader& reader) {
  StandardInformation information;
  information.allocation_size = reader.U64();
  information.end_of_file = reader.U64();
  information.links = reader.U32();
  information.delete_pending = reader.U8() != 0;
  information.directory = reader.U8() != 0;
  reader.Skip(2);
  return information;
}

template <typename T>
absl::StatusOr<T> Finish(const Reader& reader, T information, std::string_view what) {
  if (!reader.ok()) return MalformedError(what, "too short");
  return information;
}

// A u32 length in bytes, then the name.
std::u16string ReadName(Reader& reader) {
  const uint32_t length = reader.U32();
  if (length % 2 != 0) reader.Fail();
  return Utf16FromBytes(reader.Take(length));
}

void WriteName(std::u16string_view name, Writer& writer) {
  writer.Length32(name.size() * 2);
  writer.Utf16(name);
}

void EncodeRename(uint32_t first_field, std::u16string_view target, Writer& writer) {
  const size_t start = writer.size();
  writer.U32(first_field);
  writer.U32(0);
  writer.U64(0);  // RootDirectory
  WriteName(target, writer);
  const size_t written = writer.size() - start;
  if (written < kRenameSmallestSize) writer.Zero(kRenameSmallestSize - written);
}

std::string StringOf(Bytes bytes) {
  return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

Bytes BytesOf(std::string_view text) {
  return Bytes(reinterpret_cast<const uint8_t*>(text.data()), text.size());
}

}  // namespace

void EncodeBasicInformation(const BasicInformation& information, Writer& writer) {
  writer.U64(information.creation_time);
  writer.U64(information.last_access_time);
  writer.U64(information.last_write_time);
  writer.U64(information.change_time);
  writer.U32(information.attributes);
  writer.U32(0);
}

absl::StatusOr<BasicInformation> DecodeBasicInformation(Bytes buffer) {
  Reader reader(buffer);
  return Finish(reader, ReadBasic(reader), "FileBasicInformation");
}

void EncodeStandardInformation(const StandardInformation& information, Writer& writer) {
  writer.U64(information.allocation_size);
  writer.U64(information.end_of_file);
  writer.U32(information.links);
  writer.U8(information.delete_pending ? 1 : 0);
  writer.U8(information.directory ? 1 : 0);
  writer.U16(0);
}

absl::StatusOr<StandardInformation> DecodeStandardInformation(Bytes buffer) {
  Reader reader(buffer);
  return Finish(reader, ReadStandard(reader), "FileStandardInformation");
}

void EncodeInternalInformation(uint64_t file_id, Writer& writer) { writer.U64(file_id); }

absl::StatusOr<uint64_t> DecodeInternalInformation(Bytes buffer) {
  Reader reader(buffer);
  return Finish(reader, reader.U64(), "FileInternalInformation");
}

void EncodeAllInformation(const AllInformation& information, std::u16string_view name,
                          Writer& writer) {
  EncodeBasicInformation(information.basic, writer);
  EncodeStandardInformation(information.standard, writer);
  writer.U64(information.file_id);
  writer.U32(information.ea_size);
  writer.U32(information.access);
  writer.U64(information.position);
  writer.U32(information.mode);
  writer.U32(0);  // AlignmentRequirement
  WriteName(name, writer);
}

absl::StatusOr<AllInformation> DecodeAllInformation(Bytes buffer) {
  Reader reader(buffer);
  AllInformation information;
  information.basic = ReadBasic(reader);
  information.standard = ReadStandard(reader);
  information.file_id = reader.U64();
  information.ea_size = reader.U32();
  information.access = reader.U32();
  information.position = reader.U64();
  information.mode = reader.U32();
  reader.Skip(8);  // AlignmentRequirement, NameLength
  return Finish(reader, information, "FileAllInformation");
}

void EncodeNetworkOpenInformation(const FileAttributes& attributes, Writer& writer) {
  WriteFileAttributes(attributes, writer);
  writer.U32(0);
}

absl::StatusOr<FileAttributes> DecodeNetworkOpenInformation(Bytes buffer) {
  Reader reader(buffer);
  return Finish(reader, ReadFileAttributes(reader), "FileNetworkOpenInformation");
}

void EncodeAttributeTagInformation(const AttributeTagInformation& information, Writer& writer) {
  writer.U32(information.attributes);
  writer.U32(information.reparse_tag);
}

absl::StatusOr<AttributeTagInformation> DecodeAttributeTagInformation(Bytes buffer) {
  Reader reader(buffer);
  AttributeTagInformation information;
  information.attributes = reader.U32();
  information.reparse_tag = reader.U32();
  return Finish(reader, information, "FileAttributeTagInformation");
}

void EncodeNormalizedName(std::u16string_view name, Writer& writer) { WriteName(name, writer); }

absl::StatusOr<std::u16string> DecodeNormalizedName(Bytes buffer) {
  Reader reader(buffer);
  return Finish(reader, ReadName(reader), "FileNormalizedNameInformation");
}

void EncodeRenameInformation(const RenameInformation& information, Writer& writer) {
  EncodeRename(information.replace ? 1 : 0, information.target, writer);
}

absl::StatusOr<RenameInformation> DecodeRenameInformation(Bytes buffer) {
  Reader reader(buffer);
  RenameInformation information;
  information.replace = reader.U8() != 0;
  reader.Skip(7 + 8);
  information.target = ReadName(reader);
  return Finish(reader, std::move(information), "FileRenameInformation");
}

void EncodeRenameExInformation(const RenameExInformation& information, Writer& writer) {
  EncodeRename(information.flags, information.target, writer);
}

absl::StatusOr<RenameExInformation> DecodeRenameExInformation(Bytes buffer) {
  Reader reader(buffer);
  RenameExInformation information;
  information.flags = reader.U32();
  reader.Skip(4 + 8);
  information.target = ReadName(reader);
  return Finish(reader, std::move(information), "FileRenameInformationEx");
}

void EncodeDispositionInformation(bool delete_on_close, Writer& writer) {
  writer.U8(delete_on_close ? 1 : 0);
}

absl::StatusOr<bool> DecodeDispositionInformation(Bytes buffer) {
  Reader reader(buffer);
  return Finish(reader, reader.U8() != 0, "FileDispositionInformation");
}

void EncodeDispositionExInformation(uint32_t flags, Writer& writer) { writer.U32(flags); }

absl::StatusOr<uint32_t> DecodeDispositionExInformation(Bytes buffer) {
  Reader reader(buffer);
  return Finish(reader, reader.U32(), "FileDispositionInformationEx");
}

void EncodeSizeInformation(uint64_t size_bytes, Writer& writer) { writer.U64(size_bytes); }

absl::StatusOr<uint64_t> DecodeSizeInformation(Bytes buffer) {
  Reader reader(buffer);
  return Finish(reader, reader.U64(), "file size information");
}

void EncodeExtendedAttributes(const std::vector<ExtendedAttribute>& attributes, Writer& writer) {
  RecordListWriter list(4, &writer);
  for (const ExtendedAttribute& attribute : attributes) {
    list.Begin();
    writer.U8(attribute.flags);
    writer.Length8(attribute.name.size());
    writer.Length16(attribute.value.size());
    writer.Append(BytesOf(attribute.name));
    writer.U8(0);
    writer.Append(BytesOf(attribute.value));
  }
}

absl::StatusOr<std::vector<ExtendedAttribute>> DecodeExtendedAttributes(Bytes buffer) {
  RecordListReader list(buffer, kExtendedAttributeFixedSize, "FileFullEaInformation");
  std::vector<ExtendedAttribute> attributes;
  while (const std::optional<Bytes> record = list.Next()) {
    Reader reader(*record);
    reader.Skip(4);
    ExtendedAttribute& attribute = attributes.emplace_back();
    attribute.flags = reader.U8();
    const uint8_t name_length = reader.U8();
    const uint16_t value_length = reader.U16();
    attribute.name = StringOf(reader.Take(name_length));
    if (reader.U8() != 0) list.Fail("name without its NUL");
    attribute.value = StringOf(reader.Take(value_length));
    if (!reader.ok()) list.Fail("attribute outside its record");
    if (attribute.name.empty() || attribute.name.find('\0') != std::string::npos) {
      list.Fail("bad name");
    }
  }
  if (!list.status().ok()) return list.status();
  return attributes;
}

void EncodeExtendedAttributeNames(const std::vector<std::string>& names, Writer& writer) {
  RecordListWriter list(4, &writer);
  for (const std::string& name : names) {
    list.Begin();
    writer.Length8(name.size());
    writer.Append(BytesOf(name));
    writer.U8(0);
  }
}

absl::StatusOr<std::vector<std::string>> DecodeExtendedAttributeNames(Bytes input) {
  RecordListReader list(input, kExtendedAttributeNameFixedSize, "FileGetEaInformation");
  std::vector<std::string> names;
  while (const std::optional<Bytes> record = list.Next()) {
    Reader reader(*record);
    reader.Skip(4);
    const uint8_t length = reader.U8();
    std::string& name = names.emplace_back(StringOf(reader.Take(length)));
    if (reader.U8() != 0 || !reader.ok()) list.Fail("name without its NUL");
    if (name.empty() || name.find('\0') != std::string::npos) list.Fail("bad name");
  }
  if (!list.status().ok()) return list.status();
  return names;
}

void EncodeStreams(const std::vector<StreamInformation>& streams, Writer& writer) {
  RecordListWriter list(8, &writer);
  for (const StreamInformation& stream : streams) {
    list.Begin();
    writer.Length32(stream.name.size() * 2);
    writer.U64(stream.size_bytes);
    writer.U64(stream.allocation_size);
    writer.Utf16(stream.name);
  }
}

absl::StatusOr<std::vector<StreamInformation>> DecodeStreams(Bytes buffer) {
  RecordListReader list(buffer, kStreamFixedSize, "FileStreamInformation");
  std::vector<StreamInformation> streams;
  while (const std::optional<Bytes> record = list.Next()) {
    Reader reader(*record);
    reader.Skip(4);
    const uint32_t name_length = reader.U32();
    StreamInformation& stream = streams.emplace_back();
    stream.size_bytes = reader.U64();
    stream.allocation_size = reader.U64();
    stream.name = Utf16FromBytes(reader.Take(name_length));
    if (!reader.ok() || name_length % 2 != 0) list.Fail("bad name");
  }
  if (!list.status().ok()) return list.status();
  return streams;
}

}  // namespace dfscsi::smb::wire
