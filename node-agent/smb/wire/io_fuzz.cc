#include <cstddef>
#include <cstdint>

#include "node-agent/smb/wire/file_attributes.h"
#include "node-agent/smb/wire/io.h"
#include "node-agent/smb/wire/round_trip.h"

namespace dfscsi::smb::wire {
namespace {

void FuzzOne(const FuzzInput& input) {
  switch (input.choice) {
    case 0:
      RoundTrip(input.body, DecodeCloseRequest, EncodeCloseRequest);
      break;
    case 1:
      RoundTrip(input.body, DecodeCloseResponse, EncodeCloseResponse);
      break;
    case 2:
      RoundTrip(input.body, DecodeFlushRequest, EncodeFlushRequest);
      break;
    case 3:
      RoundTrip(input.body, DecodeReadRequest, EncodeReadRequest);
      break;
    case 4:
      RoundTrip(
          input.body,
          // The payload counts as received, though only the fixed part is looked at.
          [size = input.body.size()](Bytes body) {
            return DecodeReadResponse(body, kHeaderSize + size);
          },
          EncodeReadResponse);
      break;
    case 5:
      RoundTrip(input.body, DecodeWriteRequest, [](const WriteRequest& request, Writer& writer) {
        EncodeWriteRequest(request, writer);
        writer.Append(request.payload);
      });
      break;
    case 6:
      RoundTrip(input.body, DecodeWriteResponse, EncodeWriteResponse);
      break;
    case 7:
      RoundTrip(input.body, DecodeLockRequest, EncodeLockRequest);
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
