#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <string_view>

#include "node-agent/state/mounter_protocol.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  using dfscsi::state::DecodeMessage;
  using dfscsi::state::EncodeMessage;
  const auto envelope = DecodeMessage(std::string_view(reinterpret_cast<const char*>(bytes), size));
  if (!envelope.ok()) return 0;
  // What was understood is written and read again as the same.
  const std::string packet = EncodeMessage(envelope->message, envelope->request_id);
  const auto again = DecodeMessage(packet);
  if (!again.ok() || EncodeMessage(again->message, again->request_id) != packet) abort();
  return 0;
}
