#include <cstddef>
#include <cstdint>

#include "node-agent/smb/wire/negotiate.h"
#include "node-agent/smb/wire/round_trip.h"

namespace dfscsi::smb::wire {
namespace {

void FuzzOne(const FuzzInput& input) {
  switch (input.choice) {
    case 0:
      RoundTrip(input.body, DecodeNegotiateRequest, EncodeNegotiateRequest);
      break;
    case 1:
      RoundTrip(input.body, DecodeNegotiateResponse, EncodeNegotiateResponse);
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
