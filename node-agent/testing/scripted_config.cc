#include "node-agent/testing/scripted_config.h"

#include <map>
#include <optional>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "node-agent/base/status_macros.h"

namespace dfscsi::testing {
namespace {

using smb::wire::CipherId;
using smb::wire::Command;
using smb::wire::Dialect;
using smb::wire::NtStatus;
using smb::wire::SigningId;

absl::Status Meaningless(std::string_view word) {
  return absl::InvalidArgumentError(absl::StrCat("\"", std::string(word), "\" means nothing here"));
}

absl::StatusOr<std::vector<std::string>> SplitWords(std::string_view line) {
  std::vector<std::string> words;
  size_t at = 0;
  while (at < line.size()) {
    if (line[at] == ' ' || line[at] == '\t') {
      ++at;
    } else if (line[at] == '#') {
      break;
    } else if (line[at] == '"') {
      const size_t end = line.find('"', at + 1);
      if (end == std::string_view::npos) return absl::InvalidArgumentError("a quote without end");
      words.emplace_back(line.substr(at + 1, end - at - 1));
      at = end + 1;
    } else {
      const size_t end = std::min(line.find_first_of(" \t", at), line.size());
      words.emplace_back(line.substr(at, end - at));
      at = end;
    }
  }
  return words;
}

absl::StatusOr<uint64_t> Number(const std::string& word) {
  uint64_t number = 0;
  if (absl::StartsWith(word, "0x") ? absl::SimpleHexAtoi(word, &number)
                                   : absl::SimpleAtoi(word, &number)) {
    return number;
  }
  return Meaningless(word);
}

absl::StatusOr<NtStatus> StatusNamed(const std::string& word) {
  static const auto* const names = new std::map<std::string, NtStatus, std::less<>>{
#define DFSCSI_NT_STATUS(name, text, value, error) {text, NtStatus::name},
#include "node-agent/smb/wire/nt_status_table.inc"
#undef DFSCSI_NT_STATUS
  };
  const auto found = names->find(std::string(absl::StripPrefix(word, "STATUS_")));
  if (found != names->end()) return found->second;
  ASSIGN_OR_RETURN(const uint64_t number, Number(word));
  return static_cast<NtStatus>(number);
}

absl::StatusOr<Command> CommandNamed(const std::string& word) {
  for (uint16_t i = 0; i <= static_cast<uint16_t>(Command::kOplockBreak); ++i) {
    if (std::string(smb::wire::CommandName(static_cast<Command>(i))) == word) {
      return static_cast<Command>(i);
    }
  }
  return Meaningless(word);
}

absl::StatusOr<runtime::SocketAddress> AddressOf(const std::string& word) {
  const size_t colon = word.rfind(':');
  uint32_t port = 0;
  if (colon == std::string::npos || !absl::SimpleAtoi(word.substr(colon + 1), &port) ||
      port > 65535) {
    return Meaningless(word);
  }
  std::string host = word.substr(0, colon);
  if (absl::StartsWith(host, "[") && absl::EndsWith(host, "]")) {
    host = host.substr(1, host.size() - 2);
  }
  const std::optional<runtime::IpAddress> address = runtime::IpAddress::Parse(host);
  if (!address.has_value()) return Meaningless(word);
  return runtime::SocketAddress{*address, static_cast<uint16_t>(port)};
}

// words[first…]: what follows "link PATH" or "targets".
absl::StatusOr<ScriptedReferral> ReferralOf(const std::vector<std::string>& words, size_t first) {
  ScriptedReferral referral;
  bool starts_set = false;
  for (size_t i = first; i < words.size(); ++i) {
    const std::string& word = words[i];
    if (absl::StartsWith(word, "ttl=")) {
      ASSIGN_OR_RETURN(const uint64_t ttl, Number(word.substr(4)));
      referral.ttl_seconds = static_cast<uint32_t>(ttl);
    } else if (absl::StartsWith(word, "version=")) {
      ASSIGN_OR_RETURN(const uint64_t version, Number(word.substr(8)));
      referral.version = static_cast<uint16_t>(version);
    } else if (word == "interlink") {
      referral.interlink = true;
    } else if (word == "failback") {
      referral.failback = true;
    } else if (word == "/") {
      starts_set = true;
    } else {
      referral.targets.emplace_back(word, starts_set);
      starts_set = false;
    }
  }
  return referral;
}

template <class T>
struct Choice {
  const char* word;
  T value;
};
template <class T, size_t kSize>
absl::StatusOr<T> Choose(const Choice<T> (&choices)[kSize], const std::string& word) {
  for (const Choice<T>& choice : choices) {
    if (word == choice.word) return choice.value;
  }
  return Meaningless(word);
}
constexpr Choice<Dialect> kDialects[] = {{"2.1", Dialect::k210},
                                         {"3.0", Dialect::k300},
                                         {"3.0.2", Dialect::k302},
                                         {"3.1.1", Dialect::k311}};
constexpr Choice<SigningId> kSignings[] = {
    {"hmac", SigningId::kHmacSha256}, {"cmac", SigningId::kAesCmac}, {"gmac", SigningId::kAesGmac}};
constexpr Choice<CipherId> kCiphers[] = {{"128-ccm", CipherId::kAes128Ccm},
                                         {"128-gcm", CipherId::kAes128Gcm},
                                         {"256-ccm", CipherId::kAes256Ccm},
                                         {"256-gcm", CipherId::kAes256Gcm}};
constexpr Choice<bool> kSwitch[] = {{"on", true}, {"off", false}};

}  // namespace

absl::Status ScriptedConfig::ApplyAll(std::string_view text) {
  int number = 0;
  for (const absl::string_view line :
       absl::StrSplit(absl::string_view(text.data(), text.size()), '\n')) {
    ++number;
    const absl::Status status = Apply({line.data(), line.size()}).status();
    if (!status.ok()) {
      return absl::InvalidArgumentError(absl::StrCat("line ", number, ": ", status.message()));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> ScriptedConfig::Apply(std::string_view line) {
  ASSIGN_OR_RETURN(const Words words, SplitWords(line));
  if (words.empty()) return "";
  const std::string& command = words[0];
  if (command == "listen" && words.size() == 2) {
    ASSIGN_OR_RETURN(const runtime::SocketAddress address, AddressOf(words[1]));
    listen_.push_back(address);
  } else if (command == "user" && words.size() == 3) {
    server_.AddUser(words[1], words[2]);
  } else if (command == "ntlm" && (words.size() == 3 || words.size() == 4)) {
    ntlm_accounts_.push_back({words[1], words[2], words.size() == 4 ? words[3] : ""});
  } else if (command == "option" && words.size() >= 2) {
    RETURN_IF_ERROR(Option(words));
  } else if (command == "share" && words.size() >= 2) {
    RETURN_IF_ERROR(Share(words));
  } else if (command == "domain" && words.size() >= 2) {
    server_.AddDomain(words[1], Words(words.begin() + 2, words.end()));
  } else if (command == "rule") {
    RETURN_IF_ERROR(AddRule(words));
  } else if (command == "clear") {
    server_.ClearRules();
  } else if (command == "expire") {
    server_.ExpireSessions();
  } else if (command == "delete_sessions") {
    server_.DeleteSessions();
  } else if (command == "disconnect" && words.size() == 2) {
    server_.DisconnectTrees(words[1]);
  } else if (command == "close" || command == "reset") {
    server_.CloseConnections(command == "close" ? Closing::kClose : Closing::kReset);
  } else if (command == "counts") {
    return Counts();
  } else if (command == "forget") {
    server_.ClearLog();
  } else {
    RETURN_IF_ERROR(InShare(words));
  }
  return "";
}

absl::Status ScriptedConfig::Option(const Words& words) {
  ServerOptions& options = server_.options();
  const std::string& name = words[1];
  const std::string value = words.size() > 2 ? words[2] : "on";
  static const auto* const switches = new std::map<std::string, bool ServerOptions::*>{
      {"signing_required", &ServerOptions::signing_required},
      {"encrypt_sessions", &ServerOptions::encrypt_sessions},
      {"guests", &ServerOptions::guests},
      {"dfs", &ServerOptions::dfs},
      {"referrals_ex", &ServerOptions::referrals_ex},
      {"large_mtu", &ServerOptions::large_mtu},
      {"silent", &ServerOptions::silent},
      {"leases", &ServerOptions::leases},
      {"appends", &ServerOptions::appends},
      {"splits_compounds", &ServerOptions::splits_compounds},
      {"drops_bad_signatures", &ServerOptions::drops_bad_signatures}};
  if (const auto found = switches->find(name); found != switches->end()) {
    ASSIGN_OR_RETURN(options.*found->second, Choose(kSwitch, value));
  } else if (name == "lowest_dialect") {
    ASSIGN_OR_RETURN(options.lowest_dialect, Choose(kDialects, value));
  } else if (name == "highest_dialect") {
    ASSIGN_OR_RETURN(options.highest_dialect, Choose(kDialects, value));
  } else if (name == "signing") {
    options.signing_algorithms.clear();
    for (size_t i = 2; i < words.size(); ++i) {
      ASSIGN_OR_RETURN(const SigningId id, Choose(kSignings, words[i]));
      options.signing_algorithms.push_back(id);
    }
  } else if (name == "ciphers") {
    options.ciphers.clear();
    for (size_t i = 2; i < words.size(); ++i) {
      ASSIGN_OR_RETURN(const CipherId id, Choose(kCiphers, words[i]));
      options.ciphers.push_back(id);
    }
  } else if (name == "max_read" || name == "max_transact" || name == "most_credits" ||
             name == "max_write" || name == "most_written" || name == "durable_seconds") {
    ASSIGN_OR_RETURN(const uint64_t number, Number(value));
    if (name == "max_read") options.max_read_bytes = static_cast<uint32_t>(number);
    if (name == "max_transact") options.max_transact_bytes = static_cast<uint32_t>(number);
    if (name == "max_write") options.max_write_bytes = static_cast<uint32_t>(number);
    if (name == "most_written") options.most_written_bytes = static_cast<uint32_t>(number);
    if (name == "durable_seconds") options.durable_for = absl::Seconds(number);
    if (name == "most_credits") options.most_credits = static_cast<int>(number);
  } else {
    return Meaningless(name);
  }
  return absl::OkStatus();
}

absl::Status ScriptedConfig::Share(const Words& words) {
  share_ = server_.FindShare(words[1]);
  if (share_ == nullptr) share_ = &server_.AddShare(words[1]);
  for (size_t i = 2; i < words.size(); ++i) {
    if (words[i] == "root") {
      share_->dfs_root = true;
    } else if (words[i] == "encrypt") {
      share_->encrypt = true;
    } else if (words[i] == "writable") {
      share_->writable = true;
    } else if (words[i] == "persistent") {
      share_->persistent_handles = true;
    } else if (words[i] == "posix") {
      share_->posix_unlink = true;
    } else {
      return Meaningless(words[i]);
    }
  }
  return absl::OkStatus();
}

absl::Status ScriptedConfig::InShare(const Words& words) {
  const std::string& command = words[0];
  const size_t size = words.size();
  if (share_ == nullptr) return Meaningless(command);
  if (command == "dir" && size == 2) {
    share_->AddDirectory(words[1]);
  } else if (command == "file" && (size == 3 || size == 4)) {
    ASSIGN_OR_RETURN(const uint64_t bytes, Number(words[2]));
    uint64_t version = 0;
    if (size == 4) {
      ASSIGN_OR_RETURN(version, Number(words[3]));
    }
    share_->AddFile(words[1], bytes, version);
  } else if (command == "files" && size == 4) {
    ASSIGN_OR_RETURN(const uint64_t count, Number(words[2]));
    ASSIGN_OR_RETURN(const uint64_t bytes, Number(words[3]));
    for (uint64_t i = 0; i < count; ++i) share_->AddFile(absl::StrCat(words[1], i), bytes);
  } else if (command == "text" && size == 3) {
    share_->AddText(words[1], words[2]);
  } else if (command == "symlink" && size == 3) {
    share_->AddSymlink(words[1], words[2]);
  } else if (command == "link" && size >= 2) {
    ASSIGN_OR_RETURN(ScriptedReferral referral, ReferralOf(words, 2));
    share_->AddLink(words[1], std::move(referral));
  } else if (command == "targets") {
    ASSIGN_OR_RETURN(share_->root_referral, ReferralOf(words, 1));
  } else if (command == "deny" && size == 2) {
    ScriptedFile* const file = share_->Find(words[1]);
    if (file == nullptr) return Meaningless(words[1]);
    file->denied = true;
  } else if (command == "order" && size == 2) {
    ASSIGN_OR_RETURN(share_->listing_order, Number(words[1]));
  } else if (command == "remove" && size == 2) {
    share_->Remove(words[1]);
  } else if (command == "connect_status" && size == 2) {
    ASSIGN_OR_RETURN(share_->connect_status, StatusNamed(words[1]));
  } else {
    return Meaningless(command);
  }
  return absl::OkStatus();
}

absl::Status ScriptedConfig::AddRule(const Words& words) {
  Rule rule;
  Action& action = rule.action;
  static const auto* const switches =
      new std::map<std::string, bool Action::*>{{"pending", &Action::pending},
                                                {"drop", &Action::drop},
                                                {"ignore", &Action::ignore},
                                                {"bad_signature", &Action::bad_signature},
                                                {"unsigned", &Action::is_unsigned}};
  for (size_t i = 1; i < words.size(); ++i) {
    const std::pair<std::string, std::string> part =
        absl::StrSplit(words[i], absl::MaxSplits('=', 1));
    const auto& [name, value] = part;
    if (const auto found = switches->find(name); found != switches->end() && value.empty()) {
      action.*found->second = true;
    } else if (name == "close" || name == "reset") {
      action.close = name == "close" ? Closing::kClose : Closing::kReset;
    } else if (name == "command") {
      ASSIGN_OR_RETURN(rule.command, CommandNamed(value));
    } else if (name == "status") {
      ASSIGN_OR_RETURN(action.status, StatusNamed(value));
    } else if (name == "share") {
      rule.share = value;
    } else if (name == "path") {
      rule.path = value;
    } else if (name == "delay") {
      if (!absl::ParseDuration(value, &action.delay)) return Meaningless(value);
    } else {
      ASSIGN_OR_RETURN(const uint64_t number, Number(value));
      if (name == "fsctl") {
        rule.fsctl = static_cast<smb::wire::Fsctl>(number);
      } else if (name == "skip") {
        rule.skip = static_cast<int64_t>(number);
      } else if (name == "times") {
        rule.times = static_cast<int64_t>(number);
      } else if (name == "copies") {
        action.copies = static_cast<int>(number);
      } else if (name == "message_id") {
        action.message_id = number;
      } else if (name == "credits") {
        action.credits = static_cast<uint16_t>(number);
      } else if (name == "truncate") {
        action.truncate_to = number;
      } else {
        return Meaningless(name);
      }
    }
  }
  server_.AddRule(std::move(rule));
  return absl::OkStatus();
}

std::string ScriptedConfig::Counts() const {
  std::string text;
  for (uint16_t i = 0; i <= static_cast<uint16_t>(Command::kOplockBreak); ++i) {
    const auto command = static_cast<Command>(i);
    const int64_t count = server_.Count(command);
    if (count > 0) {
      absl::StrAppend(&text, std::string(smb::wire::CommandName(command)), " ", count, "\n");
    }
  }
  absl::StrAppend(&text, "referrals ", server_.CountReferrals(), "\nframes ", server_.frames(),
                  "\nconnections ", server_.connections(), "\nconnections_ever ",
                  server_.connections_ever(), "\nsessions ", server_.sessions(), "\nopens ",
                  server_.opens(), "\nviolations ", server_.violations().size(), "\n");
  for (const std::string& violation : server_.violations()) absl::StrAppend(&text, violation, "\n");
  return text;
}

}  // namespace dfscsi::testing
