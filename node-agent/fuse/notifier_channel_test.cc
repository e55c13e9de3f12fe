// The channel with a real child (dfs-notifier), whose kernel is a socket pair: what it writes can
// be read, and while nobody reads, its writer is stuck, as in D state.

#include "node-agent/fuse/notifier_channel.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/fuse.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"

namespace dfscsi::fuse {
namespace {

using runtime::Deadline;
using runtime::Task;

constexpr absl::Duration kTooLong = absl::Seconds(20);

class Device {
 public:
  Device() {
    int ends[2];
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
    kernel_.reset(ends[0]);
    daemon_.reset(ends[1]);
  }
  int fd() const { return daemon_.get(); }

  // The node of the next notification.
  std::optional<uint64_t> TryReceive() {
    struct {
      fuse_out_header header;
      fuse_notify_inval_inode_out inval;
    } message;
    const ssize_t n = recv(kernel_.get(), &message, sizeof(message), MSG_DONTWAIT);
    if (n < 0) return std::nullopt;
    EXPECT_EQ(n, static_cast<ssize_t>(sizeof(message)));
    EXPECT_EQ(message.header.len, sizeof(message));
    EXPECT_EQ(message.header.unique, 0u);
    EXPECT_EQ(message.header.error, FUSE_NOTIFY_INVAL_INODE);
    EXPECT_EQ(message.inval.off, 0);
    EXPECT_EQ(message.inval.len, 0);
    return message.inval.ino;
  }

  // The next write to it will not return.
  void Block() {
    const char fill[64] = {};
    while (send(daemon_.get(), fill, sizeof(fill), MSG_DONTWAIT) > 0) {
    }
  }
  void Unblock() {
    char fill[64];
    while (recv(kernel_.get(), fill, sizeof(fill), MSG_DONTWAIT) > 0) {
    }
  }

 private:
  UniqueFd kernel_, daemon_;
};

class NotifierChannelTest : public testing::Test {
 protected:
  void RunUntil(std::function<bool()> done) { loop_.RunUntilDone(Until(std::move(done))); }
  static Task<void> Until(std::function<bool()> done) {
    const absl::Time end = absl::Now() + kTooLong;
    while (!done()) {
      if (absl::Now() > end) {
        ADD_FAILURE() << "waited too long";
        co_return;
      }
      (void)co_await runtime::Sleep(absl::Milliseconds(1), Deadline::Never());
    }
  }
  void ExpectNode(Device& device, uint64_t node) {
    std::optional<uint64_t> received;
    RunUntil([&] { return (received = device.TryReceive()).has_value(); });
    EXPECT_EQ(received, node);
  }

  // As ExpectNode(), of a device where a writer was stuck with another node. That one is killed,
  // but may have been woken before it died.
  void ExpectNodeAfter(Device& device, uint64_t stuck, uint64_t node) {
    std::optional<uint64_t> received;
    RunUntil([&] { return (received = device.TryReceive()).has_value() && received != stuck; });
    EXPECT_EQ(received, node);
  }

  runtime::RealLoop loop_;
  Device one_, two_;
  NotifierChannel channel_{loop_, NOTIFIER_PROGRAM};
};

TEST_F(NotifierChannelTest, WhoWaitsIsToldWhenTheKernelHasDoneIt) {
  channel_.AddMount(1, one_.fd());
  channel_.AddMount(2, two_.fd());
  std::map<uint64_t, absl::Status> ended;
  struct Waiting {
    static Task<void> Run(NotifierChannel* channel, uint32_t mount, uint64_t node,
                          std::map<uint64_t, absl::Status>* ended) {
      (*ended)[node] =
          co_await channel->InvalidateInodeAndWait(mount, node, Deadline::After(kTooLong));
    }
  };
  runtime::TaskGroup waiting;
  two_.Block();
  loop_.RunUntilDone([](NotifierChannel* channel, runtime::TaskGroup* group,
                        std::map<uint64_t, absl::Status>* into) -> Task<void> {
    channel->InvalidateInode(1, 10);  // It stands in the queue already: once is enough.
    group->Spawn(Waiting::Run(channel, 1, 10, into));
    group->Spawn(Waiting::Run(channel, 2, 20, into));
    group->Spawn(Waiting::Run(channel, 3, 30, into));
    co_return;
  }(&channel_, &waiting, &ended));
  RunUntil([&] { return ended.contains(10) && ended.contains(30); });
  EXPECT_EQ(ended[10], absl::OkStatus());
  EXPECT_EQ(one_.TryReceive(), 10u);
  EXPECT_TRUE(absl::IsUnavailable(ended[30])) << "there is no such mount";
  EXPECT_FALSE(ended.contains(20)) << "its page is of a READ that waits";
  RunUntil([&] { return ended.contains(20); });
  EXPECT_TRUE(absl::IsUnavailable(ended[20])) << ended[20];
  two_.Unblock();
}

TEST_F(NotifierChannelTest, WritesToTheMountThatIsMeant) {
  channel_.AddMount(1, one_.fd());
  channel_.InvalidateInode(1, 10);
  ExpectNode(one_, 10);
  channel_.AddMount(2, two_.fd());  // The child runs already.
  channel_.InvalidateInode(2, 20);
  ExpectNode(two_, 20);
  channel_.InvalidateInode(3, 30);  // There is none.
  RunUntil([this] { return channel_.counters().written == 2; });
  EXPECT_EQ(channel_.pending(), 0u);
  EXPECT_EQ(channel_.counters().failed, 0);
  EXPECT_FALSE(one_.TryReceive().has_value());
}

TEST_F(NotifierChannelTest, AMountThatIsGoneIsNotWrittenTo) {
  channel_.AddMount(1, one_.fd());
  channel_.AddMount(2, two_.fd());
  channel_.RemoveMount(1);
  channel_.InvalidateInode(1, 10);
  channel_.InvalidateInode(2, 20);
  ExpectNode(two_, 20);
  EXPECT_FALSE(one_.TryReceive().has_value());
}

TEST_F(NotifierChannelTest, MountsThatComeAndGoBeforeTheFirstNotificationLeaveNothing) {
  channel_.AddMount(1, one_.fd());
  for (uint32_t mount = 2; mount < 2 + NotifierChannel::kMostPending; ++mount) {
    channel_.AddMount(mount, two_.fd());
    channel_.RemoveMount(mount);
  }
  EXPECT_EQ(channel_.pending(), 0u);
  channel_.InvalidateInode(1, 7);  // It used to be dropped: so much was pending.
  ExpectNode(one_, 7);
  EXPECT_EQ(channel_.counters().dropped, 0);
}

TEST_F(NotifierChannelTest, AStuckChildIsReplacedAndOtherMountsGoOn) {
  channel_.AddMount(1, one_.fd());
  channel_.AddMount(2, two_.fd());
  one_.Block();
  const absl::Time start = absl::Now();
  channel_.InvalidateInode(1, 10);
  channel_.InvalidateInode(2, 20);
  ExpectNode(two_, 20);  // Of a thread of its own.
  RunUntil([this] { return channel_.counters().stuck == 1; });
  EXPECT_GE(absl::Now() - start, NotifierChannel::kStuckAfter - absl::Milliseconds(5));
  channel_.InvalidateInode(2, 21);
  ExpectNode(two_, 21);
  one_.Unblock();
  channel_.InvalidateInode(1, 11);
  ExpectNodeAfter(one_, /*stuck=*/10, 11);
  EXPECT_EQ(channel_.counters().dropped, 1);
}

TEST_F(NotifierChannelTest, WhatStoodBehindAStuckNotificationIsWritten) {
  channel_.AddMount(1, one_.fd());
  one_.Block();
  for (const uint64_t node : {10, 11, 12}) channel_.InvalidateInode(1, node);
  RunUntil([this] { return channel_.counters().stuck == 1; });
  one_.Unblock();
  ExpectNodeAfter(one_, /*stuck=*/10, 11);
  ExpectNodeAfter(one_, /*stuck=*/10, 12);
  EXPECT_EQ(channel_.counters().dropped, 1);
}

TEST_F(NotifierChannelTest, AFloodForAStuckMountIsBounded) {
  channel_.AddMount(1, one_.fd());
  one_.Block();
  for (uint64_t node = 1; node <= 3 * NotifierChannel::kMostPending; ++node) {
    channel_.InvalidateInode(1, node);
    channel_.InvalidateInode(1, node);
  }
  EXPECT_LE(channel_.pending(), NotifierChannel::kMostPending + 1);
  EXPECT_GE(channel_.counters().dropped, static_cast<int64_t>(NotifierChannel::kMostPending));
}

TEST_F(NotifierChannelTest, AChildThatWasKilledIsStartedAgain) {
  channel_.AddMount(1, one_.fd());
  channel_.InvalidateInode(1, 10);
  ExpectNode(one_, 10);
  // The last of our children; earlier tests may have left some that nobody waited for.
  std::string children(4096, '\0');
  const UniqueFd list(open("/proc/thread-self/children", O_RDONLY | O_CLOEXEC));
  const ssize_t bytes = read(list.get(), children.data(), children.size());
  ASSERT_GT(bytes, 0);
  children.resize(static_cast<size_t>(bytes));
  const std::vector<std::string> pids = absl::StrSplit(absl::StripAsciiWhitespace(children), ' ');
  ASSERT_EQ(kill(atoi(pids.back().c_str()), SIGKILL), 0);
  RunUntil([this] { return channel_.counters().ended == 1; });
  channel_.InvalidateInode(1, 11);
  ExpectNode(one_, 11);
}

TEST(NotifierStartTest, AProgramThatIsMissingIsTriedAgainAndStopsNobody) {
  runtime::RealLoop loop;
  Device device;
  NotifierChannel channel(loop, "/nonexistent/dfs-notifier");
  channel.AddMount(1, device.fd());
  channel.InvalidateInode(1, 10);
  EXPECT_EQ(channel.counters().written, 0);
  EXPECT_GT(channel.pending(), 0u);
}

}  // namespace
}  // namespace dfscsi::fuse
