// Keys of an SMB2 session: the preauthentication hash they are bound to, and their derivation
// ([MS-SMB2] 3.1.4.2, 3.2.5.3.1; SP800-108 counter mode with HMAC-SHA256).

#ifndef NODE_AGENT_SMB_WIRE_CRYPTO_KEY_H_
#define NODE_AGENT_SMB_WIRE_CRYPTO_KEY_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "absl/types/span.h"
#include "node-agent/smb/wire/negotiate.h"
#include "node-agent/smb/wire/reader.h"

namespace dfscsi::smb::wire {

// Up to 32 secret bytes; wiped when it dies, never printed.
class Key {
 public:
  static constexpr size_t kMaxSize = 32;

  Key() = default;
  // At most kMaxSize bytes are kept.
  explicit Key(Bytes bytes);
  Key(const Key&) = default;
  Key& operator=(const Key&) = default;
  ~Key();

  Bytes bytes() const { return Bytes(bytes_.data(), size_); }
  bool empty() const { return size_ == 0; }

 private:
  std::array<uint8_t, kMaxSize> bytes_ = {};
  size_t size_ = 0;
};

// The running SHA-512 over what was said before keys existed (3.1.1). A connection has one over
// NEGOTIATE; each session setup copies it and goes on with its own requests and responses, all but
// the final success.
class PreauthHash {
 public:
  using Value = std::array<uint8_t, 64>;

  PreauthHash() = default;
  explicit PreauthHash(const Value& value) : value_(value) {}

  // One whole message, header to end of frame, in pieces or in one.
  void Update(absl::Span<const Bytes> message);
  void Update(Bytes message) { Update(absl::MakeConstSpan(&message, 1)); }

  const Value& value() const { return value_; }

 private:
  Value value_ = {};
};

// HMAC-SHA256(key, be32(1) ‖ label ‖ 0 ‖ context ‖ be32(bits))[:bits / 8]; 16 or 32 bytes. Labels
// and contexts of SMB2 include their own NUL.
Key DeriveKey(Bytes key, std::string_view label, Bytes context, size_t size_bytes);

// What a log-on yields. `gss_key` is the whole key that GSSAPI exports. Before 3.0 there is a
// signing key only; before 3.1.1 `preauth` is not looked at. The cipher keys have the size that
// `cipher` wants.
struct SessionKeys {
  Key signing;
  Key application;
  Key client_to_server;
  Key server_to_client;
};
SessionKeys DeriveSessionKeys(Dialect dialect, CipherId cipher, Bytes gss_key,
                              const PreauthHash& preauth);

// The signing key alone: of a session, or of one more channel that is bound to it (then `gss_key`
// and `preauth` are the new channel's).
Key DeriveSigningKey(Dialect dialect, Bytes gss_key, const PreauthHash& preauth);

}  // namespace dfscsi::smb::wire

#endif  // NODE_AGENT_SMB_WIRE_CRYPTO_KEY_H_
