// The dfs-auth program as its agent sees it. The server's side is gss-ntlmssp's own acceptor.

#include "node-agent/smb/auth/auth_child.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "node-agent/smb/auth/auth_test_agent.h"
#include "node-agent/testing/ntlm_acceptor.h"

namespace dfscsi::smb::auth {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr char kHost[] = "fs1.lab.test";
constexpr char kPassword[] = "correct horse battery staple";

Begin NtlmBegin(uint64_t id, const std::string& password = kPassword) {
  return {.context_id = id,
          .mechanism = Mechanism::kNtlm,
          .target_host = kHost,
          .user = "ann",
          .domain = "LAB",
          .password = Secret(password)};
}

std::string Read(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

class AuthChildTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto acceptor =
        testing::NtlmAcceptor::Create({{"LAB", "ann", kPassword}, {"LAB", "bob", "bob's"}});
    ASSERT_TRUE(acceptor.ok()) << acceptor.status();
    acceptor_ = *std::move(acceptor);
  }

  std::unique_ptr<testing::NtlmExchange> NewServer() {
    auto exchange = acceptor_->NewExchange(kHost);
    EXPECT_TRUE(exchange.ok()) << exchange.status();
    return *std::move(exchange);
  }

  std::string ProcPath(const std::string& name) {
    return absl::StrCat("/proc/", agent_.child().pid(), "/", name);
  }

  TestAgent agent_;
  std::unique_ptr<testing::NtlmAcceptor> acceptor_;
};

TEST_F(AuthChildTest, LogOnEndsWithTheServersKey) {
  const auto server = NewServer();
  auto negotiate = agent_.AskToken(NtlmBegin(1));
  ASSERT_TRUE(negotiate.ok()) << negotiate.status();
  EXPECT_FALSE(negotiate->complete);
  EXPECT_EQ(negotiate->context_id, 1u);
  EXPECT_EQ(negotiate->mechanism, Mechanism::kNtlm);

  auto challenge = server->Accept(negotiate->token.Expose());
  ASSERT_TRUE(challenge.ok()) << challenge.status();
  auto authenticate = agent_.AskToken(Step{1, Secret(challenge->token)});
  ASSERT_TRUE(authenticate.ok()) << authenticate.status();
  // The key is not given away before the server's last token is checked.
  EXPECT_FALSE(authenticate->complete);

  auto last = server->Accept(authenticate->token.Expose());
  ASSERT_TRUE(last.ok()) << last.status();
  ASSERT_TRUE(last->complete);
  auto done = agent_.AskToken(Step{1, Secret(last->token)});
  ASSERT_TRUE(done.ok()) << done.status();
  EXPECT_TRUE(done->complete);
  EXPECT_TRUE(done->token.empty());
  EXPECT_TRUE(done->session_key == last->session_key);
  EXPECT_EQ(done->lifetime, absl::InfiniteDuration());

  const auto late = agent_.AskToken(Step{1, Secret("x")});
  EXPECT_THAT(std::string(late.status().message()), HasSubstr("protocol: "));
}

TEST_F(AuthChildTest, ForgedLastTokenIsRefused) {
  const auto server = NewServer();
  auto token = agent_.AskToken(NtlmBegin(1));
  ASSERT_TRUE(token.ok());
  auto reply = server->Accept(token->token.Expose());
  ASSERT_TRUE(reply.ok());
  token = agent_.AskToken(Step{1, Secret(reply->token)});
  ASSERT_TRUE(token.ok());
  reply = server->Accept(token->token.Expose());
  ASSERT_TRUE(reply.ok());
  // The last byte of the mechListMIC: only a server that knows the key can make it.
  std::string forged = reply->token;
  forged.back() = static_cast<char>(forged.back() ^ 1);
  const auto done = agent_.AskToken(Step{1, Secret(forged)});
  EXPECT_THAT(std::string(done.status().message()), HasSubstr("protocol: log-on of LAB\\ann at "));
}

TEST_F(AuthChildTest, InterleavedLogOnsDoNotMix) {
  const auto ann = NewServer();
  const auto bob = NewServer();
  Begin begin_bob = NtlmBegin(2, "bob's");
  begin_bob.user = "bob";
  // Both requests are sent before either is answered.
  ASSERT_TRUE(agent_.Send(NtlmBegin(1)).ok());
  ASSERT_TRUE(agent_.Send(begin_bob).ok());
  auto ann_token = std::get<Token>(*agent_.Receive());
  auto bob_token = std::get<Token>(*agent_.Receive());
  EXPECT_EQ(ann_token.context_id, 1u);
  EXPECT_EQ(bob_token.context_id, 2u);
  testing::NtlmReply ann_reply;
  testing::NtlmReply bob_reply;
  for (int round = 0; round < 2; ++round) {
    auto bob_next = bob->Accept(bob_token.token.Expose());
    auto ann_next = ann->Accept(ann_token.token.Expose());
    ASSERT_TRUE(bob_next.ok()) << bob_next.status();
    ASSERT_TRUE(ann_next.ok()) << ann_next.status();
    bob_reply = *std::move(bob_next);
    ann_reply = *std::move(ann_next);
    ASSERT_TRUE(agent_.Send(Step{2, Secret(bob_reply.token)}).ok());
    ASSERT_TRUE(agent_.Send(Step{1, Secret(ann_reply.token)}).ok());
    bob_token = std::get<Token>(*agent_.Receive());
    ann_token = std::get<Token>(*agent_.Receive());
  }
  EXPECT_EQ(ann_reply.user, "LAB\\ann");
  EXPECT_EQ(bob_reply.user, "LAB\\bob");
  EXPECT_TRUE(ann_token.session_key == ann_reply.session_key);
  EXPECT_TRUE(bob_token.session_key == bob_reply.session_key);
  EXPECT_FALSE(ann_token.session_key == bob_token.session_key);
}

TEST_F(AuthChildTest, ServerRefusesAWrongPassword) {
  const auto server = NewServer();
  auto token = agent_.AskToken(NtlmBegin(1, "wrong"));
  ASSERT_TRUE(token.ok());
  auto reply = server->Accept(token->token.Expose());
  ASSERT_TRUE(reply.ok());
  token = agent_.AskToken(Step{1, Secret(reply->token)});
  ASSERT_TRUE(token.ok());
  EXPECT_EQ(server->Accept(token->token.Expose()).status().code(),
            absl::StatusCode::kUnauthenticated);
}

TEST_F(AuthChildTest, BadRequestsGetOneClearLine) {
  struct Case {
    const char* what;
    Begin begin;
    const char* message;
  };
  const auto with = [](auto change) {
    Begin begin = NtlmBegin(1);
    change(begin);
    return begin;
  };
  const Case kCases[] = {
      {"no user", with([](Begin& b) { b.user = b.domain = ""; }),
       "bad_credentials: log-on of ? at fs1.lab.test: no user name (anonymous and guest log-ons "
       "are refused)"},
      {"no password", with([](Begin& b) { b.password = Secret(); }),
       "bad_credentials: log-on of LAB\\ann at fs1.lab.test: no password"},
      {"NUL in password", with([](Begin& b) { b.password = Secret(std::string("a\0b", 3)); }),
       "bad_credentials: log-on of LAB\\ann at fs1.lab.test: the password holds a NUL byte"},
      {"user is no name", with([](Begin& b) { b.user = "OTHER\\ann"; }),
       "bad_credentials: log-on: 'OTHER\\ann' names another domain than 'LAB'"},
      {"no server", with([](Begin& b) { b.target_host = ""; }),
       "protocol: log-on: no valid server name"},
      {"server is no name", with([](Begin& b) { b.target_host = "fs1@evil"; }),
       "protocol: log-on: no valid server name"},
      {"NTLM with a keytab", with([](Begin& b) {
         b.password = Secret();
         b.keytab = Secret("x");
       }),
       "no_mechanism: log-on of LAB\\ann at fs1.lab.test: NTLM needs a user name and a password"},
  };
  for (const Case& c : kCases) {
    const auto token = agent_.AskToken(c.begin);
    EXPECT_EQ(std::string(token.status().message()), c.message) << c.what;
  }
  // None of it harms the next.
  EXPECT_TRUE(agent_.AskToken(NtlmBegin(1)).ok());
}

TEST_F(AuthChildTest, BadTokensEndTheirContextAlone) {
  ASSERT_TRUE(agent_.AskToken(NtlmBegin(1)).ok());
  for (const std::string& bad : {std::string(), std::string("garbage"), std::string(65535, 'x')}) {
    ASSERT_TRUE(agent_.AskToken(NtlmBegin(2)).ok());
    const auto token = agent_.AskToken(Step{2, Secret(bad)});
    EXPECT_THAT(std::string(token.status().message()),
                HasSubstr("protocol: log-on of LAB\\ann at fs1.lab.test: the server's token: "));
    const auto gone = agent_.AskToken(Step{2, Secret("x")});
    EXPECT_EQ(std::string(gone.status().message()), "protocol: log-on: no such context");
  }
  const auto in_use = agent_.AskToken(NtlmBegin(1));
  EXPECT_EQ(std::string(in_use.status().message()), "protocol: log-on: context is in use");
}

TEST_F(AuthChildTest, EndForgetsAContext) {
  ASSERT_TRUE(agent_.AskToken(NtlmBegin(1)).ok());
  ASSERT_TRUE(agent_.Send(End{1}).ok());
  ASSERT_TRUE(agent_.Send(End{77}).ok());  // Never there: ignored.
  EXPECT_TRUE(agent_.AskToken(NtlmBegin(1)).ok());
}

TEST_F(AuthChildTest, KilledInTheMiddle) {
  ASSERT_TRUE(agent_.AskToken(NtlmBegin(1)).ok());
  agent_.child().Kill();
  EXPECT_TRUE(agent_.WaitForEnd());
  EXPECT_EQ(agent_.Receive().status().code(), absl::StatusCode::kUnavailable);
}

TEST_F(AuthChildTest, EndsWhenTheSocketCloses) {
  ASSERT_TRUE(agent_.AskToken(NtlmBegin(1)).ok());
  agent_.child().socket.reset();
  EXPECT_TRUE(agent_.WaitForEnd());
}

TEST_F(AuthChildTest, EndsOnNonsense) {
  ASSERT_TRUE(agent_.SendBytes(std::string(64, '\xff')).ok());
  EXPECT_TRUE(agent_.WaitForEnd());
}

// The agent is gone, but its socket lives on in somebody who inherited it.
TEST_F(AuthChildTest, EndsWithItsParent) {
  int report[2];  // The middle process tells the child's number.
  int hold[2];    // Ends the holder of the socket when this test ends.
  ASSERT_EQ(pipe2(report, O_CLOEXEC), 0);
  ASSERT_EQ(pipe2(hold, O_CLOEXEC), 0);
  const pid_t middle = fork();
  if (middle == 0) {
    close(hold[1]);
    TestAgent agent;
    // Answered: the child has asked for its death signal.
    if (!agent.AskToken(NtlmBegin(1)).ok()) _exit(1);
    if (fork() == 0) {
      char byte = 0;
      _exit(static_cast<int>(read(hold[0], &byte, 1)));
    }
    const pid_t pid = agent.child().pid();
    if (write(report[1], &pid, sizeof(pid)) != sizeof(pid)) _exit(1);
    while (true) pause();
  }
  const UniqueFd report_in(report[0]);
  const UniqueFd hold_out(hold[1]);
  close(report[1]);
  close(hold[0]);
  pid_t pid = -1;
  ASSERT_EQ(read(report_in.get(), &pid, sizeof(pid)), ssize_t{sizeof(pid)});
  const UniqueFd pidfd(static_cast<int>(syscall(SYS_pidfd_open, pid, 0)));
  ASSERT_TRUE(static_cast<bool>(pidfd));
  kill(middle, SIGKILL);
  waitpid(middle, nullptr, 0);
  EXPECT_TRUE(TestAgent::WaitFor(pidfd.get(), POLLIN));
}

TEST_F(AuthChildTest, InheritsNothing) {
  // Neither descriptors that somebody forgot to mark ...
  const UniqueFd unmarked(memfd_create("unmarked", 0));
  ASSERT_EQ(fcntl(unmarked.get(), F_GETFD), 0);
  setenv("DFSCSI_TEST_SECRET", "environment", 1);
  TestAgent agent;
  unsetenv("DFSCSI_TEST_SECRET");
  ASSERT_TRUE(agent.AskToken(NtlmBegin(1)).ok());
  const std::string proc = absl::StrCat("/proc/", agent.child().pid());
  std::vector<std::string> open_files;
  for (const auto& entry : std::filesystem::directory_iterator(proc + "/fd")) {
    std::error_code error;
    const std::string target = std::filesystem::read_symlink(entry.path(), error).string();
    // Its own memory files aside.
    if (!absl::StartsWith(target, "/memfd:dfs-auth")) open_files.push_back(entry.path().filename());
  }
  std::sort(open_files.begin(), open_files.end());
  EXPECT_THAT(open_files, ElementsAre("0", "1", "2", "3"));
  // ... nor the environment.
  EXPECT_THAT(Read(proc + "/environ"), Not(HasSubstr("DFSCSI_TEST_SECRET")));
  EXPECT_EQ(Read(proc + "/cmdline"), std::string("dfs-auth\0", 9));
}

// Bytes in all memory of a process that can be written, as root sees it.
std::string WritableMemory(pid_t pid) {
  std::string memory;
  std::ifstream maps(absl::StrCat("/proc/", pid, "/maps"));
  const UniqueFd mem(open(absl::StrCat("/proc/", pid, "/mem").c_str(), O_RDONLY | O_CLOEXEC));
  for (std::string line; std::getline(maps, line);) {
    uint64_t start = 0;
    uint64_t end = 0;
    char mode[5] = {};
    if (sscanf(line.c_str(), "%lx-%lx %4s", &start, &end, mode) != 3 || mode[1] != 'w') continue;
    constexpr uint64_t kMaxBytes = 64 << 20;  // Sanitizers reserve terabytes.
    std::string part(std::min(end - start, kMaxBytes), '\0');
    const ssize_t n = pread(mem.get(), part.data(), part.size(), static_cast<off_t>(start));
    if (n > 0) memory.append(part, 0, static_cast<size_t>(n));
  }
  return memory;
}

// NTLM hashes the password as UTF-16.
std::string Utf16(std::string_view ascii) {
  std::string wide;
  for (const char c : ascii) wide.append({c, '\0'});
  return wide;
}

TEST_F(AuthChildTest, SecretsAreNowhereToBeSeen) {
  if (geteuid() != 0) GTEST_SKIP() << "only root may look into the child";
  const auto server = NewServer();
  auto token = agent_.AskToken(NtlmBegin(1));
  ASSERT_TRUE(token.ok());
  for (const char* file : {"cmdline", "environ", "comm", "status", "maps"}) {
    EXPECT_THAT(Read(ProcPath(file)), Not(HasSubstr(kPassword))) << file;
  }
  auto reply = server->Accept(token->token.Expose());
  ASSERT_TRUE(reply.ok());
  token = agent_.AskToken(Step{1, Secret(reply->token)});
  ASSERT_TRUE(token.ok());
  reply = server->Accept(token->token.Expose());
  ASSERT_TRUE(reply.ok());
  token = agent_.AskToken(Step{1, Secret(reply->token)});
  ASSERT_TRUE(token.ok());
  // While the context lives it holds the key; so this looks in the right place.
  std::string memory = WritableMemory(agent_.child().pid());
  EXPECT_NE(memory.find(token->session_key.Expose()), std::string::npos);
  EXPECT_EQ(memory.find(kPassword), std::string::npos) << "the password stays in memory";
  EXPECT_EQ(memory.find(Utf16(kPassword)), std::string::npos) << "as UTF-16";
  ASSERT_TRUE(agent_.Send(End{1}).ok());
  // A request that is answered after the End was handled.
  ASSERT_FALSE(agent_.AskToken(Step{1, Secret("x")}).ok());
  memory = WritableMemory(agent_.child().pid());
  EXPECT_EQ(memory.find(kPassword), std::string::npos) << "the password stays in memory";
#if !__has_feature(thread_sanitizer)  // Its allocator keeps what ours would overwrite.
  EXPECT_EQ(memory.find(token->session_key.Expose()), std::string::npos)
      << "the session key stays in memory";
#endif
}

TEST_F(AuthChildTest, OthersCannotLookInside) {
  ASSERT_TRUE(agent_.AskToken(NtlmBegin(1)).ok());
  // What PR_SET_DUMPABLE 0 shows in /proc: the files belong to root, whoever runs the process.
  const std::string status = Read(ProcPath("status"));
  EXPECT_THAT(status, HasSubstr("NoNewPrivs:\t1"));
  EXPECT_THAT(Read(ProcPath("limits")), ::testing::ContainsRegex("Max core file size *0 *0 "));
}

TEST(StartAuthChildTest, SaysWhyItCannot) {
  EXPECT_EQ(StartAuthChild("/nonexistent/dfs-auth").status().code(), absl::StatusCode::kNotFound);
  const auto status = StartAuthChild("/etc/passwd").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kPermissionDenied);
  EXPECT_THAT(std::string(status.message()), HasSubstr("/etc/passwd"));
}

TEST(StartAuthChildTest, LeavesNoZombieBehind) {
  pid_t pid = -1;
  {
    TestAgent agent;
    pid = agent.child().pid();
    AuthChild moved = std::move(agent.child());
    EXPECT_EQ(moved.pid(), pid);
    EXPECT_EQ(kill(pid, 0), 0);
  }
  EXPECT_EQ(kill(pid, 0), -1);
  EXPECT_EQ(errno, ESRCH);
}

}  // namespace
}  // namespace dfscsi::smb::auth
