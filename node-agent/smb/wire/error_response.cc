#include "node-agent/smb/wire/error_response.h"

#include <algorithm>

#include "node-agent/smb/wire/body.h"
#include "node-agent/smb/wire/reparse.h"

namespace dfscsi::smb::wire {
namespace {

constexpr uint32_t kErrorIdDefault = 0;
constexpr size_t kErrorContextFixedSize = 8;
constexpr uint32_t kSymlinkErrorTag = 0x4C4D5953;  // 'SYML'
constexpr uint32_t kSymlinkRelative = 1;

// The data of the first context with the default id.
absl::StatusOr<Bytes> FindDefaultContext(Bytes contexts, uint8_t count) {
  constexpr std::string_view kWhat = "error context";
  Bytes found;
  bool any = false;
  for (uint8_t i = 0; i < count; ++i) {
    Reader reader(contexts);
    const uint32_t length = reader.U32();
    const uint32_t id = reader.U32();
    const Bytes data = reader.Take(length);
    if (!reader.ok()) return MalformedError(kWhat, "too short");
    if (id == kErrorIdDefault && !any) {
      found = data;
      any = true;
    }
    // size_t, and offset() is no more than the buffer's size: rounding up cannot wrap.
    const size_t next = (reader.offset() + 7) & ~size_t{7};
    contexts.remove_prefix(std::min(next, contexts.size()));
  }
  return found;
}

}  // namespace

void EncodeErrorResponse(const ErrorResponse& response, bool as_context, Writer& writer) {
  writer.U16(9);
  writer.U8(as_context ? 1 : 0);
  writer.U8(0);
  const size_t data_size = response.error_data.size();
  writer.Length32(data_size + (as_context ? kErrorContextFixedSize : 0));
  if (as_context) {
    writer.Length32(data_size);
    writer.U32(kErrorIdDefault);
  }
  writer.Append(response.error_data);
  if (data_size == 0 && !as_context) writer.U8(0);
}

absl::StatusOr<ErrorResponse> DecodeErrorResponse(Bytes body) {
  BodyReader reader(body, 9, "error response");
  const uint8_t context_count = reader.U8();
  reader.Skip(1);
  const uint32_t byte_count = reader.U32();
  const Bytes data = reader.Take(byte_count);
  if (!reader.ok()) return reader.status();
  ErrorResponse response;
  if (context_count == 0) {
    response.error_data = data;
    return response;
  }
  absl::StatusOr<Bytes> found = FindDefaultContext(data, context_count);
  if (!found.ok()) return std::move(found).status();
  response.error_data = *found;
  return response;
}

void EncodeSymlinkError(const SymlinkError& error, Writer& writer) {
  const size_t substitute_bytes = error.substitute_name.size() * 2;
  const size_t print_bytes = error.print_name.size() * 2;
  const size_t names_bytes = substitute_bytes + print_bytes;
  writer.Length32(24 + names_bytes);  // SymLinkLength: all behind itself.
  writer.U32(kSymlinkErrorTag);
  writer.U32(kTagSymlink);
  writer.Length16(12 + names_bytes);
  writer.U16(error.unparsed_bytes);
  writer.U16(0);
  writer.Length16(substitute_bytes);
  writer.Length16(substitute_bytes);
  writer.Length16(print_bytes);
  writer.U32(error.relative ? kSymlinkRelative : 0);
  writer.Utf16(error.substitute_name);
  writer.Utf16(error.print_name);
}

absl::StatusOr<SymlinkError> DecodeSymlinkError(Bytes error_data) {
  constexpr std::string_view kWhat = "symlink error";
  Reader reader(error_data);
  const uint32_t length = reader.U32();
  const uint32_t error_tag = reader.U32();
  const uint32_t reparse_tag = reader.U32();
  reader.Skip(2);  // ReparseDataLength: the names are bounded by what is here.
  SymlinkError error;
  error.unparsed_bytes = reader.U16();
  const uint16_t substitute_offset = reader.U16();
  const uint16_t substitute_length = reader.U16();
  const uint16_t print_offset = reader.U16();
  const uint16_t print_length = reader.U16();
  const uint32_t flags = reader.U32();
  const Bytes names = reader.Take(reader.remaining());
  if (!reader.ok()) return MalformedError(kWhat, "too short");
  if (length > error_data.size() - 4) return MalformedError(kWhat, "longer than its data");
  if (error_tag != kSymlinkErrorTag || reparse_tag != kTagSymlink) {
    return MalformedError(kWhat, "wrong tag");
  }
  Bytes substitute;
  Bytes print;
  if (!Slice(names, substitute_offset, substitute_length, &substitute) ||
      !Slice(names, print_offset, print_length, &print)) {
    return MalformedError(kWhat, "name outside its data");
  }
  if (substitute_length % 2 != 0 || print_length % 2 != 0 || error.unparsed_bytes % 2 != 0) {
    return MalformedError(kWhat, "string of odd length");
  }
  error.relative = (flags & kSymlinkRelative) != 0;
  error.substitute_name = Utf16FromBytes(substitute);
  error.print_name = Utf16FromBytes(print);
  return error;
}

std::optional<uint32_t> RequiredBufferSize(const ErrorResponse& response) {
  if (response.error_data.size() < 4) return std::nullopt;
  return Reader(response.error_data).U32();
}

}  // namespace dfscsi::smb::wire
