#include "node-agent/dfsctl/password_prompt.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <termios.h>
#include <unistd.h>

#include <array>
#include <iterator>

#include "absl/status/status.h"
#include "node-agent/base/unique_fd.h"

namespace dfscsi::dfsctl {
namespace {

// Longer than any that a server takes; a terminal's line is no longer.
constexpr size_t kMostBytes = 4096;
constexpr int kEnding[] = {SIGINT, SIGTERM, SIGQUIT, SIGHUP};

// For the signal handler.
volatile sig_atomic_t terminal = -1;
termios as_it_was;

void RestoreAndEnd(int signal) {
  if (terminal >= 0) tcsetattr(terminal, TCSANOW, &as_it_was);
  raise(signal);  // SA_RESETHAND: the default now, once this has returned.
}

// While it lives the terminal shows nothing of what is typed.
class Hush {
 public:
  explicit Hush(int fd) {
    if (tcgetattr(fd, &as_it_was) != 0) return;
    terminal = fd;
    struct sigaction action = {};
    action.sa_handler = RestoreAndEnd;
    action.sa_flags = static_cast<int>(SA_RESETHAND);
    for (size_t i = 0; i < std::size(kEnding); ++i) sigaction(kEnding[i], &action, &before_[i]);
    termios quiet = as_it_was;
    quiet.c_lflag &= ~tcflag_t{ECHO};
    hushed_ = tcsetattr(fd, TCSAFLUSH, &quiet) == 0;
  }
  Hush(const Hush&) = delete;
  ~Hush() {
    if (terminal < 0) return;
    tcsetattr(terminal, TCSANOW, &as_it_was);
    for (size_t i = 0; i < std::size(kEnding); ++i) sigaction(kEnding[i], &before_[i], nullptr);
    terminal = -1;
  }

  bool hushed() const { return hushed_; }

 private:
  bool hushed_ = false;
  std::array<struct sigaction, std::size(kEnding)> before_ = {};
};

void Say(int fd, std::string_view text) {
  while (!text.empty()) {
    const ssize_t n = write(fd, text.data(), text.size());
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return;
    text.remove_prefix(static_cast<size_t>(n));
  }
}

}  // namespace

absl::StatusOr<Secret> AskForPassword(const std::string& question) {
  const UniqueFd fd(open("/dev/tty", O_RDWR | O_CLOEXEC));
  if (!fd) return absl::InvalidArgumentError("no terminal to ask for the password at");
  Secret typed = Secret::WithRoom(kMostBytes);
  size_t length = 0;
  {
    const Hush hush(fd.get());
    if (!hush.hushed()) {
      return absl::InvalidArgumentError("the terminal would show the password");
    }
    Say(fd.get(), question);
    bool whole = false;
    while (!whole && length < kMostBytes) {
      const ssize_t n = read(fd.get(), typed.data() + length, kMostBytes - length);
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) break;
      length += static_cast<size_t>(n);
      whole = typed.data()[length - 1] == '\n';
    }
    Say(fd.get(), "\n");
    if (!whole) return absl::InvalidArgumentError("no password");
  }
  typed.Truncate(length - 1);
  return typed;
}

}  // namespace dfscsi::dfsctl
