#include "node-agent/smb/credential.h"

#include <openssl/evp.h>
#include <openssl/rand.h>

#include <initializer_list>
#include <memory>
#include <string_view>

#include "absl/strings/escaping.h"

namespace dfscsi::smb {
namespace {

using Key = std::array<uint8_t, 32>;

Key& IdentityKey() {
  static Key key = [] {
    Key random;
    RAND_bytes(random.data(), random.size());
    return random;
  }();
  return key;
}

std::string Digest(std::initializer_list<std::string_view> fields) {
  std::array<unsigned char, 32> digest;
  const std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context(EVP_MD_CTX_new(),
                                                                        EVP_MD_CTX_free);
  EVP_DigestInit_ex(context.get(), EVP_sha256(), nullptr);
  for (const std::string_view field : fields) {
    // Lengths keep "ab","c" and "a","bc" apart.
    const uint64_t size = field.size();
    EVP_DigestUpdate(context.get(), &size, sizeof size);
    EVP_DigestUpdate(context.get(), field.data(), field.size());
  }
  EVP_DigestFinal_ex(context.get(), digest.data(), nullptr);
  return absl::BytesToHexString(std::string(reinterpret_cast<const char*>(digest.data()), 8));
}

std::string_view MechanismField(Mechanism mechanism) {
  return mechanism == Mechanism::kKerberos ? "krb5" : "ntlm";
}

}  // namespace

void SetIdentityKey(const std::array<uint8_t, 32>& key) { IdentityKey() = key; }

std::string Credential::Identity() const {
  const Key& key = IdentityKey();
  const std::string_view key_field(reinterpret_cast<const char*>(key.data()), key.size());
  return Digest({key_field, MechanismField(mechanism), user, domain, password.Expose()});
}

std::string Credential::Account() const {
  return Digest({MechanismField(mechanism), user, domain});
}

}  // namespace dfscsi::smb
