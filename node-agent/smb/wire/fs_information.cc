#include "node-agent/smb/wire/fs_information.h"

#include <algorithm>
#include <limits>
#include <string_view>

#include "node-agent/smb/wire/utf16.h"

namespace dfscsi::smb::wire {
namespace {

constexpr uint64_t kLargestUnitBytes = uint64_t{1} << 31;

absl::StatusOr<FsSizeInformation> CheckSizes(const Reader& reader,
                                             const FsSizeInformation& information) {
  constexpr std::string_view kWhat = "file system size";
  if (!reader.ok()) return MalformedError(kWhat, "too short");
  const uint64_t unit = information.unit_bytes();
  if (unit == 0 || unit > kLargestUnitBytes) return MalformedError(kWhat, "absurd unit");
  const uint64_t most =
      std::max({information.total_units, information.available_units, information.free_units});
  if (most > std::numeric_limits<uint64_t>::max() / unit) {
    return MalformedError(kWhat, "more than 64 bits of bytes");
  }
  return information;
}

// The lengths of labels and names are the server's word; what does not fit is malformed.
absl::StatusOr<std::u16string> ReadText(Reader& reader, uint32_t length, std::string_view what) {
  const Bytes text = reader.Take(length);
  if (!reader.ok()) return MalformedError(what, "too short");
  if (length % 2 != 0) return MalformedError(what, "string of odd length");
  return Utf16FromBytes(text);
}

}  // namespace

void EncodeFsVolumeInformation(const FsVolumeInformation& information, Writer& writer) {
  writer.U64(information.creation_time);
  writer.U32(information.serial_number);
  writer.Length32(information.label.size() * 2);
  writer.U16(0);  // SupportsObjects, Reserved
  writer.Utf16(information.label);
}

absl::StatusOr<FsVolumeInformation> DecodeFsVolumeInformation(Bytes buffer) {
  Reader reader(buffer);
  FsVolumeInformation information;
  information.creation_time = reader.U64();
  information.serial_number = reader.U32();
  const uint32_t length = reader.U32();
  reader.Skip(2);
  absl::StatusOr<std::u16string> label = ReadText(reader, length, "FileFsVolumeInformation");
  if (!label.ok()) return std::move(label).status();
  information.label = *std::move(label);
  return information;
}

void EncodeFsSizeInformation(const FsSizeInformation& information, Writer& writer) {
  writer.U64(information.total_units);
  writer.U64(information.available_units);
  writer.U32(information.sectors_per_unit);
  writer.U32(information.bytes_per_sector);
}

absl::StatusOr<FsSizeInformation> DecodeFsSizeInformation(Bytes buffer) {
  Reader reader(buffer);
  FsSizeInformation information;
  information.total_units = reader.U64();
  information.available_units = reader.U64();
  information.free_units = information.available_units;
  information.sectors_per_unit = reader.U32();
  information.bytes_per_sector = reader.U32();
  return CheckSizes(reader, information);
}

void EncodeFsFullSizeInformation(const FsSizeInformation& information, Writer& writer) {
  writer.U64(information.total_units);
  writer.U64(information.available_units);
  writer.U64(information.free_units);
  writer.U32(information.sectors_per_unit);
  writer.U32(information.bytes_per_sector);
}

absl::StatusOr<FsSizeInformation> DecodeFsFullSizeInformation(Bytes buffer) {
  Reader reader(buffer);
  FsSizeInformation information;
  information.total_units = reader.U64();
  information.available_units = reader.U64();
  information.free_units = reader.U64();
  information.sectors_per_unit = reader.U32();
  information.bytes_per_sector = reader.U32();
  return CheckSizes(reader, information);
}

void EncodeFsAttributeInformation(const FsAttributeInformation& information, Writer& writer) {
  writer.U32(information.attributes);
  writer.U32(information.max_component_units);
  writer.Length32(information.file_system.size() * 2);
  writer.Utf16(information.file_system);
}

absl::StatusOr<FsAttributeInformation> DecodeFsAttributeInformation(Bytes buffer) {
  Reader reader(buffer);
  FsAttributeInformation information;
  information.attributes = reader.U32();
  information.max_component_units = reader.U32();
  const uint32_t length = reader.U32();
  absl::StatusOr<std::u16string> name = ReadText(reader, length, "FileFsAttributeInformation");
  if (!name.ok()) return std::move(name).status();
  information.file_system = *std::move(name);
  return information;
}

void EncodeFsSectorSizeInformation(const FsSectorSizeInformation& information, Writer& writer) {
  writer.U32(information.logical_bytes_per_sector);
  writer.U32(information.physical_bytes_per_sector);
  writer.U32(information.physical_bytes_per_sector);  // For performance
  writer.U32(information.physical_bytes_per_sector);  // Effective, for atomicity
  writer.U32(information.flags);
  writer.U64(0);  // ByteOffsetForSectorAlignment, ByteOffsetForPartitionAlignment
}

absl::StatusOr<FsSectorSizeInformation> DecodeFsSectorSizeInformation(Bytes buffer) {
  Reader reader(buffer);
  FsSectorSizeInformation information;
  information.logical_bytes_per_sector = reader.U32();
  information.physical_bytes_per_sector = reader.U32();
  reader.Skip(8);
  information.flags = reader.U32();
  reader.Skip(8);
  if (!reader.ok()) return MalformedError("FileFsSectorSizeInformation", "too short");
  return information;
}

}  // namespace dfscsi::smb::wire
