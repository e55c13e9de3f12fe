#include "node-agent/smb/connection.h"

#include <gtest/gtest.h>

#include <memory>
#include <utility>
#include <vector>

#include "node-agent/smb/session.h"
#include "node-agent/testing/scripted_lab.h"

namespace dfscsi::smb {
namespace {

using runtime::Deadline;
using runtime::Task;

Deadline Soon() { return Deadline::After(absl::Seconds(60)); }

// Passes everything on, and counts the writes.
class CountedStream final : public runtime::Stream {
 public:
  CountedStream(std::unique_ptr<runtime::Stream> stream, std::shared_ptr<int> writes)
      : stream_(std::move(stream)), writes_(std::move(writes)) {}
  Progress TryRead(absl::Span<const iovec> into) override { return stream_->TryRead(into); }
  Progress TryWrite(absl::Span<const iovec> from) override {
    ++*writes_;
    return stream_->TryWrite(from);
  }
  Task<absl::Status> WaitReadable(Deadline deadline) override {
    return stream_->WaitReadable(std::move(deadline));
  }
  Task<absl::Status> WaitWritable(Deadline deadline) override {
    return stream_->WaitWritable(std::move(deadline));
  }
  runtime::TcpProgress progress() override { return stream_->progress(); }
  runtime::SocketAddress peer() const override { return stream_->peer(); }
  void ResetOnClose() override { stream_->ResetOnClose(); }

 private:
  std::unique_ptr<runtime::Stream> stream_;
  const std::shared_ptr<int> writes_;
};

Task<void> Echo(Connection* connection) {
  std::vector<Request> requests;
  requests.push_back(MakeEmptyRequest(wire::Command::kEcho));
  const auto answered = co_await connection->Call(std::move(requests), Soon());
  EXPECT_TRUE(answered.ok()) << answered.status();
}

// Logs on, and sends eight requests in one turn of the loop, in `used` writes.
Task<void> EchoEightTimes(testing::ScriptedLab* lab, int* used) {
  const auto writes = std::make_shared<int>(0);
  auto stream = co_await runtime::Loop::Current().network().Connect(
      {lab->host("t1").addresses().front(), 445}, Soon());
  auto counted = std::make_unique<CountedStream>(*std::move(stream), writes);
  auto connection = co_await Connection::Negotiate(std::move(counted), "t1", {}, Soon());
  EXPECT_TRUE(connection.ok()) << connection.status();
  auto session =
      co_await Session::Setup(*connection, lab->authenticators(), lab->credential(), 0, Soon());
  EXPECT_TRUE(session.ok()) << session.status();
  *writes = 0;
  runtime::TaskGroup group;
  for (int i = 0; i < 8; ++i) group.Spawn(Echo(connection->get()));
  EXPECT_TRUE((co_await group.WaitUntilEmpty(Soon())).ok());
  *used = *writes;
}

TEST(ConnectionTest, RequestsOfTheSameTurnLeaveInOneWrite) {
  testing::ScriptedLab lab(1);
  lab.AddServer("t1");
  int used = 0;
  ASSERT_TRUE(lab.Run(EchoEightTimes(&lab, &used)));
  EXPECT_LT(used, 4);  // The simulated socket may take a write in parts.
}

// Ends with one of two reasons, and is held all the time by its caller: an answer that is not
// rightly signed, or our own Close(), after which the server says something.
Task<void> EndAConnection(testing::ScriptedLab* lab, bool by_us) {
  auto stream = co_await runtime::Loop::Current().network().Connect(
      {lab->host("t1").addresses().front(), 445}, Soon());
  auto connection = co_await Connection::Negotiate(*std::move(stream), "t1", {}, Soon());
  EXPECT_TRUE(connection.ok()) << connection.status();
  auto session =
      co_await Session::Setup(*connection, lab->authenticators(), lab->credential(), 0, Soon());
  EXPECT_TRUE(session.ok()) << session.status();
  EXPECT_EQ(lab->server("t1").sessions(), 1);
  const runtime::SocketAddress peer = (*connection)->peer();
  lab->server("t1").AddRule(
      {.command = wire::Command::kEcho,
       .action = {.delay = absl::Milliseconds(100), .bad_signature = !by_us}});
  runtime::TaskGroup group;
  group.Spawn([](Connection* of) -> Task<void> {
    std::vector<Request> requests;
    requests.push_back(MakeEmptyRequest(wire::Command::kEcho));
    EXPECT_FALSE((co_await of->Call(std::move(requests), Soon())).ok());
  }(connection->get()));
  (void)co_await runtime::Sleep(absl::Milliseconds(50), Soon());
  if (by_us) (*connection)->Close(absl::AbortedError("enough"));
  (void)co_await runtime::Sleep(absl::Milliseconds(200), Soon());
  EXPECT_TRUE((*connection)->closed());
  EXPECT_EQ(lab->server("t1").sessions(), 0) << "the server has not seen the end";
  EXPECT_EQ((*connection)->peer(), peer);
}

TEST(ConnectionTest, TheServerSeesTheEndOfWhatIsClosedThoughItIsStillHeld) {
  for (const bool by_us : {false, true}) {
    SCOPED_TRACE(by_us ? "closed by us" : "a bad signature");
    testing::ScriptedLab lab(1);
    lab.AddServer("t1");
    ASSERT_TRUE(lab.Run(EndAConnection(&lab, by_us)));
  }
}

// Waits a second for an ECHO whose server says, a hundred times and later, that it will take long.
Task<void> AbandonAnEcho(testing::ScriptedLab* lab) {
  auto stream = co_await runtime::Loop::Current().network().Connect(
      {lab->host("t1").addresses().front(), 445}, Soon());
  auto connection = co_await Connection::Negotiate(*std::move(stream), "t1", {}, Soon());
  EXPECT_TRUE(connection.ok()) << connection.status();
  auto session =
      co_await Session::Setup(*connection, lab->authenticators(), lab->credential(), 0, Soon());
  EXPECT_TRUE(session.ok()) << session.status();
  testing::Action interim{.delay = absl::Seconds(2),
                          .status = wire::NtStatus::kPending,
                          .edit =
                              [](std::vector<uint8_t>& message) {
                                message[16] |= wire::kFlagAsync;
                                message[32] = 7;  // The asynchronous id's first byte.
                              },
                          .copies = 100};
  lab->server("t1").AddRule({.command = wire::Command::kEcho, .times = 1, .action = interim});
  std::vector<Request> requests;
  requests.push_back(MakeEmptyRequest(wire::Command::kEcho));
  const auto answered =
      co_await (*connection)->Call(std::move(requests), Deadline::After(absl::Seconds(1)));
  EXPECT_TRUE(absl::IsDeadlineExceeded(answered.status())) << answered.status();
  (void)co_await runtime::Sleep(absl::Seconds(5), Soon());
  EXPECT_FALSE((*connection)->closed());
}

TEST(ConnectionTest, WhatWasAbandonedIsCancelledOnceHoweverOftenItIsSaidToTakeLong) {
  testing::ScriptedLab lab(1);
  lab.AddServer("t1");
  ASSERT_TRUE(lab.Run(AbandonAnEcho(&lab)));
  EXPECT_EQ(lab.server("t1").Count(wire::Command::kCancel), 1);
}

}  // namespace
}  // namespace dfscsi::smb
