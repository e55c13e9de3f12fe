// The real dfs-mounter, the raw test_agent, the real kernel: who dies, and what the application
// sees.
//
// Needs root and /dev/fuse. All mounts are made in a mount namespace of the test's own, and every
// child dies with the test, so nothing is left behind by a test that is killed.

#include <errno.h>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/fuse.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <fstream>
#include <functional>
#include <memory>
#include <random>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "node-agent/state/heartbeat.h"
#include "node-agent/state/mount_tables.h"
#include "node-agent/state/mounter_protocol.h"
#include "node-agent/state/request_arena.h"

namespace dfscsi::mounter {
namespace {

using state::Envelope;
using state::Message;
using state::Role;
using Clock = std::chrono::steady_clock;

constexpr uint64_t kWord = 0x9E3779B97F4A7C15;
constexpr uint64_t kFileBytes = 16 << 20;
constexpr std::chrono::seconds kDeadline(30);  // Of every wait: generous, for slow machines.

double Seconds(Clock::time_point since) {
  return std::chrono::duration<double>(Clock::now() - since).count();
}

// Waits for a condition; the short pause only saves processor time.
bool WaitFor(const std::function<bool()>& condition) {
  const auto start = Clock::now();
  while (!condition()) {
    if (Clock::now() - start > kDeadline) return false;
    usleep(1'000);
  }
  return true;
}

std::string ReadAll(const std::string& path) {
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

// A child that dies with the test; its stdout and stderr go to a file.
class Process {
 public:
  Process(std::vector<std::string> arguments, std::string log) : log_(std::move(log)) {
    std::vector<char*> argv;
    for (std::string& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    const int out = open(log_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    pid_ = fork();
    if (pid_ == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      dup2(out, 1);
      dup2(out, 2);
      execv(argv[0], argv.data());
      _exit(127);
    }
    close(out);
  }
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;
  ~Process() { Kill(SIGKILL); }

  pid_t pid() const { return pid_; }
  std::string log() const { return ReadAll(log_); }
  bool Logged(const std::string& text) const { return log().find(text) != std::string::npos; }
  void Signal(int signal) const { kill(pid_, signal); }
  // Waits for its end; -signal or the exit code.
  int Kill(int signal) {
    if (pid_ <= 0) return status_;
    kill(pid_, signal);
    return Wait();
  }
  int Wait() {
    if (pid_ <= 0) return status_;
    int status = 0;
    waitpid(pid_, &status, 0);
    pid_ = -1;
    status_ = WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
    return status_;
  }

 private:
  std::string log_;
  pid_t pid_;
  int status_ = 0;
};

// An agent (or tool) played by the test itself.
class Scripted {
 public:
  explicit Scripted(const std::string& socket_dir) {
    EXPECT_TRUE(WaitFor([&] {
      auto socket = state::MessageSocket::Connect(socket_dir);
      if (!socket.ok()) return false;
      socket_ = *std::move(socket);
      return true;
    }));
  }
  // It lives on in the test's process: an active agent must have drained.
  ~Scripted() { socket_.Send(state::Draining()).IgnoreError(); }
  static state::Hello AgentHello() {
    state::Hello hello;
    hello.role = Role::kAgent;
    hello.arena_layout = state::kArenaLayoutVersion;
    hello.tables_layout = state::kTablesLayoutVersion;
    hello.tables_oldest_readable = state::kTablesOldestReadable;
    hello.build_id = "scripted";
    return hello;
  }

  void Send(const Message& message, uint64_t id = 0, absl::Span<const int> fds = {}) {
    EXPECT_TRUE(socket_.Send(message, id, fds).ok());
  }
  // The next message of type T; others before it are passed over. nullopt: hung up, or not in time.
  template <typename T>
  std::optional<T> Receive(std::vector<UniqueFd>* fds = nullptr) {
    const auto start = Clock::now();
    while (Clock::now() - start < kDeadline) {
      if (heartbeat_) heartbeat_->Beat(line_);  // Else the mounter kills the test.
      auto received = socket_.Receive();
      if (!received.ok()) return std::nullopt;
      if (!received->has_value()) {
        pollfd readable = {socket_.fd(), POLLIN, 0};
        poll(&readable, 1, 200);
        continue;
      }
      Envelope& envelope = **received;
      if (const auto* welcome = std::get_if<state::Welcome>(&envelope.message)) {
        heartbeat_.emplace(state::Heartbeat::Map(envelope.fds[3].get()).value());
        line_ = welcome->heartbeat_line;
      }
      if (auto* message = std::get_if<T>(&envelope.message)) {
        if (fds != nullptr) *fds = std::move(envelope.fds);
        return std::move(*message);
      }
    }
    return std::nullopt;
  }
  bool NothingComes(int ms) {
    pollfd readable = {socket_.fd(), POLLIN, 0};
    return poll(&readable, 1, ms) == 0;
  }
  state::Error Fails(const Message& message) {
    Send(message, 9);
    return Receive<state::Error>().value_or(state::Error{0, "no error"});
  }

 private:
  state::MessageSocket socket_;
  std::optional<state::Heartbeat> heartbeat_;
  uint32_t line_ = 0;
};

class DeathTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    if (geteuid() != 0 || access("/dev/fuse", R_OK | W_OK) != 0) return;
    ASSERT_EQ(unshare(CLONE_NEWNS), 0) << strerror(errno);
    ASSERT_EQ(mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr), 0) << strerror(errno);
  }

  void SetUp() override {
    if (geteuid() != 0) GTEST_SKIP() << "needs root";
    if (access("/dev/fuse", R_OK | W_OK) != 0) GTEST_SKIP() << "needs /dev/fuse";
    char name[] = "/tmp/dfs-death-XXXXXX";
    dir_ = mkdtemp(name);
    run_ = dir_ + "/run";
    point_ = dir_ + "/mnt";
    mkdir(point_.c_str(), 0755);
    StartMounter();
  }
  void TearDown() override {
    if (dir_.empty()) return;
    agents_.clear();
    mounter_.reset();
    while (umount2(point_.c_str(), MNT_DETACH) == 0) {
    }
    if (HasFailure()) {
      printf("logs in %s\n", dir_.c_str());
    } else {
      (void)!system(("rm -rf --one-file-system " + dir_).c_str());
    }
  }

  void StartMounter(std::vector<std::string> flags = {}) {
    std::vector<std::string> arguments = {DFS_MOUNTER, "--socket-dir=" + run_};
    arguments.insert(arguments.end(), flags.begin(), flags.end());
    mounter_ = std::make_unique<Process>(arguments, dir_ + "/mounter." + std::to_string(++logs_));
  }
  Process& StartAgent(std::vector<std::string> flags = {}) {
    std::vector<std::string> arguments = {TEST_AGENT, run_, "--mount=" + point_,
                                          "--size-mib=" + std::to_string(kFileBytes >> 20)};
    arguments.insert(arguments.end(), flags.begin(), flags.end());
    agents_.push_back(
        std::make_unique<Process>(arguments, dir_ + "/agent." + std::to_string(++logs_)));
    return *agents_.back();
  }

  state::StatusReply Status() {
    Scripted tool(run_);
    tool.Send(state::Hello{});
    tool.Send(state::StatusRequest(), 1);
    return tool.Receive<state::StatusReply>().value_or(state::StatusReply());
  }
  bool WaitForAgents(uint32_t agents, uint32_t mounts = 1) {
    return WaitFor([&] {
      const state::StatusReply status = Status();
      return status.agents == agents && status.mounts == mounts && status.active_pid != 0;
    });
  }
  bool IsMounted() {
    return ReadAll("/proc/self/mountinfo").find(" " + point_ + " ") != std::string::npos;
  }
  std::string file() const { return point_ + "/file"; }

  std::string dir_, run_, point_;
  int logs_ = 0;
  std::unique_ptr<Process> mounter_;
  std::vector<std::unique_ptr<Process>> agents_;
};

// Readers of the mount that know every right answer. They are a process of their own: a child of a
// process with a file of the mount open closes it at exec, which is a FLUSH, which waits for an
// agent; the next mounter could not even be started.
class Readers {
 public:
  explicit Readers(std::string path) : path_(std::move(path)) {
    shared_ = static_cast<Shared*>(
        mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    pid_ = fork();
    if (pid_ != 0) return;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    std::vector<std::thread> threads;
    for (const bool direct : {true, true, false}) {
      threads.emplace_back([this, direct] { ReadBlocks(direct); });
    }
    threads.emplace_back([this] { OpenAndStat(); });
    for (std::thread& thread : threads) thread.join();
    _exit(0);
  }
  ~Readers() {
    if (pid_ > 0) kill(pid_, SIGKILL);  // After a failure: there may be nobody to read from.
    Stop();
  }

  void Stop() {
    if (pid_ <= 0) return;
    shared_->stop = true;
    waitpid(pid_, nullptr, 0);
    pid_ = -1;
  }
  uint64_t reads() const { return shared_->reads; }
  int errors() const { return shared_->errors; }
  double longest_stall() const { return shared_->longest_stall; }

 private:
  void Failed(const char* what) {
    ++shared_->errors;
    fprintf(stderr, "reader: %s: %s\n", what, strerror(errno));
  }
  void Timed(Clock::time_point start) {
    const double seconds = Seconds(start);
    double longest = shared_->longest_stall;
    while (seconds > longest && !shared_->longest_stall.compare_exchange_weak(longest, seconds)) {
    }
    ++shared_->reads;
  }
  void ReadBlocks(bool direct) {
    const UniqueFd fd(open(path_.c_str(), O_RDONLY | O_CLOEXEC | (direct ? O_DIRECT : 0)));
    if (!fd) return Failed("open");
    constexpr size_t kMost = 256 << 10;
    std::unique_ptr<char, decltype(&free)> buffer(static_cast<char*>(aligned_alloc(4096, kMost)),
                                                  &free);
    std::mt19937 random(direct);
    while (!shared_->stop) {
      const size_t bytes = 4096 << random() % 7;
      const uint64_t offset = random() % (kFileBytes / bytes) * bytes;
      if (!direct) posix_fadvise(fd.get(), 0, 0, POSIX_FADV_DONTNEED);
      const auto start = Clock::now();
      const ssize_t n = pread(fd.get(), buffer.get(), bytes, static_cast<off_t>(offset));
      Timed(start);
      if (n != static_cast<ssize_t>(bytes)) {
        if (n >= 0) errno = 0;
        Failed("pread");
        continue;
      }
      for (size_t i = 0; i < bytes; i += 8) {
        uint64_t word;
        memcpy(&word, buffer.get() + i, 8);
        if (word == (offset + i) * kWord) continue;
        errno = 0;
        Failed("wrong bytes");
        break;
      }
    }
  }
  void OpenAndStat() {
    const std::string missing = path_ + ".missing";
    while (!shared_->stop) {
      const auto start = Clock::now();
      const UniqueFd fd(open(path_.c_str(), O_RDONLY | O_CLOEXEC));
      struct stat st;
      if (!fd || fstat(fd.get(), &st) != 0 || st.st_size != kFileBytes) Failed("open and fstat");
      if (access(missing.c_str(), F_OK) == 0 || errno != ENOENT) Failed("access of a missing file");
      Timed(start);
    }
  }

  struct Shared {
    std::atomic<bool> stop;
    std::atomic<uint64_t> reads;
    std::atomic<int> errors;
    std::atomic<double> longest_stall;
  };
  const std::string path_;
  Shared* shared_;
  pid_t pid_;
};

// ---- deaths ----

TEST_F(DeathTest, AgentKilled50TimesUnderReaders) {
  StartAgent();
  ASSERT_TRUE(WaitForAgents(1));
  StartAgent();
  ASSERT_TRUE(WaitForAgents(2));
  std::vector<double> activations;
  uint32_t adopted = 0;
  {
    Readers readers(file());
    for (int kills = 0; kills < 50; ++kills) {
      const state::StatusReply before = Status();
      const uint64_t reads = readers.reads();
      ASSERT_TRUE(WaitFor([&] { return readers.reads() > reads + 50; })) << "readers stand still";
      auto victim = std::find_if(agents_.begin(), agents_.end(), [&](const auto& agent) {
        return agent->pid() == static_cast<pid_t>(before.active_pid);
      });
      ASSERT_NE(victim, agents_.end());
      const Process& next = victim == agents_.begin() ? *agents_.back() : *agents_.front();
      const auto killed = Clock::now();
      (*victim)->Signal(SIGKILL);
      ASSERT_TRUE(WaitFor([&] { return next.Logged("active"); })) << mounter_->log();
      activations.push_back(Seconds(killed));
      agents_.erase(victim);
      unsigned generation = 0, found = 0;
      const std::string log = next.log();
      sscanf(log.c_str() + log.find("active"), "active %u %u", &generation, &found);
      EXPECT_EQ(generation, before.generation + 1);
      adopted += found;
      StartAgent();
      ASSERT_TRUE(WaitForAgents(2));
    }
    readers.Stop();
    EXPECT_EQ(readers.errors(), 0);
    std::sort(activations.begin(), activations.end());
    printf(
        "50 kills: %lu reads, %u requests run again, standby active after %.1f ms (median), "
        "%.1f ms (most); longest read %.0f ms\n",
        readers.reads(), adopted, activations[25] * 1e3, activations.back() * 1e3,
        readers.longest_stall() * 1e3);
  }
  EXPECT_GT(adopted, 0u);  // Else no kill met a request.
}

TEST_F(DeathTest, MounterKilled20TimesUnderReaders) {
  StartAgent();
  ASSERT_TRUE(WaitForAgents(1));
  StartAgent();
  ASSERT_TRUE(WaitForAgents(2));
  const state::StatusReply before = Status();
  Readers readers(file());
  for (int kills = 0; kills < 20; ++kills) {
    const uint64_t reads = readers.reads();
    mounter_->Kill(SIGKILL);
    // Reading goes on while there is no mounter.
    ASSERT_TRUE(WaitFor([&] { return readers.reads() > reads + 50; }));
    StartMounter();
    ASSERT_TRUE(WaitForAgents(2)) << mounter_->log();
    const state::StatusReply after = Status();
    EXPECT_EQ(after.active_pid, before.active_pid);
    EXPECT_EQ(after.generation, before.generation);
  }
  // The new mounter is good for a hand-over, and for another one after a death of both.
  for (int round = 0; round < 3; ++round) {
    const uint32_t pid = Status().active_pid;
    mounter_->Kill(SIGKILL);
    for (auto& agent : agents_) {
      if (agent->pid() == static_cast<pid_t>(pid)) agent->Kill(SIGKILL);
    }
    StartMounter();
    ASSERT_TRUE(WaitForAgents(1)) << mounter_->log();
    StartAgent();
    ASSERT_TRUE(WaitForAgents(2));
    const uint64_t reads = readers.reads();
    ASSERT_TRUE(WaitFor([&] { return readers.reads() > reads + 50; }));
  }
  readers.Stop();
  EXPECT_EQ(readers.errors(), 0);
  EXPECT_EQ(Status().generation, before.generation + 3);
}

TEST_F(DeathTest, PlannedHandOver) {
  StartAgent();
  ASSERT_TRUE(WaitForAgents(1));
  Readers readers(file());
  for (int upgrades = 0; upgrades < 10; ++upgrades) {
    Process& next = StartAgent();
    ASSERT_TRUE(WaitForAgents(2));
    EXPECT_EQ(agents_.front()->Kill(SIGTERM), 0);
    agents_.erase(agents_.begin());
    ASSERT_TRUE(WaitFor([&] { return next.Logged("active"); }));
  }
  readers.Stop();
  EXPECT_EQ(readers.errors(), 0);
  printf("10 hand-overs: longest read %.0f ms\n", readers.longest_stall() * 1e3);
}

TEST_F(DeathTest, WithoutAnyAgentReadersWaitAndGoOn) {
  Process& agent = StartAgent();
  ASSERT_TRUE(WaitForAgents(1));
  Readers readers(file());
  ASSERT_TRUE(WaitFor([&] { return readers.reads() > 100; }));
  agent.Kill(SIGKILL);
  ASSERT_TRUE(WaitFor([&] { return mounter_->Logged("no agent"); }));
  StartAgent();
  ASSERT_TRUE(WaitForAgents(1));
  const uint64_t reads = readers.reads();
  ASSERT_TRUE(WaitFor([&] { return readers.reads() > reads + 100; }));
  readers.Stop();
  EXPECT_EQ(readers.errors(), 0);
}

TEST_F(DeathTest, AHungAgentIsKilledAndReplaced) {
  for (const bool stopped : {false, true}) {
    agents_.clear();
    // One that sleeps in its loop, then one that is stopped by a signal.
    Process& hung = StartAgent(stopped ? std::vector<std::string>{}
                                       : std::vector<std::string>{"--hang-after=1"});
    ASSERT_TRUE(WaitForAgents(1));
    if (stopped) hung.Signal(SIGSTOP);
    Process& next = StartAgent();
    ASSERT_TRUE(WaitFor([&] { return next.Logged("active"); })) << mounter_->log();
    EXPECT_EQ(hung.Wait(), -SIGKILL);
    EXPECT_TRUE(mounter_->Logged("has no heartbeat"));
    EXPECT_EQ(open(file().c_str(), O_RDONLY | O_DIRECTORY), -1);
    EXPECT_EQ(errno, ENOTDIR);
  }
}

// ---- two agents are never active ----

// As one does that cannot read a message: it is out of file descriptors.
TEST_F(DeathTest, AnAgentThatHangsUpAndLivesIsKilledBeforeAnotherIsActive) {
  Process& lives = StartAgent({"--hang-up-after=1"});
  ASSERT_TRUE(WaitForAgents(1));
  Process& next = StartAgent();
  ASSERT_TRUE(WaitFor([&] { return next.Logged("active"); })) << mounter_->log();
  siginfo_t dead = {};
  ASSERT_EQ(waitid(P_PID, static_cast<id_t>(lives.pid()), &dead, WEXITED | WNOHANG | WNOWAIT), 0);
  EXPECT_EQ(dead.si_pid, lives.pid()) << "it lives: two agents serve one mount";
  EXPECT_EQ(lives.Kill(SIGTERM), -SIGKILL);
  EXPECT_EQ(access(file().c_str(), R_OK), 0);
}

TEST_F(DeathTest, AStandbyThatReconnectsFirstIsNotActivated) {
  auto agent = std::make_unique<Scripted>(run_);
  agent->Send(Scripted::AgentHello());
  std::vector<UniqueFd> node_fds;
  const auto welcome = agent->Receive<state::Welcome>(&node_fds);
  ASSERT_TRUE(welcome.has_value());
  ASSERT_EQ(node_fds.size(), 4u);
  const auto activate = agent->Receive<state::Activate>();
  ASSERT_TRUE(activate.has_value());
  mounter_->Kill(SIGKILL);
  StartMounter();
  state::Hello hello = Scripted::AgentHello();
  hello.state_id = welcome->state_id;
  Scripted standby(run_);
  standby.Send(hello);
  ASSERT_TRUE(standby.Receive<state::EscrowWanted>().has_value());
  std::vector<int> fds;
  for (const UniqueFd& fd : node_fds) fds.push_back(fd.get());
  standby.Send(
      state::EscrowNode{welcome->state_id, welcome->granted_steps, state::kArenaLayoutVersion}, 0,
      fds);
  standby.Send(state::EscrowEnd());
  ASSERT_TRUE(standby.Receive<state::ListEnd>().has_value());
  // The process that was active (this one) lives.
  EXPECT_TRUE(standby.NothingComes(1'500));
  EXPECT_EQ(Status().active_pid, 0u);
  hello.active_generation = activate->generation;
  Scripted again(run_);
  again.Send(hello);
  const auto goes_on = again.Receive<state::Activate>();
  ASSERT_TRUE(goes_on.has_value());
  EXPECT_EQ(goes_on->generation, activate->generation);
  EXPECT_TRUE(standby.NothingComes(0));
}

TEST_F(DeathTest, ADrainingAgentIsNeverActivated) {
  auto first = std::make_unique<Scripted>(run_);
  first->Send(Scripted::AgentHello());
  ASSERT_TRUE(first->Receive<state::Activate>().has_value());
  Scripted older(run_), newer(run_);
  older.Send(Scripted::AgentHello());
  ASSERT_TRUE(older.Receive<state::ListEnd>().has_value());
  newer.Send(Scripted::AgentHello());
  ASSERT_TRUE(newer.Receive<state::ListEnd>().has_value());
  newer.Send(state::Draining());
  ASSERT_TRUE(WaitFor([&] { return mounter_->Logged("drains"); }));
  first.reset();
  const auto activate = older.Receive<state::Activate>();
  ASSERT_TRUE(activate.has_value());
  EXPECT_EQ(activate->generation, 2u);
  EXPECT_TRUE(newer.NothingComes(0));
}

TEST_F(DeathTest, AnAgentThatCannotReadTheTablesIsRefused) {
  StartAgent();
  ASSERT_TRUE(WaitForAgents(1));
  Process& other = StartAgent({"--layout=99"});
  EXPECT_EQ(other.Wait(), 3);
  EXPECT_THAT(other.log(),
              testing::HasSubstr(absl::StrCat("have layout ", state::kTablesLayoutVersion,
                                              ", this agent reads 99 to 99")));
  EXPECT_EQ(Status().agents, 1u);
}

// ---- mounts ----

TEST_F(DeathTest, MountPointsThatCannotBe) {
  Scripted agent(run_);
  agent.Send(Scripted::AgentHello());
  ASSERT_TRUE(agent.Receive<state::Activate>().has_value());
  state::MountRequest request;
  request.source = "//h/s";
  request.init_flags = FUSE_BIG_WRITES | FUSE_MAX_PAGES;
  request.max_write = 1 << 20;
  const auto fails = [&](const std::string& point) {
    request.mount_point = point;
    return agent.Fails(request);
  };
  EXPECT_EQ(fails(dir_ + "/missing").error, ENOENT);
  std::ofstream(dir_ + "/plain") << "x";
  EXPECT_EQ(fails(dir_ + "/plain").error, ENOTDIR);
  ASSERT_EQ(symlink(point_.c_str(), (dir_ + "/link").c_str()), 0);
  EXPECT_EQ(fails(dir_ + "/link").error, ELOOP);
  EXPECT_EQ(fails("relative").error, EPERM);
  EXPECT_EQ(fails(point_ + "/../mnt").error, EINVAL);
  EXPECT_EQ(fails(point_ + std::string("\0x", 2)).error, EINVAL);  // A path ends at the zero.
  EXPECT_FALSE(IsMounted());
  request.max_write = 0;
  EXPECT_EQ(fails(point_).error, EINVAL);
  request.max_write = 1 << 20;
  EXPECT_FALSE(IsMounted());

  request.mount_point = point_;
  request.config = "kept";
  agent.Send(request, 5);
  std::vector<UniqueFd> fds;
  const auto entry = agent.Receive<state::MountEntry>(&fds);
  ASSERT_TRUE(entry.has_value());
  EXPECT_EQ(fds.size(), 2u);
  EXPECT_EQ(entry->config, "kept");
  EXPECT_GE(entry->init_in.size(), sizeof(fuse_in_header) + 16);
  fuse_init_out init;
  ASSERT_EQ(entry->init_out.size(), sizeof(init));
  memcpy(&init, entry->init_out.data(), sizeof(init));
  EXPECT_EQ(init.flags, uint32_t{FUSE_BIG_WRITES | FUSE_MAX_PAGES});
  EXPECT_EQ(init.max_background, 8192);
  EXPECT_TRUE(IsMounted());

  EXPECT_EQ(fails(point_).error, EBUSY);
  EXPECT_THAT(fails(point_ + "/below").text, testing::HasSubstr("lies within the mount"));
  EXPECT_EQ(agent.Fails(state::UnmountRequest{.mount_point = dir_}).error, EINVAL);
  EXPECT_EQ(agent.Fails(state::UnmountRequest{.mount_id = 77}).error, ENOENT);
  // Nobody answers requests of this mount, and yet it is unmounted at once.
  agent.Send(state::UnmountRequest{.mount_id = entry->mount_id}, 6);
  EXPECT_EQ(agent.Receive<state::MountGone>()->mount_id, entry->mount_id);
  EXPECT_TRUE(agent.Receive<state::Done>().has_value());
  EXPECT_FALSE(IsMounted());
  // Ids are not used again.
  request.mount_point = point_;
  agent.Send(request, 7);
  EXPECT_GT(agent.Receive<state::MountEntry>()->mount_id, entry->mount_id);
  agent.Send(state::UnmountRequest{.mount_point = point_}, 8);
  EXPECT_TRUE(agent.Receive<state::Done>().has_value());
}

TEST_F(DeathTest, AnUnmountedFileSystemLivesUntilItsLastFileIsClosed) {
  Process& agent = StartAgent();
  ASSERT_TRUE(WaitForAgents(1));
  UniqueFd fd(open(file().c_str(), O_RDONLY | O_DIRECT | O_CLOEXEC));
  ASSERT_TRUE(fd);
  Scripted tool(run_);
  tool.Send(state::Hello{});
  tool.Send(state::UnmountRequest{.mount_point = point_}, 3);
  ASSERT_TRUE(tool.Receive<state::Done>().has_value());
  EXPECT_FALSE(IsMounted());
  tool.Send(state::ListRequest(), 4);
  EXPECT_TRUE(tool.Receive<state::MountEntry>()->detached);
  alignas(4096) static char buffer[4096];
  EXPECT_EQ(pread(fd.get(), buffer, 4096, 0), 4096);
  fd.reset();
  ASSERT_TRUE(WaitFor([&] { return Status().mounts == 0; }));
  ASSERT_TRUE(WaitFor([&] { return agent.Logged("gone 1"); }));
  EXPECT_NE(access((run_ + "/mounts.live").c_str(), F_OK), 0);
}

TEST_F(DeathTest, AnUnmountByOthersIsNoticed) {
  Process& agent = StartAgent();
  ASSERT_TRUE(WaitForAgents(1));
  ASSERT_EQ(umount2(point_.c_str(), MNT_DETACH), 0);
  ASSERT_TRUE(WaitFor([&] { return Status().mounts == 0; })) << mounter_->log();
  ASSERT_TRUE(WaitFor([&] { return agent.Logged("gone 1"); }));
  // The place can be used again, by a mount asked for by the next agent.
  agent.Kill(SIGKILL);
  StartAgent();
  ASSERT_TRUE(WaitForAgents(1));
  EXPECT_EQ(access(file().c_str(), R_OK), 0);
}

TEST_F(DeathTest, ForceEndsWhatWaits) {
  Process& agent = StartAgent();
  ASSERT_TRUE(WaitForAgents(1));
  const UniqueFd fd(open(file().c_str(), O_RDONLY | O_DIRECT | O_CLOEXEC));
  ASSERT_TRUE(fd);
  agent.Kill(SIGKILL);
  std::atomic<int> error{-1};
  std::thread waits([&] {
    alignas(4096) static char buffer[4096];
    error = pread(fd.get(), buffer, 4096, 0) < 0 ? errno : 0;
  });
  EXPECT_EQ(error, -1);
  Scripted tool(run_);
  tool.Send(state::Hello{});
  tool.Send(state::UnmountRequest{.mount_point = point_, .force = true}, 3);
  EXPECT_TRUE(tool.Receive<state::Done>().has_value());
  waits.join();
  EXPECT_THAT(error.load(), testing::AnyOf(ECONNABORTED, ENOTCONN));
}

TEST_F(DeathTest, AMountNobodyServesAnyMoreCanBeUnmounted) {
  StartAgent();
  ASSERT_TRUE(WaitForAgents(1));
  agents_.clear();
  mounter_->Kill(SIGKILL);
  EXPECT_EQ(access(file().c_str(), R_OK), -1);
  EXPECT_EQ(errno, ENOTCONN);
  StartMounter();
  Scripted tool(run_);
  tool.Send(state::Hello{});
  tool.Send(state::UnmountRequest{.mount_point = point_}, 3);
  EXPECT_TRUE(tool.Receive<state::Done>().has_value());
  EXPECT_FALSE(IsMounted());
  // A mounter that knows of lost mounts waits a moment for whoever holds them, then starts afresh.
  StartAgent();
  ASSERT_TRUE(WaitForAgents(1)) << mounter_->log();
}

// ---- the arena, and who may connect ----

TEST_F(DeathTest, TheArenaGrowsAndShrinks) {
  Scripted agent(run_);
  agent.Send(Scripted::AgentHello());
  std::vector<UniqueFd> fds;
  const auto welcome = agent.Receive<state::Welcome>(&fds);
  EXPECT_EQ(welcome->granted_steps, 1u);
  agent.Receive<state::Activate>();
  const auto allocated = [&] {
    struct stat st;
    fstat(fds[0].get(), &st);
    return static_cast<uint64_t>(st.st_blocks) * 512 / state::kArenaStepBytes;
  };
  EXPECT_EQ(allocated(), 1u);
  for (uint32_t step = 1; step < 16; ++step) {
    agent.Send(state::GrowArena(), step);
    EXPECT_EQ(agent.Receive<state::StepGranted>()->step, step);
  }
  EXPECT_EQ(allocated(), 16u);
  EXPECT_EQ(agent.Fails(state::GrowArena()).error, ENOSPC);
  EXPECT_EQ(agent.Fails(state::ReturnStep{0}).error, EINVAL);
  EXPECT_EQ(agent.Fails(state::ReturnStep{16}).error, EINVAL);
  for (uint32_t step = 1; step < 16; ++step) {
    agent.Send(state::ReturnStep{step}, step);
    EXPECT_EQ(agent.Receive<state::StepRevoked>()->step, step);
  }
  EXPECT_EQ(agent.Fails(state::ReturnStep{3}).error, EINVAL);
  EXPECT_EQ(allocated(), 1u);
#if !__has_feature(address_sanitizer)  // It makes mlock a no-operation.
  // Locked memory is the mounter's: the header, one step, the vault.
  const std::string status = ReadAll("/proc/" + std::to_string(mounter_->pid()) + "/status");
  EXPECT_THAT(status, testing::ContainsRegex("VmLck:[ \t]+10244 kB"));
#endif
}

TEST_F(DeathTest, OnlyThoseNamedMayConnect) {
  mounter_.reset();
  StartMounter({"--allow=0:tool", "--allow=12345:agent"});
  Scripted agent(run_);
  agent.Send(Scripted::AgentHello());
  EXPECT_THAT(agent.Receive<state::Error>()->text, testing::HasSubstr("may not have this role"));
  Scripted tool(run_);
  tool.Send(state::Hello{});
  EXPECT_EQ(tool.Fails(state::MountRequest{.mount_point = point_}).error, EPROTO);
  Scripted silent(run_);
  EXPECT_EQ(silent.Fails(state::StatusRequest()).error, EPROTO);

  mounter_.reset();
  StartMounter({"--allow=12345:agent"});
  Scripted stranger(run_);
  EXPECT_FALSE(stranger.Receive<state::Error>().has_value());
  struct stat st;
  ASSERT_EQ(stat(run_.c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 0777, 0750u);
}

TEST_F(DeathTest, WithoutFreeDescriptorsTheMounterDoesNotSpin) {
  StartAgent();
  ASSERT_TRUE(WaitForAgents(1));
  const auto processor_ms = [&] {  // Fields 14 and 15 of stat; its name has no bracket.
    const std::string stat = ReadAll("/proc/" + std::to_string(mounter_->pid()) + "/stat");
    std::istringstream fields(stat.substr(stat.rfind(')') + 2));
    std::string skipped;
    for (int i = 3; i < 14; ++i) fields >> skipped;
    long user = 0, system = 0;
    fields >> user >> system;
    return (user + system) * 1000 / sysconf(_SC_CLK_TCK);
  };
  rlimit files;
  ASSERT_EQ(prlimit(mounter_->pid(), RLIMIT_NOFILE, nullptr, &files), 0);
  const rlimit none = {.rlim_cur = 0, .rlim_max = files.rlim_max};
  ASSERT_EQ(prlimit(mounter_->pid(), RLIMIT_NOFILE, &none, nullptr), 0);
  Scripted waits(run_);
  const long before = processor_ms();
  usleep(1'000'000);
  EXPECT_LT(processor_ms() - before, 60);
  ASSERT_EQ(prlimit(mounter_->pid(), RLIMIT_NOFILE, &files, nullptr), 0);
  waits.Send(state::Hello{});
  waits.Send(state::StatusRequest(), 1);
  EXPECT_TRUE(waits.Receive<state::StatusReply>().has_value());
}

TEST_F(DeathTest, OneMounterInAFolder) {
  ASSERT_TRUE(WaitFor([&] { return state::MessageSocket::Connect(run_).ok(); }));
  Process second({DFS_MOUNTER, "--socket-dir=" + run_}, dir_ + "/second");
  EXPECT_EQ(second.Wait(), 1);
  EXPECT_TRUE(second.Logged("another dfs-mounter runs there"));
  Process usage({DFS_MOUNTER}, dir_ + "/usage");
  EXPECT_EQ(usage.Wait(), 2);
  EXPECT_EQ(mounter_->Kill(SIGTERM), 0);
}

// It would be lost with the state in which it was made.
TEST_F(DeathTest, NothingIsMountedWhileMountsAreTakenBack) {
  Scripted active(run_);
  active.Send(Scripted::AgentHello());
  ASSERT_TRUE(active.Receive<state::Activate>().has_value());
  state::Hello hello = Scripted::AgentHello();
  hello.state_id = 5;
  hello.escrow_mounts = 1;
  auto giver = std::make_unique<Scripted>(run_);
  giver->Send(hello);
  ASSERT_TRUE(giver->Receive<state::EscrowWanted>().has_value());
  state::MountRequest request;
  request.mount_point = dir_ + "/missing";
  active.Send(request, 1);
  EXPECT_EQ(active.Receive<state::Error>()->error, EAGAIN);
  // It goes without giving anything back.
  giver.reset();
  ASSERT_TRUE(WaitFor([&] {
    active.Send(request, 2);
    return active.Receive<state::Error>()->error != EAGAIN;
  }));
}

TEST_F(DeathTest, EscrowOfForeignFdsIsRefused) {
  state::Hello hello = Scripted::AgentHello();
  hello.state_id = 5;
  hello.escrow_mounts = 1;
  Scripted agent(run_);
  agent.Send(hello);
  ASSERT_TRUE(agent.Receive<state::EscrowWanted>().has_value());
  const UniqueFd null(open("/dev/null", O_RDWR | O_CLOEXEC));
  agent.Send(state::EscrowNode{5, 1, 1}, 0, {null.get(), null.get(), null.get(), null.get()});
  EXPECT_EQ(agent.Receive<state::Error>()->error, EPROTO);
  // It does not keep others from being served.
  StartAgent();
  ASSERT_TRUE(WaitForAgents(1)) << mounter_->log();
}

}  // namespace
}  // namespace dfscsi::mounter
