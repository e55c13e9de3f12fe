#include <cstddef>
#include <cstdint>

#include "node-agent/smb/wire/file_information.h"
#include "node-agent/smb/wire/record_list.h"
#include "node-agent/smb/wire/round_trip.h"

namespace dfscsi::smb::wire {
namespace {

void FuzzOne(const FuzzInput& input) {
  switch (input.choice) {
    case 0:
      RoundTrip(input.body, DecodeBasicInformation, EncodeBasicInformation);
      break;
    case 1:
      RoundTrip(input.body, DecodeStandardInformation, EncodeStandardInformation);
      break;
    case 2:
      RoundTrip(input.body, DecodeInternalInformation, EncodeInternalInformation);
      break;
    case 3:
      RoundTrip(input.body, DecodeAllInformation,
                [](const AllInformation& information, Writer& writer) {
                  EncodeAllInformation(information, u"\\name", writer);
                });
      break;
    case 4:
      RoundTrip(input.body, DecodeNetworkOpenInformation, EncodeNetworkOpenInformation);
      break;
    case 5:
      RoundTrip(input.body, DecodeAttributeTagInformation, EncodeAttributeTagInformation);
      break;
    case 6:
      RoundTrip(input.body, DecodeNormalizedName, EncodeNormalizedName);
      break;
    case 7:
      RoundTrip(input.body, DecodeRenameInformation, EncodeRenameInformation);
      break;
    case 8:
      RoundTrip(input.body, DecodeRenameExInformation, EncodeRenameExInformation);
      break;
    case 9:
      RoundTrip(input.body, DecodeDispositionInformation, EncodeDispositionInformation);
      break;
    case 10:
      RoundTrip(input.body, DecodeDispositionExInformation, EncodeDispositionExInformation);
      break;
    case 11:
      RoundTrip(input.body, DecodeSizeInformation, EncodeSizeInformation);
      break;
    case 12:
      RoundTrip(input.body, DecodeExtendedAttributes, EncodeExtendedAttributes);
      break;
    case 13:
      RoundTrip(input.body, DecodeStreams, EncodeStreams);
      break;
    case 14:
      RoundTrip(input.body, DecodeExtendedAttributeNames, EncodeExtendedAttributeNames);
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
