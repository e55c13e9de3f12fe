// Signing and encryption of frames of 1 MiB, and beside each the limit: OpenSSL in one call over
// one buffer with everything set up. Bytes per second.

#include <benchmark/benchmark.h>
#include <openssl/core_names.h>
#include <openssl/params.h>

#include <vector>

#include "node-agent/smb/wire/cipher.h"
#include "node-agent/smb/wire/crypto_key.h"
#include "node-agent/smb/wire/evp.h"
#include "node-agent/smb/wire/signer.h"

namespace dfscsi::smb::wire {
namespace {

constexpr size_t kPayloadSize = 1 << 20;
constexpr size_t kFixedSize = 112;  // Header and fixed part of a WRITE.

Key KeyOf(size_t size) { return Key(std::vector<uint8_t>(size, 7)); }

void Count(benchmark::State& state) {
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations()) * kPayloadSize);
}

void Sign(benchmark::State& state, SigningId algorithm) {
  Signer signer(algorithm, KeyOf(16));
  const std::vector<uint8_t> fixed(kFixedSize);
  const std::vector<uint8_t> payload(kPayloadSize);
  const Bytes message[] = {fixed, payload};
  for (auto _ : state) benchmark::DoNotOptimize(signer.Sign(message));
  Count(state);
}
BENCHMARK_CAPTURE(Sign, HmacSha256, SigningId::kHmacSha256);
BENCHMARK_CAPTURE(Sign, AesCmac, SigningId::kAesCmac);
BENCHMARK_CAPTURE(Sign, AesGmac, SigningId::kAesGmac);

// A metadata request: what set-up costs.
void SignSmall(benchmark::State& state, SigningId algorithm) {
  Signer signer(algorithm, KeyOf(16));
  const std::vector<uint8_t> message(kFixedSize + 64);
  for (auto _ : state) benchmark::DoNotOptimize(signer.Sign(message));
}
BENCHMARK_CAPTURE(SignSmall, HmacSha256, SigningId::kHmacSha256);
BENCHMARK_CAPTURE(SignSmall, AesCmac, SigningId::kAesCmac);
BENCHMARK_CAPTURE(SignSmall, AesGmac, SigningId::kAesGmac);

void RawMac(benchmark::State& state, const char* name, const char* parameter, const char* value) {
  const MacContext context(EVP_MAC_CTX_new(FetchMac(name)));
  const OSSL_PARAM parameters[] = {
      OSSL_PARAM_construct_utf8_string(parameter, const_cast<char*>(value), 0),
      OSSL_PARAM_construct_end()};
  const Key key = KeyOf(16);
  RequireEvp(EVP_MAC_init(context.get(), key.bytes().data(), 16, parameters) == 1);
  const std::vector<uint8_t> payload(kPayloadSize);
  for (auto _ : state) {
    RequireEvp(EVP_MAC_update(context.get(), payload.data(), payload.size()) == 1);
  }
  Count(state);
}
BENCHMARK_CAPTURE(RawMac, HmacSha256, "HMAC", OSSL_MAC_PARAM_DIGEST, "SHA256");
BENCHMARK_CAPTURE(RawMac, AesCmac, "CMAC", OSSL_MAC_PARAM_CIPHER, "AES-128-CBC");

// One EVP_CipherUpdate over the payload: `out` null is GMAC.
void RawCipher(benchmark::State& state, const char* name, size_t key_size, bool has_output) {
  const CipherContext context(EVP_CIPHER_CTX_new());
  const std::vector<uint8_t> nonce(16);
  RequireEvp(EVP_EncryptInit_ex2(context.get(), FetchCipher(name), KeyOf(key_size).bytes().data(),
                                 nonce.data(), nullptr) == 1);
  std::vector<uint8_t> payload(kPayloadSize);
  int written = 0;
  for (auto _ : state) {
    RequireEvp(EVP_EncryptUpdate(context.get(), has_output ? payload.data() : nullptr, &written,
                                 payload.data(), static_cast<int>(payload.size())) == 1);
  }
  Count(state);
}
BENCHMARK_CAPTURE(RawCipher, AesGmac, "AES-128-GCM", 16, false);
BENCHMARK_CAPTURE(RawCipher, Aes128Gcm, "AES-128-GCM", 16, true)->Iterations(2000);
BENCHMARK_CAPTURE(RawCipher, Aes256Gcm, "AES-256-GCM", 32, true)->Iterations(2000);
BENCHMARK_CAPTURE(RawCipher, Aes128Cbc, "AES-128-CBC", 16, true);

void Encrypt(benchmark::State& state, CipherId id, size_t key_size) {
  Cipher cipher(id, KeyOf(key_size));
  const std::vector<uint8_t> fixed(kFixedSize);
  const std::vector<uint8_t> payload(kPayloadSize);
  const Bytes message[] = {fixed, payload};
  std::vector<uint8_t> frame(kTransformHeaderSize + kFixedSize + kPayloadSize);
  uint64_t nonce = 0;
  for (auto _ : state) cipher.Encrypt(1, ++nonce, message, absl::MakeSpan(frame));
  Count(state);
}
BENCHMARK_CAPTURE(Encrypt, Aes128Ccm, CipherId::kAes128Ccm, 16);
BENCHMARK_CAPTURE(Encrypt, Aes128Gcm, CipherId::kAes128Gcm, 16);
BENCHMARK_CAPTURE(Encrypt, Aes256Ccm, CipherId::kAes256Ccm, 32);
BENCHMARK_CAPTURE(Encrypt, Aes256Gcm, CipherId::kAes256Gcm, 32);

void Decrypt(benchmark::State& state, CipherId id, size_t key_size) {
  Cipher cipher(id, KeyOf(key_size));
  std::vector<uint8_t> message(kFixedSize + kPayloadSize);
  std::vector<uint8_t> frame(kTransformHeaderSize + message.size());
  const Bytes whole = message;
  cipher.Encrypt(1, 1, absl::MakeConstSpan(&whole, 1), absl::MakeSpan(frame));
  const TransformHeader header = *DecodeTransformHeader(frame);
  const MutableBytes ciphertext = absl::MakeSpan(frame).subspan(kTransformHeaderSize);
  std::vector<uint8_t> fixed(kFixedSize);
  std::vector<uint8_t> payload(kPayloadSize);
  const MutableBytes pieces[] = {absl::MakeSpan(fixed), absl::MakeSpan(payload)};
  // CCM decrypts in place first; after one round the ciphertext is no longer one, so it is allowed
  // to fail there: the work is the same.
  for (auto _ : state) benchmark::DoNotOptimize(cipher.Decrypt(header, ciphertext, pieces).ok());
  Count(state);
}
BENCHMARK_CAPTURE(Decrypt, Aes128Ccm, CipherId::kAes128Ccm, 16);
BENCHMARK_CAPTURE(Decrypt, Aes128Gcm, CipherId::kAes128Gcm, 16);
BENCHMARK_CAPTURE(Decrypt, Aes256Gcm, CipherId::kAes256Gcm, 32);

}  // namespace
}  // namespace dfscsi::smb::wire
