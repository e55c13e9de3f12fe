// dfsctl: the administrator's tool.

#include <stdio.h>

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "node-agent/dfsctl/commands.h"
#include "node-agent/dfsctl/direct.h"
#include "node-agent/dfsctl/exit_code.h"

namespace dfscsi::dfsctl {
namespace {

struct Command {
  std::string_view name;
  absl::Status (*run)(const std::vector<std::string>& arguments);
  std::string_view usage;
};

constexpr Command kCommands[] = {
    {"mount", Mount, "mount SOURCE MOUNTPOINT [--credentials FILE] [-o OPTIONS] [--state-dir DIR]"},
    {"unmount", Unmount, "unmount MOUNTPOINT [--force]"},
    {"mounts", Mounts, "mounts [--json]"},
    {"referrals", Referrals, "referrals [PATH] [--json]"},
    {"targets", Targets, "targets [--json]"},
    {"cache", Cache, "cache flush"},
    {"metrics", Metrics, "metrics"},
    {"version", Version, "version [--json]"},
    {"get", Get, "get SOURCE [FILE] --credentials FILE [-o OPTIONS]"},
    {"ls", Ls, "ls SOURCE --credentials FILE [-o OPTIONS]"},
};

constexpr char kNotes[] =
    "\n"
    "SOURCE: //host/share[/path], or //namespace/root[/path]. All but get and ls take\n"
    "--socket-dir DIR (default /run/dfs-csi-local): the folder of the sockets and logs of the\n"
    "programs that mount starts. OPTIONS: docs/options.md. A credentials file has the lines\n"
    "username=, password= and domain=, and is readable by its owner (and group) only.\n"
    "\n"
    "Exit codes: 0 done; 1 other; 2 usage, options or credentials file; 3 wrong user or password;\n"
    "4 unknown host; 5 no server reached; 6 unknown share; 7 missing path; 8 access denied;\n"
    "9 links in a loop; 10 dangling link; 11 dialect, signing or encryption; 12 mount point;\n"
    "13 this machine.\n";

int Usage(FILE* to, int exit_code) {
  fputs("usage:\n", to);
  for (const Command& command : kCommands) {
    fprintf(to, "  dfsctl %s\n", std::string(command.usage).c_str());
  }
  fputs(kNotes, to);
  return exit_code;
}

int Main(int argc, char** argv) {
  if (argc < 2) return Usage(stderr, kExitUsage);
  const std::string_view name = argv[1];
  if (name == "--help" || name == "-h" || name == "help") return Usage(stdout, kExitOk);
  for (const Command& command : kCommands) {
    if (command.name != name) continue;
    const absl::Status status = command.run({argv + 2, argv + argc});
    if (!status.ok()) {
      fprintf(stderr, "dfsctl: %s\n", std::string(status.message()).c_str());
    }
    return ExitCodeOf(status);
  }
  fprintf(stderr, "dfsctl: unknown command %s\n", argv[1]);
  return Usage(stderr, kExitUsage);
}

}  // namespace
}  // namespace dfscsi::dfsctl

int main(int argc, char** argv) { return dfscsi::dfsctl::Main(argc, argv); }
