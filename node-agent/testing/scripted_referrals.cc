// The scripted server as a DFS server: what it answers to referral requests
// ([MS-DFSC] 3.2.5, 3.3.5; where they differ, as Samba).

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "node-agent/dfs/referral_encoder.h"
#include "node-agent/smb/wire/utf16.h"
#include "node-agent/testing/scripted_server.h"

namespace dfscsi::testing {
namespace {

using smb::wire::NtStatus;

std::u16string Wide(const std::string& text) { return smb::wire::Utf8ToUtf16(text).value_or(u"?"); }

std::u16string Address(const std::string& target) {
  const std::string windows = absl::StrReplaceAll(target, {{"/", "\\"}});
  // One that begins with a separator is sent as it is: a test may want a broken one.
  return Wide(absl::StartsWith(windows, "\\") ? windows : absl::StrCat("\\", windows));
}

std::vector<uint8_t> Encode(const ScriptedReferral& referral, std::u16string_view consumed,
                            uint16_t level, bool root) {
  if (referral.raw.has_value()) return *referral.raw;
  dfs::ReferralResponse response;
  response.version = std::min<uint16_t>(referral.version, std::max<uint16_t>(level, 1));
  response.path_consumed_bytes = static_cast<uint16_t>(consumed.size() * 2);
  response.root = root;
  response.referral_servers = root || referral.interlink;
  response.storage_servers = !referral.interlink;
  response.target_failback = referral.failback;
  response.ttl_seconds = referral.ttl_seconds;
  response.dfs_path = consumed;
  for (const ScriptedReferral::Target& target : referral.targets) {
    response.targets.push_back({.address = Address(target.address),
                                .set_boundary = target.starts_set || response.targets.empty()});
  }
  return dfs::EncodeReferralResponse(response);
}

}  // namespace

ScriptedServer::ReferralAnswer ScriptedServer::AnswerReferral(std::u16string_view path,
                                                              uint16_t level) {
  if (!options_.dfs) return {.status = NtStatus::kFsDriverRequired};
  // \host\share\rest; the host may be any name of ours.
  const size_t start = path.starts_with(u'\\') ? 1 : 0;
  const size_t share_at = path.find(u'\\', start);
  if (share_at == std::u16string_view::npos || share_at + 1 == path.size()) {
    return AnswerNames(path.substr(start), level);
  }
  const size_t share_end = std::min(path.find(u'\\', share_at + 1), path.size());
  const std::u16string_view share_name = path.substr(share_at + 1, share_end - share_at - 1);
  const ScriptedShare* const share = FindShare(smb::wire::Utf16ToUtf8(share_name));
  if (share == nullptr || !share->dfs_root) return {.status = NtStatus::kNotFound};
  const std::u16string_view root = path.substr(0, share_end);
  if (share_end == path.size()) {
    ScriptedReferral referral = share->root_referral;
    if (referral.targets.empty() && !referral.raw.has_value()) {
      referral.targets.emplace_back(smb::wire::Utf16ToUtf8(root));
    }
    return {.bytes = Encode(referral, root, level, /*root=*/true)};
  }
  const ScriptedShare::Found found =
      share->Walk(path.substr(share_end + 1), /*follow_last_symlink=*/false);
  if (found.status != NtStatus::kPathNotCovered) return {.status = NtStatus::kObjectPathNotFound};
  return {.bytes =
              Encode(found.file->referral, path.substr(0, share_end + 1 + found.consumed_units),
                     level, /*root=*/false)};
}

// One component, or none: a question for a domain controller.
ScriptedServer::ReferralAnswer ScriptedServer::AnswerNames(std::u16string_view name,
                                                           uint16_t level) {
  if (domains_.empty()) return {.status = NtStatus::kNotFound};
  if (level < 3) return {.status = NtStatus::kUnsuccessful};
  dfs::NameListResponse response;
  if (name.empty()) {
    for (const auto& [domain, controllers] : domains_) {
      response.entries.push_back({.name = Address(domain), .expanded = {}});
    }
    return {.bytes = dfs::EncodeNameListResponse(response)};
  }
  const std::string asked = smb::wire::Utf16ToUtf8(name);
  for (const auto& [domain, controllers] : domains_) {
    if (!absl::EqualsIgnoreCase(domain, asked)) continue;
    dfs::NameListResponse::Entry entry{.name = Wide(domain), .expanded = {}};
    for (const std::string& controller : controllers) {
      entry.expanded.push_back(Address(controller));
    }
    response.entries.push_back(std::move(entry));
    return {.bytes = dfs::EncodeNameListResponse(response)};
  }
  return {.status = NtStatus::kInvalidParameter};
}

}  // namespace dfscsi::testing
