#include "node-agent/dfsctl/credentials_file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <string_view>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "node-agent/base/secret.h"
#include "node-agent/base/status_macros.h"
#include "node-agent/base/unique_fd.h"
#include "node-agent/smb/auth/account.h"

namespace dfscsi::dfsctl {

absl::Status CheckCredential(const smb::Credential& credential) {
  RETURN_IF_ERROR(smb::auth::ParseAccount(credential.user, credential.domain).status());
  const std::string_view password = credential.password.Expose();
  if (password.find('\0') != password.npos ||
      !smb::auth::IsUtf8({password.data(), password.size()})) {
    return absl::InvalidArgumentError("the password is not UTF-8 text");
  }
  return absl::OkStatus();
}

absl::StatusOr<smb::Credential> ParseCredentials(absl::string_view text, absl::string_view name) {
  // Servers refuse longer ones, or hang up without a word.
  constexpr size_t kMostCharacters = 512;
  smb::Credential credential;
  absl::ConsumePrefix(&text, "\xEF\xBB\xBF");  // A byte order mark, as Windows' editors write.
  int number = 0;
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    ++number;
    absl::ConsumeSuffix(&line, "\r");
    // As in mount.cifs: blanks before a key are skipped, a value is taken as it is (a password may
    // begin or end with a blank).
    line = absl::StripLeadingAsciiWhitespace(line);
    if (line.empty() || line.front() == '#') continue;
    const size_t equals = line.find('=');
    const std::string key =
        absl::AsciiStrToLower(absl::StripAsciiWhitespace(line.substr(0, equals)));
    const absl::string_view value =
        equals == absl::string_view::npos ? absl::string_view() : line.substr(equals + 1);
    if (value.size() > kMostCharacters) {
      return absl::InvalidArgumentError(
          absl::StrCat(name, " line ", number, ": longer than ", kMostCharacters, " bytes"));
    }
    if (equals != absl::string_view::npos && (key == "username" || key == "user")) {
      credential.user = std::string(value);
    } else if (equals != absl::string_view::npos && (key == "password" || key == "pass")) {
      credential.password = Secret(std::string_view(value.data(), value.size()));
    } else if (equals != absl::string_view::npos && (key == "domain" || key == "dom")) {
      credential.domain = std::string(value);
    } else {
      // The line itself may hold a secret: it is not shown.
      return absl::InvalidArgumentError(
          absl::StrCat(name, " line ", number, ": not one of username=, password=, domain="));
    }
  }
  if (credential.user.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(name, ": no username= line"));
  }
  if (credential.password.Expose().empty()) {
    return absl::InvalidArgumentError(absl::StrCat(name, ": no password= line, or nothing in it"));
  }
  const absl::Status usable = CheckCredential(credential);
  if (!usable.ok()) {
    return absl::InvalidArgumentError(absl::StrCat(name, ": ", std::string(usable.message())));
  }
  return credential;
}

absl::StatusOr<smb::Credential> ReadCredentialsFile(const std::string& path) {
  const UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK));
  if (!fd) {
    const std::string why = absl::StrCat("credentials file ", path, ": ", strerror(errno));
    return errno == ENOENT ? absl::NotFoundError(why) : absl::PermissionDeniedError(why);
  }
  struct stat status;
  if (fstat(fd.get(), &status) != 0 || !S_ISREG(status.st_mode)) {
    return absl::InvalidArgumentError(absl::StrCat("credentials file ", path, ": not a file"));
  }
  if ((status.st_mode & S_IRWXO) != 0) {
    return absl::PermissionDeniedError(
        absl::StrCat("credentials file ", path, ": readable by everybody; chmod 600 it"));
  }
  constexpr size_t kMostBytes = 65536;
  // Wiped when this returns, whatever it returns.
  Secret content = Secret::WithRoom(kMostBytes);
  const ssize_t n = read(fd.get(), content.data(), kMostBytes);
  if (n < 0) {
    return absl::PermissionDeniedError(
        absl::StrCat("credentials file ", path, ": ", strerror(errno)));
  }
  content.Truncate(static_cast<size_t>(n));
  const std::string_view text = content.Expose();
  return ParseCredentials(absl::string_view(text.data(), text.size()),
                          absl::StrCat("credentials file ", path));
}

}  // namespace dfscsi::dfsctl
