#include <cstddef>
#include <cstdint>

#include "node-agent/smb/wire/query.h"
#include "node-agent/smb/wire/round_trip.h"

namespace dfscsi::smb::wire {
namespace {

void FuzzOne(const FuzzInput& input) {
  switch (input.choice) {
    case 0:
      RoundTrip(input.body, DecodeQueryDirectoryRequest, EncodeQueryDirectoryRequest);
      break;
    case 1:
      RoundTrip(input.body, DecodeOutputBuffer, EncodeOutputBuffer);
      break;
    case 2:
      RoundTrip(input.body, DecodeQueryInfoRequest, EncodeQueryInfoRequest);
      break;
    case 3:
      RoundTrip(input.body, DecodeSetInfoRequest, EncodeSetInfoRequest);
      break;
    case 4:
      RoundTrip(input.body, DecodeChangeNotifyRequest, EncodeChangeNotifyRequest);
      break;
    case 5:
      if (DecodeSetInfoResponse(input.body).ok()) {
        std::vector<uint8_t> body;
        Writer writer(&body);
        EncodeSetInfoResponse(writer);
        Require(DecodeSetInfoResponse(body).ok());
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
