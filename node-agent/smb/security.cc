#include "node-agent/smb/security.h"

#include <string.h>

#include "node-agent/base/status_macros.h"
#include "node-agent/smb/wire/header.h"

namespace dfscsi::smb {

void SecurityContext::DeriveKeys(const Secret& gss_key, const wire::PreauthHash& preauth) {
  const wire::Bytes key(reinterpret_cast<const uint8_t*>(gss_key.Expose().data()),
                        gss_key.Expose().size());
  const wire::SessionKeys keys = wire::DeriveSessionKeys(dialect, cipher_id, key, preauth);
  signer_.emplace(signing_id, keys.signing);
  if (cipher_id != wire::CipherId::kNone) {
    to_server_.emplace(cipher_id, keys.client_to_server);
    from_server_.emplace(cipher_id, keys.server_to_client);
  }
}

absl::Status SecurityContext::StartEncrypting() {
  if (!to_server_.has_value()) {
    return absl::FailedPreconditionError("encryption is required, and no cipher was negotiated");
  }
  encrypting_ = true;
  return absl::OkStatus();
}

void SecurityContext::Sign(wire::MutableBytes message, absl::Span<const wire::Bytes> parts) {
  constexpr size_t kFlagsOffset = 16;  // [MS-SMB2] 2.2.1.2
  uint32_t flags;
  memcpy(&flags, message.data() + kFlagsOffset, sizeof flags);
  flags |= wire::kFlagSigned;
  memcpy(message.data() + kFlagsOffset, &flags, sizeof flags);
  wire::PatchSignature(message, signer_->Sign(parts));
}

bool SecurityContext::Verify(absl::Span<const wire::Bytes> parts) {
  return signer_.has_value() && signer_->Verify(parts).ok();
}

void SecurityContext::Encrypt(absl::Span<const wire::Bytes> parts, wire::MutableBytes frame) {
  to_server_->Encrypt(session_id, ++last_nonce_, parts, frame);
}

absl::StatusOr<wire::Bytes> SecurityContext::Decrypt(wire::MutableBytes frame) {
  if (!from_server_.has_value()) return absl::DataLossError("an encrypted answer without a key");
  ASSIGN_OR_RETURN(const wire::TransformHeader header, wire::DecodeTransformHeader(frame));
  if (header.session_id != session_id) {
    return absl::DataLossError("an encrypted answer of another session");
  }
  const wire::MutableBytes message = frame.subspan(wire::kTransformHeaderSize);
  RETURN_IF_ERROR(from_server_->Decrypt(header, message));
  return wire::Bytes(message);
}

}  // namespace dfscsi::smb
