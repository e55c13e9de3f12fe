#include <cstddef>
#include <cstdint>

#include "node-agent/smb/wire/fs_information.h"
#include "node-agent/smb/wire/round_trip.h"

namespace dfscsi::smb::wire {
namespace {

void FuzzOne(const FuzzInput& input) {
  switch (input.choice) {
    case 0:
      RoundTrip(input.body, DecodeFsVolumeInformation, EncodeFsVolumeInformation);
      break;
    case 1:
      RoundTrip(input.body, DecodeFsSizeInformation, EncodeFsSizeInformation);
      break;
    case 2:
      RoundTrip(input.body, DecodeFsFullSizeInformation, EncodeFsFullSizeInformation);
      break;
    case 3:
      RoundTrip(input.body, DecodeFsAttributeInformation, EncodeFsAttributeInformation);
      break;
    case 4:
      RoundTrip(input.body, DecodeFsSectorSizeInformation, EncodeFsSectorSizeInformation);
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
