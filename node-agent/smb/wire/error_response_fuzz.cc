#include <cstddef>
#include <cstdint>

#include "node-agent/smb/wire/error_response.h"
#include "node-agent/smb/wire/round_trip.h"

namespace dfscsi::smb::wire {
namespace {

void FuzzOne(const FuzzInput& input) {
  switch (input.choice) {
    case 0:
      RoundTrip(input.body, DecodeErrorResponse, [](const ErrorResponse& response, Writer& writer) {
        RequiredBufferSize(response);
        EncodeErrorResponse(response, /*as_context=*/false, writer);
      });
      break;
    case 1:
      RoundTrip(input.body, DecodeErrorResponse, [](const ErrorResponse& response, Writer& writer) {
        EncodeErrorResponse(response, /*as_context=*/true, writer);
      });
      break;
    case 2:
      RoundTrip(input.body, DecodeSymlinkError, EncodeSymlinkError);
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
