// dfsctl: the administrator's tool.

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "node-agent/dfsctl/commands.h"
#include "node-agent/dfsctl/direct.h"
#include "node-agent/dfsctl/direct_changes.h"
#include "node-agent/dfsctl/exit_code.h"

namespace dfscsi::dfsctl {
namespace {

struct Command {
  std::string_view name;
  absl::Status (*run)(const std::vector<std::string>& arguments);
  std::string_view usage;
  std::string_view help;
};

constexpr Command kCommands[] = {
    {"mount", Mount, "mount SOURCE MOUNTPOINT [--credentials FILE] [-o OPTIONS] [--state-dir DIR]",
     "Mounts SOURCE on the existing folder MOUNTPOINT, and returns when it can be read. Starts "
     "the\n"
     "programs that this needs where none run: dfs-mounter, two dfs-node-agent, dfs-keeper. They\n"
     "end by themselves some seconds after the last unmount. Mounting the same again is no error.\n"
     "\n"
     "  --credentials FILE  lines username=, password=, domain=; mode 0600. Without it the user "
     "is\n"
     "                      that of -o username=, and the password is asked for\n"
     "  -o OPTIONS          words of mount.cifs, with commas between them; docs/options.md. "
     "Often:\n"
     "                      ro  vers=3.1.1  seal  uid=1000  gid=1000  file_mode=0644\n"
     "                      dir_mode=0755  actimeo=1s  hard | soft,op_timeout=60s\n"
     "  --state-dir DIR     where the referral cache is kept (/var/lib/dfs-csi-local)\n"},
    {"unmount", Unmount, "unmount MOUNTPOINT [--force | --detached]",
     "Takes the mount out of the tree. Files that are open in it go on until they are closed;\n"
     "with --force they end with an error, and so does what waits for a server. --detached does\n"
     "that to what is left of earlier mounts there, and to nothing else; so does --force where\n"
     "nothing is mounted any more.\n"},
    {"mounts", Mounts, "mounts [--json]",
     "What is mounted, and which server serves it now. An error where neither programs run nor "
     "dead\n"
     "mounts are.\n"},
    {"referrals", Referrals, "referrals [PATH] [--json]",
     "The referral cache; given a PATH, the way from it to a target, fetched if need be.\n"},
    {"targets", Targets, "targets [--json]",
     "Every target that is known, how it does, and the connections.\n"},
    {"cache", Cache, "cache flush",
     "Forgets cached referrals; those in use are fetched again. Targets that were down, and\n"
     "servers that have refused a password, may be tried at once.\n"},
    {"opens", Opens, "opens [MOUNTPOINT] [--json]",
     "What programs have open in the mounts, how often, and where it is served. WRITTEN: the file "
     "is\n"
     "bound to that server.\n"},
    {"locks", Locks, "locks [MOUNTPOINT] [--json]",
     "What programs have locked in the mounts (fcntl, flock), and what of that was lost to "
     "another\n"
     "machine: the file answers EIO there until it is closed.\n"},
    {"log-level", LogLevelOf, "log-level [error | warning | info | debug]",
     "Says how much the active agent logs, or changes it until that agent ends. debug names "
     "files.\n"},
    {"metrics", Metrics, "metrics", "Counters of the engine, in the text format of Prometheus.\n"},
    {"version", Version, "version [--json]",
     "Of this program, and of the active agent if there is one.\n"},
    {"keep", Keep, "keep [--state-dir DIR]",
     "dfs-keeper, which mount starts: while something is mounted it starts anew the agent or the\n"
     "mounter that died. SIGTERM ends it and leaves everything else as it is.\n"},
    {"get", Get, "get SOURCE [FILE] --credentials FILE [-o OPTIONS]",
     "Copies a file from a server to FILE, or to standard output, without a mount. OPTIONS here:\n"
     "vers=, sign, nosign, seal.\n"},
    {"ls", Ls, "ls SOURCE --credentials FILE [-o OPTIONS]",
     "Lists a folder of a server, without a mount. OPTIONS here: vers=, sign, nosign, seal.\n"},
    {"put", Put, "put FILE TARGET --credentials FILE [-o OPTIONS]",
     "Copies FILE, or with - standard input, to TARGET on a server, without a mount. What is "
     "there\n"
     "is replaced once the copy is whole, as by a new file with that folder's rights; until then,\n"
     "and if it fails, it stays. TARGET names a file, not the folder for it. OPTIONS: as of "
     "get.\n"},
    {"cp", Cp, "cp SOURCE TARGET --credentials FILE [-o OPTIONS]",
     "Copies a file of a server to TARGET, without a mount; on the server itself where both are "
     "in\n"
     "one share. TARGET: as of put. OPTIONS: as of get.\n"},
    {"rm", Rm, "rm [-r] PATH --credentials FILE [-o OPTIONS]",
     "Removes a file of a server, without a mount; with -r a folder and all that is in it, up to "
     "the\n"
     "first that cannot be removed. DFS links, and what is behind them, are never removed.\n"},
    {"mkdir", Mkdir, "mkdir [-p] PATH --credentials FILE [-o OPTIONS]",
     "Makes a folder on a server, without a mount; with -p those above it, too, and it is no "
     "error\n"
     "if it is there.\n"},
};

constexpr char kNotes[] =
    "\n"
    "dfsctl help COMMAND says more. SOURCE: //host/share[/path], or //namespace/root[/path]. All "
    "but\n"
    "get, put, cp, rm, mkdir and ls take --socket-dir DIR (default /run/dfs-csi-local): the folder "
    "of the sockets and\n"
    "logs of the programs that mount starts. OPTIONS: docs/options.md. A credentials file has the\n"
    "lines username=, password= and domain=, and is readable by its owner (and group) only.\n"
    "\n"
    "Exit codes: 0 done; 1 other; 2 usage, options or credentials file; 3 wrong user or password;\n"
    "4 unknown host; 5 no server reached; 6 unknown share; 7 missing path; 8 access denied;\n"
    "9 links in a loop; 10 dangling link; 11 dialect, signing or encryption; 12 mount point;\n"
    "13 this machine.\n";

int Usage() {
  fputs("usage:\n", stdout);
  for (const Command& command : kCommands) {
    fprintf(stdout, "  dfsctl %s\n", std::string(command.usage).c_str());
  }
  fputs(kNotes, stdout);
  return kExitOk;
}

int Help(const Command& command) {
  fprintf(stdout, "usage: dfsctl %s\n\n%s", std::string(command.usage).c_str(),
          std::string(command.help).c_str());
  return kExitOk;
}

bool AsksForHelp(std::string_view word) { return word == "--help" || word == "-h"; }

const Command* Find(std::string_view name) {
  for (const Command& command : kCommands) {
    if (command.name == name) return &command;
  }
  fprintf(stderr, "dfsctl: unknown command %s; %sdfsctl help lists them\n",
          std::string(name).c_str(), name == "umount" ? "you may mean unmount; " : "");
  return nullptr;
}

// What is opened later must not be taken for one of these three where the caller closed it: get
// would write a file into a connection. Reading finds the end, writing fails. Runs before the
// libraries' own beginnings, which open files, too.
void OpenStandardDescriptors(int, char**, char**) {
  int fd = -1;
  do {
    fd = open("/dev/null", O_RDONLY);
  } while (fd >= 0 && fd <= STDERR_FILENO);
  if (fd >= 0) close(fd);
}

[[gnu::section(".preinit_array"),
  gnu::used]] void (*const open_first)(int, char**, char**) = OpenStandardDescriptors;

// One line, whatever the words on the command line hold.
void PrintError(absl::string_view message) {
  std::string line(message);
  std::replace_if(
      line.begin(), line.end(), [](unsigned char c) { return absl::ascii_iscntrl(c); }, '?');
  fprintf(stderr, "dfsctl: %s\n", line.c_str());
}

// A pipe or a disk that took only a part of the output is no success.
int FinishOutput(int exit_code) {
  errno = 0;
  const bool written = fflush(stdout) == 0 && ferror(stdout) == 0;
  if (written || exit_code != kExitOk) return exit_code;
  // What failed before this flush has left no errno.
  PrintError(std::string("standard output: ") +
             (errno == 0 ? "not all could be written" : strerror(errno)));
  return kExitSystem;
}

int Run(int argc, char** argv) {
#if !__has_feature(address_sanitizer)  // Its leak checker needs ptrace.
  // Passwords pass through here: no core file, no ptrace.
  prctl(PR_SET_DUMPABLE, 0);
#endif
  if (argc < 2) {
    fputs("dfsctl: a command is missing; dfsctl help lists them\n", stderr);
    return kExitUsage;
  }
  const std::string_view name = argv[1];
  if (name == "--version") return ExitCodeOf(Version({}));
  if (AsksForHelp(name) || (name == "help" && (argc == 2 || argv[2] == name))) return Usage();
  const bool help = name == "help" || (argc > 2 && AsksForHelp(argv[2]));
  const Command* const command = Find(name == "help" ? argv[2] : name);
  if (command == nullptr) return kExitUsage;
  if (help) return Help(*command);
  const absl::Status status = command->run({argv + 2, argv + argc});
  if (!status.ok()) PrintError(status.message());
  return ExitCodeOf(status);
}

}  // namespace
}  // namespace dfscsi::dfsctl

int main(int argc, char** argv) {
  return dfscsi::dfsctl::FinishOutput(dfscsi::dfsctl::Run(argc, argv));
}
