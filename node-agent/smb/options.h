// How we speak SMB: what a mount's options choose of it.

#ifndef NODE_AGENT_SMB_OPTIONS_H_
#define NODE_AGENT_SMB_OPTIONS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "node-agent/smb/wire/header.h"
#include "node-agent/smb/wire/negotiate.h"

namespace dfscsi::smb {

enum class Signing {
  kRequired,    // Both sides sign, whatever the server says. The default.
  kIfRequired,  // Only where the server requires it (for comparison with clients that do not sign).
};
enum class Encryption {
  kIfRequired,  // Where the server, or the share, asks for it. The default.
  kRequired,    // A server that cannot encrypt is refused.
};

// Constant for the life of a session pool.
struct Options {
  wire::Dialect lowest_dialect = wire::Dialect::k300;
  wire::Dialect highest_dialect = wire::Dialect::k311;
  Signing signing = Signing::kRequired;
  Encryption encryption = Encryption::kIfRequired;
  // In order of preference; the server chooses.
  std::vector<wire::SigningId> signing_algorithms = {
      wire::SigningId::kAesGmac, wire::SigningId::kAesCmac, wire::SigningId::kHmacSha256};
  std::vector<wire::CipherId> ciphers = {wire::CipherId::kAes128Gcm, wire::CipherId::kAes256Gcm,
                                         wire::CipherId::kAes128Ccm, wire::CipherId::kAes256Ccm};
  wire::Guid client_guid = {};
  uint16_t port = 445;
  // The one host that `port` is for, others being asked on 445; empty: it is for all.
  std::string port_host = {};

  // One try to make a connection: name, TCP, NEGOTIATE, SESSION_SETUP, TREE_CONNECT, each within
  // this.
  absl::Duration connect_timeout = absl::Seconds(5);
  // Addresses of one name are tried at this distance from each other.
  absl::Duration address_stagger = absl::Milliseconds(250);
  // A server with requests outstanding and no byte received for this long is suspect; longer where
  // its answers were slower than a quarter of it. An ECHO goes out at half of it.
  absl::Duration suspect_after = absl::Seconds(1);
  // A session without trees in use is logged off after this.
  absl::Duration idle_timeout = absl::Minutes(1);
  // The largest READ on the wire, at most the server's maximum.
  uint32_t max_read_bytes = 1 << 20;
  // The largest WRITE on the wire, at most the server's maximum: 1 MiB is four requests, so that
  // the server writes one while the next comes.
  uint32_t max_write_bytes = 1 << 18;
};

}  // namespace dfscsi::smb

#endif  // NODE_AGENT_SMB_OPTIONS_H_
