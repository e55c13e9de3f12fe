// Paths as users type them and as servers write them. The first byte chooses which.

#include <cstdint>
#include <cstdlib>
#include <string>

#include "node-agent/dfs/path.h"
#include "node-agent/smb/wire/utf16.h"

namespace {

using dfscsi::dfs::DfsPath;

void Require(bool condition) {
  if (!condition) abort();
}

void Use(const DfsPath& path) {
  const absl::StatusOr<DfsPath> again = DfsPath::Parse(path.ToString());
  Require(again.ok() && *again == path && again->ToString() == path.ToString());
  Require(path.size() >= 2 && path.Key().size() <= dfscsi::dfs::kMaxPathUnits);
  Require(path.HasPrefix(path.Prefix(2)));
  Require(!path.ToWire().empty() && path.ToWire().front() == u'\\');
  Require(!path.HostName().empty());
  (void)path.Port();
  const absl::StatusOr<DfsPath> moved = path.ReplacePrefix(2, *DfsPath::Parse("//t/s/base"));
  Require(!moved.ok() || moved->size() == path.size() + 1);
  const absl::StatusOr<DfsPath> joined = path.Join(path.Component(path.size() - 1));
  Require(!joined.ok() || joined->HasPrefix(path));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  if (data[0] % 2 == 0) {
    const absl::StatusOr<DfsPath> path =
        DfsPath::Parse(absl::string_view(reinterpret_cast<const char*>(data + 1), size - 1));
    if (path.ok()) Use(*path);
    // A message goes to a terminal and into logs.
    for (const char c : path.status().message()) Require(c < 0 || c >= ' ');
  } else {
    const absl::StatusOr<DfsPath> path =
        DfsPath::ParseTarget(dfscsi::smb::wire::Utf16FromBytes({data + 1, (size - 1) & ~1u}));
    if (path.ok()) Use(*path);
  }
  return 0;
}
