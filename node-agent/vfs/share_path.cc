#include "node-agent/vfs/share_path.h"

#include "node-agent/smb/wire/utf16.h"

namespace dfscsi::vfs {

std::optional<std::u16string> PathInShare(const dfs::Binding& binding, const dfs::DfsPath& from,
                                          const dfs::DfsPath& to) {
  std::u16string path = binding.path;
  for (size_t i = binding.link_components; i < from.size(); ++i) {
    const size_t end = path.rfind(u'\\');
    path.resize(end == std::u16string::npos ? 0 : end);
  }
  for (size_t i = binding.link_components; i < to.size(); ++i) {
    const absl::string_view component = to.Component(i);
    const std::optional<std::u16string> name =
        smb::wire::Utf8ToUtf16({component.data(), component.size()});
    if (!name.has_value()) return std::nullopt;
    if (!path.empty()) path.push_back(u'\\');
    path += *name;
  }
  return path;
}

bool IsBelowSameLink(const dfs::Binding& binding, const dfs::DfsPath& from,
                     const dfs::DfsPath& to) {
  const size_t shared = binding.link_components;
  return to.size() > shared && to.KeyPrefix(shared) == from.KeyPrefix(shared);
}

}  // namespace dfscsi::vfs
