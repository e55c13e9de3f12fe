#include "node-agent/agent/credential_socket.h"

#include <gtest/gtest.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <functional>
#include <string>
#include <utility>

#include "node-agent/runtime/real_loop.h"

namespace dfscsi::agent {
namespace {

using runtime::Deadline;
using runtime::Task;

class CredentialSocketTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string folder = testing::TempDir() + "credential-socket-XXXXXX";
    ASSERT_NE(mkdtemp(folder.data()), nullptr);
    folder_ = folder;
    auto listening = CredentialSocket::Listen(loop_, folder_);
    ASSERT_TRUE(listening.ok()) << listening.status();
    socket_ = *std::move(listening);
  }
  void TearDown() override {
    socket_.reset();
    unlink((folder_ + kCredentialSocketName).c_str());
    rmdir(folder_.c_str());
  }

  // A caller that has sent `message`.
  UniqueFd Send(const std::string& message) {
    UniqueFd fd(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    sockaddr_un address = {.sun_family = AF_UNIX};
    const std::string path = folder_ + kCredentialSocketName;
    memcpy(address.sun_path, path.data(), path.size());
    EXPECT_EQ(connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
    EXPECT_EQ(send(fd.get(), message.data(), message.size(), 0),
              static_cast<ssize_t>(message.size()));
    return fd;
  }

  // What the agent answers; "": it hangs up.
  std::string Answer(const UniqueFd& fd) {
    std::string answer(64, '\0');
    ssize_t n = -1;
    const auto receive = [](CredentialSocketTest* test, int from, std::string* into,
                            ssize_t* size) -> Task<void> {
      const std::unique_ptr<runtime::FdWatch> watch = test->loop_.Watch(from);
      EXPECT_TRUE((co_await watch->WaitReadable(Deadline::After(absl::Seconds(20)))).ok());
      *size = recv(from, into->data(), into->size(), 0);
    };
    loop_.RunUntilDone(receive(this, fd.get(), &answer, &n));
    answer.resize(n < 0 ? 0 : static_cast<size_t>(n));
    return answer;
  }

  // Lets the loop run until `condition`.
  bool Becomes(std::function<bool()> condition) {
    const auto wait = [](std::function<bool()> met, bool* done) -> Task<void> {
      for (int i = 0; i < 2000 && !(*done = met()); ++i) {
        (void)co_await runtime::Sleep(absl::Milliseconds(5), Deadline::Never());
      }
    };
    bool done = false;
    loop_.RunUntilDone(wait(std::move(condition), &done));
    return done;
  }

  runtime::RealLoop loop_;
  std::string folder_;
  std::unique_ptr<CredentialSocket> socket_;
};

TEST_F(CredentialSocketTest, ATicketIsGoodOnce) {
  const UniqueFd caller = Send("\x01sesame");
  const UniqueFd other = Send(std::string("\x01", 1));  // An empty password is one, too.
  const std::string ticket = Answer(caller);
  const std::string other_ticket = Answer(other);
  ASSERT_EQ(ticket.size(), kTicketBytes);
  ASSERT_NE(ticket, other_ticket);
  EXPECT_EQ(socket_->Take(ticket)->Expose(), "sesame");
  EXPECT_FALSE(socket_->Take(ticket).has_value());
  EXPECT_EQ(socket_->Take(other_ticket)->Expose(), "");
  EXPECT_FALSE(socket_->Take(std::string(kTicketBytes, '\0')).has_value());
  EXPECT_FALSE(socket_->Take("").has_value());
}

TEST_F(CredentialSocketTest, ACallerThatHangsUpTakesItsSecretAway) {
  UniqueFd caller = Send("\x01sesame");
  const UniqueFd other = Send("\x01other");
  const std::string ticket = Answer(caller);
  const std::string other_ticket = Answer(other);
  caller.reset();
  EXPECT_TRUE(Becomes([&] { return socket_->size() == 1; }));
  EXPECT_FALSE(socket_->Take(ticket).has_value());
  EXPECT_TRUE(socket_->Take(other_ticket).has_value());
}

TEST_F(CredentialSocketTest, WhatIsNoCredentialIsHungUpOn) {
  for (const std::string& message :
       {std::string("\x02sesame"), std::string("sesame"), std::string("\0", 1),
        "\x01" + std::string(kMostSecretBytes + 1, 'x'), std::string(60'000, '\x01')}) {
    EXPECT_EQ(Answer(Send(message)), "") << message.size();
  }
  const UniqueFd longest = Send("\x01" + std::string(kMostSecretBytes, 'x'));
  EXPECT_EQ(Answer(longest).size(), kTicketBytes);
}

TEST_F(CredentialSocketTest, ACallerWhoCannotBeAcceptedYetCostsNoProcessorTime) {
  const auto processor_time = [] {
    timespec used;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used);
    return absl::DurationFromTimespec(used);
  };
  const UniqueFd caller = Send("\x01sesame");
  rlimit files;
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &files), 0);
  const rlimit none = {.rlim_cur = 0, .rlim_max = files.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
  const absl::Duration before = processor_time();
  const auto wait = [](absl::Duration time) -> Task<void> {
    (void)co_await runtime::Sleep(time, Deadline::Never());
  };
  loop_.RunUntilDone(wait(absl::Milliseconds(500)));
  const absl::Duration used = processor_time() - before;
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &files), 0);
  EXPECT_LT(used, absl::Milliseconds(20));
  EXPECT_EQ(Answer(caller).size(), kTicketBytes);
}

}  // namespace
}  // namespace dfscsi::agent
