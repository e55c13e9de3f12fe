// Writes referral replies: the server's side, for the scripted server and for tests.

#ifndef NODE_AGENT_DFS_REFERRAL_ENCODER_H_
#define NODE_AGENT_DFS_REFERRAL_ENCODER_H_

#include <cstdint>
#include <string>
#include <vector>

namespace dfscsi::dfs {

// RESP_GET_DFS_REFERRAL with targets ([MS-DFSC] 2.2.4). Nothing is checked: a test may lie.
struct ReferralResponse {
  struct Target {
    std::u16string address;
    bool set_boundary = false;  // Sent in V4 only.
  };
  uint16_t version = 3;
  uint16_t path_consumed_bytes = 0;
  bool referral_servers = false;
  bool storage_servers = true;
  bool target_failback = false;
  bool root = false;  // ServerType
  uint32_t ttl_seconds = 600;
  std::u16string dfs_path = {};
  std::vector<Target> targets = {};
};
std::vector<uint8_t> EncodeReferralResponse(const ReferralResponse& response);

// RESP_GET_DFS_REFERRAL with name lists (V3), as for DOMAIN and DC requests.
struct NameListResponse {
  struct Entry {
    std::u16string name;
    std::vector<std::u16string> expanded;
  };
  uint32_t ttl_seconds = 600;
  std::vector<Entry> entries;
};
std::vector<uint8_t> EncodeNameListResponse(const NameListResponse& response);

}  // namespace dfscsi::dfs

#endif  // NODE_AGENT_DFS_REFERRAL_ENCODER_H_
