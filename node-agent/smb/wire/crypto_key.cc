#include "node-agent/smb/wire/crypto_key.h"

#include <openssl/core_names.h>
#include <openssl/params.h>
#include <string.h>

#include <algorithm>

#include "node-agent/smb/wire/evp.h"

namespace dfscsi::smb::wire {
namespace {

constexpr size_t kSessionKeySize = 16;

struct Labels {
  std::string_view signing;
  std::string_view application;
  std::string_view client_to_server;
  std::string_view server_to_client;
};

// A literal with its NUL, which is part of each label.
template <size_t kSize>
constexpr std::string_view WithNul(const char (&literal)[kSize]) {
  return std::string_view(literal, kSize);
}

constexpr Labels kLabels300 = {WithNul("SMB2AESCMAC"), WithNul("SMB2APP"), WithNul("SMB2AESCCM"),
                               WithNul("SMB2AESCCM")};
// "ServerIn " has a blank.
constexpr Labels kContexts300 = {WithNul("SmbSign"), WithNul("SmbRpc"), WithNul("ServerIn "),
                                 WithNul("ServerOut")};
constexpr Labels kLabels311 = {WithNul("SMBSigningKey"), WithNul("SMBAppKey"),
                               WithNul("SMBC2SCipherKey"), WithNul("SMBS2CCipherKey")};

Bytes BytesOf(std::string_view text) {
  return Bytes(reinterpret_cast<const uint8_t*>(text.data()), text.size());
}

// [MS-SMB2] Session.SessionKey: 16 bytes, zeros on the right where GSS gave fewer.
Key SessionKeyOf(Bytes gss_key) {
  std::array<uint8_t, kSessionKeySize> bytes = {};
  const size_t size = std::min(gss_key.size(), bytes.size());
  std::copy_n(gss_key.begin(), size, bytes.begin());
  Key key(bytes);
  explicit_bzero(bytes.data(), bytes.size());
  return key;
}

Bytes ContextOf(Dialect dialect, std::string_view context300, const PreauthHash& preauth) {
  return dialect == Dialect::k311 ? Bytes(preauth.value()) : BytesOf(context300);
}

}  // namespace

Key::Key(Bytes bytes) : size_(std::min(bytes.size(), kMaxSize)) {
  std::copy_n(bytes.begin(), size_, bytes_.begin());
}

Key::~Key() { explicit_bzero(bytes_.data(), bytes_.size()); }

void PreauthHash::Update(absl::Span<const Bytes> message) {
  static const EVP_MD* const sha512 = FetchDigest("SHA512");
  const DigestContext context(EVP_MD_CTX_new());
  RequireEvp(context != nullptr && EVP_DigestInit_ex2(context.get(), sha512, nullptr) == 1);
  RequireEvp(EVP_DigestUpdate(context.get(), value_.data(), value_.size()) == 1);
  for (const Bytes part : message) {
    RequireEvp(EVP_DigestUpdate(context.get(), part.data(), part.size()) == 1);
  }
  RequireEvp(EVP_DigestFinal_ex(context.get(), value_.data(), nullptr) == 1);
}

Key DeriveKey(Bytes key, std::string_view label, Bytes context, size_t size_bytes) {
  static EVP_MAC* const hmac = FetchMac("HMAC");
  const MacContext mac(EVP_MAC_CTX_new(hmac));
  char digest[] = "SHA256";
  const OSSL_PARAM parameters[] = {
      OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0),
      OSSL_PARAM_construct_end()};
  // With a null key EVP_MAC_init keeps the key it has, and there is none.
  static constexpr uint8_t kEmptyKey = 0;
  RequireEvp(mac != nullptr && EVP_MAC_init(mac.get(), key.empty() ? &kEmptyKey : key.data(),
                                            key.size(), parameters) == 1);
  const uint32_t bits = static_cast<uint32_t>(size_bytes * 8);
  const uint8_t counter[] = {0, 0, 0, 1};
  const uint8_t separator[] = {0};
  const uint8_t length[] = {static_cast<uint8_t>(bits >> 24), static_cast<uint8_t>(bits >> 16),
                            static_cast<uint8_t>(bits >> 8), static_cast<uint8_t>(bits)};
  for (const Bytes part :
       {Bytes(counter), BytesOf(label), Bytes(separator), context, Bytes(length)}) {
    RequireEvp(EVP_MAC_update(mac.get(), part.data(), part.size()) == 1);
  }
  std::array<uint8_t, 32> block;
  size_t written = 0;
  RequireEvp(EVP_MAC_final(mac.get(), block.data(), &written, block.size()) == 1);
  Key derived(Bytes(block).first(std::min(size_bytes, block.size())));
  explicit_bzero(block.data(), block.size());
  return derived;
}

Key DeriveSigningKey(Dialect dialect, Bytes gss_key, const PreauthHash& preauth) {
  const Key session_key = SessionKeyOf(gss_key);
  if (dialect < Dialect::k300) return session_key;
  const Labels& labels = dialect == Dialect::k311 ? kLabels311 : kLabels300;
  return DeriveKey(session_key.bytes(), labels.signing,
                   ContextOf(dialect, kContexts300.signing, preauth), kSessionKeySize);
}

SessionKeys DeriveSessionKeys(Dialect dialect, CipherId cipher, Bytes gss_key,
                              const PreauthHash& preauth) {
  SessionKeys keys;
  keys.signing = DeriveSigningKey(dialect, gss_key, preauth);
  if (dialect < Dialect::k300) return keys;
  const Labels& labels = dialect == Dialect::k311 ? kLabels311 : kLabels300;
  const Key session_key = SessionKeyOf(gss_key);
  const auto context = [&](std::string_view context300) {
    return ContextOf(dialect, context300, preauth);
  };
  keys.application = DeriveKey(session_key.bytes(), labels.application,
                               context(kContexts300.application), kSessionKeySize);
  // The 256-bit ciphers, and they alone, start from the full key.
  const bool full = cipher == CipherId::kAes256Ccm || cipher == CipherId::kAes256Gcm;
  const Bytes cipher_base = full ? gss_key : session_key.bytes();
  const size_t cipher_size = full ? 32 : 16;
  keys.client_to_server = DeriveKey(cipher_base, labels.client_to_server,
                                    context(kContexts300.client_to_server), cipher_size);
  keys.server_to_client = DeriveKey(cipher_base, labels.server_to_client,
                                    context(kContexts300.server_to_client), cipher_size);
  return keys;
}

}  // namespace dfscsi::smb::wire
