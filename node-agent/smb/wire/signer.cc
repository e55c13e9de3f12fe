#include "node-agent/smb/wire/signer.h"

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/params.h>
#include <string.h>

#include <array>
#include <cstdlib>

#include "node-agent/smb/wire/evp.h"

namespace dfscsi::smb::wire {
namespace {

constexpr size_t kCommandOffset = 12;
constexpr size_t kMessageIdOffset = 24;
constexpr size_t kNonceSize = 12;
constexpr uint8_t kNonceFromServer = 1;
constexpr uint8_t kNonceCancel = 2;
constexpr Signature kNoSignature = {};

}  // namespace

// Takes the pieces of a message one after the other.
class Signer::Algorithm {
 public:
  virtual ~Algorithm() = default;
  virtual void Begin(Bytes header, Peer sender) = 0;
  virtual void Update(Bytes piece) = 0;
  virtual Signature End() = 0;
};

// HMAC-SHA256 and AES-128-CMAC.
class Signer::MacAlgorithm final : public Signer::Algorithm {
 public:
  static std::unique_ptr<Algorithm> Hmac(Bytes key) {
    static EVP_MAC* const hmac = FetchMac("HMAC");
    return std::make_unique<MacAlgorithm>(hmac, OSSL_MAC_PARAM_DIGEST, "SHA256", key);
  }
  static std::unique_ptr<Algorithm> Cmac(Bytes key) {
    static EVP_MAC* const cmac = FetchMac("CMAC");
    return std::make_unique<MacAlgorithm>(cmac, OSSL_MAC_PARAM_CIPHER, "AES-128-CBC", key);
  }

  MacAlgorithm(EVP_MAC* mac, const char* parameter, const char* value, Bytes key)
      : context_(EVP_MAC_CTX_new(mac)) {
    const OSSL_PARAM parameters[] = {
        OSSL_PARAM_construct_utf8_string(parameter, const_cast<char*>(value), 0),
        OSSL_PARAM_construct_end()};
    RequireEvp(context_ != nullptr &&
               EVP_MAC_init(context_.get(), key.data(), key.size(), parameters) == 1);
  }

  // Without a key: keeps the expanded one.
  void Begin(Bytes, Peer) override {
    RequireEvp(EVP_MAC_init(context_.get(), nullptr, 0, nullptr) == 1);
  }
  void Update(Bytes piece) override {
    RequireEvp(EVP_MAC_update(context_.get(), piece.data(), piece.size()) == 1);
  }
  Signature End() override {
    std::array<uint8_t, 32> tag;
    size_t size = 0;
    RequireEvp(EVP_MAC_final(context_.get(), tag.data(), &size, tag.size()) == 1);
    Signature signature;
    memcpy(signature.data(), tag.data(), signature.size());
    return signature;
  }

 private:
  MacContext context_;
};

// AES-128-GMAC: GCM without a plaintext, the message as associated data.
class Signer::GmacAlgorithm final : public Signer::Algorithm {
 public:
  explicit GmacAlgorithm(Bytes key) : context_(EVP_CIPHER_CTX_new()) {
    static const EVP_CIPHER* const gcm = FetchCipher("AES-128-GCM");
    RequireEvp(context_ != nullptr &&
               EVP_EncryptInit_ex2(context_.get(), gcm, key.data(), nullptr, nullptr) == 1);
  }

  void Begin(Bytes header, Peer sender) override {
    std::array<uint8_t, kNonceSize> nonce = {};
    memcpy(nonce.data(), header.data() + kMessageIdOffset, 8);
    if (sender == Peer::kServer) nonce[8] |= kNonceFromServer;
    const uint16_t command =
        static_cast<uint16_t>(header[kCommandOffset] | header[kCommandOffset + 1] << 8);
    if (command == static_cast<uint16_t>(Command::kCancel)) nonce[8] |= kNonceCancel;
    RequireEvp(EVP_EncryptInit_ex2(context_.get(), nullptr, nullptr, nonce.data(), nullptr) == 1);
  }
  void Update(Bytes piece) override {
    int written = 0;
    RequireEvp(EVP_EncryptUpdate(context_.get(), nullptr, &written, piece.data(),
                                 static_cast<int>(piece.size())) == 1);
  }
  Signature End() override {
    uint8_t unused[16];
    int written = 0;
    Signature tag;
    RequireEvp(EVP_EncryptFinal_ex(context_.get(), unused, &written) == 1);
    RequireEvp(EVP_CIPHER_CTX_ctrl(context_.get(), EVP_CTRL_AEAD_GET_TAG, tag.size(), tag.data()) ==
               1);
    return tag;
  }

 private:
  CipherContext context_;
};

SigningId DefaultSigning(Dialect dialect) {
  return dialect < Dialect::k300 ? SigningId::kHmacSha256 : SigningId::kAesCmac;
}

Signer::Signer(SigningId algorithm, const Key& key, Peer self) : self_(self) {
  RequireEvp(key.bytes().size() == 16);
  switch (algorithm) {
    case SigningId::kHmacSha256:
      algorithm_ = MacAlgorithm::Hmac(key.bytes());
      return;
    case SigningId::kAesCmac:
      algorithm_ = MacAlgorithm::Cmac(key.bytes());
      return;
    case SigningId::kAesGmac:
      algorithm_ = std::make_unique<GmacAlgorithm>(key.bytes());
      return;
  }
  abort();  // The caller checks what a server chose.
}

Signer::~Signer() = default;
Signer::Signer(Signer&&) noexcept = default;
Signer& Signer::operator=(Signer&&) noexcept = default;

Signature Signer::Sign(absl::Span<const Bytes> message) { return Compute(message, self_); }

Signature Signer::Compute(absl::Span<const Bytes> message, Peer sender) {
  const Bytes first = message.empty() ? Bytes() : message[0];
  RequireEvp(first.size() >= kHeaderSize);
  algorithm_->Begin(first, sender);
  algorithm_->Update(first.first(kSignatureOffset));
  algorithm_->Update(kNoSignature);
  if (first.size() > kHeaderSize) algorithm_->Update(first.subspan(kHeaderSize));
  for (const Bytes piece : message.subspan(1)) {
    if (!piece.empty()) algorithm_->Update(piece);
  }
  return algorithm_->End();
}

absl::Status Signer::Verify(absl::Span<const Bytes> message) {
  if (message.empty() || message[0].size() < kHeaderSize) {
    return MalformedError("signed message", "too short");
  }
  const Signature expected =
      Compute(message, self_ == Peer::kClient ? Peer::kServer : Peer::kClient);
  if (CRYPTO_memcmp(expected.data(), message[0].data() + kSignatureOffset, expected.size()) != 0) {
    return MalformedError(CommandName(static_cast<Command>(message[0][kCommandOffset] |
                                                           message[0][kCommandOffset + 1] << 8)),
                          "wrong signature");
  }
  return absl::OkStatus();
}

}  // namespace dfscsi::smb::wire
