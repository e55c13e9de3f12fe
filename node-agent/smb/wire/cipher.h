// Encryption of SMB2 frames ([MS-SMB2] 3.1.4.3): AES-128/256-CCM/GCM under a TRANSFORM_HEADER.

#ifndef NODE_AGENT_SMB_WIRE_CIPHER_H_
#define NODE_AGENT_SMB_WIRE_CIPHER_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "node-agent/smb/wire/crypto_key.h"
#include "node-agent/smb/wire/evp.h"
#include "node-agent/smb/wire/header.h"
#include "node-agent/smb/wire/negotiate.h"
#include "node-agent/smb/wire/reader.h"

namespace dfscsi::smb::wire {

// One key of one direction. Keeps the expanded key: a frame costs its bytes and no allocation. Not
// thread-safe.
class Cipher {
 public:
  // `cipher` is not kNone, `key` has its size (DeriveSessionKeys).
  Cipher(CipherId cipher, const Key& key);

  // Encrypts `message` (a part or a compound, in pieces) into `frame`, whose size is
  // kTransformHeaderSize + the pieces' sum. A piece may lie exactly where its ciphertext goes, else
  // it must not overlap `frame`.
  //
  // `nonce` must never repeat under one key, not even on another channel: the session counts, from
  // 1, and goes on counting through a re-authentication.
  void Encrypt(uint64_t session_id, uint64_t nonce, absl::Span<const Bytes> message,
               MutableBytes frame);

  // Decrypts a frame's ciphertext into `message`, in pieces whose sum is original_size: READ data
  // may go straight to its place. `ciphertext` may be overwritten; the one piece of `message` may
  // lie exactly on it. kDataLoss: the tag is wrong; nothing of `message` may be used, and the
  // connection is dropped.
  absl::Status Decrypt(const TransformHeader& header, MutableBytes ciphertext,
                       absl::Span<const MutableBytes> message);
  absl::Status Decrypt(const TransformHeader& header, MutableBytes in_place) {
    return Decrypt(header, in_place, absl::MakeConstSpan(&in_place, 1));
  }

  // Decrypts the first bytes of a frame without a look at the tag, to choose where the rest goes.
  // They are a stranger's word until Decrypt succeeds. `start` and `out` have one size.
  void Peek(const TransformHeader& header, Bytes start, MutableBytes out);

 private:
  bool is_ccm() const { return nonce_size_ == 11; }

  size_t nonce_size_;
  CipherContext seal_;
  CipherContext open_;
  CipherContext peek_;
};

}  // namespace dfscsi::smb::wire

#endif  // NODE_AGENT_SMB_WIRE_CIPHER_H_
