// Referral cache files. A checksum would stop every mutation, so it is put right first; the file as
// it came is decoded too.

#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include "node-agent/dfs/referral_cache_file.h"

namespace {

void Decode(const std::string& file) {
  using dfscsi::dfs::ReferralEntry;
  const absl::Time now = absl::UnixEpoch() + absl::Hours(1000);
  const absl::StatusOr<std::vector<ReferralEntry>> entries =
      dfscsi::dfs::DecodeCacheFile(file, now, now);
  if (!entries.ok()) return;
  std::vector<const ReferralEntry*> kept;
  for (const ReferralEntry& entry : *entries) {
    if (entry.hint >= entry.targets.size()) abort();
    if (entry.refresh_at > entry.expiry) abort();
    kept.push_back(&entry);
  }
  // What was read can be written, and read again.
  if (!dfscsi::dfs::DecodeCacheFile(dfscsi::dfs::EncodeCacheFile(kept, now, now), now, now).ok()) {
    abort();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string file(reinterpret_cast<const char*>(data), size);
  Decode(file);
  if (size < 8) return 0;
  uint64_t hash = 0xCBF29CE484222325;
  for (size_t i = 0; i + 8 < size; ++i) hash = (hash ^ data[i]) * 0x100000001B3;
  for (int i = 0; i < 8; ++i) file[size - 8 + i] = static_cast<char>(hash >> (8 * i));
  Decode(file);
  return 0;
}
