#include "node-agent/dfsctl/command_line.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "node-agent/smb/auth/account.h"

namespace dfscsi::dfsctl {

absl::StatusOr<CommandLine> ParseCommandLine(const std::vector<std::string>& arguments,
                                             size_t least, size_t most) {
  CommandLine line;
  bool flags_end = false;
  for (size_t i = 0; i < arguments.size(); ++i) {
    std::string word = arguments[i];
    if (flags_end || word == "-" || !absl::StartsWith(word, "-")) {
      line.positional.push_back(std::move(word));
      continue;
    }
    if (word == "--") {
      flags_end = true;
      continue;
    }
    if (word == "--force") {
      line.force = true;
      continue;
    }
    if (word == "--detached") {
      line.detached = true;
      continue;
    }
    if (word == "--json") {
      line.json = true;
      continue;
    }
    // --flag VALUE, --flag=VALUE, -o VALUE
    std::optional<std::string> value;
    if (const size_t equals = word.find('=');
        absl::StartsWith(word, "--") && equals != std::string::npos) {
      value = word.substr(equals + 1);
      word.resize(equals);
    }
    const bool known = word == "-o" || word == "--options" || word == "--credentials" ||
                       word == "--socket-dir" || word == "--state-dir";
    if (!known) return absl::InvalidArgumentError(absl::StrCat("unknown flag ", word));
    if (!value.has_value()) {
      if (i + 1 == arguments.size()) {
        return absl::InvalidArgumentError(absl::StrCat(word, " needs a value"));
      }
      value = arguments[++i];
    }
    if (word == "-o" || word == "--options") {
      for (absl::string_view option : absl::StrSplit(*value, ',', absl::SkipEmpty())) {
        line.options.emplace_back(option);
      }
    } else if (word == "--credentials") {
      line.credentials = *value;
    } else if (word == "--socket-dir") {
      line.socket_dir = *value;
    } else {
      line.state_dir = *value;
    }
  }
  if (!absl::StartsWith(line.socket_dir, "/")) {
    return absl::InvalidArgumentError("--socket-dir must be an absolute path");
  }
  // The programs that it is for run in another folder.
  if (line.state_dir.has_value() && !absl::StartsWith(*line.state_dir, "/")) {
    return absl::InvalidArgumentError("--state-dir must be an absolute path");
  }
  // Such cannot be sent to the agent, and is no name in a source.
  const auto is_utf8 = [](const std::string& word) { return smb::auth::IsUtf8(word); };
  if (!std::all_of(line.positional.begin(), line.positional.end(), is_utf8) ||
      !std::all_of(line.options.begin(), line.options.end(), is_utf8)) {
    return absl::InvalidArgumentError("an argument is not UTF-8");
  }
  if (line.positional.size() < least) return absl::InvalidArgumentError("an argument is missing");
  if (line.positional.size() > most) {
    return absl::InvalidArgumentError(
        absl::StrCat("one argument too many: ", line.positional[most]));
  }
  return line;
}

}  // namespace dfscsi::dfsctl
