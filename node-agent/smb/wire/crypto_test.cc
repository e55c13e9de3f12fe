// Vectors of a reference implementation that interoperates with Samba in every variant.

#include <gtest/gtest.h>

#include "node-agent/smb/wire/cipher.h"
#include "node-agent/smb/wire/crypto_key.h"
#include "node-agent/smb/wire/signer.h"
#include "node-agent/smb/wire/test_bytes.h"

namespace dfscsi::smb::wire {
namespace {

constexpr char kSessionKey[] = "000102030405060708090a0b0c0d0e0f";
constexpr char kFullSessionKey[] =
    "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
constexpr char kPreauthHash[] =
    "c6e7ca92df1adca2ca077876bf29a1dbe922770f3895982807de03ec28985a0c49b4c24b73eeba87d66695a7f1d0b1"
    "e82eaa98e7b394d9b13205fd8b35161de1";
constexpr char kEcho[] =
    "fe534d4240000100000000000d00010008000000000000000700000000000000fffe00000500000088776655443322"
    "110000000000000000000000000000000004000000";
constexpr uint64_t kSessionId = 0x1122334455667788;

PreauthHash VectorHash() {
  PreauthHash::Value value;
  const std::vector<uint8_t> bytes = FromHex(kPreauthHash);
  std::copy(bytes.begin(), bytes.end(), value.begin());
  return PreauthHash(value);
}

TEST(KeyDerivationTest, MatchesTheVectors) {
  const struct {
    Dialect dialect;
    CipherId cipher;
    const char* signing;
    const char* application;
    const char* client_to_server;
    const char* server_to_client;
  } kCases[] = {
      {Dialect::k210, CipherId::kNone, kSessionKey, "", "", ""},
      {Dialect::k300, CipherId::kAes128Ccm, "6234814cbb8ea9227440ebfeb5eacbe1",
       "2061e31cbe99e5c6493e3fbbd4faf495", "8e21f3cae16d07d84c03d74467f57878",
       "95d8b55c852cd25349994b3842fa4105"},
      {Dialect::k302, CipherId::kAes128Ccm, "6234814cbb8ea9227440ebfeb5eacbe1",
       "2061e31cbe99e5c6493e3fbbd4faf495", "8e21f3cae16d07d84c03d74467f57878",
       "95d8b55c852cd25349994b3842fa4105"},
      {Dialect::k311, CipherId::kAes128Gcm, "f3c336ded1ee620342ebef0a94d59b41",
       "ea6ecfb46e7151eadec0f7ddaec76fe3", "a2e5ceead524dde0e5e206d745201660",
       "4777a7be71cf466d319e48356b593dff"},
      {Dialect::k311, CipherId::kAes256Gcm, "f3c336ded1ee620342ebef0a94d59b41",
       "ea6ecfb46e7151eadec0f7ddaec76fe3",
       "1b19b44ea1974cfa08b89572a0c58b96e913d920a00a2c89b1f3907c0bcf4cde",
       "8f9703ce24b654615d6e649d44b61686d32588cdd11d29d9d080186774d00f90"},
  };
  for (const auto& test : kCases) {
    const SessionKeys keys =
        DeriveSessionKeys(test.dialect, test.cipher, FromHex(kFullSessionKey), VectorHash());
    EXPECT_EQ(ToHex(keys.signing.bytes()), test.signing);
    EXPECT_EQ(ToHex(keys.application.bytes()), test.application);
    EXPECT_EQ(ToHex(keys.client_to_server.bytes()), test.client_to_server);
    EXPECT_EQ(ToHex(keys.server_to_client.bytes()), test.server_to_client);
  }
}

TEST(KeyDerivationTest, AShortGssKeyIsPaddedWithZerosForAllBut256BitCiphers) {
  const std::vector<uint8_t> short_key = FromHex("0102030405060708");
  const std::vector<uint8_t> padded = FromHex("01020304050607080000000000000000");
  EXPECT_EQ(ToHex(DeriveSigningKey(Dialect::k210, short_key, PreauthHash()).bytes()),
            ToHex(padded));
  const SessionKeys keys =
      DeriveSessionKeys(Dialect::k311, CipherId::kAes256Gcm, short_key, VectorHash());
  const SessionKeys of_padded =
      DeriveSessionKeys(Dialect::k311, CipherId::kAes256Gcm, padded, VectorHash());
  EXPECT_EQ(ToHex(keys.signing.bytes()), ToHex(of_padded.signing.bytes()));
  // HMAC pads keys with zeros itself, so even these agree.
  EXPECT_EQ(ToHex(keys.client_to_server.bytes()), ToHex(of_padded.client_to_server.bytes()));
}

TEST(KeyDerivationTest, AnEmptyKeyDoesNotCrash) {
  EXPECT_EQ(DeriveKey({}, "label", {}, 16).bytes().size(), 16u);
}

TEST(PreauthHashTest, ChainsSha512InPiecesOrWhole) {
  const std::vector<uint8_t> message = FromHex("00112233445566778899");
  PreauthHash whole;
  whole.Update(message);
  // SHA512(64 zeros ‖ message), from another implementation.
  EXPECT_EQ(ToHex(whole.value()),
            "34b1201407720e33ffbb11385259a6bcf85c961323eb9613c4a57ad5d03ae8e0003671e934f6a40e0cc3e2"
            "427ffaec1bd8c3a1da2d0b4cc737ddd88b130db131");
  PreauthHash pieces;
  const Bytes parts[] = {Bytes(message).first(3), Bytes(message).subspan(3)};
  pieces.Update(parts);
  EXPECT_EQ(pieces.value(), whole.value());
  whole.Update(message);
  EXPECT_NE(pieces.value(), whole.value());
}

struct SignatureCase {
  const char* name;
  SigningId algorithm;
  Peer self;
  Command command;
  const char* signature;
};
constexpr SignatureCase kSignatures[] = {
    {"HMAC", SigningId::kHmacSha256, Peer::kClient, Command::kEcho,
     "da04b2e0cf3d810a0a2eed4fdfd1fb59"},
    {"CMAC", SigningId::kAesCmac, Peer::kClient, Command::kEcho,
     "ad5f2c8524d3ce90215d49bd5c6c4650"},
    {"GMAC", SigningId::kAesGmac, Peer::kClient, Command::kEcho,
     "7623b5bab5fbe1d018594e06dce662c4"},
    {"GMAC server", SigningId::kAesGmac, Peer::kServer, Command::kEcho,
     "d73b7b7d3845cf3ed1776ac6ba18b999"},
    {"GMAC CANCEL", SigningId::kAesGmac, Peer::kClient, Command::kCancel,
     "3ff6e101b4cc84fde93032dda2a18420"},
};

std::vector<uint8_t> MessageOf(const SignatureCase& test) {
  std::vector<uint8_t> message = FromHex(kEcho);
  SetNumber<uint16_t>(message, 12, static_cast<uint16_t>(test.command));
  return message;
}

TEST(SignerTest, MatchesTheVectors) {
  for (const SignatureCase& test : kSignatures) {
    Signer signer(test.algorithm, Key(FromHex(kSessionKey)), test.self);
    const std::vector<uint8_t> message = MessageOf(test);
    // Twice: the context must be as new.
    EXPECT_EQ(ToHex(signer.Sign(message)), test.signature) << test.name;
    EXPECT_EQ(ToHex(signer.Sign(message)), test.signature) << test.name;
  }
}

TEST(SignerTest, PiecesAndStaleSignaturesMakeNoDifference) {
  for (const SignatureCase& test : kSignatures) {
    Signer signer(test.algorithm, Key(FromHex(kSessionKey)), test.self);
    std::vector<uint8_t> message = MessageOf(test);
    for (size_t i = 0; i < 300; ++i) message.push_back(static_cast<uint8_t>(i));
    const Signature whole = signer.Sign(message);
    PatchSignature(absl::MakeSpan(message), Signature{1, 2, 3});
    for (const size_t cut : {64, 65, 112, 200, 368}) {
      const Bytes pieces[] = {Bytes(message).first(cut), Bytes(), Bytes(message).subspan(cut)};
      EXPECT_EQ(signer.Sign(pieces), whole) << test.name << " " << cut;
    }
  }
}

TEST(SignerTest, VerifiesAndNoticesEveryFlippedBit) {
  for (const SignatureCase& test : kSignatures) {
    Signer signer(test.algorithm, Key(FromHex(kSessionKey)), test.self);
    std::vector<uint8_t> message = MessageOf(test);
    PatchSignature(absl::MakeSpan(message), signer.Sign(message));
    Signer peer(test.algorithm, Key(FromHex(kSessionKey)),
                test.self == Peer::kClient ? Peer::kServer : Peer::kClient);
    EXPECT_TRUE(peer.Verify(message).ok()) << test.name;
    // With GMAC a message is of no use against its own sender.
    EXPECT_EQ(signer.Verify(message).ok(), test.algorithm != SigningId::kAesGmac) << test.name;
    for (size_t bit = 0; bit < message.size() * 8; ++bit) {
      message[bit / 8] ^= 1 << bit % 8;
      EXPECT_EQ(peer.Verify(message).code(), absl::StatusCode::kDataLoss)
          << test.name << " " << bit;
      message[bit / 8] ^= 1 << bit % 8;
    }
    Signer other(test.algorithm, Key(FromHex("ff0102030405060708090a0b0c0d0e0f")), Peer::kServer);
    EXPECT_FALSE(other.Verify(message).ok());
  }
}

TEST(SignerTest, AMessageShorterThanAHeaderIsMalformed) {
  Signer signer(SigningId::kAesGmac, Key(FromHex(kSessionKey)));
  const std::vector<uint8_t> message = FromHex(kEcho);
  EXPECT_FALSE(signer.Verify(Bytes(message).first(63)).ok());
  EXPECT_FALSE(signer.Verify(absl::Span<const Bytes>()).ok());
}

TEST(SignerTest, DefaultsByDialect) {
  EXPECT_EQ(DefaultSigning(Dialect::k210), SigningId::kHmacSha256);
  EXPECT_EQ(DefaultSigning(Dialect::k300), SigningId::kAesCmac);
  EXPECT_EQ(DefaultSigning(Dialect::k311), SigningId::kAesCmac);
}

struct TransformCase {
  const char* name;
  CipherId cipher;
  const char* frame;
};
constexpr TransformCase kTransforms[] = {
    {"CCM128", CipherId::kAes128Ccm,
     "fd534d42855d5ba9eeed54446e027eeafb27af0601000000000000000000000000000000440000000000010088776"
     "6554433221180935508873c7d3274d46444e395f1a217f55e40ad7b02352e290eaf57f4fbdcfaca5c589367ed26b5"
     "21e27fe6e476944665afe730e38e71b9963b4e526f14a0249df751"},
    {"GCM128", CipherId::kAes128Gcm,
     "fd534d422b4858be6801476e5d1a1efee326e77b01000000000000000000000000000000440000000000010088776"
     "65544332211b2ee9447ddb6936e18a438db78ead78a80cad9df57866cec666af4e749369aa9cc65124fea947a5b64"
     "38c52fef04ffac32ae2c14091bdd562b40dda9979d27c1da4ea565"},
    {"CCM256", CipherId::kAes256Ccm,
     "fd534d42bd060f327ecd992d335879472067a6a201000000000000000000000000000000440000000000010088776"
     "655443322111943cd8a815adb658ad5460afb0d1b49b148783dc7fe468b15bae1c0699c1a0ee595a1224a5661ed45"
     "4e184d1786541381e0fecac3667030597103a2f5a426b3c3c93c3b"},
    {"GCM256", CipherId::kAes256Gcm,
     "fd534d4297b506c71dadf6f3a2bed0e0c74123f001000000000000000000000000000000440000000000010088776"
     "655443322111c7fcf7de4afed074a0405c331c189cbcc61cf2e7ca86b12491f5dfe1d2687701302f0c925a2aecf50"
     "aa7b860a3a2299f0d5ce84e5705a978388e07217b42847b8afa492"},
};

class CipherTest : public testing::TestWithParam<TransformCase> {
 protected:
  static Cipher MakeCipher() {
    const bool full =
        GetParam().cipher == CipherId::kAes256Ccm || GetParam().cipher == CipherId::kAes256Gcm;
    return Cipher(GetParam().cipher, Key(FromHex(full ? kFullSessionKey : kSessionKey)));
  }
  static std::vector<uint8_t> UnsignedEcho() {
    std::vector<uint8_t> message = FromHex(kEcho);
    SetNumber<uint32_t>(message, 16, 0);  // Inside an envelope SIGNED is clear.
    return message;
  }
  std::vector<uint8_t> message_ = UnsignedEcho();
  std::vector<uint8_t> frame_ = FromHex(GetParam().frame);
};

TEST_P(CipherTest, EncryptsTheVector) {
  Cipher cipher = MakeCipher();
  std::vector<uint8_t> out(frame_.size());
  for (const size_t cut : {68, 64, 1, 0, 17}) {
    const Bytes pieces[] = {Bytes(message_).first(cut), Bytes(message_).subspan(cut)};
    cipher.Encrypt(kSessionId, 1, pieces, absl::MakeSpan(out));
    EXPECT_EQ(ToHex(out), ToHex(frame_)) << cut;
  }
}

TEST_P(CipherTest, EncryptsInPlace) {
  Cipher cipher = MakeCipher();
  std::vector<uint8_t> out(kTransformHeaderSize);
  out.insert(out.end(), message_.begin(), message_.end());
  const Bytes pieces[] = {Bytes(out).subspan(kTransformHeaderSize)};
  cipher.Encrypt(kSessionId, 1, pieces, absl::MakeSpan(out));
  EXPECT_EQ(ToHex(out), ToHex(frame_));
}

TEST_P(CipherTest, DecryptsTheVectorInPlaceAndInPieces) {
  Cipher cipher = MakeCipher();
  for (const size_t cut : {68, 64, 16, 0}) {
    std::vector<uint8_t> frame = frame_;
    const absl::StatusOr<TransformHeader> header = DecodeTransformHeader(frame);
    ASSERT_TRUE(header.ok());
    EXPECT_EQ(header->session_id, kSessionId);
    std::vector<uint8_t> first(cut);
    std::vector<uint8_t> second(message_.size() - cut);
    const MutableBytes pieces[] = {absl::MakeSpan(first), absl::MakeSpan(second)};
    const MutableBytes ciphertext = absl::MakeSpan(frame).subspan(kTransformHeaderSize);
    const absl::Status status = cipher.Decrypt(*header, ciphertext, pieces);
    ASSERT_TRUE(status.ok()) << status;
    EXPECT_EQ(ToHex(first) + ToHex(second), ToHex(message_)) << cut;
  }
  std::vector<uint8_t> frame = frame_;
  const MutableBytes ciphertext = absl::MakeSpan(frame).subspan(kTransformHeaderSize);
  ASSERT_TRUE(cipher.Decrypt(*DecodeTransformHeader(frame), ciphertext).ok());
  EXPECT_EQ(ToHex(ciphertext), ToHex(message_));
}

TEST_P(CipherTest, PeeksWithoutTheTag) {
  Cipher cipher = MakeCipher();
  const absl::StatusOr<TransformHeader> header = DecodeTransformHeader(frame_);
  for (const size_t size : {0, 1, 16, 40, 68}) {
    std::vector<uint8_t> start(size);
    cipher.Peek(*header, Bytes(frame_).subspan(kTransformHeaderSize, size), absl::MakeSpan(start));
    EXPECT_EQ(ToHex(start), ToHex(Bytes(message_).first(size)));
  }
}

TEST_P(CipherTest, NoticesEveryFlippedBitOfWhatIsAuthenticated) {
  Cipher cipher = MakeCipher();
  // What DecodeTransformHeader refuses need not be noticed again.
  for (size_t byte = 4; byte < frame_.size(); ++byte) {
    for (int bit = 0; bit < 8; ++bit) {
      std::vector<uint8_t> frame = frame_;
      frame[byte] ^= 1 << bit;
      const absl::StatusOr<TransformHeader> header = DecodeTransformHeader(frame);
      if (!header.ok()) continue;
      const MutableBytes ciphertext = absl::MakeSpan(frame).subspan(kTransformHeaderSize);
      EXPECT_EQ(cipher.Decrypt(*header, ciphertext).code(), absl::StatusCode::kDataLoss) << byte;
    }
  }
  // And the context still works after all those failures.
  std::vector<uint8_t> frame = frame_;
  EXPECT_TRUE(cipher
                  .Decrypt(*DecodeTransformHeader(frame),
                           absl::MakeSpan(frame).subspan(kTransformHeaderSize))
                  .ok());
}

TEST_P(CipherTest, LargeFramesRoundTripInterleaved) {
  Cipher cipher = MakeCipher();
  for (uint64_t nonce = 1; nonce <= 3; ++nonce) {
    std::vector<uint8_t> message(1 << 20);
    for (size_t i = 0; i < message.size(); ++i) message[i] = static_cast<uint8_t>(i * nonce >> 3);
    std::vector<uint8_t> frame(kTransformHeaderSize + message.size());
    const Bytes pieces[] = {Bytes(message).first(80), Bytes(message).subspan(80)};
    cipher.Encrypt(kSessionId, nonce, pieces, absl::MakeSpan(frame));
    const MutableBytes ciphertext = absl::MakeSpan(frame).subspan(kTransformHeaderSize);
    ASSERT_TRUE(cipher.Decrypt(*DecodeTransformHeader(frame), ciphertext).ok());
    EXPECT_EQ(Bytes(ciphertext), Bytes(message));
  }
}

INSTANTIATE_TEST_SUITE_P(AllCiphers, CipherTest, testing::ValuesIn(kTransforms),
                         [](const auto& param_info) { return param_info.param.name; });

}  // namespace
}  // namespace dfscsi::smb::wire
