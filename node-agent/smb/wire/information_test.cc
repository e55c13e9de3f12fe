// What lies inside buffers: information classes, directory entries, reparse points, error data.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "node-agent/smb/wire/directory.h"
#include "node-agent/smb/wire/error_response.h"
#include "node-agent/smb/wire/file_information.h"
#include "node-agent/smb/wire/filetime.h"
#include "node-agent/smb/wire/fs_information.h"
#include "node-agent/smb/wire/reparse.h"
#include "node-agent/smb/wire/test_bytes.h"
#include "node-agent/smb/wire/utf16.h"

namespace dfscsi::smb::wire {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

constexpr FileAttributes kAttributes = {11, 12, 13, 14, 4096, 3000, kAttributeArchive};

template <typename Decode>
void ExpectNoCutIsAccepted(const std::vector<uint8_t>& buffer, size_t smallest, Decode decode) {
  for (size_t size = 0; size < smallest; ++size) {
    const std::vector<uint8_t> cut(buffer.begin(), buffer.begin() + size);
    EXPECT_EQ(decode(cut).status().code(), absl::StatusCode::kDataLoss) << size;
  }
}

TEST(FileTimeTest, ConvertsBothWays) {
  const absl::Time time = absl::FromUnixSeconds(1700000000) + absl::Nanoseconds(123456700);
  EXPECT_EQ(FileTimeOf(time), 133444736001234567u);
  EXPECT_EQ(TimeOfFileTime(133444736001234567u), time);
  EXPECT_EQ(FileTimeOf(absl::UnixEpoch()), 116444736000000000u);
  EXPECT_EQ(TimeOfFileTime(1), absl::FromUnixSeconds(-11644473600) + absl::Nanoseconds(100));
  // Rounding is down, on both sides of 1970.
  EXPECT_EQ(FileTimeOf(time + absl::Nanoseconds(99)), 133444736001234567u);
  EXPECT_EQ(FileTimeOf(absl::UnixEpoch() - absl::Nanoseconds(1)), 116444735999999999u);
}

TEST(FileTimeTest, NoTimeIsNoTimeAndNoTimeBecomesOne) {
  EXPECT_EQ(TimeOfFileTime(0), std::nullopt);
  EXPECT_EQ(TimeOfFileTime(~uint64_t{0}), std::nullopt);
  EXPECT_EQ(TimeOfFileTime(uint64_t{1} << 63), std::nullopt);
  EXPECT_EQ(FileTimeOf(absl::InfinitePast()), 1u);
  EXPECT_EQ(FileTimeOf(absl::FromUnixSeconds(-11644473600)), 1u);
  EXPECT_EQ(FileTimeOf(absl::InfiniteFuture()), 0x7FFFFFFFFFFFFFFFu);
  EXPECT_TRUE(TimeOfFileTime(0x7FFFFFFFFFFFFFFF).has_value());
}

TEST(FileInformationTest, BasicAndStandard) {
  const BasicInformation basic = {1, 2, 3, 4, kAttributeReadonly};
  const std::vector<uint8_t> buffer =
      BodyOf([&](Writer& writer) { EncodeBasicInformation(basic, writer); });
  EXPECT_EQ(buffer.size(), kBasicInformationSize);
  EXPECT_EQ(NumberIn<uint64_t>(buffer, 16), 3u);
  EXPECT_EQ(NumberIn<uint32_t>(buffer, 32), uint32_t{kAttributeReadonly});
  EXPECT_EQ(DecodeBasicInformation(buffer)->last_write_time, 3u);
  EXPECT_EQ(DecodeBasicInformation(buffer)->change_time, 4u);
  EXPECT_EQ(DecodeBasicInformation(buffer)->attributes, kAttributeReadonly);
  ExpectNoCutIsAccepted(buffer, 40, DecodeBasicInformation);

  const std::vector<uint8_t> standard = BodyOf(
      [&](Writer& writer) { EncodeStandardInformation({4096, 3000, 2, true, false}, writer); });
  EXPECT_EQ(standard.size(), kStandardInformationSize);
  EXPECT_EQ(DecodeStandardInformation(standard)->allocation_size, 4096u);
  EXPECT_EQ(DecodeStandardInformation(standard)->end_of_file, 3000u);
  EXPECT_EQ(DecodeStandardInformation(standard)->links, 2u);
  EXPECT_TRUE(DecodeStandardInformation(standard)->delete_pending);
  EXPECT_FALSE(DecodeStandardInformation(standard)->directory);
  ExpectNoCutIsAccepted(standard, 24, DecodeStandardInformation);
}

TEST(FileInformationTest, AllWithAndWithoutItsName) {
  AllInformation all;
  all.basic = {1, 2, 3, 4, kAttributeDirectory};
  all.standard = {0, 0, 1, false, true};
  all.file_id = 0xA8C908;
  all.ea_size = kTagSymlink;
  all.access = 0x1F;
  all.position = 9;
  all.mode = 2;
  const std::vector<uint8_t> buffer =
      BodyOf([&](Writer& writer) { EncodeAllInformation(all, u"\\dir", writer); });
  EXPECT_EQ(buffer.size(), kAllInformationFixedSize + 8);
  EXPECT_EQ(NumberIn<uint64_t>(buffer, 64), 0xA8C908u);
  EXPECT_EQ(NumberIn<uint32_t>(buffer, 72), uint32_t{kTagSymlink});
  EXPECT_EQ(NumberIn<uint32_t>(buffer, 96), 8u);
  // BUFFER_OVERFLOW cuts the name off.
  for (const size_t size : {buffer.size(), buffer.size() - 5, size_t{100}}) {
    const absl::StatusOr<AllInformation> decoded = DecodeAllInformation(Bytes(buffer).first(size));
    ASSERT_TRUE(decoded.ok()) << size;
    EXPECT_EQ(decoded->basic.attributes, kAttributeDirectory);
    EXPECT_TRUE(decoded->standard.directory);
    EXPECT_EQ(decoded->file_id, 0xA8C908u);
    EXPECT_EQ(decoded->ea_size, kTagSymlink);
    EXPECT_EQ(decoded->access, 0x1Fu);
    EXPECT_EQ(decoded->position, 9u);
    EXPECT_EQ(decoded->mode, 2u);
  }
  ExpectNoCutIsAccepted(buffer, 100, DecodeAllInformation);
}

TEST(FileInformationTest, SmallClasses) {
  const std::vector<uint8_t> network =
      BodyOf([](Writer& writer) { EncodeNetworkOpenInformation(kAttributes, writer); });
  EXPECT_EQ(network.size(), kNetworkOpenInformationSize);
  EXPECT_EQ(*DecodeNetworkOpenInformation(network), kAttributes);
  EXPECT_EQ(NumberIn<uint64_t>(network, 32), 4096u);
  EXPECT_EQ(NumberIn<uint64_t>(network, 40), 3000u);
  ExpectNoCutIsAccepted(network, 52, DecodeNetworkOpenInformation);

  const std::vector<uint8_t> tag = BodyOf([](Writer& writer) {
    EncodeAttributeTagInformation({kAttributeReparsePoint, kTagDfs}, writer);
  });
  EXPECT_EQ(tag.size(), kAttributeTagInformationSize);
  EXPECT_EQ(DecodeAttributeTagInformation(tag)->reparse_tag, kTagDfs);
  EXPECT_EQ(DecodeAttributeTagInformation(tag)->attributes, kAttributeReparsePoint);
  ExpectNoCutIsAccepted(tag, 8, DecodeAttributeTagInformation);

  const std::vector<uint8_t> id =
      BodyOf([](Writer& writer) { EncodeInternalInformation(77, writer); });
  EXPECT_EQ(*DecodeInternalInformation(id), 77u);
  ExpectNoCutIsAccepted(id, 8, DecodeInternalInformation);

  const std::vector<uint8_t> name =
      BodyOf([](Writer& writer) { EncodeNormalizedName(u"Dir\\File", writer); });
  EXPECT_EQ(*DecodeNormalizedName(name), u"Dir\\File");
  ExpectNoCutIsAccepted(name, name.size(), DecodeNormalizedName);

  const std::vector<uint8_t> size =
      BodyOf([](Writer& writer) { EncodeSizeInformation(123, writer); });
  EXPECT_EQ(*DecodeSizeInformation(size), 123u);
  ExpectNoCutIsAccepted(size, 8, DecodeSizeInformation);

  EXPECT_TRUE(*DecodeDispositionInformation(
      BodyOf([](Writer& writer) { EncodeDispositionInformation(true, writer); })));
  EXPECT_FALSE(DecodeDispositionInformation({}).ok());
  EXPECT_EQ(*DecodeDispositionExInformation(BodyOf([](Writer& writer) {
    EncodeDispositionExInformation(kDispositionDelete | kDispositionPosix, writer);
  })),
            3u);
  EXPECT_FALSE(DecodeDispositionExInformation(FromHex("010000")).ok());
}

TEST(FileInformationTest, RenameHasAtLeast24Bytes) {
  const std::vector<uint8_t> shortest =
      BodyOf([](Writer& writer) { EncodeRenameInformation({true, u"x"}, writer); });
  EXPECT_EQ(shortest.size(), 24u);
  EXPECT_EQ(shortest[0], 1);
  EXPECT_EQ(NumberIn<uint32_t>(shortest, 16), 2u);
  EXPECT_TRUE(DecodeRenameInformation(shortest)->replace);
  EXPECT_EQ(DecodeRenameInformation(shortest)->target, u"x");
  const std::vector<uint8_t> longer =
      BodyOf([](Writer& writer) { EncodeRenameInformation({false, u"dir\\name"}, writer); });
  EXPECT_EQ(longer.size(), 36u);
  EXPECT_EQ(DecodeRenameInformation(longer)->target, u"dir\\name");
  ExpectNoCutIsAccepted(longer, longer.size(), DecodeRenameInformation);

  const std::vector<uint8_t> ex = BodyOf([](Writer& writer) {
    EncodeRenameExInformation({kRenameReplace | kRenamePosix, u"dir\\name"}, writer);
  });
  EXPECT_EQ(DecodeRenameExInformation(ex)->flags, 3u);
  EXPECT_EQ(DecodeRenameExInformation(ex)->target, u"dir\\name");
  ExpectNoCutIsAccepted(ex, ex.size(), DecodeRenameExInformation);
}

TEST(FileInformationTest, ExtendedAttributes) {
  const std::vector<ExtendedAttribute> attributes = {
      {0, "user.a", "1"}, {0x80, "B", std::string(1000, 'v')}, {0, "EMPTY", ""}};
  const std::vector<uint8_t> buffer =
      BodyOf([&](Writer& writer) { EncodeExtendedAttributes(attributes, writer); });
  const absl::StatusOr<std::vector<ExtendedAttribute>> decoded = DecodeExtendedAttributes(buffer);
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  ASSERT_EQ(decoded->size(), 3u);
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ((*decoded)[i].flags, attributes[i].flags);
    EXPECT_EQ((*decoded)[i].name, attributes[i].name);
    EXPECT_EQ((*decoded)[i].value, attributes[i].value);
  }
  ExpectNoCutIsAccepted(std::vector<uint8_t>(buffer.begin() + 1, buffer.end()), 0,
                        DecodeExtendedAttributes);
  EXPECT_THAT(*DecodeExtendedAttributes({}), IsEmpty());

  const struct {
    const char* name;
    size_t offset;
    uint8_t value;
  } kBad[] = {{"Next not aligned", 0, 18},
              {"Next too near", 0, 4},
              {"Next beyond the end", 3, 1},
              {"name beyond its record", 5, 40},
              {"no name", 5, 0},
              {"value beyond its record", 6, 40},
              {"NUL in the name", 10, 0},
              {"no NUL behind the name", 14, 'x'}};
  for (const auto& test : kBad) {
    std::vector<uint8_t> bad = buffer;
    bad[test.offset] = test.value;
    EXPECT_EQ(DecodeExtendedAttributes(bad).status().code(), absl::StatusCode::kDataLoss)
        << test.name;
  }
}

TEST(FileInformationTest, Streams) {
  const std::vector<StreamInformation> streams = {{3, 4096, u"::$DATA"}, {5, 8, u":tag:$DATA"}};
  const std::vector<uint8_t> buffer =
      BodyOf([&](Writer& writer) { EncodeStreams(streams, writer); });
  EXPECT_EQ(NumberIn<uint32_t>(buffer, 0) % 8, 0u);
  const absl::StatusOr<std::vector<StreamInformation>> decoded = DecodeStreams(buffer);
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  ASSERT_EQ(decoded->size(), 2u);
  EXPECT_EQ((*decoded)[1].name, u":tag:$DATA");
  EXPECT_EQ((*decoded)[1].size_bytes, 5u);
  EXPECT_EQ((*decoded)[1].allocation_size, 8u);
  std::vector<uint8_t> bad = buffer;
  SetNumber<uint32_t>(bad, 4, 13);  // Odd.
  EXPECT_FALSE(DecodeStreams(bad).ok());
  SetNumber<uint32_t>(bad, 4, 0xFFFFFFFE);
  EXPECT_FALSE(DecodeStreams(bad).ok());
}

TEST(FsInformationTest, RoundTrips) {
  const std::vector<uint8_t> volume =
      BodyOf([](Writer& writer) { EncodeFsVolumeInformation({5, 0xBEEF, u"data"}, writer); });
  EXPECT_EQ(volume.size(), 18u + 8);
  EXPECT_EQ(DecodeFsVolumeInformation(volume)->serial_number, 0xBEEFu);
  EXPECT_EQ(DecodeFsVolumeInformation(volume)->label, u"data");
  ExpectNoCutIsAccepted(volume, volume.size(), DecodeFsVolumeInformation);

  const FsSizeInformation sizes = {1000, 100, 200, 8, 512};
  const std::vector<uint8_t> full =
      BodyOf([&](Writer& writer) { EncodeFsFullSizeInformation(sizes, writer); });
  EXPECT_EQ(full.size(), 32u);
  const absl::StatusOr<FsSizeInformation> decoded = DecodeFsFullSizeInformation(full);
  ASSERT_TRUE(decoded.ok());
  EXPECT_EQ(decoded->total_units, 1000u);
  EXPECT_EQ(decoded->available_units, 100u);
  EXPECT_EQ(decoded->free_units, 200u);
  EXPECT_EQ(decoded->unit_bytes(), 4096u);
  ExpectNoCutIsAccepted(full, 32, DecodeFsFullSizeInformation);

  const std::vector<uint8_t> size =
      BodyOf([&](Writer& writer) { EncodeFsSizeInformation(sizes, writer); });
  EXPECT_EQ(size.size(), 24u);
  EXPECT_EQ(DecodeFsSizeInformation(size)->free_units, 100u);
  ExpectNoCutIsAccepted(size, 24, DecodeFsSizeInformation);

  const std::vector<uint8_t> attribute = BodyOf([](Writer& writer) {
    EncodeFsAttributeInformation({kFsCasePreservedNames, 255, u"NTFS"}, writer);
  });
  EXPECT_EQ(DecodeFsAttributeInformation(attribute)->file_system, u"NTFS");
  EXPECT_EQ(DecodeFsAttributeInformation(attribute)->attributes, kFsCasePreservedNames);
  EXPECT_EQ(DecodeFsAttributeInformation(attribute)->max_component_units, 255u);
  ExpectNoCutIsAccepted(attribute, attribute.size(), DecodeFsAttributeInformation);
  std::vector<uint8_t> odd = attribute;
  SetNumber<uint32_t>(odd, 8, 7);
  EXPECT_FALSE(DecodeFsAttributeInformation(odd).ok());

  const std::vector<uint8_t> sector =
      BodyOf([](Writer& writer) { EncodeFsSectorSizeInformation({512, 4096, 3}, writer); });
  EXPECT_EQ(sector.size(), 28u);
  EXPECT_EQ(DecodeFsSectorSizeInformation(sector)->physical_bytes_per_sector, 4096u);
  EXPECT_EQ(DecodeFsSectorSizeInformation(sector)->flags, 3u);
  ExpectNoCutIsAccepted(sector, 28, DecodeFsSectorSizeInformation);
}

TEST(FsInformationTest, SizesThatCannotBeMultipliedAreRejected) {
  const FsSizeInformation kBad[] = {
      {1, 1, 1, 0, 512},
      {1, 1, 1, 8, 0},
      {1, 1, 1, 0xFFFFFFFF, 0xFFFFFFFF},
      {uint64_t{1} << 60, 1, 1, 8, 512},
      {1, ~uint64_t{0}, 1, 1, 512},
  };
  for (const FsSizeInformation& bad : kBad) {
    EXPECT_FALSE(DecodeFsFullSizeInformation(BodyOf([&](Writer& writer) {
                   EncodeFsFullSizeInformation(bad, writer);
                 })).ok());
  }
}

std::string NameOf(const DirectoryEntry& entry) {
  std::string name;
  AppendUtf8(entry.name, &name);
  return name;
}

std::vector<uint8_t> Listing(FileInfoClass info_class, const std::vector<std::u16string>& names) {
  return BodyOf([&](Writer& writer) {
    DirectoryWriter directory(info_class, 65536, &writer);
    uint64_t id = 100;
    for (const std::u16string& name : names) {
      EXPECT_TRUE(directory.Add(name, kAttributes, 0, id++));
    }
  });
}

TEST(DirectoryTest, RoundTripsInEveryClass) {
  for (const FileInfoClass info_class :
       {FileInfoClass::kDirectory, FileInfoClass::kFullDirectory, FileInfoClass::kBothDirectory,
        FileInfoClass::kIdBothDirectory, FileInfoClass::kIdFullDirectory}) {
    const bool has_id = info_class == FileInfoClass::kIdBothDirectory ||
                        info_class == FileInfoClass::kIdFullDirectory;
    const std::vector<uint8_t> buffer = BodyOf([&](Writer& writer) {
      DirectoryWriter directory(info_class, 65536, &writer);
      FileAttributes link = kAttributes;
      link.attributes = kAttributeDirectory | kAttributeReparsePoint;
      EXPECT_TRUE(directory.Add(u".", kAttributes, 0, 1));
      EXPECT_TRUE(directory.Add(u"..", kAttributes, 0, 2));
      EXPECT_TRUE(directory.Add(u"file", kAttributes, 0, 3));
      EXPECT_TRUE(directory.Add(u"link", link, kTagDfs, 4));
      EXPECT_TRUE(directory.Add(u".x", kAttributes, 0, 5));
    });
    DirectoryReader reader(info_class, buffer);
    std::vector<std::string> names;
    while (const std::optional<DirectoryEntry> entry = reader.Next()) {
      names.push_back(NameOf(*entry));
      if (names.back() == "file") {
        EXPECT_EQ(entry->attributes, kAttributes);
        EXPECT_EQ(entry->reparse_tag, 0u);
        EXPECT_EQ(entry->file_id, has_id ? 3u : 0u);
      }
      if (names.back() == "link") {
        EXPECT_TRUE(entry->attributes.Has(kAttributeReparsePoint));
        EXPECT_EQ(entry->reparse_tag, info_class == FileInfoClass::kDirectory ? 0u : kTagDfs);
      }
    }
    EXPECT_TRUE(reader.status().ok()) << reader.status();
    EXPECT_THAT(names, ElementsAre("file", "link", ".x"));
    EXPECT_EQ(reader.skipped(), 0);
  }
}

TEST(DirectoryTest, FieldsStandWhereTheSpecificationSays) {
  const std::vector<uint8_t> both = Listing(FileInfoClass::kIdBothDirectory, {u"ab", u"c"});
  EXPECT_EQ(NumberIn<uint32_t>(both, 0), 112u);  // 104 + 4, 8-aligned.
  EXPECT_EQ(NumberIn<uint64_t>(both, 40), 3000u);
  EXPECT_EQ(NumberIn<uint64_t>(both, 48), 4096u);
  EXPECT_EQ(NumberIn<uint32_t>(both, 60), 4u);
  EXPECT_EQ(NumberIn<uint64_t>(both, 96), 100u);
  EXPECT_EQ(NumberIn<uint16_t>(both, 104), u'a');
  const std::vector<uint8_t> full = Listing(FileInfoClass::kIdFullDirectory, {u"ab"});
  EXPECT_EQ(NumberIn<uint64_t>(full, 72), 100u);
  EXPECT_EQ(NumberIn<uint16_t>(full, 80), u'a');
}

TEST(DirectoryTest, AnEmptyBufferHasNoEntries) {
  DirectoryReader reader(FileInfoClass::kIdBothDirectory, {});
  EXPECT_FALSE(reader.Next().has_value());
  EXPECT_TRUE(reader.status().ok());
}

TEST(DirectoryTest, NamesThatMustNotReachTheKernelAreLeftOut) {
  const std::vector<uint8_t> buffer =
      Listing(FileInfoClass::kIdBothDirectory,
              {u"good", u"a/b", u"..\\up", std::u16string(u"nu\0l", 4), u"\x2F00", u"last"});
  DirectoryReader reader(FileInfoClass::kIdBothDirectory, buffer);
  std::vector<std::string> names;
  while (const std::optional<DirectoryEntry> entry = reader.Next()) names.push_back(NameOf(*entry));
  EXPECT_TRUE(reader.status().ok());
  EXPECT_THAT(names, ElementsAre("good", "\xE2\xBC\x80", "last"));
  EXPECT_EQ(reader.skipped(), 3);
}

TEST(DirectoryTest, MalformedListsAreDataLoss) {
  const std::vector<uint8_t> good = Listing(FileInfoClass::kIdBothDirectory, {u"first", u"second"});
  const struct {
    const char* name;
    std::function<void(std::vector<uint8_t>&)> change;
  } kCases[] = {
      {"Next not aligned", [](auto& b) { SetNumber<uint32_t>(b, 0, 117); }},
      {"Next inside the fixed part", [](auto& b) { SetNumber<uint32_t>(b, 0, 96); }},
      {"Next to the end", [](auto& b) { SetNumber<uint32_t>(b, 0, uint32_t(b.size())); }},
      {"Next beyond the end", [](auto& b) { SetNumber<uint32_t>(b, 0, 0xFFFFFFFC); }},
      {"name into the next entry", [](auto& b) { SetNumber<uint32_t>(b, 60, 18); }},
      {"name beyond the end", [](auto& b) { SetNumber<uint32_t>(b, 60, 0xFFFFFFFE); }},
      {"last entry cut", [](auto& b) { b.resize(b.size() - 1); }},
      {"last entry cut in its fixed part", [](auto& b) { b.resize(200); }},
  };
  for (const auto& test : kCases) {
    std::vector<uint8_t> buffer = good;
    test.change(buffer);
    DirectoryReader reader(FileInfoClass::kIdBothDirectory, buffer);
    while (reader.Next().has_value()) {
    }
    EXPECT_EQ(reader.status().code(), absl::StatusCode::kDataLoss) << test.name;
  }
}

TEST(DirectoryTest, AnEntryAlignedToFourIsAccepted) {
  std::vector<uint8_t> buffer = Listing(FileInfoClass::kIdBothDirectory, {u"ab", u"c"});
  // Move the second entry from 112 to 108.
  buffer.erase(buffer.begin() + 108, buffer.begin() + 112);
  SetNumber<uint32_t>(buffer, 0, 108);
  DirectoryReader reader(FileInfoClass::kIdBothDirectory, buffer);
  EXPECT_EQ(NameOf(*reader.Next()), "ab");
  EXPECT_EQ(NameOf(*reader.Next()), "c");
  EXPECT_FALSE(reader.Next().has_value());
  EXPECT_TRUE(reader.status().ok());
}

TEST(DirectoryTest, TheWriterKeepsToTheClientsLimit) {
  std::vector<uint8_t> buffer;
  Writer writer(&buffer);
  DirectoryWriter directory(FileInfoClass::kIdBothDirectory, 300, &writer);
  int count = 0;
  while (directory.Add(u"name", kAttributes, 0, 1)) ++count;
  EXPECT_EQ(count, 2);
  EXPECT_LE(buffer.size(), 300u);
}

TEST(ReparseTest, RoundTrips) {
  const SymlinkReparse link = {true, u"..\\target", u"../target"};
  const std::vector<uint8_t> symlink =
      BodyOf([&](Writer& writer) { EncodeReparseData(link, writer); });
  EXPECT_EQ(NumberIn<uint32_t>(symlink, 0), uint32_t{kTagSymlink});
  EXPECT_EQ(NumberIn<uint16_t>(symlink, 4), symlink.size() - 8);
  EXPECT_EQ(NumberIn<uint32_t>(symlink, 16), 1u);  // Flags
  EXPECT_EQ(NumberIn<uint16_t>(symlink, 20), u'.');
  const absl::StatusOr<ReparseData> decoded = DecodeReparseData(symlink);
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  EXPECT_EQ(std::get<SymlinkReparse>(*decoded).substitute_name, link.substitute_name);
  EXPECT_EQ(std::get<SymlinkReparse>(*decoded).print_name, link.print_name);
  EXPECT_TRUE(std::get<SymlinkReparse>(*decoded).relative);
  ExpectNoCutIsAccepted(symlink, symlink.size(), DecodeReparseData);

  const std::vector<uint8_t> mount = BodyOf([](Writer& writer) {
    EncodeReparseData(MountPointReparse{u"\\??\\C:\\x", u"C:\\x"}, writer);
  });
  EXPECT_EQ(std::get<MountPointReparse>(*DecodeReparseData(mount)).substitute_name, u"\\??\\C:\\x");
  ExpectNoCutIsAccepted(mount, mount.size(), DecodeReparseData);

  for (const NfsType type : {NfsType::kLink, NfsType::kFifo, NfsType::kCharacterDevice,
                             NfsType::kBlockDevice, NfsType::kSocket}) {
    const NfsReparse nfs = {type, type == NfsType::kLink ? u"a/b" : u"", 8, 1};
    const std::vector<uint8_t> buffer =
        BodyOf([&](Writer& writer) { EncodeReparseData(nfs, writer); });
    const absl::StatusOr<ReparseData> decoded_nfs = DecodeReparseData(buffer);
    ASSERT_TRUE(decoded_nfs.ok()) << decoded_nfs.status();
    EXPECT_EQ(std::get<NfsReparse>(*decoded_nfs).type, type);
    EXPECT_EQ(std::get<NfsReparse>(*decoded_nfs).target, nfs.target);
    if (type == NfsType::kBlockDevice) {
      EXPECT_EQ(std::get<NfsReparse>(*decoded_nfs).major, 8u);
      EXPECT_EQ(std::get<NfsReparse>(*decoded_nfs).minor, 1u);
    }
    ExpectNoCutIsAccepted(buffer, buffer.size(), DecodeReparseData);
  }

  const std::vector<uint8_t> lx =
      BodyOf([](Writer& writer) { EncodeReparseData(LxSymlinkReparse{"../t"}, writer); });
  EXPECT_EQ(std::get<LxSymlinkReparse>(*DecodeReparseData(lx)).target, "../t");
  ExpectNoCutIsAccepted(lx, lx.size(), DecodeReparseData);

  const std::vector<uint8_t> content = FromHex("010203");
  const std::vector<uint8_t> other =
      BodyOf([&](Writer& writer) { EncodeReparseData(OtherReparse{kTagDedup, content}, writer); });
  EXPECT_EQ(std::get<OtherReparse>(*DecodeReparseData(other)).tag, kTagDedup);
  EXPECT_EQ(std::get<OtherReparse>(*DecodeReparseData(other)).content, Bytes(content));
}

TEST(ReparseTest, RejectsWhatIsMalformed) {
  const std::vector<uint8_t> link = BodyOf(
      [](Writer& writer) { EncodeReparseData(SymlinkReparse{false, u"ab", u"cd"}, writer); });
  const struct {
    const char* name;
    std::function<void(std::vector<uint8_t>&)> change;
  } kCases[] = {
      {"length beyond the buffer", [](auto& b) { SetNumber<uint16_t>(b, 4, 0xFFFF); }},
      {"length too short for the fields", [](auto& b) { SetNumber<uint16_t>(b, 4, 11); }},
      {"substitute beyond the buffer", [](auto& b) { SetNumber<uint16_t>(b, 8, 6); }},
      {"substitute too long", [](auto& b) { SetNumber<uint16_t>(b, 10, 0xFFFE); }},
      {"print beyond the buffer", [](auto& b) { SetNumber<uint16_t>(b, 12, 0xFFFE); }},
      {"odd length", [](auto& b) { SetNumber<uint16_t>(b, 10, 3); }},
      {"NUL in the substitute name", [](auto& b) { SetNumber<uint16_t>(b, 20, 0); }},
      {"NUL in the print name", [](auto& b) { SetNumber<uint16_t>(b, 24, 0); }},
  };
  ASSERT_TRUE(DecodeReparseData(link).ok());
  for (const auto& test : kCases) {
    std::vector<uint8_t> buffer = link;
    test.change(buffer);
    EXPECT_EQ(DecodeReparseData(buffer).status().code(), absl::StatusCode::kDataLoss) << test.name;
  }
  for (const char* hex : {
           "14000080080000000000000000000000",          // NFS: unknown type.
           "140000800b0000004c4e4b010000000061006200",  // NFS link of odd length (cut).
           "140000800a0000004c4e4b01000000000000",      // NFS link with NUL.
           "1d0000a00500000001000000"
           "61",  // LX version 1.
           "1d0000a00500000002000000"
           "00",  // LX link with NUL.
       }) {
    EXPECT_FALSE(DecodeReparseData(FromHex(hex)).ok()) << hex;
  }
}

TEST(ReparseTest, BothDfsTagsAreLinks) {
  EXPECT_TRUE(IsDfsTag(kTagDfs));
  EXPECT_TRUE(IsDfsTag(kTagDfsr));
  EXPECT_FALSE(IsDfsTag(kTagSymlink));
}

TEST(ErrorResponseTest, EightBytesAreEnough) {
  const std::vector<uint8_t> body =
      BodyOf([](Writer& writer) { EncodeErrorResponse({}, false, writer); });
  EXPECT_EQ(ToHex(body), "090000000000000000");
  ASSERT_TRUE(DecodeErrorResponse(body).ok());
  const absl::StatusOr<ErrorResponse> decoded = DecodeErrorResponse(Bytes(body).first(8));
  ASSERT_TRUE(decoded.ok());
  EXPECT_THAT(decoded->error_data, IsEmpty());
  EXPECT_EQ(RequiredBufferSize(*decoded), std::nullopt);
  ExpectNoCutIsAccepted(body, 8, DecodeErrorResponse);
}

TEST(ErrorResponseTest, DataDirectlyOrInAContext) {
  const std::vector<uint8_t> data = FromHex("00100000");
  for (const bool as_context : {false, true}) {
    const std::vector<uint8_t> body =
        BodyOf([&](Writer& writer) { EncodeErrorResponse({data}, as_context, writer); });
    const absl::StatusOr<ErrorResponse> decoded = DecodeErrorResponse(body);
    ASSERT_TRUE(decoded.ok()) << decoded.status();
    EXPECT_EQ(decoded->error_data, Bytes(data));
    EXPECT_EQ(RequiredBufferSize(*decoded), 4096u);
    ExpectNoCutIsAccepted(body, body.size(), DecodeErrorResponse);
  }
}

TEST(ErrorResponseTest, WalksContextsToTheDefaultOne) {
  // A share redirect of 3 bytes, padded to 8, then the default context.
  const std::vector<uint8_t> body =
      FromHex("090002001c0000000300000053526472aabbcc0000000000040000000000000078563412");
  const absl::StatusOr<ErrorResponse> decoded = DecodeErrorResponse(body);
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  EXPECT_EQ(RequiredBufferSize(*decoded), 0x12345678u);
}

TEST(ErrorResponseTest, RejectsContextsThatLeaveTheirBuffer) {
  for (const char* hex : {
           "09000100"
           "08000000"
           "ffffffff"
           "00000000",  // Rounded up it would wrap.
           "09000100"
           "08000000"
           "f9ffffff"
           "00000000",  //
           "09000100"
           "08000000"
           "01000000"
           "00000000",  // One byte too many.
           "09000200"
           "08000000"
           "00000000"
           "00000000",  // The second is missing.
           "09000100"
           "04000000"
           "00000000",  // Half a context.
           "0900ff00"
           "00000000",  // 255 contexts in nothing.
           "09000000"
           "ffffffff",  // ByteCount beyond the end.
       }) {
    EXPECT_EQ(DecodeErrorResponse(FromHex(hex)).status().code(), absl::StatusCode::kDataLoss)
        << hex;
  }
}

TEST(SymlinkErrorTest, RoundTrips) {
  const SymlinkError error = {10, true, u"..\\elsewhere", u"../elsewhere"};
  const std::vector<uint8_t> data =
      BodyOf([&](Writer& writer) { EncodeSymlinkError(error, writer); });
  EXPECT_EQ(NumberIn<uint32_t>(data, 0), data.size() - 4);
  EXPECT_EQ(NumberIn<uint32_t>(data, 4), 0x4C4D5953u);
  EXPECT_EQ(NumberIn<uint32_t>(data, 8), 0xA000000Cu);
  EXPECT_EQ(NumberIn<uint16_t>(data, 14), 10);
  const absl::StatusOr<SymlinkError> decoded = DecodeSymlinkError(data);
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  EXPECT_EQ(decoded->unparsed_bytes, 10);
  EXPECT_TRUE(decoded->relative);
  EXPECT_EQ(decoded->substitute_name, error.substitute_name);
  EXPECT_EQ(decoded->print_name, error.print_name);
  ExpectNoCutIsAccepted(data, data.size(), DecodeSymlinkError);
}

TEST(SymlinkErrorTest, RejectsWhatIsMalformed) {
  const std::vector<uint8_t> good =
      BodyOf([](Writer& writer) { EncodeSymlinkError({2, false, u"ab", u"cd"}, writer); });
  const struct {
    const char* name;
    std::function<void(std::vector<uint8_t>&)> change;
  } kCases[] = {
      {"SymLinkLength beyond the data", [](auto& d) { SetNumber<uint32_t>(d, 0, 0xFFFFFFFF); }},
      {"not SYML", [](auto& d) { d[4] = 0; }},
      {"another tag", [](auto& d) { d[8] = 3; }},
      {"odd unparsed length", [](auto& d) { SetNumber<uint16_t>(d, 14, 3); }},
      {"substitute beyond the data", [](auto& d) { SetNumber<uint16_t>(d, 16, 0xFFFE); }},
      {"print too long", [](auto& d) { SetNumber<uint16_t>(d, 22, 0xFFFE); }},
      {"odd name", [](auto& d) { SetNumber<uint16_t>(d, 18, 1); }},
  };
  ASSERT_TRUE(DecodeSymlinkError(good).ok());
  for (const auto& test : kCases) {
    std::vector<uint8_t> data = good;
    test.change(data);
    EXPECT_EQ(DecodeSymlinkError(data).status().code(), absl::StatusCode::kDataLoss) << test.name;
  }
}

}  // namespace
}  // namespace dfscsi::smb::wire
