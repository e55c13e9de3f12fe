#include "node-agent/agent/mount_options.h"

#include <algorithm>
#include <functional>
#include <map>
#include <optional>
#include <string_view>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "node-agent/base/status_macros.h"

namespace dfscsi::agent {
namespace {

// The parts of a value that have no place in the three option structs.
struct Parsed {
  MountOptions options;
  bool soft = false;
  absl::Duration op_timeout = absl::Seconds(60);
};

using Apply = absl::Status (*)(const std::string& value, Parsed* parsed);

enum class Value { kNone, kNeeded, kMaybe };

struct Option {
  std::string_view name;
  Value value;
  Apply apply;
};

absl::Status Impossible(const char* what) { return absl::InvalidArgumentError(what); }

absl::StatusOr<absl::Duration> ParseDuration(const std::string& text) {
  absl::Duration duration;
  double seconds = 0;
  if (absl::SimpleAtod(text, &seconds)) {
    duration = absl::Seconds(seconds);
  } else if (!absl::ParseDuration(text, &duration)) {
    return Impossible("needs a duration (500ms, 30s, 5m)");
  }
  if (!(duration >= absl::ZeroDuration()) || duration > absl::Hours(24 * 365)) {
    return Impossible("needs a duration between 0 and a year");
  }
  return duration;
}

absl::Status SetDuration(const std::string& value, absl::Duration least, absl::Duration* into) {
  ASSIGN_OR_RETURN(*into, ParseDuration(value));
  if (*into >= least) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("must be at least ", absl::FormatDuration(least)));
}

absl::Status SetMode(const std::string& value, mode_t* into) {
  uint32_t mode = 0;
  const bool octal = !value.empty() && value.find_first_not_of("01234567") == std::string::npos;
  if (!octal || value.size() > 6) return Impossible("needs octal permission bits, as 0755");
  for (const char digit : value) mode = mode * 8 + static_cast<uint32_t>(digit - '0');
  if (mode > 0777) return Impossible("has more than permission bits");
  *into = mode;
  return absl::OkStatus();
}

absl::Status SetId(const std::string& value, uint32_t* into) {
  if (!absl::SimpleAtoi(value, into) || *into == UINT32_MAX) return Impossible("needs a number");
  return absl::OkStatus();
}

absl::Status SetDialect(const std::string& value, Parsed* parsed) {
  using smb::wire::Dialect;
  smb::Options& smb = parsed->options.smb;
  if (value == "3" || value == "default") {
    smb.lowest_dialect = Dialect::k300;
    smb.highest_dialect = Dialect::k311;
    return absl::OkStatus();
  }
  static constexpr std::pair<std::string_view, Dialect> kDialects[] = {
      {"2.1", Dialect::k210},  {"3.0", Dialect::k300},   {"3.0.2", Dialect::k302},
      {"3.02", Dialect::k302}, {"3.1.1", Dialect::k311}, {"3.11", Dialect::k311}};
  for (const auto& [name, dialect] : kDialects) {
    if (value != name) continue;
    smb.lowest_dialect = smb.highest_dialect = dialect;
    return absl::OkStatus();
  }
  if (value == "1.0" || value == "2.0" || value == "1") {
    return Impossible("is not spoken (no signing that is worth the name); use 3");
  }
  return Impossible("must be 2.1, 3.0, 3.0.2, 3.1.1 or 3");
}

absl::Status SetSecurity(const std::string& value, Parsed* parsed) {
  if (value == "ntlmssp" || value == "ntlmsspi") return absl::OkStatus();
  if (value == "krb5" || value == "krb5i") return Impossible("is not implemented yet");
  return Impossible("must be ntlmssp");
}

absl::Status SetSigning(const std::string& value, Parsed* parsed) {
  if (value == "required") {
    parsed->options.smb.signing = smb::Signing::kRequired;
  } else if (value == "if_required") {
    parsed->options.smb.signing = smb::Signing::kIfRequired;
  } else {
    return Impossible("must be required or if_required");
  }
  return absl::OkStatus();
}

absl::Status SetPort(const std::string& value, Parsed* parsed) {
  uint32_t port = 0;
  if (!absl::SimpleAtoi(value, &port) || port == 0 || port > 65535) {
    return Impossible("needs a port");
  }
  parsed->options.smb.port = static_cast<uint16_t>(port);
  return absl::OkStatus();
}

absl::Status SetCache(const std::string& value, Parsed* parsed) {
  if (value != "strict" && value != "none") return Impossible("must be strict or none");
  parsed->options.vfs.pages = value == "strict";
  return absl::OkStatus();
}

absl::Status SetIdentity(const std::string& value, Parsed* parsed) {
  if (value != "on" && value != "off" && value != "strict") {
    return Impossible("must be on, off or strict");
  }
  parsed->options.vfs.check_identity = value != "off";
  parsed->options.vfs.refuse_older = value == "strict";
  return absl::OkStatus();
}

absl::Status SetWrites(const std::string& value, Parsed* parsed) {
  if (value != "error" && value != "replay") return Impossible("must be error or replay");
  parsed->options.vfs.replay_writes = value == "replay";
  return absl::OkStatus();
}

absl::Status SetFailback(const std::string& value, Parsed* parsed) {
  dfs::ClientOptions& dfs = parsed->options.dfs;
  if (value == "never" || value == "referral") {
    dfs.failback = value == "never" ? dfs::Failback::kNever : dfs::Failback::kReferral;
    return absl::OkStatus();
  }
  if (!SetDuration(value, absl::ZeroDuration(), &dfs.failback_dwell).ok()) {
    return Impossible("must be never, referral or a duration");
  }
  dfs.failback = dfs::Failback::kAlways;
  return absl::OkStatus();
}

// The one value that there is, the default.
absl::Status Only(std::string_view accepted, const std::string& value) {
  return value == accepted ? absl::OkStatus() : Impossible("is not implemented yet");
}

absl::Status Later(const std::string& value, Parsed* parsed) {
  return Impossible("is not implemented yet");
}

// Sorted by what they are about, as in docs/options.md.
const Option kOptions[] = {
    {"ro", Value::kNone,
     [](auto&, Parsed* p) {
       p->options.vfs.read_only = true;
       return absl::OkStatus();
     }},
    {"rw", Value::kNone,
     [](auto&, Parsed* p) {
       p->options.vfs.read_only = false;
       return absl::OkStatus();
     }},
    {"vers", Value::kNeeded, SetDialect},
    {"sec", Value::kNeeded, SetSecurity},
    {"guest", Value::kNone,
     [](auto&, Parsed*) { return Impossible("is refused: every mount needs a user"); }},
    {"sign", Value::kNone, [](auto&, Parsed* p) { return SetSigning("required", p); }},
    {"nosign", Value::kNone, [](auto&, Parsed* p) { return SetSigning("if_required", p); }},
    {"signing", Value::kNeeded, SetSigning},
    {"seal", Value::kNone,
     [](auto&, Parsed* p) {
       p->options.smb.encryption = smb::Encryption::kRequired;
       return absl::OkStatus();
     }},
    {"encryption", Value::kNeeded,
     [](auto& v, Parsed* p) {
       if (v != "required" && v != "if_required") {
         return Impossible("must be required or if_required");
       }
       p->options.smb.encryption =
           v == "required" ? smb::Encryption::kRequired : smb::Encryption::kIfRequired;
       return absl::OkStatus();
     }},
    {"port", Value::kNeeded, SetPort},
    {"allowed_targets", Value::kNeeded,
     [](auto& v, Parsed* p) {
       p->options.dfs.allowed_targets = absl::StrSplit(v, ':', absl::SkipEmpty());
       return p->options.dfs.allowed_targets.empty() ? Impossible("needs a host or a suffix")
                                                     : absl::OkStatus();
     }},
    {"allow_local_targets", Value::kNone,
     [](auto&, Parsed* p) {
       p->options.dfs.allow_local_targets = true;
       return absl::OkStatus();
     }},

    {"uid", Value::kNeeded, [](auto& v, Parsed* p) { return SetId(v, &p->options.vfs.uid); }},
    {"gid", Value::kNeeded, [](auto& v, Parsed* p) { return SetId(v, &p->options.vfs.gid); }},
    {"file_mode", Value::kNeeded,
     [](auto& v, Parsed* p) { return SetMode(v, &p->options.vfs.file_mode); }},
    {"dir_mode", Value::kNeeded,
     [](auto& v, Parsed* p) { return SetMode(v, &p->options.vfs.dir_mode); }},
    {"actimeo", Value::kNeeded,
     [](auto& v, Parsed* p) {
       return SetDuration(v, absl::ZeroDuration(), &p->options.vfs.actimeo);
     }},
    {"cache", Value::kNeeded, SetCache},
    {"mfsymlinks", Value::kNone,
     [](auto&, Parsed* p) {
       p->options.vfs.mf_symlinks = true;
       return absl::OkStatus();
     }},
    {"durable", Value::kNone,
     [](auto&, Parsed* p) {
       p->options.vfs.durable = true;
       return absl::OkStatus();
     }},
    {"write_behind", Value::kNone,
     [](auto&, Parsed* p) {
       p->options.vfs.write_behind = true;
       return absl::OkStatus();
     }},
    {"nolease", Value::kNone,
     [](auto&, Parsed* p) {
       p->options.vfs.leases = false;
       return absl::OkStatus();
     }},
    {"nobrl", Value::kNone,
     [](auto&, Parsed* p) {
       p->options.vfs.locks = false;
       return absl::OkStatus();
     }},
    {"user_xattr", Value::kNone,
     [](auto&, Parsed* p) {
       p->options.vfs.user_xattr = true;
       return absl::OkStatus();
     }},
    {"nouser_xattr", Value::kNone,
     [](auto&, Parsed* p) {
       p->options.vfs.user_xattr = false;
       return absl::OkStatus();
     }},

    {"hard", Value::kNone,
     [](auto&, Parsed* p) {
       p->soft = false;
       return absl::OkStatus();
     }},
    {"soft", Value::kNone,
     [](auto&, Parsed* p) {
       p->soft = true;
       return absl::OkStatus();
     }},
    {"op_timeout", Value::kNeeded,
     [](auto& v, Parsed* p) { return SetDuration(v, absl::Seconds(1), &p->op_timeout); }},
    {"connect_timeout", Value::kNeeded,
     [](auto& v, Parsed* p) {
       return SetDuration(v, absl::Milliseconds(100), &p->options.smb.connect_timeout);
     }},
    {"suspect_after", Value::kNeeded,
     [](auto& v, Parsed* p) {
       return SetDuration(v, absl::Milliseconds(100), &p->options.smb.suspect_after);
     }},
    {"echo_interval", Value::kNeeded,
     [](auto& v, Parsed* p) {
       RETURN_IF_ERROR(SetDuration(v, absl::Seconds(1), &p->options.smb.suspect_after));
       p->options.smb.suspect_after /= 2;
       return absl::OkStatus();
     }},
    {"write_grace", Value::kNeeded,
     [](auto& v, Parsed* p) {
       return SetDuration(v, absl::Seconds(1), &p->options.dfs.write_grace);
     }},
    {"referral_ttl_min", Value::kNeeded,
     [](auto& v, Parsed* p) {
       return SetDuration(v, absl::ZeroDuration(), &p->options.dfs.referral_ttl_min);
     }},
    {"referral_ttl_max", Value::kNeeded,
     [](auto& v, Parsed* p) {
       return SetDuration(v, absl::Seconds(1), &p->options.dfs.referral_ttl_max);
     }},
    {"failover_identity", Value::kNeeded, SetIdentity},
    {"failover_writes", Value::kNeeded, SetWrites},
    {"target_policy", Value::kNeeded, [](auto& v, Parsed*) { return Only("referral", v); }},
    {"failback", Value::kNeeded, SetFailback},
    {"site", Value::kNeeded,
     [](auto& v, Parsed* p) {
       p->options.dfs.site = v;
       return absl::OkStatus();
     }},
    {"offline_stage", Value::kMaybe, Later},
};

// Another name: the same option.
const std::pair<std::string_view, std::string_view> kAliases[] = {
    {"acregmax", "actimeo"},
    {"acdirmax", "actimeo"},
    {"timeouts.io", "op_timeout"},
    {"timeouts.connect", "connect_timeout"},
    {"handletimeout", "write_grace"},
    {"dfs.referralTtlMax", "referral_ttl_max"},
    {"dfs.targetPolicy", "target_policy"},
    {"dfs.failback", "failback"},
    {"dfs.preferredSite", "site"},
};

// Words of cifs that people have in their configurations. Silent: they say what we do anyway.
constexpr std::string_view kSilent[] = {"noserverino", "serverino", "nosuid", "nodev",
                                        "noatime",     "_netdev",   "nofail"};
constexpr std::string_view kWarned[] = {"nosharesock",  "rsize",  "wsize",
                                        "max_channels", "noperm", "iocharset",
                                        "multichannel", "bsize",  "noexec"};
// A secret must not stand in an option, and these must not come this far.
constexpr std::string_view kSecrets[] = {"password", "pass", "passwd", "password2"};
constexpr std::string_view kOfTheCaller[] = {"credentials", "cred", "username", "user",
                                             "domain",      "dom",  "workgroup"};

template <size_t n>
bool Contains(const std::string_view (&names)[n], std::string_view name) {
  return std::find(std::begin(names), std::end(names), name) != std::end(names);
}

const Option* Find(std::string_view name) {
  for (const auto& [alias, meant] : kAliases) {
    if (alias == name) name = meant;
  }
  for (const Option& option : kOptions) {
    if (option.name == name) return &option;
  }
  return nullptr;
}

// Letters that are wrong, missing, too many, or two of them in each other's place.
size_t EditDistance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1), above, two_above;
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    two_above = std::exchange(above, row);
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t replaced = above[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1);
      row[j] = std::min({above[j] + 1, row[j - 1] + 1, replaced});
      const bool swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
      if (swapped) row[j] = std::min(row[j], two_above[j - 2] + 1);
    }
  }
  return row[b.size()];
}

// "; the nearest is actimeo", where there is one that may have been meant.
std::string HintFor(std::string_view name) {
  std::string_view nearest;
  size_t least = name.size() / 3 + 1;  // A third of its letters is wrong: another word.
  const auto consider = [&](std::string_view known) {
    const size_t distance = EditDistance(absl::AsciiStrToLower(std::string(name)), known);
    if (distance < least) {
      least = distance;
      nearest = known;
    }
  };
  for (const Option& option : kOptions) consider(option.name);
  for (const auto& [alias, meant] : kAliases) consider(alias);
  for (const std::string_view word : kOfTheCaller) consider(word);
  for (const std::string_view word : kSecrets) consider(word);
  return nearest.empty() ? "" : absl::StrCat("; the nearest is ", std::string(nearest));
}

// What of an option may be shown: a value may be a secret that is in the wrong place.
absl::Status ParseOne(const std::string& text, Parsed* parsed) {
  const size_t equals = text.find('=');
  const std::string name = text.substr(0, equals);
  const bool has_value = equals != std::string::npos;
  if (name.empty()) return absl::InvalidArgumentError("an option without a name");
  if (Contains(kSecrets, name)) {
    return absl::InvalidArgumentError(
        absl::StrCat("option ", name, ": secrets are read from a credentials file only"));
  }
  if (Contains(kOfTheCaller, name)) {
    return absl::InvalidArgumentError(
        absl::StrCat("option ", name, ": the credential is not part of a mount's options"));
  }
  if (Contains(kSilent, name)) return absl::OkStatus();
  if (Contains(kWarned, name)) {
    parsed->options.warnings.push_back(absl::StrCat("option ", name, " has no effect"));
    return absl::OkStatus();
  }
  const Option* const option = Find(name);
  if (option == nullptr) {
    if (name.size() > 100) {
      return absl::InvalidArgumentError("unknown option");
    }
    return absl::InvalidArgumentError(absl::StrCat("unknown option '", name, "'", HintFor(name)));
  }
  const std::string value = has_value ? text.substr(equals + 1) : std::string();
  if (option->value == Value::kNone && has_value) {
    return absl::InvalidArgumentError(absl::StrCat("option ", name, " takes no value"));
  }
  if (option->value == Value::kNeeded && value.empty()) {
    return absl::InvalidArgumentError(absl::StrCat("option ", name, " needs a value"));
  }
  absl::Status applied = option->apply(value, parsed);
  if (applied.ok()) return applied;
  return absl::InvalidArgumentError(
      absl::StrCat("option ", text.substr(0, 200), ": ", std::string(applied.message())));
}

}  // namespace

bool HasNoEffect(std::string_view option) {
  const std::string_view name = option.substr(0, option.find('='));
  return Contains(kSilent, name) || Contains(kWarned, name);
}

std::string ShownOption(const std::string& option) {
  return HasNoEffect(option) ? option.substr(0, option.find('=')) : option;
}

std::vector<std::string> MountOptionNames() {
  std::vector<std::string> names;
  for (const Option& option : kOptions) names.emplace_back(option.name);
  for (const auto& [alias, meant] : kAliases) names.emplace_back(alias);
  names.insert(names.end(), std::begin(kSilent), std::end(kSilent));
  names.insert(names.end(), std::begin(kWarned), std::end(kWarned));
  names.insert(names.end(), std::begin(kOfTheCaller), std::end(kOfTheCaller));
  return names;
}

namespace {

// Of two options that were given, the one that the other leaves nothing to do.
void WarnOfPairs(MountOptions* options) {
  const vfs::Options& vfs = options->vfs;
  const auto warn = [options](absl::string_view name, absl::string_view why) {
    options->warnings.push_back(absl::StrCat("option ", name, " has no effect ", why));
  };
  const bool replays = vfs.replay_writes;
  if (vfs.read_only) {
    if (vfs.write_behind) warn("write_behind", "without rw");
    if (vfs.durable) warn("durable", "without rw");
    if (replays) warn("failover_writes=replay", "without rw");
    return;
  }
  if (!vfs.write_behind) return;
  if (!vfs.leases) warn("write_behind", "with nolease");
  if (!vfs.pages) warn("write_behind", "with cache=none");
  if (replays) warn("write_behind", "with failover_writes=replay");
}

}  // namespace

absl::StatusOr<MountOptions> ParseMountOptions(absl::Span<const std::string> options) {
  Parsed parsed;
  // The default until writing has leases and links.
  parsed.options.vfs.read_only = true;
  for (const std::string& option : options) RETURN_IF_ERROR(ParseOne(option, &parsed));
  if (parsed.soft) parsed.options.dfs.give_up_after = parsed.op_timeout;
  // Who waits no longer for the server has no use for what it keeps.
  parsed.options.vfs.durable_for = std::min(parsed.options.dfs.write_grace, absl::Minutes(2));
  if (parsed.options.dfs.referral_ttl_min > parsed.options.dfs.referral_ttl_max) {
    return absl::InvalidArgumentError("option referral_ttl_min is larger than referral_ttl_max");
  }
  WarnOfPairs(&parsed.options);
  return std::move(parsed.options);
}

}  // namespace dfscsi::agent
