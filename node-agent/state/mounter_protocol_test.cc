#include "node-agent/state/mounter_protocol.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <random>
#include <string>
#include <utility>

namespace dfscsi::state {
namespace {

std::pair<MessageSocket, MessageSocket> Pair() {
  int fds[2];
  EXPECT_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
  return {MessageSocket(UniqueFd(fds[0])), MessageSocket(UniqueFd(fds[1]))};
}

Message Sample(size_t type) {
  MountEntry entry;
  entry.mount_id = 7;
  entry.dev_minor = 60;
  entry.mount_point = "/mnt/a b";
  entry.source = "//corp.example.com/projects";
  entry.read_only = true;
  entry.init_in = std::string(104, '\1');
  entry.init_out = std::string(64, '\0');
  entry.config = std::string(kMaxConfigBytes, 'c');
  MountRequest mount;
  mount.mount_point = "/mnt/x";
  mount.source = "//h/s";
  mount.init_flags = 0x8000'0000'0000'0001;
  mount.max_write = 1 << 20;
  mount.config = "uid=0";
  Hello hello;
  hello.role = Role::kAgent;
  hello.build_id = "1.2.3";
  hello.state_id = ~uint64_t{0};
  switch (type) {
    case 0:
      return hello;
    case 1:
      return Draining();
    case 2:
      return mount;
    case 3:
      return UnmountRequest{.mount_id = 3, .mount_point = "/p", .force = true};
    case 4:
      return GrowArena();
    case 5:
      return ReturnStep{15};
    case 6:
      return ReportGone{9};
    case 7:
      return ListRequest();
    case 8:
      return StatusRequest();
    case 9:
      return Welcome{.state_id = 1, .heartbeat_line = 2, .granted_steps = 0xffff, .build_id = "b"};
    case 10:
      return entry;
    case 11:
      return ListEnd{4};
    case 12:
      return Activate{5};
    case 13:
      return StepGranted{1, 3};
    case 14:
      return StepRevoked{1, 1};
    case 15:
      return MountGone{8, "/gone"};
    case 16:
      return Done();
    case 17:
      return Error{-1, "text"};
    case 18:
      return StatusReply{.mounts = 1, .agents = 2, .active_pid = 3, .generation = 4};
    case 19:
      return EscrowWanted();
    case 20:
      return EscrowNode{.state_id = 9, .granted_steps = 1, .arena_layout = 2};
    default:
      return EscrowEnd();
  }
}

TEST(MounterProtocolTest, EveryMessageIsReadAsItWasWritten) {
  for (size_t type = 0; type < std::variant_size_v<Message>; ++type) {
    const Message message = Sample(type);
    ASSERT_EQ(message.index(), type);
    SCOPED_TRACE(MessageName(message));
    const std::string packet = EncodeMessage(message, 77);
    EXPECT_LE(packet.size(), kMaxMessageBytes);
    auto envelope = DecodeMessage(packet);
    ASSERT_TRUE(envelope.ok()) << envelope.status();
    EXPECT_EQ(envelope->request_id, 77u);
    EXPECT_EQ(EncodeMessage(envelope->message, 77), packet);
  }
  const auto mount = DecodeMessage(EncodeMessage(Sample(2), 0));
  EXPECT_EQ(std::get<MountRequest>(mount->message).init_flags, 0x8000'0000'0000'0001);
  EXPECT_EQ(std::get<MountRequest>(mount->message).max_background, 8192);
}

TEST(MounterProtocolTest, AnOlderPeersShorterMessageKeepsDefaults) {
  std::string packet = EncodeMessage(Hello{.role = Role::kAgent}, 1);
  packet.resize(packet.size() - 4);  // Without active_generation.
  packet[8] -= 4;                    // The length.
  auto envelope = DecodeMessage(packet);
  ASSERT_TRUE(envelope.ok()) << envelope.status();
  EXPECT_EQ(std::get<Hello>(envelope->message).role, Role::kAgent);
  EXPECT_EQ(std::get<Hello>(envelope->message).active_generation, 0u);
  // A newer peer's longer one.
  packet = EncodeMessage(Activate{3}, 1) + std::string("more");
  packet[8] += 4;
  envelope = DecodeMessage(packet);
  ASSERT_TRUE(envelope.ok()) << envelope.status();
  EXPECT_EQ(std::get<Activate>(envelope->message).generation, 3u);
}

TEST(MounterProtocolTest, BadPacketsAreErrors) {
  const std::string good = EncodeMessage(Sample(10), 1);
  EXPECT_FALSE(DecodeMessage("").ok());
  for (size_t length = 0; length < good.size(); length += 97) {
    EXPECT_FALSE(DecodeMessage(good.substr(0, length)).ok()) << length;
  }
  std::string unknown = EncodeMessage(Done(), 1);
  unknown[6] = 100;
  EXPECT_FALSE(DecodeMessage(unknown).ok());
  std::string other_version = EncodeMessage(Done(), 1);
  other_version[4] = 9;
  EXPECT_FALSE(DecodeMessage(other_version).ok());
  std::string long_string = EncodeMessage(Error{0, "text"}, 1);
  long_string[24] = 100;
  EXPECT_FALSE(DecodeMessage(long_string).ok());
  std::mt19937 random(1);
  for (int i = 0; i < 20'000; ++i) {
    std::string packet = EncodeMessage(Sample(random() % std::variant_size_v<Message>), 1);
    packet.resize(std::min<size_t>(packet.size(), 400));
    packet[random() % packet.size()] = static_cast<char>(random());
    (void)DecodeMessage(packet);
  }
}

TEST(MounterProtocolTest, DescriptorsTravelWithTheirMessage) {
  auto [a, b] = Pair();
  UniqueFd null(open("/dev/null", O_RDONLY | O_CLOEXEC));
  ASSERT_TRUE(a.Send(Sample(10), 1, {null.get(), null.get()}).ok());
  ASSERT_TRUE(a.Send(Activate{3}).ok());
  auto entry = b.Receive();
  ASSERT_TRUE(entry.ok() && entry->has_value()) << entry.status();
  ASSERT_EQ((*entry)->fds.size(), 2u);
  struct stat want, got;
  fstat(null.get(), &want);
  fstat((*entry)->fds[1].get(), &got);
  EXPECT_EQ(want.st_rdev, got.st_rdev);
  EXPECT_TRUE(fcntl((*entry)->fds[1].get(), F_GETFD) & FD_CLOEXEC);
  auto activate = b.Receive();
  EXPECT_TRUE((*activate)->fds.empty());
  EXPECT_FALSE((*b.Receive()).has_value());
}

TEST(MounterProtocolTest, AFullSocketQueuesInOrderAndKeepsTheDescriptors) {
  auto [a, b] = Pair();
  constexpr uint32_t kMessages = 2'000;
  for (uint32_t i = 0; i < kMessages; ++i) {
    UniqueFd null(open("/dev/null", O_RDONLY | O_CLOEXEC));  // Closed here while it waits there.
    MountEntry entry;
    entry.mount_id = i;
    entry.config = std::string(1'000, 'x');
    ASSERT_TRUE(a.Send(entry, 0, {null.get()}).ok());
  }
  EXPECT_TRUE(a.wants_write());
  uint32_t received = 0;
  while (received < kMessages) {
    ASSERT_TRUE(a.Flush().ok());
    auto next = b.Receive();
    ASSERT_TRUE(next.ok() && next->has_value());
    EXPECT_EQ(std::get<MountEntry>((*next)->message).mount_id, received++);
    EXPECT_EQ((*next)->fds.size(), 1u);
  }
  EXPECT_FALSE(a.wants_write());
  absl::Status full;
  for (uint32_t i = 0; i < 20'000 && full.ok(); ++i) full = a.Send(Sample(10));
  EXPECT_EQ(full.code(), absl::StatusCode::kResourceExhausted);
}

TEST(MounterProtocolTest, AHangUpIsUnavailable) {
  auto [a, b] = Pair();
  ASSERT_TRUE(b.Send(Done(), 5).ok());
  b = MessageSocket();
  EXPECT_TRUE((*a.Receive()).has_value());
  EXPECT_EQ(a.Receive().status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(a.Send(Done()).code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(MessageSocket::Connect("/nonexistent").status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(MessageSocket::Connect(std::string(200, '/')).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(MounterProtocolTest, TheSocketGoesWithItsListener) {
  const std::string dir = testing::TempDir() + "/listener";
  const std::string path = dir + "/" + std::string(kMounterSocketName);
  {
    absl::StatusOr<MessageListener> made = MessageListener::Listen(dir, std::nullopt);
    ASSERT_TRUE(made.ok()) << made.status();
    const MessageListener listener = *std::move(made);
    EXPECT_TRUE(MessageSocket::Connect(dir).ok());
  }
  EXPECT_NE(access(path.c_str(), F_OK), 0);
  rmdir(dir.c_str());
}

}  // namespace
}  // namespace dfscsi::state
