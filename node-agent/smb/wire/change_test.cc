// What only requests that change files carry, byte by byte against the specification's layouts.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "node-agent/smb/wire/break.h"
#include "node-agent/smb/wire/create.h"
#include "node-agent/smb/wire/file_information.h"
#include "node-agent/smb/wire/io.h"
#include "node-agent/smb/wire/ioctl.h"
#include "node-agent/smb/wire/test_bytes.h"

namespace dfscsi::smb::wire {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

TEST(CreateContextTest, AllocationAndAttributesOfANewFile) {
  CreateRequest request;
  request.name = u"new";
  request.allocation_bytes = 0x100000;
  request.attributes = {{.name = "user.a", .value = "1"}};
  const std::vector<uint8_t> body =
      BodyOf([&](Writer& writer) { EncodeCreateRequest(request, writer); });
  // Each record: Next, name 16 4, 0, data at 24, its length; the name padded to 8; the data.
  const std::string allocation =
      "20000000"
      "10000400"
      "00001800"
      "08000000"
      "416c5369"
      "00000000"
      "0000100000000000";
  const std::string attributes =
      "00000000"
      "10000400"
      "00001800"
      "10000000"
      "45787441"
      "00000000"
      "00000000"
      "00060100"
      "757365722e6100"
      "31";
  EXPECT_EQ(ToHex(Bytes(body).subspan(64)), allocation + attributes);
  const absl::StatusOr<CreateRequest> decoded = DecodeCreateRequest(body);
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  EXPECT_EQ(decoded->allocation_bytes, 0x100000u);
  ASSERT_EQ(decoded->attributes.size(), 1u);
  EXPECT_EQ(decoded->attributes[0].name, "user.a");
  EXPECT_EQ(decoded->attributes[0].value, "1");
}

TEST(CreateContextTest, MalformedOnesOfANewFile) {
  CreateRequest request;
  request.name = u"new";
  request.allocation_bytes = 1;
  request.attributes = {{.name = "user.a", .value = "1"}};
  const std::vector<uint8_t> good =
      BodyOf([&](Writer& writer) { EncodeCreateRequest(request, writer); });
  const struct {
    const char* name;
    size_t offset;
    uint8_t value;
  } kCases[] = {{"allocation of seven bytes", 64 + 12, 7},
                {"attribute's name beyond its record", 96 + 24 + 5, 0xFF},
                {"attribute without a name", 96 + 24 + 5, 0},
                {"attribute's value beyond its record", 96 + 24 + 6, 0xFF}};
  ASSERT_TRUE(DecodeCreateRequest(good).ok());
  for (const auto& test : kCases) {
    std::vector<uint8_t> body = good;
    body[test.offset] = test.value;
    EXPECT_EQ(DecodeCreateRequest(body).status().code(), absl::StatusCode::kDataLoss) << test.name;
  }
}

TEST(FileInformationTest, ExtendedAttributeNames) {
  const std::vector<std::string> names = {"user.a", "B"};
  const std::vector<uint8_t> input =
      BodyOf([&](Writer& writer) { EncodeExtendedAttributeNames(names, writer); });
  EXPECT_EQ(ToHex(input),
            "0c000000"
            "06757365722e6100"
            "00000000"
            "014200");
  const absl::StatusOr<std::vector<std::string>> decoded = DecodeExtendedAttributeNames(input);
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  EXPECT_EQ(*decoded, names);
  EXPECT_THAT(*DecodeExtendedAttributeNames({}), IsEmpty());
  const struct {
    const char* name;
    size_t offset;
    uint8_t value;
  } kCases[] = {{"Next not aligned", 0, 13},      {"Next beyond the end", 1, 1},
                {"name beyond its record", 4, 9}, {"no name", 4, 0},
                {"NUL in the name", 6, 0},        {"no NUL behind the name", 11, 'x'}};
  for (const auto& test : kCases) {
    std::vector<uint8_t> bad = input;
    bad[test.offset] = test.value;
    EXPECT_EQ(DecodeExtendedAttributeNames(bad).status().code(), absl::StatusCode::kDataLoss)
        << test.name;
  }
}

TEST(FileInformationTest, TimesThatAreNotTimes) {
  const BasicInformation keep{.creation_time = kTimeKeep,
                              .last_access_time = kTimeFreeze,
                              .last_write_time = kTimeThaw,
                              .change_time = 5,
                              .attributes = kAttributeReadonly};
  const std::vector<uint8_t> buffer =
      BodyOf([&](Writer& writer) { EncodeBasicInformation(keep, writer); });
  EXPECT_EQ(ToHex(buffer),
            "0000000000000000"
            "ffffffffffffffff"
            "feffffffffffffff"
            "0500000000000000"
            "01000000"
            "00000000");
}

TEST(IoctlTest, SetSparse) {
  EXPECT_EQ(ToHex(BodyOf([](Writer& writer) { EncodeSetSparse(true, writer); })), "01");
  EXPECT_EQ(ToHex(BodyOf([](Writer& writer) { EncodeSetSparse(false, writer); })), "00");
  EXPECT_TRUE(*DecodeSetSparse({}));
  EXPECT_TRUE(*DecodeSetSparse(FromHex("01")));
  EXPECT_FALSE(*DecodeSetSparse(FromHex("00")));
}

TEST(IoctlTest, DuplicateExtents) {
  const DuplicateExtents request{{0x11, 0x22}, 4096, 8192, 65536};
  const std::vector<uint8_t> input =
      BodyOf([&](Writer& writer) { EncodeDuplicateExtents(request, writer); });
  EXPECT_EQ(ToHex(input),
            "1100000000000000"
            "2200000000000000"
            "0010000000000000"
            "0020000000000000"
            "0000010000000000");
  const absl::StatusOr<DuplicateExtents> decoded = DecodeDuplicateExtents(input);
  ASSERT_TRUE(decoded.ok());
  EXPECT_EQ(decoded->source, request.source);
  EXPECT_EQ(decoded->source_offset, 4096u);
  EXPECT_EQ(decoded->target_offset, 8192u);
  EXPECT_EQ(decoded->length_bytes, 65536u);
  for (size_t n = 0; n < input.size(); ++n) {
    EXPECT_FALSE(DecodeDuplicateExtents(Bytes(input).first(n)).ok()) << n;
  }
}

TEST(LockTest, SequenceHoldsIndexAboveNumber) {
  EXPECT_EQ(LockSequence(1, 0), 0x10u);
  EXPECT_EQ(LockSequence(64, 15), 0x40Fu);
  EXPECT_EQ(LockSequence(2, 16), 0x20u);  // The number goes round, and leaves the index alone.
}

}  // namespace
}  // namespace dfscsi::smb::wire
