// For this folder's fuzz targets.

#ifndef NODE_AGENT_SMB_WIRE_ROUND_TRIP_H_
#define NODE_AGENT_SMB_WIRE_ROUND_TRIP_H_

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "node-agent/smb/wire/header.h"
#include "node-agent/smb/wire/reader.h"
#include "node-agent/smb/wire/writer.h"

namespace dfscsi::smb::wire {

// Ends the process: the fuzzer takes it as a finding.
inline void Require(bool ok) {
  if (!ok) abort();
}

// What `encode` writes behind a header, or nothing if it does not fit its fields.
template <typename Message, typename Encode>
std::vector<uint8_t> EncodeForRoundTrip(const Message& message, Encode encode) {
  std::vector<uint8_t> bytes(kHeaderSize);
  Writer writer(&bytes, 0);
  encode(message, writer);
  if (!writer.ok()) return {};
  return {bytes.begin() + kHeaderSize, bytes.end()};
}

// A body is malformed (kDataLoss), or what it decodes to can be encoded so that it decodes and
// encodes to the same bytes again.
template <typename Decode, typename Encode>
void RoundTrip(Bytes body, Decode decode, Encode encode) {
  const auto first = decode(body);
  if (!first.ok()) return Require(first.status().code() == absl::StatusCode::kDataLoss);
  const std::vector<uint8_t> encoded = EncodeForRoundTrip(*first, encode);
  if (encoded.empty()) return;  // Too long, or an empty list.
  const auto second = decode(Bytes(encoded));
  Require(second.ok());
  Require(EncodeForRoundTrip(*second, encode) == encoded);
}

// Not by utf16.h: that is another target's, and counts there.
inline std::u16string UnitsOf(Bytes bytes) {
  std::u16string units(bytes.size() / 2, u'\0');
  std::copy_n(bytes.begin(), units.size() * 2, reinterpret_cast<uint8_t*>(units.data()));
  return units;
}

// The first byte of an input says which decoder the rest is for.
struct FuzzInput {
  FuzzInput(const uint8_t* data, size_t size)
      : choice(size == 0 ? 0 : data[0]), body(Bytes(data, size).subspan(size == 0 ? 0 : 1)) {}

  uint8_t choice;
  Bytes body;
};

}  // namespace dfscsi::smb::wire

#endif  // NODE_AGENT_SMB_WIRE_ROUND_TRIP_H_
