// dfs-auth: logs on for the agent. GSSAPI blocks on DNS and KDCs, cannot be cancelled, and keeps
// process-wide state, so it lives in this child, which the agent kills when a log-on takes too
// long. It speaks auth_protocol.h on descriptor 3 and ends when that closes.

#include <errno.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <map>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "node-agent/smb/auth/auth_protocol.h"
#include "node-agent/smb/auth/kerberos_tickets.h"
#include "node-agent/smb/auth/log_on.h"

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
// The leak checker needs ptrace, which a process that cannot be dumped refuses.
extern "C" const char* __asan_default_options() {
  return "detect_leaks=0:max_free_fill_size=1048576";
}
#endif
#endif

namespace dfscsi::smb::auth {
namespace {

constexpr size_t kMaxContexts = 1024;

// What krb5.conf does not say. The server's name is used as the referral spells it: asking DNS for
// its "canonical" name costs time and lets DNS choose whom we trust.
constexpr char kKerberosDefaults[] =
    "[libdefaults]\n"
    "  dns_canonicalize_hostname = false\n"
    "  rdns = false\n"
    "  dns_lookup_realm = false\n";

// Nobody reads this process's memory: no core file, no ptrace, no /proc/<pid>/mem.
void Seclude() {
  prctl(PR_SET_DUMPABLE, 0);
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  const rlimit none = {0, 0};
  setrlimit(RLIMIT_CORE, &none);
  signal(SIGPIPE, SIG_IGN);
  umask(077);
  if (chdir("/") != 0) _exit(1);
}

// No file is written anywhere, whatever the libraries' plug-ins would like. Kernels without
// Landlock go without this second lock.
void ForbidWriting() {
  landlock_ruleset_attr attributes = {};
  attributes.handled_access_fs = LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_REMOVE_DIR |
                                 LANDLOCK_ACCESS_FS_REMOVE_FILE | LANDLOCK_ACCESS_FS_MAKE_CHAR |
                                 LANDLOCK_ACCESS_FS_MAKE_DIR | LANDLOCK_ACCESS_FS_MAKE_REG |
                                 LANDLOCK_ACCESS_FS_MAKE_SOCK | LANDLOCK_ACCESS_FS_MAKE_FIFO |
                                 LANDLOCK_ACCESS_FS_MAKE_BLOCK | LANDLOCK_ACCESS_FS_MAKE_SYM;
  const UniqueFd rules(
      static_cast<int>(syscall(SYS_landlock_create_ruleset, &attributes, sizeof(attributes), 0)));
  if (rules) syscall(SYS_landlock_restrict_self, rules.get(), 0);
}

std::string HostName() {
  char name[256] = {};
  gethostname(name, sizeof(name) - 1);
  std::string netbios(name, strcspn(name, "."));
  netbios.resize(std::min<size_t>(netbios.size(), 15));
  return netbios.empty() ? "DFSCSI" : absl::AsciiStrToUpper(netbios);
}

// The libraries take settings from the environment. All are ours: nothing is inherited.
void SetEnvironment() {
  clearenv();
  setenv("LC_ALL", "C", 1);
  setenv("KRB5CCNAME", "MEMORY:", 1);
  setenv("KRB5_KTNAME", "MEMORY:", 1);
  setenv("KRB5_CLIENT_KTNAME", "MEMORY:", 1);
  setenv("KRB5RCACHENAME", "none:", 1);
  // gss-ntlmssp: NTLMv2 only; and it need not ask winbind what this host is called.
  setenv("LM_COMPAT_LEVEL", "5", 1);
  setenv("NETBIOS_COMPUTER_NAME", HostName().c_str(), 1);
  setenv("NETBIOS_DOMAIN_NAME", "WORKGROUP", 1);
}

// All log-ons of this process.
class Server {
 public:
  // Until a log-on names another, no krb5.conf but ours is read: NTLM needs none.
  Server() : defaults_(MemoryFile(kKerberosDefaults)) {
    setenv("KRB5_CONFIG", NameOf(defaults_).c_str(), 1);
  }

  // nullopt: nothing to answer.
  std::optional<Reply> Handle(const Request& request) {
    if (const auto* begin = std::get_if<Begin>(&request)) return OnBegin(*begin);
    if (const auto* step = std::get_if<Step>(&request)) return OnStep(*step);
    log_ons_.erase(std::get<End>(request).context_id);
    return std::nullopt;
  }

 private:
  static Failure Refuse(uint64_t context_id, FailureClass failure_class,
                        const std::string& message) {
    return {.context_id = context_id, .failure_class = failure_class, .message = OneLine(message)};
  }

  Reply OnBegin(const Begin& begin) {
    const uint64_t id = begin.context_id;
    if (log_ons_.erase(id) != 0) {
      return Refuse(id, FailureClass::kProtocol, "log-on: context is in use");
    }
    if (log_ons_.size() >= kMaxContexts) {
      return Refuse(id, FailureClass::kProtocol, "log-on: too many at once");
    }
    if (begin.mechanism != Mechanism::kNtlm) {
      if (auto failure = UseConfig(id, begin.krb5_config_path)) return *failure;
    }
    auto log_on = std::make_unique<LogOn>();
    Reply reply = log_on->Start(begin, &kerberos_);
    if (std::holds_alternative<Token>(reply)) log_ons_.emplace(id, std::move(log_on));
    return reply;
  }

  Reply OnStep(const Step& step) {
    const auto found = log_ons_.find(step.context_id);
    if (found == log_ons_.end()) {
      return Refuse(step.context_id, FailureClass::kProtocol, "log-on: no such context");
    }
    Reply reply = found->second->Continue(step);
    if (std::holds_alternative<Failure>(reply)) log_ons_.erase(found);
    return reply;
  }

  // The krb5 library has one configuration per process: the first that is named.
  std::optional<Failure> UseConfig(uint64_t id, const std::string& path) {
    const std::string wanted = path.empty() ? "/etc/krb5.conf" : path;
    if (config_path_ == wanted) return std::nullopt;
    if (!config_path_.empty()) {
      return Refuse(id, FailureClass::kProtocol, "log-on: this child serves another krb5.conf");
    }
    if (!path.empty() && access(path.c_str(), R_OK) != 0) {
      return Refuse(id, FailureClass::kNoKdc, absl::StrCat(path, ": ", strerror(errno)));
    }
    // By descriptor, because colons separate the files' names.
    config_ = UniqueFd(open(wanted.c_str(), O_RDONLY | O_CLOEXEC));
    if (config_) {
      setenv("KRB5_CONFIG", absl::StrCat(NameOf(config_), ":", NameOf(defaults_)).c_str(), 1);
    }
    config_path_ = wanted;
    return std::nullopt;
  }

  const UniqueFd defaults_;
  UniqueFd config_;
  std::string config_path_;
  KerberosClient kerberos_;
  std::map<uint64_t, std::unique_ptr<LogOn>> log_ons_;
};

bool WriteAll(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t n = write(kAuthSocketFd, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    bytes.remove_prefix(static_cast<size_t>(n));
  }
  return true;
}

// The next frame; nullopt when the agent is gone or talks nonsense.
std::optional<Secret> ReadFrame(FrameReader& reader) {
  while (true) {
    const absl::Span<char> space = reader.Space();
    const ssize_t n = read(kAuthSocketFd, space.data(), space.size());
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return std::nullopt;
    auto frame = reader.Received(static_cast<size_t>(n));
    if (!frame.ok()) return std::nullopt;
    if (frame->has_value()) return *std::move(frame);
  }
}

// Overwrites what the calls before have left on the stack: libunistring converts passwords there.
// (Freed heap memory is overwritten by the C library: see StartAuthChild.)
__attribute__((noinline)) void WipeStack() {
  char unused[64 << 10];
  explicit_bzero(unused, sizeof(unused));
}

// Returns the exit code: 0 if the agent hung up, 1 if it is no agent.
int Serve() {
  Server server;
  FrameReader reader;
  while (std::optional<Secret> frame = ReadFrame(reader)) {
    auto request = DecodeRequest(frame->Expose());
    frame.reset();
    if (!request.ok()) return 1;
    const std::optional<Reply> reply = server.Handle(*request);
    WipeStack();
    if (!reply.has_value()) continue;
    const auto encoded = EncodeReply(*reply);
    if (!encoded.ok() || !WriteAll(encoded->Expose())) return 1;
  }
  return 0;
}

}  // namespace
}  // namespace dfscsi::smb::auth

int main(int argc, char** argv) {
  using namespace dfscsi::smb::auth;  // NOLINT(build/namespaces)
  Seclude();
  ForbidWriting();
  SetEnvironment();
  struct stat status;
  if (argc != 1 || fstat(kAuthSocketFd, &status) != 0 || !S_ISSOCK(status.st_mode)) {
    fputs("dfs-auth is started by dfs-node-agent, with a socket as descriptor 3\n", stderr);
    return 2;
  }
  fcntl(kAuthSocketFd, F_SETFD, FD_CLOEXEC);
  // Secrets die with the process's memory; at-exit handlers have nothing to add.
  _exit(Serve());
}
