#include "node-agent/dfs/referral.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "node-agent/base/status_macros.h"
#include "node-agent/smb/wire/utf16.h"

namespace dfscsi::dfs {
namespace {

using smb::wire::Bytes;
using smb::wire::Reader;

// [MS-DFSC] sets no limit. A reply of 56 KiB holds 1,638 minimal V3 entries.
constexpr uint16_t kMaxEntries = 1024;
// What all addresses of a reply may add up to. An honest reply cannot exceed it; overlapping
// strings (a thousand entries that point into one long one) can, and would keep the loop busy for
// long.
constexpr size_t kMaxAddressUnits = 128 * 1024;
// V1 entries carry no TTL; Windows' default for roots.
constexpr absl::Duration kVersion1Ttl = absl::Seconds(300);

enum HeaderFlag : uint32_t { kReferralServers = 1, kStorageServers = 2, kTargetFailback = 4 };
enum EntryFlag : uint16_t { kNameListReferral = 2, kTargetSetBoundary = 4 };
constexpr uint16_t kServerTypeRoot = 1;

absl::Status Malformed(absl::string_view why) {
  return absl::DataLossError(absl::StrCat("malformed DFS referral: ", why));
}

// Fixed part of an entry, the prefix common to all versions included ([MS-DFSC] 2.2.4.1 to .4).
size_t FixedBytes(uint16_t version, bool name_list) {
  switch (version) {
    case 1:
      return 8;
    case 2:
      return 22;
    default:
      return name_list ? 18 : 34;
  }
}

struct Header {
  uint16_t path_consumed_bytes = 0;
  uint32_t flags = 0;
};

struct RawEntry {
  Bytes from_start;  // From the entry's first byte to the end of the reply: what offsets count in.
  uint16_t version = 0;
  uint16_t size = 0;
  uint16_t server_type = 0;
  uint16_t flags = 0;  // As sent; V1 and V2 define none.

  bool name_list() const { return version >= 3 && (flags & kNameListReferral) != 0; }
  bool starts_set() const { return version == 4 && (flags & kTargetSetBoundary) != 0; }
  size_t fixed_bytes() const { return FixedBytes(version, name_list()); }
};

// The header and all entries, each inside the reply and as large as its version says at least.
absl::StatusOr<std::vector<RawEntry>> SplitEntries(Bytes response, Header* header) {
  Reader reader(response);
  header->path_consumed_bytes = reader.U16();
  const uint16_t count = reader.U16();
  header->flags = reader.U32();
  if (!reader.ok()) return Malformed("shorter than its header");
  if (count > kMaxEntries) return Malformed("too many entries");
  if (count * FixedBytes(1, false) > reader.remaining())
    return Malformed("more entries than bytes");

  std::vector<RawEntry> entries;
  entries.reserve(count);
  for (int i = 0; i < count; ++i) {
    RawEntry entry;
    entry.from_start = response.subspan(reader.offset());
    Reader fields(entry.from_start);
    entry.version = fields.U16();
    entry.size = fields.U16();
    entry.server_type = fields.U16();
    entry.flags = fields.U16();
    if (!fields.ok()) return Malformed("an entry is cut short");
    if (entry.version < 1 || entry.version > 4) return Malformed("unknown version");
    if (i > 0 && entry.version != entries[0].version) return Malformed("mixed versions");
    if (entry.size < entry.fixed_bytes()) return Malformed("an entry is too small");
    if (entry.size % 2 != 0) return Malformed("an entry of odd size");
    if (entry.size > entry.from_start.size()) return Malformed("an entry is cut short");
    reader.Skip(entry.size);
    entries.push_back(entry);
  }
  return entries;
}

// The units before the NUL of the string at `offset`; nullopt if there is none in `bytes`.
// Addresses may be odd, so this goes byte by byte.
std::optional<Bytes> StringAt(Bytes bytes, size_t offset) {
  if (offset >= bytes.size()) return std::nullopt;
  for (size_t at = offset; at + 1 < bytes.size(); at += 2) {
    if (bytes[at] == 0 && bytes[at + 1] == 0) return bytes.subspan(offset, at - offset);
  }
  return std::nullopt;
}

absl::StatusOr<Bytes> StringOf(const RawEntry& entry, size_t offset) {
  if (offset < entry.fixed_bytes()) return Malformed("a string inside the entry's fields");
  const std::optional<Bytes> text = StringAt(entry.from_start, offset);
  if (!text) return Malformed("a string outside the reply");
  return *text;
}

struct TargetFields {
  uint32_t ttl_seconds = 0;
  Bytes address;
};

absl::StatusOr<TargetFields> ReadTarget(const RawEntry& entry) {
  TargetFields target;
  if (entry.version == 1) {
    // ShareName lies inside the entry; Size covers its NUL.
    const std::optional<Bytes> name = StringAt(entry.from_start.subspan(0, entry.size), 8);
    if (!name) return Malformed("a name without an end");
    target.address = *name;
    return target;
  }
  Reader fields(entry.from_start);
  fields.Skip(8);
  if (entry.version == 2) fields.Skip(4);  // Proximity
  target.ttl_seconds = fields.U32();
  const uint16_t path_offset = fields.U16();
  fields.Skip(2);  // DFSAlternatePathOffset: an 8.3 form that nobody reads.
  const uint16_t address_offset = fields.U16();
  // DFSPath is not used (servers echo the request there), but a reply that lies about it is
  // refused.
  RETURN_IF_ERROR(StringOf(entry, path_offset).status());
  ASSIGN_OR_RETURN(target.address, StringOf(entry, address_offset));
  return target;
}

// PathConsumed as components of the request ([MS-DFSC] 2.2.4): it ends where a component ends.
absl::StatusOr<size_t> ConsumedComponents(uint16_t bytes, std::u16string_view request) {
  const size_t units = bytes / 2;
  if (bytes % 2 != 0) return Malformed("PathConsumed is odd");
  if (units > request.size()) return Malformed("PathConsumed is longer than the request");
  if (units < request.size() && request[units] != u'\\') {
    return Malformed("PathConsumed ends inside a component");
  }
  const std::u16string_view consumed = request.substr(0, units);
  const size_t components = std::count(consumed.begin(), consumed.end(), u'\\');
  if (components < 2 || consumed.back() == u'\\') {
    return Malformed("PathConsumed covers no namespace");
  }
  return components;
}

// Collects the targets of one reply.
class TargetList {
 public:
  explicit TargetList(Referral* referral) : referral_(*referral) {}

  absl::Status Add(Bytes address, bool starts_set) {
    // A set goes on to start where its first target was left out.
    starts_set_ = starts_set_ || starts_set;
    units_ += address.size() / 2;
    if (units_ > kMaxAddressUnits) return Malformed("its strings overlap");
    if (referral_.targets.size() >= kMaxTargets || !addresses_.insert(address.data()).second) {
      ++referral_.dropped_targets;
      return absl::OkStatus();
    }
    absl::StatusOr<DfsPath> path = DfsPath::ParseTarget(smb::wire::Utf16FromBytes(address));
    if (!path.ok() || !keys_.insert(std::u16string(path->Key())).second) {
      ++referral_.dropped_targets;
      return absl::OkStatus();
    }
    referral_.targets.push_back(Target{*std::move(path), std::exchange(starts_set_, false)});
    return absl::OkStatus();
  }

 private:
  Referral& referral_;
  bool starts_set_ = true;
  size_t units_ = 0;
  absl::flat_hash_set<const uint8_t*> addresses_;  // Shared strings are read once.
  absl::flat_hash_set<std::u16string> keys_;
};

// The name of a host or domain, without the leading backslash that some servers send; nullopt if it
// can be no such name.
std::optional<std::string> HostFromList(Bytes utf16le) {
  std::u16string name = smb::wire::Utf16FromBytes(utf16le);
  if (!name.empty() && name.front() == u'\\') name.erase(0, 1);
  const absl::StatusOr<DfsPath> path = DfsPath::ParseTarget(u"\\" + name + u"\\x");
  if (!path.ok() || path->size() != 2) return std::nullopt;
  return std::string(path->host());
}

}  // namespace

absl::StatusOr<Referral> DecodeReferral(Bytes response, std::u16string_view request_path) {
  Header header;
  ASSIGN_OR_RETURN(const std::vector<RawEntry> entries, SplitEntries(response, &header));
  Referral referral;
  if (entries.empty() && header.path_consumed_bytes == 0) {
    referral.consumed_components = std::count(request_path.begin(), request_path.end(), u'\\');
  } else {
    ASSIGN_OR_RETURN(referral.consumed_components,
                     ConsumedComponents(header.path_consumed_bytes, request_path));
  }
  if (entries.empty()) return referral;

  const bool referral_servers = (header.flags & kReferralServers) != 0;
  const bool storage_servers = (header.flags & kStorageServers) != 0;
  referral.version = entries[0].version;
  referral.root = entries[0].server_type == kServerTypeRoot;
  referral.interlink = referral_servers && !storage_servers && !referral.root;
  referral.target_failback = referral.version == 4 && (header.flags & kTargetFailback) != 0;
  referral.ttl = referral.version == 1 ? kVersion1Ttl : absl::InfiniteDuration();
  TargetList targets(&referral);
  for (const RawEntry& entry : entries) {
    if (entry.name_list()) return Malformed("a name list instead of targets");
    ASSIGN_OR_RETURN(const TargetFields target, ReadTarget(entry));
    if (entry.version > 1) {
      referral.ttl = std::min(referral.ttl, absl::Seconds(target.ttl_seconds));
    }
    RETURN_IF_ERROR(targets.Add(target.address, entry.starts_set()));
  }
  return referral;
}

absl::StatusOr<NameListReferral> DecodeNameListReferral(Bytes response) {
  Header header;
  ASSIGN_OR_RETURN(const std::vector<RawEntry> entries, SplitEntries(response, &header));
  NameListReferral list;
  list.ttl = entries.empty() ? absl::ZeroDuration() : absl::InfiniteDuration();
  size_t units = 0;
  for (const RawEntry& entry : entries) {
    if (!entry.name_list()) return Malformed("targets instead of a name list");
    Reader fields(entry.from_start);
    fields.Skip(8);
    list.ttl = std::min(list.ttl, absl::Seconds(fields.U32()));
    const uint16_t name_offset = fields.U16();
    const uint16_t count = fields.U16();
    size_t at = fields.U16();  // ExpandedNameOffset
    ASSIGN_OR_RETURN(const Bytes name, StringOf(entry, name_offset));
    NameListReferral::Entry named;
    std::vector<Bytes> expanded;
    for (int i = 0; i < count; ++i) {
      ASSIGN_OR_RETURN(const Bytes text, StringOf(entry, at));
      at += text.size() + sizeof(char16_t);
      units += text.size() / 2 + 1;
      if (units > kMaxAddressUnits) return Malformed("its strings overlap");
      if (named.expanded.size() >= kMaxTargets) continue;
      if (std::optional<std::string> host = HostFromList(text)) {
        named.expanded.push_back(*std::move(host));
      }
    }
    units += name.size() / 2;
    if (units > kMaxAddressUnits) return Malformed("its strings overlap");
    std::optional<std::string> domain = HostFromList(name);
    if (!domain) continue;
    named.name = *std::move(domain);
    list.entries.push_back(std::move(named));
  }
  return list;
}

}  // namespace dfscsi::dfs
