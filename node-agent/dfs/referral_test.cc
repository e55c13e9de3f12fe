#include "node-agent/dfs/referral.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

#include "absl/strings/escaping.h"
#include "node-agent/dfs/referral_encoder.h"
#include "node-agent/dfs/referral_request.h"

namespace dfscsi::dfs {
namespace {

using testing::ElementsAre;
using ByteVector = std::vector<uint8_t>;

ByteVector FromHex(absl::string_view hex) {
  const std::string bytes = absl::HexStringToBytes(hex);
  return ByteVector(bytes.begin(), bytes.end());
}
std::string ToHex(const ByteVector& bytes) {
  return absl::BytesToHexString(
      absl::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
}

std::vector<std::string> Targets(const Referral& referral) {
  std::vector<std::string> targets;
  for (const Target& target : referral.targets) {
    targets.push_back((target.starts_set ? "|" : "") + target.path.ToString());
  }
  return targets;
}

// Replies synthesised by hand and, where it says so, recorded from Samba.
constexpr absl::string_view kV4TwoSets =
    "0c0003000600000004002200000004002c010000660066007400000000000000000000000000000000000400220000"
    "0000"
    "002c010000440044005c000000000000000000000000000000000004002200000004002c0100002200220044000000"
    "0000"
    "0000000000000000000000005c0064005c006e005c006c0000005c0061005c00730000005c0062005c00730000005c"
    "0063"
    "005c0073000000";
constexpr absl::string_view kV3Link =
    "0c00020002000000030022000000000058020000440044005200000000000000000000000000000000000300220000"
    "00000"
    "058020000220022003e00000000000000000000000000000000005c0064005c006e005c006c0000005c0061005c007"
    "3005c"
    "00700000005c0062005c0073000000";
constexpr absl::string_view kV3Interlink =
    "0c00010001000000030022000000000058020000220022003000000000000000000000000000000000005c0064005c"
    "006e0"
    "05c006c0000005c0064006f006d005c006e0073000000";
constexpr absl::string_view kV2Root =
    "08000200030000000200160001000000000000002c0100002c002c0036000200160001000000000000002c01000016"
    "00160"
    "02c005c0064005c006e0000005c00720031005c006e0000005c00720032005c006e000000";
constexpr absl::string_view kV1 = "0c0001000200000001001200000000005c0061005c0073000000";
constexpr absl::string_view kRecordedDomain =
    "0000020000000000030022000000020058020000440000000000000000000000000000000000000000000300220000"
    "00020"
    "0580200002c0000000000000000000000000000000000000000005c004c004100420000005c006c00610062002e007"
    "40065"
    "00730074000000";
constexpr absl::string_view kRecordedDc =
    "0000010000000000030022000000020058020000220001003400000000000000000000000000000000006c00610062"
    "002e0"
    "0740065007300740000005c006400630031002e006c00610062002e0074006500730074000000";
constexpr absl::string_view kRecordedNetlogon =
    "1a0001000200000004002200000004008403000022003e005a00000000000000000000000000000000005c004c0041"
    "00420"
    "05c004e00450054004c004f0047004f004e0000005c004c00410042005c004e00450054004c004f0047004f004e000"
    "0005c"
    "004400430031005c004e00450054004c004f0047004f004e000000";
constexpr absl::string_view kRecordedRoot =
    "1a0001000300000003002200010000005802000022003e005a00000000000000000000000000000000005c006c0061"
    "00620"
    "02e0074006500730074005c0064006600730000005c006c00610062002e0074006500730074005c006400660073000"
    "0005c"
    "006c00610062002e0074006500730074005c006400660073000000";

TEST(ReferralRequestTest, Plain) {
  EXPECT_EQ(ToHex(EncodeReferralRequest(u"\\d\\n\\l")), "04005c0064005c006e005c006c000000");
  EXPECT_EQ(ToHex(EncodeReferralRequest(u"")), "04000000");
}

TEST(ReferralRequestTest, B11_ExWithSite) {
  EXPECT_EQ(ToHex(EncodeReferralRequestEx(u"\\d\\n\\l", u"Site1")),
            "040001001e0000000e005c0064005c006e005c006c0000000c00530069007400650031000000");
}

struct GoodReply {
  std::string name;
  absl::string_view hex;
  std::u16string_view request;
  int version;
  size_t consumed;
  bool root, interlink, failback;
  absl::Duration ttl;
  std::vector<std::string> targets;  // "|" before the first of a set.
};

class GoodReplyTest : public testing::TestWithParam<GoodReply> {};

TEST_P(GoodReplyTest, Decodes) {
  const GoodReply& c = GetParam();
  const absl::StatusOr<Referral> referral = DecodeReferral(FromHex(c.hex), c.request);
  ASSERT_TRUE(referral.ok()) << referral.status();
  EXPECT_EQ(referral->version, c.version);
  EXPECT_EQ(referral->consumed_components, c.consumed);
  EXPECT_EQ(referral->root, c.root);
  EXPECT_EQ(referral->interlink, c.interlink);
  EXPECT_EQ(referral->target_failback, c.failback);
  EXPECT_EQ(referral->ttl, c.ttl);
  EXPECT_EQ(Targets(*referral), c.targets);
  EXPECT_EQ(referral->dropped_targets, 0);
}

INSTANTIATE_TEST_SUITE_P(
    Referral, GoodReplyTest,
    testing::ValuesIn<GoodReply>({
        {"V4TwoSets",
         kV4TwoSets,
         u"\\d\\n\\l\\rest",
         4,
         3,
         false,
         false,
         true,
         absl::Seconds(300),
         {"|//a/s", "//b/s", "|//c/s"}},
        {"V3Link",
         kV3Link,
         u"\\d\\n\\l",
         3,
         3,
         false,
         false,
         false,
         absl::Seconds(600),
         {"|//a/s/p", "//b/s"}},
        {"V3Interlink",
         kV3Interlink,
         u"\\D\\N\\L\\x\\y",
         3,
         3,
         false,
         true,
         false,
         absl::Seconds(600),
         {"|//dom/ns"}},
        {"V2Root",
         kV2Root,
         u"\\d\\n",
         2,
         2,
         true,
         false,
         false,
         absl::Seconds(300),
         {"|//r1/n", "//r2/n"}},
        {"V1", kV1, u"\\d\\n\\l", 1, 3, false, false, false, absl::Seconds(300), {"|//a/s"}},
        {"RecordedNetlogonV4",
         kRecordedNetlogon,
         u"\\LAB\\NETLOGON",
         4,
         2,
         false,
         false,
         false,
         absl::Seconds(900),
         {"|//DC1/NETLOGON"}},
        {"RecordedRootV3",
         kRecordedRoot,
         u"\\lab.test\\dfs",
         3,
         2,
         true,
         false,
         false,
         absl::Seconds(600),
         {"|//lab.test/dfs"}},
    }),
    [](const auto& info) { return info.param.name; });

TEST(NameListTest, B02_RecordedDomains) {
  const absl::StatusOr<NameListReferral> list = DecodeNameListReferral(FromHex(kRecordedDomain));
  ASSERT_TRUE(list.ok()) << list.status();
  EXPECT_EQ(list->ttl, absl::Seconds(600));
  ASSERT_EQ(list->entries.size(), 2u);
  EXPECT_EQ(list->entries[0].name, "LAB");
  EXPECT_EQ(list->entries[1].name, "lab.test");
  EXPECT_TRUE(list->entries[0].expanded.empty());
}

TEST(NameListTest, B03_RecordedControllersWithAndWithoutBackslash) {
  const absl::StatusOr<NameListReferral> list = DecodeNameListReferral(FromHex(kRecordedDc));
  ASSERT_TRUE(list.ok()) << list.status();
  ASSERT_EQ(list->entries.size(), 1u);
  EXPECT_EQ(list->entries[0].name, "lab.test");
  EXPECT_THAT(list->entries[0].expanded, ElementsAre("dc1.lab.test"));
}

TEST(NameListTest, EncoderAndDecoderAgree) {
  NameListResponse response;
  response.entries = {{u"\\a.test", {u"\\dc1.a.test", u"\\dc2.a.test"}}, {u"b", {}}};
  const absl::StatusOr<NameListReferral> list =
      DecodeNameListReferral(EncodeNameListResponse(response));
  ASSERT_TRUE(list.ok()) << list.status();
  ASSERT_EQ(list->entries.size(), 2u);
  EXPECT_THAT(list->entries[0].expanded, ElementsAre("dc1.a.test", "dc2.a.test"));
  EXPECT_EQ(list->entries[1].name, "b");
}

TEST(ReferralEncoderTest, WritesTheKnownReplies) {
  ReferralResponse v4{.version = 4,
                      .path_consumed_bytes = 12,
                      .target_failback = true,
                      .ttl_seconds = 300,
                      .dfs_path = u"\\d\\n\\l",
                      .targets = {{u"\\a\\s", true}, {u"\\b\\s"}, {u"\\c\\s", true}}};
  EXPECT_EQ(ToHex(EncodeReferralResponse(v4)), kV4TwoSets);
  ReferralResponse v3{.version = 3,
                      .path_consumed_bytes = 12,
                      .dfs_path = u"\\d\\n\\l",
                      .targets = {{u"\\a\\s\\p"}, {u"\\b\\s"}}};
  EXPECT_EQ(ToHex(EncodeReferralResponse(v3)), kV3Link);
  ReferralResponse v2{.version = 2,
                      .path_consumed_bytes = 8,
                      .referral_servers = true,
                      .root = true,
                      .ttl_seconds = 300,
                      .dfs_path = u"\\d\\n",
                      .targets = {{u"\\r1\\n"}, {u"\\r2\\n"}}};
  EXPECT_EQ(ToHex(EncodeReferralResponse(v2)), kV2Root);
  ReferralResponse v1{.version = 1, .path_consumed_bytes = 12, .targets = {{u"\\a\\s"}}};
  EXPECT_EQ(ToHex(EncodeReferralResponse(v1)), kV1);
}

// --- G: malformed and hostile replies. A case is named by its ID. ---

// A valid V3 (or other) reply to change one thing in.
ReferralResponse OneTarget(uint16_t version = 3) {
  return {.version = version,
          .path_consumed_bytes = 12,
          .dfs_path = u"\\d\\n\\l",
          .targets = {{u"\\a\\s"}}};
}
constexpr std::u16string_view kRequest = u"\\d\\n\\l\\x";

absl::Status Decode(const ByteVector& reply) { return DecodeReferral(reply, kRequest).status(); }
#define EXPECT_MALFORMED(reply) EXPECT_EQ(Decode(reply).code(), absl::StatusCode::kDataLoss)

void Put16(ByteVector& bytes, size_t at, uint16_t value) {
  ASSERT_LE(at + 2, bytes.size());
  bytes[at] = value & 0xFF;
  bytes[at + 1] = value >> 8;
}

struct MalformedCase {
  std::string name;
  uint16_t version;
  size_t at;  // Where `value` replaces a u16 of the valid reply.
  uint16_t value;
};
// Offsets in the reply: the header, then the first entry's fields.
constexpr size_t kAtConsumed = 0, kAtCount = 2, kAtVersion = 8, kAtSize = 10, kAtFlags = 14;
constexpr size_t kAtV2Path = 24, kAtV2Address = 28, kAtV3Path = 20, kAtV3Address = 24;

class MalformedTest : public testing::TestWithParam<MalformedCase> {};

TEST_P(MalformedTest, IsRefused) {
  const MalformedCase& c = GetParam();
  ByteVector reply = EncodeReferralResponse(OneTarget(c.version));
  ASSERT_TRUE(Decode(reply).ok());
  Put16(reply, c.at, c.value);
  EXPECT_MALFORMED(reply);
}

std::vector<MalformedCase> MalformedCases() {
  std::vector<MalformedCase> cases = {
      {"G02_CountBeyondBody", 3, kAtCount, 2},
      {"G02_Count65535", 3, kAtCount, 65535},
      {"G07_PathConsumed0", 3, kAtConsumed, 0},
      {"G07_PathConsumedOdd", 3, kAtConsumed, 11},
      {"G07_PathConsumedInsideComponent", 3, kAtConsumed, 10},
      {"G07_PathConsumedOnlyHost", 3, kAtConsumed, 4},
      {"G07_PathConsumedBeyondRequest", 3, kAtConsumed, 18},
      {"G07_PathConsumedFFFF", 3, kAtConsumed, 0xFFFF},
      {"G07_PathConsumedFFFE", 3, kAtConsumed, 0xFFFE},
      {"G08_Version0", 3, kAtVersion, 0},
      {"G08_Version5", 3, kAtVersion, 5},
      {"G08_VersionFFFF", 3, kAtVersion, 0xFFFF},
      {"G11_NameListInRootReply", 3, kAtFlags, 2},
      {"G11_NameListInV4Reply", 4, kAtFlags, 2},
  };
  for (const uint16_t version : {1, 2, 3, 4}) {
    const std::string v = "_V" + std::to_string(version);
    const uint16_t entry_bytes = version == 1 ? 18 : version == 2 ? 22 : 34;
    cases.push_back({"G04_Size0" + v, version, kAtSize, 0});
    cases.push_back({"G04_SizeBelowFixed" + v, version, kAtSize,
                     static_cast<uint16_t>(version == 1 ? 6 : entry_bytes - 2)});
    cases.push_back({"G04_SizeBeyondRest" + v, version, kAtSize, 0x7FFE});
    cases.push_back({"G04_SizeFFFF" + v, version, kAtSize, 0xFFFF});
    cases.push_back({"G04_SizeOdd" + v, version, kAtSize, static_cast<uint16_t>(entry_bytes + 1)});
    if (version == 1) continue;
    ReferralResponse response = OneTarget(version);
    const size_t length = EncodeReferralResponse(response).size();
    for (const bool address : {false, true}) {
      const size_t at = version == 2 ? (address ? kAtV2Address : kAtV2Path)
                                     : (address ? kAtV3Address : kAtV3Path);
      const std::string field = v + (address ? "_Address" : "_Path");
      cases.push_back({"G05_Offset0" + field, version, at, 0});
      cases.push_back({"G05_Offset1" + field, version, at, 1});
      cases.push_back(
          {"G05_OffsetInFields" + field, version, at, static_cast<uint16_t>(entry_bytes - 1)});
      cases.push_back({"G05_OffsetAtEnd" + field, version, at, static_cast<uint16_t>(length - 8)});
      cases.push_back(
          {"G05_OffsetLastByte" + field, version, at, static_cast<uint16_t>(length - 9)});
      cases.push_back({"G05_OffsetFFFF" + field, version, at, 0xFFFF});
    }
  }
  return cases;
}

INSTANTIATE_TEST_SUITE_P(Referral, MalformedTest, testing::ValuesIn(MalformedCases()),
                         [](const auto& info) { return info.param.name; });

TEST(ReferralTest, G01_ShorterThanItsHeader) {
  for (size_t length = 0; length < 8; ++length) EXPECT_MALFORMED(ByteVector(length, 0));
}

TEST(ReferralTest, G02_CountWithoutEntries) {
  EXPECT_MALFORMED(FromHex("0c00ffff02000000"));
  EXPECT_MALFORMED(FromHex("0c00010002000000"));
  // More than anybody needs, though the bytes are there.
  ReferralResponse response = OneTarget();
  response.targets.resize(1025, {u"\\a\\s"});
  EXPECT_MALFORMED(EncodeReferralResponse(response));
}

TEST(ReferralTest, G03_TruncatedAtEveryByte) {
  for (const absl::string_view hex : {kV4TwoSets, kV3Link, kV2Root, kV1, kRecordedRoot}) {
    const ByteVector reply = FromHex(hex);
    for (size_t length = 0; length < reply.size(); ++length) {
      ByteVector cut(reply.begin(), reply.begin() + length);
      const std::u16string_view request = hex == kV2Root         ? u"\\d\\n"
                                          : hex == kRecordedRoot ? u"\\lab.test\\dfs"
                                                                 : kRequest;
      EXPECT_EQ(DecodeReferral(cut, request).status().code(), absl::StatusCode::kDataLoss)
          << length << " of " << hex;
    }
  }
  const ByteVector list = FromHex(kRecordedDc);
  for (size_t length = 0; length < list.size(); ++length) {
    EXPECT_FALSE(DecodeNameListReferral({list.data(), length}).ok()) << length;
  }
}

TEST(ReferralTest, G06_StringsWithoutEnd) {
  ByteVector reply = EncodeReferralResponse(OneTarget());
  reply.resize(reply.size() - 2);
  EXPECT_MALFORMED(reply);
  reply.push_back(0);  // Half a NUL on the last, odd byte.
  EXPECT_MALFORMED(reply);
  reply.push_back(0);
  EXPECT_TRUE(Decode(reply).ok());
}

TEST(ReferralTest, G06_AStringAtAnOddAddressIsLegal) {
  ByteVector reply = EncodeReferralResponse(OneTarget());
  // One byte between the entry and its strings.
  reply.insert(reply.begin() + 42, 0x41);
  Put16(reply, kAtV3Path, 35);
  Put16(reply, kAtV3Address, 35 + 14);
  const absl::StatusOr<Referral> referral = DecodeReferral(reply, kRequest);
  ASSERT_TRUE(referral.ok()) << referral.status();
  EXPECT_THAT(Targets(*referral), ElementsAre("|//a/s"));
}

TEST(ReferralTest, G07_PathConsumedCountsUnitsNotCharacters) {
  ReferralResponse response = OneTarget();
  const std::u16string link = u"\\h\\s\\ünïcødé-链接\\😀";
  response.path_consumed_bytes = link.size() * 2;
  const absl::StatusOr<Referral> referral =
      DecodeReferral(EncodeReferralResponse(response), link + u"\\rest\\x");
  ASSERT_TRUE(referral.ok()) << referral.status();
  EXPECT_EQ(referral->consumed_components, 4u);
}

TEST(ReferralTest, G08_AHigherVersionThanAskedForIsAccepted) {
  // Samba answers V2 to a request of level 1: nothing in the decoder knows what was asked.
  for (const uint16_t version : {1, 2, 3, 4}) {
    const absl::StatusOr<Referral> referral =
        DecodeReferral(EncodeReferralResponse(OneTarget(version)), kRequest);
    ASSERT_TRUE(referral.ok()) << referral.status();
    EXPECT_EQ(referral->version, version);
  }
}

TEST(ReferralTest, G09_MixedVersions) {
  ReferralResponse response = OneTarget();
  response.targets.push_back({u"\\b\\s"});
  ByteVector reply = EncodeReferralResponse(response);
  Put16(reply, 8 + 34, 4);
  EXPECT_MALFORMED(reply);
}

TEST(ReferralTest, G10_V1NameWithoutEndInsideItsEntry) {
  ByteVector reply = EncodeReferralResponse(OneTarget(1));
  Put16(reply, kAtSize, 16);  // The NUL lies behind the entry now.
  EXPECT_MALFORMED(reply);
}

TEST(ReferralTest, G11_FlagsOfV2AreNotLookedAt) {
  ByteVector reply = EncodeReferralResponse(OneTarget(2));
  Put16(reply, kAtFlags, 0xFFFF);
  EXPECT_TRUE(Decode(reply).ok());
}

TEST(ReferralTest, G12_ExpandedNamesAreBounded) {
  ByteVector reply = FromHex(kRecordedDc);
  Put16(reply, 8 + 14, 65535);
  EXPECT_EQ(DecodeNameListReferral(reply).status().code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(DecodeNameListReferral(FromHex(kV3Link)).status().code(), absl::StatusCode::kDataLoss);
}

TEST(ReferralTest, G13_BadTargetsAreDroppedAndGoodOnesKept) {
  const std::vector<std::u16string> bad = {u"",
                                           u"\\",
                                           u"\\h",
                                           u"\\h\\",
                                           u"h\\s",
                                           u"\\nobackslash",
                                           u"\\h\\s\\..\\..",
                                           u"\\h/s",
                                           u"\\h\\s:x",
                                           u"\\h\\*",
                                           u"\\h\\s\\" + std::u16string(1, char16_t{0xD800}),
                                           u"\\h\\IPC$"};
  for (const std::u16string& address : bad) {
    ReferralResponse response = OneTarget();
    response.targets = {{address}, {u"\\good\\s"}};
    absl::StatusOr<Referral> referral = DecodeReferral(EncodeReferralResponse(response), kRequest);
    ASSERT_TRUE(referral.ok()) << referral.status();
    // The first target that is left starts the first set.
    EXPECT_THAT(Targets(*referral), ElementsAre("|//good/s"));
    EXPECT_EQ(referral->dropped_targets, 1);

    response.targets = {{address}};
    referral = DecodeReferral(EncodeReferralResponse(response), kRequest);
    ASSERT_TRUE(referral.ok());
    EXPECT_TRUE(referral->targets.empty());
    EXPECT_EQ(referral->dropped_targets, 1);
  }
}

TEST(ReferralTest, G13_AHugeTargetIsDropped) {
  ReferralResponse response = OneTarget();
  response.targets = {{u"\\good\\s"}, {u"\\h\\s\\" + std::u16string(30000, u'x')}};
  const absl::StatusOr<Referral> referral =
      DecodeReferral(EncodeReferralResponse(response), kRequest);
  ASSERT_TRUE(referral.ok()) << referral.status();
  EXPECT_THAT(Targets(*referral), ElementsAre("|//good/s"));
}

TEST(ReferralTest, G14_IdenticalTargetsAreOne) {
  ReferralResponse response = OneTarget();
  response.targets.clear();
  for (int i = 0; i < 1000; ++i) response.targets.push_back({i % 2 == 0 ? u"\\a\\s" : u"\\A\\S"});
  const absl::StatusOr<Referral> referral =
      DecodeReferral(EncodeReferralResponse(response), kRequest);
  ASSERT_TRUE(referral.ok()) << referral.status();
  EXPECT_THAT(Targets(*referral), ElementsAre("|//a/s"));
  EXPECT_EQ(referral->dropped_targets, 999);
}

TEST(ReferralTest, G14_DistinctTargetsAreCapped) {
  ReferralResponse response = OneTarget();
  response.targets.clear();
  for (int i = 0; i < 1000; ++i) {
    const std::string host = "h" + std::to_string(i);
    response.targets.push_back({u"\\" + std::u16string(host.begin(), host.end()) + u"\\s"});
  }
  const absl::StatusOr<Referral> referral =
      DecodeReferral(EncodeReferralResponse(response), kRequest);
  ASSERT_TRUE(referral.ok()) << referral.status();
  EXPECT_EQ(referral->targets.size(), kMaxTargets);
  EXPECT_EQ(referral->dropped_targets, 1000 - static_cast<int>(kMaxTargets));
}

TEST(ReferralTest, G14_OverlappingStringsAreRefused) {
  // 600 entries whose addresses are tails of one long string: a quadratic amount of work.
  ReferralResponse response = OneTarget();
  response.targets.assign(600, {u""});
  ByteVector reply = EncodeReferralResponse(response);
  const size_t strings = reply.size();
  for (int i = 0; i < 2000; ++i) {
    reply.push_back('x');
    reply.push_back(0);
  }
  reply.push_back(0);
  reply.push_back(0);
  for (size_t i = 0; i < 600; ++i) {
    const size_t entry = 8 + i * 34;
    Put16(reply, entry + 16, static_cast<uint16_t>(strings + i * 2 - entry));
  }
  EXPECT_MALFORMED(reply);
}

TEST(ReferralTest, G15_ATargetThatIsTheRequestIsFine) {
  ReferralResponse response = OneTarget();
  response.targets = {{u"\\d\\n\\l"}};
  EXPECT_THAT(Targets(*DecodeReferral(EncodeReferralResponse(response), kRequest)),
              ElementsAre("|//d/n/l"));
}

TEST(ReferralTest, G18_BoundariesMissingOnTheFirstOrSetOnAll) {
  ReferralResponse response = OneTarget(4);
  response.targets = {{u"\\a\\s"}, {u"\\b\\s"}};
  EXPECT_THAT(Targets(*DecodeReferral(EncodeReferralResponse(response), kRequest)),
              ElementsAre("|//a/s", "//b/s"));
  response.targets = {{u"\\a\\s", true}, {u"\\b\\s", true}};
  EXPECT_THAT(Targets(*DecodeReferral(EncodeReferralResponse(response), kRequest)),
              ElementsAre("|//a/s", "|//b/s"));
  // A boundary on a dropped target passes to the next one.
  response.targets = {{u"\\a\\s", true}, {u"\\bad", true}, {u"\\b\\s"}, {u"\\c\\s"}};
  EXPECT_THAT(Targets(*DecodeReferral(EncodeReferralResponse(response), kRequest)),
              ElementsAre("|//a/s", "|//b/s", "//c/s"));
}

TEST(ReferralTest, G18_BoundariesAndFailbackExistInV4Only) {
  ReferralResponse response = OneTarget(3);
  response.target_failback = true;
  response.targets = {{u"\\a\\s"}, {u"\\b\\s"}};
  ByteVector reply = EncodeReferralResponse(response);
  Put16(reply, 8 + 34 + 6, 4);
  const absl::StatusOr<Referral> referral = DecodeReferral(reply, kRequest);
  ASSERT_TRUE(referral.ok());
  EXPECT_THAT(Targets(*referral), ElementsAre("|//a/s", "//b/s"));
  EXPECT_FALSE(referral->target_failback);
}

TEST(ReferralTest, G19_NeitherReferralNorStorageServersCountsAsStorage) {
  ReferralResponse response = OneTarget();
  response.storage_servers = false;
  const absl::StatusOr<Referral> referral =
      DecodeReferral(EncodeReferralResponse(response), kRequest);
  ASSERT_TRUE(referral.ok());
  EXPECT_FALSE(referral->interlink);
  EXPECT_THAT(Targets(*referral), ElementsAre("|//a/s"));
}

// A16: Samba's empty "msdfs:" link.
TEST(ReferralTest, A16_NoTargetsIsNotAnError) {
  const absl::StatusOr<Referral> referral = DecodeReferral(FromHex("0c00000002000000"), kRequest);
  ASSERT_TRUE(referral.ok()) << referral.status();
  EXPECT_TRUE(referral->targets.empty());
  EXPECT_EQ(referral->dropped_targets, 0);
  EXPECT_EQ(referral->consumed_components, 3u);
  EXPECT_EQ(DecodeReferral(FromHex("0000000002000000"), kRequest)->consumed_components, 4u);
  EXPECT_MALFORMED(FromHex("0d00000002000000"));
}

TEST(ReferralTest, TheSmallestTtlCounts) {
  ByteVector reply = FromHex(kV3Link);
  Put16(reply, 8 + 34 + 8, 30);
  EXPECT_EQ(DecodeReferral(reply, kRequest)->ttl, absl::Seconds(30));
}

// E02: what the wire can hold.
TEST(ReferralTest, E02_ExtremeTtls) {
  for (const uint32_t ttl : {0u, 1u, 60u, 1u << 31, 0xFFFFFFFFu}) {
    ReferralResponse response = OneTarget();
    response.ttl_seconds = ttl;
    EXPECT_EQ(DecodeReferral(EncodeReferralResponse(response), kRequest)->ttl, absl::Seconds(ttl));
  }
}

TEST(ReferralTest, A28_TwentyLongTargets) {
  ReferralResponse response = OneTarget();
  response.targets.clear();
  for (int i = 0; i < 20; ++i) {
    response.targets.push_back(
        {u"\\h" + std::u16string(1, u'a' + i) + u"\\share\\" + std::u16string(90, u'p')});
  }
  EXPECT_EQ(DecodeReferral(EncodeReferralResponse(response), kRequest)->targets.size(), 20u);
}

}  // namespace
}  // namespace dfscsi::dfs
