// dfs-mounter: the only privileged process of a node. See mounter.h; docs/architecture.md has the
// picture.

#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <string>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "node-agent/base/log.h"
#include "node-agent/mounter/mounter.h"

namespace {

using dfscsi::mounter::Mounter;
using dfscsi::mounter::Options;
using dfscsi::state::Role;

constexpr char kUsage[] =
    "usage: dfs-mounter --socket-dir=DIR [--mount-root=DIR] [--allow=UID:ROLE]... [--group=GID]\n"
    "  --socket-dir   folder of mounter.sock, made with mode 0750\n"
    "  --mount-root   mount points must lie below it (default /)\n"
    "  --allow        who may connect: a user id and agent or tool (default: this user, both)\n"
    "  --group        id of the group that owns the folder and the socket\n"
    "  --exit-when-idle  end when the last agent has gone and nothing is mounted\n";

bool ParseAllow(const std::string& text, Options* options) {
  const std::pair<std::string, std::string> pair = absl::StrSplit(text, absl::MaxSplits(':', 1));
  uint32_t uid = 0;
  if (!absl::SimpleAtoi(pair.first, &uid)) return false;
  if (pair.second != "agent" && pair.second != "tool") return false;
  options->allow.emplace_back(uid, pair.second == "agent" ? Role::kAgent : Role::kTool);
  return true;
}

bool ParseFlags(int argc, char** argv, Options* options) {
  static constexpr option kFlags[] = {{"socket-dir", required_argument, nullptr, 's'},
                                      {"mount-root", required_argument, nullptr, 'r'},
                                      {"allow", required_argument, nullptr, 'a'},
                                      {"group", required_argument, nullptr, 'g'},
                                      {"exit-when-idle", no_argument, nullptr, 'x'},
                                      {}};
  for (int flag; (flag = getopt_long(argc, argv, "", kFlags, nullptr)) != -1;) {
    if (flag == 's') options->socket_dir = optarg;
    if (flag == 'r') options->mount_root = optarg;
    if (flag == 'x') options->exit_when_idle = true;
    const bool good = flag == 'a'   ? ParseAllow(optarg, options)
                      : flag == 'g' ? absl::SimpleAtoi(optarg, &options->group.emplace())
                                    : flag != '?';
    if (!good) return false;
  }
  if (options->allow.empty()) {
    options->allow = {{geteuid(), Role::kAgent}, {geteuid(), Role::kTool}};
  }
  return optind == argc && !options->socket_dir.empty() && options->socket_dir[0] == '/';
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  if (!ParseFlags(argc, argv, &options)) {
    fputs(kUsage, stderr);
    return 2;
  }
  prctl(PR_SET_DUMPABLE, 0);  // The vault is mapped here.
  rlimit files;
  if (getrlimit(RLIMIT_NOFILE, &files) == 0) {  // Two for each mount.
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
  }
  sigset_t stop;
  sigemptyset(&stop);
  sigaddset(&stop, SIGTERM);
  sigaddset(&stop, SIGINT);
  sigprocmask(SIG_BLOCK, &stop, nullptr);
  const dfscsi::UniqueFd signals(signalfd(-1, &stop, SFD_CLOEXEC | SFD_NONBLOCK));

  auto mounter = Mounter::Start(options);
  absl::Status status = mounter.status();
  if (status.ok()) status = (*mounter)->Run(signals.get());
  if (status.ok()) return 0;  // Mounts stay: the agents hold their fds.
  dfscsi::LogError("dfs-mounter: ", status.message());
  return 1;
}
