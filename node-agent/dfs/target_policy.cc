#include "node-agent/dfs/target_policy.h"

#include <arpa/inet.h>

#include <algorithm>
#include <cstdint>
#include <optional>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"

namespace dfscsi::dfs {
namespace {

constexpr absl::string_view kIpv6LiteralSuffix = ".ipv6-literal.net";

std::string Canonical(absl::string_view host) {
  if (absl::EndsWith(host, ".")) host.remove_suffix(1);
  return absl::AsciiStrToLower(host);
}

// The address in Windows' spelling of IPv6 in UNC paths: fe80--1s4.ipv6-literal.net.
std::string FromIpv6Literal(absl::string_view host) {
  if (!absl::EndsWith(host, kIpv6LiteralSuffix)) return std::string(host);
  host.remove_suffix(kIpv6LiteralSuffix.size());
  return absl::StrReplaceAll(host.substr(0, host.find('s')), {{"-", ":"}});
}

bool IsLocalIpv4(uint32_t address) {
  return address >> 24 == 127 || address >> 24 == 0 || address >> 16 == 0xA9FE ||
         address == 0xFFFFFFFF;
}

bool IsAddress(const std::string& text) {
  in6_addr unused;
  return inet_pton(AF_INET, text.c_str(), &unused) == 1 ||
         inet_pton(AF_INET6, text.c_str(), &unused) == 1;
}

// 127.1, 0x7f000001, 2130706433, 0177.0.0.1: what inet_aton still takes for addresses. No DNS name
// of a host looks like that (its last label would be a number).
bool IsOddIpv4(const std::string& text) {
  in_addr unused;
  return inet_pton(AF_INET, text.c_str(), &unused) != 1 && inet_aton(text.c_str(), &unused) == 1;
}

// ".com", ".co.uk": whoever pays gets a name there. Without a list of all registries this knows
// their usual form: one label, or a country's two letters behind at most three.
bool IsRegistry(absl::string_view suffix) {
  suffix.remove_prefix(1);
  const size_t dot = suffix.find('.');
  if (dot == absl::string_view::npos) return true;
  const absl::string_view country = suffix.substr(dot + 1);
  return dot <= 3 && country.size() == 2 && country.find('.') == absl::string_view::npos;
}

}  // namespace

bool IsLocalAddress(absl::string_view address) {
  const std::string text(address.substr(0, address.find('%')));
  in_addr v4;
  if (inet_pton(AF_INET, text.c_str(), &v4) == 1) return IsLocalIpv4(ntohl(v4.s_addr));
  in6_addr v6;
  if (inet_pton(AF_INET6, text.c_str(), &v6) != 1) return false;
  if (IN6_IS_ADDR_V4MAPPED(&v6) || IN6_IS_ADDR_V4COMPAT(&v6)) {
    uint32_t low = 0;
    for (int i = 12; i < 16; ++i) low = low << 8 | v6.s6_addr[i];
    // ::1 and :: are "v4-compatible" by their bits.
    if (low <= 1 || IsLocalIpv4(low)) return true;
  }
  return IN6_IS_ADDR_LOOPBACK(&v6) || IN6_IS_ADDR_UNSPECIFIED(&v6) || IN6_IS_ADDR_LINKLOCAL(&v6);
}

absl::StatusOr<AllowedTargets> AllowedTargets::Make(absl::string_view mounted_host,
                                                    const std::vector<std::string>& allowed,
                                                    bool allow_local) {
  AllowedTargets targets;
  targets.mounted_host_ = Canonical(mounted_host);
  targets.allow_local_ = allow_local;
  for (const std::string& pattern : allowed) {
    const std::string canonical = Canonical(pattern);
    const absl::string_view name = absl::StripAsciiWhitespace(
        absl::StartsWith(canonical, ".") ? absl::string_view(canonical).substr(1)
                                         : absl::string_view(canonical));
    if (canonical == "*") {
      targets.all_ = true;
    } else if (name.empty() || name.find_first_of("*/\\ ,@") != absl::string_view::npos) {
      return absl::InvalidArgumentError(
          absl::StrCat("allowed_targets: \"", pattern,
                       "\" is neither a host name nor a suffix like .corp.example.com"));
    } else if (absl::StartsWith(canonical, ".")) {
      targets.suffixes_.push_back(canonical);
    } else {
      targets.hosts_.push_back(canonical);
    }
  }
  if (!allowed.empty()) return targets;
  const size_t dot = targets.mounted_host_.find('.');
  if (dot == std::string::npos || IsAddress(targets.mounted_host_)) {
    targets.all_ = true;
  } else {
    // A domain is mounted by its own name, a server by a name in it.
    const std::string parent = targets.mounted_host_.substr(dot);
    if (!IsRegistry(parent)) targets.suffixes_.push_back(parent);
    targets.suffixes_.push_back(absl::StrCat(".", targets.mounted_host_));
    targets.single_labels_ = true;
  }
  return targets;
}

bool AllowedTargets::AllowsHost(absl::string_view host) const {
  const std::string name = Canonical(host);
  if (name.empty()) return false;
  if (name == mounted_host_) return true;  // The user's own word, not a referral's.
  if (!allow_local_) {
    if (name == "localhost" || absl::EndsWith(name, ".localhost") ||
        absl::StartsWith(name, "localhost.localdomain") || IsOddIpv4(name) ||
        IsLocalAddress(FromIpv6Literal(name))) {
      return false;
    }
  }
  if (all_) return true;
  if (std::find(hosts_.begin(), hosts_.end(), name) != hosts_.end()) return true;
  for (const std::string& suffix : suffixes_) {
    if (name.size() > suffix.size() && absl::EndsWith(name, suffix)) return true;
  }
  // NetBIOS names get the resolver's search domain.
  return single_labels_ && name.find('.') == std::string::npos && !IsAddress(name);
}

bool AllowedTargets::AllowsAddress(absl::string_view address, bool is_own) const {
  return allow_local_ || (!is_own && !IsLocalAddress(address));
}

bool AllowedTargets::IsMountedHost(absl::string_view host) const {
  return Canonical(host) == mounted_host_;
}

}  // namespace dfscsi::dfs
