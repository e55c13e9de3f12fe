// What the .cc files of Connection share. Private to them.

#ifndef NODE_AGENT_SMB_CONNECTION_INTERNAL_H_
#define NODE_AGENT_SMB_CONNECTION_INTERNAL_H_

#include <memory>
#include <vector>

#include "node-agent/smb/connection.h"

namespace dfscsi::smb {

// One Call(): its requests until they are sent, its responses until all have come.
struct Connection::CallState {
  std::vector<Request> requests;
  std::vector<Response> responses;
  size_t remaining = 0;
  uint64_t first_message_id = 0;
  bool on_the_wire = false;  // At least one byte was given to the stream.
  bool abandoned = false;    // Nobody waits for it any more.
  absl::Status status;
  runtime::Event done;
};

// For base/death_points.h: a frame of these requests was given to TCP; all its answers have come.
void PassSent(const std::vector<Request>& frame);
void PassAnswered(const std::vector<Request>& frame);

}  // namespace dfscsi::smb

#endif  // NODE_AGENT_SMB_CONNECTION_INTERNAL_H_
