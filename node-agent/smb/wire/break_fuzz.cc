#include <cstddef>
#include <cstdint>

#include "node-agent/smb/wire/break.h"
#include "node-agent/smb/wire/round_trip.h"

namespace dfscsi::smb::wire {
namespace {

struct BreakEncoder {
  Writer& writer;
  void operator()(const OplockBreak& message) const { EncodeOplockBreak(message, writer); }
  void operator()(const LeaseBreakNotification& message) const {
    EncodeLeaseBreakNotification(message, writer);
  }
  void operator()(const LeaseBreakAck& message) const { EncodeLeaseBreakAck(message, writer); }
};

void EncodeBreak(const Break& message, Writer& writer) {
  std::visit(BreakEncoder{writer}, message);
}

void FuzzOne(const FuzzInput& input) {
  switch (input.choice) {
    case 0:
      RoundTrip(input.body, DecodeBreak, EncodeBreak);
      break;
    default:
      break;
  }
}

}  // namespace
}  // namespace dfscsi::smb::wire

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  dfscsi::smb::wire::FuzzOne({data, size});
  return 0;
}
