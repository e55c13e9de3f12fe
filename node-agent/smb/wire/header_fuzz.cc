#include <cstddef>
#include <cstdint>
#include <vector>

#include "node-agent/smb/wire/header.h"
#include "node-agent/smb/wire/round_trip.h"

namespace dfscsi::smb::wire {
namespace {

// What a receiver does with one part of a frame.
void LookAtPart(const Part& part) {
  Require(part.message.size() == part.body.size() + kHeaderSize);
  CommandName(part.header.command);
  IsInterim(part.header);
  HasOwnBody(part.header, part.body);
  // Once as the request it answers, once with everything off by one.
  SentRequest request = {part.header.command, part.header.message_id, part.header.session_id,
                         part.header.tree_id, std::nullopt};
  CheckResponse(part.header, request).IgnoreError();
  request.async_id = part.header.async_id;
  CheckResponse(part.header, request).IgnoreError();
  request.async_id = part.header.async_id + 1;
  CheckResponse(part.header, request).IgnoreError();
  ++request.tree_id;
  CheckResponse(part.header, request).IgnoreError();
  ++request.session_id;
  CheckResponse(part.header, request).IgnoreError();

  std::vector<uint8_t> copy;
  Writer writer(&copy);
  EncodeHeader(part.header, writer);
  writer.Append(part.body);
  const absl::StatusOr<Header> again = DecodeHeader(copy);
  Require(again.ok() && again->message_id == part.header.message_id &&
          again->tree_id == part.header.tree_id && again->async_id == part.header.async_id);
  PatchNextCommand(absl::MakeSpan(copy), 0);
  PatchSignature(absl::MakeSpan(copy), part.header.signature);
  PartReader reader(copy);
  Require(reader.Next().ok() && reader.done());
}

void FuzzFrame(Bytes frame) {
  PartReader parts(frame);
  while (!parts.done()) {
    const absl::StatusOr<Part> part = parts.Next();
    if (part.ok()) LookAtPart(*part);
  }
  Require(!parts.Next().ok());
}

void FuzzTransform(Bytes frame) {
  const absl::StatusOr<TransformHeader> header = DecodeTransformHeader(frame);
  if (!header.ok()) return;
  std::vector<uint8_t> copy(kTransformHeaderSize);
  EncodeTransformHeader(*header, absl::MakeSpan(copy));
  Require(Bytes(copy) == frame.first(kTransformHeaderSize));
}

void FuzzPrefix(Bytes prefix) {
  const absl::StatusOr<uint32_t> size = DecodeFramePrefix(prefix, 1 << 20);
  if (size.ok()) Require(Bytes(FramePrefix(*size)) == prefix.first(kFramePrefixSize));
}

}  // namespace
}  // namespace dfscsi::smb::wire

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace dfscsi::smb::wire;
  const Bytes frame(data, size);
  FuzzPrefix(frame);
  switch (KindOfFrame(frame)) {
    case FrameKind::kEncrypted:
      FuzzTransform(frame);
      break;
    default:
      FuzzFrame(frame);
      break;
  }
  return 0;
}
