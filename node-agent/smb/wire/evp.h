// OpenSSL's objects: fetched once, freed by their owners. For the crypto of this folder only.

#ifndef NODE_AGENT_SMB_WIRE_EVP_H_
#define NODE_AGENT_SMB_WIRE_EVP_H_

#include <openssl/evp.h>

#include <cstdlib>
#include <memory>

namespace dfscsi::smb::wire {

struct EvpDeleter {
  void operator()(EVP_CIPHER_CTX* context) const { EVP_CIPHER_CTX_free(context); }
  void operator()(EVP_MAC_CTX* context) const { EVP_MAC_CTX_free(context); }
  void operator()(EVP_MD_CTX* context) const { EVP_MD_CTX_free(context); }
};
using CipherContext = std::unique_ptr<EVP_CIPHER_CTX, EvpDeleter>;
using MacContext = std::unique_ptr<EVP_MAC_CTX, EvpDeleter>;
using DigestContext = std::unique_ptr<EVP_MD_CTX, EvpDeleter>;

// These calls have constant, valid arguments: they fail only without memory, or where OpenSSL lacks
// an algorithm that every build of it has. Going on would mean unsigned or clear frames.
inline void RequireEvp(bool ok) {
  if (!ok) abort();
}

// Fetching walks locks and string tables, so it is done once per process and never undone.
inline const EVP_CIPHER* FetchCipher(const char* name) {
  const EVP_CIPHER* cipher = EVP_CIPHER_fetch(nullptr, name, nullptr);
  RequireEvp(cipher != nullptr);
  return cipher;
}
inline EVP_MAC* FetchMac(const char* name) {
  EVP_MAC* mac = EVP_MAC_fetch(nullptr, name, nullptr);
  RequireEvp(mac != nullptr);
  return mac;
}
inline const EVP_MD* FetchDigest(const char* name) {
  const EVP_MD* digest = EVP_MD_fetch(nullptr, name, nullptr);
  RequireEvp(digest != nullptr);
  return digest;
}

}  // namespace dfscsi::smb::wire

#endif  // NODE_AGENT_SMB_WIRE_EVP_H_
