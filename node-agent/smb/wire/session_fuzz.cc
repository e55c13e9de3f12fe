#include <cstddef>
#include <cstdint>

#include "node-agent/smb/wire/round_trip.h"
#include "node-agent/smb/wire/session.h"

namespace dfscsi::smb::wire {
namespace {

void FuzzOne(const FuzzInput& input) {
  switch (input.choice) {
    case 0:
      RoundTrip(input.body, DecodeSessionSetupRequest, EncodeSessionSetupRequest);
      break;
    case 1:
      RoundTrip(input.body, DecodeSessionSetupResponse, EncodeSessionSetupResponse);
      break;
    case 2:
      RoundTrip(input.body, DecodeTreeConnectRequest, EncodeTreeConnectRequest);
      break;
    case 3:
      RoundTrip(input.body, DecodeTreeConnectResponse, EncodeTreeConnectResponse);
      break;
    case 4:
      if (DecodeEmptyBody(input.body).ok()) {
        std::vector<uint8_t> body;
        Writer writer(&body);
        EncodeEmptyBody(writer);
        Require(DecodeEmptyBody(body).ok());
      }
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
