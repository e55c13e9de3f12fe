#include "node-agent/smb/wire/header.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "node-agent/smb/wire/test_bytes.h"

namespace dfscsi::smb::wire {
namespace {

// From vectors.txt of the reference implementation: a signed ECHO request.
constexpr char kEcho[] =
    "fe534d4240000100000000000d00010008000000000000000700000000000000fffe00000500000088776655443322"
    "110000000000000000000000000000000004000000";

Header EchoHeader() {
  Header header;
  header.credit_charge = 1;
  header.command = Command::kEcho;
  header.credits = 1;
  header.flags = kFlagSigned;
  header.message_id = 7;
  header.tree_id = 5;
  header.session_id = 0x1122334455667788;
  return header;
}

TEST(HeaderTest, EncodesTheReferenceEcho) {
  std::vector<uint8_t> frame;
  Writer writer(&frame);
  EncodeHeader(EchoHeader(), writer);
  writer.U16(4);
  writer.U16(0);
  EXPECT_EQ(ToHex(frame), kEcho);
  EXPECT_EQ(writer.HeaderOffset(), kHeaderSize + 4);
}

TEST(HeaderTest, DecodesTheReferenceEcho) {
  const std::vector<uint8_t> frame = FromHex(kEcho);
  const absl::StatusOr<Header> header = DecodeHeader(frame);
  ASSERT_TRUE(header.ok()) << header.status();
  EXPECT_EQ(header->command, Command::kEcho);
  EXPECT_EQ(header->message_id, 7u);
  EXPECT_EQ(header->tree_id, 5u);
  EXPECT_EQ(header->session_id, 0x1122334455667788u);
  EXPECT_TRUE(header->Has(kFlagSigned));
  EXPECT_EQ(header->credits, 1);
  EXPECT_EQ(header->credit_charge, 1);
}

TEST(HeaderTest, AsyncIdTakesThePlaceOfTheTreeId) {
  Header header;
  header.flags = kFlagResponse | kFlagAsync;
  header.status = NtStatus::kPending;
  header.async_id = 0x0102030405060708;
  header.tree_id = 99;
  std::vector<uint8_t> frame;
  Writer writer(&frame);
  EncodeHeader(header, writer);
  EXPECT_EQ(NumberIn<uint64_t>(frame, 32), 0x0102030405060708u);
  const absl::StatusOr<Header> decoded = DecodeHeader(frame);
  ASSERT_TRUE(decoded.ok());
  EXPECT_EQ(decoded->async_id, header.async_id);
  EXPECT_EQ(decoded->tree_id, 0u);
  EXPECT_TRUE(IsInterim(*decoded));
}

TEST(HeaderTest, RequestsHaveAChannelSequenceInThePlaceOfTheStatus) {
  Header header;
  header.channel_sequence = 3;
  header.status = NtStatus::kAccessDenied;
  std::vector<uint8_t> frame;
  Writer writer(&frame);
  EncodeHeader(header, writer);
  EXPECT_EQ(NumberIn<uint32_t>(frame, 8), 3u);
  EXPECT_EQ(DecodeHeader(frame)->channel_sequence, 3);
  EXPECT_EQ(DecodeHeader(frame)->status, NtStatus::kSuccess);
}

TEST(HeaderTest, RejectsWhatIsNotAHeader) {
  std::vector<uint8_t> frame = FromHex(kEcho);
  for (size_t size = 0; size < kHeaderSize; ++size) {
    EXPECT_EQ(DecodeHeader(Bytes(frame).first(size)).status().code(), absl::StatusCode::kDataLoss);
  }
  std::vector<uint8_t> wrong = frame;
  wrong[0] = 0xFD;
  EXPECT_EQ(DecodeHeader(wrong).status().code(), absl::StatusCode::kDataLoss);
  wrong = frame;
  wrong[4] = 65;
  EXPECT_EQ(DecodeHeader(wrong).status().code(), absl::StatusCode::kDataLoss);
}

// A frame of `count` ECHO requests, chained.
std::vector<uint8_t> Compound(int count) {
  std::vector<uint8_t> frame;
  for (int i = 0; i < count; ++i) {
    const size_t start = frame.size();
    Header header = EchoHeader();
    header.message_id = 7 + i;
    Writer writer(&frame);
    EncodeHeader(header, writer);
    writer.U32(4);
    if (i + 1 == count) break;
    writer.AlignFromHeader(8);
    PatchNextCommand(absl::MakeSpan(frame).subspan(start), frame.size() - start);
  }
  return frame;
}

TEST(PartReaderTest, SplitsACompound) {
  const std::vector<uint8_t> frame = Compound(3);
  PartReader parts(frame);
  std::vector<uint64_t> ids;
  std::vector<size_t> sizes;
  while (!parts.done()) {
    const absl::StatusOr<Part> part = parts.Next();
    ASSERT_TRUE(part.ok()) << part.status();
    ids.push_back(part->header.message_id);
    sizes.push_back(part->message.size());
    EXPECT_EQ(part->message.size(), part->body.size() + kHeaderSize);
  }
  EXPECT_THAT(ids, testing::ElementsAre(7, 8, 9));
  EXPECT_THAT(sizes, testing::ElementsAre(72, 72, 68));  // Padding belongs to its part.
}

TEST(PartReaderTest, AFrameHasAtLeastOnePart) {
  PartReader parts((Bytes()));
  EXPECT_FALSE(parts.done());
  EXPECT_FALSE(parts.Next().ok());
  EXPECT_TRUE(parts.done());
}

TEST(PartReaderTest, RejectsNextCommandThatLeadsAstray) {
  constexpr uint32_t kBad[] = {1, 8, 64, 66, 73, 76, 144, 0x80000000, 0xFFFFFFF8, 0xFFFFFFFF};
  for (const uint32_t next : kBad) {
    std::vector<uint8_t> frame = Compound(2);  // 72 + 68 bytes.
    PatchNextCommand(absl::MakeSpan(frame), next);
    PartReader parts(frame);
    bool failed = false;
    while (!parts.done()) failed |= !parts.Next().ok();
    EXPECT_TRUE(failed) << next;
  }
}

TEST(PartReaderTest, RejectsAPartWithoutABody) {
  std::vector<uint8_t> frame = Compound(1);
  for (const size_t size : {kHeaderSize + 1, kHeaderSize}) {
    frame.resize(size);
    PartReader parts(frame);
    EXPECT_FALSE(parts.Next().ok()) << size;
  }
}

TEST(PartReaderTest, TheShortestBodyIsSetInfosResponse) {
  std::vector<uint8_t> frame;
  Writer writer(&frame);
  EncodeHeader(EchoHeader(), writer);
  writer.U16(2);
  PartReader parts(frame);
  EXPECT_TRUE(parts.Next().ok());
  EXPECT_TRUE(parts.done());
}

TEST(CheckResponseTest, AcceptsOnlyTheAnswerToItsRequest) {
  const SentRequest sent = {Command::kRead, 7, 0x11, 5, std::nullopt};
  Header good;
  good.flags = kFlagResponse;
  good.command = Command::kRead;
  good.message_id = 7;
  good.session_id = 0x11;
  good.tree_id = 5;
  EXPECT_TRUE(CheckResponse(good, sent).ok());

  const struct {
    const char* name;
    std::function<void(Header&)> change;
  } kCases[] = {
      {"a request", [](Header& header) { header.flags = 0; }},
      {"other MessageId", [](Header& header) { header.message_id = 8; }},
      {"other Command", [](Header& header) { header.command = Command::kWrite; }},
      {"other SessionId", [](Header& header) { header.session_id = 0; }},
      {"other TreeId", [](Header& header) { header.tree_id = 6; }},
      {"PENDING, not async", [](Header& header) { header.status = NtStatus::kPending; }},
      {"async with id 0", [](Header& header) { header.flags |= kFlagAsync; }},
  };
  for (const auto& test : kCases) {
    Header header = good;
    test.change(header);
    EXPECT_EQ(CheckResponse(header, sent).code(), absl::StatusCode::kDataLoss) << test.name;
  }
}

TEST(CheckResponseTest, TheFinalResponseRepeatsTheAsyncId) {
  SentRequest sent = {Command::kLock, 7, 0x11, 5, 42};
  Header header;
  header.flags = kFlagResponse | kFlagAsync;
  header.command = Command::kLock;
  header.message_id = 7;
  header.session_id = 0x11;
  header.async_id = 42;
  EXPECT_TRUE(CheckResponse(header, sent).ok());
  header.async_id = 43;
  EXPECT_FALSE(CheckResponse(header, sent).ok());
}

TEST(CheckResponseTest, CommandsThatAssignIdsMayAnswerWithNewOnes) {
  Header header;
  header.flags = kFlagResponse;
  header.command = Command::kSessionSetup;
  header.session_id = 0x77;
  EXPECT_TRUE(CheckResponse(header, {Command::kSessionSetup, 0, 0, 0, {}}).ok());
  header.command = Command::kTreeConnect;
  header.tree_id = 9;
  EXPECT_TRUE(CheckResponse(header, {Command::kTreeConnect, 0, 0x77, 0, {}}).ok());
  EXPECT_FALSE(CheckResponse(header, {Command::kTreeConnect, 0, 0x78, 0, {}}).ok());
}

TEST(HasOwnBodyTest, FollowsTheTableOfSuccessBodies) {
  const std::vector<uint8_t> ioctl = {49, 0, 0, 0};
  const std::vector<uint8_t> other = {9, 0, 0, 0};
  const struct {
    Command command;
    NtStatus status;
    Bytes body;
    bool own;
  } kCases[] = {
      {Command::kCreate, NtStatus::kSuccess, other, true},
      {Command::kCreate, NtStatus::kAccessDenied, other, false},
      {Command::kCreate, NtStatus::kStoppedOnSymlink, other, false},
      {Command::kSessionSetup, NtStatus::kMoreProcessingRequired, other, true},
      {Command::kCreate, NtStatus::kMoreProcessingRequired, other, false},
      {Command::kQueryInfo, NtStatus::kBufferOverflow, other, true},
      {Command::kRead, NtStatus::kBufferOverflow, other, true},
      {Command::kRead, NtStatus::kEndOfFile, other, false},
      {Command::kIoctl, NtStatus::kBufferOverflow, ioctl, true},
      {Command::kIoctl, NtStatus::kInvalidParameter, ioctl, true},
      {Command::kIoctl, NtStatus::kInvalidParameter, other, false},
      {Command::kChangeNotify, NtStatus::kNotifyEnumDir, other, true},
      {Command::kQueryDirectory, NtStatus::kNoMoreFiles, other, false},
  };
  for (const auto& test : kCases) {
    Header header;
    header.command = test.command;
    header.status = test.status;
    EXPECT_EQ(HasOwnBody(header, test.body), test.own)
        << CommandName(test.command) << " " << test.status;
  }
}

TEST(FramePrefixTest, IsBigEndian24Bits) {
  EXPECT_EQ(ToHex(FramePrefix(0x012345)), "00012345");
  EXPECT_EQ(*DecodeFramePrefix(FromHex("00012345")), 0x012345u);
  EXPECT_EQ(*DecodeFramePrefix(FromHex("00ffffff")), kMaxFrameSize);
  EXPECT_FALSE(DecodeFramePrefix(FromHex("01000000")).ok());
  EXPECT_FALSE(DecodeFramePrefix(FromHex("85000000")).ok());  // NetBIOS keep-alive: not on 445.
  EXPECT_FALSE(DecodeFramePrefix(FromHex("000001")).ok());
  EXPECT_FALSE(DecodeFramePrefix(FromHex("00012345"), 0x012344).ok());
}

TEST(TransformHeaderTest, RoundTripsAndChecksTheSize) {
  TransformHeader header;
  header.signature.fill(0xAB);
  header.nonce[0] = 1;
  header.original_size = 68;
  header.session_id = 0x1122334455667788;
  std::vector<uint8_t> frame(kTransformHeaderSize + 68);
  EncodeTransformHeader(header, absl::MakeSpan(frame));
  EXPECT_EQ(ToHex(Bytes(frame).subspan(0, 4)), "fd534d42");
  EXPECT_EQ(ToHex(Bytes(frame).subspan(36, 16)), "44000000000001008877665544332211");
  EXPECT_EQ(KindOfFrame(frame), FrameKind::kEncrypted);

  const absl::StatusOr<TransformHeader> decoded = DecodeTransformHeader(frame);
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  EXPECT_EQ(decoded->signature, header.signature);
  EXPECT_EQ(decoded->nonce, header.nonce);
  EXPECT_EQ(decoded->session_id, header.session_id);
  EXPECT_TRUE(DecodeTransformHeader(Bytes(frame).first(52), frame.size()).ok());

  EXPECT_FALSE(DecodeTransformHeader(Bytes(frame).first(frame.size() - 1)).ok());
  EXPECT_FALSE(DecodeTransformHeader(Bytes(frame).first(51)).ok());
  frame[42] = 2;  // Flags
  EXPECT_FALSE(DecodeTransformHeader(frame).ok());
}

TEST(TransformHeaderTest, RejectsAnEnvelopeWithoutAMessage) {
  TransformHeader header;
  header.original_size = 63;
  std::vector<uint8_t> frame(kTransformHeaderSize + 63);
  EncodeTransformHeader(header, absl::MakeSpan(frame));
  EXPECT_FALSE(DecodeTransformHeader(frame).ok());
}

TEST(FrameKindTest, KnowsTheFourKinds) {
  EXPECT_EQ(KindOfFrame(FromHex("fe534d42")), FrameKind::kPlain);
  EXPECT_EQ(KindOfFrame(FromHex("fd534d42")), FrameKind::kEncrypted);
  EXPECT_EQ(KindOfFrame(FromHex("fc534d42")), FrameKind::kCompressed);
  EXPECT_EQ(KindOfFrame(FromHex("ff534d42")), FrameKind::kUnknown);  // SMB1
  EXPECT_EQ(KindOfFrame(FromHex("fe534d")), FrameKind::kUnknown);
}

TEST(CommandNameTest, CoversTheTable) {
  EXPECT_EQ(CommandName(Command::kNegotiate), "NEGOTIATE");
  EXPECT_EQ(CommandName(Command::kOplockBreak), "OPLOCK_BREAK");
  EXPECT_EQ(CommandName(static_cast<Command>(0x13)), "unknown command");
}

}  // namespace
}  // namespace dfscsi::smb::wire
