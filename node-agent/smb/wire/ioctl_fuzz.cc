#include <cstddef>
#include <cstdint>

#include "node-agent/smb/wire/ioctl.h"
#include "node-agent/smb/wire/round_trip.h"

namespace dfscsi::smb::wire {
namespace {

void FuzzOne(const FuzzInput& input) {
  switch (input.choice) {
    case 0:
      RoundTrip(input.body, DecodeIoctlRequest, EncodeIoctlRequest);
      break;
    case 1:
      RoundTrip(input.body, DecodeIoctlResponse, EncodeIoctlResponse);
      break;
    case 2:
      RoundTrip(input.body, DecodeValidateNegotiateRequest, EncodeValidateNegotiateRequest);
      break;
    case 3:
      RoundTrip(input.body, DecodeValidateNegotiateResponse, EncodeValidateNegotiateResponse);
      break;
    case 4:
      RoundTrip(input.body, DecodeFileRanges, EncodeFileRanges);
      break;
    case 5:
      RoundTrip(input.body, DecodeZeroRange, EncodeZeroRange);
      break;
    case 6:
      RoundTrip(input.body, DecodeResumeKeyResponse, EncodeResumeKeyResponse);
      break;
    case 7:
      RoundTrip(input.body, DecodeCopyChunkRequest, EncodeCopyChunkRequest);
      break;
    case 8:
      RoundTrip(input.body, DecodeCopyChunkResponse, EncodeCopyChunkResponse);
      break;
    case 9:
      RoundTrip(input.body, DecodeSetSparse, EncodeSetSparse);
      break;
    case 10:
      RoundTrip(input.body, DecodeDuplicateExtents, EncodeDuplicateExtents);
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
