#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "node-agent/smb/wire/directory.h"
#include "node-agent/smb/wire/record_list.h"
#include "node-agent/smb/wire/round_trip.h"

namespace dfscsi::smb::wire {
namespace {

constexpr FileInfoClass kClasses[] = {
    FileInfoClass::kDirectory, FileInfoClass::kFullDirectory, FileInfoClass::kBothDirectory,
    FileInfoClass::kIdBothDirectory, FileInfoClass::kIdFullDirectory};

// Lists `buffer` and writes what it holds into a new one.
std::vector<uint8_t> Copy(FileInfoClass info_class, Bytes buffer) {
  std::vector<uint8_t> copy;
  Writer writer(&copy);
  DirectoryWriter directory(info_class, SIZE_MAX, &writer);
  DirectoryReader reader(info_class, buffer);
  while (const std::optional<DirectoryEntry> entry = reader.Next()) {
    const std::u16string name = UnitsOf(entry->name);
    Require(!name.empty() && name != u"." && name != u".." &&
            name.find_first_of(std::u16string_view(u"/\\\0", 3)) == std::u16string::npos);
    Require(directory.Add(name, entry->attributes, entry->reparse_tag, entry->file_id));
  }
  Require(reader.status().ok() || reader.status().code() == absl::StatusCode::kDataLoss);
  return copy;
}

}  // namespace
}  // namespace dfscsi::smb::wire

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace dfscsi::smb::wire;
  const FuzzInput input(data, size);
  const FileInfoClass info_class = kClasses[input.choice % std::size(kClasses)];
  const std::vector<uint8_t> copy = Copy(info_class, input.body);
  Require(Copy(info_class, copy) == copy);
  return 0;
}
