// NEGOTIATE ([MS-SMB2] 2.2.3, 2.2.4): dialect, capabilities, algorithms.

#ifndef NODE_AGENT_SMB_WIRE_NEGOTIATE_H_
#define NODE_AGENT_SMB_WIRE_NEGOTIATE_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "node-agent/smb/wire/header.h"
#include "node-agent/smb/wire/reader.h"
#include "node-agent/smb/wire/writer.h"

namespace dfscsi::smb::wire {

enum class Dialect : uint16_t {
  k202 = 0x0202,
  k210 = 0x0210,
  k300 = 0x0300,
  k302 = 0x0302,
  k311 = 0x0311,
};

enum SecurityMode : uint16_t { kSigningEnabled = 1, kSigningRequired = 2 };

enum Capability : uint32_t {
  kCapDfs = 0x1,
  kCapLeasing = 0x2,
  kCapLargeMtu = 0x4,
  kCapMultiChannel = 0x8,
  kCapPersistentHandles = 0x10,
  kCapDirectoryLeasing = 0x20,
  kCapEncryption = 0x40,  // 3.0 and 3.0.2 only.
};

enum class CipherId : uint16_t {
  kNone = 0,
  kAes128Ccm = 1,
  kAes128Gcm = 2,
  kAes256Ccm = 3,
  kAes256Gcm = 4,
};

enum class SigningId : uint16_t { kHmacSha256 = 0, kAesCmac = 1, kAesGmac = 2 };

inline constexpr uint16_t kSha512 = 1;  // The only hash algorithm of preauth integrity.

// The negotiate contexts of 3.1.1 that we know. Absent or empty fields are not sent. A reply's
// lists hold what the server sent; DecodeNegotiateResponse rejects lists that a reply may not hold,
// that what was chosen was also offered is the caller's check.
struct NegotiateContexts {
  std::vector<uint16_t> hashes;  // PREAUTH_INTEGRITY
  std::vector<uint8_t> salt;
  std::vector<CipherId> ciphers;
  std::vector<SigningId> signings;
  std::u16string net_name;  // Requests only.
};

struct NegotiateRequest {
  uint16_t security_mode = kSigningEnabled;
  uint32_t capabilities = 0;
  Guid client_guid = {};
  std::vector<Dialect> dialects;
  // Sent, and read, only if `dialects` names 3.1.1.
  NegotiateContexts contexts;
};
void EncodeNegotiateRequest(const NegotiateRequest& request, Writer& writer);
absl::StatusOr<NegotiateRequest> DecodeNegotiateRequest(Bytes body);

struct NegotiateResponse {
  uint16_t security_mode = 0;
  Dialect dialect = Dialect::k202;  // Any value may arrive; compare with what was offered.
  Guid server_guid = {};
  uint32_t capabilities = 0;
  uint32_t max_transact_bytes = 0;
  uint32_t max_read_bytes = 0;
  uint32_t max_write_bytes = 0;
  uint64_t system_time = 0;  // FILETIME; filetime.h.
  uint64_t server_start_time = 0;
  Bytes security_buffer;       // SPNEGO NegTokenInit2, may be empty. Points into the decoded body.
  NegotiateContexts contexts;  // 3.1.1 only.
};
void EncodeNegotiateResponse(const NegotiateResponse& response, Writer& writer);
// Besides malformed ones rejects duplicate contexts, a 3.1.1 reply without exactly one preauth
// hash, more than one cipher or signing algorithm, and maximum sizes below 64 KiB (2.2.4).
absl::StatusOr<NegotiateResponse> DecodeNegotiateResponse(Bytes body);

}  // namespace dfscsi::smb::wire

#endif  // NODE_AGENT_SMB_WIRE_NEGOTIATE_H_
