// For this folder's tests: bytes from and to hexadecimal, numbers at offsets.

#ifndef NODE_AGENT_SMB_WIRE_TEST_BYTES_H_
#define NODE_AGENT_SMB_WIRE_TEST_BYTES_H_

#include <string.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/strings/escaping.h"
#include "node-agent/smb/wire/reader.h"
#include "node-agent/smb/wire/writer.h"

namespace dfscsi::smb::wire {

inline std::vector<uint8_t> FromHex(std::string_view hex) {
  const std::string bytes = absl::HexStringToBytes(absl::string_view(hex.data(), hex.size()));
  return std::vector<uint8_t>(bytes.begin(), bytes.end());
}

inline std::string ToHex(Bytes bytes) {
  return absl::BytesToHexString(
      absl::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
}

template <typename T>
T NumberIn(Bytes bytes, size_t offset) {
  T value = 0;
  memcpy(&value, bytes.subspan(offset, sizeof(T)).data(), sizeof(T));
  return value;
}

template <typename T>
void SetNumber(std::vector<uint8_t>& bytes, size_t offset, T value) {
  memcpy(absl::MakeSpan(bytes).subspan(offset, sizeof(T)).data(), &value, sizeof(T));
}

// The bytes that `encode` writes, as a body: the header's 64 bytes come before it and are cut off.
template <typename Encode>
std::vector<uint8_t> BodyOf(Encode encode) {
  std::vector<uint8_t> message(64);
  Writer writer(&message, 0);
  encode(writer);
  message.erase(message.begin(), message.begin() + 64);
  return message;
}

}  // namespace dfscsi::smb::wire

#endif  // NODE_AGENT_SMB_WIRE_TEST_BYTES_H_
