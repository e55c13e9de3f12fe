// What the .cc files of Tree share. Private to them.

#ifndef NODE_AGENT_SMB_TREE_INTERNAL_H_
#define NODE_AGENT_SMB_TREE_INTERNAL_H_

#include <string>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "node-agent/smb/connection.h"
#include "node-agent/smb/wire/create.h"
#include "node-agent/smb/wire/io.h"

namespace dfscsi::smb {

// How long a message that nobody waits for may be on its way.
inline constexpr absl::Duration kUnwaited = absl::Seconds(30);

inline wire::CreateRequest OpenToLook(std::u16string path) {
  wire::CreateRequest create;
  create.desired_access = wire::kAccessReadAttributes;
  create.options = wire::kOptionOpenReparsePoint;
  create.name = std::move(path);
  return create;
}

// Acts on the handle that the CREATE before it in the same frame opens.
template <class Encode, class Body>
Request MakeRelated(wire::Command command, Encode encode, Body body) {
  body.file_id = wire::kNoFileId;
  Request request = MakeRequest(command, encode, body);
  request.related = true;
  return request;
}

inline Request MakeRelatedClose() {
  return MakeRelated(wire::Command::kClose, wire::EncodeCloseRequest, wire::CloseRequest{});
}

// The bytes that an encoder of an information class or an FSCTL writes.
template <class Encode, class... Values>
std::vector<uint8_t> Encoded(Encode encode, const Values&... values) {
  std::vector<uint8_t> bytes;
  wire::Writer writer(&bytes);
  encode(values..., writer);
  return bytes;
}

}  // namespace dfscsi::smb

#endif  // NODE_AGENT_SMB_TREE_INTERNAL_H_
