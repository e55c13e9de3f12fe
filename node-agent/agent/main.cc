// dfs-node-agent: the engine. One is active on a node, others stand by.

#include <errno.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <optional>
#include <string>
#include <system_error>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/flags/usage.h"
#include "absl/flags/usage_config.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "node-agent/agent/agent.h"
#include "node-agent/agent/memory_limit.h"
#include "node-agent/base/death_points.h"
#include "node-agent/base/log.h"
#include "node-agent/base/unique_fd.h"
#include "node-agent/runtime/real_loop.h"
#include "node-agent/state/parked_slots.h"

ABSL_FLAG(std::string, socket_dir, "", "folder of mounter.sock; agent.sock is made there");
ABSL_FLAG(std::string, state_dir, "",
          "folder for the referral cache's file; empty: it is not kept on disk");
ABSL_FLAG(std::string, log_level, "info", "error, warning, info or debug");
ABSL_FLAG(std::string, auth_program, "", "path of dfs-auth; empty: beside this program");
ABSL_FLAG(std::string, notifier_program, "", "path of dfs-notifier; empty: beside this program");
ABSL_FLAG(
    uint32_t, parked_max_mib, dfscsi::state::ParkedSlots::kDefaultLimitBytes >> 20,
    "memory for large requests that wait for a server; at most a quarter of what the container"
    " may have");
ABSL_FLAG(bool, exit_when_idle, false, "end when nothing has been mounted for some seconds");
ABSL_FLAG(std::string, die_at, "",
          "for tests: NAME[:N], the instant at which it kills itself; list: prints all names");

namespace dfscsi::agent {
namespace {

constexpr rlim_t kFewestFiles = 1024;

std::string ProgramPath(const std::string& flag, const char* name) {
  if (!flag.empty()) return flag;
  std::error_code error;
  return (std::filesystem::read_symlink("/proc/self/exe", error).parent_path() / name).string();
}

absl::Status CheckLimits() {
  rlimit files;
  if (getrlimit(RLIMIT_NOFILE, &files) != 0) return absl::ErrnoToStatus(errno, "RLIMIT_NOFILE");
  files.rlim_cur = files.rlim_max;
  if (setrlimit(RLIMIT_NOFILE, &files) != 0) return absl::ErrnoToStatus(errno, "RLIMIT_NOFILE");
  if (files.rlim_cur < kFewestFiles) {
    return absl::FailedPreconditionError(absl::StrCat("RLIMIT_NOFILE is ", files.rlim_cur,
                                                      "; at least ", kFewestFiles, " are needed"));
  }
  return absl::OkStatus();
}

#if __has_feature(address_sanitizer)
void LogCrashes() {}  // It says more by itself.
#else
// The successor goes on so soon that nobody would know of a crash: it leaves a line in the log.
void SayCrashed(int signal) {
  char line[] = "dfs-node-agent: crashed by signal 00\n";
  line[sizeof(line) - 4] = static_cast<char>('0' + signal / 10 % 10);
  line[sizeof(line) - 3] = static_cast<char>('0' + signal % 10);
  (void)!write(STDERR_FILENO, line, sizeof(line) - 1);
  raise(signal);  // By SA_RESETHAND this is the end.
}

void LogCrashes() {
  static char stack[16384];  // What crashes may have used up its own.
  const stack_t alternative = {.ss_sp = stack, .ss_flags = 0, .ss_size = sizeof(stack)};
  sigaltstack(&alternative, nullptr);
  struct sigaction action = {};
  action.sa_handler = SayCrashed;
  action.sa_flags = SA_ONSTACK | SA_RESETHAND | SA_NODEFER;
  for (const int signal : {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT}) {
    sigaction(signal, &action, nullptr);
  }
}
#endif

runtime::Task<void> DrainOnSignal(runtime::FdWatch* watch, int signal_fd, Agent* agent) {
  while ((co_await watch->WaitReadable(runtime::Deadline::Never())).ok()) {
    signalfd_siginfo signal;
    while (read(signal_fd, &signal, sizeof(signal)) == static_cast<ssize_t>(sizeof(signal))) {
      LogInfo("signal ", signal.ssi_signo);
      agent->Drain();
    }
  }
}

runtime::Task<void> RunAgent(Agent* agent, absl::Status* status) {
  *status = co_await agent->Run();
}

int Main(AgentFlags flags) {
  // Nobody reads passwords out of our memory: no core file, no ptrace.
  prctl(PR_SET_DUMPABLE, 0);
  LogCrashes();
  // Debian builds abseil with the search for lock cycles, whose graph grows with each mutex (gRPC
  // makes some for each connection).
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  // One heap for the loop, one for gRPC's threads: one for each would keep what all of them once
  // held.
  mallopt(M_ARENA_MAX, 2);
  if (const absl::Status limits = CheckLimits(); !limits.ok()) {
    LogError(limits.message());
    return 1;
  }
  (void)signal(SIGPIPE, SIG_IGN);
  // Before any thread is made: all inherit it.
  sigset_t stop;
  sigemptyset(&stop);
  sigaddset(&stop, SIGTERM);
  sigaddset(&stop, SIGINT);
  pthread_sigmask(SIG_BLOCK, &stop, nullptr);
  const UniqueFd signals(signalfd(-1, &stop, SFD_CLOEXEC | SFD_NONBLOCK));

  auto* const loop = new runtime::RealLoop();
  auto* const agent = new Agent(*loop, std::move(flags));
  const std::unique_ptr<runtime::FdWatch> watch = loop->Watch(signals.get());
  loop->Spawn(DrainOnSignal(watch.get(), signals.get(), agent));
  absl::Status status;
  loop->RunUntilDone(RunAgent(agent, &status));
  if (!status.ok()) LogError("dfs-node-agent: ", status.message());
  // Everything that must be handed over has been. gRPC's threads, and work that blocks, are not
  // waited for.
  _exit(status.ok() ? 0 : 1);
}

}  // namespace
}  // namespace dfscsi::agent

int main(int argc, char** argv) {
  absl::SetProgramUsageMessage("the engine of dfs-csi: serves what dfs-mounter mounts.");
  absl::FlagsUsageConfig config;
  config.version_string = [] { return "dfs-node-agent " DFSCSI_BUILD_ID "\n"; };
  config.contains_helpshort_flags = [](absl::string_view file) {
    return file.find("agent/main.cc") != absl::string_view::npos;
  };
  absl::SetFlagsUsageConfig(config);
  const std::vector<char*> rest = absl::ParseCommandLine(argc, argv);
  const std::string die_at = absl::GetFlag(FLAGS_die_at);
  if (die_at == "list") {
    for (const std::string_view name : dfscsi::kDeathPointNames) {
      if (!name.empty()) puts(name.data());
    }
    return 0;
  }
  if (const absl::Status armed = dfscsi::ArmDeath(die_at); !armed.ok()) {
    fprintf(stderr, "--die_at: %s\n", std::string(armed.message()).c_str());
    return 2;
  }
  dfscsi::agent::AgentFlags flags;
  flags.socket_dir = absl::GetFlag(FLAGS_socket_dir);
  flags.state_dir = absl::GetFlag(FLAGS_state_dir);
  flags.exit_when_idle = absl::GetFlag(FLAGS_exit_when_idle);
  // They are charged to this process's group: what else it needs must fit in, too.
  flags.parked_max_bytes = std::min(uint64_t{absl::GetFlag(FLAGS_parked_max_mib)} << 20,
                                    dfscsi::agent::OwnMemoryLimitBytes() / 4);
  flags.auth_program = dfscsi::agent::ProgramPath(absl::GetFlag(FLAGS_auth_program), "dfs-auth");
  flags.notifier_program =
      dfscsi::agent::ProgramPath(absl::GetFlag(FLAGS_notifier_program), "dfs-notifier");
  const auto level = dfscsi::ParseLogLevel(absl::GetFlag(FLAGS_log_level));
  if (rest.size() != 1 || flags.socket_dir.empty() || !level.has_value()) {
    fputs("usage: dfs-node-agent --socket_dir=DIR [flags]; see --help\n", stderr);
    return 2;
  }
  dfscsi::SetLogLevel(*level);
  return dfscsi::agent::Main(std::move(flags));
}
