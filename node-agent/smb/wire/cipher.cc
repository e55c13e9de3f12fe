#include "node-agent/smb/wire/cipher.h"

#include <string.h>

#include <array>
#include <cstdlib>

namespace dfscsi::smb::wire {
namespace {

constexpr size_t kTagSize = 16;
constexpr size_t kCcmNonceSize = 11;
constexpr size_t kGcmNonceSize = 12;
constexpr size_t kAssociatedOffset = 20;  // Of the header: all behind the tag is authenticated.

struct Suite {
  const EVP_CIPHER* aead;
  const EVP_CIPHER* counter_mode;  // What both AEAD modes encrypt with.
  size_t key_size;
  size_t nonce_size;
};

const Suite& SuiteOf(CipherId cipher) {
  static const Suite ccm128 = {FetchCipher("AES-128-CCM"), FetchCipher("AES-128-CTR"), 16,
                               kCcmNonceSize};
  static const Suite gcm128 = {FetchCipher("AES-128-GCM"), FetchCipher("AES-128-CTR"), 16,
                               kGcmNonceSize};
  static const Suite ccm256 = {FetchCipher("AES-256-CCM"), FetchCipher("AES-256-CTR"), 32,
                               kCcmNonceSize};
  static const Suite gcm256 = {FetchCipher("AES-256-GCM"), FetchCipher("AES-256-CTR"), 32,
                               kGcmNonceSize};
  switch (cipher) {
    case CipherId::kAes128Ccm:
      return ccm128;
    case CipherId::kAes128Gcm:
      return gcm128;
    case CipherId::kAes256Ccm:
      return ccm256;
    case CipherId::kAes256Gcm:
      return gcm256;
    case CipherId::kNone:
      break;
  }
  abort();  // The caller checks what a server chose.
}

CipherContext MakeAead(const Suite& suite, Bytes key, bool encrypt) {
  CipherContext context(EVP_CIPHER_CTX_new());
  RequireEvp(context != nullptr && EVP_CipherInit_ex2(context.get(), suite.aead, nullptr, nullptr,
                                                      encrypt ? 1 : 0, nullptr) == 1);
  RequireEvp(EVP_CIPHER_CTX_ctrl(context.get(), EVP_CTRL_AEAD_SET_IVLEN,
                                 static_cast<int>(suite.nonce_size), nullptr) == 1);
  if (suite.nonce_size == kCcmNonceSize) {
    RequireEvp(EVP_CIPHER_CTX_ctrl(context.get(), EVP_CTRL_AEAD_SET_TAG, kTagSize, nullptr) == 1);
  }
  RequireEvp(EVP_CipherInit_ex2(context.get(), nullptr, key.data(), nullptr, encrypt ? 1 : 0,
                                nullptr) == 1);
  return context;
}

void Update(EVP_CIPHER_CTX* context, const uint8_t* in, size_t size, uint8_t* out) {
  int written = 0;
  RequireEvp(EVP_CipherUpdate(context, out, &written, in, static_cast<int>(size)) == 1);
}

std::array<uint8_t, 32> AssociatedData(const TransformHeader& header) {
  std::array<uint8_t, kTransformHeaderSize> bytes;
  EncodeTransformHeader(header, absl::MakeSpan(bytes));
  std::array<uint8_t, kTransformHeaderSize - kAssociatedOffset> associated;
  memcpy(associated.data(), bytes.data() + kAssociatedOffset, associated.size());
  return associated;
}

template <typename Span>
size_t TotalSize(absl::Span<const Span> pieces) {
  size_t size = 0;
  for (const Span& piece : pieces) size += piece.size();
  return size;
}

}  // namespace

Cipher::Cipher(CipherId cipher, const Key& key) {
  const Suite& suite = SuiteOf(cipher);
  RequireEvp(key.bytes().size() == suite.key_size);
  nonce_size_ = suite.nonce_size;
  seal_ = MakeAead(suite, key.bytes(), /*encrypt=*/true);
  open_ = MakeAead(suite, key.bytes(), /*encrypt=*/false);
  peek_.reset(EVP_CIPHER_CTX_new());
  RequireEvp(peek_ != nullptr && EVP_DecryptInit_ex2(peek_.get(), suite.counter_mode,
                                                     key.bytes().data(), nullptr, nullptr) == 1);
}

void Cipher::Encrypt(uint64_t session_id, uint64_t nonce, absl::Span<const Bytes> message,
                     MutableBytes frame) {
  const size_t size = TotalSize(message);
  RequireEvp(frame.size() == kTransformHeaderSize + size && frame.size() <= kMaxFrameSize);
  TransformHeader header;
  header.original_size = static_cast<uint32_t>(size);
  header.session_id = session_id;
  memcpy(header.nonce.data(), &nonce, sizeof(nonce));
  const auto associated = AssociatedData(header);
  uint8_t* out = frame.data() + kTransformHeaderSize;

  EVP_CIPHER_CTX* const context = seal_.get();
  RequireEvp(EVP_EncryptInit_ex2(context, nullptr, nullptr, header.nonce.data(), nullptr) == 1);
  if (is_ccm()) {
    // CCM wants the size first and all of the message in one call: gather, then in place.
    Update(context, nullptr, size, nullptr);
    Update(context, associated.data(), associated.size(), nullptr);
    uint8_t* at = out;
    for (const Bytes piece : message) {
      if (piece.data() != at && !piece.empty()) memcpy(at, piece.data(), piece.size());
      at += piece.size();
    }
    Update(context, out, size, out);
  } else {
    Update(context, associated.data(), associated.size(), nullptr);
    uint8_t* at = out;
    for (const Bytes piece : message) {
      if (!piece.empty()) Update(context, piece.data(), piece.size(), at);
      at += piece.size();
    }
  }
  uint8_t unused[kTagSize];
  int written = 0;
  RequireEvp(EVP_EncryptFinal_ex(context, unused, &written) == 1);
  RequireEvp(
      EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_GET_TAG, kTagSize, header.signature.data()) == 1);
  EncodeTransformHeader(header, frame);
}

absl::Status Cipher::Decrypt(const TransformHeader& header, MutableBytes ciphertext,
                             absl::Span<const MutableBytes> message) {
  RequireEvp(TotalSize(message) == ciphertext.size() && ciphertext.size() <= kMaxFrameSize);
  const auto associated = AssociatedData(header);
  Signature tag = header.signature;
  EVP_CIPHER_CTX* const context = open_.get();
  bool good = false;
  RequireEvp(EVP_DecryptInit_ex2(context, nullptr, nullptr, header.nonce.data(), nullptr) == 1);
  RequireEvp(EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_SET_TAG, kTagSize, tag.data()) == 1);
  if (is_ccm()) {
    Update(context, nullptr, ciphertext.size(), nullptr);
    Update(context, associated.data(), associated.size(), nullptr);
    // One call here too, and it is the one that fails on a wrong tag.
    uint8_t* const out = message.size() == 1 ? message[0].data() : ciphertext.data();
    int written = 0;
    good = EVP_DecryptUpdate(context, out, &written, ciphertext.data(),
                             static_cast<int>(ciphertext.size())) == 1;
    const uint8_t* from = out;
    for (const MutableBytes piece : message) {
      if (good && piece.data() != from && !piece.empty()) memcpy(piece.data(), from, piece.size());
      from += piece.size();
    }
  } else {
    Update(context, associated.data(), associated.size(), nullptr);
    const uint8_t* from = ciphertext.data();
    for (const MutableBytes piece : message) {
      if (!piece.empty()) Update(context, from, piece.size(), piece.data());
      from += piece.size();
    }
    uint8_t unused[kTagSize];
    int written = 0;
    good = EVP_DecryptFinal_ex(context, unused, &written) == 1;
  }
  return good ? absl::OkStatus() : MalformedError("encrypted frame", "wrong tag");
}

void Cipher::Peek(const TransformHeader& header, Bytes start, MutableBytes out) {
  RequireEvp(start.size() == out.size());
  // The first block of the message: GCM counts it 2 behind its nonce (SP800-38D 7.1), CCM 1 behind
  // a flags byte of L - 1 = 3 and its nonce (SP800-38C A.3).
  std::array<uint8_t, 16> block = {};
  if (is_ccm()) {
    block[0] = 3;
    memcpy(block.data() + 1, header.nonce.data(), kCcmNonceSize);
    block[15] = 1;
  } else {
    memcpy(block.data(), header.nonce.data(), kGcmNonceSize);
    block[15] = 2;
  }
  RequireEvp(EVP_DecryptInit_ex2(peek_.get(), nullptr, nullptr, block.data(), nullptr) == 1);
  if (!start.empty()) Update(peek_.get(), start.data(), start.size(), out.data());
}

}  // namespace dfscsi::smb::wire
