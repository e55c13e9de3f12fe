#include "node-agent/smb/auth/auth_protocol.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <string.h>

#include <algorithm>
#include <vector>

namespace dfscsi::smb::auth {
namespace {

using ::testing::HasSubstr;

// What EncodeX made, without the length.
std::string_view Body(const absl::StatusOr<Secret>& frame) { return frame->Expose().substr(4); }

Begin FullBegin() {
  return {.context_id = 0x1122334455667788,
          .mechanism = Mechanism::kKerberos,
          .target_host = "fs1.corp.example.com",
          .user = "ann",
          .domain = "CORP",
          .password = Secret("pass\xc3\xb6word"),
          .krb5_config_path = "/etc/krb5.conf",
          .keytab = Secret(std::string("\x05\x02\0\0", 4)),
          .ccache = Secret(std::string("\x05\x04\0\0", 4)),
          .renew = true};
}

TEST(AuthProtocolTest, BeginKeepsEveryField) {
  const Begin begin = FullBegin();
  const auto frame = EncodeRequest(begin);
  ASSERT_TRUE(frame.ok()) << frame.status();
  const auto decoded = DecodeRequest(Body(frame));
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  const Begin& back = std::get<Begin>(*decoded);
  EXPECT_EQ(back.context_id, begin.context_id);
  EXPECT_EQ(back.mechanism, begin.mechanism);
  EXPECT_EQ(back.target_host, begin.target_host);
  EXPECT_EQ(back.user, begin.user);
  EXPECT_EQ(back.domain, begin.domain);
  EXPECT_TRUE(back.password == begin.password);
  EXPECT_EQ(back.krb5_config_path, begin.krb5_config_path);
  EXPECT_TRUE(back.keytab == begin.keytab);
  EXPECT_TRUE(back.ccache == begin.ccache);
  EXPECT_TRUE(back.renew);
}

TEST(AuthProtocolTest, StepAndEndAreKept) {
  const auto step = DecodeRequest(Body(EncodeRequest(Step{7, Secret("token")})));
  ASSERT_TRUE(step.ok());
  EXPECT_EQ(std::get<Step>(*step).context_id, 7u);
  EXPECT_EQ(std::get<Step>(*step).token.Expose(), "token");
  const auto end = DecodeRequest(Body(EncodeRequest(End{8})));
  ASSERT_TRUE(end.ok());
  EXPECT_EQ(std::get<End>(*end).context_id, 8u);
}

TEST(AuthProtocolTest, RepliesAreKept) {
  const auto token = DecodeReply(Body(EncodeReply(Token{.context_id = 9,
                                                        .token = Secret("t"),
                                                        .complete = true,
                                                        .session_key = Secret("0123456789abcdef"),
                                                        .mechanism = Mechanism::kNtlm,
                                                        .lifetime = absl::Seconds(3600)})));
  ASSERT_TRUE(token.ok()) << token.status();
  const Token& t = std::get<Token>(*token);
  EXPECT_EQ(t.context_id, 9u);
  EXPECT_EQ(t.token.Expose(), "t");
  EXPECT_TRUE(t.complete);
  EXPECT_EQ(t.session_key.Expose(), "0123456789abcdef");
  EXPECT_EQ(t.mechanism, Mechanism::kNtlm);
  EXPECT_EQ(t.lifetime, absl::Seconds(3600));

  const auto failure = DecodeReply(Body(EncodeReply(
      Failure{10, FailureClass::kClockSkew, "clock is 20 min off", 0xd0000, 0x96c73a25})));
  ASSERT_TRUE(failure.ok()) << failure.status();
  const Failure& f = std::get<Failure>(*failure);
  EXPECT_EQ(f.context_id, 10u);
  EXPECT_EQ(f.failure_class, FailureClass::kClockSkew);
  EXPECT_EQ(f.message, "clock is 20 min off");
  EXPECT_EQ(f.gss_major, 0xd0000u);
  EXPECT_EQ(f.gss_minor, 0x96c73a25u);
}

TEST(AuthProtocolTest, LifetimesThatDoNotFitAreClamped) {
  const std::pair<absl::Duration, absl::Duration> kCases[] = {
      {absl::InfiniteDuration(), absl::InfiniteDuration()},
      {absl::Seconds(int64_t{1} << 40), absl::InfiniteDuration()},
      {absl::Seconds(-5), absl::ZeroDuration()},
      {absl::Milliseconds(1500), absl::Seconds(1)},
  };
  for (const auto& [in, out] : kCases) {
    const auto reply = DecodeReply(Body(EncodeReply(Token{.lifetime = in})));
    ASSERT_TRUE(reply.ok());
    EXPECT_EQ(std::get<Token>(*reply).lifetime, out);
  }
}

TEST(AuthProtocolTest, EncodingNamesTheFieldThatIsTooLong) {
  Begin begin = FullBegin();
  begin.password = Secret(std::string(kMaxNameBytes + 1, 'x'));
  auto status = EncodeRequest(begin).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("password"));
  EXPECT_THAT(std::string(status.message()), Not(HasSubstr("xxx")));

  begin = FullBegin();
  begin.ccache = Secret(std::string(kMaxTicketFileBytes + 1, 'x'));
  EXPECT_THAT(std::string(EncodeRequest(begin).status().message()), HasSubstr("credential cache"));

  status = EncodeRequest(Step{1, Secret(std::string(kMaxTokenBytes + 1, 'x'))}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
}

TEST(AuthProtocolTest, LargestMessageFitsIntoAFrame) {
  Begin begin = FullBegin();
  for (std::string* name : {&begin.target_host, &begin.user, &begin.domain}) {
    *name = std::string(kMaxNameBytes, 'n');
  }
  begin.ccache = begin.keytab = Secret(std::string(kMaxTicketFileBytes, 'x'));
  const auto frame = EncodeRequest(begin);
  ASSERT_TRUE(frame.ok());
  EXPECT_LE(Body(frame).size(), kMaxFrameBytes);
  EXPECT_TRUE(DecodeRequest(Body(frame)).ok());
}

TEST(AuthProtocolTest, KeyComesWithCompletionOnly) {
  EXPECT_FALSE(EncodeReply(Token{.complete = true}).ok());
  EXPECT_FALSE(EncodeReply(Token{.complete = false, .session_key = Secret("k")}).ok());
}

TEST(AuthProtocolTest, EveryPrefixAndEveryExtraByteIsRefused) {
  const auto request = EncodeRequest(FullBegin());
  const auto reply = EncodeReply(Token{
      .context_id = 1, .token = Secret("tok"), .complete = true, .session_key = Secret("key")});
  const std::string a(Body(request));
  const std::string b(Body(reply));
  for (size_t n = 0; n < a.size(); ++n) EXPECT_FALSE(DecodeRequest(a.substr(0, n)).ok()) << n;
  for (size_t n = 0; n < b.size(); ++n) EXPECT_FALSE(DecodeReply(b.substr(0, n)).ok()) << n;
  EXPECT_FALSE(DecodeRequest(a + '\0').ok());
  EXPECT_FALSE(DecodeReply(b + '\0').ok());
  EXPECT_FALSE(DecodeReply(a).ok());
  EXPECT_FALSE(DecodeRequest(b).ok());
}

TEST(AuthProtocolTest, UnknownValuesAreRefused) {
  const std::string good(Body(EncodeRequest(Begin{})));
  ASSERT_TRUE(DecodeRequest(good).ok());
  for (const size_t offset : {size_t{0}, size_t{1}, size_t{10}, good.size() - 1}) {
    for (const char value : {'\xff', '\x42'}) {  // Version, type, mechanism, renew.
      std::string bad = good;
      bad[offset] = value;
      EXPECT_FALSE(DecodeRequest(bad).ok()) << offset;
    }
  }
  std::string mechanism_zero = good;
  mechanism_zero[10] = 0;
  EXPECT_FALSE(DecodeRequest(mechanism_zero).ok());
}

// Feeds `stream` in pieces of `piece` bytes; returns the frames.
absl::StatusOr<std::vector<std::string>> Cut(std::string_view stream, size_t piece) {
  FrameReader reader;
  std::vector<std::string> frames;
  while (!stream.empty()) {
    const absl::Span<char> space = reader.Space();
    const size_t n = std::min({piece, space.size(), stream.size()});
    memcpy(space.data(), stream.data(), n);
    stream.remove_prefix(n);
    const auto frame = reader.Received(n);
    if (!frame.ok()) return frame.status();
    if (frame->has_value()) frames.emplace_back((*frame)->Expose());
  }
  return frames;
}

TEST(FrameReaderTest, FramesInPiecesOfAnySize) {
  const auto one = EncodeRequest(Step{1, Secret("first")});
  const auto two = EncodeRequest(End{2});
  const std::string stream = std::string(one->Expose()) + std::string(two->Expose());
  for (size_t piece = 1; piece <= stream.size(); ++piece) {
    const auto frames = Cut(stream, piece);
    ASSERT_TRUE(frames.ok());
    ASSERT_EQ(frames->size(), 2u);
    EXPECT_EQ(frames->at(0), Body(one));
    EXPECT_EQ(frames->at(1), Body(two));
  }
}

TEST(FrameReaderTest, RefusesImpossibleLengths) {
  EXPECT_FALSE(Cut(std::string(4, '\0'), 4).ok());
  EXPECT_FALSE(Cut("\xff\xff\xff\xff", 4).ok());
  EXPECT_FALSE(Cut(std::string("\x01\x00\x10\x00", 4), 4).ok());  // One more than allowed.
  EXPECT_TRUE(Cut(std::string("\x00\x00\x10\x00", 4), 4).ok());
}

TEST(AuthProtocolTest, EveryValueHasAName) {
  EXPECT_EQ(MechanismName(Mechanism::kNtlm), "ntlm");
  EXPECT_EQ(MechanismName(Mechanism::kKerberos), "kerberos");
  EXPECT_EQ(MechanismName(Mechanism::kNegotiate), "negotiate");
  EXPECT_EQ(FailureClassName(FailureClass::kBadCredentials), "bad_credentials");
  EXPECT_EQ(FailureClassName(FailureClass::kNoKdc), "no_kdc");
  EXPECT_EQ(FailureClassName(FailureClass::kNoMechanism), "no_mechanism");
  EXPECT_EQ(FailureClassName(FailureClass::kClockSkew), "clock_skew");
  EXPECT_EQ(FailureClassName(FailureClass::kProtocol), "protocol");
}

}  // namespace
}  // namespace dfscsi::smb::auth
