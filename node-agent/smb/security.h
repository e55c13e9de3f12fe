// What protects the messages of one session on one connection.

#ifndef NODE_AGENT_SMB_SECURITY_H_
#define NODE_AGENT_SMB_SECURITY_H_

#include <cstdint>
#include <optional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "node-agent/base/secret.h"
#include "node-agent/smb/wire/cipher.h"
#include "node-agent/smb/wire/crypto_key.h"
#include "node-agent/smb/wire/negotiate.h"
#include "node-agent/smb/wire/signer.h"

namespace dfscsi::smb {

// Filled step by step: by NEGOTIATE the algorithms, by SESSION_SETUP the id and the keys. One loop.
class SecurityContext {
 public:
  wire::Dialect dialect = wire::Dialect::k210;
  wire::SigningId signing_id = wire::SigningId::kHmacSha256;
  wire::CipherId cipher_id = wire::CipherId::kNone;
  uint64_t session_id = 0;
  // Every message is signed, and every answer must be.
  bool signing = false;

  bool has_keys() const { return signer_.has_value(); }
  bool encrypting() const { return encrypting_; }

  // Keys of a log-on. `preauth` has seen the last request, not the last reply.
  void DeriveKeys(const Secret& gss_key, const wire::PreauthHash& preauth);

  // From now on requests are encrypted. kFailedPrecondition: no cipher was negotiated.
  absl::Status StartEncrypting();

  // Sets the SIGNED flag and the signature in the header that `parts` begins with, `message` being
  // that first part. REQUIRES: has_keys().
  void Sign(wire::MutableBytes message, absl::Span<const wire::Bytes> parts);
  bool Verify(absl::Span<const wire::Bytes> parts);

  // Fills `frame` (kTransformHeaderSize + the sum of parts) with the encrypted form of `parts`.
  void Encrypt(absl::Span<const wire::Bytes> parts, wire::MutableBytes frame);
  // Decrypts in place; the result points into `frame`. kDataLoss: it is not from this session.
  absl::StatusOr<wire::Bytes> Decrypt(wire::MutableBytes frame);

 private:
  bool encrypting_ = false;
  std::optional<wire::Signer> signer_;
  std::optional<wire::Cipher> to_server_;
  std::optional<wire::Cipher> from_server_;
  uint64_t last_nonce_ = 0;  // Never repeats under one key; authenticating again keeps the keys.
};

}  // namespace dfscsi::smb

#endif  // NODE_AGENT_SMB_SECURITY_H_
