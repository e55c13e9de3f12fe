#include "node-agent/dfsctl/direct_call.h"

#include <filesystem>
#include <optional>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "node-agent/agent/failure.h"
#include "node-agent/base/status_macros.h"
#include "node-agent/dfsctl/credentials_file.h"
#include "node-agent/dfsctl/direct_name.h"

namespace dfscsi::dfsctl {
namespace {

using runtime::Task;

// As of a mount's options.
bool IsSecretOption(absl::string_view name) {
  return name == "password" || name == "pass" || name == "passwd" || name == "password2";
}

// dialects and algorithms by name, for the matrix of servers that require one each.
absl::Status ApplyOption(absl::string_view option, smb::Options& options) {
  const std::pair<absl::string_view, absl::string_view> parts =
      absl::StrSplit(option, absl::MaxSplits('=', 1));
  const auto [key, value] = parts;
  using wire = smb::wire::Dialect;
  if (key == "vers") {
    static constexpr std::pair<absl::string_view, wire> kDialects[] = {
        {"2.1", wire::k210}, {"3.0", wire::k300}, {"3.0.2", wire::k302}, {"3.1.1", wire::k311}};
    for (const auto& [name, dialect] : kDialects) {
      if (value == name) {
        options.lowest_dialect = options.highest_dialect = dialect;
        return absl::OkStatus();
      }
    }
    if (value == "3" || value == "default") {
      options.lowest_dialect = wire::k300;
      return absl::OkStatus();
    }
    return absl::InvalidArgumentError(
        absl::StrCat("vers=", std::string(value),
                     ": not one of 2.1, 3.0, 3.0.2, 3.1.1, 3 (SMB1 is not spoken)"));
  }
  if (key == "seal" && value.empty()) {
    options.encryption = smb::Encryption::kRequired;
    return absl::OkStatus();
  }
  if (key == "sign" && value.empty()) {
    options.signing = smb::Signing::kRequired;
    return absl::OkStatus();
  }
  if (key == "nosign" && value.empty()) {
    options.signing = smb::Signing::kIfRequired;
    return absl::OkStatus();
  }
  // The name only: a value may be a secret.
  const std::string name(key.substr(0, 100));
  if (IsSecretOption(name)) {
    return absl::InvalidArgumentError(
        absl::StrCat("option ", name, ": secrets are read from a credentials file only"));
  }
  return absl::InvalidArgumentError(
      absl::StrCat("unknown option '", name, "': vers=, sign, nosign or seal"));
}

std::string AuthProgram() {
  std::error_code error;
  const std::filesystem::path self = std::filesystem::read_symlink("/proc/self/exe", error);
  return (self.parent_path() / "dfs-auth").string();
}

// --flag VALUE, --flag=VALUE, -o VALUE; nullopt: a word that is no such flag.
absl::StatusOr<bool> TakeFlag(const std::vector<std::string>& arguments, size_t* at,
                              DirectCall* call, bool* has_credential) {
  std::string flag = arguments[*at];
  std::optional<std::string> value;
  if (const size_t equals = flag.find('=');
      absl::StartsWith(flag, "--") && equals != std::string::npos) {
    value = flag.substr(equals + 1);
    flag.resize(equals);
  }
  if (flag != "-o" && flag != "--options" && flag != "--credentials") return false;
  if (!value.has_value()) {
    if (*at + 1 == arguments.size()) {
      return absl::InvalidArgumentError(absl::StrCat(flag, " needs a value"));
    }
    value = arguments[++*at];
  }
  if (flag != "--credentials") {
    for (absl::string_view option : absl::StrSplit(*value, ',', absl::SkipEmpty())) {
      RETURN_IF_ERROR(ApplyOption(option, call->options));
    }
    return true;
  }
  absl::StatusOr<smb::Credential> read = ReadCredentialsFile(*value);
  if (!read.ok()) return agent::WithReason(read.status(), agent::v1::BAD_ARGUMENT);
  call->credential = *std::move(read);
  *has_credential = true;
  return true;
}

}  // namespace

absl::StatusOr<DirectCall> ParseDirectCall(const std::vector<std::string>& arguments,
                                           std::string_view own_flag, size_t least, size_t most,
                                           std::string_view needed) {
  DirectCall call;
  bool has_credential = false;
  for (size_t i = 0; i < arguments.size(); ++i) {
    ASSIGN_OR_RETURN(const bool taken, TakeFlag(arguments, &i, &call, &has_credential));
    if (taken) continue;
    const std::string& word = arguments[i];
    if (!own_flag.empty() && word == own_flag) {
      call.flag = true;
    } else if (absl::StartsWith(word, "-") && word != "-") {
      return absl::InvalidArgumentError(absl::StrCat("unknown flag ", word));
    } else {
      call.positional.push_back(word);
    }
  }
  if (call.positional.size() < least || call.positional.size() > most) {
    return absl::InvalidArgumentError(absl::StrCat(std::string(needed), " is needed"));
  }
  if (!has_credential) {
    return absl::InvalidArgumentError(
        "--credentials FILE is needed (username=, password=, domain=)");
  }
  return call;
}

absl::StatusOr<dfs::DfsPath> ParseSource(const std::string& text, DirectCall* call) {
  ASSIGN_OR_RETURN(dfs::DfsPath source, dfs::DfsPath::Parse(WithWireNames(text)));
  const std::optional<uint16_t> port = source.Port();
  if (!port.has_value()) return source;
  // host@port; not its links' targets.
  const std::string host(source.HostName());
  const bool is_another = !call->options.port_host.empty() &&
                          (call->options.port_host != host || call->options.port != *port);
  if (is_another) return absl::InvalidArgumentError("two hosts with ports of their own");
  call->options.port = *port;
  call->options.port_host = host;
  return source.WithoutPort();
}

DirectContext::DirectContext(const DirectCall& call)
    : credential_(call.credential),
      authenticators_(loop_, AuthProgram()),
      pool_(call.options, authenticators_, nullptr) {}

std::unique_ptr<dfs::Client> DirectContext::MakeClient(const dfs::DfsPath& source) {
  return std::make_unique<dfs::Client>(source, credential_,
                                       dfs::ClientOptions{.give_up_after = kAnswerTime}, pool_,
                                       cache_, domains_, health_);
}

absl::Status Refused(const std::string& what, agent::v1::FailureReason reason) {
  return agent::WithReason(absl::UnknownError(what), reason);
}

absl::Status Of(const dfs::DfsPath& path, const absl::Status& status) {
  if (status.ok()) return status;
  const absl::Status told(status.code(),
                          absl::StrCat(ShownPath(path), ": ", agent::ForPeople(status)));
  return agent::WithReason(told, agent::ReasonOf(status));
}

absl::Status DirectContext::Run(const std::string& source, Task<absl::Status> task) {
  struct Runner {
    static Task<void> Run(Task<absl::Status> work, absl::Status* result) {
      *result = co_await work;
    }
  };
  absl::Status result;
  loop_.RunUntilDone(Runner::Run(std::move(task), &result));
  if (result.ok() || source.empty()) return result;
  return agent::WithReason(
      absl::Status(result.code(), absl::StrCat(source, ": ", agent::ForPeople(result))),
      agent::ReasonOf(result));
}

}  // namespace dfscsi::dfsctl
