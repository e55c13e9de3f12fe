// Names of files without a mount, as a mount has them: characters that Windows names do not have
// travel as others (smb/wire/file_name.h), and people see and type what Linux has.

#ifndef NODE_AGENT_DFSCTL_DIRECT_NAME_H_
#define NODE_AGENT_DFSCTL_DIRECT_NAME_H_

#include <optional>
#include <string>

#include "node-agent/dfs/path.h"
#include "node-agent/smb/wire/reader.h"

namespace dfscsi::dfsctl {

// //host/share/a:b as dfs::DfsPath::Parse wants it. Below the share a backslash belongs to the
// name, as on Linux, where a slash follows the share; else it separates: \\host\share\a. What is
// wrong with the text stays so: Parse has the words for it.
std::string WithWireNames(const std::string& typed);

// What was typed ends with a separator, as a folder may.
bool NamesFolder(const std::string& typed);

// A name that a server sent, on one line: control characters are '?'. nullopt: a mount does not
// show it either.
std::optional<std::string> ShownName(smb::wire::Bytes utf16le);
// //host/share/a:b.
std::string ShownPath(const dfs::DfsPath& path);

}  // namespace dfscsi::dfsctl

#endif  // NODE_AGENT_DFSCTL_DIRECT_NAME_H_
