#include "node-agent/dfs/path.h"

#include <arpa/inet.h>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "node-agent/base/status_macros.h"
#include "node-agent/smb/wire/utf16.h"

namespace dfscsi::dfs {
namespace {

// [MS-FSCC] 2.1.5.2 for names, 2.1.6 for shares; hosts by what no DNS or NetBIOS name contains.
constexpr absl::string_view kNotInNames = "\"*:<>?|";
constexpr absl::string_view kNotInShares = "\"*:<>?|[]+=;,";
constexpr absl::string_view kNotInHosts = "\"*:<>?|[]+=;, @%#";

bool IsSeparator(char c) { return c == '/' || c == '\\'; }

bool IsNumber(absl::string_view text) {
  return !text.empty() && text.find_first_not_of("0123456789") == absl::string_view::npos;
}

// What a message may show of a path: no control characters, not all of a long one, and nothing that
// looks like user:password@host.
std::string Shown(absl::string_view text) {
  constexpr size_t kMax = 120;
  if (const size_t at = text.rfind('@'); at != absl::string_view::npos) {
    const absl::string_view after = text.substr(at + 1);
    if (!IsNumber(after.substr(0, after.find_first_of("/\\")))) {
      return absl::StrCat("\"…@", Shown(after).substr(1));
    }
  }
  std::string shown = absl::Utf8SafeCEscape(text.substr(0, kMax));
  // The escapes meant for C; a person wants to see the backslash that was typed.
  std::string out;
  for (size_t i = 0; i < shown.size(); ++i) {
    if (shown[i] == '\\' && i + 1 < shown.size() &&
        (shown[i + 1] == '\\' || shown[i + 1] == '\'' || shown[i + 1] == '"')) {
      ++i;
    }
    out.push_back(shown[i]);
  }
  return absl::StrCat("\"", out, text.size() > kMax ? "…\"" : "\"");
}

absl::string_view KindOf(size_t index) {
  return index == 0 ? "host" : index == 1 ? "share" : "name";
}

size_t MaxUnits(size_t index) {
  return index == 0 ? kMaxHostUnits : index == 1 ? kMaxShareUnits : kMaxComponentUnits;
}

bool IsIpv6(absl::string_view text) {
  // A zone (fe80::1%eth0) is the resolver's business; inet_pton does not know it.
  const std::string address(text.substr(0, text.find('%')));
  in6_addr unused;
  return inet_pton(AF_INET6, address.c_str(), &unused) == 1;
}

struct HostParts {
  absl::string_view name;
  absl::string_view port;  // Behind '@'; empty: none.
  bool has_port = false;
};

HostParts SplitHost(absl::string_view host) {
  HostParts parts;
  if (const size_t at = host.rfind('@'); at != absl::string_view::npos) {
    parts.port = host.substr(at + 1);
    parts.has_port = true;
    host = host.substr(0, at);
  }
  if (host.size() >= 2 && host.front() == '[' && host.back() == ']') {
    host = host.substr(1, host.size() - 2);
  }
  parts.name = host;
  return parts;
}

absl::Status CheckUserHost(absl::string_view host) {
  const HostParts parts = SplitHost(host);
  if (parts.has_port) {
    uint32_t port = 0;
    if (!IsNumber(parts.port)) {
      return absl::InvalidArgumentError(
          absl::StrCat("host ", Shown(host),
                       ": no user name in a source; a port is written host@1445 (1 to 65535)"));
    }
    if (!absl::SimpleAtoi(parts.port, &port) || port < 1 || port > 65535) {
      return absl::InvalidArgumentError(
          absl::StrCat("the port of host ", Shown(host), " is not a number from 1 to 65535"));
    }
  }
  if (parts.name.empty()) return absl::InvalidArgumentError("the host is empty");
  if (IsIpv6(parts.name)) return absl::OkStatus();
  if (parts.name.data() != host.data()) {
    return absl::InvalidArgumentError(
        absl::StrCat("host ", Shown(host), ": no IPv6 address between the brackets"));
  }
  if (const size_t bad = parts.name.find_first_of(kNotInHosts); bad != absl::string_view::npos) {
    return absl::InvalidArgumentError(absl::StrCat("host ", Shown(host), " contains '",
                                                   parts.name.substr(bad, 1),
                                                   "'; a port is written host@1445"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status DfsPath::CheckName(absl::string_view name, size_t index, Origin origin) {
  const auto bad = [&](absl::string_view why) {
    return absl::InvalidArgumentError(absl::StrCat(KindOf(index), " ", Shown(name), " ", why));
  };
  if (name.empty()) return bad("is empty");
  if (name == "." || name == "..") return bad("is not allowed in a DFS path");
  for (const char c : name) {
    if (absl::ascii_iscntrl(static_cast<unsigned char>(c))) return bad("has a control character");
    if (IsSeparator(c)) return bad("has a separator in it");
  }
  if (index == 0 && origin == Origin::kUser) return CheckUserHost(name);
  const absl::string_view forbidden = index == 0   ? kNotInHosts
                                      : index == 1 ? kNotInShares
                                                   : kNotInNames;
  if (const size_t at = name.find_first_of(forbidden); at != absl::string_view::npos) {
    return bad(absl::StrCat("contains '", name.substr(at, 1), "', which SMB does not allow there"));
  }
  return absl::OkStatus();
}

absl::Status DfsPath::Append(absl::string_view name, Origin origin) {
  const size_t index = ends_.size();
  RETURN_IF_ERROR(CheckName(name, index, origin));
  const std::optional<std::u16string> units = smb::wire::Utf8ToUtf16({name.data(), name.size()});
  if (!units) {
    return absl::InvalidArgumentError(
        absl::StrCat(KindOf(index), " ", Shown(name), " is not valid UTF-8"));
  }
  if (units->size() > MaxUnits(index)) {
    return absl::OutOfRangeError(absl::StrCat(KindOf(index), " ", Shown(name), " is longer than ",
                                              MaxUnits(index), " characters"));
  }
  if (key_.size() + 1 + units->size() > kMaxPathUnits) {
    return absl::OutOfRangeError(
        absl::StrCat("the path is longer than ", kMaxPathUnits, " characters"));
  }
  text_.push_back('\\');
  text_.append(name.data(), name.size());
  key_.push_back(u'\\');
  for (const char16_t unit : *units) key_.push_back(smb::wire::FoldCase(unit));
  ends_.push_back(End{static_cast<uint32_t>(text_.size()), static_cast<uint32_t>(key_.size())});
  return absl::OkStatus();
}

absl::StatusOr<DfsPath> DfsPath::Parse(absl::string_view source) {
  const auto bad = [&](absl::string_view why) {
    return absl::InvalidArgumentError(
        absl::StrCat(Shown(source), ": ", why, " (expected //host/share[/path])"));
  };
  if (source.empty()) return bad("the source is empty");
  if (absl::StrContains(source, "://")) return bad("this is a URL, not a UNC path");
  if (source.size() < 2 || !IsSeparator(source[0]) || !IsSeparator(source[1])) {
    return bad("a source starts with two slashes");
  }
  DfsPath path;
  for (size_t at = 0; at < source.size();) {
    if (IsSeparator(source[at])) {
      ++at;
      continue;
    }
    size_t end = at;
    while (end < source.size() && !IsSeparator(source[end])) ++end;
    const absl::Status appended = path.Append(source.substr(at, end - at), Origin::kUser);
    if (!appended.ok()) return bad(appended.message());
    at = end;
  }
  if (path.size() == 0) return bad("no host");
  if (path.size() == 1) return bad("no share");
  return path;
}

absl::StatusOr<DfsPath> DfsPath::ParseTarget(std::u16string_view address) {
  if (address.empty() || address.front() != u'\\') {
    return absl::InvalidArgumentError("a target starts with a backslash");
  }
  address.remove_prefix(1);
  if (!address.empty() && address.front() == u'\\') address.remove_prefix(1);
  if (!address.empty() && address.back() == u'\\') address.remove_suffix(1);
  for (size_t i = 0; i < address.size(); ++i) {
    const bool high = (address[i] & 0xFC00) == 0xD800;
    const bool low = (address[i] & 0xFC00) == 0xDC00;
    if (high && i + 1 < address.size() && (address[i + 1] & 0xFC00) == 0xDC00) {
      ++i;
    } else if (high || low) {
      return absl::InvalidArgumentError("a target with half a surrogate pair");
    }
  }
  DfsPath path;
  for (;;) {
    const size_t end = address.find(u'\\');
    RETURN_IF_ERROR(path.Append(smb::wire::Utf16ToUtf8(address.substr(0, end)), Origin::kServer));
    if (end == std::u16string_view::npos) break;
    address.remove_prefix(end + 1);
  }
  if (path.size() < 2) return absl::InvalidArgumentError("a target without a share");
  if (absl::EqualsIgnoreCase(path.share(), "IPC$")) {
    return absl::InvalidArgumentError("a target that is IPC$");
  }
  return path;
}

absl::string_view DfsPath::Component(size_t index) const {
  const size_t begin = index == 0 ? 1 : ends_[index - 1].text + 1;
  return absl::string_view(text_).substr(begin, ends_[index].text - begin);
}

absl::string_view DfsPath::HostName() const { return SplitHost(host()).name; }

std::optional<uint16_t> DfsPath::Port() const {
  const HostParts parts = SplitHost(host());
  uint32_t port = 0;
  if (!parts.has_port || !absl::SimpleAtoi(parts.port, &port)) return std::nullopt;
  return static_cast<uint16_t>(port);
}

DfsPath DfsPath::WithoutPort() const {
  if (HostName().size() == host().size()) return *this;
  // Shorter than what was parsed before, of the same names: neither can fail.
  return *ReplacePrefix(2, *Parse(absl::StrCat("//", HostName(), "/", share())));
}

std::u16string_view DfsPath::KeyPrefix(size_t components) const {
  return std::u16string_view(key_).substr(0, components == 0 ? 0 : ends_[components - 1].key);
}

bool DfsPath::HasPrefix(const DfsPath& prefix) const {
  return prefix.size() <= size() && KeyPrefix(prefix.size()) == prefix.key_;
}

DfsPath DfsPath::Prefix(size_t components) const {
  DfsPath path;
  path.text_ = text_.substr(0, ends_[components - 1].text);
  path.key_ = key_.substr(0, ends_[components - 1].key);
  path.ends_.assign(ends_.begin(), ends_.begin() + components);
  return path;
}

absl::StatusOr<DfsPath> DfsPath::Join(absl::string_view component) const {
  DfsPath path = *this;
  RETURN_IF_ERROR(path.Append(component, Origin::kServer));
  return path;
}

absl::StatusOr<DfsPath> DfsPath::ReplacePrefix(size_t components,
                                               const DfsPath& replacement) const {
  const uint32_t text_cut = components == 0 ? 0 : ends_[components - 1].text;
  const uint32_t key_cut = components == 0 ? 0 : ends_[components - 1].key;
  if (replacement.key_.size() + key_.size() - key_cut > kMaxPathUnits) {
    return absl::OutOfRangeError(
        absl::StrCat("the path is longer than ", kMaxPathUnits, " characters on its target"));
  }
  DfsPath path = replacement;
  path.text_.append(text_, text_cut);
  path.key_.append(key_, key_cut);
  const uint32_t text_base = static_cast<uint32_t>(replacement.text_.size());
  const uint32_t key_base = static_cast<uint32_t>(replacement.key_.size());
  for (size_t i = components; i < ends_.size(); ++i) {
    path.ends_.push_back(
        End{ends_[i].text - text_cut + text_base, ends_[i].key - key_cut + key_base});
  }
  return path;
}

absl::string_view DfsPath::Relative(size_t first) const {
  if (first >= size()) return {};
  return absl::string_view(text_).substr(first == 0 ? 1 : ends_[first - 1].text + 1);
}

std::string DfsPath::ToString() const {
  std::string shown = absl::StrCat("/", text_);
  for (char& c : shown) {
    if (c == '\\') c = '/';
  }
  return shown;
}

std::u16string DfsPath::ToWire() const {
  const std::string text =
      absl::StrCat("\\", HostName(), absl::string_view(text_).substr(ends_[0].text));
  // text_ was checked when it came in; HostName is a part of it at ASCII boundaries.
  return smb::wire::Utf8ToUtf16(text).value_or(std::u16string());
}

}  // namespace dfscsi::dfs
