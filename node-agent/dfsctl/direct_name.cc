#include "node-agent/dfsctl/direct_name.h"

#include <algorithm>
#include <cstddef>
#include <string_view>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "node-agent/smb/wire/file_name.h"
#include "node-agent/smb/wire/utf16.h"

namespace dfscsi::dfsctl {
namespace {

constexpr char kSlash[] = "/";
constexpr char kEither[] = "/\\";

std::string WireName(const std::string& name) {
  std::u16string wire;
  // It is to be refused as the one name that it is.
  if (!smb::wire::AppendWireName(name, &wire).ok()) {
    return absl::StrReplaceAll(name, {{"\\", "\uF05C"}});
  }
  return smb::wire::Utf16ToUtf8(wire);
}

void HideControls(std::string* text) {
  std::replace_if(
      text->begin(), text->end(), [](unsigned char c) { return absl::ascii_iscntrl(c); }, '?');
}

}  // namespace

bool NamesFolder(const std::string& typed) {
  const std::string path = WithWireNames(typed);
  return !path.empty() && path.find_last_of(kEither) == path.size() - 1;
}

std::string WithWireNames(const std::string& typed) {
  std::string path;
  int names = 0;
  const char* separators = kEither;
  for (size_t at = 0; at < typed.size();) {
    if (names == 2 && typed[at] == '/') separators = kSlash;
    const size_t begin = std::min(typed.find_first_not_of(separators, at), typed.size());
    const size_t end = std::min(typed.find_first_of(separators, begin), typed.size());
    path += typed.substr(at, begin - at);
    const std::string name = typed.substr(begin, end - begin);
    path += names < 2 ? name : WireName(name);  // Hosts and shares have no such names.
    ++names;
    at = end;
  }
  return path;
}

std::optional<std::string> ShownName(smb::wire::Bytes utf16le) {
  std::string name;
  if (!smb::wire::FromWireName(utf16le, &name)) return std::nullopt;
  HideControls(&name);
  return name;
}

std::string ShownPath(const dfs::DfsPath& path) {
  std::string shown = path.Prefix(2).ToString();
  for (size_t i = 2; i < path.size(); ++i) {
    const absl::string_view name = path.Component(i);
    std::u16string units =
        smb::wire::Utf8ToUtf16(std::string_view(name.data(), name.size())).value_or(u"");
    std::vector<uint8_t> bytes;
    for (const char16_t unit : units) {
      bytes.push_back(static_cast<uint8_t>(unit));
      bytes.push_back(static_cast<uint8_t>(unit >> 8));
    }
    absl::StrAppend(&shown, "/", ShownName(bytes).value_or(std::string(name)));
  }
  return shown;
}

}  // namespace dfscsi::dfsctl
