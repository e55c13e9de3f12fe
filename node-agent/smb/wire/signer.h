// Signatures of SMB2 messages ([MS-SMB2] 3.1.4.1).

#ifndef NODE_AGENT_SMB_WIRE_SIGNER_H_
#define NODE_AGENT_SMB_WIRE_SIGNER_H_

#include <memory>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "node-agent/smb/wire/crypto_key.h"
#include "node-agent/smb/wire/header.h"
#include "node-agent/smb/wire/negotiate.h"
#include "node-agent/smb/wire/reader.h"

namespace dfscsi::smb::wire {

// The algorithm where a dialect leaves no choice, and where a 3.1.1 server sent no SIGNING context.
SigningId DefaultSigning(Dialect dialect);

enum class Peer { kClient, kServer };

// One key's signatures, both directions. Keeps the expanded key: a signature costs its bytes and no
// allocation. Not thread-safe; a thread that signs beside the loop has a Signer of its own.
class Signer {
 public:
  // `key` has 16 bytes (DeriveSigningKey). `self` signs, the other peer's signatures are verified:
  // GMAC makes a difference, so that no message can be sent back to its sender.
  Signer(SigningId algorithm, const Key& key, Peer self = Peer::kClient);
  ~Signer();
  Signer(Signer&&) noexcept;
  Signer& operator=(Signer&&) noexcept;

  // The signature of one part: header, body and, in a compound, padding. The message may lie in
  // pieces (a WRITE's payload stays where it is); the first piece holds at least the header, whose
  // signature field counts as zeros whatever it holds.
  Signature Sign(absl::Span<const Bytes> message);
  Signature Sign(Bytes message) { return Sign(absl::MakeConstSpan(&message, 1)); }

  // Compares with the header's signature field, in constant time. kDataLoss: wrong; the caller
  // drops the connection. The first piece may be shorter than a header only in a broken message:
  // that is kDataLoss too.
  absl::Status Verify(absl::Span<const Bytes> message);
  absl::Status Verify(Bytes message) { return Verify(absl::MakeConstSpan(&message, 1)); }

 private:
  class Algorithm;
  class MacAlgorithm;
  class GmacAlgorithm;

  Signature Compute(absl::Span<const Bytes> message, Peer sender);

  std::unique_ptr<Algorithm> algorithm_;
  Peer self_;
};

}  // namespace dfscsi::smb::wire

#endif  // NODE_AGENT_SMB_WIRE_SIGNER_H_
