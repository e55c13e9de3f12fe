#include "node-agent/dfs/referral_request.h"

#include "node-agent/smb/wire/writer.h"

namespace dfscsi::dfs {

using smb::wire::Writer;

absl::string_view ReferralKindName(ReferralKind kind) {
  switch (kind) {
    case ReferralKind::kDomain:
      return "DOMAIN";
    case ReferralKind::kDc:
      return "DC";
    case ReferralKind::kSysvol:
      return "SYSVOL";
    case ReferralKind::kRoot:
      return "ROOT";
    case ReferralKind::kLink:
      return "LINK";
  }
  return "?";
}

std::vector<uint8_t> EncodeReferralRequest(std::u16string_view path, uint16_t max_level) {
  std::vector<uint8_t> bytes;
  Writer writer(&bytes);
  writer.U16(max_level);
  writer.Utf16(path);
  writer.U16(0);
  return bytes;
}

std::vector<uint8_t> EncodeReferralRequestEx(std::u16string_view path, std::u16string_view site) {
  constexpr uint16_t kSiteName = 1;
  std::vector<uint8_t> bytes;
  Writer writer(&bytes);
  writer.U16(kMaxReferralLevel);
  writer.U16(kSiteName);
  const size_t length_at = writer.size();
  writer.U32(0);  // RequestDataLength
  for (const std::u16string_view text : {path, site}) {
    writer.Length16((text.size() + 1) * 2);
    writer.Utf16(text);
    writer.U16(0);
  }
  writer.PatchU32(length_at, writer.size() - length_at - sizeof(uint32_t));
  return bytes;
}

}  // namespace dfscsi::dfs
