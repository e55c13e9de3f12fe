#include "node-agent/dfs/referral_cache_file.h"

#include <string.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "node-agent/base/status_macros.h"
#include "node-agent/smb/wire/reader.h"
#include "node-agent/smb/wire/writer.h"

namespace dfscsi::dfs {
namespace {

using smb::wire::Bytes;
using smb::wire::Reader;
using smb::wire::Writer;

constexpr uint64_t kMagic = 0x4548434143534644;  // "DFSCACHE"
constexpr uint32_t kVersion = 1;
constexpr size_t kChecksumBytes = 8;
// More than a cache ever holds; keeps a wrong count from allocating.
constexpr uint32_t kMaxEntries = 1 << 20;
constexpr absl::Duration kMaxTtl = absl::Hours(24 * 366);

enum EntryFlag : uint8_t { kLinkFlag = 1, kInterlinkFlag = 2, kFailbackFlag = 4 };
constexpr uint8_t kStartsSet = 0x80;  // The rest of a target's flags is its TargetShare.

absl::Status Malformed(absl::string_view why) {
  return absl::DataLossError(absl::StrCat("malformed referral cache file: ", why));
}

// FNV-1a, 64 bit: against torn and mixed-up files, not against an adversary.
uint64_t Checksum(Bytes bytes) {
  uint64_t hash = 0xCBF29CE484222325;
  for (const uint8_t byte : bytes) hash = (hash ^ byte) * 0x100000001B3;
  return hash;
}

void WriteText(Writer& writer, absl::string_view text) {
  writer.Length32(text.size());
  writer.Append(Bytes(reinterpret_cast<const uint8_t*>(text.data()), text.size()));
}

absl::string_view ReadText(Reader& reader) {
  const Bytes bytes = reader.Take(reader.U32());
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

absl::StatusOr<DfsPath> ReadPath(Reader& reader) {
  absl::StatusOr<DfsPath> path = DfsPath::Parse(ReadText(reader));
  if (!reader.ok()) return Malformed("cut short");
  if (!path.ok()) return Malformed("not a path");
  return path;
}

// Durations are milliseconds, within what a TTL can be.
absl::Duration ReadDuration(Reader& reader) {
  const int64_t ms = static_cast<int64_t>(reader.U64());
  return std::clamp(absl::Milliseconds(ms), absl::ZeroDuration(), kMaxTtl);
}

absl::StatusOr<ReferralEntry> ReadEntry(Reader& reader, absl::Time now, absl::Duration elapsed) {
  const uint8_t flags = reader.U8();
  const uint16_t hint = reader.U16();
  const std::string credential(ReadText(reader));
  ASSIGN_OR_RETURN(DfsPath prefix, ReadPath(reader));
  const absl::Duration ttl = ReadDuration(reader);
  const absl::Duration left = std::min(ReadDuration(reader), ttl);
  const absl::Duration to_refresh = std::min(ReadDuration(reader), left);
  const uint16_t count = reader.U16();
  if (!reader.ok()) return Malformed("cut short");
  if (count == 0 || count > kMaxTargets || hint >= count) return Malformed("wrong target count");
  ReferralEntry entry{.kind = (flags & kLinkFlag) != 0 ? EntryKind::kLink : EntryKind::kRoot,
                      .prefix = std::move(prefix),
                      .credential = credential,
                      .interlink = (flags & kInterlinkFlag) != 0,
                      .target_failback = (flags & kFailbackFlag) != 0,
                      .ttl = ttl,
                      .expiry = now + left - elapsed,
                      .refresh_at = now + to_refresh - elapsed,
                      .retry_at = absl::InfinitePast(),
                      .targets = {},
                      .hint = hint};
  for (int i = 0; i < count; ++i) {
    const uint8_t target_flags = reader.U8();
    const uint8_t share = target_flags & 0x7F;
    if (share > static_cast<uint8_t>(TargetShare::kPlain)) return Malformed("unknown flag");
    ASSIGN_OR_RETURN(DfsPath path, ReadPath(reader));
    entry.targets.push_back(
        {std::move(path), (target_flags & kStartsSet) != 0, static_cast<TargetShare>(share)});
  }
  return entry;
}

}  // namespace

std::string EncodeCacheFile(const std::vector<const ReferralEntry*>& entries, absl::Time now,
                            absl::Time wall_now) {
  std::vector<uint8_t> bytes;
  Writer writer(&bytes);
  writer.U64(kMagic);
  writer.U32(kVersion);
  writer.U64(static_cast<uint64_t>(absl::ToUnixMillis(wall_now)));
  writer.U32(static_cast<uint32_t>(entries.size()));
  const auto duration = [&](absl::Duration d) {
    writer.U64(static_cast<uint64_t>(
        absl::ToInt64Milliseconds(std::clamp(d, absl::ZeroDuration(), kMaxTtl))));
  };
  for (const ReferralEntry* entry : entries) {
    writer.U8((entry->kind == EntryKind::kLink ? kLinkFlag : 0) |
              (entry->interlink ? kInterlinkFlag : 0) |
              (entry->target_failback ? kFailbackFlag : 0));
    writer.U16(static_cast<uint16_t>(entry->hint));
    WriteText(writer, entry->credential);
    WriteText(writer, entry->prefix.ToString());
    duration(entry->ttl);
    duration(entry->expiry - now);
    duration(entry->refresh_at - now);
    writer.U16(static_cast<uint16_t>(entry->targets.size()));
    for (const CachedTarget& target : entry->targets) {
      writer.U8((target.starts_set ? kStartsSet : 0) | static_cast<uint8_t>(target.share));
      WriteText(writer, target.path.ToString());
    }
  }
  writer.U64(Checksum(bytes));
  return std::string(bytes.begin(), bytes.end());
}

absl::StatusOr<std::vector<ReferralEntry>> DecodeCacheFile(absl::string_view file, absl::Time now,
                                                           absl::Time wall_now) {
  const Bytes bytes(reinterpret_cast<const uint8_t*>(file.data()), file.size());
  if (bytes.size() < kChecksumBytes) return Malformed("too short");
  const Bytes body = bytes.subspan(0, bytes.size() - kChecksumBytes);
  Reader reader(body);
  if (reader.U64() != kMagic) return Malformed("not one");
  if (reader.U32() != kVersion) return Malformed("of another version");
  if (Reader(bytes.subspan(body.size())).U64() != Checksum(body)) return Malformed("damaged");
  const int64_t saved_ms = static_cast<int64_t>(reader.U64());
  const uint32_t count = reader.U32();
  if (!reader.ok() || count > kMaxEntries) return Malformed("wrong count");

  // Where the time of day went back since, or makes no sense, nobody knows how old the entries are.
  absl::Duration elapsed = wall_now - absl::FromUnixMillis(saved_ms);
  if (elapsed < absl::ZeroDuration() || elapsed > kMaxTtl) elapsed = kMaxTtl;
  std::vector<ReferralEntry> entries;
  for (uint32_t i = 0; i < count; ++i) {
    ASSIGN_OR_RETURN(ReferralEntry entry, ReadEntry(reader, now, elapsed));
    entries.push_back(std::move(entry));
  }
  if (reader.remaining() != 0) return Malformed("too long");
  return entries;
}

}  // namespace dfscsi::dfs
