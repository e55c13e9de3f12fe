// The scripted server, asked by hand: what it makes of clients that break the rules, which our own
// client does not do.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "node-agent/runtime/sim_network.h"
#include "node-agent/smb/wire/header.h"
#include "node-agent/smb/wire/negotiate.h"
#include "node-agent/smb/wire/session.h"
#include "node-agent/testing/scripted_lab.h"

namespace dfscsi::testing {
namespace {

using runtime::Deadline;
using runtime::Task;
using smb::wire::Command;
using smb::wire::Header;
using smb::wire::NtStatus;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

Deadline Soon() { return Deadline::After(absl::Seconds(5)); }

std::vector<uint8_t> Message(Header header, Command command) {
  header.command = command;
  std::vector<uint8_t> message;
  smb::wire::Writer writer(&message);
  smb::wire::EncodeHeader(header, writer);
  if (command == Command::kNegotiate) {
    smb::wire::NegotiateRequest request;
    request.dialects = {smb::wire::Dialect::k210, smb::wire::Dialect::k302};
    smb::wire::EncodeNegotiateRequest(request, writer);
  } else {
    smb::wire::EncodeEmptyBody(writer);
  }
  return message;
}

// A connection without a client's manners.
class RawClient {
 public:
  explicit RawClient(std::unique_ptr<runtime::Stream> stream) : stream_(std::move(stream)) {}

  Task<void> Send(std::vector<uint8_t> frame) {
    const auto prefix = smb::wire::FramePrefix(static_cast<uint32_t>(frame.size()));
    frame.insert(frame.begin(), prefix.begin(), prefix.end());
    (void)co_await stream_->WriteAll(frame.data(), frame.size(), Soon());
  }
  // The next frame's first header; an error at the end of the connection.
  Task<absl::StatusOr<Header>> Receive(Deadline deadline) {
    std::array<uint8_t, 4> prefix;
    absl::Status status = co_await stream_->ReadFull(prefix.data(), prefix.size(), deadline);
    if (!status.ok()) co_return status;
    std::vector<uint8_t> frame(*smb::wire::DecodeFramePrefix(prefix));
    status = co_await stream_->ReadFull(frame.data(), frame.size(), deadline);
    if (!status.ok()) co_return status;
    co_return smb::wire::DecodeHeader(frame);
  }
  Task<absl::StatusOr<Header>> Ask(Header header, Command command) {
    co_await Send(Message(header, command));
    co_return co_await Receive(Soon());
  }

 private:
  std::unique_ptr<runtime::Stream> stream_;
};

class ScriptedProtocolTest : public ::testing::Test {
 protected:
  using Work = Task<void> (*)(RawClient& client, ScriptedServer& server);
  void Run(Work work) {
    ASSERT_TRUE(lab_.Run([](ScriptedProtocolTest& test, Work todo) -> Task<void> {
      auto stream = co_await runtime::Loop::Current().network().Connect(
          {test.lab_.host("t1").addresses().front(), 445}, Soon());
      EXPECT_TRUE(stream.ok()) << stream.status();
      if (!stream.ok()) co_return;
      RawClient client(*std::move(stream));
      co_await todo(client, test.server_);
    }(*this, work)));
  }

  ScriptedLab lab_{1};
  ScriptedServer& server_ = lab_.AddServer("t1");
};

TEST_F(ScriptedProtocolTest, CreditsAreAsManyAsWereGranted) {
  Run([](RawClient& client, ScriptedServer& server) -> Task<void> {
    server.options().most_credits = 3;
    auto answer = co_await client.Ask({.credits = 10}, Command::kNegotiate);
    EXPECT_EQ(answer->credits, 3);
    for (uint64_t id = 1; id <= 3; ++id) {
      answer = co_await client.Ask({.credits = 1, .message_id = id}, Command::kEcho);
      EXPECT_TRUE(answer.ok() && answer->status == NtStatus::kSuccess);
    }
    EXPECT_THAT(server.violations(), IsEmpty());
    EXPECT_FALSE((co_await client.Ask({.message_id = 70}, Command::kEcho)).ok());
    EXPECT_THAT(server.violations(), ElementsAre(HasSubstr("MessageId 70")));
  });
}

TEST_F(ScriptedProtocolTest, AMessageIdIsUsedOnce) {
  Run([](RawClient& client, ScriptedServer& server) -> Task<void> {
    EXPECT_TRUE((co_await client.Ask({.credits = 10}, Command::kNegotiate)).ok());
    EXPECT_TRUE((co_await client.Ask({.message_id = 3}, Command::kEcho)).ok());
    EXPECT_TRUE((co_await client.Ask({.message_id = 1}, Command::kEcho)).ok());
    EXPECT_FALSE((co_await client.Ask({.message_id = 3}, Command::kEcho)).ok());
    EXPECT_THAT(server.violations(), ElementsAre(HasSubstr("used twice")));
  });
}

TEST_F(ScriptedProtocolTest, NothingBeforeNegotiateAndNothingTwice) {
  Run([](RawClient& client, ScriptedServer& server) -> Task<void> {
    EXPECT_FALSE((co_await client.Ask({}, Command::kEcho)).ok());
    EXPECT_THAT(server.violations(), ElementsAre(HasSubstr("before NEGOTIATE")));
  });
  Run([](RawClient& client, ScriptedServer& server) -> Task<void> {
    EXPECT_TRUE((co_await client.Ask({.credits = 10}, Command::kNegotiate)).ok());
    EXPECT_FALSE((co_await client.Ask({.message_id = 1}, Command::kNegotiate)).ok());
    EXPECT_EQ(server.violations().size(), 2u);
  });
}

TEST_F(ScriptedProtocolTest, RequestsWithoutASessionAreRefused) {
  Run([](RawClient& client, ScriptedServer&) -> Task<void> {
    EXPECT_TRUE((co_await client.Ask({.credits = 10}, Command::kNegotiate)).ok());
    auto answer =
        co_await client.Ask({.message_id = 1, .session_id = 4711}, Command::kTreeDisconnect);
    EXPECT_EQ(answer->status, NtStatus::kUserSessionDeleted);
  });
}

// One that is not signed needs none.
TEST_F(ScriptedProtocolTest, AnEchoThatIsSignedNeedsItsSession) {
  Run([](RawClient& client, ScriptedServer&) -> Task<void> {
    EXPECT_TRUE((co_await client.Ask({.credits = 10}, Command::kNegotiate)).ok());
    auto answer = co_await client.Ask(
        {.flags = smb::wire::kFlagSigned, .message_id = 1, .session_id = 4711}, Command::kEcho);
    EXPECT_EQ(answer->status, NtStatus::kUserSessionDeleted);
    EXPECT_FALSE(answer->Has(smb::wire::kFlagSigned));
    answer = co_await client.Ask({.message_id = 2, .session_id = 4711}, Command::kEcho);
    EXPECT_EQ(answer->status, NtStatus::kSuccess);
  });
}

TEST_F(ScriptedProtocolTest, APendingRequestIsAnsweredWhenCancelled) {
  server_.AddRule({.command = Command::kEcho,
                   .times = 1,
                   .action = {.delay = absl::InfiniteDuration(), .pending = true}});
  Run([](RawClient& client, ScriptedServer&) -> Task<void> {
    EXPECT_TRUE((co_await client.Ask({.credits = 10}, Command::kNegotiate)).ok());
    auto interim = co_await client.Ask({.credits = 5, .message_id = 1}, Command::kEcho);
    EXPECT_TRUE(smb::wire::IsInterim(*interim));
    EXPECT_EQ(interim->credits, 5);
    // Others go by.
    EXPECT_TRUE((co_await client.Ask({.message_id = 2}, Command::kEcho)).ok());
    Header cancel{.flags = smb::wire::kFlagAsync, .message_id = 1, .async_id = interim->async_id};
    auto last = co_await client.Ask(cancel, Command::kCancel);
    EXPECT_EQ(last->status, NtStatus::kCancelled);
    EXPECT_EQ(last->message_id, 1u);
    EXPECT_EQ(last->async_id, interim->async_id);
    EXPECT_EQ(last->credits, 0);
  });
}

TEST_F(ScriptedProtocolTest, CreditsMayBeRevoked) {
  server_.AddRule({.command = Command::kEcho, .action = {.credits = 0}});
  Run([](RawClient& client, ScriptedServer& server) -> Task<void> {
    EXPECT_TRUE((co_await client.Ask({.credits = 2}, Command::kNegotiate)).ok());
    for (uint64_t id = 1; id <= 2; ++id) {
      auto answer = co_await client.Ask({.credits = 10, .message_id = id}, Command::kEcho);
      EXPECT_EQ(answer->credits, 0);
    }
    EXPECT_FALSE((co_await client.Ask({.message_id = 3}, Command::kEcho)).ok());
    EXPECT_EQ(server.violations().size(), 1u);
  });
}

TEST_F(ScriptedProtocolTest, NoFrameCrashesIt) {
  for (uint64_t seed = 0; seed < 300; ++seed) {
    runtime::SimRandom random(seed);
    ASSERT_TRUE(lab_.Run([](ScriptedLab& lab, runtime::SimRandom& chance) -> Task<void> {
      auto stream = co_await runtime::Loop::Current().network().Connect(
          {lab.host("t1").addresses().front(), 445}, Soon());
      RawClient client(*std::move(stream));
      if (chance.Chance(0.9)) (void)co_await client.Ask({.credits = 500}, Command::kNegotiate);
      for (uint64_t id = 1; id < 5; ++id) {
        Header header{.credit_charge = 1, .message_id = id};
        std::vector<uint8_t> frame = Message(header, static_cast<Command>(chance.Below(0x13)));
        frame.resize(frame.size() + chance.Below(200));
        for (size_t i = smb::wire::kHeaderSize; i < frame.size(); ++i) {
          if (chance.Chance(0.3)) frame[i] = static_cast<uint8_t>(chance.Next());
        }
        if (chance.Chance(0.2)) frame[chance.Below(frame.size())] ^= 0x81;
        co_await client.Send(std::move(frame));
        (void)co_await client.Receive(Deadline::After(absl::Milliseconds(5)));
      }
    }(lab_, random)));
  }
  EXPECT_TRUE(lab_.running("t1"));
  EXPECT_EQ(lab_.process("t1").escaped_exceptions(), 0);
}

}  // namespace
}  // namespace dfscsi::testing
