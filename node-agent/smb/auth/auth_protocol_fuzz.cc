// The first byte chooses: a request, a reply, or a stream to be cut into frames. What decodes must
// encode to the same bytes again.

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <algorithm>
#include <string_view>

#include "node-agent/smb/auth/auth_protocol.h"

namespace {

using namespace dfscsi::smb::auth;  // NOLINT(build/namespaces)

void Expect(bool condition) {
  if (!condition) abort();
}

std::string_view NameOf(const Reply& reply) {
  if (const auto* failure = std::get_if<Failure>(&reply)) {
    return FailureClassName(failure->failure_class);
  }
  return MechanismName(std::get<Token>(reply).mechanism);
}

void CutIntoFrames(std::string_view stream) {
  FrameReader reader;
  while (!stream.empty()) {
    const absl::Span<char> space = reader.Space();
    Expect(!space.empty());
    const size_t n = std::min<size_t>({space.size(), stream.size(), 7});
    memcpy(space.data(), stream.data(), n);
    stream.remove_prefix(n);
    const auto frame = reader.Received(n);
    if (!frame.ok()) return;
    if (frame->has_value()) (void)DecodeReply((*frame)->Expose()).ok();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view input(reinterpret_cast<const char*>(data) + 1, size - 1);
  switch (data[0] % 3) {
    case 0:
      if (const auto request = DecodeRequest(input); request.ok()) {
        Expect(EncodeRequest(*request)->Expose().substr(4) == input);
      }
      break;
    case 1:
      if (const auto reply = DecodeReply(input); reply.ok()) {
        Expect(EncodeReply(*reply)->Expose().substr(4) == input);
        Expect(NameOf(*reply) != "unknown");
      }
      break;
    default:
      CutIntoFrames(input);
  }
  return 0;
}
