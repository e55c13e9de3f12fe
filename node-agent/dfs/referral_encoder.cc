#include "node-agent/dfs/referral_encoder.h"

#include "node-agent/smb/wire/writer.h"

namespace dfscsi::dfs {
namespace {

using smb::wire::Writer;

constexpr size_t kVersion2Bytes = 22;
constexpr size_t kVersion3Bytes = 34;

// The strings behind the entries; an offset counts from the entry that refers to it.
class StringBuffer {
 public:
  explicit StringBuffer(size_t start) : start_(start) {}
  size_t Add(const std::u16string& text) {
    const size_t at = start_ + text_.size() * 2;
    text_ += text;
    text_.push_back(u'\0');
    return at;
  }
  const std::u16string& text() const { return text_; }

 private:
  size_t start_;
  std::u16string text_;
};

}  // namespace

std::vector<uint8_t> EncodeReferralResponse(const ReferralResponse& response) {
  std::vector<uint8_t> bytes;
  Writer writer(&bytes);
  writer.U16(response.path_consumed_bytes);
  writer.U16(static_cast<uint16_t>(response.targets.size()));
  writer.U32((response.referral_servers ? 1 : 0) | (response.storage_servers ? 2 : 0) |
             (response.target_failback ? 4 : 0));
  const size_t entry_bytes = response.version == 2 ? kVersion2Bytes : kVersion3Bytes;
  StringBuffer strings(writer.size() + response.targets.size() * entry_bytes);
  const size_t path_at =
      response.version == 1 || response.targets.empty() ? 0 : strings.Add(response.dfs_path);
  for (const ReferralResponse::Target& target : response.targets) {
    const size_t start = writer.size();
    writer.U16(response.version);
    writer.U16(static_cast<uint16_t>(response.version == 1 ? 8 + (target.address.size() + 1) * 2
                                                           : entry_bytes));
    writer.U16(response.root ? 1 : 0);
    writer.U16(response.version == 4 && target.set_boundary ? 4 : 0);
    if (response.version == 1) {
      writer.Utf16(target.address);
      writer.U16(0);
      continue;
    }
    if (response.version == 2) writer.U32(0);  // Proximity
    writer.U32(response.ttl_seconds);
    writer.U16(static_cast<uint16_t>(path_at - start));
    writer.U16(static_cast<uint16_t>(path_at - start));
    writer.U16(static_cast<uint16_t>(strings.Add(target.address) - start));
    if (response.version >= 3) writer.Zero(16);  // ServiceSiteGuid
  }
  writer.Utf16(strings.text());
  return bytes;
}

std::vector<uint8_t> EncodeNameListResponse(const NameListResponse& response) {
  std::vector<uint8_t> bytes;
  Writer writer(&bytes);
  writer.U16(0);
  writer.U16(static_cast<uint16_t>(response.entries.size()));
  writer.U32(0);
  StringBuffer strings(writer.size() + response.entries.size() * kVersion3Bytes);
  for (const NameListResponse::Entry& entry : response.entries) {
    const size_t start = writer.size();
    writer.U16(3);
    writer.U16(kVersion3Bytes);
    writer.U16(0);
    writer.U16(2);  // NameListReferral
    writer.U32(response.ttl_seconds);
    writer.U16(static_cast<uint16_t>(strings.Add(entry.name) - start));
    writer.U16(static_cast<uint16_t>(entry.expanded.size()));
    size_t first = 0;
    for (size_t i = 0; i < entry.expanded.size(); ++i) {
      const size_t at = strings.Add(entry.expanded[i]);
      if (i == 0) first = at - start;
    }
    writer.U16(static_cast<uint16_t>(first));
    writer.Zero(start + kVersion3Bytes - writer.size());
  }
  writer.Utf16(strings.text());
  return bytes;
}

}  // namespace dfscsi::dfs
