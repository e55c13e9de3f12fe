// DFS referral replies, as any server may send them. The first byte chooses the request.

#include <array>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "node-agent/dfs/referral.h"

namespace {

void Require(bool condition) {
  if (!condition) abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using dfscsi::dfs::Referral;
  using dfscsi::dfs::Target;
  static constexpr std::array<std::u16string_view, 5> kRequests = {
      u"\\d\\n\\l", u"\\lab.test\\dfs", u"\\LAB\\NETLOGON", u"\\h\\s\\ünï\\😀\\x", u"\\d"};
  if (size == 0) return 0;
  const std::u16string_view request = kRequests[data[0] % kRequests.size()];
  const dfscsi::smb::wire::Bytes response(data + 1, size - 1);

  if (const absl::StatusOr<Referral> referral = dfscsi::dfs::DecodeReferral(response, request);
      referral.ok()) {
    Require(referral->targets.empty() || referral->consumed_components >= 2);
    Require(referral->consumed_components <= 5);
    Require(referral->targets.size() <= dfscsi::dfs::kMaxTargets);
    Require(referral->targets.empty() || referral->targets[0].starts_set);
    Require(!(referral->root && referral->interlink));
    Require(referral->ttl >= absl::ZeroDuration());
    for (const Target& target : referral->targets) {
      // What was accepted can be used: rewritten with, shown, read again.
      const absl::StatusOr<dfscsi::dfs::DfsPath> again =
          dfscsi::dfs::DfsPath::Parse(target.path.ToString());
      Require(again.ok() && *again == target.path);
      Require(target.path.ToWire().size() == target.path.Key().size());
    }
  }
  (void)dfscsi::dfs::DecodeNameListReferral(response);
  return 0;
}
